#!/bin/sh
# tests/run.sh [ctest arguments] - installs, builds and runs every test.
#
# Two builds: build/ (release, everything) and build-asan/ (AddressSanitizer and UBSan;
# the unit and op tests run again there). Then the lints. Stops at the first that fails.
set -eu
cd "$(dirname "$0")/.."
jobs=$(nproc 2>/dev/null || echo 2)

sh jobs/setup.sh test
# said here because CMake remembers: the quickstart builds into build/ without tests
everything="-DVNEVA_TESTS=ON -DVNEVA_MODEL_ONLY=OFF"
# shellcheck disable=SC2086
cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release $everything >/dev/null
cmake --build build -j "$jobs"
# shellcheck disable=SC2086
cmake -G Ninja -B build-asan -DCMAKE_BUILD_TYPE=Debug -DVNEVA_SANITIZE=ON $everything \
    >/dev/null
cmake --build build-asan -j "$jobs"

# Detached processes of the tests are found by their home folders; none outlives a test.
ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 \
    UBSAN_OPTIONS=print_stacktrace=1 \
    ctest --test-dir build-asan --output-on-failure -j "$jobs" -L 'unit|op' "$@"
ctest --test-dir build --output-on-failure -j "$jobs" "$@"
