/* count_main.c - what the plugin count_instructions.c counts: on each level that this CPU runs, the ops of a forward pass alone, then the
 * forward of one token of a model of SmolLM2-135M's shape.  A line is
 *
 *     level kernel rows divisor instructions
 *
 * `divisor` is the number of units that the instructions are for: of linears and attention 512 multiply-adds (a block of 32 inputs by
 * 16 outputs, and a row), of what is done to a row on its own 32 numbers, of the token a million instructions.
 *
 * Values are made by integer arithmetic.  Of two matrices of one shape one serves for both, and so does the cache of a layer for all:
 * a count does not see where numbers lie.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "count_region.h"
#include "fastdistill.h"

enum { WIDTH = 576, WIDER = 1536, HEADS = 9, KV_HEADS = 3, HEAD = 64, LAYERS = 30, VOCAB = 49152 };      /* SmolLM2-135M */
enum { ROWS = 32, KEYS = 512, CONTEXT = 128, PAGES = KEYS / FD_PAGE };
enum { UNIT = 512, BLOCK = 32 };

static void *memory(size_t bytes) { return memset(aligned_alloc(64, (bytes + 63) / 64 * 64), 0, (bytes + 63) / 64 * 64); }
static float *floats(int64_t n)          /* in -1 .. 1 */
{
    float *x = memory((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(int32_t)((uint32_t)i * 2654435761u) * 0x1p-31f;
    return x;
}
static struct fd_block *codes(int64_t width) { return memory((size_t)(ROWS / FD_GROUP * (width / BLOCK)) * sizeof(struct fd_block)); }

static const struct fd_weight *weight(int format, int64_t outputs, int64_t inputs)
{
    struct fd_weight *w = memory(sizeof *w);
    int64_t blocks = outputs * inputs / BLOCK;
    uint8_t *data = memory((size_t)blocks * 32);
    uint16_t *scale = memory((size_t)blocks * 2);
    void *packed = memory((size_t)fd_packed_bytes(format, outputs, inputs));
    for (int64_t i = 0; i < blocks * 32; i++) data[i] = (uint8_t)((uint32_t)i * 2654435761u >> 24);
    for (int64_t i = 0; i < blocks; i++) scale[i] = (uint16_t)(0x1000 + i % 1024);           /* of about 2^-11 */
    *w = (struct fd_weight){format, fd_isa_layout(fd_isa_selected()), outputs, inputs, packed, NULL};
    fd_pack(format, w->layout, outputs, inputs, data, scale, scale, packed, 1);
    free(data), free(scale);
    return w;
}

/* The pass that all ops here belong to: rows of one text, the last of them at the last key. */
static struct fd_pass pass_of(int64_t rows, int64_t keys)
{
    static void *pages[PAGES];
    static struct fd_cache cache;
    static int32_t slots[ROWS], nodes[ROWS], positions[ROWS], sequences[ROWS], tokens[ROWS], read_rows[ROWS], argmax[ROWS], runs[2];
    static int64_t run_offsets[] = {0, 1}, key_counts[1];
    static float statistics[5][ROWS];
    static struct fd_keys set = {&cache, slots, nodes, runs, run_offsets, key_counts, 0};
    int64_t plane = KV_HEADS * FD_PAGE * HEAD * 2 * 2;
    if (!cache.pages) {
        for (int page = 0; page < PAGES; page++) pages[page] = memory((size_t)plane + FD_PAGE * 4);
        cache = (struct fd_cache){.pages = pages, .positions = plane};
    }
    runs[1] = (int32_t)keys;
    key_counts[0] = set.most_keys = keys;
    for (int row = 0; row < rows; row++) slots[row] = positions[row] = (int32_t)(keys - rows) + row, read_rows[row] = row;
    return (struct fd_pass){
        .rows = rows, .tokens = tokens, .positions = positions, .sequences = sequences, .keys = &set, .reads = rows,
        .read_rows = read_rows, .argmax = argmax, .top = statistics[0], .second = statistics[1], .log_sum_exp = statistics[2],
        .entropy = statistics[3], .log_prob = statistics[4]};
}

/* Of an op's pointers. */
#define LIST(type, ...) (type[]){__VA_ARGS__}
#define VALUES(...) LIST(const float *, __VA_ARGS__)
#define MADE(...) LIST(float *, __VA_ARGS__)
#define WEIGHTS(...) LIST(const struct fd_weight *, __VA_ARGS__)

static void forward(const struct fd_op *ops, int64_t count, const struct fd_pass *pass)
{
    int64_t stages[16 * LAYERS], where[2];
    for (int64_t stage = 0; stage <= count; stage++) stages[stage] = stage;
    if (fd_forward(ops, stages, count, pass, 1, where, NULL) == FD_OK) return;
    fprintf(stderr, "op %d, row %d: not finite\n", (int)where[0], (int)where[1]);
    exit(1);
}
/* One op of so many multiply-adds or numbers a row. */
static void count_op(const char *kernel, struct fd_op op, int64_t rows, int64_t keys, int64_t of_a_row, int64_t unit)
{
    struct fd_pass pass = pass_of(rows, keys);
    COUNT_BEGIN("%s %s %d %d", fd_isa_name(fd_isa_selected()), kernel, (int)rows, (int)(rows * of_a_row / unit));
    forward(&op, 1, &pass);
    COUNT_END();
}

static void count_linear(const char *kernel, int format)
{
    static const int rows[] = {1, 4, 8, 32};
    float *x = floats(ROWS * WIDTH), *y = floats(ROWS * WIDER);
    struct fd_block *form = codes(WIDTH);
    struct fd_op quantize = {.kind = FD_OP_quantize, .inputs = 1, .width = WIDTH, .in = VALUES(x), .codes_out = form};
    struct fd_op linear = {.kind = FD_OP_linear, .inputs = 1, .outputs = 1, .parts = 1, .width = WIDTH, .in = VALUES(x), .out = MADE(y),
                           .weights = WEIGHTS(weight(format, WIDER, WIDTH)), .codes_in = form};
    struct fd_pass pass = pass_of(ROWS, ROWS);
    forward(&quantize, 1, &pass);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) count_op(kernel, linear, rows[i], rows[i], WIDTH * WIDER, UNIT);
}

static struct fd_op attend(int64_t heads, int64_t kv_heads, const float *const *q, float *const *out)
{
    return (struct fd_op){.kind = FD_OP_attend, .inputs = 1, .outputs = 1, .width = heads * HEAD, .in = q, .out = out, .heads = heads,
                          .kv_heads = kv_heads, .head_dim = HEAD, .scalar = 0.125f};
}

/* The forward of one token beside CONTEXT - 1 cached ones; its steps are those of docs/plan.md, each a stage of its own. */
static void count_token(void)
{
    float *x = floats(WIDTH), *y = floats(WIDTH), *q = floats(WIDTH), *k = floats(WIDTH), *v = floats(WIDTH), *wide = floats(WIDER);
    float *cosine = floats(BLOCK), *sine = floats(BLOCK), *norm = floats(WIDTH), *frequencies = floats(BLOCK);
    struct fd_block *form = codes(WIDTH), *wide_form = codes(WIDER);
    const struct fd_weight *square = weight(FD_Q4, WIDTH, WIDTH), *narrow = weight(FD_Q4, KV_HEADS * HEAD, WIDTH);
    const struct fd_weight *up = weight(FD_Q4, WIDER, WIDTH), *down = weight(FD_Q4, WIDTH, WIDER), *head = weight(FD_Q8, VOCAB, WIDTH);
    struct fd_op enter[] = {
        {.kind = FD_OP_rotary_table, .out = MADE(cosine, sine), .vectors = VALUES(frequencies), .head_dim = HEAD, .rotary_dim = HEAD, .scalar = 1.0f},
        {.kind = FD_OP_embedding, .width = WIDTH, .weights = WEIGHTS(head), .out = MADE(x)}};
    struct fd_op layer[] = {
        {.kind = FD_OP_rms_norm, .width = WIDTH, .in = VALUES(x), .out = MADE(y), .vectors = VALUES(norm), .scalar = 1e-5f, .codes_out = form},
        {.kind = FD_OP_linear, .parts = 3, .width = WIDTH, .in = VALUES(y), .out = MADE(q, k, v), .weights = WEIGHTS(square, narrow, narrow),
         .codes_in = form},
        {.kind = FD_OP_rotary, .width = WIDTH, .in = VALUES(q, cosine, sine), .out = MADE(q), .head_dim = HEAD, .rotary_dim = HEAD},
        {.kind = FD_OP_rotary, .width = KV_HEADS * HEAD, .in = VALUES(k, cosine, sine), .out = MADE(k), .head_dim = HEAD, .rotary_dim = HEAD},
        {.kind = FD_OP_store, .width = KV_HEADS * HEAD, .in = VALUES(k, v), .kv_heads = KV_HEADS, .head_dim = HEAD},
        attend(HEADS, KV_HEADS, VALUES(q), MADE(y)),
        {.kind = FD_OP_quantize, .width = WIDTH, .in = VALUES(y), .codes_out = form},
        {.kind = FD_OP_linear, .epilogue = FD_RESIDUAL, .inputs = 2, .parts = 1, .width = WIDTH, .in = VALUES(y, x), .out = MADE(x),
         .weights = WEIGHTS(square), .codes_in = form},
        {.kind = FD_OP_rms_norm, .width = WIDTH, .in = VALUES(x), .out = MADE(y), .vectors = VALUES(norm), .scalar = 1e-5f, .codes_out = form},
        {.kind = FD_OP_linear, .epilogue = FD_GATED, .activation = FD_SILU, .parts = 2, .width = WIDTH, .in = VALUES(y), .out = MADE(wide), .weights = WEIGHTS(up, up),
         .codes_in = form},
        {.kind = FD_OP_quantize, .width = WIDER, .in = VALUES(wide), .codes_out = wide_form},
        {.kind = FD_OP_linear, .epilogue = FD_RESIDUAL, .inputs = 2, .parts = 1, .width = WIDER, .in = VALUES(wide, x), .out = MADE(x),
         .weights = WEIGHTS(down), .codes_in = wide_form}};
    struct fd_op leave[] = {
        {.kind = FD_OP_read, .read_rows = 1, .width = WIDTH, .in = VALUES(x), .out = MADE(y)},
        {.kind = FD_OP_rms_norm, .read_rows = 1, .width = WIDTH, .in = VALUES(y), .out = MADE(y), .vectors = VALUES(norm), .scalar = 1e-5f,
         .codes_out = form},
        {.kind = FD_OP_head, .read_rows = 1, .parts = 1, .width = WIDTH, .in = VALUES(y), .weights = WEIGHTS(head), .codes_in = form},
        {.kind = FD_OP_head_merge, .read_rows = 1, .parts = 1, .width = WIDTH, .in = VALUES(y), .weights = WEIGHTS(head), .codes_in = form}};
    enum { ENTER = sizeof enter / sizeof *enter, LAYER = sizeof layer / sizeof *layer, LEAVE = sizeof leave / sizeof *leave };
    struct fd_op ops[ENTER + LAYERS * LAYER + LEAVE];
    memcpy(ops, enter, sizeof enter);
    for (int i = 0; i < LAYERS; i++) memcpy(ops + ENTER + i * LAYER, layer, sizeof layer);
    memcpy(ops + ENTER + LAYERS * LAYER, leave, sizeof leave);
    struct fd_pass pass = pass_of(1, CONTEXT);
    pass.partial_statistics = floats(fd_statistics_floats(VOCAB));
    COUNT_BEGIN("%s token 1 1000000", fd_isa_name(fd_isa_selected()));
    forward(ops, sizeof ops / sizeof *ops, &pass);
    COUNT_END();
}

int main(void)
{
    for (int level = 0; level < fd_isa_count(); level++) {
        if (!fd_isa_supported(level)) continue;
        fd_isa_select(level);
        count_linear("q4", FD_Q4);
        count_linear("q8", FD_Q8);
        float *x = floats(ROWS * WIDTH), *y = floats(ROWS * WIDTH), *norm = floats(WIDTH);
        count_op("attention", attend(1, 1, VALUES(x), MADE(y)), 1, KEYS, KEYS * HEAD * 2, UNIT);
        count_op("attention_of_9_heads", attend(HEADS, KV_HEADS, VALUES(x), MADE(y)), 1, KEYS, KEYS * HEAD * 2 * HEADS, UNIT);
        struct fd_op quantize = {.kind = FD_OP_quantize, .width = WIDTH, .in = VALUES(x), .codes_out = codes(WIDTH)}, rms_norm = quantize;
        rms_norm.kind = FD_OP_rms_norm, rms_norm.out = MADE(y), rms_norm.vectors = VALUES(norm);
        count_op("quantize", quantize, 1, 1, WIDTH, BLOCK);
        count_op("rms_norm", rms_norm, 1, 1, WIDTH, BLOCK);
        count_token();
    }
    return 0;
}
