#!/bin/sh
# The bundle, unpacked where there is nothing but glibc and a shell: its programs prepare a
# dataset, train a model and answer, and open no library that is not its own.
# VNEVA_SOURCE, VNEVA_BIN: the tree and the folder of the programs. Exit 77: cannot be tried.
set -eu

[ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null || {
    echo "SKIP: this user may not have a root folder of its own"
    exit 77
}
work=$(mktemp -d "${TMPDIR:-/tmp}/vneva-bundle-XXXXXX")
# what was mounted within was so in a namespace of its own, which is gone by then
trap 'rm -rf "$work"' EXIT
fail() { echo "bundle: $*" >&2; exit 1; }

sh "$VNEVA_SOURCE/slurm/bundle/bundle.sh" "$VNEVA_BIN" "$work" 9.8.7
archive=$work/vneva-9.8.7-linux-$(uname -m).tar.gz
[ "$(wc -c <"$archive")" -le 80000000 ] || fail "larger than 80 MB"

root=$work/root
mkdir -p "$root/bin" "$root/lib64" "$root/opt" "$root/proc" "$root/dev" "$root/tmp"
tar xzf "$archive" -C "$root/opt"
home=opt/vneva-9.8.7-linux-$(uname -m)
for file in bin/vneva-rank lib licences/LIBRARIES licences/vneva README share/examples; do
    [ -e "$root/$home/$file" ] || fail "no $file in it"
done
while IFS=':,' read -r file package rest; do
    [ -s "$root/$home/licences/${package# }" ] || fail "no licence of $file ($package)"
done <"$root/$home/licences/LIBRARIES"

# glibc's files and a shell that needs no other, where they lie on this machine
loader=$(ldd /bin/sh | awk '/ld-linux/ { print $1 }')
folder=$(dirname "$(ldd /bin/sh | awk '$1 == "libc.so.6" { print $3 }')")
mkdir -p "$root$folder" "$root$(dirname "$loader")"
cp -L "$loader" "$root$loader"
for name in libc.so.6 libm.so.6 libmvec.so.1 libpthread.so.0 libdl.so.2 librt.so.1 \
        libresolv.so.2 libutil.so.1; do
    cp -L "$folder/$name" "$root$folder/"
done
cp -L /bin/sh "$root/bin/sh"

cp "$VNEVA_SOURCE/jobs/quickstart/prepare.yaml" "$VNEVA_SOURCE/jobs/quickstart/train.yaml" \
    "$root/"
cat >"$root/run.sh" <<'END'
set -eu
vneva --help >/tmp/help
vneva data synth --output /tmp/clips --clips 12
vneva data train-tokenizer --vocab-size 400 --output /tmp/tokenizer.model \
    /tmp/clips/annotations.jsonl
vneva up --devices 1
trap 'vneva down' EXIT
prepare=$(vneva submit /prepare.yaml --quiet model.tokenizer.model=/tmp/tokenizer.model \
    model.data.data_path=/tmp/clips/annotations.jsonl model.data.video_folder=/tmp/clips \
    model.data.output=/tmp/set)
vneva wait $prepare
train=$(vneva submit /train.yaml --quiet trainer.precision=32 trainer.devices=1 \
    trainer.max_steps=2 trainer.val_check_interval=2 model.optim.sched.warmup_steps=1 \
    model.micro_batch_size=2 \
    model.global_batch_size=4 model.tensor_model_parallel_size=1 \
    exp_manager.checkpoint_callback_params.every_n_train_steps=2 \
    model.tokenizer.model=/tmp/tokenizer.model model.data.data_path=/tmp/set \
    model.data.validation_data_path=/tmp/set)
vneva wait $train
folder=$(vneva show $train --field folder)
vneva model show "$folder"
vneva generate --model "$folder" --video /tmp/clips/clip_00000.mp4 "What moves?"
vneva launch --help >/tmp/help
# this root folder has nothing that could look up the host's own name
vneva-node --run-dir /tmp/run -- /prepare.yaml model.tokenizer.model=/tmp/tokenizer.model \
    model.data.data_path=/tmp/clips/annotations.jsonl model.data.video_folder=/tmp/clips \
    model.data.output=/tmp/other-set
vneva dashboard --help >/tmp/help
END
run="mount --rbind /proc '$root/proc' && mount --rbind /dev '$root/dev' &&
    exec env -i PATH=/$home/bin HOME=/tmp VNEVA_HOME=/tmp/home \
        LD_DEBUG=libs LD_DEBUG_OUTPUT=/tmp/loaded $(command -v chroot) '$root' /bin/sh /run.sh"
unshare -m --propagation private sh -c "$run" || fail "it does not run"

# "calling init: FILE" for every library of every process
awk '/calling init: / { print $NF }' "$root"/tmp/loaded.* | sort -u >"$work/opened"
[ "$(wc -l <"$work/opened")" -gt 100 ] || fail "few libraries were seen: is LD_DEBUG heard?"
if grep -v -e "^/$home/" -e "^$loader$" -e "^$folder/lib[a-z]*\.so\.[0-9]$" "$work/opened"; then
    fail "these are neither in the bundle nor glibc's"
fi
echo "bundle: $(($(wc -c <"$archive") / 1000000)) MB, $(wc -l <"$work/opened") libraries opened"
