#!/bin/bash
# `vneva launch bcp`: the command that it makes, and that every word in it reaches vneva-node
# as it was typed, on stand-ins for the platform (bcp_platform.sh) and for vneva-node.
# Wants VNEVA_BIN and VNEVA_SOURCE.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
calls=$work/calls
mount=$work/mount # stands for /runs, a workspace
export calls mount
failed=0

fail() {
    echo "FAILED: ${FUNCNAME[1]}: $*" >&2
    failed=1
}

mkdir -p "$work/bin" "$mount"
cd "$work" || exit 1
vneva=$VNEVA_BIN/vneva
export PATH=$work/bin:$PATH
. "$VNEVA_SOURCE/tests/integration/bcp_platform.sh"
platform_make "$work/bin"

# vneva-node as far as the command line knows it: what each got, in a file of its own
platform_stand_in "$work/bin/vneva-node" <<'END'
node=${OMPI_COMM_WORLD_RANK:-${NGC_ARRAY_INDEX:-0}}
{
    printf '<%s>\n' "$@"
    env | grep -E '^(NGC_|OMPI_COMM|A=)' | sort
} >"$calls.$node"
cp "$2/spec.yaml" "$calls.spec.$node" 2>/dev/null
exit "${EXIT_WITH:-0}"
END

cp "$VNEVA_SOURCE/jobs/quickstart/train.yaml" t.yaml
sed -i "s/???/\/data/; /num_nodes:/d; /devices:/d; /data_path:/d" t.yaml
overrides=(model.data.data_path=/data "name=it's \$(date) \"x\"")
base=(--image org/vneva:1 --ace here --instance dgxa100.80g.2.norm)
shared=(--workspace "runs:$mount:RW")

launch() {
    rm -f "$calls"*
    "$vneva" launch bcp "$@" >"$work/out" 2>"$work/err"
}
says() {
    grep -qF -- "$1" "$work/err" || fail "no '$1' in: $(cat "$work/err")"
}
# got NODE LINE: among what the program of that node was given
got() {
    grep -qxF -- "$2" "$calls.$1" || fail "node $1 has no '$2': $(cat "$calls.$1")"
}

replicas_get_every_word_as_it_was_typed() {
    launch "${base[@]}" "${shared[@]}" --replicas 2 --datasetid 5:/data --org o --team t \
        --run-dir "$mount/a run (it's \$HOME)" --export-env "A=x:y=\$z 'q'" t.yaml \
        "${overrides[@]}" -- --total-runtime 24h || fail "exit $?: $(cat "$work/err")"
    for node in 0 1; do
        got $node "<$mount/a run (it's \$HOME)>"
        got $node "<$mount/a run (it's \$HOME)/spec.yaml>"
        got $node "<name=it's \$(date) \"x\">"
        got $node "<trainer.num_nodes=2>"
        got $node "<trainer.devices=2>"
        got $node "A=x:y=\$z 'q'"
        got $node "NGC_ARRAY_INDEX=$node"
        cmp -s t.yaml "$calls.spec.$node" || fail "another specification on node $node"
    done
    for line in "--image org/vneva:1" "--ace here" "--instance dgxa100.80g.2.norm" \
        "--replicas 2" "--array-type PYTORCH" "--datasetid 5:/data" "--org o" "--team t" \
        "--workspace runs:$mount:RW" "--result /result" "--total-runtime 24h"; do
        grep -qxF -- "ngc $line" "$calls" || fail "ngc has no $line: $(cat "$calls")"
    done
    grep -qxF "bcprun launcher <>" "$calls" || fail "$(cat "$calls")"
}

# what is printed is a command of a shell that does the same again
the_printed_command_is_the_one_that_runs() {
    launch --dry-run "${base[@]}" "${shared[@]}" --replicas 2 --run-dir "$mount/b \"c\" 'd'" \
        t.yaml "${overrides[@]}" || fail "exit $?"
    [ ! -e "$calls" ] || fail "a dry run runs"
    bash "$work/out" || fail "exit $?"
    got 1 "<$mount/b \"c\" 'd'>"
    got 1 "<name=it's \$(date) \"x\">"
}

mpi_goes_through_mpirun() {
    launch "${base[@]}" "${shared[@]}" --replicas 2 --array-type MPI t.yaml \
        "${overrides[@]}" || fail "exit $?: $(cat "$work/err")"
    grep -qxF "bcprun launcher <mpirun --allow-run-as-root>" "$calls" || fail "$(cat "$calls")"
    got 1 "OMPI_COMM_WORLD_RANK=1"
    got 1 "NGC_ARRAY_TYPE=MPIJob"
    grep -q "^<$mount/runs/it-s---date---x--[0-9]*T[0-9]*Z-[0-9]*>" "$calls.1" || fail "$(cat "$calls.1")"
}

one_replica_is_no_array() {
    EXIT_WITH=7 launch "${base[@]}" "${shared[@]}" t.yaml "${overrides[@]}"
    [ $? = 7 ] || fail "the job's status is lost"
    ! grep -q -e --replicas -e --array-type "$calls" || fail "$(cat "$calls")"
    launch --dry-run "${base[@]}" --result /res t.yaml "${overrides[@]}" || fail "exit $?"
    grep -qF -- "--run-dir /res/runs/it-s" "$work/out" || fail "$(cat "$work/out")"
}

a_specification_in_a_mount_stays_there() {
    launch --dry-run "${base[@]}" --workspace 'w:/ws:RW' --replicas 2 /ws/t.yaml a=b ||
        fail "exit $?: $(cat "$work/err")"
    says "it is checked there"
    grep -qF -- "-- /ws/t.yaml a=b" "$work/out" || fail "$(cat "$work/out")"
    ! grep -q base64 "$work/out" || fail "something goes along"
}

what_cannot_work_is_refused() {
    ! launch "${base[@]}" --replicas 2 t.yaml "${overrides[@]}" && says "--workspace ID:/MOUNT:RW"
    ! launch "${base[@]}" --workspace w:/ws:RO --replicas 2 t.yaml "${overrides[@]}" &&
        says "--workspace ID:/MOUNT:RW"
    ! launch "${base[@]}" "${shared[@]}" --replicas 2 --run-dir /result/x t.yaml \
        "${overrides[@]}" && says "is in no workspace that can be written"
    ! launch "${base[@]}" --workspace w:ws --replicas 2 t.yaml "${overrides[@]}" &&
        says "expected ID:/MOUNT, with :RW or :RO"
    ! launch "${base[@]}" "${shared[@]}" --datasetid 5:/d:RW t.yaml "${overrides[@]}" &&
        says "--datasetid '5:/d:RW': expected ID:/MOUNT"
    ! launch --image i --ace a t.yaml "${overrides[@]}" && says "--instance is needed"
    ! launch "${base[@]}" "${shared[@]}" --array-type HOROVOD t.yaml "${overrides[@]}" &&
        says "MPI or PYTORCH"
    ! launch "${base[@]}" "${shared[@]}" t.yaml "${overrides[@]}" trainer.devices=8 &&
        says "trainer.devices is 8, but the instance's number of GPUs, 2"
    ! launch "${base[@]}" "${shared[@]}" t.yaml modle.x=1 && says "no key 'modle.x'"
    ! launch "${base[@]}" "${shared[@]}" nowhere.yaml && says "nowhere.yaml"
    ! launch "${base[@]}" "${shared[@]}" --replicas 2 t.yaml "${overrides[@]}" -- \
        --replicas 3 && says "'--replicas' after \`--\`: say it in front of"
    ! launch "${base[@]}" "${shared[@]}" t.yaml "${overrides[@]}" -- --commandline=ls &&
        says "the command line is vneva's"
    [ ! -e "$calls" ] || fail "something ran: $(cat "$calls")"
    mv bin/ngc no_ngc
    PATH=$work/bin "$vneva" launch bcp "${base[@]}" t.yaml "${overrides[@]}" >out 2>err
    [ $? = 5 ] || fail "exit code"
    says "install the NGC CLI"
    mv no_ngc bin/ngc
}

replicas_get_every_word_as_it_was_typed
the_printed_command_is_the_one_that_runs
mpi_goes_through_mpirun
one_replica_is_no_array
a_specification_in_a_mount_stays_there
what_cannot_work_is_refused
exit $failed
