#!/bin/sh
# Whole launches under a real Slurm of two nodes: a training with tensor parallelism across
# both, disturbed in each of the ways a cluster has, ends with the same bits as undisturbed.
# Wants VNEVA_SOURCE, VNEVA_BIN, VNEVA_TESTS.
set -u
here=$(dirname "$0")
. "$here/cluster.sh"
. "$here/training.sh"

folder=$(mktemp -d "${TMPDIR:-/tmp}/vneva-slurm-XXXXXX")
failed=0
helpers= # processes started here beside Slurm's
finish() {
    for helper in $helpers; do kill -KILL "$helper" 2>/dev/null; done
    slurm_stop
    [ -n "${VNEVA_TEST_KEEP:-}" ] || rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM

node=$VNEVA_BIN/vneva-node
ask() { # RUN, words of vneva
    ask_run=$1
    shift
    "$VNEVA_BIN/vneva" --key "$folder/$ask_run/admin.key" "$@" 2>/dev/null
}
fail() {
    echo "FAILED: $*" >&2
    failed=1
}
# Shows the log of a run that went wrong
fail_with() { # RUN, text
    fail_run=$1
    shift
    fail "$fail_run: $*"
    tail -n 25 "$folder/$fail_run.log" >&2
    tail -n 5 "$folder/$fail_run"/logs/agent-*.log "$folder/$fail_run"/home/logs/*.log >&2
}
begin() {
    began=$(date +%s)
    echo "== $*"
}
took() { echo "   $(($(date +%s) - began)) s"; }

steps_done() { ask "$1" show 1 --field done; }
has_done() { # RUN STEPS
    has_n=$(steps_done "$1")
    [ "${has_n:-0}" -ge "$2" ] 2>/dev/null
}
of_database() { sqlite3 "$folder/$1/home/coordinator.db" "$2"; }
# The step of the newest registered checkpoint
checkpoint_step() { of_database "$1" 'select max(step) from checkpoints where job = 1'; }
# The processes of a run, anywhere: whatever has RUN=... in its environment
processes_of() {
    grep -lzxF "RUN=$folder/$1" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}
# Those that run a program of vneva
ours_of() {
    for one in $(processes_of "$1"); do
        case $(cat "/proc/$one/comm" 2>/dev/null) in vneva*) echo "$one" ;; esac
    done
}
ranks_of() {
    ask "$1" query ranks where job=1 state=running --columns pid --format csv | tail -n +2
}
# The ranks stand still, and go on where they are still there
hold() { # RUN
    held=$(ranks_of "$1")
    # shellcheck disable=SC2086
    kill -STOP $held
}
go_on() {
    # shellcheck disable=SC2086
    kill -CONT $held 2>/dev/null
}
has_no_process() { [ -z "$(ours_of "$1")" ]; }

same_bits() { # RUN
    training_compare "$folder/plain" "$folder/$1" >"$folder/diff" 2>&1 && return
    fail_with "$1" "other weights than undisturbed: $(tail -n 1 "$folder/diff")"
}
each_step_once() { # RUN
    awk '{ print $1 }' "$folder/$1/home/jobs/1/samples.log" | sort -n | uniq -c |
        awk '$1 != 1 { bad = 1 } END { exit bad || NR != '"$training_steps"' }' ||
        fail_with "$1" "samples.log does not have every step once"
}
attempts_of() { # RUN: "stopped done"
    sqlite3 "$folder/$1/home/coordinator.db" \
        'select cause from attempts where job = 1 order by id' | tr '\n' ' ' | sed 's/ $//'
}
expect_attempts() { # RUN WANTED
    expect_got=$(attempts_of "$1")
    [ "$expect_got" = "$2" ] || fail_with "$1" "attempts ended as '$expect_got', not '$2'"
}

submit() { # RUN [options of sbatch]
    run=$1
    shift
    job=$(RUN=$folder/$run WORDS=$(training_words 2) sbatch --parsable --nodes=2 --requeue \
        --output="$folder/$run.log" --open-mode=append --export=ALL "$@" "$here/job.sh")
}

# ---- the launches ----

undisturbed() {
    begin "two nodes, srun --mpi=pmix"
    # shellcheck disable=SC2046
    RUN=$folder/plain srun -N2 -n2 --mpi=pmix "$node" --run-dir "$folder/plain" \
        --devices 1 -- $(training_words 2) >"$folder/plain.log" 2>&1 &
    step=$!
    slurm_until 20 has_done plain 10
    [ "$(ours_of plain | wc -l)" -ge 8 ] || fail_with plain "processes: $(ours_of plain)"
    wait $step || fail_with plain "status $?"
    expect_attempts plain done
    grep -q "2 nodes, pmix" "$folder/plain.log" || fail_with plain "not over PMIx"
    grep -h "process" "$folder"/plain/logs/agent-0.log "$folder"/plain/logs/agent-1.log |
        sed 's/.*rank \([01]\):.*/\1/' | sort | tr '\n' ' ' | grep -qx "0 1 " ||
        fail_with plain "not one rank on each node"
    has_no_process plain || fail_with plain "left processes: $(ours_of plain)"
    took
}

again() {
    begin "the same run folder once more says so"
    # shellcheck disable=SC2046
    srun -N2 -n2 --mpi=pmix "$node" --run-dir "$folder/plain" --devices 1 -- \
        $(training_words 2) >"$folder/plain.log" 2>&1 || fail_with plain "status $?"
    grep -q "has ended already: it is done" "$folder/plain.log" ||
        fail_with plain "does not say that its job has ended"
    took
}

# Slurm looks at time limits every 30 s: the ranks are held still until it has.
time_limit() {
    begin "a time limit, USR1 and requeue"
    submit limit --time=1 --signal=B:USR1@58
    slurm_begin 40 "$job" has_done limit 30 || fail_with limit "did not begin"
    hold limit
    before=$(steps_done limit)
    slurm_until 45 grep -q "nearly over" "$folder/limit.log" ||
        fail_with limit "was not told of its time limit"
    go_on
    slurm_until 20 grep -q "start 0 ended with 75" "$folder/limit.log" ||
        fail_with limit "did not end with 75"
    kept=$(checkpoint_step limit)
    [ "${kept:-0}" -ge "${before:-999}" ] ||
        fail_with limit "steps were lost: $before were done, a checkpoint has $kept"
    grep -q "checkpoint of step $kept\$" "$folder/limit/progress" ||
        fail_with limit "left '$(cat "$folder/limit/progress")' as its progress"
    slurm_hasten "$job" || fail_with limit "was not queued again"
    slurm_finish 120 "$job" || fail_with limit "did not go on"
    grep -qh "at step $kept\$" "$folder"/limit/home/jobs/1/logs/attempt-2-rank-0.stderr ||
        fail_with limit "did not go on at step $kept"
    expect_attempts limit "stopped done"
    each_step_once limit
    same_bits limit
    took
}

cancelled() {
    begin "scancel, and the run folder started again"
    submit cancel
    slurm_begin 40 "$job" has_done cancel 30 || fail_with cancel "did not begin"
    before=$(steps_done cancel)
    scancel "$job"
    slurm_wait 40 "$job" CANCELLED || fail_with cancel "was not cancelled"
    slurm_until 30 has_no_process cancel ||
        fail_with cancel "left processes: $(ours_of cancel)"
    kept=$(checkpoint_step cancel)
    [ "${kept:-0}" -ge "${before:-999}" ] ||
        fail_with cancel "steps were lost: $before were done, a checkpoint has $kept"
    submit cancel
    slurm_finish 120 "$job" || fail_with cancel "did not go on"
    expect_attempts cancel "stopped done"
    each_step_once cancel
    same_bits cancel
    took
}

# Without power, both what runs there and what would say so is gone.
dead_node() {
    begin "one node dies, and comes back"
    submit dead
    slurm_begin 40 "$job" has_done dead 60 || fail_with dead "did not begin"
    hold dead # it shall not be done before its node is
    slurm_node_kill n2
    go_on
    slurm_hasten "$job" || fail_with dead "was not queued again"
    slurm_until 30 has_no_process dead || fail_with dead "left processes: $(ours_of dead)"
    slurm_node_start n2
    slurm_finish 120 "$job" || fail_with dead "did not go on"
    each_step_once dead
    same_bits dead
    slurm_recover 60 || fail "dead: a node did not come back"
    took
}

dead_agent() {
    begin "one node's agent dies: it is started again and the job goes on"
    submit agent
    slurm_begin 40 "$job" has_done agent 60 || fail_with agent "did not begin"
    hold agent
    for one in $(ours_of agent); do
        tr '\0' ' ' <"/proc/$one/cmdline" | grep -q "vneva-worker --id [^ ]*[.]1[.]" &&
            kill -KILL "$one"
    done
    go_on
    slurm_finish 120 "$job" || fail_with agent "did not go on"
    expect_attempts agent "lost done"
    same_bits agent
    took
}

# Without Slurm, on one machine: the kernel ends what the node program has started.
killed() {
    begin "the coordinator is killed, then vneva-node itself"
    mkdir "$folder/tmp"
    # shellcheck disable=SC2046
    RUN=$folder/killed TMPDIR=$folder/tmp "$node" --run-dir "$folder/killed" --devices 2 -- \
        $(training_words 2) >"$folder/killed.log" 2>&1 &
    step=$!
    helpers="$helpers $step"
    slurm_until 20 has_done killed 10 || fail_with killed "did not begin"
    for one in $(ours_of killed); do
        [ "$(cat "/proc/$one/comm")" != vneva-coordinat ] || kill -KILL "$one"
    done
    slurm_until 30 has_done killed 50 || fail_with killed "did not go on without it"
    expect_attempts killed ""
    grep -q "coordinator ended with status 137: starting it again" "$folder/killed.log" ||
        fail_with killed "did not start the coordinator again"
    kill -KILL $step
    wait $step 2>/dev/null
    slurm_until 5 has_no_process killed || fail_with killed "left: $(ours_of killed)"
    # shellcheck disable=SC2046
    TMPDIR=$folder/tmp "$node" --run-dir "$folder/killed" --devices 2 -- \
        $(training_words 2) >"$folder/killed.log" 2>&1 || fail_with killed "status $?"
    same_bits killed
    [ -z "$(ls -d "$folder/tmp"/vneva-node-* 2>/dev/null)" ] ||
        fail_with killed "left $(ls -d "$folder/tmp"/vneva-node-*)"
    took
}

start_by_hand() { # RUN NODE TOKEN: as ssh would
    # shellcheck disable=SC2046
    RUN=$folder/$1 "$node" --run-dir "$folder/$1" --nodes 2 --node "$2" --token "$3" \
        --devices 1 --stranded 3 -- $(training_words 2) >>"$folder/$1.log" 2>&1 &
    started=$!
    helpers="$helpers $started"
}

# Its agent says that it leaves, and the node program's end is seen in the exchange.
one_leaves() {
    begin "by hand: one node is told to end, what is left waits no longer than it may"
    start_by_hand leave 0 first
    first=$started
    start_by_hand leave 1 first
    slurm_until 20 has_done leave 10 || fail_with leave "did not begin"
    before=$(steps_done leave)
    kill -TERM "$started"
    wait "$started" || fail_with leave "the node that was told ended with $?"
    wait "$first"
    status=$?
    [ $status = 75 ] || fail_with leave "node 0 ended with $status, not 75"
    grep -q "node 1 is gone" "$folder/leave.log" || fail_with leave "node 1 was not missed"
    kept=$(checkpoint_step leave)
    [ "${kept:-0}" -ge "${before:-999}" ] ||
        fail_with leave "steps were lost: $before were done, a checkpoint has $kept"
    start_by_hand leave 0 second
    first=$started
    start_by_hand leave 1 second
    wait "$started" || fail_with leave "node 1 ended with $?"
    wait "$first" || fail_with leave "node 0 ended with $?"
    expect_attempts leave "stopped done"
    same_bits leave
    took
}

mpirun_once() {
    begin "Open MPI's mpirun"
    # shellcheck disable=SC2046
    mpirun --allow-run-as-root --oversubscribe -n 2 "$node" --run-dir "$folder/mpi" \
        --devices 1 -- $(training_words 2) >"$folder/mpi.log" 2>&1 ||
        fail_with mpi "status $?"
    grep -q "2 nodes, pmix" "$folder/mpi.log" || fail_with mpi "not over PMIx"
    same_bits mpi
    took
}

# And their ranks, which take this host for two by its names, over encrypted streams.
without_pmix() {
    begin "plain srun: the nodes meet through files, the ranks over the network"
    # shellcheck disable=SC2016,SC2046
    srun -N2 -n2 --mpi=none sh -c 'exec "$0" --host "$SLURMD_NODENAME" "$@"' "$node" \
        --run-dir "$folder/files" --devices 1 -- \
        $(training_words 2) >"$folder/files.log" 2>&1 || fail_with files "status $?"
    grep -q "2 nodes, files" "$folder/files.log" || fail_with files "not through files"
    same_bits files
    took
}

# Only agents are started; their time ends, the job goes back and nobody is to blame.
elsewhere() {
    begin "agents of a coordinator elsewhere"
    mkdir -m 0700 "$folder/else" "$folder/else/home"
    "$VNEVA_BIN/vneva-coordinator" --home "$folder/else/home" --listen 'tcp://*:*' \
        2>"$folder/else.log" &
    helpers="$helpers $!"
    slurm_until 20 test -s "$folder/else/home/endpoint" || fail_with else "no coordinator"
    for name in worker admin; do
        VNEVA_HOME=$folder/else/home "$VNEVA_BIN/vneva" keys add $name --role $name \
            --out "$folder/else/$name.key" >/dev/null || fail_with else "no key"
    done
    # shellcheck disable=SC2046
    ask else submit --quiet $(training_words 2) >/dev/null || fail_with else "not submitted"
    srun -N2 -n2 --mpi=pmix "$node" --run-dir "$folder/else/run" --devices 1 \
        --key "$folder/else/worker.key" >"$folder/else.log" 2>&1 &
    step=$!
    slurm_until 40 has_done else 30 || fail_with else "did not begin"
    kill -USR1 $step
    wait $step || fail_with else "agents ended with status $?"
    [ "$(ask else show 1 --field state)" = queued ] ||
        fail_with else "the job is $(ask else show 1 --field state), not queued"
    srun -N2 -n2 --mpi=pmix "$node" --run-dir "$folder/else/run" --devices 1 --idle 2 \
        --key "$folder/else/worker.key" >"$folder/else.log" 2>&1 ||
        fail_with else "status $?"
    [ "$(ask else show 1 --field state)" = done ] || fail_with else "the job is not done"
    expect_attempts else "stopped done"
    same_bits else
    took
}

slurm_start "$folder/slurm" || exit 1
training_make "$folder" || exit 1
export VNEVA_BIN
undisturbed
[ $failed = 0 ] || exit 1
again
for launch in ${*:-time_limit cancelled dead_node dead_agent killed one_leaves mpirun_once without_pmix elsewhere}; do
    $launch
    [ $failed = 0 ] || exit 1 # what follows may wait for what will not come
done
