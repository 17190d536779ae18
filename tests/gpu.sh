#!/bin/sh
# tests/gpu.sh [PART...] - proves and measures the CUDA backend on this machine's GPU, in one
# call of less than ten minutes.
#
# Needs a CUDA toolkit, CMake and a C and C++ compiler; builds model/ alone into build-gpu/.
# PyTorch and transformers are measured beside us where python3 ($PYTHON) has them and they
# see the GPU; nothing is downloaded. Without PART everything is run, in this order:
#
#   ops model                    against the reference: every operation; whole tiny models in
#                                every precision, TP 2 and 4, recomputation, a full device
#   matmul attention step.frozen step.trained generate first_step.7b first_step.tiny
#   sanitizer                    the operations again under compute-sanitizer, if it is there
#   peer.attention peer.step.frozen peer.step.trained peer.first_step.7b
#   peer.first_step.tiny peer.generate
#
# The last thing printed is one table; build-gpu/report/ ($VNEVA_GPU_OUT) has it as table.md
# and gpu.json, the records that they are made of (tests/bench/bench_gpu.h), and what each part
# said. Each part has a time limit (at most $VNEVA_GPU_PART_SECONDS), all together have
# $VNEVA_GPU_SECONDS (540); one that fails or hangs is told in the table, and the others run.
# Exit status: 0; 1 something is wrong; 2 a goal is not met; 77 there is no GPU or no toolkit.
#
# For tests without a GPU: VNEVA_GPU_STANDIN=1 runs everything over the host stand-ins with
# tiny shapes; VNEVA_GPU_PROGRAMS is a folder whose programs are taken, nothing is built.
set -u
cd "$(dirname "$0")/.." || exit 1
build="build-gpu"
out=${VNEVA_GPU_OUT:-$build/report}
python=${PYTHON:-python3}
standin=${VNEVA_GPU_STANDIN:-}
slow=${standin:+10} # as many times the limits: a busy machine's fibers
slow=${slow:-1}
seconds=${VNEVA_GPU_SECONDS:-$((540 * slow))}
longest=${VNEVA_GPU_PART_SECONDS:-$seconds}
jobs=$(nproc 2>/dev/null || echo 2)
start=$(date +%s)
wanted=${*:-all}
tiny=
unjudged=
child=

now() { echo $(($(date +%s) - start)); }
left() { echo $((seconds - $(now))); }
say() { printf '[%3d s] %s\n' "$(now)" "$*"; }
record() { printf '%s\t%s\t%s\t%s\t-\t-\t%s\n' "$1" "$2" "$3" "$4" "$5" >>"$out/records.tsv"; }
is_wanted() { case " $wanted " in *" all "* | *" $1 "*) return 0 ;; esac; return 1; }
last_line() { tail -n 1 "$1" 2>/dev/null | tr '\t' ' ' | cut -c 1-300; }

report() { # the table so far; 0, 1 something is wrong, 2 a goal is not met
    rc=0
    awk -v json="$out/gpu.json" -v about="$about" -v unjudged="$unjudged" -f tests/gpu_report.awk \
        tests/gpu_goals.tsv "$out/records.tsv" >"$out/table.md" || rc=$?
    case $rc in 0) return 0 ;; 4) return 2 ;; *) return 1 ;; esac
}

# run NAME LIMIT COMMAND...: its exit status, 124 after LIMIT seconds, 125: no time was left.
# What it says goes to NAME.log.
run() {
    name=$1 limit=$(($2 * slow))
    shift 2
    [ "$limit" -le "$longest" ] || limit=$longest
    [ "$limit" -le "$(left)" ] || limit=$(left)
    [ "$limit" -ge 5 ] || { echo "$seconds s were used up" >"$out/$name.log"; return 125; }
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1 &
    child=$!
    wait "$child"
}

why() { # RC NAME: what became of it, in words
    case $1 in
    0) echo "done" ;;
    124 | 137) echo "no end within $limit s: $(last_line "$out/$2.log")" ;;
    125) echo "not run: $seconds s were used up" ;;
    *) echo "exit status $1: $(last_line "$out/$2.log")" ;;
    esac
}

# check NAME LIMIT COMMAND...: right when it ends with 0.
check() {
    is_wanted "$1" || return 0
    run "$@"
    rc=$?
    if [ $rc = 0 ]; then
        record check "$1" - ok "$(last_line "$out/$1.log")"
    else
        record check "$1" - failed "$(why $rc "$1")"
        grep -v ' ok$' "$out/$1.log" | tail -n 20
    fi
    say "$1: $(why $rc "$1")"
}

# bench SIDE LIMIT NAME COMMAND...: records its figures itself; here, when it does not end.
bench() {
    side=$1 limit=$2 part=$3
    shift 3
    if ! is_wanted "$part"; then
        record left "${part#peer.}" "$side" - "not asked for"
        return 0
    fi
    run "$part" "$limit" "$@"
    rc=$?
    # 1: it has said what went wrong
    [ $rc -le 1 ] || record failed "${part#peer.}" "$side" - "$(why $rc "$part")"
    [ $rc = 0 ] || tail -n 5 "$out/$part.log"
    say "$part: $(why $rc "$part")"
    report
}

# What each rule of the model's checks gave, as checks of their own.
rules() {
    sed -n 's/^\(ok  \|FAIL\|skip\) \(.*\)/\1 \2/p' "$out/model.log" |
        while read -r verdict rule; do
            case $verdict in ok) verdict=ok ;; FAIL) verdict=failed ;; *) verdict=skipped ;; esac
            record check "model: ${rule%% (*}" - $verdict \
                "$(echo "$rule" | sed -n 's/^[^(]*(\(.*\))$/\1/p')"
        done
}

# compute-sanitizer's tools at the same time; their kernels are not timed.
sanitizer() {
    is_wanted sanitizer || return 0
    if ! command -v compute-sanitizer >/dev/null; then
        record check sanitizer - skipped "compute-sanitizer is not there"
        return 0
    fi
    for tool in memcheck racecheck synccheck; do
        (
            run "$tool" 75 compute-sanitizer --tool "$tool" --error-exitcode 1 \
                --print-limit 20 "$ops" "$out/ops_$tool.json"
            rc=$?
            case $rc in
            0) record check "sanitizer: $tool" - ok "$(last_line "$out/$tool.log")" ;;
            124 | 125 | 137) record check "sanitizer: $tool" - skipped "$(why $rc "$tool")" ;;
            *) record check "sanitizer: $tool" - failed "$(why $rc "$tool")" ;;
            esac
        ) &
    done
    wait
    say "sanitizer: $(grep -c 'sanitizer: .*ok' "$out/records.tsv") of 3 tools found nothing"
    report
}

version() { # HEADER NAME...: numbers that it defines, joined by full stops
    header=$1 text=
    shift
    for folder in "$(dirname "$(dirname "$(command -v nvcc)")")/include" \
        /usr/include /usr/include/*-linux-gnu /usr/local/include; do
        [ -e "$folder/$header" ] || continue
        for name; do
            text=$text.$(sed -n "s/^#define $name  *\([0-9]*\).*/\1/p" "$folder/$header" |
                head -n 1)
        done
        break
    done
    [ -n "$text" ] && echo "${text#.}" || echo none
}

machine() { # one line: all that figures depend on
    gpu="host stand-in" driver=none
    if [ -z "$standin" ]; then
        gpu=$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
        driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
    fi
    cuda=$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    cudnn=$(version cudnn_version.h CUDNN_MAJOR CUDNN_MINOR CUDNN_PATCHLEVEL)
    blas=$(version cublas_api.h CUBLAS_VER_MAJOR CUBLAS_VER_MINOR CUBLAS_VER_PATCH)
    revision=$(git describe --always --dirty=+changes 2>/dev/null || echo unknown)
    echo "GPU ${gpu:-unknown}; driver ${driver:-unknown}; CUDA ${cuda:-none};" \
        "cuDNN $cudnn; cuBLASLt $blas; vneva $revision"
}

has_gpu() {
    nvidia-smi -L >/dev/null 2>&1 || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]
}

# All that is built, for the one chip that is here.
build() {
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 |
        tr -d .)
    case $arch in *[!0-9]*) arch= ;; esac # an old nvidia-smi does not know: for all chips
    targets="vneva_cuda gpu_ops gpu_model bench_gpu"
    [ -z "$standin" ] || targets="gpu_ops_host op_model_cuda bench_gpu_host"
    # shellcheck disable=SC2086
    run build 240 sh -c "cmake -B $build -DCMAKE_BUILD_TYPE=Release -DVNEVA_MODEL_ONLY=ON \
        -DVNEVA_TESTS=ON -DVNEVA_WERROR=OFF -DVNEVA_CUDA_ARCH=$arch &&
        cmake --build $build -j $jobs --target $targets"
    rc=$?
    [ $rc != 0 ] || { say "built"; return 0; }
    record check build - failed "$(why $rc build)"
    tail -n 30 "$out/build.log"
    finish
}

finish() {
    report
    rc=$?
    cat "$out/table.md"
    exit $rc
}

command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
if [ -z "$standin" ]; then
    command -v nvcc >/dev/null || { echo "no CUDA toolkit: nvcc is not in the path"; exit 77; }
    has_gpu || { echo "there is no GPU: nvidia-smi and /dev/nvidiactl are not there"; exit 77; }
fi
about=$(machine)
echo "$about"
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
# algorithms that large products choose by time are kept there: chosen anew in every run
rm -rf "$out/cache"
export XDG_CACHE_HOME="$out/cache"
: >"$out/records.tsv"
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; report; cat "$out/table.md"; exit 130' INT TERM

# the peer's files come into memory while we build
[ -n "$standin" ] || timeout 120 "$python" -c 'import torch, transformers' >/dev/null 2>&1 &
programs=${VNEVA_GPU_PROGRAMS:-}
if [ -n "$standin" ]; then
    suffix=_host tiny=--tiny unjudged="tiny shapes over stand-ins"
    [ -n "$programs" ] || { build; programs=$build/tests/cuda_host; }
    model=$programs/op_model_cuda
else
    suffix=
    [ -n "$programs" ] || { build; programs=$build/tests; }
    model=$programs/gpu_model
    LD_LIBRARY_PATH=$build/bin:${LD_LIBRARY_PATH:-}
    VNEVA_GPUS=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
    export LD_LIBRARY_PATH VNEVA_GPUS
fi
ops=$programs/gpu_ops$suffix
bench_gpu=$programs/bench_gpu$suffix

run about 60 "$bench_gpu" $tiny about
rc=$?
[ $rc != 77 ] || { cat "$out/about.log"; exit 77; }
[ $rc != 0 ] || about="$about; loaded: $(last_line "$out/about.log")"
say "$(last_line "$out/about.log")"

check ops 90 "$ops" "$out/ops.json"
check model 120 "$model"
is_wanted model && rules
report
for part in matmul attention step.frozen step.trained generate first_step.7b first_step.tiny; do
    bench vneva 90 $part "$bench_gpu" $tiny --out "$out/records.tsv" $part
done
sanitizer

peer=$python
if [ -n "$standin" ]; then
    record left '*' peer - "stand-ins have no peer"
elif case " $wanted" in *" all"* | *" peer."*) false ;; esac then
    record left '*' peer - "not asked for"
elif ! run peer 60 "$peer" -c 'import torch; assert torch.cuda.is_available(); print(torch.__version__)'; then
    record left '*' peer - "no PyTorch that sees the GPU in $peer"
else
    about="$about; torch $(last_line "$out/peer.log")"
    # the longest last: of what is compiled for answers, what there is time for
    for part in attention step.frozen step.trained first_step.7b first_step.tiny generate; do
        limit=120
        [ $part != generate ] || limit=180
        bench peer $limit peer.$part "$peer" tests/bench/bench_gpu.py \
            --program "$bench_gpu" --out "$out/records.tsv" $part
    done
fi
finish
