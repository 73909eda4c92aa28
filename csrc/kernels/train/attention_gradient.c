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
struct seen_sum { float *at; int64_t stride; };
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

/* Rows that the row's node sees, as far as they are the pass's: [*begin, *end) from the first to the last of them. */
static void seen_reach(const struct fd_op *op, const struct fd_pass *pass, int64_t row, int64_t *begin, int64_t *end)
{
    const struct fd_keys *keys = pass->keys + op->key_set;
    *begin = pass->rows, *end = 0;
    for (int64_t run = keys->run_offsets[keys->nodes[row]]; run < keys->run_offsets[keys->nodes[row] + 1]; run++) {
        *begin = fd_min(*begin, keys->runs[2 * run]);
        *end = fd_max(*end, fd_min((int64_t)keys->runs[2 * run] + keys->runs[2 * run + 1], pass->rows));
    }
}

/* How many pieces the pass falls into, such that nobody in one sees into another; and the rows of one of them: [*begin, *end).  Where
 * rows that see each other lie among others, all is one piece. */
static int64_t seen_pieces(const struct fd_op *op, const struct fd_pass *pass, int64_t piece, int64_t *begin, int64_t *end)
{
    int64_t pieces = 0, first = 0, closed = 0, from, to;
    *begin = 0, *end = pass->rows;
    for (int64_t row = 0; row < pass->rows; row++) {
        seen_reach(op, pass, row, &from, &to);
        if (row == closed && from >= row) {
            if (pieces == piece) *begin = row;
            if (pieces == piece + 1) *end = row;
            pieces++;
            first = row;
        }
        if (from < first) {
            *begin = 0, *end = pass->rows;
            return 1;
        }
        closed = fd_max(closed, fd_max(row + 1, to));
    }
    return pieces;
}

/* Of rows [*begin, *end) those from the first to the last that see any in lanes. */
static void seen_narrow(const struct seen_block *b, int64_t *begin, int64_t *end)
{
    int32_t first, last;
    int64_t from = b->first, to = b->first + b->lanes;
    while (*begin < *end && !seen_by(b, *begin, from, to, &first, &last, NULL, 0)) ++*begin;
    while (*begin < *end && !seen_by(b, *end - 1, from, to, &first, &last, NULL, 0)) --*end;
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

/* Rows in lanes, their numbers one below the other: (depth, 32), zeros in lanes without a row. */
static void seen_transpose(const float *rows, int64_t stride, int64_t lanes, int64_t depth, float *panel)
{
    for (int64_t lane = 0; lane < PRODUCT_LANES; lane += FD_LANES)
        for (int64_t k = 0; k < depth; k += FD_LANES) {
            vf x[FD_LANES];
            for (int64_t i = 0; i < FD_LANES; i++)
                x[i] = lane + i < lanes ? vf_load_part(rows + (lane + i) * stride + k, depth - k, 0.0f) : vf_zero();
            vf_transpose(x);
            for (int64_t i = 0; i < fd_min(FD_LANES, depth - k); i++) vf_store(panel + (k + i) * PRODUCT_LANES + lane, x[i]);
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
FD_INLINE void seen_weigh(const int bent, struct seen_block *b)
{
    for (int64_t j = 0; j < b->n; j++)
        for (int64_t lane = 0; lane < PRODUCT_LANES; lane += FD_LANES) {
            float *weight = b->weight + j * PRODUCT_LANES + lane, *change = b->change + j * PRODUCT_LANES + lane;
            vf log_sum = vf_set1(b->log_sum[j]);
            vf mean = vf_set1(b->mean[j]);
            vf bend, unused, s = vf_sub(seen_score(0, bent, b, vf_load(weight), j, lane, &bend), log_sum);
            vf w = vf_exp_negative(seen_or(0, b, j, lane, s, -INFINITY), &unused);
            vf by_product = vf_mul(vf_mul(w, vf_sub(vf_load(change), mean)), bend);
            vf_store(weight, w);
            vf_store(change, seen_or(0, b, j, lane, by_product, 0.0f));
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

static void seen_copy(int64_t rows, int64_t n, const float *from, int64_t from_stride, float *to, int64_t to_stride)
{
    for (int64_t row = 0; row < rows; row++) memcpy(to + row * to_stride, from + row * from_stride, (size_t)n * sizeof *to);
}

enum seen_way { SEEN_DOWN, SEEN_ACROSS };        /* sums over the block's rows, one for each in lanes; or over lanes, one for each row */

/* out += weights (n, 32), or what they are transposed, times x, rows of head_dim. */
static void seen_add(const struct seen_block *b, enum seen_way way, const float *weights, struct seen_side x, struct seen_sum out)
{
    float part[SEEN_TILE], rest[SEEN_TILE];             /* the last columns, where they fill no panel */
    int64_t depth = b->op->head_dim, outs = way == SEEN_DOWN ? b->lanes : b->n, terms = way == SEEN_DOWN ? b->n : b->lanes;
    struct product_a a = {weights, 1, PRODUCT_LANES};
    if (way == SEEN_ACROSS) a = (struct product_a){weights, PRODUCT_LANES, 1};
    int around = b->seen != SEEN_ALL && !seen_finite(x.at, x.stride, terms, depth);
    for (int64_t d = 0; d < depth; d += PRODUCT_LANES) {
        struct product_b rows = {x.at + d, FD_LANES, x.stride};
        struct product_c to = {out.at + d, out.stride, FD_LANES};
        int64_t left = depth - d;
        if (left < PRODUCT_LANES) {
            rows = (struct product_b){part, FD_LANES, PRODUCT_LANES};
            to = (struct product_c){rest, PRODUCT_LANES, FD_LANES};
            memset(part, 0, sizeof part);
            memset(rest, 0, sizeof rest);
            seen_copy(terms, left, x.at + d, x.stride, part, PRODUCT_LANES);
            seen_copy(outs, left, out.at + d, out.stride, rest, PRODUCT_LANES);
        }
        if (!around) product(outs, PRODUCT_GO_ON, terms, a, rows, to);
        else
            for (int64_t i = 0; i < outs; i++)
                for (int64_t j = 0; j < terms; j++)
                    if (way == SEEN_DOWN ? seen_one(b, j, i) : seen_one(b, i, j))
                        product(1, PRODUCT_GO_ON, 1, (struct product_a){weights + i * a.row + j * a.step, 0, 0},
                                (struct product_b){rows.at + j * rows.step, FD_LANES, 0}, (struct product_c){to.at + i * to.row, 0, FD_LANES});
        if (left < PRODUCT_LANES) seen_copy(outs, left, rest, PRODUCT_LANES, out.at + d, out.stride);
    }
}

/* Zeros behind the last column: some one task writes them. */
static void seen_pad(int64_t first, int64_t end, float *rows, int64_t width)
{
    for (int64_t row = first; row < end; row++)
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

static int64_t op_attention_sums_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return op->heads * fd_ceil(pass->rows, PRODUCT_LANES);
}
static void seen_begin(struct seen_block *b, const struct fd_op *op, const struct fd_pass *pass, int by_query, int64_t first, int64_t end, int64_t head)
{
    b->op = op;
    b->pass = pass;
    b->by_query = by_query;
    b->first = first;
    b->lanes = fd_min(PRODUCT_LANES, end - first);
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
    seen_begin(&b, op, pass, 1, task / op->heads * PRODUCT_LANES, pass->rows, task % op->heads);
    int64_t dim = op->head_dim, width = op->heads * dim;
    int64_t own = b.first * fd_stride(width) + b.head * dim, kv = b.head / (op->heads / op->kv_heads) * dim;
    struct seen_dots dots;
    seen_dots_begin(&b, &dots, (struct seen_side){op->in[1] + kv, fd_stride(op->kv_heads * dim)},
                    (struct seen_side){op->in[0] + own, fd_stride(width)});
    float peaks[PRODUCT_LANES], masses[PRODUCT_LANES], *out = op->out[0] + b.first * fd_stride(2 * op->heads) + b.head;
    for (int lane = 0; lane < PRODUCT_LANES; lane++) peaks[lane] = -FLT_MAX, masses[lane] = 0.0f;
    for (int of = 2; of < 4; of++) seen_fetch((struct seen_side){op->in[of] + own, fd_stride(width)}, 0, b.lanes, dim);
    int64_t begin = pass->rows, end = 0;
    for (int64_t row = b.first; row < b.first + b.lanes; row++) {
        int64_t from, to;
        seen_reach(op, pass, row, &from, &to);
        begin = fd_min(begin, from);
        end = fd_max(end, to);
    }
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
    if (b.head == op->heads - 1) seen_pad(b.first, b.first + b.lanes, op->out[0], 2 * op->heads);
    return 1;
}

static int64_t op_attention_gradient_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    int64_t begin, end;
    return op->heads * seen_pieces(op, pass, 0, &begin, &end);
}
static int op_attention_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    struct seen_block b;
    int64_t head = task % op->heads, dim = op->head_dim, width = op->heads * dim, kv = head / (op->heads / op->kv_heads) * dim, begin, end;
    int64_t stride = fd_stride(width), kv_stride = fd_stride(op->kv_heads * dim), out_stride = fd_stride(3 * width);
    float *out = op->out[0] + head * dim;               /* by queries, width on by keys, and by values */
    seen_pieces(op, pass, task / op->heads, &begin, &end);
    for (int64_t row = begin; row < end; row++)
        for (int64_t of = 0; of < 3; of++) memset(out + row * out_stride + of * width, 0, (size_t)dim * sizeof *out);
    for (int64_t first = begin; first < end; first += PRODUCT_LANES) {
        int64_t from = begin, to = end;
        seen_begin(&b, op, pass, 0, first, end, head);
        struct seen_dots scores, changes;
        struct seen_side keys = {op->in[1] + kv + first * kv_stride, kv_stride}, values = {op->in[2] + kv + first * kv_stride, kv_stride};
        seen_dots_begin(&b, &scores, (struct seen_side){op->in[0] + head * dim, stride}, keys);
        seen_dots_begin(&b, &changes, (struct seen_side){op->in[3] + head * dim, stride}, values);
        for (seen_narrow(&b, &from, &to); from < to; from += SEEN_BLOCK) {
            if (seen_next(&b, from, to) == SEEN_NONE) continue;
            struct seen_side queries = {scores.rows.at + from * stride, stride}, outer = {changes.rows.at + from * stride, stride};
            float *by_keys = out + first * out_stride + width;
            seen_of_queries(&b, from, b.n);
            seen_fetch(queries, 0, b.n, dim);
            seen_fetch(outer, 0, b.n, dim);
            seen_products(&b, &scores, b.weight);
            seen_products(&b, &changes, b.change);
            if (seen_bent(op)) seen_weigh(1, &b);
            else seen_weigh(0, &b);
            seen_add(&b, SEEN_DOWN, b.change, queries, (struct seen_sum){by_keys, out_stride});
            seen_add(&b, SEEN_DOWN, b.weight, outer, (struct seen_sum){by_keys + width, out_stride});
            seen_add(&b, SEEN_ACROSS, b.change, keys, (struct seen_sum){out + from * out_stride, out_stride});
        }
    }
    if (head == op->heads - 1) seen_pad(begin, end, op->out[0], 3 * width);
    return 1;
}

/* Where `heads` are given, each so many heads of in[0] after one another are summed up to one. */
static int op_columns(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->columns), heads = fd_max(op->heads, 1), dim = op->heads ? op->head_dim : op->columns;
    float *out = op->out[0] + row * stride;
    const float *in = op->in[0] + row * fd_stride(op->width) + op->first;
    for (int64_t k = 0; k < op->columns; k += dim, in += heads * dim)
        for (int64_t d = 0; d < dim; d += FD_LANES) {
            vf sum = vf_load_part(in + d, dim - d, 0.0f);
            for (int64_t head = 1; head < heads; head++) sum = vf_add(sum, vf_load_part(in + head * dim + d, dim - d, 0.0f));
            vf_store_part(out + k + d, dim - d, sum);
        }
    for (int64_t k = op->columns; k < stride; k++) out[k] = 0.0f;
    return 1;
}
