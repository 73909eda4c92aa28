/* linear.c - rows times packed weights, every output summed in one order whatever else is computed beside it.
 *
 * f32, f16, bf16:  sum <- fma(w[k], x[k], sum), k ascending.
 * q8:              sum <- fma(block total, w_scale x_scale, sum), blocks ascending; block totals are exact integers.
 * q4:              the same, then sum <- fma(w_minimum, x_sum, sum): x_sum = x_scale * the sum of x's codes.
 *
 * A register tile is 16 outputs x up to FD_ROW_TILE rows; `rows` is a constant in each copy, so the arrays below are registers.
 */
#define FD_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define FD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FD_UNROLL _Pragma("GCC unroll 8")
#endif
#define FD_ROWS FD_UNROLL for (int r = 0; r < rows; r++)

struct linear_rows {                     /* the rows that one call multiplies */
    const float *x;                      /* floats, from row to row x_stride; NULL for quantised weights */
    int64_t x_stride;
    struct fd_codes codes;               /* quantised rows, `blocks` a row */
    int64_t blocks;
};

FD_INLINE void linear_tile_q4(const int rows, const struct linear_rows *in, int64_t row, const char *tile, vf *y)
{
    vf sum[8];
    const int8_t *x = in->codes.codes + row * in->blocks * FD_BLOCK;
    const float *scale = in->codes.scale + row * in->blocks, *sums = in->codes.sum + row * in->blocks;
    FD_ROWS sum[r] = vf_zero();
    for (int64_t b = 0; b < in->blocks; b++, tile += PACKED_Q4, x += FD_BLOCK) {
        vs total[8];
        FD_ROWS total[r] = vs_q4_zero();
        FD_UNROLL
        for (int g = 0; g < 4; g++) {
            vb low, high;
            vb_load_q4((const uint8_t *)tile + g * 64, &low, &high);
            FD_ROWS {
                const int8_t *x4 = x + r * in->blocks * FD_BLOCK + 4 * g;
                total[r] = vs_q4_dot(total[r], low, x4);
                total[r] = vs_q4_dot(total[r], high, x4 + 16);
            }
        }
        vf w_scale = vf_load_f16((const uint16_t *)(const void *)(tile + 256));
        vf w_minimum = vf_load_f16((const uint16_t *)(const void *)(tile + 256) + FD_LANES);
        FD_ROWS {
            vf product = vf_mul(w_scale, vf_set1(scale[r * in->blocks + b]));
            sum[r] = vf_fma(vf_from_int(vs_q4_total(total[r])), product, sum[r]);
            sum[r] = vf_fma(w_minimum, vf_set1(sums[r * in->blocks + b]), sum[r]);
        }
    }
    FD_ROWS y[r] = sum[r];
}

FD_INLINE void linear_tile_q8(const int rows, const struct linear_rows *in, int64_t row, const char *tile, vf *y)
{
    vf sum[8];
    const int8_t *x = in->codes.codes + row * in->blocks * FD_BLOCK;
    const float *scale = in->codes.scale + row * in->blocks;
    const int32_t *totals = in->codes.total + row * in->blocks;
    FD_ROWS sum[r] = vf_zero();
    for (int64_t b = 0; b < in->blocks; b++, tile += PACKED_Q8, x += FD_BLOCK) {
        vi total[8];
        FD_ROWS total[r] = vi_q8_start(totals[r * in->blocks + b]);
        FD_UNROLL
        for (int g = 0; g < 8; g++) {
            vb codes = vb_load_q8((const int8_t *)tile + g * 64);
            FD_ROWS total[r] = vi_q8_dot(total[r], codes, x + r * in->blocks * FD_BLOCK + 4 * g);
        }
        vf w_scale = vf_load_f16((const uint16_t *)(const void *)(tile + 512));
        FD_ROWS {
            vf product = vf_mul(w_scale, vf_set1(scale[r * in->blocks + b]));
            sum[r] = vf_fma(vf_from_int(total[r]), product, sum[r]);
        }
    }
    FD_ROWS y[r] = sum[r];
}

FD_INLINE void linear_tile_float(const int rows, const int format, const struct linear_rows *in, int64_t row, const char *tile,
                                 int64_t inputs, vf *y)
{
    vf sum[8];
    const float *x = in->x + row * in->x_stride;
    FD_ROWS sum[r] = vf_zero();
    for (int64_t k = 0; k < inputs; k++) {
        vf w = format == FD_F32 ? vf_load((const float *)(const void *)tile + k * FD_LANES)
             : format == FD_F16 ? vf_load_f16((const uint16_t *)(const void *)tile + k * FD_LANES)
                                : vf_load_bf16((const uint16_t *)(const void *)tile + k * FD_LANES);
        FD_ROWS sum[r] = vf_fma(w, vf_set1(x[r * in->x_stride + k]), sum[r]);
    }
    FD_ROWS y[r] = sum[r];
}

FD_INLINE void linear_tile_rows(const int rows, const struct fd_weight *weight, const struct linear_rows *in, int64_t row,
                                int64_t tile, vf *y)
{
    const char *packed = packed_tile(weight, tile);
    switch (weight->format) {
    case FD_F32: linear_tile_float(rows, FD_F32, in, row, packed, weight->inputs, y); break;
    case FD_F16: linear_tile_float(rows, FD_F16, in, row, packed, weight->inputs, y); break;
    case FD_BF16: linear_tile_float(rows, FD_BF16, in, row, packed, weight->inputs, y); break;
    case FD_Q8: linear_tile_q8(rows, in, row, packed, y); break;
    default: linear_tile_q4(rows, in, row, packed, y);
    }
    if (weight->bias) {
        vf bias = vf_load(weight->bias + tile * FD_LANES);
        FD_ROWS y[r] = vf_add(y[r], bias);
    }
}

/* y[r] = 16 outputs of rows row .. row + rows, rows <= FD_ROW_TILE. */
static void linear_tile(int64_t rows, const struct fd_weight *weight, const struct linear_rows *in, int64_t row, int64_t tile, vf *y)
{
    switch (rows) {
    case 1: linear_tile_rows(1, weight, in, row, tile, y); break;
    case 2: linear_tile_rows(2, weight, in, row, tile, y); break;
    case 3: linear_tile_rows(3, weight, in, row, tile, y); break;
    case 4: linear_tile_rows(4, weight, in, row, tile, y); break;
#ifdef FD_WIDE_ROW_TILE
    case 5: linear_tile_rows(5, weight, in, row, tile, y); break;
    case 6: linear_tile_rows(6, weight, in, row, tile, y); break;
    case 7: linear_tile_rows(7, weight, in, row, tile, y); break;
    case 8: linear_tile_rows(8, weight, in, row, tile, y); break;
#endif
    }
}

/* Tiles [begin, end) of all rows into y, from row to row y_stride. */
static void linear_tiles(const struct fd_weight *weight, const struct linear_rows *in, int64_t row_begin, int64_t row_end,
                         int64_t begin, int64_t end, float *y, int64_t y_stride)
{
    for (int64_t tile = begin; tile < end; tile++)
        for (int64_t row = row_begin; row < row_end; row += FD_ROW_TILE) {
            vf sum[FD_ROW_TILE];
            int64_t rows = fd_min(FD_ROW_TILE, row_end - row);
            linear_tile(rows, weight, in, row, tile, sum);
            for (int64_t r = 0; r < rows; r++) vf_store(y + (row - row_begin + r) * y_stride + (tile - begin) * FD_LANES, sum[r]);
        }
}

static vf silu(vf x)                     /* x / (1 + e^-x) */
{
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

static struct linear_rows linear_rows_of(const struct fd_op *op)
{
    struct linear_rows in = {op->in1, fd_stride(op->width), op->codes_in, fd_ceil(op->width, FD_BLOCK)};
    return in;
}
static int64_t weight_tiles(const struct fd_weight *weight) { return fd_stride(weight->outputs) / FD_LANES; }

static int64_t op_linear_tasks(const struct fd_op *op)
{
    int64_t tasks = 0;
    for (int part = 0; part < (op->epilogue == FD_GATED ? 1 : op->parts); part++)
        tasks += fd_ceil(weight_tiles(op->weights[part]), FD_TASK_TILES);
    return tasks;
}

static void op_linear(const struct fd_op *op, int64_t row_count, int64_t task)
{
    struct linear_rows in = linear_rows_of(op);
    int part = 0;
    while (task >= fd_ceil(weight_tiles(op->weights[part]), FD_TASK_TILES))
        task -= fd_ceil(weight_tiles(op->weights[part++]), FD_TASK_TILES);
    const struct fd_weight *weight = op->weights[part];
    int64_t stride = fd_stride(weight->outputs);
    int64_t begin = task * FD_TASK_TILES, end = fd_min(begin + FD_TASK_TILES, weight_tiles(weight));
    for (int64_t tile = begin; tile < end; tile++)
        for (int64_t row = 0; row < row_count; row += FD_ROW_TILE) {
            vf y[FD_ROW_TILE], up[FD_ROW_TILE];
            int64_t rows = fd_min(FD_ROW_TILE, row_count - row);
            linear_tile(rows, weight, &in, row, tile, y);
            if (op->epilogue == FD_GATED) linear_tile(rows, op->weights[1], &in, row, tile, up);
            for (int64_t r = 0; r < rows; r++) {
                int64_t at = (row + r) * stride + tile * FD_LANES;
                if (op->epilogue == FD_GATED) y[r] = vf_mul(silu(y[r]), up[r]);
                if (op->epilogue == FD_RESIDUAL) y[r] = vf_add(vf_load(op->in2 + at), y[r]);
                vf_store(op->out[part] + at, y[r]);
            }
        }
}

/* The kernel alone: rows quantised here when the weights are. */
struct linear_job { const struct fd_weight *weight; struct linear_rows in; int64_t rows; float *y; };

static void linear_range(void *context, int64_t begin, int64_t end)
{
    const struct linear_job *job = context;
    int64_t outputs = job->weight->outputs;
    for (int64_t tile = begin; tile < end; tile++)
        for (int64_t row = 0; row < job->rows; row += FD_ROW_TILE) {
            vf y[FD_ROW_TILE];
            int64_t rows = fd_min(FD_ROW_TILE, job->rows - row);
            linear_tile(rows, job->weight, &job->in, row, tile, y);
            for (int64_t r = 0; r < rows; r++)
                vf_store_part(job->y + (row + r) * outputs + tile * FD_LANES, outputs - tile * FD_LANES, y[r]);
        }
}

static int linear(const struct fd_weight *weight, int64_t rows, const float *x, float *y, int threads)
{
    int64_t blocks = fd_ceil(weight->inputs, FD_BLOCK), cells = rows * blocks;
    struct linear_job job = {weight, {x, weight->inputs, {NULL, NULL, NULL, NULL}, blocks}, rows, y};
    int quantised = weight->format >= FD_Q8, status = FD_OK;
    if (quantised) {
        struct fd_codes *codes = &job.in.codes;
        codes->codes = fd_malloc((size_t)(cells * FD_BLOCK) + 64);
        codes->scale = fd_malloc((size_t)cells * 4 + 64);
        codes->sum = fd_malloc((size_t)cells * 4 + 64);
        codes->total = fd_malloc((size_t)cells * 4 + 64);
        if (!codes->codes || !codes->scale || !codes->sum || !codes->total) status = FD_NO_MEMORY;
        else status = quantize_rows(rows, weight->inputs, x, codes->codes, codes->scale, codes->sum, codes->total);
    }
    if (status == FD_OK) fd_parallel_for(threads, fd_ceil(weight->outputs, FD_LANES), FD_TASK_TILES, linear_range, &job);
    if (quantised) {
        free(job.in.codes.codes); free(job.in.codes.scale); free(job.in.codes.sum); free(job.in.codes.total);
    }
    return status;
}
