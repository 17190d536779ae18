#include "dataprep/vneva_data.h"

#include "dataprep/text/conversation.h"

#include <stdio.h>
#include <unistd.h>

static const char help[] =
    "usage: vneva data COMMAND [arguments]\n"
    "\n"
    "Datasets, tokenizers and conversations, without a coordinator.\n"
    "\n"
    "  prepare          prepare a dataset here, without a coordinator\n"
    "  rejects          list what a dataset refused, with reasons\n"
    "  show             show a dataset's settings, or one sample\n"
    "  synth            draw clips with questions about motion\n"
    "  tokenize         print tokens and labels of conversations\n"
    "  train-tokenizer  train a small tokenizer on conversations\n"
    "\n"
    "'vneva data COMMAND --help' tells more.\n"
    "\n"
    "Exit status: 0 done, 1 the check or the work failed, 2 wrong usage or bad input,\n"
    "5 an error of the system.\n"
    "\n"
    "Example: what does the training see of these conversations?\n"
    "  vneva data tokenize --tokenizer tokenizer.model --template v1 \\\n"
    "      --num-frames 4 --patches-per-frame 16 annotations.jsonl\n";

int data_find_template(const struct conv_template **out, const struct args *args,
                       const char *otherwise, struct err *err)
{
    const char *given = args_value(args, "template");
    const char *name = given ? given : otherwise;

    *out = conv_template_find(name);
    if (!*out)
        return err_set(err, ERR_INVALID, "unknown template '%s'; known are: %s", name,
                       conv_template_names());
    return 0;
}

void data_progress(const char *what, int64_t n_done, int64_t n_total)
{
    int64_t tenth = (n_total + 9) / 10;

    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %lld of %lld%s", what, (long long)n_done,
                (long long)n_total, n_done == n_total ? "\n" : "");
    else if ((tenth && n_done % tenth == 0) || n_done == n_total)
        fprintf(stderr, "%s: %lld of %lld\n", what, (long long)n_done,
                (long long)n_total);
}

int main(int argc, char **argv)
{
    static const struct program_command *const commands[] = {
        &data_prepare,  &data_rejects,         &data_show, &data_synth,
        &data_tokenize, &data_train_tokenizer, NULL};
    const struct program program = {"vneva data", help, commands};

    return program_run(&program, argc, argv);
}
