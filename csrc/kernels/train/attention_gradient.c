/* attention_gradient.c - gradients of attention, in a pass that holds whole sequences: slot s is row s, and its keys are the pass's own.
 *
 * Scores are made again in blocks: 32 rows lie in lanes, queries or keys, and up to 96 of the others are gone through.  A block that
 * nobody sees anything in is skipped.  Every sum over rows or keys is one chain of fused multiply-adds in the order of rows, head
 * after head; who is not seen has the weight 0 in it, which leaves it as it was.  So it matters neither how blocks are cut nor what
 * other sequences are in the pass.
 *
 * What is hidden may hold anything: where a block is seen in part and holds what is not finite, sums go around it, row by row.
 */
#pragma once
#include "../forward/attention.c"
#include "../product.h"

enum {
    SEEN_BLOCK = 96,                    /* whole tiles of 12 and of 6 */
    SEEN_DEPTH = 128,                   /* numbers of a head that lie transposed at a time */
    SEEN_TILE = SEEN_BLOCK * PRODUCT_LANES
};
enum seen { SEEN_NONE, SEEN_ALL, SEEN_RUNS, SEEN_MARKS };      /* of a block: nobody sees anything, all see all, each a run of it, or else */

struct seen_side { const float *at; int64_t stride; };  /* rows of one head */
struct seen_dots {                      /* products of rows of a block and rows in lanes, of one head */
    struct seen_side rows, lanes;       /* from row 0 on; from the first in lanes on */
    int held;                           /* the panel holds all of the lanes' rows */
    float panel[SEEN_DEPTH * PRODUCT_LANES];
};
struct seen_block {
    const struct fd_op *op;
    const struct fd_pass *pass;
    int by_query;                       /* queries lie in lanes; else keys */
    int64_t first, lanes, head;         /* rows in lanes: first and how many */
    int64_t at, n;                      /* the same of the block */
    enum seen seen;
    int32_t begin[SEEN_BLOCK], end[SEEN_BLOCK];     /* what each query sees of the keys, where that is a run */
    float log_sum[SEEN_BLOCK], mean[SEEN_BLOCK];    /* of the queries: see attention_sums */
    int32_t marks[SEEN_TILE];           /* (n, 32) else: -1 where the query sees the key, or 0 */
    float weight[SEEN_TILE], change[SEEN_TILE];     /* (n, 32): products, then the softmax's weights; gradients by weights, then by products */
};

/* How many of the rows [from, to) a query sees, and the run from the first to the last of them; marks them. */
static int64_t seen_by(const struct seen_block *b, int64_t row, int64_t from, int64_t to, int32_t *first, int32_t *last, int32_t *marks,
                       int64_t step)
{
    const struct fd_keys *keys = b->pass->keys + b->op->key_set;
    const int32_t *positions = b->pass->positions;
    int32_t node = keys->nodes[row];
    int64_t count = 0, before = b->op->window ? positions[row] - b->op->window : INT64_MIN, low = to, high = from;
    for (int64_t run = keys->run_offsets[node]; run < keys->run_offsets[node + 1]; run++) {
        int64_t begin = fd_max(keys->runs[2 * run], from), end = fd_min((int64_t)keys->runs[2 * run] + keys->runs[2 * run + 1], to);
        if (begin >= end || positions[end - 1] <= before) continue;          /* positions of a run ascend */
        while (positions[begin] <= before) begin++;
        count += end - begin;
        low = fd_min(low, begin);
        high = fd_max(high, end);
        for (int64_t at = begin; marks && at < end; at++) marks[(at - from) * step] = -1;
    }
    *first = (int32_t)(low - from);
    *last = (int32_t)(high - from);
    return count;
}

/* Rows that any of those in lanes see, or are seen by: [*begin, *end). */
static void seen_range(const struct seen_block *b, int64_t *begin, int64_t *end)
{
    const struct fd_keys *keys = b->pass->keys + b->op->key_set;
    int64_t rows = b->pass->rows;
    int32_t first, last;
    *begin = rows, *end = 0;
    if (b->by_query)
        for (int64_t row = b->first; row < b->first + b->lanes; row++)
            for (int64_t run = keys->run_offsets[keys->nodes[row]]; run < keys->run_offsets[keys->nodes[row] + 1]; run++) {
                *begin = fd_min(*begin, keys->runs[2 * run]);
                *end = fd_max(*end, fd_min((int64_t)keys->runs[2 * run] + keys->runs[2 * run + 1], rows));
            }
    else
        for (int64_t row = 0; row < rows; row++)
            if (seen_by(b, row, b->first, b->first + b->lanes, &first, &last, NULL, 0)) {
                *begin = fd_min(*begin, row);
                *end = row + 1;
            }
}

/* Goes on to the block of rows from `at` on, up to `end`. */
static enum seen seen_next(struct seen_block *b, int64_t at, int64_t end)
{
    b->at = at;
    b->n = fd_min(SEEN_BLOCK, end - at);
    int64_t count = 0, gaps = 0, query = b->by_query ? b->first : at, queries = b->by_query ? b->lanes : b->n;
    int64_t from = b->by_query ? at : b->first, to = from + (b->by_query ? b->n : b->lanes);
    for (int64_t i = 0; i < queries; i++) {
        int64_t one = seen_by(b, query + i, from, to, b->begin + i, b->end + i, NULL, 0);
        count += one;
        gaps += one && one < b->end[i] - b->begin[i];
    }
    b->seen = count == 0 ? SEEN_NONE : count == b->n * b->lanes ? SEEN_ALL : gaps ? SEEN_MARKS : SEEN_RUNS;
    if (b->seen != SEEN_MARKS) return b->seen;
    memset(b->marks, 0, (size_t)b->n * PRODUCT_LANES * sizeof *b->marks);
    int64_t step = b->by_query ? PRODUCT_LANES : 1, row_step = b->by_query ? 1 : PRODUCT_LANES;
    for (int64_t i = 0; i < queries; i++) seen_by(b, query + i, from, to, b->begin + i, b->end + i, b->marks + i * row_step, step);
    return SEEN_MARKS;
}

/* Rows lie apart by all heads: no CPU guesses that they come next. */
static void seen_fetch(struct seen_side side, int64_t first, int64_t n, int64_t depth)
{
    for (int64_t row = first; row < first + n; row++)
        for (int64_t d = 0; d < depth; d += 16) __builtin_prefetch(side.at + row * side.stride + d);
}

/* Rows in lanes, their numbers one below the other: (depth, 32), zeros in lanes without a row.  Four by four, as stores go. */
static void seen_transpose(const float *rows, int64_t stride, int64_t lanes, int64_t depth, float *panel)
{
    for (int64_t lane = 0; lane < PRODUCT_LANES; lane += 4) {
        static const float none[SEEN_DEPTH];
        const float *row[4];
        for (int64_t i = 0; i < 4; i++) row[i] = lane + i < lanes ? rows + (lane + i) * stride : none;
        for (int64_t k = 0; k < depth; k++) {
            float *to = panel + k * PRODUCT_LANES + lane;
            to[0] = row[0][k], to[1] = row[1][k], to[2] = row[2][k], to[3] = row[3][k];
        }
    }
}

/* found (n, 32): each row of the block times each in lanes, summed along the head. */
static void seen_products(const struct seen_block *b, struct seen_dots *dots, float *found)
{
    for (int64_t d = 0, depth = b->op->head_dim; d < depth; d += SEEN_DEPTH) {
        int64_t n = fd_min(SEEN_DEPTH, depth - d);
        if (!dots->held) {
            seen_transpose(dots->lanes.at + d, dots->lanes.stride, b->lanes, n, dots->panel);
            dots->held = depth <= SEEN_DEPTH;
        }
        struct product_a rows = {dots->rows.at + b->at * dots->rows.stride + d, dots->rows.stride, 1};
        product(b->n, d ? PRODUCT_GO_ON : PRODUCT_NEW, n, rows, (struct product_b){dots->panel, FD_LANES, PRODUCT_LANES},
                (struct product_c){found, PRODUCT_LANES, FD_LANES});
    }
}

static void seen_dots_begin(const struct seen_block *b, struct seen_dots *dots, struct seen_side rows, struct seen_side lanes)
{
    dots->rows = rows;
    dots->lanes = lanes;
    dots->held = 0;
    seen_fetch(lanes, 0, b->lanes, b->op->head_dim);
}

/* The score of 16 products: scaled, capped and sloped; the cap's slope there times the scale. */
FD_INLINE vf seen_score(const int by_query, const int bent, const struct seen_block *b, vf products, int64_t j, int64_t lane, vf *bend)
{
    const struct fd_op *op = b->op;
    vf s = vf_mul(products, vf_set1(op->scalar));
    *bend = vf_set1(op->scalar);
    if (!bent) return s;
    if (op->softcap > 0.0f) {
        s = soft_capped(s, op->softcap);
        vf share = vf_div(s, vf_set1(op->softcap));
        *bend = vf_mul(vf_fnma(share, share, vf_set1(1.0f)), *bend);
    }
    if (op->vectors) {
        int32_t positions[FD_LANES] = {0};
        for (int64_t i = 0; i < fd_min(FD_LANES, b->lanes - lane); i++) positions[i] = b->pass->positions[b->first + lane + i];
        vi own = vi_set1(b->pass->positions[b->at + j]), lanes = vi_load(positions);
        vi distance = by_query ? vi_sub(own, lanes) : vi_sub(lanes, own);
        s = vf_fma(vf_set1(op->vectors[0][b->head]), vf_from_int(distance), s);
    }
    return s;
}

static inline vm seen_inside(vi x, vi begin, vi end) { return vi_less(vi_select(vi_less(x, begin), vi_set1(INT32_MAX), x), end); }
static inline vm seen_mask(const int by_query, const struct seen_block *b, int64_t j, int64_t lane)
{
    if (b->seen == SEEN_MARKS) return vi_less(vi_load(b->marks + j * PRODUCT_LANES + lane), vi_set1(0));
    if (by_query) return seen_inside(vi_set1((int32_t)j), vi_load(b->begin + lane), vi_load(b->end + lane));
    return seen_inside(vi_add(vi_iota(), vi_set1((int32_t)lane)), vi_set1(b->begin[j]), vi_set1(b->end[j]));
}
FD_INLINE vf seen_or(const int by_query, const struct seen_block *b, int64_t j, int64_t lane, vf x, float hidden)
{
    return b->seen == SEEN_ALL ? x : vf_select(seen_mask(by_query, b, j, lane), x, vf_set1(hidden));
}
static int seen_one(const struct seen_block *b, int64_t j, int64_t lane)
{
    int64_t query = b->by_query ? lane : j, key = b->by_query ? j : lane;
    return b->seen == SEEN_MARKS ? b->marks[j * PRODUCT_LANES + lane] : key >= b->begin[query] && key < b->end[query];
}

/* The softmax's weights, and gradients by products. */
FD_INLINE void seen_weigh(const int by_query, const int bent, struct seen_block *b)
{
    for (int64_t j = 0; j < b->n; j++)
        for (int64_t lane = 0; lane < PRODUCT_LANES; lane += FD_LANES) {
            float *weight = b->weight + j * PRODUCT_LANES + lane, *change = b->change + j * PRODUCT_LANES + lane;
            vf log_sum = by_query ? vf_load(b->log_sum + lane) : vf_set1(b->log_sum[j]);
            vf mean = by_query ? vf_load(b->mean + lane) : vf_set1(b->mean[j]);
            vf bend, unused, s = vf_sub(seen_score(by_query, bent, b, vf_load(weight), j, lane, &bend), log_sum);
            vf w = vf_exp_negative(seen_or(by_query, b, j, lane, s, -INFINITY), &unused);
            vf by_product = vf_mul(vf_mul(w, vf_sub(vf_load(change), mean)), bend);
            vf_store(weight, w);
            vf_store(change, seen_or(by_query, b, j, lane, by_product, 0.0f));
        }
}
static int seen_bent(const struct fd_op *op) { return op->softcap > 0.0f || op->vectors; }

static int seen_finite(const float *x, int64_t stride, int64_t n, int64_t depth)
{
    vi largest = vi_set1(0);
    for (int64_t row = 0; row < n; row++)
        for (int64_t d = 0; d < depth; d += 16)
            largest = vi_max(largest, vi_of_bits(vf_abs(vf_load_part(x + row * stride + d, depth - d, 0.0f))));
    return vi_largest(largest) < 0x7f800000;
}

struct seen_sum {                       /* of rows of a block, one for each row in lanes */
    float *out;                         /* (lanes, head_dim) at a stride */
    int64_t stride;
    float rest[PRODUCT_LANES * PRODUCT_LANES];      /* its last columns, where they fill no panel */
};

static void seen_sum_begin(const struct seen_block *b, struct seen_sum *sum, float *out, int64_t stride)
{
    sum->out = out;
    sum->stride = stride;
    for (int64_t lane = 0; lane < b->lanes; lane++) memset(sum->out + lane * sum->stride, 0, (size_t)b->op->head_dim * sizeof *sum->out);
    memset(sum->rest, 0, sizeof sum->rest);
}

/* sum += weights^T (lanes, n) times x (n, head_dim), the block's rows of it. */
static void seen_add(const struct seen_block *b, const float *weights, struct seen_side side, struct seen_sum *sum)
{
    float part[SEEN_TILE];
    const float *x = side.at + b->at * side.stride;
    int64_t depth = b->op->head_dim, stride = side.stride;
    int around = b->seen != SEEN_ALL && !seen_finite(x, stride, b->n, depth);
    for (int64_t d = 0; d < depth; d += PRODUCT_LANES) {
        struct product_b rows = {x + d, FD_LANES, stride};
        struct product_c to = {sum->out + d, sum->stride, FD_LANES};
        if (d + PRODUCT_LANES > depth) {
            memset(part, 0, sizeof part);
            for (int64_t j = 0; j < b->n; j++) memcpy(part + j * PRODUCT_LANES, x + j * stride + d, (size_t)(depth - d) * sizeof *part);
            rows = (struct product_b){part, FD_LANES, PRODUCT_LANES};
            to = (struct product_c){sum->rest, PRODUCT_LANES, FD_LANES};
        }
        if (!around) {
            product(b->lanes, PRODUCT_GO_ON, b->n, (struct product_a){weights, 1, PRODUCT_LANES}, rows, to);
            continue;
        }
        for (int64_t lane = 0; lane < b->lanes; lane++)
            for (int64_t j = 0; j < b->n; j++)
                if (seen_one(b, j, lane))
                    product(1, PRODUCT_GO_ON, 1, (struct product_a){weights + j * PRODUCT_LANES + lane, 0, 0},
                            (struct product_b){rows.at + j * rows.step, FD_LANES, 0},
                            (struct product_c){to.at + lane * to.row, 0, FD_LANES});
    }
}

/* The last columns to their place. */
static void seen_finish(const struct seen_block *b, struct seen_sum *sum)
{
    int64_t rest = b->op->head_dim % PRODUCT_LANES;
    for (int64_t lane = 0; lane < b->lanes && rest; lane++)
        memcpy(sum->out + lane * sum->stride + b->op->head_dim - rest, sum->rest + lane * PRODUCT_LANES, (size_t)rest * sizeof *sum->rest);
}

/* Zeros behind the last column: some one task writes them. */
static void seen_pad(const struct seen_block *b, float *rows, int64_t width)
{
    for (int64_t row = b->first; row < b->first + b->lanes; row++)
        for (int64_t k = width; k < fd_stride(width); k++) rows[row * fd_stride(width) + k] = 0.0f;
}

static void seen_of_queries(struct seen_block *b, int64_t query, int64_t n)
{
    int64_t heads = b->op->heads, stride = fd_stride(2 * heads);
    for (int64_t i = 0; i < n; i++) {
        const float *sums = b->op->in[4] + (query + i) * stride + b->head;
        b->log_sum[i] = sums[0];
        b->mean[i] = sums[heads];
    }
}

static int64_t op_attention_query_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return op->heads * fd_ceil(pass->rows, PRODUCT_LANES);
}
static void seen_begin(struct seen_block *b, const struct fd_op *op, const struct fd_pass *pass, int by_query, int64_t tile, int64_t head)
{
    b->op = op;
    b->pass = pass;
    b->by_query = by_query;
    b->first = tile * PRODUCT_LANES;
    b->lanes = fd_min(PRODUCT_LANES, pass->rows - b->first);
    b->head = head;
    memset(b->begin, 0, sizeof b->begin);               /* lanes that hold no row see nothing */
    memset(b->end, 0, sizeof b->end);
    memset(b->log_sum, 0, sizeof b->log_sum);
    memset(b->mean, 0, sizeof b->mean);
}

/* Peak and sum go on key by key: e = exp(-|s - peak|) is what the smaller of both counts beside the other. */
FD_INLINE void seen_sum_up(const int bent, const struct seen_block *b, float *peaks, float *masses)
{
    for (int64_t lane = 0; lane < PRODUCT_LANES; lane += FD_LANES) {
        vf peak = vf_load(peaks + lane), mass = vf_load(masses + lane), one = vf_set1(1.0f), unused;
        for (int64_t j = 0; j < b->n; j++) {
            vf s = seen_score(1, bent, b, vf_load(b->weight + j * PRODUCT_LANES + lane), j, lane, &unused);
            s = seen_or(1, b, j, lane, s, -INFINITY);
            vf e = vf_exp_negative(vf_sub(vf_zero(), vf_abs(vf_sub(s, peak))), &unused);
            vm more = vf_less(peak, s);
            mass = vf_fma(mass, vf_select(more, e, one), vf_select(more, one, e));
            peak = vf_select(more, s, peak);
        }
        vf_store(peaks + lane, peak);
        vf_store(masses + lane, mass);
    }
}

static int op_attention_sums(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    struct seen_block b;
    seen_begin(&b, op, pass, 1, task / op->heads, task % op->heads);
    int64_t dim = op->head_dim, width = op->heads * dim, begin, end;
    int64_t own = b.first * fd_stride(width) + b.head * dim, kv = b.head / (op->heads / op->kv_heads) * dim;
    struct seen_dots dots;
    seen_dots_begin(&b, &dots, (struct seen_side){op->in[1] + kv, fd_stride(op->kv_heads * dim)},
                    (struct seen_side){op->in[0] + own, fd_stride(width)});
    float peaks[PRODUCT_LANES], masses[PRODUCT_LANES], *out = op->out[0] + b.first * fd_stride(2 * op->heads) + b.head;
    for (int lane = 0; lane < PRODUCT_LANES; lane++) peaks[lane] = -FLT_MAX, masses[lane] = 0.0f;
    seen_range(&b, &begin, &end);
    for (int64_t at = begin; at < end; at += SEEN_BLOCK) {
        if (seen_next(&b, at, end) == SEEN_NONE) continue;
        seen_products(&b, &dots, b.weight);
        if (seen_bent(op)) seen_sum_up(1, &b, peaks, masses);
        else seen_sum_up(0, &b, peaks, masses);
    }
    for (int64_t lane = 0; lane < b.lanes; lane++) {
        const float *y = op->in[2] + own + lane * fd_stride(width), *dy = op->in[3] + own + lane * fd_stride(width);
        vf mean = vf_zero();
        for (int64_t d = 0; d < dim; d += 16) mean = vf_fma(vf_load_part(y + d, dim - d, 0.0f), vf_load_part(dy + d, dim - d, 0.0f), mean);
        float mass = masses[lane];
        out[lane * fd_stride(2 * op->heads)] = peaks[lane] + (mass == mass ? fd_log(mass) : mass);
        out[lane * fd_stride(2 * op->heads) + op->heads] = vf_sum(mean);
    }
    if (b.head == op->heads - 1) seen_pad(&b, op->out[0], 2 * op->heads);
    return 1;
}

static int op_attention_query_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    struct seen_block b;
    seen_begin(&b, op, pass, 1, task / op->heads, task % op->heads);
    int64_t dim = op->head_dim, width = op->heads * dim, stride = fd_stride(op->kv_heads * dim), begin, end;
    int64_t own = b.first * fd_stride(width) + b.head * dim, kv = b.head / (op->heads / op->kv_heads) * dim;
    struct seen_dots scores, changes;
    struct seen_sum sum;
    seen_dots_begin(&b, &scores, (struct seen_side){op->in[1] + kv, stride}, (struct seen_side){op->in[0] + own, fd_stride(width)});
    seen_dots_begin(&b, &changes, (struct seen_side){op->in[2] + kv, stride}, (struct seen_side){op->in[3] + own, fd_stride(width)});
    seen_sum_begin(&b, &sum, op->out[0] + own, fd_stride(width));
    seen_of_queries(&b, b.first, b.lanes);
    seen_range(&b, &begin, &end);
    for (int64_t at = begin; at < end; at += SEEN_BLOCK) {
        if (seen_next(&b, at, end) == SEEN_NONE) continue;
        seen_fetch(scores.rows, at, b.n, dim);
        seen_fetch(changes.rows, at, b.n, dim);
        seen_products(&b, &scores, b.weight);
        seen_products(&b, &changes, b.change);
        if (seen_bent(op)) seen_weigh(1, 1, &b);
        else seen_weigh(1, 0, &b);
        seen_add(&b, b.change, scores.rows, &sum);
    }
    seen_finish(&b, &sum);
    if (b.head == op->heads - 1) seen_pad(&b, op->out[0], width);
    return 1;
}

static int64_t op_attention_key_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return op->kv_heads * fd_ceil(pass->rows, PRODUCT_LANES);
}
static int op_attention_key_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    struct seen_block b;
    int64_t kv_head = task % op->kv_heads, group = op->heads / op->kv_heads, dim = op->head_dim, begin, end;
    seen_begin(&b, op, pass, 0, task / op->kv_heads, kv_head * group);
    int64_t width = op->kv_heads * dim, stride = fd_stride(op->heads * dim), own = b.first * fd_stride(width) + kv_head * dim;
    struct seen_dots scores, changes;
    struct seen_sum keys, values;
    seen_dots_begin(&b, &scores, (struct seen_side){op->in[0], stride}, (struct seen_side){op->in[1] + own, fd_stride(width)});
    seen_dots_begin(&b, &changes, (struct seen_side){op->in[3], stride}, (struct seen_side){op->in[2] + own, fd_stride(width)});
    seen_sum_begin(&b, &keys, op->out[0] + b.first * fd_stride(2 * width) + kv_head * dim, fd_stride(2 * width));
    seen_sum_begin(&b, &values, keys.out + width, keys.stride);
    seen_range(&b, &begin, &end);
    for (; b.head < (kv_head + 1) * group; b.head++) {
        scores.rows.at = op->in[0] + b.head * dim;
        changes.rows.at = op->in[3] + b.head * dim;
        for (int64_t at = begin; at < end; at += SEEN_BLOCK) {
            if (seen_next(&b, at, end) == SEEN_NONE) continue;
            seen_of_queries(&b, at, b.n);
            seen_fetch(scores.rows, at, b.n, dim);
            seen_fetch(changes.rows, at, b.n, dim);
            seen_products(&b, &scores, b.weight);
            seen_products(&b, &changes, b.change);
            if (seen_bent(op)) seen_weigh(0, 1, &b);
            else seen_weigh(0, 0, &b);
            seen_add(&b, b.change, scores.rows, &keys);
            seen_add(&b, b.weight, changes.rows, &values);
        }
    }
    seen_finish(&b, &keys);
    seen_finish(&b, &values);
    if (kv_head == op->kv_heads - 1) seen_pad(&b, op->out[0], 2 * width);
    return 1;
}

static int op_columns(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->columns);
    float *out = op->out[0] + row * stride;
    memcpy(out, op->in[0] + row * fd_stride(op->width) + op->first, (size_t)op->columns * sizeof *out);
    for (int64_t k = op->columns; k < stride; k++) out[k] = 0.0f;
    return 1;
}
