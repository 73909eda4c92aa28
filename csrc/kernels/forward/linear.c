/* linear.c - rows times packed weights, every output summed in one order whatever else is computed beside it.
 *
 * f32, f16, bf16:  sum <- fma(w[k], x[k], sum), k ascending.
 * q8:              sum <- fma(block total, w_scale x_scale, sum), blocks ascending; block totals are exact integers.
 * q4:              the same, then sum <- fma(w_minimum, x_sum, sum): x_sum = x_scale * the sum of x's codes.
 *
 * Where a tile is read for the first time, weights LINEAR_AHEAD further on are fetched meanwhile: a core's own prefetchers stop at the end
 * of a page, and at few rows it must not wait for memory.  (tile_neon.h fetches as ARM wants it.)
 */
#pragma once
#include "../../threads.h"
#include "../product.h"
#include "../tile.h"
#include "activation.c"
#include "linear_tile.h"
#include "packed.h"
#include "quantize_rows.c"

_Static_assert(FD_ROW_TILE % FD_GROUP == 0 && FD_MANY_ROWS % FD_ROW_TILE == 0, "a tile begins at the first row of a group");
enum { LINEAR_AHEAD = 4096 };            /* bytes; a whole tile would push the rows' codes out of a first cache of 32 KB */

/* Packed weights, from one tile of theirs on. */
struct linear_weights { int format; int64_t inputs, bytes; const char *tile; const float *bias; };      /* bytes: of a tile */
static struct linear_weights linear_weights_from(const struct fd_weight *weight, int64_t tile)
{
    return (struct linear_weights){weight->format, weight->inputs, packed_tile_bytes(weight->format, weight->inputs), packed_tile(weight, tile),
                                   weight->bias ? weight->bias + tile * FD_LANES : NULL};
}
static inline void linear_next(struct linear_weights *w)
{
    w->tile += w->bytes;
    if (w->bias) w->bias += FD_LANES;
}

FD_INLINE void linear_tile_rows(const int rows, const struct linear_weights *w, const struct linear_rows *in, int64_t row,
                                const char *ahead, vf *y)
{
    switch (w->format) {
    case FD_F32: linear_tile_float(rows, FD_F32, in, row, w->tile, ahead, w->inputs, y); break;
    case FD_F16: linear_tile_float(rows, FD_F16, in, row, w->tile, ahead, w->inputs, y); break;
    case FD_BF16: linear_tile_float(rows, FD_BF16, in, row, w->tile, ahead, w->inputs, y); break;
    case FD_Q8: linear_tile_q8(rows, in, row, w->tile, ahead, y); break;
    default: linear_tile_q4(rows, in, row, w->tile, ahead, y);
    }
}

/* y[r] = 16 outputs of rows row .. row + rows, rows <= FD_ROW_TILE. */
static void linear_few(int64_t rows, const struct linear_weights *w, const struct linear_rows *in, int64_t row, const char *ahead, vf *y)
{
    switch (rows) {
    case 1: linear_tile_rows(1, w, in, row, ahead, y); break;
    case 2: linear_tile_rows(2, w, in, row, ahead, y); break;
    case 3: linear_tile_rows(3, w, in, row, ahead, y); break;
    case 4: linear_tile_rows(4, w, in, row, ahead, y); break;
#if FD_ROW_TILE > 4
    case 5: linear_tile_rows(5, w, in, row, ahead, y); break;
    case 6: linear_tile_rows(6, w, in, row, ahead, y); break;
    case 7: linear_tile_rows(7, w, in, row, ahead, y); break;
    case 8: linear_tile_rows(8, w, in, row, ahead, y); break;
#endif
    }
}

/* The same of up to FD_MANY_ROWS; what lies at `ahead` is fetched meanwhile. */
static inline void linear_tile(int64_t rows, const struct linear_weights *w, const struct linear_rows *in, int64_t row, const char *ahead, vf *y)
{
    if (FD_MANY_ROWS > FD_ROW_TILE && rows == FD_MANY_ROWS && w->format >= FD_Q8) linear_many(w->format, in, row, w->tile, y);
    else for (int64_t r = 0; r < rows; r += FD_ROW_TILE, ahead = w->tile)
        linear_few(fd_min(FD_ROW_TILE, rows - r), w, in, row + r, ahead, y + r);
    if (w->bias)
        for (int64_t r = 0; r < rows; r++) y[r] = vf_add(y[r], vf_load(w->bias));
}

/* What one call makes of its rows: y = activation(linear), times the linear of `up` where there is one, plus the residual. */
struct linear_job {
    const struct fd_weight *weight, *up;                 /* up: NULL, or of the same shape */
    struct linear_rows in;
    int32_t activation;                                  /* enum fd_activation */
    const float *residual;                               /* NULL, or with y's stride */
    float *y;
    int64_t stride, width;                               /* y from row to row; floats that may be written in each */
};

/* y[r], or residual + y[r], in as many columns as are left of `width`. */
static inline void linear_write(int64_t rows, vf *y, const float *residual, float *out, int64_t stride, int64_t width)
{
    if (residual)
        for (int64_t r = 0; r < rows; r++) y[r] = vf_add(vf_load(residual + r * stride), y[r]);
    if (width >= FD_LANES)
        for (int64_t r = 0; r < rows; r++) vf_store(out + r * stride, y[r]);
    else
        for (int64_t r = 0; r < rows; r++) vf_store_part(out + r * stride, width, y[r]);
}

/* Fetches what a tile will write and add to, from y's float `at` on, before its sums are made: a store that waits for its line holds up every
 * load from the same place of another page, and at many rows y lies in no near cache (docs/kernels/forward). */
FD_INLINE void linear_fetch(const struct linear_job *job, int64_t rows, int64_t at, const int lanes)
{
    for (int64_t r = 0; r < rows; r++, at += job->stride) {
        FD_FETCH((const char *)(job->y + at), lanes * 4);
        if (job->residual) FD_FETCH((const char *)(job->residual + at), lanes * 4);
    }
}

enum { LINEAR_MOST_ROWS = 256, LINEAR_ROWS = 192, LINEAR_DEPTH = 256 };     /* more rows than the first are cut into tasks of the second, whole
                                                                               tiles; of two tiles of weights so many inputs stay in the first cache */
_Static_assert(LINEAR_ROWS % PRODUCT_ROWS == 0 && LINEAR_ROWS % FD_MANY_ROWS == 0, "whole tiles");

/* y (rows, PRODUCT_LANES): inputs [begin, end) of rows x times those of two tiles of f32, or of one and zeros; sums go on from y, but at 0. */
static void linear_product_rows(int64_t rows, int narrow, const float *x, int64_t stride, int64_t begin, int64_t end,
                                const struct linear_weights *w, float *y)
{
    for (int64_t row = 0; narrow && row < rows; row++) vf_store(y + row * PRODUCT_LANES + FD_LANES, vf_zero());
    for (int64_t k = begin; k < end; k += LINEAR_DEPTH)
        (narrow ? product_narrow : product)(rows, k ? PRODUCT_GO_ON : PRODUCT_NEW, fd_min(LINEAR_DEPTH, end - k), (struct product_a){x + k, stride, 1},
                (struct product_b){(const float *)(const void *)w->tile + k * FD_LANES, w->inputs * FD_LANES, FD_LANES},
                (struct product_c){y, PRODUCT_LANES, FD_LANES});
}
/* What becomes of PRODUCT_ROWS rows of one tile: y and, where there is one, gated (.., PRODUCT_LANES) -> out, `width` columns of it. */
static void linear_product_end(const struct linear_job *job, const float *y, const float *gated, const float *bias, const float *bias_up,
                               int64_t at, int64_t width)
{
    vf lanes[PRODUCT_ROWS];
    for (int r = 0; r < PRODUCT_ROWS; r++) {
        lanes[r] = vf_load(y + r * PRODUCT_LANES);
        if (bias) lanes[r] = vf_add(lanes[r], vf_load(bias));
        if (job->activation) lanes[r] = activation(job->activation, lanes[r]);
        if (!job->up) continue;
        vf by = vf_load(gated + r * PRODUCT_LANES);
        lanes[r] = vf_mul(lanes[r], bias_up ? vf_add(by, vf_load(bias_up)) : by);
    }
    linear_write(PRODUCT_ROWS, lanes, job->residual ? job->residual + at : NULL, job->y + at, job->stride, width);
}
/* Of f32, as many whole tiles of rows as there are from row_begin on: the same sums, shaped for many rows (product.h).  Returns how many. */
static __attribute__((noinline)) int64_t linear_product(const struct linear_job *job, int64_t row_begin, int64_t row_end, int64_t tile_begin,
                                                        int64_t tile_end)
{
    float y[LINEAR_ROWS * PRODUCT_LANES], gated[LINEAR_ROWS * PRODUCT_LANES];
    const int64_t rows = (row_end - row_begin) / PRODUCT_ROWS * PRODUCT_ROWS, inputs = job->weight->inputs, stride = job->in.x_stride;
    const int64_t last = (inputs - 1) / LINEAR_DEPTH * LINEAR_DEPTH;
    for (int64_t first = 0, count; first < rows; first += count) {
        count = fd_min(LINEAR_ROWS, rows - first);
        const float *x = job->in.x + (row_begin + first) * stride;
        for (int64_t tile = tile_begin, column = 0; tile < tile_end; tile += 2, column += PRODUCT_LANES) {
            struct linear_weights w = linear_weights_from(job->weight, tile), up = linear_weights_from(job->up ? job->up : job->weight, tile);
            const int narrow = job->weight->outputs <= (tile + 1) * FD_LANES;
            if (job->up) linear_product_rows(count, narrow, x, stride, 0, inputs, &up, gated);
            linear_product_rows(count, narrow, x, stride, 0, last, &w, y);
            for (int64_t row = 0, at = first * job->stride + column; row < count; row += PRODUCT_ROWS, at += PRODUCT_ROWS * job->stride) {
                float *sums = y + row * PRODUCT_LANES, *by = gated + row * PRODUCT_LANES;
                linear_fetch(job, PRODUCT_ROWS, at, PRODUCT_LANES);
                linear_product_rows(PRODUCT_ROWS, narrow, x + row * stride, stride, last, inputs, &w, sums);
                for (int64_t p = 0; p < PRODUCT_LANES && tile + p / FD_LANES < tile_end; p += FD_LANES)
                    linear_product_end(job, sums + p, by + p, w.bias ? w.bias + p : NULL, up.bias ? up.bias + p : NULL, at + p,
                                       job->width - column - p);
            }
        }
    }
    return rows;
}

/* Rows [row_begin, row_end) of tiles [tile_begin, tile_end); the first of them is y's first. */
static void linear_tiles(const struct linear_job *job, int64_t row_begin, int64_t row_end, int64_t tile_begin, int64_t tile_end)
{
    struct linear_job rest;
    if (job->weight->format == FD_F32 && (!job->up || job->up->format == FD_F32) && row_end - row_begin >= PRODUCT_ROWS) {
        int64_t done = linear_product(job, row_begin, row_end, tile_begin, tile_end);
        rest = *job;
        rest.y += done * job->stride;
        if (rest.residual) rest.residual += done * job->stride;
        row_begin += done;
        job = &rest;
    }
    struct linear_weights w = linear_weights_from(job->weight, tile_begin), up = linear_weights_from(job->up ? job->up : job->weight, tile_begin);
    for (int64_t tile = tile_begin, column = 0; tile < tile_end; tile++, column += FD_LANES) {
        for (int64_t row = row_begin; row < row_end; row += FD_MANY_ROWS) {
            vf y[FD_MANY_ROWS], gated[FD_MANY_ROWS];
            int64_t rows = fd_min(FD_MANY_ROWS, row_end - row), at = (row - row_begin) * job->stride + column;
            int64_t ahead = row == row_begin ? LINEAR_AHEAD : 0;         /* else it lies in the cache, and costs nothing */
            linear_fetch(job, rows, at, FD_LANES);
            linear_tile(rows, &w, &job->in, row, w.tile + ahead, y);
            if (job->activation)
                for (int64_t r = 0; r < rows; r++) y[r] = activation(job->activation, y[r]);
            if (job->up) {
                linear_tile(rows, &up, &job->in, row, up.tile + ahead, gated);
                for (int64_t r = 0; r < rows; r++) y[r] = vf_mul(y[r], gated[r]);
            }
            linear_write(rows, y, job->residual ? job->residual + at : NULL, job->y + at, job->stride, job->width - column);
        }
        linear_next(&w);
        linear_next(&up);
    }
}

static struct linear_rows linear_rows_of(const struct fd_op *op)
{
    struct linear_rows in = {op->in[0], fd_stride(op->width), op->codes_in, fd_ceil(op->width, FD_BLOCK), fd_ceil(op->width, FD_BLOCK)};
    return in;
}
static int64_t weight_tiles(const struct fd_weight *weight) { return fd_stride(weight->outputs) / FD_LANES; }

static int64_t op_rows(const struct fd_op *op, const struct fd_pass *pass) { return op->read_rows ? pass->reads : pass->rows; }

/* Tasks of all parts in sequence; `up` is no part of its own. */
static int64_t linear_part_tasks(const struct fd_op *op)
{
    int64_t tasks = 0;
    for (int part = 0; part < (op->epilogue == FD_GATED ? 1 : op->parts); part++)
        tasks += fd_ceil(weight_tiles(op->weights[part]), FD_TASK_TILES);
    return tasks;
}
static int64_t op_linear_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    int64_t rows = op_rows(op, pass);
    return linear_part_tasks(op) * (rows > LINEAR_MOST_ROWS ? fd_ceil(rows, LINEAR_ROWS) : 1);
}
/* The part of a task, which then counts within it; *row: its first.  Tasks of all parts are of some rows, then of the next. */
static inline int op_linear_part(const struct fd_op *op, int64_t *task, int64_t *row)
{
    int part = 0, parts = op->epilogue == FD_GATED ? 1 : op->parts;
    *row = 0;
    for (int64_t tasks; *task >= (tasks = fd_ceil(weight_tiles(op->weights[part]), FD_TASK_TILES)); *task -= tasks)
        if (++part == parts) part = 0, *row += LINEAR_ROWS;
    return part;
}

static int op_linear(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t row, rows = op_rows(op, pass);
    int part = op_linear_part(op, &task, &row);
    const struct fd_weight *weight = op->weights[part];
    int64_t stride = fd_stride(weight->outputs), begin = task * FD_TASK_TILES, at = row * stride + begin * FD_LANES;
    struct linear_job job = {weight, op->epilogue == FD_GATED ? op->weights[1] : NULL, linear_rows_of(op), op->activation,
                             op->epilogue == FD_RESIDUAL ? op->in[op->inputs - 1] + at : NULL,
                             op->out[part] + at, stride, stride - begin * FD_LANES};
    linear_tiles(&job, row, rows > LINEAR_MOST_ROWS ? fd_min(row + LINEAR_ROWS, rows) : rows, begin,
                 fd_min(begin + FD_TASK_TILES, weight_tiles(weight)));
    return 1;
}

/* The kernel alone: rows quantised here when the weights are. */
struct linear_call { struct linear_job job; int64_t rows; };

static void linear_range(void *context, int64_t begin, int64_t end)
{
    const struct linear_call *call = context;
    struct linear_job job = call->job;
    job.y += begin * FD_LANES;
    job.width -= begin * FD_LANES;
    linear_tiles(&job, 0, call->rows, begin, end);
}

static int linear(const struct fd_weight *weight, int64_t rows, const float *x, float *y, int threads)
{
    int64_t inputs = weight->inputs, blocks = fd_ceil(inputs, FD_BLOCK);
    struct fd_block *codes = NULL;
    int finite = 1;
    if (!packed_for(FD_LAYOUT, weight)) return FD_OTHER_LAYOUT;
    if (weight->format >= FD_Q8) {
        codes = fd_malloc((size_t)(fd_ceil(rows, FD_GROUP) * blocks) * sizeof *codes + 64);
        if (!codes) return FD_NO_MEMORY;
        for (int64_t row = 0; row < rows; row++) finite &= quantize_row(inputs, x + row * inputs, row, codes);
    }
    struct linear_call call = {{weight, NULL, {x, inputs, codes, blocks, blocks}, 0, NULL, y, weight->outputs, weight->outputs}, rows};
    if (finite) fd_parallel_for(threads, fd_ceil(weight->outputs, FD_LANES), FD_TASK_TILES, linear_range, &call);
    fd_free(codes);
    return finite ? FD_OK : FD_NOT_FINITE;
}
