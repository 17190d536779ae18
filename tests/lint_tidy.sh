#!/bin/sh
# tests/lint_tidy.sh BUILD - clang-tidy over every C file of the project.
# A file is checked again only when its preprocessed text, the settings or the tool's
# version have changed since it was last found clean (stamps in BUILD/tidy).
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || { echo "clang-tidy is not installed" >&2; exit 1; }
mkdir -p "$build/tidy"
settings=$(cat .clang-tidy; clang-tidy --version)

check() {
    file=$1
    stamp=$build/tidy/$(echo "$file" | tr / _)
    text=$(cc -E -P -I. -D_POSIX_C_SOURCE=200809L "$file" 2>/dev/null || cat "$file")
    # the analyzer takes three quarters of the time: it is for what users run
    checks=
    case $file in tests/*) checks=-clang-analyzer-* ;; esac
    sum=$(printf '%s%s%s' "$settings" "$checks" "$text" | cksum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return 0
    # gcc has warnings that clang does not know
    clang-tidy --quiet --checks="$checks" --extra-arg=-Wno-unknown-warning-option \
        -p "$build" "$file" \
        2>/dev/null || { echo "in $file" >&2; return 1; }
    echo "$sum" >"$stamp"
}

if [ $# -gt 1 ]; then
    shift
    failed=0
    for file in "$@"; do check "$file" || failed=1; done
    exit $failed
fi
git ls-files '*.c' | grep -v '^tests/golden/' |
    xargs -n 4 -P "$(nproc)" sh "$0" "$build"
