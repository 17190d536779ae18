#!/bin/sh
# Every program reads its command line alike: a wrong option is named, with the one that it
# is like, and the exit status is 2. Wants VNEVA_BIN and VNEVA_SOURCE.
# shellcheck source=tests/integration/cli.sh
. "$VNEVA_SOURCE/tests/integration/cli.sh"

# command line | what is wrong with it | what is meant
while IFS='|' read -r line wrong meant; do
    # shellcheck disable=SC2086
    exits 2 $line "$wrong"
    says "no option '$wrong'; did you mean '$meant'?"
done <<'END'
vneva status|--jsno|--json
vneva-coordinator|--hom|--home
vneva-worker|--device|--devices
vneva-rank|--has-bf61|--has-bf16
vneva-node|--rundir|--run-dir
vneva-generate|--modle|--model
vneva-dashboard|--liste|--listen
vneva-launch slurm|--node|--nodes
vneva-launch bcp|--imag|--image
vneva-launch status|--jsno|--json
vneva-launch agents slurm|--pol|--pool
vneva-data rejects|--jsno|--json
vneva-data show|--sampel|--sample
vneva-data synth|--clip|--clips
vneva-data tokenize|--tokeniser|--tokenizer
vneva-data train-tokenizer|--vocab|--vocab-size
vneva-model show|--frame|--frames
vneva-model diff|--tolerence|--tolerance
vneva-model import|--cpoy|--copy
vneva-model export|--dtyp|--dtype
END

# of a program with several commands likewise
while IFS='|' read -r program wrong meant; do
    exits 2 "$program" "$wrong"
    says "no command '$wrong'; did you mean '$meant'?"
done <<'END'
vneva-data|shw|show
vneva-data|train|train-tokenizer
vneva-model|improt|import
END

exits 2 vneva-worker --devices 0
says "option '--devices': expected a whole number from 1 to 64, got '0'"
exits 2 vneva-worker --grace 8d
says "option '--grace': expected 1 s to 7 d, as a number of seconds, 90s, 5m or 2h, got '8d'"
exits 2 vneva-generate --top-p
says "option '--top-p' needs a value: X"
exits 2 vneva-launch agents slurm --pool p --connect tcp://h:1 --key k --idle 8d
says "option '--idle': expected 1 s to 7 d"
exits 2 vneva-coordinator --home x spare
says "'spare' is not expected here"
exits 2 vneva-data synth --output x --clips 1 spare
says "'spare' is one word too many: nothing but options is expected"
exits 2 vneva-decode --help

exit $failed
