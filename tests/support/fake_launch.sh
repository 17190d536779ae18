#!/bin/sh
# Stands in for vneva-launch in the tests of pools: the cluster is a folder, a node is a
# process of vneva-worker.
#   $VNEVA_FAKE_CLUSTER/job/ID/   an allocation: what was asked, and pid once it runs; its
#               agent outlives a test that was killed by half a minute
#   submitted, calls              a line a submission, a call
#   full        while it is there nothing new begins to run
#   refuse      while it is there submissions fail, saying what is in it
#   down        while it is there all calls fail, saying what is in it
#   stuck       while it is there nothing can be cancelled, and it says what is in it
#   hang_list   while it is there lists hang
#   hang        while it is there submissions hang before they are made
#   hang_after  while it is there they are made and then hang
set -eu
cluster=$VNEVA_FAKE_CLUSTER
verb=$1
shift 2
echo "$verb $*" >>"$cluster/calls"

begin() {
    read -r pool name endpoint key <"$cluster/job/$1/asked"
    SLURM_JOB_ID=$1 setsid "$VNEVA_FAKE_BIN/vneva-worker" --connect "$endpoint" \
        --key "$key" --pool "$pool" --host "node$1" --give-up 30 </dev/null \
        >>"$cluster/node$1.log" 2>&1 &
    echo $! >"$cluster/job/$1/pid"
}

lives() {
    [ -f "$cluster/job/$1/pid" ] || return 1
    state=$(cut -d' ' -f3 "/proc/$(cat "$cluster/job/$1/pid")/stat" 2>/dev/null) || return 1
    [ "$state" != Z ]
}

if [ -f "$cluster/down" ]; then
    cat "$cluster/down" >&2
    exit 3
fi
case $verb in
agents)
    while [ $# -gt 0 ]; do
        case $1 in
        --pool) pool=$2 ;;
        --name) name=$2 ;;
        --connect) endpoint=$2 ;;
        --key) key=$2 ;;
        esac
        shift
    done
    [ -f "$key" ] || { echo "no key '$key'" >&2; exit 2; }
    if [ -f "$cluster/refuse" ]; then
        cat "$cluster/refuse" >&2
        exit 4
    fi
    [ -f "$cluster/hang" ] && exec sleep 1000
    id=1
    until mkdir "$cluster/job/$id" 2>/dev/null; do id=$((id + 1)); done
    echo "$pool $name $endpoint $key" >"$cluster/job/$id/asked"
    echo "$pool $name" >>"$cluster/submitted"
    [ -f "$cluster/full" ] || begin "$id"
    [ -f "$cluster/hang_after" ] && exec sleep 1000
    echo "{\"allocation\": \"$id\", \"name\": \"$name\"}"
    ;;
list)
    [ -f "$cluster/hang_list" ] && exec sleep 1000
    for job in "$cluster"/job/*/; do
        id=$(basename "$job")
        [ -f "$job/asked" ] && [ ! -f "$job/cancelled" ] || continue
        read -r pool name rest <"$job/asked"
        [ "$pool" = "$2" ] || continue
        [ -f "$job/pid" ] || [ -f "$cluster/full" ] || begin "$id"
        if [ ! -f "$job/pid" ]; then
            state=pending reason=Resources
        elif lives "$id"; then
            state=running reason=
        else
            state=ended reason=COMPLETED
        fi
        echo "{\"allocation\": \"$id\", \"name\": \"$name\", \"state\": \"$state\"," \
            "\"reason\": \"$reason\", \"nodes\": 1, \"since_ms\": 0}"
    done
    ;;
cancel)
    if [ -f "$cluster/stuck" ]; then
        cat "$cluster/stuck" >&2
        exit 4
    fi
    for id in "$@"; do
        touch "$cluster/job/$id/cancelled"
        [ ! -f "$cluster/job/$id/pid" ] || kill "$(cat "$cluster/job/$id/pid")" || true
        echo "{\"allocation\": \"$id\", \"state\": \"cancelled\"}"
    done
    ;;
esac
