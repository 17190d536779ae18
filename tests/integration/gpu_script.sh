#!/bin/sh
# tests/integration/gpu_script.sh PROGRAMS - tests/gpu.sh without a GPU: its programs over the
# host stand-ins, which are in PROGRAMS; all of its table is there, and a part that fails,
# crashes or hangs is told and does not keep the others from running.
set -u
programs=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
failed=0

expect() { # WHAT COMMAND...: the command succeeds
    what=$1
    shift
    "$@" || { echo "FAILED: $what"; failed=1; }
}
run_gpu() { # NAME PART...: its exit status in rc, what it says in NAME.out
    name=$1
    shift
    rc=0
    VNEVA_GPU_STANDIN=1 VNEVA_GPU_PROGRAMS=$work/programs VNEVA_GPU_OUT=$work/$name \
        sh tests/gpu.sh "$@" >"$work/$name.out" 2>&1 || rc=$?
}
says() { grep -qF -e "$2" "$work/$1"; }
program() { # NAME: its text is standard input
    rm -f "$work/programs/$1"
    { echo '#!/bin/sh'; cat; } >"$work/programs/$1"
    chmod +x "$work/programs/$1"
}

mkdir "$work/programs"
ln -s "$programs/bench_gpu_host" "$programs/gpu_ops_host" "$work/programs"
# op_model_cuda is a test of its own
program op_model_cuda <<'EOF'
echo "ok   models_are_right"
echo "skip ranks_with_devices (NCCL wants a GPU a rank)"
echo "2 checks, 0 failed"
EOF

# everything: every line is there, with a finite figure
run_gpu all
expect "exit status $rc of a run in which nothing is wrong" [ $rc = 0 ]
expect "the first line says what figures depend on" \
    sh -c "head -n 1 '$work/all.out' | grep -q '^GPU host stand-in; driver none; CUDA .*; vneva '"
expect "operations are checked" says all/table.md "| ops | ok | "
expect "rules of the model are told" says all/table.md "| model: models_are_right | ok |"
expect "a skipped rule says why" \
    says all/table.md "| model: ranks_with_devices | skipped | NCCL wants a GPU a rank |"
expect "the table is the last thing printed" says all.out "0 checks and parts failed"
grep -v '^#' tests/gpu_goals.tsv >"$work/goals"
while IFS='	' read -r key title side _; do
    expect "the table has '$title'" says all/table.md "| $title | "
    case $key in *.mfu | *.hfu) continue ;; esac # of a known chip only
    expect "$key of $side is a number" grep -q \
        "\"key\": \"$key\", \"side\": \"$side\", \"value\": [0-9]" "$work/all/gpu.json"
done <"$work/goals"
expect "no figure is missing from the JSON" sh -c "! grep -q '\"value\": null' '$work/all/gpu.json'"
expect "it says whose code did attention" says all/table.md "own kernels"

# a rule that fails, a part that crashes, one that hangs: the others run
program op_model_cuda <<'EOF'
echo "ok   models_are_right"
echo "FAIL gradients_are_right"
exit 1
EOF
program bench_gpu_host <<EOF
for part; do :; done
[ "\$part" != attention ] || kill -SEGV \$\$
exec "$programs/bench_gpu_host" "\$@"
EOF
program gpu_ops_host <<'EOF'
echo "began"
sleep 1000
EOF
VNEVA_GPU_PART_SECONDS=40 # enough for a busy machine's other parts
export VNEVA_GPU_PART_SECONDS
run_gpu bad ops model matmul attention first_step.tiny
unset VNEVA_GPU_PART_SECONDS
expect "exit status $rc of a run in which much is wrong" [ $rc = 1 ]
expect "a part that hangs is ended" says bad/table.md "| ops | **failed** | no end within 40 s: began |"
expect "a rule that fails is told" says bad/table.md "| model: gradients_are_right | **failed** |"
expect "a part that crashes is told" says bad/table.md "attention did not end well: exit status"
expect "its figures are not measured" \
    sh -c "grep 'attention 4,096' '$work/bad/table.md' | grep -q 'not measured: exit status'"
expect "what was not asked for is told" \
    sh -c "grep 'answer of 128' '$work/bad/table.md' | grep -q 'not measured: not asked for'"
for key in matmul.head.8rows first_step.tiny; do
    expect "$key is measured all the same" grep -q "\"key\": \"$key\", .*\"value\": [0-9]" \
        "$work/bad/gpu.json"
done

# no time: everything is told as not run
VNEVA_GPU_SECONDS=1
export VNEVA_GPU_SECONDS
run_gpu late
unset VNEVA_GPU_SECONDS
expect "exit status $rc of a run without time" [ $rc = 1 ]
expect "a check that did not run is no success" \
    says late/table.md "| ops | **failed** | not run: 1 s were used up |"

# the report alone: goals met and missed, a figure that is no number
printf 'figure\t%s\t%s\t%s\t%s\t0.01\t\n' matmul.qkv.fwd vneva 96 TFLOP/s \
    matmul.qkv.fwd cublaslt 100 TFLOP/s generate.1 vneva 299 tokens/s \
    generate.1 transformers 50 tokens/s generate.1 transformers_compiled 100 tokens/s \
    step.frozen.mfu vneva 56 % step.frozen vneva nan tokens/s >"$work/records"
rc=0
awk -v json="$work/report.json" -v about=here -f tests/gpu_report.awk tests/gpu_goals.tsv \
    "$work/records" >"$work/report.md" || rc=$?
expect "exit status $rc where a goal is missed" [ $rc = 4 ]
expect "a ratio that is reached" says report.md "| cublaslt 100 | 0.96 | >= 0.95 | met |"
expect "the best peer counts" says report.md "| transformers_compiled 100 | 2.99 | >= 3 | not met |"
expect "a figure that is reached" says report.md "| >= 55 | met |"
expect "what is not a number is no figure" says report.md "not measured: the figure is no finite number"
expect "one goal is missed" says report.md "0 checks and parts failed, 1 goals not met"

# without a GPU: a skip, before anything is built
if ! command -v nvidia-smi >/dev/null && [ ! -e /dev/nvidiactl ]; then
    rc=0
    VNEVA_GPU_OUT=$work/none sh tests/gpu.sh >"$work/none.out" 2>&1 || rc=$?
    expect "exit status $rc without a GPU: $(cat "$work/none.out")" [ $rc = 77 ]
    expect "nothing was begun" [ ! -e "$work/none" ]
fi
[ $failed = 0 ] || { for log in all bad late; do echo "== $log"; head -n 40 "$work/$log.out"; done; }
exit $failed
