#!/bin/sh
# `vneva launch slurm` and the verbs for machines against a real Slurm of two nodes, with a
# training over both: the script that vneva-launch writes, from sbatch to the job's end.
# Wants VNEVA_SOURCE, VNEVA_BIN, VNEVA_TESTS.
set -u
unset VNEVA_HOME VNEVA_KEY VNEVA_ENDPOINT
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
. "$here/training.sh"

folder=$(mktemp -d)
failed=0
finish() {
    [ -z "${VNEVA_HOME:-}" ] || "$VNEVA_BIN/vneva" down >/dev/null 2>&1
    slurm_stop
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM

fail() {
    echo "FAILED: $*" >&2
    failed=1
}
# fail_with RUN TEXT: with the end of what its script said
fail_with() {
    fail "$1: $2"
    tail -n 25 "$folder/$1"/slurm-*.out >&2
}
begin() {
    echo "== $*"
    began=$(date +%s)
}
took() { echo "   $(($(date +%s) - began)) s"; }

has_done() { # RUN STEPS
    now=$(VNEVA_KEY=$folder/$1/admin.key "$VNEVA_BIN/vneva" show 1 --field done 2>/dev/null)
    [ "${now:-0}" -ge "$2" ]
}
each_step_once() { # RUN
    awk '{ print $1 }' "$folder/$1/home/jobs/1/samples.log" | sort -n | uniq -c |
        awk '$1 != 1 { bad = 1 } END { exit bad || NR != '"$training_steps"' }' ||
        fail_with "$1" "samples.log does not have every step once"
}

# A job that was queued again waits for two minutes, unless it is told not to.
hasten() { slurm_wait 60 "$1" PENDING && scontrol update JobId="$1" StartTime=now; }

launch() { # RUN [options]; behind the file: what $more has
    run=$1
    shift
    # shellcheck disable=SC2046
    "$VNEVA_BIN/vneva" launch slurm --nodes 2 --devices 1 --run-dir "$folder/$run" "$@" \
        $(training_words 2) $more >"$folder/out" 2>&1
}
more=
# job_of: the number in what launch printed
job_of() { sed -n 's/^submitted Slurm job \([0-9]*\):.*/\1/p' "$folder/out"; }

a_job_runs_to_its_end() {
    begin "a launch that waits, in a folder with blanks"
    launch "a run (it's 50%j)" --wait ||
        { fail "status $?: $(cat "$folder/out")"; return; }
    each_step_once "a run (it's 50%j)"
    grep -q "2 nodes, pmix" "$folder/a run (it's 50%j)"/slurm-*.out || fail "not over PMIx"
    grep -q "COMPLETED" "$folder/out" || fail "$(cat "$folder/out")"
    took
}

# Without HOME and all that a login has set
a_job_needs_nothing_of_the_environment() {
    begin "-- --export=NONE"
    more="-- --export=NONE"
    launch bare --wait || fail_with bare "status $?: $(cat "$folder/out")"
    each_step_once bare
    took
}

a_job_that_only_the_nodes_refuse_says_why() {
    begin "a file that is refused there"
    more="model.data.data_path=[$folder/clips]"
    launch refused --wait --no-check && fail "it went well"
    "$VNEVA_BIN/vneva" launch status "$folder/refused" >"$folder/out" 2>&1
    grep -q "not accepted.*'$folder/clips' is no prepared dataset" "$folder/out" ||
        fail_with refused "$(cat "$folder/out")"
    took
}

a_notice_leads_to_another_start() {
    begin "the notice before a time limit"
    launch limit || fail "status $?: $(cat "$folder/out")"
    job=$(job_of)
    slurm_until 40 has_done limit 20 || fail_with limit "did not begin"
    scancel --batch --signal=USR1 "$job"
    slurm_until 30 grep -q "queued again" "$folder/limit/slurm-$job.out" ||
        fail_with limit "is not queued again"
    grep -q " 0 $job job 1: .*checkpoint of step" "$folder/limit/requeues" ||
        fail_with limit "requeues: $(cat "$folder/limit/requeues")"
    hasten "$job"
    slurm_finish 120 "$job" || fail_with limit "did not go on"
    grep -q "start 1, on" "$folder/limit/slurm-$job.out" || fail_with limit "no second start"
    each_step_once limit
    took
}

a_preempted_job_goes_on() {
    begin "preemption by a job of a higher partition"
    usual_steps=$training_steps
    training_steps=600 # not done before the other job begins
    launch preempted --partition low --signal-seconds 60 ||
        fail "status $?: $(cat "$folder/out")"
    job=$(job_of)
    slurm_until 40 has_done preempted 20 || fail_with preempted "did not begin"
    other=$(sbatch --parsable --partition=high --nodes=2 --output=/dev/null --wrap=true)
    slurm_until 60 grep -q "queued again" "$folder/preempted/slurm-$job.out" ||
        fail_with preempted "is not queued again"
    grep -q "(SIGUSR1)" "$folder/preempted/slurm-$job.out" ||
        fail_with preempted "was not told first"
    slurm_wait 60 "$other" COMPLETED
    hasten "$job"
    slurm_finish 120 "$job" || fail_with preempted "did not go on"
    each_step_once preempted
    training_steps=$usual_steps
    took
}

a_cancelled_job_goes_on_when_it_is_told() {
    begin "scancel, and the script once more"
    launch cancelled || fail "status $?: $(cat "$folder/out")"
    job=$(job_of)
    slurm_until 40 has_done cancelled 20 || fail_with cancelled "did not begin"
    scancel "$job"
    slurm_wait 40 "$job" CANCELLED || fail_with cancelled "goes on"
    slurm_until 40 slurm_have_no_job || fail_with cancelled "is queued again"
    job=$(sbatch --parsable "$folder/cancelled/vneva.sbatch")
    slurm_finish 120 "$job" || fail_with cancelled "did not go on"
    each_step_once cancelled
    took
}

# Every text that sbatch's own quotes could break comes back from the queue as it was typed.
words_survive_the_lines_of_a_script() {
    begin "words in #SBATCH lines"
    for word in "it's" '"double"' '$HOME' '`date`' 'back\slash' 'end\' 'a #comment' '%j' \
        "a;b|c&d <in >out" '~root' '{a,b}' "'\\''"; do
        agents q --hold "--comment=$word" || fail "$word: $(cat "$folder/err")"
        got=$(squeue -h -j "$allocation" -o %k)
        [ "$got" = "$word" ] || fail "'$word' comes back as '$got'"
        scancel "$allocation"
    done
    took
}

agents() { # POOL, options of sbatch
    pool=$1
    shift
    touch "$folder/key"
    "$VNEVA_BIN/vneva-launch" agents slurm --pool "$pool" --connect tcp://nowhere:1 \
        --key "$folder/key" --node-program "$folder/node" --run-dir "$folder/$pool" \
        -- "$@" >"$folder/out" 2>"$folder/err" || return 1
    allocation=$(sed -n 's/.*"allocation": "\([0-9]*\)".*/\1/p' "$folder/out")
}
is_listed() { # STATE
    "$VNEVA_BIN/vneva-launch" list slurm --pool p.1 | grep -q \
        "\"allocation\": \"$allocation\", \"pool\": \"p.1\".*\"state\": \"$1\""
}

allocations_come_and_go() {
    begin "agents, list and cancel"
    printf '#!/bin/sh\nexec sleep 60\n' >"$folder/node" && chmod +x "$folder/node"
    agents p.1 --begin=now+1hour || fail "$(cat "$folder/err")"
    slurm_until 10 is_listed pending || fail "$("$VNEVA_BIN/vneva-launch" list slurm)"
    scontrol update jobid="$allocation" starttime=now
    slurm_until 20 is_listed running || fail "$("$VNEVA_BIN/vneva-launch" list slurm)"
    "$VNEVA_BIN/vneva-launch" cancel slurm "$allocation" >"$folder/out" ||
        fail "cancel: status $?"
    grep -q '"cancelled"' "$folder/out" || fail "$(cat "$folder/out")"
    slurm_until 30 is_listed ended || fail "$("$VNEVA_BIN/vneva-launch" list slurm)"
    slurm_wait 30 "$allocation" CANCELLED
    "$VNEVA_BIN/vneva-launch" cancel slurm "$allocation" 999999 >"$folder/out" 2>&1 ||
        fail "cancel of what is gone: status $?"
    [ "$(grep -c '"gone"' "$folder/out")" = 2 ] || fail "$(cat "$folder/out")"
    agents p.1 --partition=nowhere && fail "no such partition, and it is queued"
    grep -q "sinfo. lists the partitions" "$folder/err" || fail "$(cat "$folder/err")"
    took
}

agents_work_for_a_coordinator_elsewhere() {
    begin "agents of a coordinator outside of Slurm"
    VNEVA_HOME=$folder/home
    export VNEVA_HOME
    endpoint=tcp://127.0.0.1:$("$VNEVA_TESTS/free_ports" 1)
    "$VNEVA_BIN/vneva" up --devices 1 --listen "$endpoint" >"$folder/out" 2>&1 &&
        "$VNEVA_BIN/vneva" keys add pool --role worker --endpoint "$endpoint" \
            --out "$folder/pool.key" >"$folder/out" 2>&1 || fail "$(cat "$folder/out")"
    "$VNEVA_BIN/vneva-launch" agents slurm --pool p.2 --nodes 2 --devices 2 --idle 8 \
        --connect "$endpoint" --key "$folder/pool.key" >"$folder/out" 2>&1 ||
        fail "$(cat "$folder/out")"
    allocation=$(sed -n 's/.*"allocation": "\([0-9]*\)".*/\1/p' "$folder/out")
    slurm_until 20 are_up 2 || fail "no agents: $(cat "$VNEVA_HOME"/pools/p.2/*/slurm-*.out)"
    slurm_wait 30 "$allocation" COMPLETED ||
        fail "idle agents stay: $(cat "$VNEVA_HOME"/pools/p.2/*/slurm-*.out)"
    slurm_until 10 are_up 0 || fail "agents that ended are thought to be there"
    a_job_handed_in_elsewhere_counts_its_progress
    "$VNEVA_BIN/vneva" down >/dev/null 2>&1
    unset VNEVA_HOME
    took
}
# Else three starts, and it would be taken for one that does not get on.
a_job_handed_in_elsewhere_counts_its_progress() {
    "$VNEVA_BIN/vneva" keys add root --role admin --endpoint "$endpoint" \
        --out "$folder/root.key" >"$folder/out" 2>&1 || fail "$(cat "$folder/out")"
    launch else --connect "$endpoint" --key "$folder/root.key" ||
        fail "status $?: $(cat "$folder/out")"
    grep -qF "vneva top --key $folder/root.key" "$folder/out" || fail "$(cat "$folder/out")"
    job=$(job_of)
    slurm_until 40 test -s "$folder/else/progress" || fail_with else "no progress"
    scancel --batch --signal=USR1 "$job"
    slurm_until 30 grep -q "queued again" "$folder/else/slurm-$job.out" ||
        fail_with else "is not queued again"
    grep -q " 0 $job job 1: " "$folder/else/requeues" ||
        fail_with else "requeues: $(cat "$folder/else/requeues")"
    scancel "$job"
}
are_up() { # HOW MANY agents of 2 devices
    now=$("$VNEVA_BIN/vneva" query workers where state=up n_devices=2 --format csv | tail -n +2 |
        wc -l)
    [ "$now" = "$1" ]
}

slurm_start "$folder/slurm" || exit 1
cd "$folder" || exit 1
training_make "$folder" || { echo "no data to train on" >&2; exit 1; }
allocations_come_and_go
words_survive_the_lines_of_a_script
agents_work_for_a_coordinator_elsewhere
a_job_runs_to_its_end
a_job_needs_nothing_of_the_environment
a_job_that_only_the_nodes_refuse_says_why
more=
a_notice_leads_to_another_start
a_preempted_job_goes_on
a_cancelled_job_goes_on_when_it_is_told
exit $failed
