#!/bin/sh
# tests/gpu.sh - proves the CUDA backend on the GPU of this machine, in one call.
#
# Needs a CUDA toolkit, CMake and a C and C++ compiler; builds model/ alone into build-gpu/.
# Every operation and whole tiny models run on the GPU against the reference backend. Prints
# one table; build-gpu/gpu_ops.json has it for programs. With compute-sanitizer in the path
# the operations run under it as well. Exit status 77: there is no GPU, or no toolkit.
set -eu
cd "$(dirname "$0")/.."
build="build-gpu"
jobs=$(nproc 2>/dev/null || echo 2)

command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
command -v nvcc >/dev/null || { echo "no CUDA toolkit: nvcc is not in the path"; exit 77; }
cmake -B "$build" -DCMAKE_BUILD_TYPE=Release -DVNEVA_MODEL_ONLY=ON -DVNEVA_TESTS=ON \
    >/dev/null
cmake --build "$build" -j "$jobs" --target vneva_cuda gpu_ops gpu_model >/dev/null
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || :
fi

LD_LIBRARY_PATH=$build/bin:${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH
failed=0
for test in "gpu_ops $build/gpu_ops.json" gpu_model; do
    rc=0
    # shellcheck disable=SC2086
    "$build"/tests/$test || rc=$?
    [ "$rc" != 77 ] || exit 77
    [ "$rc" = 0 ] || failed=1
done
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        echo "compute-sanitizer --tool $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 1 --print-limit 20 \
            "$build/tests/gpu_ops" "$build/gpu_ops_$tool.json" >"$build/$tool.log" 2>&1 ||
            { tail -40 "$build/$tool.log"; failed=1; }
    done
else
    echo "compute-sanitizer is not there: memory accesses are not checked"
fi
[ "$failed" = 1 ] || echo "the GPU agrees with the reference"
exit $failed
