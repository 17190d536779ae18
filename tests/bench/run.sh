#!/bin/sh
# tests/bench/run.sh - one command, one table: what this machine gives and what vneva makes
# of it. Absolute times depend on the machine; compare the rows with each other.
#
# Decoding is compared with PyAV and decord where python3 has them (pip install av decord
# numpy pillow), a model of 107 M parameters with PyTorch and transformers where $PYTHON has
# them (pip install -r tests/bench/bench_model_requirements.txt): that takes a quarter of an
# hour. The videos are those of the quickstart, fetched when they can be had.
set -eu
cd "$(dirname "$0")/../.."
build=build
python=${PYTHON:-python3}
videos=$build/quickstart/videos
export VNEVA_BIN=$PWD/$build/bin VNEVA_SOURCE=$PWD
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT TERM

sh jobs/setup.sh test
cmake -G Ninja -B $build -DCMAKE_BUILD_TYPE=Release -DVNEVA_TESTS=ON >/dev/null
cmake --build $build -j "$(nproc 2>/dev/null || echo 2)" >/dev/null

program() { # the path of a benchmark program
    for folder in bin tests; do
        [ ! -x "$build/$folder/$1" ] || { echo "$build/$folder/$1"; return; }
    done
    echo "bench: $1 is not built" >&2
    return 1
}
number() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p"; }
row() { printf '| %-72s | %14s |\n' "$1" "$2"; }

echo "operations (bench_ops)..." >&2
$(program bench_ops) 1 >"$out/ops"
peak() { awk -v type="$1" '/^large product/ && $4 == type { print $5 }' "$out/ops"; }

echo "training step (bench_step)..." >&2
step() { # NAME ARGS...: one JSON line in $out/NAME
    name=$1
    shift
    $(program bench_step) --steps 10 "$@" >"$out/$name" 2>/dev/null
}
step fp32 --ranks 2 --threads 1 --dtype f32
step fp32-recompute --ranks 2 --threads 1 --dtype f32 --recompute
step bf16-recompute --ranks 2 --threads 1 --dtype bf16 --recompute
step solo --ranks 1 --threads 1 --dtype f32

echo "a model beside PyTorch's (bench_model)..." >&2
if "$python" -c 'import torch, transformers' 2>/dev/null; then
    "$python" tests/bench/bench_model.py "$(program bench_model)" \
        --json $build/bench_model.json >"$out/model"
else
    echo "bench: $python has no torch and transformers: nothing to compare with" >&2
fi

echo "bringing weights in (bench_import)..." >&2
$(program bench_import) --gb 2 --folder "$out" >"$out/import"

echo "dispatch (bench_dispatch)..." >&2
$(program bench_dispatch) >"$out/dispatch" 2>&1 || cat "$out/dispatch" >&2

echo "1,000 agents over TCP with keys (bench_scale)..." >&2
for args in "--tasks 10000" "--tasks 100000" "--tasks 100000 --work-ms 40" \
    "--tasks 100000 --work-ms 50"; do
    # shellcheck disable=SC2086
    $(program bench_scale) --agents 1000 $args >>"$out/scale" || true
done

echo "links between ranks (bench_mesh)..." >&2
$(program bench_mesh) >"$out/mesh" || cat "$out/mesh" >&2

echo "decoding (bench_decode)..." >&2
if sh jobs/quickstart/fetch_videos.sh "$videos" >&2; then
    if python3 -c 'import numpy, PIL' 2>/dev/null; then
        python3 tests/bench/bench_decode.py "$(program bench_decode)" "$videos"/* \
            >"$out/decode" 2>/dev/null
    else
        $(program bench_decode) "$videos"/* 2>/dev/null | awk '{ n++; first += $2; again += $3
                gpu += $4; misses += $4 == "-" }
            END { print "videos/s over " n " videos", n / first, n / again,
                misses ? "-" : n / gpu, "-", "-" }' \
            >"$out/decode"
    fi
fi

cat "$out/ops"
echo
[ ! -s "$out/decode" ] || { cat "$out/decode"; echo; }
[ ! -s "$out/model" ] || { cat "$out/model"; echo; }
cat "$out/import"
echo
row "what" "figure"
row "----" "-----:"
row "large matrix product, one core, fp32 (GFLOP/s)" "$(peak F32)"
row "large matrix product, one core, bf16 (GFLOP/s)" "$(peak BF16)"
for name in fp32 fp32-recompute bf16-recompute solo; do
    case $name in solo) ranks=1 type=F32 ;; bf16*) ranks=2 type=BF16 ;; *) ranks=2 type=F32 ;; esac
    title="training step, $ranks rank(s), $name"
    row "$title (samples/s)" "$(number samples_per_s <"$out/$name")"
    row "$title (tokens/s)" "$(number tokens_per_s <"$out/$name")"
    row "$title (GFLOP/s)" "$(number gflop_per_s <"$out/$name")"
    row "$title (share of the product's rate)" "$(awk -v g="$(number gflop_per_s <"$out/$name")" \
        -v p="$(peak $type)" -v r=$ranks 'BEGIN { printf "%.2f", g / (p * r) }')"
done
awk '/videos\/s over/ { n = NF
    printf "| %-72s | %14s |\n", "decoding, 8 frames, vneva (videos/s)", $(n - 4)
    printf "| %-72s | %14s |\n", "decoding, the same again with its index kept", $(n - 3)
    printf "| %-72s | %14s |\n", "decoding, that on the GPU",
        $(n - 2) == "-" ? "not measured" : $(n - 2)
    printf "| %-72s | %14s |\n", "decoding, PyAV", $(n - 1)
    printf "| %-72s | %14s |\n", "decoding, decord", $n }' "$out/decode" 2>/dev/null || true
awk 'NR > 1 { what = "ranks on two hosts, over loopback, " $1
    printf "| %-72s | %14s |\n", what ": one way (GB/s)", $2
    printf "| %-72s | %14s |\n", what ": both ways at once (GB/s)", $3
    printf "| %-72s | %14s |\n", what ": turn of 4 KiB (us)", $4 }' "$out/mesh"
awk '/^ *[0-9]+ +[0-9]+ +[0-9.]+ / { what = "dispatch, " $1 " agents, " $2 " tasks"
    printf "| %-72s | %14s |\n", what ": durable completions/s", $4
    printf "| %-72s | %14s |\n", what ": lease round trip p50 (ms)", $5
    printf "| %-72s | %14s |\n", what ": lease round trip p99 (ms)", $6 }' "$out/dispatch"
awk '/^ *[0-9]+ +[0-9]+ +[0-9]+ +[0-9.]+ / { what = $1 " agents with keys, " $2 " tasks of " $3 " ms"
    printf "| %-72s | %14s |\n", what ": durable completions/s", $5
    printf "| %-72s | %14s |\n", what ": lease round trip p50 (ms)", $6
    printf "| %-72s | %14s |\n", what ": lease round trip p99 (ms)", $7
    printf "| %-72s | %14s |\n", what ": vneva status p99 (ms)", $8
    printf "| %-72s | %14s |\n", what ": memory of the coordinator (MB)", $10 }' "$out/scale"
