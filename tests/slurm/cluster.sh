# cluster.sh - a real Slurm of two nodes on this machine, for tests; to be sourced
#
#   slurm_start FOLDER   munged, slurmctld and two slurmd (n1, n2) of their own below FOLDER,
#                        at free ports; exports SLURM_CONF; 1 and a reason when it cannot.
#                        Partitions: test, and low, which gives way to high
#   slurm_node_start N   starts the slurmd of a node (n1, n2) again
#   slurm_node_kill N    kills the slurmd of a node, its steps and all that they started,
#                        as when the machine loses its power
#   slurm_wait S JOB STATE...   waits S seconds at most until the job is in one of the states
#   slurm_hasten JOB     a job that was queued again starts now, not in 2 minutes
#   slurm_recover S      waits S seconds at most until both nodes are idle, and takes back what
#                        Slurm thinks of one that died
#   slurm_advance JOB    lets a job that waits begin: released and due now, on nodes of which
#                        is taken back what Slurm thinks of one that died. Slurm kills and
#                        queues what it began on a node that has just come back, now and then,
#                        drains such a node up to a minute later, or counts the job that it
#                        killed there as one that has it (one time in eight; 22.05): both
#                        nodes are idle then and the job waits for them for good
#   slurm_begin S JOB COMMAND...   waits S seconds at most until the command is true, letting
#                        the job begin whenever it waits
#   slurm_finish S JOB   the same until the job is completed
#   slurm_stop           cancels every job and ends all daemons; the folder stays
#
# Wants VNEVA_TESTS (build/tests), root (slurmd starts steps) and the packages slurm-wlm and
# munge. Both nodes are this host: they share its folders and memory, but each has a
# slurmd of its own. Processes are found by their ids and ancestors, never by name.

slurm_folder=

slurm_say() { echo "slurm: $*" >&2; }

slurm_check() {
    if [ "$(id -u)" != 0 ]; then
        slurm_say "these tests need root, for a slurmd starts steps as their user"
        return 1
    fi
    for slurm_program in munged slurmctld slurmd srun sbatch scontrol; do
        command -v $slurm_program >/dev/null && continue
        slurm_say "there is no '$slurm_program': apt-get install slurm-wlm munge"
        return 1
    done
}

slurm_configure() {
    read -r slurm_p0 slurm_p1 slurm_p2 <<END
$("$VNEVA_TESTS/free_ports" 3)
END
    slurm_host=$(hostname -s)
    cat >"$slurm_folder/slurm.conf" <<END
ClusterName=vneva-test
SlurmctldHost=$slurm_host(127.0.0.1)
SlurmctldPort=$slurm_p0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$slurm_folder/munge/socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile=$slurm_folder/slurmctld.pid
SlurmdPidFile=$slurm_folder/slurmd-%n.pid
SlurmdSpoolDir=$slurm_folder/spool-%n
StateSaveLocation=$slurm_folder/state
# without one a node the PMIx plugin of the second slurmd fails
TmpFS=$slurm_folder/tmp-%n
SlurmctldLogFile=$slurm_folder/slurmctld.log
SlurmdLogFile=$slurm_folder/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/linear
SlurmdTimeout=10
KillWait=20
MinJobAge=300
JobRequeue=1
NodeName=n1 NodeHostname=$slurm_host NodeAddr=127.0.0.1 Port=$slurm_p1 CPUs=2
NodeName=n2 NodeHostname=$slurm_host NodeAddr=127.0.0.1 Port=$slurm_p2 CPUs=2
# a job in high takes the nodes of one in low, which is told first as --signal says
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=low Nodes=n1,n2 PriorityTier=1 GraceTime=60
PartitionName=high Nodes=n1,n2 PriorityTier=2 PreemptMode=OFF
END
}

# Waits S seconds at most until the command is true
slurm_until() {
    slurm_n=$(($1 * 10))
    shift
    while ! "$@"; do
        slurm_n=$((slurm_n - 1))
        [ $slurm_n -gt 0 ] || return 1
        sleep 0.1
    done
}

# Takes back what Slurm thinks of a node that died, up to a minute after it came back: drained
# ("Kill task failed", "batch job complete failure") or down though its slurmd answers.
slurm_tend() {
    sinfo -h -N -o '%N %T' 2>/dev/null | while read -r slurm_node slurm_node_state; do
        case $slurm_node_state in
        drained | draining | down)
            scontrol update NodeName="$slurm_node" State=RESUME 2>/dev/null ;;
        esac
    done
}

slurm_are_idle() { [ "$(sinfo -h -o %T -n n1,n2 2>/dev/null)" = idle ]; }

slurm_is_recovered() {
    slurm_are_idle && return 0
    slurm_tend
    return 1
}
slurm_recover() {
    slurm_until "$1" slurm_is_recovered && return 0
    slurm_say "the nodes do not come back:" "$(sinfo -h -N -o '%N %T %E;' 2>&1)"
    return 1
}

slurm_start_munge() {
    mkdir -m 0755 "$slurm_folder/munge"
    head -c 1024 /dev/urandom >"$slurm_folder/munge/key"
    chmod 0400 "$slurm_folder/munge/key"
    munged --force --foreground --key-file="$slurm_folder/munge/key" \
        --socket="$slurm_folder/munge/socket" --pid-file="$slurm_folder/munge/pid" \
        --log-file="$slurm_folder/munge/log" --seed-file="$slurm_folder/munge/seed" \
        >"$slurm_folder/munged.out" 2>&1 &
    slurm_munged=$!
    slurm_until 10 test -S "$slurm_folder/munge/socket"
}

slurm_node_start() {
    mkdir -p "$slurm_folder/spool-$1" "$slurm_folder/tmp-$1"
    slurmd -D -N "$1" -f "$SLURM_CONF" >>"$slurm_folder/slurmd-$1.out" 2>&1 &
    eval "slurm_slurmd_$1=$!"
}

slurm_start() {
    slurm_check || return 1
    slurm_folder=$1
    mkdir -p "$slurm_folder/state"
    chmod 0755 "$slurm_folder"
    export SLURM_CONF="$slurm_folder/slurm.conf"
    slurm_configure
    if ! slurm_start_munge; then
        slurm_say "munged does not start: $(tail -n 3 "$slurm_folder/munged.out")"
        return 1
    fi
    slurmctld -D -f "$SLURM_CONF" >"$slurm_folder/slurmctld.out" 2>&1 &
    slurm_slurmctld=$!
    slurm_node_start n1
    slurm_node_start n2
    if ! slurm_until 30 slurm_are_idle; then
        slurm_say "the nodes do not come up; the ends of the logs:"
        tail -n 5 "$slurm_folder"/*.out "$slurm_folder"/*.log >&2
        return 1
    fi
}

# ---- ending ----

# The processes below one, that one last
slurm_below() {
    for slurm_child in $(cat "/proc/$1/task"/*/children 2>/dev/null); do
        slurm_below "$slurm_child"
    done
    echo "$1"
}

# The daemons of a node's steps: they have left slurmd, but write its log
slurm_steps_of() {
    for slurm_proc in /proc/[0-9]*; do
        [ "$(cat "$slurm_proc/comm" 2>/dev/null)" = slurmstepd ] || continue
        readlink "$slurm_proc"/fd/* 2>/dev/null |
            grep -qxF "$slurm_folder/slurmd-$1.log" && echo "${slurm_proc#/proc/}"
    done
}

# Ends what one of our variables holds the id of
slurm_end() {
    eval "slurm_pid=\${slurm_$2:-}"
    eval "slurm_$2="
    [ -n "$slurm_pid" ] || return 0
    kill "-$1" "$slurm_pid" 2>/dev/null
    wait "$slurm_pid" 2>/dev/null
}

slurm_node_kill() {
    slurm_end KILL "slurmd_$1"
    for slurm_step in $(slurm_steps_of "$1"); do
        # shellcheck disable=SC2046
        kill -KILL $(slurm_below "$slurm_step") 2>/dev/null
    done
    return 0
}

slurm_have_no_job() { [ -z "$(squeue -h 2>/dev/null)" ]; }

slurm_stop() {
    [ -n "$slurm_folder" ] || return 0
    if [ -n "${slurm_slurmctld:-}" ]; then
        scancel --user=root 2>/dev/null
        slurm_until 10 slurm_have_no_job
    fi
    slurm_node_kill n1
    slurm_node_kill n2
    slurm_end TERM slurmctld
    slurm_end TERM munged
}

# ---- jobs ----

slurm_job_state() { scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'; }

slurm_is_in() {
    slurm_state=$(slurm_job_state "$1")
    shift
    for slurm_wanted in "$@"; do
        [ "$slurm_state" = "$slurm_wanted" ] && return 0
    done
    return 1
}

slurm_wait() {
    slurm_wait_s=$1
    shift
    slurm_until "$slurm_wait_s" slurm_is_in "$@" && return 0
    slurm_say "job $1 is $(slurm_job_state "$1"), not one of: $*"
    return 1
}

slurm_hasten() {
    slurm_wait 60 "$1" PENDING && scontrol update JobId="$1" StartTime=now
}

slurm_advance() {
    slurm_is_in "$1" PENDING || return 0
    slurm_tend
    if [ "$(squeue -h -j "$1" -o %r 2>/dev/null)" = Resources ] && slurm_are_idle; then
        scontrol reconfigure # it counts anew
    fi
    scontrol release "$1" 2>/dev/null
    scontrol update JobId="$1" StartTime=now 2>/dev/null
}

slurm_has_begun() { # JOB COMMAND...
    slurm_advance "$1"
    shift
    "$@"
}
slurm_begin() {
    slurm_begin_s=$1
    shift
    slurm_until "$slurm_begin_s" slurm_has_begun "$@" && return 0
    slurm_say "job $1 is $(slurm_job_state "$1"): $(squeue -h -j "$1" -o %r 2>&1)"
    slurm_say "the nodes:" "$(sinfo -h -N -o '%N %T %E;' 2>&1)"
    tail -n 8 "$slurm_folder/slurmctld.log" >&2
    return 1
}
slurm_finish() { slurm_begin "$1" "$2" slurm_is_in "$2" COMPLETED; }
