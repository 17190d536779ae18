#!/bin/bash
# `vneva launch bcp`, with stand-ins for ngc and bcprun that take only the options these
# take, and run what they are told as Base Command Platform does: ngc gives the command line
# to a shell of the job, bcprun its command to a shell on every replica, with the variables
# of the platform. Wants VNEVA_BIN and VNEVA_SOURCE.
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

# stand_in NAME: a program from standard input
stand_in() {
    { echo '#!/bin/bash'; cat; } >"$work/bin/$1" && chmod +x "$work/bin/$1"
}

mkdir -p "$work/bin" "$mount"
cd "$work" || exit 1
vneva=$VNEVA_BIN/vneva
export PATH=$work/bin:$PATH

stand_in ngc <<'END2'
[ "$1 $2 $3" = "base-command job run" ] || { echo "ngc: $*" >&2; exit 2; }
shift 3
replicas=1 type='' name='' line='' gpus=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "ngc: $1 needs a value" >&2; exit 2; }
    printf 'ngc %s %s\n' "$1" "$2" >>"$calls"
    case $1 in
    --name) name=$2 ;;
    --replicas) replicas=$2 ;;
    --array-type) type=$2 ;;
    --commandline) line=$2 ;;
    --instance) gpus=$(echo "$2" | cut -d. -f3) ;;
    --env-var) export "${2%%:*}=${2#*:}" ;;
    --image | --ace | --org | --team | --datasetid | --workspace | --result) ;;
    --total-runtime | --preempt) ;;
    *) echo "ngc: no option $1" >&2; exit 2 ;;
    esac
    shift 2
done
[ -n "$name" ] && [ -n "$line" ] || exit 2
[ "$replicas" = 1 ] || [ "$type" = MPI ] || [ "$type" = PYTORCH ] || exit 2
unset NGC_MASTER_ADDR NGC_ARRAY_TYPE
case $type in MPI) export NGC_ARRAY_TYPE=MPIJob ;; PYTORCH) export NGC_ARRAY_TYPE=PyTorchJob ;; esac
export NGC_JOB_ID=700 NGC_ARRAY_SIZE=$replicas NGC_GPUS_PER_NODE=$gpus NGC_REPLICA_ID=0
exec bash -c "$line"
END2
stand_in bcprun <<'END2'
nodes=1 each=1 command='' launcher=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "bcprun: $1 needs a value" >&2; exit 2; }
    case $1 in
    -n | --nnodes) nodes=$2 ;;
    -p | --npernode) each=$2 ;;
    -c | --cmd) command=$2 ;;
    -l | --launcher) launcher=$2 ;;
    *) echo "bcprun: no option $1" >&2; exit 2 ;;
    esac
    shift 2
done
[ "$nodes" -le "$NGC_ARRAY_SIZE" ] && [ "$each" = 1 ] && [ -n "$command" ] || exit 2
printf 'bcprun launcher <%s>\n' "$launcher" >>"$calls"
status=0
pids=()
for ((i = 0; i < nodes; i++)); do
    if [ -n "$launcher" ]; then
        OMPI_COMM_WORLD_RANK=$i OMPI_COMM_WORLD_SIZE=$nodes bash -c "$command" &
    else
        NGC_ARRAY_INDEX=$i bash -c "$command" &
    fi
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
END2
# vneva-node as far as the command line knows it: what each got, in a file of its own
stand_in vneva-node <<'END2'
node=${OMPI_COMM_WORLD_RANK:-${NGC_ARRAY_INDEX:-0}}
{
    printf '<%s>\n' "$@"
    env | grep -E '^(NGC_|OMPI_COMM|A=)' | sort
} >"$calls.$node"
cp "$2/spec.yaml" "$calls.spec.$node" 2>/dev/null
exit "${EXIT_WITH:-0}"
END2

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
    grep -q "^<$mount/runs/it-s---date---x--[0-9]*T[0-9]*Z>" "$calls.1" || fail "$(cat "$calls.1")"
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
