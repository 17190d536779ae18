#!/bin/sh
# tests/cuda_registers.sh FOLDER - registers, shared memory and stack of every CUDA kernel, as
# ptxas told when it was compiled (*.ptxas under FOLDER). A kernel that spills registers or
# keeps anything on its stack fails: that is memory traffic nobody asked for.
set -eu
files=$(find "$1" -name '*.ptxas')
[ -n "$files" ] || { echo "no *.ptxas under $1: was the plugin built?" >&2; exit 1; }
failed=0
# shellcheck disable=SC2086
table=$(cat $files | c++filt | awk '
/Compiling entry function/ {
    name = $0; sub(/.*Compiling entry function ./, "", name); arch = name
    sub(/. for .*/, "", name); sub(/.* for ./, "", arch); sub(/.$/, "", arch)
    gsub(/\(anonymous namespace\)::|void /, "", name); sub(/\(.*/, "", name)
    stack = spills = "?"
}
/bytes stack frame/ { stack = $1; spills = $5 + $9 }
/Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
    shared = 0
    if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
    wrong = stack + spills > 0 || stack == "?" ? "  <- SPILLS" : ""
    printf "%-6s %3d registers %6d shared %4s stack %4s spilled  %s%s\n", arch, registers,
        shared, stack, spills, name, wrong
    n++; if (wrong != "") bad++
}
END {
    printf "%d kernels, %d with spills or a stack\n", n, bad
    exit n == 0 || bad > 0
}') || failed=1
echo "$table" | sort
exit $failed
