#!/bin/sh
# A pool on a real Slurm: nodes come while a job waits, are kept while it works, replaced
# when one is killed, and end when there is nothing to do; what is pending for nobody is
# cancelled; a coordinator that was killed takes its nodes up again.
set -u
. "$(dirname "$0")/cluster.sh"

vneva=$VNEVA_BIN/vneva
folder=$(mktemp -d)
export VNEVA_HOME=$folder/home
coordinator=
failed=0
finish() {
    [ -z "$coordinator" ] || kill -9 "$coordinator" 2>/dev/null
    slurm_stop
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM

fail() {
    echo "FAILED: $*" >&2
    "$vneva" pool status >&2
    "$vneva" query events --sort -id --limit 30 --columns time,kind,text >&2
    squeue >&2
    tail -n 5 "$folder"/coordinator.log "$VNEVA_HOME"/pools/*/*/logs/*.log >&2
    exit 1
}
ask() { "$vneva" query --sql "$1" --format csv 2>/dev/null | tail -n 1 | tr -d '\r'; }
is() { [ "$(ask "$1")" = "$2" ]; }
# until_is S QUESTION ANSWER
until_is() { slurm_until "$1" is "$2" "$3" || fail "'$2' is '$(ask "$2")', not '$3'"; }
queue() { squeue -h -o %T | sort | tr '\n' ' '; }
queue_is() { [ "$(queue)" = "$1" ]; }

coordinator_start() {
    VNEVA_FAULT=${1:-} "$vneva" coordinator --home "$VNEVA_HOME" \
        --listen "tcp://127.0.0.1:$port" --pool-poll-ms 500 --lost-after-ms 4000 \
        >>"$folder/coordinator.log" 2>&1 &
    coordinator=$!
    slurm_until 20 "$vneva" status >/dev/null 2>&1 || fail "no coordinator"
}
submit() {
    "$vneva" submit -q "$VNEVA_SOURCE/jobs/quickstart/prepare.yaml" name="$1" \
        model.data.data_path="$folder/clips/annotations.jsonl" \
        model.data.video_folder="$folder/clips" model.data.output="$folder/$1" \
        model.data.shard_size=8 model.tokenizer.model="$folder/tokenizer.model" ||
        fail "cannot submit"
}

"$vneva" data synth --output "$folder/clips" --clips 48 --seed 1 >/dev/null 2>&1 &&
    "$vneva" data train-tokenizer --vocab-size 400 --output "$folder/tokenizer.model" \
        "$folder/clips/annotations.jsonl" >/dev/null 2>&1 || fail "no data"
slurm_start "$folder/slurm" || exit 1
port=$("$VNEVA_TESTS/free_ports" 1)
coordinator_start
"$vneva" pool add slurm --nodes 0-2 --idle 4s --devices 1 --time 10 || fail "pool add"

# Nodes come with the work and go after it: two for two jobs that wait at the same time.
scontrol update partition=test state=down
job=$(submit first)
other=$(submit other)
until_is 60 "select count(*) from allocations where state = 'pending'" 2
scontrol update partition=test state=up
for j in "$job" "$other"; do
    timeout 120 "$vneva" wait "$j" >/dev/null 2>&1 || fail "job $j"
done
until_is 60 "select count(*) from allocations where state <> 'ended'" 0
slurm_until 30 queue_is "" || fail "the queue has $(queue)"
is "select count(*) from allocations" 2 || fail "not two nodes"
is "select count(*) from tasks where n_failures > 0" 0 || fail "a task was blamed"

# A node that nobody needs any more is cancelled before it began.
scontrol update partition=test state=down
job=$(submit second)
until_is 60 "select count(*) from allocations where state = 'pending' and reason = 'PartitionDown'" 1
case $("$vneva" why "$job") in
*"of pool slurm"*"is pending for"*) ;;
*) fail "why says $("$vneva" why "$job")" ;;
esac
"$vneva" cancel "$job" >/dev/null
until_is 60 "select count(*) from allocations where state <> 'ended'" 0
slurm_until 30 queue_is "" || fail "the queue has $(queue)"
scontrol update partition=test state=up

# A coordinator killed while a submission is under way finds it again by its name.
before=$(ask 'select count(*) from allocations')
kill -9 "$coordinator"
wait "$coordinator" 2>/dev/null
coordinator_start pools.submitted:kill
job=$(submit third)
wait "$coordinator" 2>/dev/null
coordinator_start
timeout 120 "$vneva" wait "$job" >/dev/null 2>&1 || fail "job $job"
until_is 60 "select count(*) from allocations where state <> 'ended'" 0
[ "$(ask 'select count(*) from allocations')" -le $((before + 2)) ] || fail "doubled nodes"
slurm_until 30 queue_is "" || fail "the queue has $(queue)"

# A node of those that are always to be there dies: another takes its place.
"$vneva" pool add slurm --name warm --nodes 1-1 --idle 60s --devices 1 || fail "pool add"
up="select count(*) from workers where pool = 'warm' and state = 'up'"
until_is 60 "$up" 1
node=$(squeue -h -o %N)
slurm_node_kill "$node"
until_is 90 "select count(*) from allocations where pool = 'warm' and state = 'ended'" 1
until_is 60 "$up" 1
[ "$(squeue -h -t R -o %N)" != "$node" ] || fail "it is on the dead node"
"$vneva" pool remove warm >/dev/null || fail "pool remove"
until_is 60 "select count(*) from pools where name = 'warm'" 0

# Nodes that start and are not fit: the pool says where it is said why.
"$vneva" pool add slurm --name unfit --nodes 1-1 --devices 60 || fail "pool add"
until_is 60 "select failure like '%ended before its agent%launch status%' from pools where name = 'unfit'" 1
failure=$(ask "select failure from pools where name = 'unfit'")
folder_of=${failure##*launch status }
"$vneva" launch status "${folder_of%%\`*}" | grep -q "60 devices are asked for" ||
    fail "launch status of '${folder_of%%\`*}' says no cause"
"$vneva" pool remove unfit >/dev/null || fail "pool remove"
until_is 60 "select count(*) from pools where name = 'unfit'" 0

# The pool goes, and its key with it.
"$vneva" pool remove slurm >/dev/null || fail "pool remove"
until_is 30 "select count(*) from pools" 0
[ ! -e "$VNEVA_HOME/keys/pool-slurm.key" ] || fail "the key stays"
exit $failed
