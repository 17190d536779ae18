/* vneva-model: weights looked at, compared, brought in and taken out. */
#include "model/tools/tool.h"

#include <stddef.h>

static const char help[] =
    "usage: vneva model show | diff, vneva import, vneva export\n"
    "\n"
    "Weights, without running the model.\n"
    "\n"
    "  vneva model show   what a folder holds, and the memory it takes\n"
    "  vneva model diff   compare two folders, tensor by tensor\n"
    "  vneva import       make a checkpoint of a Hugging Face folder\n"
    "  vneva export       write a folder that transformers loads\n"
    "\n"
    "Each has --help.\n"
    "\n"
    "Exit status: 0 done, 1 the weights differ, 2 wrong usage or bad input,\n"
    "5 an error of the system.\n"
    "\n"
    "Example: what is in this folder?\n"
    "  vneva model show ~/.vneva/jobs/2\n";

int main(int argc, char **argv)
{
    static const struct program_command *const commands[] = {
        &tool_show, &tool_diff, &tool_import, &tool_export, NULL};
    const struct program program = {"vneva model", help, commands};

    return program_run(&program, argc, argv);
}
