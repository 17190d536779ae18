#!/bin/sh
# vneva generate as people run it: a LLaVA folder against what transformers answers
# (tests/golden/make_tiny_llava.py), videos, records, and what goes wrong. Wants VNEVA_BIN
# and VNEVA_SOURCE.
# shellcheck source=tests/integration/cli.sh
. "$VNEVA_SOURCE/tests/integration/cli.sh"
model=$golden/tiny_llava

# numbers KEY FILE: the list under a key of a line of JSON
numbers() {
    sed -E 's/.*"'"$1"'": ?\[([^]]*)\].*/\1/; s/ //g' "$2"
}
ask() {
    vneva generate --precision 32 "$@"
}

transformers_tokens_come() {
    n=0
    while read -r line; do
        echo "$line" >line
        set --
        for image in $(numbers images line | tr -d '"' | tr , ' '); do
            set -- "$@" --image "$model/$image"
        done
        for backend in ref cpu; do
            exits 0 ask --model "$model" "$@" --backend $backend --max-new-tokens 64 \
                --json "What is in the picture?"
            [ "$(numbers prompt_tokens out)" = "$(numbers prompt line)" ] || fail "prompt: $(cat out)"
            [ "$(numbers tokens out)" = "$(numbers tokens line)" ] || fail "tokens: $(cat out)"
            n=$((n + 1))
        done
    done <"$model/answers.jsonl"
    [ $n = 6 ] || fail "$n golden answers, not 6"
}

help_and_wrong_usage() {
    exits 0 vneva generate --help
    grep -q "^Example" out && grep -q "Exit status" out || fail "help: $(cat out)"
    exits 2 vneva generate --model "$model" --no-such-option
    says "vneva generate: no option '--no-such-option'; --help lists"
    exits 2 vneva generate --model "$model" --video
    says "vneva generate: option '--video' needs a value: FILE"
    exits 2 vneva generate "What?"
    says "--model FOLDER is needed"
    exits 2 ask --model "$model" What is it
    says "'is' is one word too many: put the question in quotes"
    exits 2 ask --model "$model"
    says "no question: give one, or --questions FILE"
    exits 2 ask --model "$model" --questions x "What?"
    says "exclude each other"
    exits 2 ask --model "$model" --template vicuna "What?"
    says "there is no 'vicuna', only"
    exits 2 ask --model "$model" --num-frames 0 "What?"
    says "1 or more, or -1 for all"
    exits 2 ask --model "$model" --max-new-tokens many "What?"
    says "option '--max-new-tokens': expected a whole number"
    exits 2 ask --model "$model" --backend tpu "What?"
    says "--backend 'tpu'"
    exits 2 vneva generate --model "$model" --precision 8 "What?"
    says "--precision must be bf16, 16 or 32"
}

a_video_is_asked_about() {
    exits 0 vneva data synth --output clips --clips 2 --seed 5
    exits 0 ask --model "$model" --video clips/clip_00000.mp4 --max-new-tokens 12 "What moves?"
    cp out text
    says "template v1 (guessed: the decoder is of the kind 'llama')"
    exits 0 ask --model "$model" --video clips/clip_00000.mp4 --max-new-tokens 12 --json \
        --verbose "What moves?"
    says "frames in"
    says "tokens/s"
    said=$(sed -E 's/.*"pred_answer": ?"//; s/", ?"tokens.*//' out)
    [ -n "$said" ] || fail "no answer: $(cat out)"
    # what JSON does not escape is what was streamed
    case $said in *\\*) ;; *) [ "$(cat text)" = "$said" ] || fail "'$(cat text)' is not '$said'" ;; esac
    [ "$(numbers prompt_tokens out | tr , '\n' | grep -c '^-1$')" = 32 ] || fail "8 frames: $(cat out)"
    grep -q 'USER: <video>\\nWhat moves? ASSISTANT:' out || fail "full text: $(cat out)"
    exits 0 ask --model "$model" --video clips/clip_00000.mp4 --num-frames 3 --json \
        --max-new-tokens 2 --template mistral "Now <video> and then?"
    [ "$(numbers prompt_tokens out | tr , '\n' | grep -c '^-1$')" = 12 ] || fail "3 frames: $(cat out)"
    grep -q 'Now<video>and then?' out || grep -q 'Now <video> and then?' out || fail "$(cat out)"
    grep -q guessed err && fail "it guessed what was given"
    exits 0 ask --model "$model" --video clips/clip_00000.mp4 --num-frames -1 --json \
        --max-new-tokens 2 "What moves?"
    [ "$(numbers prompt_tokens out | tr , '\n' | grep -c '^-1$')" -gt 32 ] || fail "all frames: $(cat out)"
    exits 0 ask --model "$model" --max-new-tokens 2 "No picture at all."
    exits 0 ask --model "$model" --max-new-tokens 2 --json --system "Be brief." "Why?"
    grep -q '"Be brief. USER: Why? ASSISTANT:' out || fail "system: $(cat out)"
    exits 0 vneva generate --model "$model" --precision bf16 --max-new-tokens 2 "In bf16."
}

it_says_once_why_it_takes_the_cpu_where_that_is_news() {
    export VNEVA_CUDA_PLUGIN=/no/such/plugin.so
    exits 0 ask --model "$model" --max-new-tokens 2 "Where?"
    unset VNEVA_CUDA_PLUGIN
    says "computing on the CPU: backend 'cuda' is not there: cannot open its plugin (/no/such"
    [ "$(grep -c 'computing on' err)" = 1 ] || fail "it says so more than once: $(cat err)"
    exits 0 ask --model "$model" --backend cpu --max-new-tokens 2 "Where?"
    grep -q 'computing on' err && fail "it explains what was asked for: $(cat err)"
    [ ! -e /dev/nvidiactl ] || return 0
    exits 0 ask --model "$model" --max-new-tokens 2 "Where?"
    grep -q 'computing on' err && fail "it explains the only way there is: $(cat err)"
    exits 0 ask --model "$model" --max-new-tokens 2 --verbose "Where?"
    says "computing on the CPU: "
}

a_template_is_guessed_from_what_there_is() {
    cp -r "$model" told
    sed -i 's/"model_type": "llama"/"model_type": "mistral"/' told/config.json
    exits 0 ask --model told --max-new-tokens 2 "Hm?"
    says "template mistral (guessed: the decoder is of the kind 'mistral')"
    sed -i 's/^{/{"chat_template": "{{ bos }}USER: {{ text }}",/' told/tokenizer_config.json
    exits 0 ask --model told --max-new-tokens 2 "Hm?"
    says "template v1 (guessed: tokenizer_config.json writes 'USER:')"
    echo "[INST] <<SYS>> {{ system }}" >told/chat_template.jinja
    exits 0 ask --model told --max-new-tokens 2 --json "Hm?"
    says "template llama_2 (guessed: chat_template.jinja writes '<<SYS>>')"
    # what is likely gives way to what the tokenizer can; what is written does not
    echo "<|im_start|>user" >told/chat_template.jinja
    exits 2 ask --model told --max-new-tokens 2 "Hm?"
    says "yi_34b"
    rm told/chat_template.jinja
    cp "$model/tokenizer_config.json" told
    sed -i 's/"model_type": "mistral"/"model_type": "gpt_neox"/' told/config.json
    exits 2 ask --model told --max-new-tokens 2 "Hm?"
    says "does not say how its conversations are laid out: give --template"
}

an_imported_and_an_exported_model_say_the_same() {
    exits 0 vneva import "$model" imported
    exits 0 vneva export imported exported
    for folder in "$model" imported exported; do
        exits 0 ask --model "$folder" --image "$model/high.png" --max-new-tokens 16 \
            --json "What is it?"
        cp out "said.$(basename "$folder")"
    done
    cmp said.tiny_llava said.imported || fail "imported"
    cmp said.tiny_llava said.exported || fail "exported"
}

records_are_answered_line_by_line() {
    { sed -n 1p clips/annotations.jsonl
      echo '{"id": "bad", "video": "none.mp4", "conversations": [{"from": "human", "value": "<video>"}]}'
      echo '{"id": "open", "conversations": [{"from": "human", "value": "Why?"}]}'; } >some.jsonl
    cp some.jsonl clips
    exits 1 ask --model "$model" --max-new-tokens 3 --questions clips/some.jsonl
    says "'clips/some.jsonl' line 2: there is no video 'clips/none.mp4'"
    [ "$(wc -l <out)" = 2 ] || fail "$(wc -l <out) answers, not 2"
    sed -n 1p out | grep -q '"is_correct": ' || fail "no verdict: $(cat out)"
    sed -n 2p out | grep -q '"is_correct": ' && fail "a verdict on what has no answer"
    # the same from standard input, about a video of the command line
    sed -n 3p some.jsonl | vneva generate --model "$model" --precision 32 --max-new-tokens 3 \
        --questions - --video clips/clip_00001.mp4 --json >out 2>err || fail "$(cat err)"
    grep -q 'USER: <video>\\nWhy? ASSISTANT:' out || fail "$(cat out)"
}

what_goes_wrong_is_said_with_its_remedy() {
    exits 2 ask --model no-such-folder "What?"
    says "--model: 'no-such-folder' is not there"
    mkdir empty
    exits 2 ask --model empty "What?"
    says "neither a checkpoint nor the folder of a run"
    touch old.nemo
    exits 2 ask --model old.nemo "What?"
    says "convert it to Hugging Face's form with NeMo"
    exits 2 ask --model "$model" --video none.mp4 "What?"
    says "there is no video 'none.mp4'"
    exits 2 ask --model no-such-folder --video none.mp4 "What?" # before a model is loaded
    says "there is no video 'none.mp4'"
    exits 2 ask --model no-such-folder --questions none.jsonl
    says "'none.jsonl' is not there"
    exits 2 ask --model "$model" --video old.nemo/none.mp4 "What?"
    says "the video 'old.nemo/none.mp4' cannot be reached: Not a directory"
    exits 2 ask --model "$model" --video empty "What?"
    says "'empty' is no file"
    echo "no video" >text.mp4
    exits 2 ask --model "$model" --video text.mp4 "What?"
    says "text.mp4"
    exits 2 ask --model "$model" --video clips/clip_00000.mp4 "<video> or <video>?"
    says "2 <video> and 0 <image> in the question, but 1 --video and 0 --image"
    exits 2 ask --model "$model" --video clips/clip_00000.mp4 --num-frames 200 "What?"
    says "lower --num-frames or --max-new-tokens"
    exits 2 ask --model "$model" --max-new-tokens 5000 "What?"
    says "but the model has room for 512"
    cp -r "$model" bare
    rm bare/tokenizer.model
    exits 2 ask --model bare "What?"
    says "no tokenizer in 'bare' (looked for tokenizer."
    exits 0 ask --model bare --tokenizer "$model/tokenizer.model" --max-new-tokens 2 "What?"
    exits 2 ask --model bare --tokenizer "$golden/tiny_llama.model" "What?"
    says "it is another model's"
    exits 2 ask --model "$golden/weights/llama" --tokenizer "$model/tokenizer.model" "What?"
    says "is not a whole model"
}

drawn() { # FILE, options of vneva generate: the tokens
    drawn_file=$1
    shift
    exits 0 ask --model "$model" --max-new-tokens 24 --json "$@" "What?"
    numbers tokens out >"$drawn_file"
}
an_answer_is_drawn() {
    drawn greedy
    drawn a --temperature 2
    drawn b --temperature 2 --seed 1234
    drawn c --temperature 2 --seed 7
    cmp -s a b || fail "the same seed draws something else"
    cmp -s a c && fail "another seed draws the same"
    cmp -s a greedy && fail "--temperature 2 draws what is most probable"
    drawn b --top-k 1
    cmp -s b greedy || fail "--top-k 1 is not greedy"
    drawn b --top-p 0.000001
    cmp -s b greedy || fail "--top-p 0.000001 is not greedy"
    drawn b --repetition-penalty 5
    cmp -s b greedy && fail "--repetition-penalty 5 changes nothing"
    exits 2 ask --model "$model" --top-p 2 "What?"
    says "option '--top-p': expected a number from 1e-06 to 1, got '2'"
    exits 2 ask --model "$model" --temperature warm "What?"
    says "option '--temperature': expected a number from 0 to 1000, got 'warm'"
}

a_dialogue_goes_on() {
    command="vneva generate --model $model --precision 32 --max-new-tokens 3 --json"
    printf 'What?\nWhy?\n/new\nWho?\n\n' | script -qec "$command" /dev/null >out 2>err
    [ "$(grep -c '"pred_answer"' out)" = 3 ] || fail "answers: $(cat out)"
    grep 'Why?' out | grep -q '"value": "What?"' || fail "the first question is forgotten"
    grep '"Who?"' out | grep -q '"value": "What?"' && fail "/new forgets nothing"
}

transformers_tokens_come
help_and_wrong_usage
a_video_is_asked_about
it_says_once_why_it_takes_the_cpu_where_that_is_news
a_template_is_guessed_from_what_there_is
an_imported_and_an_exported_model_say_the_same
records_are_answered_line_by_line
what_goes_wrong_is_said_with_its_remedy
an_answer_is_drawn
a_dialogue_goes_on
exit $failed
