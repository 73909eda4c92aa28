/* linear.c - rows times packed weights, every output summed in one order whatever else is computed beside it.
 *
 * f32, f16, bf16:  sum <- fma(w[k], x[k], sum), k ascending.
 * q8:              sum <- fma(block total, w_scale x_scale, sum), blocks ascending; block totals are exact integers.
 * q4:              the same, then sum <- fma(w_minimum, x_sum, sum): x_sum = x_scale * the sum of x's codes.
 *
 * While a tile is multiplied the next one is fetched, line by line at the same place: a core's own prefetchers stop at the end
 * of a page, and at few rows it must not wait for memory.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "linear_tile.h"
#include "packed.h"
#include "quantize_rows.c"

FD_INLINE void linear_tile_rows(const int rows, const struct fd_weight *weight, const struct linear_rows *in, int64_t row,
                                const char *packed, const char *ahead, vf *y)
{
    switch (weight->format) {
    case FD_F32: linear_tile_float(rows, FD_F32, in, row, packed, ahead, weight->inputs, y); break;
    case FD_F16: linear_tile_float(rows, FD_F16, in, row, packed, ahead, weight->inputs, y); break;
    case FD_BF16: linear_tile_float(rows, FD_BF16, in, row, packed, ahead, weight->inputs, y); break;
    case FD_Q8: linear_tile_q8(rows, in, row, packed, ahead, y); break;
    default: linear_tile_q4(rows, in, row, packed, ahead, y);
    }
}

static void linear_few(int64_t rows, const struct fd_weight *weight, const struct linear_rows *in, int64_t row, const char *packed,
                       const char *ahead, vf *y)
{
    switch (rows) {
    case 1: linear_tile_rows(1, weight, in, row, packed, ahead, y); break;
    case 2: linear_tile_rows(2, weight, in, row, packed, ahead, y); break;
    case 3: linear_tile_rows(3, weight, in, row, packed, ahead, y); break;
    case 4: linear_tile_rows(4, weight, in, row, packed, ahead, y); break;
#if FD_ROW_TILE > 4
    case 5: linear_tile_rows(5, weight, in, row, packed, ahead, y); break;
    case 6: linear_tile_rows(6, weight, in, row, packed, ahead, y); break;
    case 7: linear_tile_rows(7, weight, in, row, packed, ahead, y); break;
    case 8: linear_tile_rows(8, weight, in, row, packed, ahead, y); break;
#endif
    }
}

/* y[r] = 16 outputs of rows row .. row + rows, rows <= FD_MANY_ROWS; tile `next` is fetched meanwhile. */
static void linear_tile(int64_t rows, const struct fd_weight *weight, const struct linear_rows *in, int64_t row, int64_t tile,
                        int64_t next, vf *y)
{
    const char *packed = packed_tile(weight, tile), *ahead = packed_tile(weight, next);
    if (FD_MANY_ROWS > FD_ROW_TILE && rows == FD_MANY_ROWS && weight->format >= FD_Q8) linear_many(weight, in, row, packed, y);
    else for (int64_t r = 0; r < rows; r += FD_ROW_TILE, ahead = packed)
        linear_few(fd_min(FD_ROW_TILE, rows - r), weight, in, row + r, packed, ahead, y + r);
    if (!weight->bias) return;
    vf bias = vf_load(weight->bias + tile * FD_LANES);
    for (int64_t r = 0; r < rows; r++) y[r] = vf_add(y[r], bias);
}

/* What one call makes of its rows: y = linear, silu(linear) * linear of `up`, or residual + linear. */
struct linear_job {
    const struct fd_weight *weight, *up;                 /* up: NULL, or of the same shape */
    struct linear_rows in;
    const float *residual;                               /* NULL, or with y's stride */
    float *y;
    int64_t stride, width;                               /* y from row to row; floats that may be written in each */
};

static vf silu(vf x)                     /* x / (1 + e^-x) */
{
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

/* Rows [row_begin, row_end) of tiles [tile_begin, tile_end); the first of them is y's first. */
static void linear_tiles(const struct linear_job *job, int64_t row_begin, int64_t row_end, int64_t tile_begin, int64_t tile_end)
{
    for (int64_t tile = tile_begin; tile < tile_end; tile++)
        for (int64_t row = row_begin; row < row_end; row += FD_MANY_ROWS) {
            vf y[FD_MANY_ROWS], up[FD_MANY_ROWS];
            int64_t rows = fd_min(FD_MANY_ROWS, row_end - row), column = (tile - tile_begin) * FD_LANES;
            int64_t next = row == row_begin ? tile + 1 : tile;           /* once a tile: what is in the cache costs nothing */
            linear_tile(rows, job->weight, &job->in, row, tile, next, y);
            if (job->up) linear_tile(rows, job->up, &job->in, row, tile, next, up);
            for (int64_t r = 0; r < rows; r++) {
                int64_t at = (row - row_begin + r) * job->stride + column;
                if (job->up) y[r] = vf_mul(silu(y[r]), up[r]);
                if (job->residual) y[r] = vf_add(vf_load(job->residual + at), y[r]);
                vf_store_part(job->y + at, job->width - column, y[r]);
            }
        }
}

static struct linear_rows linear_rows_of(const struct fd_op *op)
{
    struct linear_rows in = {op->in[0], fd_stride(op->width), op->codes_in, fd_ceil(op->width, FD_BLOCK)};
    return in;
}
static int64_t weight_tiles(const struct fd_weight *weight) { return fd_stride(weight->outputs) / FD_LANES; }

static int64_t op_rows(const struct fd_op *op, const struct fd_pass *pass) { return op->read_rows ? pass->reads : pass->rows; }

/* Tasks of all parts in sequence; `up` is no part of its own. */
static int64_t op_linear_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    int64_t tasks = 0;
    for (int part = 0; part < (op->epilogue == FD_GATED ? 1 : op->parts); part++)
        tasks += fd_ceil(weight_tiles(op->weights[part]), FD_TASK_TILES);
    return tasks;
}
static int op_linear_part(const struct fd_op *op, int64_t *task)         /* the part of a task, which then counts within it */
{
    int part = 0;
    for (int64_t tasks; *task >= (tasks = fd_ceil(weight_tiles(op->weights[part]), FD_TASK_TILES)); part++) *task -= tasks;
    return part;
}

static int op_linear(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int part = op_linear_part(op, &task);
    const struct fd_weight *weight = op->weights[part];
    int64_t stride = fd_stride(weight->outputs), begin = task * FD_TASK_TILES;
    struct linear_job job = {weight, op->epilogue == FD_GATED ? op->weights[1] : NULL, linear_rows_of(op),
                             op->epilogue == FD_RESIDUAL ? op->in[op->inputs - 1] + begin * FD_LANES : NULL,
                             op->out[part] + begin * FD_LANES, stride, stride - begin * FD_LANES};
    linear_tiles(&job, 0, op_rows(op, pass), begin, fd_min(begin + FD_TASK_TILES, weight_tiles(weight)));
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
    struct linear_call call = {{weight, NULL, {x, inputs, codes, blocks}, NULL, y, weight->outputs, weight->outputs}, rows};
    if (finite) fd_parallel_for(threads, fd_ceil(weight->outputs, FD_LANES), FD_TASK_TILES, linear_range, &call);
    free(codes);
    return finite ? FD_OK : FD_NOT_FINITE;
}
