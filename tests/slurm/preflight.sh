#!/bin/sh
# Preflight under a real Slurm of two nodes: each fault is planted on n2 alone, and the launch
# ends within a minute, names host, cause and remedy, and starts nothing.
# Wants VNEVA_SOURCE, VNEVA_BIN, VNEVA_TESTS.
set -u
here=$(dirname "$0")
. "$here/cluster.sh"

folder=$(mktemp -d "${TMPDIR:-/tmp}/vneva-slurm-XXXXXX")
failed=0
finish() {
    slurm_stop
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM
fail() {
    echo "FAILED: $run: $*" >&2
    tail -n 25 "$folder/$run.log" >&2
    failed=1
}

# What both nodes run; on n2 something is wrong.
cat >"$folder/start.sh" <<'END'
run=$2 # --run-dir RUN ...
[ "$SLURMD_NODENAME" = n1 ] || case $PLANT in
version) export VNEVA_FAULT=preflight.version:fail,preflight.clock:fail ;;
unshared)
    mkdir -p "$run" "$FOLDER/other"
    exec unshare -m --propagation private sh -c \
        'mount --bind "$FOLDER/other" "$0" && exec "$VNEVA_BIN/vneva-node" "$@"' "$run" "$@" ;;
hidden)
    mkdir -p "$FOLDER/empty"
    exec unshare -m --propagation private sh -c \
        'mount --bind "$FOLDER/empty" "$FOLDER/data" && exec "$VNEVA_BIN/vneva-node" "$@"' \
        sh "$@" ;;
nolibrary)
    LIBRARY=$(readlink -f "$(ldconfig -p | awk '$1 == "libpmix.so.2" { print $NF; exit }')")
    export LIBRARY
    exec unshare -m --propagation private sh -c \
        'mount --bind /dev/null "$LIBRARY" && exec "$VNEVA_BIN/vneva-node" "$@"' sh "$@" ;;
alone) exec unshare -n "$VNEVA_BIN/vneva-node" "$@" ;;
full)
    mkdir -p "$FOLDER/tiny"
    export TMPDIR="$FOLDER/tiny"
    exec unshare -m --propagation private sh -c \
        'mount -t tmpfs -o size=1m none "$TMPDIR" && exec "$VNEVA_BIN/vneva-node" "$@"' sh "$@" ;;
esac
exec "$VNEVA_BIN/vneva-node" "$@"
END
export FOLDER="$folder"

# launch RUN WAY PLANT [options of vneva-node]: sets status and seconds
launch() {
    run=$1 way=$2
    PLANT=$3
    export PLANT
    shift 3
    began=$(date +%s)
    srun -N2 -n2 --mpi="$way" sh "$folder/start.sh" --run-dir "$folder/$run" --devices 1 \
        "$@" >"$folder/$run.log" 2>&1
    status=$?
    seconds=$(($(date +%s) - began))
    [ $seconds -le 60 ] || fail "took $seconds s"
}

# expect CHECK CAUSE: a fault of n2, a report of it, and nothing that was started
expect() {
    [ $status != 0 ] || fail "it ended well"
    grep -qF "preflight: fault: n2: $1: $2" "$folder/$run.log" || fail "no '$1: $2' of n2"
    grep -A 1 -F "preflight: fault: n2: $1: " "$folder/$run.log" | grep -q "mend it: ." ||
        fail "no remedy"
    grep -qF '"faults"' "$folder/$run/preflight.json" || fail "no report"
    [ ! -e "$folder/$run/home/coordinator.db" ] || fail "a coordinator was started"
    echo "$run: $seconds s"
}

slurm_start "$folder" || exit 1

launch version pmix version
expect version "runs vneva 0.0.0-other, but n1 runs"
expect clock "the clock is "
"$VNEVA_BIN/vneva" launch status "$folder/version" >"$folder/version.status"
grep -q '^preflight .* 2 failed' "$folder/version.status" ||
    fail "its phases do not say so: $(cat "$folder/version.status")"

launch unshared pmix unshared
expect "run folder" "'$folder/unshared' is not shared: what n1 wrote there cannot be read"

launch full pmix full
expect disk "'$folder/tiny' has 1 MB free"

prepare() { # RUN WAY PLANT DATA_PATH OUTPUT
    launch "$1" "$2" "$3" -- "$VNEVA_SOURCE/jobs/quickstart/prepare.yaml" \
        model.data.data_path="$4" model.data.video_folder="$folder" \
        model.data.output="$5" model.tokenizer.model="$folder/start.sh"
}
mkdir "$folder/data"
echo '{}' >"$folder/data/a.jsonl"
prepare hidden pmix hidden "$folder/data" "$folder/out"
expect paths "model.data.data_path: folder '$folder/data' is empty here"
prepare made none hidden "$folder/start.sh" "$folder/data/set"
expect paths "model.data.output: the folder '$folder/data' is not shared"
[ "$(ls -A "$folder/data")" = a.jsonl ] || fail "it left $(ls -A "$folder/data")"

prepare paths none well "$folder/none.jsonl" "$folder/out"
expect paths "model.data.data_path: '$folder/none.jsonl': cannot see it"
grep -qF "fault: n1: paths: model.data.data_path" "$folder/$run.log" || fail "n1 is silent"

# they go on without it, and it is said who has none
prepare nolibrary pmix nolibrary "$folder/none.jsonl" "$folder/out"
expect paths "model.data.data_path: '$folder/none.jsonl': cannot see it"
grep -q "n2: the nodes meet through files: there is no PMIx library: .*; install" \
    "$folder/$run.log" && grep -qF "ok: 2 nodes, files" "$folder/$run.log" ||
    fail "not through files"

launch devices pmix well --devices 64
expect devices "64 devices are asked for, but only"

# the coordinator that the launch itself has started
launch alone none alone
[ $status != 0 ] || fail "it ended well"
grep -qF "preflight: fault: n2: coordinator: does not reach tcp://" "$folder/alone.log" &&
    grep -q "mend it: let this node look up" "$folder/alone.log" || fail "n2 is not told"
grep -q "phase 'reach' failed" "$folder/alone.log" || fail "in another phase"
echo "alone: $seconds s"

launch nopmix none well --exchange pmix
[ $status != 0 ] && grep -q "srun --mpi=pmix" "$folder/$run.log" || fail "no word on PMIx"

port=$("$VNEVA_TESTS/free_ports" 1)
run=port
export VNEVA_HOME="$folder/keys"
"$VNEVA_BIN/vneva" keys init >"$folder/port.log" 2>&1 &&
    "$VNEVA_BIN/vneva" keys add pool --role worker --endpoint "tcp://127.0.0.1:$port" \
        --out "$folder/worker.key" >"$folder/port.log" 2>&1 || fail "no key"
launch port pmix well --key "$folder/worker.key"
expect coordinator "does not reach the coordinator at tcp://127.0.0.1:$port: cannot connect"
exit $failed
