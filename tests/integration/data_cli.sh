#!/bin/sh
# vneva-data as people run it: help, exit codes, NeMo's tokens, a dataset from clips to
# reject list. Wants VNEVA_BIN (where the program is) and VNEVA_SOURCE.
# shellcheck source=tests/integration/cli.sh
. "$VNEVA_SOURCE/tests/integration/cli.sh"

every_command_has_help_with_an_example() {
    for command in prepare rejects show synth tokenize train-tokenizer; do
        exits 0 vneva-data $command --help
        grep -q "^Example" out || fail "no example in the help of $command"
        grep -q "Exit status" out || fail "no exit status in the help of $command"
        exits 2 vneva-data $command --no-such-option
        says "vneva data $command: no option '--no-such-option'; --help lists"
    done
    exits 2 vneva-data
    exits 2 vneva-data no-such-command
    exits 2 vneva-data show no-such-folder
    exits 2 vneva-data rejects no-such-folder
}

a_vocabulary_too_small_is_told_with_the_least() {
    i=33
    while [ $i -lt 127 ]; do # a text of many letters
        [ $i = 34 ] || [ $i = 92 ] || printf "\\$(printf %03o $i)"
        i=$((i + 1))
    done >letters
    printf '{"id": "a", "conversations": [{"from": "human", "value": "%s"}, ' \
        "$(sed 's/%/%%/' letters)" >many.jsonl
    echo '{"from": "gpt", "value": "b"}]}' >>many.jsonl
    exits 2 vneva-data train-tokenizer --vocab-size 300 --output small.model many.jsonl
    grep -q "tokens are the least: take more with --vocab-size" err || fail "$(cat err)"
}

# the golden file's rows of one setting, as conversations and as what must be printed
tokenize_prints_what_nemo_gave() {
    n=0
    for template in plain v1; do for frames in 1 2 4; do for marks in true false; do
        grep "^{\"template\": \"$template\", \"num_frames\": $frames, \"patches_per_frame\": 4, \"use_im_start_end\": $marks," \
            "$golden/nemo_conversations.jsonl" >rows
        sed -E 's/.*"source": (\{.*\}), "tokens": .*/\1/' rows >input.jsonl
        sed -E 's/.*"source": \{("id": "[^"]*").*(, "tokens": .*)/{\1\2/' rows >expected
        flag=
        [ $marks = false ] || flag=--use-im-start-end
        # shellcheck disable=SC2086
        exits 0 vneva-data tokenize --tokenizer "$golden/tiny_llama.model" \
            --template $template --num-frames $frames --patches-per-frame 4 $flag input.jsonl
        cmp out expected || fail "tokenize $template $frames $marks"
        n=$((n + $(wc -l <out)))
    done; done; done
    [ $n = 147 ] || fail "$n golden conversations, not 147"
}

tokenize_names_wrong_lines_and_prints_the_others() {
    sed -n 1p input.jsonl >some.jsonl
    echo '{"id": 2, "conversations": [}' >>some.jsonl
    sed -n 2p input.jsonl >>some.jsonl
    exits 1 vneva-data tokenize --tokenizer "$golden/tiny_llama.model" --template v1 \
        --num-frames 4 --patches-per-frame 4 some.jsonl
    [ "$(wc -l <out)" = 2 ] || fail "$(wc -l <out) lines, not 2"
    grep -q "line 2, column 29" err || fail "the wrong line is not named: $(cat err)"
}

clips_become_a_dataset() {
    spec=$VNEVA_SOURCE/jobs/quickstart/prepare.yaml
    exits 0 vneva-data synth --output motion --clips 3 --seed 5
    mkdir full && ln -s /dev/full full/clip_00000.mp4.part
    exits 5 vneva-data synth --output full --clips 1
    grep -q "full/clip_00000.mp4.part': No space left on device" err || fail "$(cat err)"
    exits 0 vneva-data train-tokenizer --vocab-size 400 --output t.model motion/annotations.jsonl
    set -- model.data.data_path=motion/annotations.jsonl model.data.video_folder=motion \
        model.tokenizer.model=t.model model.mm_cfg.llm.model_type=v1 \
        model.data.store_frames=true
    exits 0 vneva-data prepare "$spec" "$@" model.data.output=good
    grep -q '"samples": 6, "rejects": 0' out || fail "prepare says: $(cat out)"
    exits 0 vneva-data show good --verify
    grep -q "^samples *6 in 1 shards" out || fail "show says: $(cat out)"
    exits 0 vneva-data show good --sample 0
    grep -q "Which way does it move? ASSISTANT:\[\[" out || fail "sample 0: $(cat out)"
    exits 0 vneva-data show good --sample 5 --json
    exits 2 vneva-data show good --sample 6
    mkdir -p taken && echo '{}' >taken/manifest.json # of something else: left alone
    exits 2 vneva-data prepare "$spec" "$@" model.data.output=taken
    grep -q "taken/manifest.json' is there and no prepared dataset's" err || fail "$(cat err)"
    # one clip cut off in the middle: both its questions are refused, by name
    head -c 1500 motion/clip_00001.mp4 >short.mp4 && mv short.mp4 motion/clip_00001.mp4
    exits 1 vneva-data prepare "$spec" "$@" model.data.output=bad
    grep -q "2 of 6 records were rejected (2 media-bad)" err || fail "$(cat err)"
    exits 0 vneva-data rejects bad
    grep -q "annotations.jsonl:3: clip_00001-.*: media-bad: clip_00001.mp4: " out ||
        fail "rejects says: $(cat out)"
    exits 0 vneva-data rejects bad --json
    [ "$(grep -c '"kind": "media-bad"' out)" = 2 ] || fail "rejects --json: $(cat out)"
    exits 2 vneva-data show bad
    printf '{"id": "a\\u001bb", "video": "no\\nfile"}\n' >odd.jsonl
    exits 1 vneva-data prepare "$spec" "$@" model.data.output=odd \
        model.data.data_path=odd.jsonl model.data.max_reject_fraction=1
    grep -q "no sample is left: all 1 records were rejected" err || fail "$(cat err)"
    grep -q "or raise" err && fail "more than all cannot be allowed: $(cat err)"
    exits 0 vneva-data rejects odd
    grep -q "odd.jsonl:1: a?b: conversation: " out || fail "rejects says: $(cat out)"
    exits 0 vneva-data prepare "$spec" "$@" model.data.output=bad \
        model.data.max_reject_fraction=0.5
    # flip one byte of a shard
    printf 'x' | dd of=good/shard-00000.sqlite bs=1 seek=9000 conv=notrunc 2>/dev/null
    exits 2 vneva-data show good --verify
    grep -q "shard-00000.sqlite' is damaged" err || fail "verify says: $(cat err)"
}

# a folder of Hugging Face: its files go into the dataset, which stands alone with them
a_hugging_face_folder_becomes_part_of_a_dataset() {
    spec=$VNEVA_SOURCE/jobs/quickstart/prepare.yaml
    rm -rf hf named
    mkdir hf
    cp "$golden/tokenizer_qwen2.json" hf/tokenizer.json
    echo '{"bos_token": null, "eos_token": "<|im_end|>"}' >hf/tokenizer_config.json
    exits 0 vneva-data synth --output moving --clips 2 --seed 6
    set -- model.data.data_path=moving/annotations.jsonl model.data.video_folder=moving \
        model.tokenizer.library=huggingface model.tokenizer.model=null \
        model.data.conv_template=plain "model.tokenizer.additional_special_tokens=['<x>']"
    exits 0 vneva-data prepare "$spec" "$@" model.data.output=named model.tokenizer.type=hf
    exits 0 vneva-data prepare "$spec" "$@" model.data.output=named \
        model.tokenizer.type=named/tokenizer
    rm -rf hf
    grep -q '"tokenizer": "tokenizer"' named/manifest.json || fail "no folder in the manifest"
    grep -q '"vocab": 904' named/manifest.json || fail "another vocabulary"
    cmp named/tokenizer/tokenizer.json "$golden/tokenizer_qwen2.json" || fail "no copy"
    [ -e named/tokenizer/tokenizer_config.json ] || fail "the configuration is not copied"
    exits 0 vneva-data show named --sample 0
    grep -qi "left\|right\|up\|down" out || fail "sample 0: $(cat out)"
    exits 2 vneva-data prepare "$spec" "$@" model.data.output=other model.tokenizer.type=org/x
    grep -q "no tokenizer at '.*org/x'" err || fail "$(cat err)"
}

tokenize_prints_ids_spans_and_text_of_texts() {
    printf '%s\n' '{"id": 7, "text": "a  b<|im_end|>"}' '{"id": 8}' >texts.jsonl
    exits 1 vneva-data tokenize --tokenizer "$golden/tokenizer_qwen2.json" --texts --spans \
        texts.jsonl
    grep -q '^{"id": 7, "tokens": \[[0-9, ]*, 902\], "spans": .*\[4, 14\]\], "text": "a  b<|im_end|>"}$' out ||
        fail "texts: $(cat out)"
    grep -q 'line 2: no "text", a string' err || fail "$(cat err)"
    exits 2 vneva-data tokenize --tokenizer "$golden/tokenizer_qwen2.json" --spans texts.jsonl
}

what_a_submit_would_refuse_is_refused_here_too() {
    exits 2 vneva-data prepare "$VNEVA_SOURCE/jobs/quickstart/prepare.yaml" \
        model.data.data_path=motion/annotations.jsonl model.data.video_folder=motion \
        model.tokenizer.model=t.model model.data.output=refused model.data.num_frames=99
    grep -q "refused: model.data.num_frames: 99 frames" err || fail "$(cat err)"
    [ ! -e refused ] || fail "a dataset was begun all the same"
}

a_folder_is_no_annotation_file() {
    exits 2 vneva-data tokenize --tokenizer "$golden/tiny_llama.model" --template v1 \
        --num-frames 4 --patches-per-frame 4 motion
    grep -q "'motion' is a folder: name annotation files" err || fail "$(cat err)"
}

every_command_has_help_with_an_example
a_vocabulary_too_small_is_told_with_the_least
tokenize_prints_what_nemo_gave
tokenize_names_wrong_lines_and_prints_the_others
clips_become_a_dataset
a_hugging_face_folder_becomes_part_of_a_dataset
tokenize_prints_ids_spans_and_text_of_texts
what_a_submit_would_refuse_is_refused_here_too
a_folder_is_no_annotation_file
exit $failed
