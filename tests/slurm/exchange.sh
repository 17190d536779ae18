#!/bin/sh
# The exchange of the nodes over real PMIx servers: Slurm's (two nodes, one and two programs
# on each) and Open MPI's mpirun.
set -u
. "$(dirname "$0")/cluster.sh"

peers=$VNEVA_TESTS/exchange_peers
folder=$(mktemp -d)
failed=0
finish() {
    slurm_stop
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM

# expect WHAT WANTED GOT
expect() {
    [ "$2" = "$3" ] && return
    printf 'FAILED: %s\nwanted:\n%s\ngot:\n%s\n' "$1" "$2" "$3" >&2
    failed=1
}
lines() { printf '%s\n' "$@"; }

[ -x "$peers" ] || {
    echo "exchange_peers is not built: it needs libpmix-dev" >&2
    exit 1
}
slurm_start "$folder" || exit 1

expect "without a launcher" \
    "exchange_peers: open: this program was not started by a PMIx server: use \`srun \
--mpi=pmix\` or \`mpirun\`, or go without PMIx (--exchange files)" \
    "$("$peers" pmix 2>&1)"
expect "solo" "ok 0 of 1, 0 of 1 here" "$("$peers" solo)"
expect "two nodes" "$(lines "ok 0 of 2, 0 of 1 here" "ok 1 of 2, 0 of 1 here")" \
    "$(srun -N2 -n2 --mpi=pmix "$peers" pmix | sort)"
expect "two nodes, two programs each" \
    "$(lines "ok 0 of 4, 0 of 2 here" "ok 1 of 4, 1 of 2 here" \
        "ok 2 of 4, 0 of 2 here" "ok 3 of 4, 1 of 2 here")" \
    "$(srun -N2 -n4 --mpi=pmix "$peers" pmix | sort)"

slurm_mpirun() { mpirun --allow-run-as-root --oversubscribe "$@"; }
expect "mpirun" \
    "$(lines "lost 2" "lost 2" "lost 2" "no fence" "no fence" "no fence" \
        "ok 0 of 3, 0 of 3 here" "ok 1 of 3, 1 of 3 here" "ok 2 of 3, 2 of 3 here")" \
    "$(slurm_mpirun -n 3 "$peers" pmix tell | sort)"
exit $failed
