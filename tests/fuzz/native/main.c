/* main.c - all targets in one program: the environment variable TARGET says which, PLANTED a fault.  Under libFuzzer it is called with
 * bytes; with FUZZ_REPLAY it has a main, which gives the target the files it is called with, one after another.
 */
#include "input.h"
#include FUZZ_WORDS                                    /* of a level */
#include "kernels/tile.h"
#include "trees.c"
#include "ngram_pool.c"
#include "draft_and_verify.c"
#include "texts.c"
#include "best.c"
#include "verify_tree.c"
#include "sample.c"
#include "kernels/tile_end.h"

static const struct { const char *name; void (*run)(struct input *in); } targets[] = {
    {"tree_layout", fuzz_tree_layout},
    {"build_tree", fuzz_build_tree},
    {"lookahead_layout", fuzz_lookahead_layout},
    {"ngram_pool", fuzz_ngram_pool},
    {"draft_and_verify", fuzz_draft_and_verify},
    {"find_matches", fuzz_find_matches},
    {"fixed_points", fuzz_fixed_points},
    {"top_k", fuzz_top_k},
    {"expand_tree", fuzz_expand_tree},
    {"unmask_select", fuzz_unmask_select},
    {"verify_tree", fuzz_verify_tree},
    {"sample", fuzz_sample},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*run)(struct input *in);
    for (size_t i = 0; !run && i < sizeof targets / sizeof *targets; i++)
        if (!strcmp(targets[i].name, getenv("TARGET") ? getenv("TARGET") : "")) run = targets[i].run;
    if (!run) {
        fprintf(stderr, "TARGET names no target\n");
        exit(2);
    }
    planted = getenv("PLANTED") ? atoi(getenv("PLANTED")) : 0;
    struct input in = {data, data + size};
    run(&in);
    leave_rooms();
    return 0;
}

#if defined(FUZZ_REPLAY)
int main(int count, char **names)
{
    static uint8_t bytes[1 << 20];
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (!file) return 2;
        size_t size = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        fprintf(stderr, "%s\n", names[i]);
        uint8_t *exact = malloc(size);                 /* so that a read beyond is seen */
        memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    return 0;
}
#endif
