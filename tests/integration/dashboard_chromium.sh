#!/bin/sh
# tests/integration/dashboard_chromium.sh [OUT] - the dashboard in a real browser, by hand:
# a small job from data to answers, a job whose name is markup, then pages in headless
# Chromium: the document is checked, and screenshots lie in OUT (default: a folder that is
# printed) to be looked at. Needs Debian's chromium and a build in build/.
set -eu
cd "$(dirname "$0")/../.."
command -v chromium >/dev/null || { echo "chromium is not installed" >&2; exit 77; }

work=$(mktemp -d "${TMPDIR:-/tmp}/vneva-dash-XXXXXX")
out=${1:-$work/out}
mkdir -p "$out"
export VNEVA_HOME="$work/home"
PATH=$PWD/build/bin:$PATH
quick=jobs/quickstart
dashboard=

finish() {
    status=$?
    [ -z "$dashboard" ] || kill "$dashboard" 2>/dev/null || true
    vneva down >/dev/null 2>&1 || true
    case $out in "$work"/*) [ $status = 0 ] || rm -rf "$work" ;; *) rm -rf "$work" ;; esac
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM
fail() { echo "dashboard_chromium: $*" >&2; exit 1; }

# ---- a job from data to answers, small ----

for split in train test; do
    case $split in train) clips=200 seed=1 ;; test) clips=40 seed=3 ;; esac
    vneva data synth --output "$work/$split" --clips $clips --seed $seed >/dev/null
done
vneva data train-tokenizer --vocab-size 480 --output "$work/tokenizer.model" \
    "$work/train/annotations.jsonl" >/dev/null
vneva up --devices 2
for split in train test; do
    vneva submit $quick/prepare.yaml name=prepare-$split --wait \
        model.data.data_path="$work/$split/annotations.jsonl" \
        model.data.video_folder="$work/$split" model.data.output="$work/data-$split" \
        model.tokenizer.model="$work/tokenizer.model" 2>/dev/null
done
train=$(vneva submit $quick/train.yaml --quiet name=small trainer.precision=32 \
    trainer.max_steps=160 trainer.log_every_n_steps=2 trainer.val_check_interval=20 \
    exp_manager.checkpoint_callback_params.every_n_train_steps=20 \
    model.optim.sched.warmup_steps=20 model.tokenizer.model="$work/tokenizer.model" \
    model.data.data_path="[$work/data-train]" \
    model.data.validation_data_path="[$work/data-test]")
vneva wait "$train" --until 70 2>/dev/null
kill -KILL "$(vneva show "$train" --field ranks.1.pid)" # an attempt is lost
vneva wait "$train" 2>/dev/null
evaluate=$(vneva submit $quick/evaluate.yaml --quiet name=held-out \
    neva_model_file="$(vneva show "$train" --field folder)" \
    prompt_file="$work/data-test")
vneva wait "$evaluate" 2>/dev/null

# one that runs and one that waits, with a name that would be markup were it not escaped
hostile="<img src=x onerror=document.body.dataset.broken=1>"
for name in "long-run" "$hostile"; do
    vneva submit $quick/train.yaml --quiet name="$name" trainer.precision=32 \
        trainer.max_steps=100000 trainer.log_every_n_steps=2 \
        model.tokenizer.model="$work/tokenizer.model" \
        model.data.data_path="[$work/data-train]" \
        model.data.validation_data_path="[$work/data-test]" >"$work/last"
done
last=$(cat "$work/last")
vneva wait $((last - 1)) --until 12 2>/dev/null

# ---- the pages ----

vneva dashboard --listen 127.0.0.1:0 >"$work/said" 2>"$work/errors" &
dashboard=$!
: >>"$work/said"
until url=$(sed -n 's/^dashboard at //p' "$work/said") && [ -n "$url" ]; do
    kill -0 $dashboard 2>/dev/null || fail "it ended: $(cat "$work/errors")"
    sleep 0.1
done

browser() { # OPTIONS... URL
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run \
        --user-data-dir="$work/profile" --virtual-time-budget=6000 "$@" \
        2>>"$work/browser.log"
}
# holds PAGE TEXT...: every text is in the document that the browser made of the page
holds() {
    page=$1
    shift
    browser --dump-dom "$url$page" >"$work/dom" || fail "chromium cannot show $page"
    for text in "$@"; do
        grep -qF -- "$text" "$work/dom" || { cp "$work/dom" "$out/dom.html"; fail "no '$text' in $page, see $out/dom.html"; }
    done
    ! grep -q 'data-broken' "$work/dom" || fail "markup of a name was obeyed in $page"
}
holds "" 'devices busy' 'long-run</a>' 'left' '&lt;img src=x onerror' 
holds "#/job/$train" 'Loss' 'Throughput' 'Step time' 'validation' 'Held-out examples' \
    'predicted' "/data/job/$evaluate/frames/" 'aria-label="Loss by step' 'class="mark"' \
    'Checkpoints' 'killed by signal 9'
holds "#/job/$evaluate" 'Answers' 'Held-out examples' 'expected'
holds "#/job/$last" '&lt;img src=x onerror' 'waits'
holds "#/workers" 'last heard of' '2 of 2'
holds "#/datasets" 'prepare-train' 'samples'
holds "#/events" 'is done'

shot() { # FILE WIDTH,HEIGHT PAGE OPTIONS...
    file=$1 size=$2 page=$3
    shift 3
    browser --screenshot="$out/$file" --window-size="$size" "$@" "$url$page" >/dev/null
}
dark=--blink-settings=preferredColorScheme=0
shot overview.png 1280,900 ""
shot overview-dark.png 1280,900 "" $dark
shot overview-phone.png 500,1400 ""
shot job.png 1280,3000 "#/job/$train"
shot job-dark.png 1280,1400 "#/job/$train" $dark
shot job-phone.png 500,2600 "#/job/$train"
shot evaluation.png 1280,1400 "#/job/$evaluate"
shot events.png 1280,900 "#/events"
shot workers.png 1280,500 "#/workers"
echo "all is there; screenshots in $out"
