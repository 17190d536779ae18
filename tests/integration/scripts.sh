#!/bin/sh
# The scripts a new user runs first, from a clone whose path has spaces, with stand-ins
# for what they call: no package is installed and nothing is built. Wants VNEVA_SOURCE.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
clone="$work/a clone (1)"
calls=$work/calls
export calls
failed=0

fail() {
    echo "FAILED: $*" >&2
    failed=1
}

# stand_in NAME: a program from standard input, the only ones besides the tools below
stand_in() {
    { echo '#!/bin/sh'; cat; } >"$1" && chmod +x "$1"
}

make_clone() {
    mkdir -p "$clone/tests" "$clone/build/bin" "$work/bin" "$work/job"
    cp -r "$VNEVA_SOURCE/jobs" "$clone/jobs"
    cp "$VNEVA_SOURCE/tests/run.sh" "$clone/tests/run.sh"
    for tool in sh awk cat chmod cp dirname head id mkdir mktemp mv nproc rm sed sleep \
        sort tail env; do
        ln -s "$(command -v $tool)" "$work/bin/$tool"
    done
    for name in cmake ctest; do
        echo "echo \"$name \$*\" >>\"\$calls\"" | stand_in "$work/bin/$name"
    done
    printf '"category": "motion-way",\n"n": 4,\n"correct": 3,\n' >"$work/job/table.json"
    echo "job_folder='$work/job'" >"$work/names"
    cat "$work/names" - <<'END' | stand_in "$clone/build/bin/vneva"
echo "vneva $*" >>"$calls"
case "$1 ${2:-}" in
"data synth") mkdir -p "$4" && echo x >"$4/annotations.jsonl" ;;
"data train-tokenizer")
    shift 6
    for file; do [ -s "$file" ] || { echo "no file '$file'" >&2; exit 2; }; done
    echo "texts $#" >>"$calls"
    ;;
"submit "*) echo 7 ;;
"worker "*) exit 1 ;;
"show "*)
    case "${4:-}" in
    total) echo 100 ;;
    ranks.1.pid) sleep 60 >/dev/null 2>&1 & echo $! ;;
    folder) echo "$job_folder" ;;
    *) echo 1 ;;
    esac
    ;;
esac
END
}

# quickstart WANTED: runs it; its last line is to hold that
quickstart() {
    : >"$calls"
    (cd / && PATH=$work/bin sh "$clone/jobs/quickstart.sh") >"$work/out" 2>&1 ||
        { fail "the quickstart ends with $?"; cat "$work/out" >&2; }
    tail -n 1 "$work/out" | grep -qF "$1" || fail "last line: $(tail -n 1 "$work/out")"
}

quickstart_without_apt_goes_on_with_drawn_clips() {
    quickstart '{"real_accuracy": null, "motion_accuracy": 0.7500,'
    grep -q "no apt here; please install" "$work/out" || fail "packages are not listed"
    grep -q "^texts 1" "$calls" || fail "tokenizer: $(grep texts "$calls")"
}

quickstart_takes_real_videos_and_runs_again() {
    mkdir -p "$clone/build/quickstart/videos"
    sed -n "/^videos='/,/^'/p" "$clone/jobs/quickstart/fetch_videos.sh" |
        awk 'NF == 3 { print $3 }' | while read -r name; do
        echo x >"$clone/build/quickstart/videos/$name"
    done
    quickstart '"restarts": 1,'
    grep -q "^texts 2" "$calls" || fail "tokenizer: $(grep texts "$calls")"
    grep -q "^vneva submit .*name=prepare-real-test" "$calls" || fail "no real test set"
    ! grep -q "^vneva data synth" "$calls" || fail "clips that are there are drawn again"
}

# the quickstart builds into build/ without tests, and CMake remembers
tests_are_built_after_a_quickstart() {
    : >"$calls"
    (cd / && PATH=$work/bin sh "$clone/tests/run.sh") >"$work/out" 2>&1 ||
        fail "tests/run.sh ends with $?: $(cat "$work/out")"
    [ "$(grep -c '^cmake -G.* -DVNEVA_TESTS=ON -DVNEVA_MODEL_ONLY=OFF' "$calls")" = 2 ] ||
        fail "tests are not asked for: $(grep '^cmake' "$calls")"
    [ "$(grep -c '^ctest' "$calls")" = 2 ] || fail "ctest: $(grep '^ctest' "$calls")"
}

setup_installs_though_one_source_is_broken() {
    echo 'exit 1' | stand_in "$work/bin/dpkg-query"
    # shellcheck disable=SC2016
    echo 'echo "apt-get $*" >>"$calls"; [ "$1" != update ]' | stand_in "$work/bin/apt-get"
    rm "$work/bin/id"
    echo 'echo 0' | stand_in "$work/bin/id"
    : >"$calls"
    PATH=$work/bin sh "$clone/jobs/setup.sh" build >"$work/out" 2>&1 || fail "setup: $?"
    grep -q "^apt-get install .*libzmq3-dev" "$calls" || fail "not installed: $(cat "$calls")"
}

make_clone
quickstart_without_apt_goes_on_with_drawn_clips
quickstart_takes_real_videos_and_runs_again
tests_are_built_after_a_quickstart
setup_installs_though_one_source_is_broken
exit $failed
