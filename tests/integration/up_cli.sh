#!/bin/sh
# vneva up and vneva-node as people run them, twice or after something was killed: one
# coordinator a home, one agent. Wants VNEVA_BIN (where the programs are).
set -u
work=$(mktemp -d)
export VNEVA_HOME="$work/home"
PATH=$VNEVA_BIN:$PATH
failed=0

fail() {
    echo "FAILED: $*" >&2
    failed=1
}

# processes NAME: numbers of those programs that run for this home
processes() {
    for folder in /proc/[0-9]*; do
        words=$(tr '\0' ' ' 2>/dev/null <"$folder/cmdline") || continue
        case $words in
        */vneva-"$1"\ *"--home $VNEVA_HOME "*) echo "${folder#/proc/}" ;;
        esac
    done
}

count() {
    processes "$1" | wc -l
}

finish() {
    vneva down >"$work/out" 2>&1
    for pid in $(processes coordinator) $(processes worker); do
        kill -KILL "$pid"
    done
    rm -rf "$work"
}
trap finish EXIT

two_at_once_start_one_agent() {
    vneva up --devices 1 >"$work/first" 2>&1 &
    vneva up --devices 1 >"$work/second" 2>&1 || fail "the second: $(cat "$work/second")"
    wait $! || fail "the first: $(cat "$work/first")"
    [ "$(count worker)" = 1 ] || fail "$(count worker) agents of two calls at once"
    [ "$(count coordinator)" = 1 ] || fail "$(count coordinator) coordinators"
}

wait_for() { # SECONDS COMMAND...
    tries=$(($1 * 5))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.2
    done
}

is_registered() {
    grep -qs registered "$work/run/logs/agent-0.log"
}

second_start_of_a_run_folder_leaves_the_first_alone() {
    vneva-node --run-dir "$work/run" >"$work/first" 2>&1 &
    first=$!
    wait_for 30 is_registered || fail "no agent registers: $(cat "$work/first")"
    cp "$work/run/home/keys/authorized" "$work/run/home/endpoint" "$work/run/admin.key" "$work"
    vneva-node --run-dir "$work/run" >"$work/out" 2>&1 && fail "two coordinators on one home"
    grep -q "another start of this run folder is running ('.*/run/home' is locked)" \
        "$work/out" ||
        fail "it said: $(cat "$work/out")"
    cmp -s "$work/authorized" "$work/run/home/keys/authorized" || fail "other keys are let in"
    cmp -s "$work/endpoint" "$work/run/home/endpoint" || fail "another endpoint"
    cmp -s "$work/admin.key" "$work/run/admin.key" || fail "another admin.key"
    kill "$first"
    wait "$first"
}

agent_that_outlived_its_coordinator_is_taken_back() {
    agent=$(processes worker)
    kill -KILL "$(processes coordinator)"
    vneva up --devices 1 >"$work/out" 2>&1 || fail "up again: $(cat "$work/out")"
    grep -q "^up: coordinator, home" "$work/out" || fail "it said: $(cat "$work/out")"
    [ "$(processes worker)" = "$agent" ] || fail "not the agent that was there"
}

has_lost_worker() {
    vneva query workers where state=lost --format csv | grep -q lost
}

agent_that_was_killed_is_replaced() {
    agent=$(processes worker)
    kill -KILL "$agent"
    wait_for 40 has_lost_worker || fail "its loss is not seen"
    vneva up --devices 1 >"$work/out" 2>&1 || fail "up again: $(cat "$work/out")"
    grep -q "^up: an agent, home" "$work/out" || fail "it said: $(cat "$work/out")"
    [ "$(count worker)" = 1 ] || fail "$(count worker) agents after one was killed"
}

nothing_runs_after_down() {
    vneva down >"$work/out" 2>&1 || fail "down: $(cat "$work/out")"
    vneva up --devices 1 >"$work/out" 2>&1 || fail "up after down: $(cat "$work/out")"
    vneva down >"$work/out" 2>&1 || fail "down: $(cat "$work/out")"
    [ "$(count coordinator)" = 0 ] || fail "the coordinator still runs"
}

a_program_that_ends_without_a_word_is_named() {
    mkdir "$work/bin" && cp "$VNEVA_BIN/vneva" "$work/bin/"
    printf '#!/bin/sh\nexit 5\n' >"$work/bin/vneva-coordinator"
    chmod +x "$work/bin/vneva-coordinator"
    VNEVA_HOME=$work/mute "$work/bin/vneva" up >"$work/out" 2>&1 && fail "it came up"
    grep -q "ended at once (status 5).*coordinator.log' ends with: nothing: has its disk" \
        "$work/out" || fail "it said: $(cat "$work/out")"
}

a_program_that_ends_without_a_word_is_named
two_at_once_start_one_agent
second_start_of_a_run_folder_leaves_the_first_alone
agent_that_outlived_its_coordinator_is_taken_back
agent_that_was_killed_is_replaced
nothing_runs_after_down
exit $failed
