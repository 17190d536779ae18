#!/bin/bash
# `vneva launch bcp` with the real vneva-node and a training over two replicas: once as the
# platform's PYTORCH arrays start it, where the nodes meet through files, and once as its MPI
# arrays do, under Open MPI's mpirun and its PMIx. Wants VNEVA_BIN and VNEVA_SOURCE.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
calls=$work/calls
ngc_master=127.0.0.1
export calls ngc_master
failed=0

fail() {
    echo "FAILED: $*" >&2
    failed=1
}

real_mpirun=$(command -v mpirun)
[ -n "$real_mpirun" ] || { echo "there is no mpirun: apt-get install openmpi-bin" >&2; exit 1; }
mkdir -p "$work/bin" "$work/ws"
export PATH=$work/bin:$VNEVA_BIN:$PATH
. "$VNEVA_SOURCE/tests/integration/bcp_platform.sh"
. "$VNEVA_SOURCE/tests/slurm/training.sh"
platform_make "$work/bin"
# both replicas are this machine
platform_stand_in "$work/bin/mpirun" <<END
[ "\$1 \$2 \$4 \$5" = "--allow-run-as-root -np -npernode 1" ] || exit 2
nodes=\$3
shift 5
exec "$real_mpirun" --allow-run-as-root --oversubscribe -np "\$nodes" "\$@"
END

# train RUN TYPE EXCHANGE
train() {
    read -ra words <<<"$(training_words 2)"
    timeout 100 vneva launch bcp --image i --ace a --instance cpu.x86.tiny --replicas 2 \
        --array-type "$2" --workspace "ws:$work/ws:RW" --run-dir "$work/ws/$1" \
        "${words[@]}" >"$work/log" 2>&1 || fail "$1: status $?: $(tail -n 20 "$work/log")"
    grep -q "coordinator  ok: tcp://$ngc_master:" "$work/log" ||
        fail "$1: not at \$NGC_MASTER_ADDR: $(cat "$work/log")"
    grep -q "2 nodes, $3" "$work/log" || fail "$1: not over $3: $(cat "$work/log")"
    [ "$(awk '{ print $1 }' "$work/ws/$1/home/jobs/1/samples.log" | sort -nu | wc -l)" = \
        "$training_steps" ] || fail "$1: not every step was done"
}

training_make "$work" || { echo "no data to train on" >&2; exit 1; }
train "files run" PYTORCH files
train "mpi run" MPI pmix
exit $failed
