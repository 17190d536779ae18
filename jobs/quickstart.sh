#!/bin/sh
# jobs/quickstart.sh - the main job, from a fresh clone: installs what is missing, builds,
# prepares real and drawn videos, trains a small VideoNeVA model with two tensor-parallel
# ranks, kills one of them half way, and asks the result about clips it has never seen.
# Its last line is one JSON object with what was measured.
#
#   sh jobs/quickstart.sh [key=value ...]     overrides of the training (train.yaml)
#
# Everything it makes is under build/; run it again and only the job is done anew.
set -eu
cd "$(dirname "$0")/.."

work=$PWD/build/quickstart
quick=jobs/quickstart
export VNEVA_HOME="$work/home"
# a Unix socket's path has 107 bytes at most
[ ${#VNEVA_HOME} -le 80 ] || VNEVA_HOME=${TMPDIR:-/tmp}/vneva-quickstart-$(id -u)
PATH=$PWD/build/bin:$PATH

say() { printf '\n== %s\n' "$*"; }
# submit NAME FILE [key=value ...] prints the number of the job
submit() {
    name=$1 file=$2
    shift 2
    vneva submit "$file" name="$name" "$@" --quiet
}
field() { vneva show "$1" --field "$2"; }

finish() {
    status=$?
    vneva down >/dev/null 2>&1 || true
    exit "$status"
}

say "installing what is missing, building into build/"
sh jobs/setup.sh build
cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release -DVNEVA_TESTS=OFF \
    -DVNEVA_MODEL_ONLY=OFF >/dev/null
cmake --build build -j "$(nproc 2>/dev/null || echo 2)"

vneva down >/dev/null 2>&1 || true
rm -rf "$VNEVA_HOME" "$work/datasets"
mkdir -p "$work"

say "fetching real videos"
has_real=yes
if ! sh $quick/fetch_videos.sh "$work/videos"; then
    has_real=no
    echo "the real videos are not to be had here: going on with the drawn clips alone"
fi

say "drawing clips of moving and changing shapes"
for split in train val test; do
    case $split in train) clips=2500 seed=1 ;; val) clips=64 seed=2 ;; test) clips=200 seed=3 ;; esac
    [ -s "$work/motion-$split/annotations.jsonl" ] ||
        vneva data synth --output "$work/motion-$split" --clips $clips --seed $seed
done

say "training a tokenizer on the questions and answers"
train_tokenizer() { # ANNOTATIONS...
    vneva data train-tokenizer --vocab-size 640 --output "$work/tokenizer.model" "$@"
}
if [ $has_real = yes ]; then
    train_tokenizer "$work/motion-train/annotations.jsonl" $quick/real_train.jsonl
else
    train_tokenizer "$work/motion-train/annotations.jsonl"
fi

say "starting the coordinator and an agent with two CPU ranks"
vneva up --devices 2
trap finish EXIT
trap 'exit 130' INT TERM

say "preparing the datasets"
prepare() { # NAME ANNOTATIONS MEDIA [key=value ...]
    name=$1 annotations=$2 media=$3
    shift 3
    submit "prepare-$name" $quick/prepare.yaml model.data.data_path="$annotations" \
        model.data.video_folder="$media" model.data.output="$work/datasets/$name" \
        model.tokenizer.model="$work/tokenizer.model" "$@"
}
jobs=
for split in train val test; do
    jobs="$jobs $(prepare motion-$split "$work/motion-$split/annotations.jsonl" "$work/motion-$split")"
done
if [ $has_real = yes ]; then
    for split in train test; do
        # frames of large films are kept beside the tokens: decoded once, not every epoch
        jobs="$jobs $(prepare real-$split $quick/real_$split.jsonl "$work/videos" \
            model.data.store_frames=true)"
    done
fi
for job in $jobs; do vneva wait "$job"; done

say "training with two tensor-parallel ranks"
precision=bf16
if ! vneva worker --has-bf16; then
    precision=32
    echo "this CPU has no bf16 units: training in fp32"
fi
train_sets=$work/datasets/motion-train
# the real questions four times, so that they are as many as the drawn ones
real=$work/datasets/real-train
[ $has_real = no ] || train_sets="$train_sets,$real,$real,$real,$real"
train=$(submit quickstart $quick/train.yaml trainer.precision=$precision \
    model.tokenizer.model="$work/tokenizer.model" model.data.data_path="[$train_sets]" \
    model.data.validation_data_path="[$work/datasets/motion-val]" "$@")
half=$(($(field "$train" total) / 2))
vneva wait "$train" --until $half
pid=$(field "$train" ranks.1.pid)
case $pid in *[!0-9]* | '') echo "quickstart: rank 1 has no process to kill" >&2; exit 1 ;; esac
echo "killing rank 1 (process $pid) with SIGKILL at half way"
kill -KILL "$pid"
vneva wait "$train"

say "answering questions about clips the training never saw"
run=$(field "$train" folder)
evaluate() { # NAME DATASET [key=value ...]
    name=$1 dataset=$2
    shift 2
    submit "$name" $quick/evaluate.yaml neva_model_file="$run" \
        prompt_file="$work/datasets/$dataset" "$@"
}
motion=$(evaluate motion motion-test)
first=$(evaluate motion-first-frame motion-test model.data.splice_single_frame=first)
evaluations="$motion $first"
if [ $has_real = yes ]; then
    real=$(evaluate real real-test)
    evaluations="$evaluations $real"
fi
for job in $evaluations; do
    vneva wait "$job"
    vneva show "$job"
done

vneva report "$train" -o "$work/report-training.html"
vneva report "$motion" -o "$work/report-motion.html"
[ $has_real = no ] || vneva report "$real" -o "$work/report.html"

# correct answers over questions of the categories that begin with $2, from table.json
accuracy() {
    awk -v prefix="\"$2" -F'[:,]' '
        /"category":/ { wanted = index($2, prefix) > 0 }
        /"n":/ && wanted { n += $2 }
        /"correct":/ && wanted { correct += $2; wanted = 0 }
        END { printf "%.4f", n ? correct / n : 0 }' "$(field "$1" folder)/table.json"
}
real_accuracy=null
[ $has_real = no ] || real_accuracy=$(accuracy "$real" real-)
printf '\n'
printf '{"real_accuracy": %s, "motion_accuracy": %s, "motion_first_frame_accuracy": %s, ' \
    "$real_accuracy" "$(accuracy "$motion" motion-)" "$(accuracy "$first" motion-)"
printf '"restarts": %s, "train_samples_per_s": %s, "data_wait_share": %s}\n' \
    "$(field "$train" restarts)" "$(field "$train" summary.samples_per_s)" \
    "$(field "$train" summary.data_wait_share)"
