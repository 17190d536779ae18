#!/bin/bash
# `vneva launch slurm` and the scripts it writes, with stand-ins for Slurm's programs that
# take only the words that Slurm takes: sbatch and squeue answer, srun starts the node
# program once for every node. Wants VNEVA_BIN and VNEVA_SOURCE.
set -u
work=$(mktemp -d)
folder="$work/a folder (it's \$HOME)"
script='' # the batch script that runs, leader of a group of its own
# shellcheck disable=SC2317
cleanup() {
    [ -z "$script" ] || kill -KILL -- "-$script" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
calls=$work/calls
state=$work/state # what the stand-ins are to say
export calls state folder
failed=0

fail() {
    echo "FAILED: ${FUNCNAME[1]}: $*" >&2
    failed=1
}

# stand_in NAME: a program from standard input
stand_in() {
    { echo '#!/bin/bash'; cat; } >"$work/bin/$1" && chmod +x "$work/bin/$1"
}

mkdir -p "$work/bin" "$folder" "$state"
cd "$folder" || exit 1
vneva=$VNEVA_BIN/vneva
export PATH=$work/bin:$PATH

stand_in sbatch <<'END2'
[ $# = 2 ] && [ "$1" = --parsable ] && [ -f "$2" ] || { echo "sbatch: words: $*" >&2; exit 1; }
env | grep '^SBATCH_' | sed 's/^/sbatch sees /' >>"$calls"
echo "sbatch $2" >>"$calls"
if [ -f "$state/sbatch_says" ]; then cat "$state/sbatch_says" >&2; exit 1; fi
cat "$state/sbatch_id" 2>/dev/null || echo "123;cluster"
END2
stand_in squeue <<'END2'
[ "$1 $2" = "--noheader --states=all" ] || { echo "squeue: words: $*" >&2; exit 1; }
[ "$4" = "--format=%i|%T|%D|%V|%S|%e|%j|%r" ] && [ "$TZ" = UTC0 ] || exit 1
case $3 in --me | --jobs=*) ;; *) exit 1 ;; esac
if [ -f "$state/squeue_says" ]; then cat "$state/squeue_says" >&2; exit 1; fi
cat "$state/queue" 2>/dev/null
# what it says after that, and then
[ ! -f "$state/queue.1" ] || mv "$state/queue.1" "$state/queue"
[ ! -f "$state/queue.2" ] || mv "$state/queue.2" "$state/queue.1"
END2
stand_in scancel <<'END2'
[ $# = 2 ] && [ "$1" = --verbose ] || exit 1
echo "scancel: Terminating job $2" >&2
case $2 in
7) ;;
8) echo "scancel: error: Kill job error on job id 8: Invalid job id specified" >&2 ;;
9) echo "scancel: error: Kill job error on job id 9: Access/permission denied" >&2; exit 1 ;;
esac
END2
stand_in scontrol <<'END2'
echo "scontrol $*" >>"$calls"
[ "$1" = requeue ] && [ ! -f "$state/no_requeue" ]
END2
stand_in srun <<'END2'
if [ "$*" = --mpi=list ]; then
    printf 'MPI plugin types are...\n\tnone\n\tpmi2\n' >&2
    [ -f "$state/no_pmix" ] || printf '\tpmix\n\tpmix_v4\n' >&2
    exit
fi
while [ $# -gt 0 ]; do
    case $1 in
    --ntasks-per-node=1 | --kill-on-bad-exit=0 | --mpi=pmix | --mpi=none) ;;
    --container-image=?* | --container-mounts=?* | --container-workdir=?*) ;;
    --no-container-mount-home) ;;
    -*) echo "srun: no option $1" >&2; exit 1 ;;
    *) break ;;
    esac
    printf 'srun %s\n' "$1" >>"$calls"
    shift
done
pids=()
trap 'kill -USR1 "${pids[@]}"' USR1
trap 'kill -TERM "${pids[@]}"' TERM
for n in 0 1; do
    SLURM_PROCID=$n SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 "$@" &
    pids+=($!)
done
worst=0
for pid in "${pids[@]}"; do
    while wait "$pid"; now=$?; kill -0 "$pid" 2>/dev/null; do :; done
    wait "$pid" 2>/dev/null
    [ "$now" -le "$worst" ] || worst=$now
done
exit "$worst"
END2
# vneva-node as far as the script knows it: the file `does` says what node 0 does
stand_in vneva-node <<'END2'
[ "$SLURM_PROCID" = 0 ] && { printf 'node'; printf ' <%s>' "$@"; echo; } >>"$calls"
[ "$SLURM_PROCID" = 0 ] && printf 'A=%s\n' "$A" >>"$calls"
stop() { [ "$SLURM_PROCID" != 0 ] || cp "$state/progress" "$2/progress" 2>/dev/null; exit 75; }
run_dir=$2
trap 'stop x "$run_dir"' USR1 TERM
[ "$(cat "$state/does")" != nothing ] || exit 0
if [ "$SLURM_PROCID" = 0 ]; then
    mkdir -p "$run_dir/phases" && echo "{}" >>"$run_dir/phases/node-0.jsonl"
    touch "$state/started"
fi
case $(cat "$state/does") in
wait) while :; do sleep 0.1; done ;;
*) exit "$(cat "$state/does")" ;;
esac
END2

# a job that is whole, with nothing outside of it
spec() {
    mkdir -p data && cp "$VNEVA_SOURCE/jobs/quickstart/train.yaml" t.yaml
    sed -i "s/???/data/; /num_nodes:/d; /devices:/d; /data_path:/d" t.yaml
}
overrides=(model.data.data_path=data "name=it's \$(date) \"x\"")

launch() {
    : >"$calls"
    "$vneva" launch slurm "$@" >"$work/out" 2>"$work/err"
}

# says WORDS: on standard error
says() {
    grep -qF -- "$1" "$work/err" || { fail "no '$1' in: $(cat "$work/err")"; return 1; }
}

# runs the script as Slurm would, in the background; its end is waited for with `ended`
start_script() {
    rm -f "$state/started"
    (cd "$folder" && exec setsid env SLURM_JOB_ID=123 SLURM_RESTART_COUNT="${1:-0}" \
        SLURM_JOB_NODELIST='n[1-2]' bash "$run/vneva.sbatch") >"$work/log" 2>&1 &
    script=$!
}
ended() {
    wait "$script"
    status=$?
    script=''
}
# until a node program runs, at most 20 s
started() {
    for _ in $(seq 200); do
        [ ! -f "$state/started" ] || return 0
        sleep 0.1
    done
    fail "nothing starts: $(cat "$work/log")"
    exit 1
}

a_job_is_checked_written_and_queued() {
    launch --nodes 2 --run-dir r1 --no-check t.yaml "${overrides[@]}" trainer.devices=1 ||
        fail "exit $?: $(cat "$work/err")"
    run=$folder/r1
    grep -qF "submitted Slurm job 123: pretrain 'it's \$(date) \"x\"' on 2 nodes" \
        "$work/out" || fail "$(cat "$work/out")"
    grep -qF "sbatch $run/vneva.sbatch" "$calls" || fail "$(cat "$calls")"
    # what it says can be pasted
    : >"$calls"
    bash -c "$(sed -n 's/^go on later *//p' "$work/out")" 2>"$work/err"
    says "sbatch: words: $run/vneva.sbatch"
    cmp -s t.yaml "$run/spec.yaml" || fail "another specification"
    bash -n "$run/vneva.sbatch" || fail "no script of bash"
    ! command -v shellcheck >/dev/null || shellcheck -s bash -e SC2016 "$run/vneva.sbatch" ||
        fail "shellcheck complains"
    [ "$(stat -c %a "$run")" = 700 ] || fail "others may look into the run folder"
}

every_word_reaches_the_node_as_it_was_typed() {
    echo 0 >"$state/does"
    launch --nodes 2 --run-dir r2 --no-check --node-program vneva-node --export-env "A=it's \$HOME" \
        --srun=--no-container-mount-home t.yaml "${overrides[@]}" trainer.devices=1 ||
        fail "exit $?: $(cat "$work/err")"
    run=$folder/r2
    : >"$calls"
    start_script
    ended
    [ "$status" = 0 ] || fail "exit $status: $(cat "$work/log")"
    grep -qxF "A=it's \$HOME" "$calls" || fail "variable: $(cat "$calls")"
    grep -qxF "srun --no-container-mount-home" "$calls" || fail "$(cat "$calls")"
    grep -qxF "srun --mpi=pmix" "$calls" || fail "$(cat "$calls")"
    ! grep -q "^srun --container-" "$calls" || fail "a container without an image"
    grep -qxF "node <--run-dir> <$run> <--exchange> <auto> <--grace> <135> <--devices> <1>\
 <--> <$run/spec.yaml> <model.data.data_path=data> <name=it's \$(date) \"x\">\
 <trainer.devices=1> <trainer.num_nodes=2>" "$calls" || fail "$(grep ^node "$calls")"
}

a_container_gets_the_run_folder_and_the_mounts() {
    launch --nodes 2 --run-dir "$work/r3" --container-image "reg#a/b:1" \
        --container-mounts "/data:/data,/x:/x" --container-workdir /w \
        t.yaml "${overrides[@]}" trainer.devices=1 || fail "exit $?: $(cat "$work/err")"
    run=$work/r3
    : >"$calls"
    start_script
    ended
    grep -qxF "srun --container-image=reg#a/b:1" "$calls" || fail "$(cat "$calls")"
    grep -qxF "srun --container-mounts=$run:$run,/data:/data,/x:/x" "$calls" ||
        fail "$(cat "$calls")"
    grep -qxF "srun --container-workdir=/w" "$calls" || fail "$(cat "$calls")"
    grep -qx "NODE_PROGRAM=vneva-node" "$run/vneva.sbatch" || fail "program of the host"
    ! launch --nodes 2 --container-workdir /w --no-check t.yaml "${overrides[@]}" &&
        says "--container-image names it"
}

without_pmix_nodes_meet_through_files() {
    touch "$state/no_pmix"
    : >"$calls"
    start_script
    ended
    rm "$state/no_pmix"
    grep -qxF "srun --mpi=none" "$calls" || fail "$(cat "$calls")"
    grep -q "nodes meet through files" "$work/log" || fail "$(cat "$work/log")"
}

# what Slurm does SECONDS before the limit, as often as the job makes progress
a_notice_is_passed_on_and_the_job_queued_again() {
    run=$folder/r2
    echo wait >"$state/does"
    for n in 1 2 3 4 5; do
        echo "job 1 running $n" >"$state/progress"
        : >"$calls"
        start_script "$n"
        started
        kill -USR1 "$script"
        ended
        grep -qxF "scontrol requeue 123" "$calls" || fail "start $n: $(cat "$work/log")"
        grep -qF "stopped at 'job 1 running $n'; queued again" "$work/log" ||
            fail "$(cat "$work/log")"
    done
    [ "$(wc -l <"$run/requeues")" = 5 ] || fail "$(cat "$run/requeues")"
}

a_job_that_does_nothing_is_not_queued_for_ever() {
    # start 5 has counted this once already
    for n in 6 7 8; do
        : >"$calls"
        start_script "$n"
        started
        kill -USR1 "$script"
        ended
        if [ "$n" -lt 8 ]; then
            grep -qxF "scontrol requeue 123" "$calls" || fail "start $n: $(cat "$work/log")"
        fi
    done
    ! grep -q "^scontrol" "$calls" || fail "queued again without end"
    [ "$status" = 75 ] || fail "exit $status"
    grep -qF "nothing was done in 4 starts (job 1 running 5)" "$work/log" ||
        fail "$(cat "$work/log")"
    grep -qF "\`sbatch $run/vneva.sbatch\` goes on" "$work/log" || fail "$(cat "$work/log")"
}

a_cancelled_job_is_not_queued_again() {
    echo "job 1 running 9" >"$state/progress"
    : >"$calls"
    start_script 9
    started
    # scancel: Slurm tells script and step
    kill -TERM "$script" "$(pgrep -P "$script" -f srun | head -n 1)"
    ended
    ! grep -q "^scontrol" "$calls" || fail "queued again: $(cat "$work/log")"
    [ "$status" = 75 ] || fail "exit $status"
}

a_failed_job_keeps_its_status() {
    echo 1 >"$state/does"
    : >"$calls"
    start_script
    ended
    [ "$status" = 1 ] || fail "exit $status"
    ! grep -q "^scontrol" "$calls" || fail "queued again"
}

# srun says 0, though no task could be started
a_step_that_never_began_is_no_success() {
    echo nothing >"$state/does"
    start_script 0
    ended
    [ "$status" = 1 ] || fail "exit $status"
    grep -qF "no vneva-node has begun" "$work/log" || fail "$(cat "$work/log")"
}

where_slurm_does_not_queue_again_it_says_how_to_go_on() {
    echo 75 >"$state/does"
    touch "$state/no_requeue"
    start_script
    ended
    rm "$state/no_requeue"
    [ "$status" = 75 ] || fail "exit $status"
    grep -qF "Slurm does not queue it again; \`sbatch $run/vneva.sbatch\` goes on" \
        "$work/log" || fail "$(cat "$work/log")"
}

the_file_by_hand_runs_as_it_is() {
    echo 0 >"$state/does"
    : >"$calls"
    mkdir -p hand
    (cd hand && SLURM_JOB_ID=5 SLURM_JOB_NODELIST=n1 \
        bash "$VNEVA_SOURCE/slurm/vneva.sbatch") >"$work/log" 2>&1 ||
        fail "exit $?: $(cat "$work/log")"
    grep -qxF "node <--run-dir> <$folder/hand/runs/vneva> <--exchange> <auto> <--grace>\
 <135> <--> <train.yaml>" "$calls" || fail "$(cat "$calls")"
    sed 's/^RUN_DIR=.*/RUN_DIR=mine/' "$VNEVA_SOURCE/slurm/vneva.sbatch" >hand/mine.sbatch
    (cd hand && SLURM_JOB_ID=5 SLURM_JOB_NODELIST=n1 bash mine.sbatch) >"$work/log" 2>&1 ||
        fail "exit $?: $(cat "$work/log")"
    grep -qF "node <--run-dir> <$folder/hand/mine> " "$calls" || fail "$(cat "$calls")"
}

wrong_sizes_and_keys_are_told_before_anything_is_queued() {
    : >"$calls"
    ! launch --nodes 2 --no-check t.yaml "${overrides[@]}" trainer.num_nodes=4 &&
        says "trainer.num_nodes is 4, but --nodes 2 is asked for: say trainer.num_nodes=2"
    ! launch --nodes 2 --gpus-per-node 8 --no-check t.yaml "${overrides[@]}" \
        trainer.devices=4 && says "trainer.devices is 4, but --gpus-per-node 8"
    ! launch --nodes 3 --no-check t.yaml "${overrides[@]}" &&
        says "not a multiple of model.tensor_model_parallel_size"
    ! launch --nodes 2 --no-check t.yaml modle.x=1 && says "no key 'modle.x'"
    ! launch --nodes 2 t.yaml model.data.data_path=nowhere && says "is not there"
    ! launch --nodes 2 --no-check t.yaml "${overrides[@]}" "name=a
b" && says "line break"
    printf 'name: "a\\nb"\n' | cat - t.yaml | grep -v '^name: q' >lines.yaml
    ! launch --nodes 2 --no-check lines.yaml "${overrides[0]}" trainer.devices=1 &&
        says "a line break or control character in what is to be job-name"
    ! A="a
b" launch --nodes 2 --no-check --export-env A t.yaml "${overrides[@]}" trainer.devices=1 &&
        says "in what is to be EXPORTS"
    ! launch --nodes 2 --time 4 --no-check t.yaml "${overrides[@]}" &&
        says "--time 4 leaves no time to work"
    ! launch --nodes 2 --no-check t.yaml "${overrides[@]}" --key k && says "--key: cannot open"
    ! launch --nodes 2 --no-check t.yaml "${overrides[@]}" --connect tcp://h:1 &&
        says "--connect tcp://h:1 takes a key: give its file with --key"
    ! launch --nodes 2 --no-check t.yaml "${overrides[@]}" -- --array=1-2 &&
        says "one run folder is one job"
    [ ! -s "$calls" ] || fail "something was queued: $(cat "$calls")"
    [ ! -e runs ] || fail "a folder was made"
}

a_dry_run_changes_nothing() {
    launch --dry-run --nodes 2 --no-check t.yaml "${overrides[@]}" trainer.devices=1 \
        -- --mem=0 || fail "exit $?"
    grep -qxF "#SBATCH --mem=0" "$work/out" || fail "$(cat "$work/out")"
    if [ -s "$calls" ] || [ -e runs ]; then fail "something was done"; fi
}

# their names have the same second
launches_at_one_time_have_a_folder_each() {
    for lr in 1 2 3 4 5 6; do
        launch --nodes 2 --no-check t.yaml "${overrides[@]}" trainer.devices=1 \
            model.optim.lr=$lr || fail "exit $?: $(cat "$work/err")"
    done
    for lr in 1 2 3 4 5 6; do
        [ "$(grep -l "model.optim.lr=$lr " runs/*/vneva.sbatch | wc -l)" = 1 ] ||
            fail "no script of lr $lr: $(ls runs)"
    done
    rm -r runs
}

an_option_of_sbatch_that_queues_nothing_is_no_launch() {
    : >"$calls"
    for option in --test-only --help -h --usage --version -V; do
        ! launch --nodes 2 --no-check t.yaml "${overrides[@]}" trainer.devices=1 -- $option &&
            says "'$option' after \`--\`: "
    done
    if [ -s "$calls" ] || [ -e runs ]; then fail "something was done"; fi
}

a_log_elsewhere_is_not_said_to_be_here() {
    launch --nodes 2 --no-check --run-dir log t.yaml "${overrides[@]}" trainer.devices=1 \
        -- -o "$work/mine.%j" || fail "exit $?"
    ! grep -q "its log" "$work/out" || fail "$(cat "$work/out")"
}

a_key_says_where_its_coordinator_is() {
    "$vneva" keys pair bob --role admin --coordinator "$(printf 'a%.0s' {1..40})" \
        --endpoint tcp://head:7777 >"$work/out" 2>&1 || fail "$(cat "$work/out")"
    launch --dry-run --nodes 2 --no-check t.yaml "${overrides[@]}" trainer.devices=1 \
        --key bob.key || fail "exit $?: $(cat "$work/err")"
    grep -qxF "CONNECT=tcp://head:7777" "$work/out" || fail "$(grep ^CONNECT "$work/out")"
    grep -q "^KEY=.*/bob.key'\\?$" "$work/out" || fail "$(grep ^KEY "$work/out")"
    launch --dry-run --nodes 2 --no-check t.yaml "${overrides[@]}" trainer.devices=1 \
        --connect tcp://other:1 --key bob.key || fail "exit $?"
    grep -qxF "CONNECT=tcp://other:1" "$work/out" || fail "$(grep ^CONNECT "$work/out")"
    rm bob.key
}

a_run_folder_is_of_one_specification() {
    cp t.yaml other.yaml
    echo "# more" >>other.yaml
    launch --nodes 2 --no-check --run-dir r1 t.yaml "${overrides[@]}" trainer.devices=1 ||
        fail "the same again: $(cat "$work/err")"
    ! launch --nodes 2 --no-check --run-dir r1 other.yaml "${overrides[@]}" \
        trainer.devices=1 && says "is of another specification"
}

variables_of_sbatch_do_not_win() {
    SBATCH_PARTITION=other SBATCH_SIGNAL=9 SBATCH_ACCOUNT=mine launch --nodes 2 \
        --no-check --run-dir r4 --partition gpu t.yaml "${overrides[@]}" trainer.devices=1
    [ "$(grep "^sbatch sees" "$calls")" = "sbatch sees SBATCH_ACCOUNT=mine" ] ||
        fail "$(cat "$calls")"
}

what_sbatch_says_comes_with_a_remedy() {
    echo "sbatch: error: invalid partition specified: nix" >"$state/sbatch_says"
    launch --nodes 2 --no-check --run-dir r5 t.yaml "${overrides[@]}" trainer.devices=1
    [ $? = 4 ] || fail "not refused"
    says "vneva: sbatch: invalid partition specified: nix; \`sinfo\` lists"
    [ ! -e r5 ] || fail "its folder is left: $(ls r5)"
    launch --nodes 2 --no-check t.yaml "${overrides[@]}" trainer.devices=1
    [ ! -e runs ] || fail "a folder is left: $(ls runs)"
    launch --nodes 2 --no-check --run-dir r1 t.yaml "${overrides[@]}" trainer.devices=1
    [ -s r1/spec.yaml ] || fail "the folder of an earlier launch is gone"
    printf 'sbatch: error: one\nsbatch: error: two\n' >"$state/sbatch_says"
    launch --nodes 2 --no-check --run-dir r5 t.yaml "${overrides[@]}" trainer.devices=1
    says "vneva: sbatch: one; two"
    rm "$state/sbatch_says"
    mv "$work/bin/sbatch" "$work/no_sbatch"
    PATH=$work/bin launch --nodes 2 --no-check --run-dir r5 t.yaml "${overrides[@]}" \
        trainer.devices=1
    [ $? = 5 ] || fail "exit code"
    says "there is no sbatch here"
    mv "$work/no_sbatch" "$work/bin/sbatch"
}

waiting_ends_with_the_job() {
    # COMPLETING: also before a job is queued again
    echo "123|COMPLETING|2|N/A|N/A|N/A|x|None" >"$state/queue"
    echo "123|PENDING|2|N/A|N/A|N/A|x|BeginTime" >"$state/queue.1"
    echo "123|COMPLETED|2|N/A|N/A|N/A|x|None" >"$state/queue.2"
    launch --wait --json --nodes 2 --no-check --run-dir r1 t.yaml "${overrides[@]}" \
        trainer.devices=1 || fail "exit $?"
    grep -qF '"allocation": "123"' "$work/out" || fail "$(cat "$work/out")"
    says "Slurm job 123: COMPLETED"
    echo "123|CANCELLED|2|N/A|N/A|N/A|x|None" >"$state/queue"
    launch --wait --nodes 2 --no-check --run-dir r1 t.yaml "${overrides[@]}" trainer.devices=1
    [ $? = 1 ] || fail "a cancelled job is no failure"
    says "and \`vneva launch status '"
    : >"$state/queue"
    launch --wait --nodes 2 --no-check --run-dir r1 t.yaml "${overrides[@]}" trainer.devices=1
    [ $? = 5 ] || fail "a forgotten job: $?"
    says "its log says how it ended"
}

verb() {
    : >"$calls"
    "$VNEVA_BIN/vneva-launch" "$@" >"$work/out" 2>"$work/err"
}

# is LINE: all of standard output
is() {
    [ "$(cat "$work/out")" = "$1" ] || fail "$(cat "$work/out" "$work/err")"
}

agents_are_queued_for_a_pool() {
    touch key
    verb agents slurm --pool p1 --name p1.7 --connect tcp://h:1 --key key --idle 60 \
        --nodes 2 --run-dir ag --node-program vneva-node -- --mem=1G ||
        fail "exit $?: $(cat "$work/err")"
    is "{\"allocation\": \"123\", \"pool\": \"p1\", \"name\": \"p1.7\", \"nodes\": 2,\
 \"run_dir\": \"$folder/ag\"}"
    grep -qxF "#SBATCH --job-name=vneva-pool-p1:p1.7" ag/vneva.sbatch || fail "name"
    run=$folder/ag
    echo 75 >"$state/does"
    : >"$calls"
    start_script
    ended
    grep -qxF "node <--run-dir> <$run> <--exchange> <auto> <--grace> <135> <--connect>\
 <tcp://h:1> <--key> <$folder/key> <--pool> <p1> <--idle> <60>" "$calls" ||
        fail "$(cat "$calls")"
    ! grep -q "^scontrol" "$calls" || fail "agents are queued again"
    grep -qx "#SBATCH --no-requeue" ag/vneva.sbatch || fail "agents may be queued again"
    ! verb agents slurm --pool "p 1" --connect x --key key && says "--pool 'p 1'"
    ! verb agents slurm --pool p1 --connect x --key nix && says "is not there"
    ! verb agents slurm --pool p1 && says "agents need --connect"
}

a_refused_allocation_leaves_no_folder() {
    echo "sbatch: error: QOSMaxJobsPerUserLimit: Job violates accounting/QOS policy" \
        >"$state/sbatch_says"
    VNEVA_HOME=$work/home verb agents slurm --pool p1 --connect x --key key
    [ $? = 4 ] || fail "not refused"
    says "a limit of your account"
    rm "$state/sbatch_says"
    [ -z "$(ls "$work/home/pools/p1")" ] || fail "a folder is left"
}

allocations_are_listed() {
    cat >"$state/queue" <<'END2'
124|PENDING|1|2026-11-27T16:46:00|N/A|N/A|vneva-pool-p2:p2.1|Resources
123|RUNNING|2|2026-11-27T16:45:00|2026-11-27T16:46:00|N/A|vneva-pool-p1|None
122|RUNNING|2|2026-11-27T16:45:00|2026-11-27T16:46:00|N/A|mine|None
END2
    verb list slurm || fail "exit $?: $(cat "$work/err")"
    is '{"allocation": "123", "pool": "p1", "name": "", "state": "running", "reason": "", "nodes": 2, "since_ms": 1795797960000}
{"allocation": "124", "pool": "p2", "name": "p2.1", "state": "pending", "reason": "Resources", "nodes": 1, "since_ms": 1795797960000}'
    verb list slurm --pool p2
    [ "$(wc -l <"$work/out")" = 1 ] || fail "$(cat "$work/out")"
    : >"$state/queue"
    verb list slurm || fail "an empty queue is no error"
    is ""
    echo "slurm_load_jobs error: Unable to contact slurm controller" >"$state/squeue_says"
    verb list slurm
    [ $? = 3 ] || fail "exit code"
    says "Unable to contact slurm controller"
    rm "$state/squeue_says"
}

allocations_are_cancelled() {
    verb cancel slurm 7 8 || fail "exit $?"
    is '{"allocation": "7", "state": "cancelled"}
{"allocation": "8", "state": "gone"}'
    verb cancel slurm 9
    [ $? = 4 ] || fail "exit code"
    says "Access/permission denied"
    ! verb cancel slurm "7 8" && says "is no allocation"
}

spec
a_job_is_checked_written_and_queued
every_word_reaches_the_node_as_it_was_typed
a_container_gets_the_run_folder_and_the_mounts
without_pmix_nodes_meet_through_files
a_notice_is_passed_on_and_the_job_queued_again
a_job_that_does_nothing_is_not_queued_for_ever
a_cancelled_job_is_not_queued_again
a_failed_job_keeps_its_status
a_step_that_never_began_is_no_success
where_slurm_does_not_queue_again_it_says_how_to_go_on
the_file_by_hand_runs_as_it_is
wrong_sizes_and_keys_are_told_before_anything_is_queued
a_dry_run_changes_nothing
launches_at_one_time_have_a_folder_each
an_option_of_sbatch_that_queues_nothing_is_no_launch
a_log_elsewhere_is_not_said_to_be_here
a_key_says_where_its_coordinator_is
a_run_folder_is_of_one_specification
variables_of_sbatch_do_not_win
what_sbatch_says_comes_with_a_remedy
waiting_ends_with_the_job
agents_are_queued_for_a_pool
a_refused_allocation_leaves_no_folder
allocations_are_listed
allocations_are_cancelled
exit $failed
