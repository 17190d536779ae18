# training.sh - a tiny VideoNeVA training for the tests of whole launches; to be sourced
#
#   training_make FOLDER     clips, tokenizer and prepared dataset below FOLDER (2 s)
#   training_words RANKS     sets `training` to the words after `vneva-node ... --`: a training
#                            of $training_steps steps with so many tensor-parallel ranks, one
#                            on a node
#   training_compare A B     whether the last checkpoints of two run folders have equal bits
#
# Wants VNEVA_SOURCE, VNEVA_BIN.

training_steps=160
training_every=50 # steps between checkpoints

training_make() {
    training_folder=$1
    "$VNEVA_BIN/vneva" data synth --output "$1/clips" --clips 48 --seed 1 >/dev/null 2>&1 &&
        "$VNEVA_BIN/vneva" data train-tokenizer --vocab-size 400 \
            --output "$1/tokenizer.model" "$1/clips/annotations.jsonl" >/dev/null 2>&1 &&
        "$VNEVA_BIN/vneva-node" --run-dir "$1/prepare" -- \
            "$VNEVA_SOURCE/jobs/quickstart/prepare.yaml" \
            model.data.data_path="$1/clips/annotations.jsonl" \
            model.data.video_folder="$1/clips" model.data.output="$1/dataset" \
            model.tokenizer.model="$1/tokenizer.model" >"$1/prepare.log" 2>&1 && return
    tail -n 20 "$1/prepare.log" >&2
    return 1
}

# Sets the positional words for the caller: eval "set -- $(training_words 2)" would lose
# nothing, for no path here has blanks.
training_words() {
    echo "$VNEVA_SOURCE/jobs/quickstart/train.yaml trainer.devices=1 trainer.num_nodes=$1" \
        "model.tensor_model_parallel_size=$1 trainer.precision=32 threads=1" \
        "trainer.max_steps=$training_steps trainer.val_check_interval=$training_every" \
        "exp_manager.checkpoint_callback_params.every_n_train_steps=$training_every" \
        "trainer.limit_val_batches=1 model.micro_batch_size=8 model.global_batch_size=16" \
        "model.num_layers=1 model.hidden_size=32 model.ffn_hidden_size=64" \
        "model.mm_cfg.vision_encoder.hidden_size=32 model.mm_cfg.vision_encoder.num_layers=1" \
        "model.mm_cfg.vision_encoder.ffn_hidden_size=64" \
        "model.tokenizer.model=$training_folder/tokenizer.model" \
        "model.data.data_path=[$training_folder/dataset]" \
        "model.data.validation_data_path=[$training_folder/dataset]"
}

training_last() { ls -d "$1"/home/jobs/1/checkpoints/step-* 2>/dev/null | tail -n 1; }

training_compare() {
    training_a=$(training_last "$1") training_b=$(training_last "$2")
    [ -n "$training_a" ] && [ -n "$training_b" ] &&
        "$VNEVA_BIN/vneva" model diff "$training_a" "$training_b"
}
