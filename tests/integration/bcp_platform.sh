# bcp_platform.sh - stand-ins for what Base Command Platform has; to be sourced
#
#   platform_make BIN    makes the programs ngc, bcprun and mpirun in that folder. ngc gives
#                        the command line to a shell of the job; bcprun its command to a shell
#                        on every replica, or to mpirun; all take only the options that the
#                        real ones take, and set the variables that they set. What ngc and
#                        bcprun were told is a line each in the file $calls. All replicas
#                        are this machine; $ngc_master, where it is set, is the address of
#                        the first.
#   platform_stand_in FILE    a program from standard input

platform_stand_in() {
    { echo '#!/bin/bash'; cat; } >"$1" && chmod +x "$1"
}

platform_make() {
    platform_stand_in "$1/ngc" <<'PROGRAM'
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
case $type in
MPI) export NGC_ARRAY_TYPE=MPIJob ;;
PYTORCH) export NGC_ARRAY_TYPE=PyTorchJob ;;
*) [ "$replicas" = 1 ] || exit 2 ;;
esac
case $gpus in *[!0-9]*) gpus=0 ;; esac
unset NGC_MASTER_ADDR
[ -z "${ngc_master:-}" ] || export NGC_MASTER_ADDR=$ngc_master
export NGC_JOB_ID=700 NGC_ARRAY_SIZE=$replicas NGC_REPLICA_ID=0 NGC_GPUS_PER_NODE=$gpus
exec bash -c "$line"
PROGRAM
    platform_stand_in "$1/bcprun" <<'PROGRAM'
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
[ -z "$launcher" ] || exec $launcher -np "$nodes" -npernode 1 bash -c "$command"
status=0
pids=()
for ((i = 0; i < nodes; i++)); do
    NGC_ARRAY_INDEX=$i bash -c "$command" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
PROGRAM
    platform_stand_in "$1/mpirun" <<'PROGRAM'
[ "$1 $2 $4 $5" = "--allow-run-as-root -np -npernode 1" ] || exit 2
nodes=$3
shift 5
status=0
pids=()
for ((i = 0; i < nodes; i++)); do
    OMPI_COMM_WORLD_RANK=$i OMPI_COMM_WORLD_SIZE=$nodes "$@" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
PROGRAM
}
