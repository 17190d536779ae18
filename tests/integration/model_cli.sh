#!/bin/sh
# vneva import, export and model as people run them. Wants VNEVA_BIN (programs),
# VNEVA_SOURCE and VNEVA_RESAVE (tests/support/resave.c).
# shellcheck source=tests/integration/cli.sh
. "$VNEVA_SOURCE/tests/integration/cli.sh"

# same A B: files of the same bytes
same() {
    cmp -s "$1" "$2" || fail "$1 and $2 differ"
}
# flip FILE OFFSET (from the end when negative): turns a byte round
flip() {
    at=$2
    [ "$at" -ge 0 ] || at=$(($(wc -c <"$1") + at))
    byte=$(od -An -tu1 -j "$at" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\$(printf '%03o' $((byte ^ 1)))" | dd of="$1" bs=1 seek="$at" conv=notrunc \
        2>/dev/null
}

every_command_has_help_with_an_example() {
    for command in import export "model show" "model diff"; do
        # shellcheck disable=SC2086
        exits 0 vneva $command --help
        grep -q "^Example" out || fail "no example in the help of $command"
        grep -q "Exit status" out || fail "no exit status in the help of $command"
        # shellcheck disable=SC2086
        exits 2 vneva $command --no-such-option
        says "vneva $command: no option '--no-such-option'; --help lists"
        # shellcheck disable=SC2086
        exits 2 vneva $command
        says "expected"
    done
    exits 2 vneva model
    exits 2 vneva model no-such-command
    exits 2 vneva model show no-such-folder
    says "'no-such-folder' is not there"
    exits 2 vneva import no-such-folder imported
    says "'no-such-folder' is not there"
    mkdir empty
    exits 2 vneva model show empty
    says "'empty' holds no weights"
    touch old.nemo
    exits 2 vneva model show old.nemo
    says "convert it to Hugging Face's form with NeMo"
    exits 2 vneva import old.nemo imported
    says "convert it to Hugging Face's form with NeMo"
}

# the bits of every tensor, and the very names and files' order
out_and_in_again_is_bitwise() {
    for name in llava llava_shards llava_bin llava_new llava_siglip; do
        cp -r "$golden/weights/$name" hf
        # a tokenizer is wanted where config.json names no <image>
        cp "$golden/tiny_llava/tokenizer.model" hf
        exits 0 vneva import hf imported
        exits 0 vneva model diff hf imported
        exits 0 vneva export imported once
        exits 0 vneva model diff --json hf once
        grep -q '"equal": true' out || fail "$name: $(cat out)"
        grep -q '"within_tolerance": 0,' out || fail "$name has other bits: $(cat out)"
        exits 0 vneva export once twice
        same once/model.safetensors twice/model.safetensors
        rm -r hf imported once twice
    done
}

exported_names_are_those_of_save_pretrained() {
    exits 0 vneva export "$golden/tiny_llava" names
    for file in "$golden/tiny_llava" names; do
        head -c 20000 "$file/model.safetensors" | grep -ao '"[a-z_]*\.[a-z_0-9.]*"' |
            sort >"$(basename "$file").names"
    done
    [ "$(wc -l <names.names)" -gt 50 ] || fail "$(wc -l <names.names) names"
    same tiny_llava.names names.names
    head -c 20000 names/model.safetensors | grep -aq '"format": *"pt"' || fail "no format"
    rm -r names
}

every_layout_keeps_every_bit() {
    exits 0 vneva export "$golden/tiny_llava" before
    for ranks in 1 2 4; do
        exits 0 "$VNEVA_RESAVE" "$golden/tiny_llava" saved $ranks bf16
        cp "$golden/tiny_llava/tokenizer.model" saved
        # the projector, never frozen, is in fp32
        exits 0 vneva export --dtype bf16 saved after
        same before/model.safetensors after/model.safetensors
        rm -r saved after
        exits 0 "$VNEVA_RESAVE" "$golden/tiny_llava" saved $ranks fp32
        cp "$golden/tiny_llava/tokenizer.model" saved
        exits 0 vneva model diff "$golden/tiny_llava" saved
        exits 0 vneva export --dtype bf16 saved after
        same before/model.safetensors after/model.safetensors
        rm -r saved after
    done
    rm -r before
}

weights_are_divided_into_files_and_read_again() {
    exits 0 vneva export --shard-size 40KB "$golden/tiny_llava" shards
    [ "$(ls shards/model-*-of-*.safetensors | wc -l)" -gt 3 ] || fail "$(ls shards)"
    [ -e shards/model.safetensors.index.json ] || fail "no index"
    exits 0 vneva model diff "$golden/tiny_llava" shards
    grep -q " tensors have the same bits, 0 are equal, 0 differ" out || fail "$(cat out)"
    exits 2 vneva export --shard-size big "$golden/tiny_llava" other
    says "--shard-size must be like 5GB"
    exits 0 vneva export --dtype fp32 "$golden/tiny_llava" wide
    exits 0 vneva model diff "$golden/tiny_llava" wide
    grep -q "^0 tensors have the same bits, [0-9]* are equal" out || fail "$(cat out)"
    grep -q '"dtype": "float32"' wide/config.json || fail "config.json: $(cat wide/config.json)"
    rm -r shards wide
}

a_new_image_token_gets_a_row() {
    exits 0 "$VNEVA_RESAVE" "$golden/tiny_llava" own 1 fp32
    exits 2 vneva export own nowhere
    says "copy the tokenizer there"
    cp "$golden/tiny_llava/tokenizer.model" own
    # the tokenizer has 320 tokens, the model 328 rows: one of the others is taken
    exits 0 vneva export own spare
    grep -q '"image_token_index": 320' spare/config.json || fail "$(cat spare/config.json)"
    grep -q '"320": {' spare/tokenizer_config.json || fail "$(cat spare/tokenizer_config.json)"
    exits 0 vneva model diff own spare
    # one of 328 tokens leaves none
    exits 0 vneva data train-tokenizer --vocab-size 328 --output own/tokenizer.model \
        "$VNEVA_SOURCE/jobs/quickstart/real_train.jsonl"
    exits 0 vneva export own added
    grep -q "image token 328 (new, one row" out || fail "$(cat out)"
    exits 1 vneva model diff own added
    [ "$(grep -c '^other-shape' out)" = 2 ] || fail "$(cat out)"
    exits 0 vneva model show --json added
    grep -q '"tokenizer": "tokenizer.model"' out || fail "$(cat out)"
    # the same for Hugging Face's own kind of tokenizer
    {
        printf '{"added_tokens": [], "model": {"type": "BPE", "vocab": {"a0": 0'
        for i in $(seq 327); do printf ', "a%d": %d' "$i" "$i"; done
        printf '}, "merges": []}}'
    } >own/tokenizer.json
    exits 0 vneva export --force own added
    grep -q "image token 328 (new, one row" out || fail "$(cat out)"
    tr -d ' \n' <added/tokenizer.json | grep -q '"added_tokens":\[{"id":328,"content":"<image>"' ||
        fail "$(head -c 300 added/tokenizer.json)"
    rm -r own spare added
}

what_llava_cannot_express_is_refused() {
    cp -r "$golden/weights/llama" llama
    exits 2 vneva export llama out2
    says "is not a whole model"
    [ ! -e out2 ] && [ ! -e out2.tmp ] || fail "something was written"
    rm -r llama
}

nothing_is_replaced_unless_told_to() {
    mkdir there
    exits 2 vneva export "$golden/tiny_llava" there
    says "'there' is there already; --force replaces it"
    exits 0 vneva export --force "$golden/tiny_llava" there
    exits 0 vneva model diff "$golden/tiny_llava" there
    exits 2 vneva import "$golden/tiny_llava" there
    says "--force replaces it"
    cp -r "$golden/tiny_llava" source
    exits 0 vneva import --force source there
    [ "$(stat -c %h source/model.safetensors)" = 2 ] || fail "the weights were not linked"
    exits 0 vneva import --copy --force source there
    [ "$(stat -c %h source/model.safetensors)" = 1 ] || fail "the weights were linked"
    exits 0 vneva model diff source there
    exits 2 vneva import there elsewhere
    says "is a checkpoint of vneva already"
    exits 2 vneva import no-such-folder elsewhere
    rm -r there source
}

# a file system too small: an error, and nothing half
a_full_disk_leaves_nothing() {
    (trap '' XFSZ; ulimit -f 50; vneva export "$golden/tiny_llava" half >out 2>err)
    got=$?
    [ $got = 5 ] || fail "exit status $got"
    says "cannot write 'half.tmp/model.safetensors'"
    [ ! -e half ] && [ ! -e half.tmp ] || fail "half an export was left"
}

# each names the tensor or file, and what was wanted
damage_is_refused_by_name() {
    tensor=language_model.model.layers.0.mlp.up_proj.weight
    exits 0 vneva import "$golden/tiny_llava" whole
    for damage in flipped cut; do
        cp -r whole $damage
        chmod u+w $damage/model.safetensors
    done
    flip flipped/model.safetensors -9
    exits 2 vneva export flipped exported
    says "checksum"
    [ ! -e exported ] && [ ! -e exported.tmp ] || fail "something was written"
    exits 2 vneva model diff whole flipped
    says "vision_tower.vision_model."
    head -c 100000 whole/model.safetensors >cut/model.safetensors
    exits 2 vneva export cut exported
    says "model.safetensors' has 100000 bytes"
    # in a Hugging Face folder, before it has checksums
    for damage in missing extra shape; do cp -r "$golden/tiny_llava" hf_$damage; done
    sed -i "s/$tensor/$(echo $tensor | sed s/up_proj/up_prox/)/" hf_missing/model.safetensors
    exits 2 vneva import hf_missing imported
    says "layers.0.mlp.up_prox.weight"
    sed -i 's/"intermediate_size": 48/"intermediate_size": 47/' hf_shape/config.json
    exits 2 vneva import hf_shape imported
    says "mlp."
    sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' hf_extra/config.json
    exits 2 vneva import hf_extra imported
    says "layers.1."
    sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 3/' hf_extra/config.json
    sed -i 's/"num_hidden_layers": 1/"num_hidden_layers": 3/' hf_extra/config.json
    exits 2 vneva import hf_extra imported
    says "layers.2."
    [ ! -e imported ] && [ ! -e imported.tmp ] || fail "something was imported"
    rm -r whole flipped cut hf_*
}

show_says_what_there_is() {
    exits 0 vneva model show "$golden/tiny_llava"
    grep -q "^architecture LlavaForConditionalGeneration" out || fail "$(cat out)"
    grep -q "tokenizer  tokenizer.model" out || fail "$(cat out)"
    grep -q "train everything, bf16" out || fail "$(cat out)"
    grep -q "^files      1 of tensors, 170.3 kB" out || fail "$(cat out)"
    exits 0 vneva model show --json "$golden/weights/clip"
    grep -q '"memory_bytes": {}' out || fail "memory of an encoder alone: $(cat out)"
    exits 0 vneva model show --json --tensor-parallel 2 --frames 3 "$golden/tiny_llava"
    exits 2 vneva model show --tensor-parallel 3 "$golden/tiny_llava"
    says "cannot be divided"
    exits 2 vneva model show --tokens 5 "$golden/tiny_llava"
    says "8 frames alone are 32 tokens"
}

diff_tells_how_far_apart() {
    cp -r "$golden/tiny_llava" other
    flip other/model.safetensors -2 # the last bit of a number
    exits 1 vneva model diff "$golden/tiny_llava" other
    [ "$(grep -c '^differs' out)" = 1 ] || fail "$(cat out)"
    exits 0 vneva model diff --tolerance 0.1 "$golden/tiny_llava" other
    exits 2 vneva model diff --tolerance x "$golden/tiny_llava" other
    exits 1 vneva model diff "$golden/weights/clip_vision" "$golden/weights/llama"
    grep -q "^only-a " out && grep -q "^only-b " out || fail "$(cat out)"
    rm -r other
}

every_command_has_help_with_an_example
out_and_in_again_is_bitwise
exported_names_are_those_of_save_pretrained
every_layout_keeps_every_bit
weights_are_divided_into_files_and_read_again
a_new_image_token_gets_a_row
what_llava_cannot_express_is_refused
nothing_is_replaced_unless_told_to
a_full_disk_leaves_nothing
damage_is_refused_by_name
show_says_what_there_is
diff_tells_how_far_apart
exit $failed
