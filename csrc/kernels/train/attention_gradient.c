/* attention_gradient.c - gradients of attention, in a pass that holds whole sequences: slot s is row s, and its keys are the pass's own.
 *
 * Scores are made again in blocks: 32 queries lie in lanes, and up to 96 keys at a time are gone through, twice: for the sums of
 * softmax, then for gradients.  Of a list of keys that is short enough scores are kept in between.  A block that nobody sees anything in
 * is skipped.  Every sum over rows or keys is one chain of fused multiply-adds in the order of rows; who is not seen has the weight 0
 * in it, which leaves it as it was.  So it matters neither how blocks are cut nor what other sequences are in the pass.
 *
 * A task is a head of pieces of the pass that nobody sees out of: of sequences.
 *
 * What is hidden may hold anything: where a block is seen in part and holds what is not finite, sums go around it, row by row.
 */
#pragma once
#include "../forward/attention.c"
#include "../product.h"

enum {
    SEEN_BLOCK = 96,                    /* whole tiles of 12 and of 6 */
    SEEN_DEPTH = 128,                   /* numbers of a head that lie transposed at a time */
    SEEN_TILE = SEEN_BLOCK * PRODUCT_LANES,
    SEEN_KEPT = 512,                    /* keys whose scores are kept */
    SEEN_GROUP = 256                    /* rows whose pieces are a task, where they begin among them */
};
enum seen { SEEN_NONE, SEEN_ALL, SEEN_RUNS, SEEN_MARKS };      /* of a block: nobody sees anything, all see all, each a run of it, or else */

struct seen_side { const float *at; int64_t stride; };  /* rows of one head */
struct seen_sum { float *at; int64_t stride; };
struct seen_dots {                      /* products of keys or values of a block and rows in lanes, of one head */
    struct seen_side rows, lanes;       /* from row 0 on; from the first in lanes on */
    int held;                           /* the panel holds all of the lanes' rows */
    float *panel;                       /* (SEEN_DEPTH, 32) */
};
struct seen_block {
    const struct fd_op *op;
    const struct fd_pass *pass;
    int64_t first, lanes, head;         /* queries in lanes: first and how many */
    int64_t at, n;                      /* the same of the block's keys */
    enum seen seen;
    int32_t begin[PRODUCT_LANES], end[PRODUCT_LANES];           /* what each query sees of the keys, where that is a run */
    float log_sum[PRODUCT_LANES], mean[PRODUCT_LANES];          /* of each query: log sum e^score, result times gradient */
    uint32_t marks[SEEN_BLOCK];         /* else: a bit for each query that sees the key */
    float *weight, change[SEEN_TILE];   /* (n, 32): products, then the softmax's weights; gradients by weights, then by products */
};

/* How many of the rows [from, to) a query sees, and the run from the first to the last of them; marks them. */
static int64_t seen_by(const struct seen_block *b, int64_t row, int64_t from, int64_t to, int32_t *first, int32_t *last, uint32_t *marks,
                       uint32_t bit)
{
    const struct fd_keys *keys = b->pass->keys + b->op->key_set;
    const int32_t *positions = b->pass->positions;
    int32_t node = keys->nodes[row];
    int64_t count = 0, low = to, high = from;
    int64_t before = b->op->window ? positions[row] - b->op->window : INT64_MIN, after = b->op->ahead ? positions[row] + b->op->ahead : INT64_MAX;
    for (int64_t run = keys->run_offsets[node]; run < keys->run_offsets[node + 1]; run++) {
        int64_t begin = fd_max(keys->runs[2 * run], from), end = fd_min((int64_t)keys->runs[2 * run] + keys->runs[2 * run + 1], to);
        if (begin >= end || positions[end - 1] <= before || positions[begin] > after) continue;          /* positions of a run ascend */
        while (positions[begin] <= before) begin++;
        while (positions[end - 1] > after) end--;
        if (begin >= end) continue;
        count += end - begin;
        low = fd_min(low, begin);
        high = fd_max(high, end);
        for (int64_t at = begin; marks && at < end; at++) marks[at - from] |= bit;
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

/* The pass falls into pieces such that nobody in one sees into another: how many begin in the group of rows from `from` on, where, and
 * behind these where the last of them ends.  Where rows that see each other lie among others, all is one piece. */
static int64_t seen_pieces(const struct fd_op *op, const struct fd_pass *pass, int64_t from, int64_t starts[SEEN_GROUP + 1])
{
    int64_t pieces = 0, first = 0, closed = 0, end = pass->rows, low, high;
    for (int64_t row = 0; row < pass->rows; row++) {
        seen_reach(op, pass, row, &low, &high);
        if (row == closed && low >= row) {
            first = row;
            if (row >= from + SEEN_GROUP) end = fd_min(end, row);
            else if (row >= from) starts[pieces++] = row;
        }
        if (low < first) {
            starts[0] = 0, starts[1] = pass->rows;
            return from == 0;
        }
        closed = fd_max(closed, fd_max(row + 1, high));
    }
    starts[pieces] = end;
    return pieces;
}

/* Goes on to the block of keys from `at` on, up to `end`. */
static enum seen seen_next(struct seen_block *b, int64_t at, int64_t end)
{
    b->at = at;
    b->n = fd_min(SEEN_BLOCK, end - at);
    int64_t count = 0, gaps = 0;
    for (int64_t i = 0; i < b->lanes; i++) {
        int64_t one = seen_by(b, b->first + i, at, at + b->n, b->begin + i, b->end + i, NULL, 0);
        count += one;
        gaps += one && one < b->end[i] - b->begin[i];
    }
    b->seen = count == 0 ? SEEN_NONE : count == b->n * b->lanes ? SEEN_ALL : gaps ? SEEN_MARKS : SEEN_RUNS;
    if (b->seen != SEEN_MARKS) return b->seen;
    memset(b->marks, 0, sizeof b->marks);
    for (int64_t i = 0; i < b->lanes; i++) seen_by(b, b->first + i, at, at + b->n, b->begin + i, b->end + i, b->marks, UINT32_C(1) << i);
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

static struct seen_dots seen_dots_of(const struct seen_block *b, struct seen_side rows, struct seen_side lanes, float *panel)
{
    seen_fetch(lanes, 0, b->lanes, b->op->head_dim);
    return (struct seen_dots){rows, lanes, 0, panel};
}

/* The score of 16 products: scaled, capped and sloped; the cap's slope there times the scale. */
FD_INLINE vf seen_score(const int bent, const struct seen_block *b, vf products, int64_t j, int64_t lane, vf *bend)
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
        vi distance = vi_sub(vi_set1(b->pass->positions[b->at + j]), vi_load(positions));
        s = vf_fma(vf_set1(op->vectors[0][b->head]), vf_from_int(distance), s);
    }
    return s;
}

static inline vm seen_inside(vi x, vi begin, vi end) { return vi_less(vi_select(vi_less(x, begin), vi_set1(INT32_MAX), x), end); }
static inline vm seen_mask(const struct seen_block *b, int64_t j, int64_t lane)
{
    static const int32_t bits[FD_LANES] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    if (b->seen == SEEN_MARKS) return vi_less(vi_set1(0), vi_and(vi_set1((int32_t)(b->marks[j] >> lane & 0xffff)), vi_load(bits)));
    return seen_inside(vi_set1((int32_t)j), vi_load(b->begin + lane), vi_load(b->end + lane));
}
FD_INLINE vf seen_or(const struct seen_block *b, int64_t j, int64_t lane, vf x, float hidden)
{
    return b->seen == SEEN_ALL ? x : vf_select(seen_mask(b, j, lane), x, vf_set1(hidden));
}
static int seen_one(const struct seen_block *b, int64_t j, int64_t lane)
{
    return b->seen == SEEN_MARKS ? b->marks[j] >> lane & 1 : j >= b->begin[lane] && j < b->end[lane];
}

/* The softmax's weights, and gradients by products. */
FD_INLINE void seen_weigh(const int bent, struct seen_block *b)
{
    for (int64_t lane = 0; lane < PRODUCT_LANES; lane += FD_LANES) {
        vf log_sum = vf_load(b->log_sum + lane), mean = vf_load(b->mean + lane);
        for (int64_t j = 0; j < b->n; j++) {
            float *weight = b->weight + j * PRODUCT_LANES + lane, *change = b->change + j * PRODUCT_LANES + lane;
            vf bend, unused, s = vf_sub(seen_score(bent, b, vf_load(weight), j, lane, &bend), log_sum);
            vf w = vf_exp_negative(seen_or(b, j, lane, s, -INFINITY), &unused);
            vf by_product = vf_mul(vf_mul(w, vf_sub(vf_load(change), mean)), bend);
            vf_store(weight, w);
            vf_store(change, seen_or(b, j, lane, by_product, 0.0f));
        }
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

enum seen_way { SEEN_BY_LANE, SEEN_BY_ROW };     /* sums over the block's rows, one for each in lanes; over lanes, one for each row */

/* out += weights (n, 32), transposed or as they are, times x, rows of head_dim. */
static void seen_add(const struct seen_block *b, enum seen_way way, const float *weights, struct seen_side x, struct seen_sum out)
{
    float part[SEEN_TILE], rest[PRODUCT_ROWS * PRODUCT_LANES];          /* the last columns, where they fill no panel */
    int64_t depth = b->op->head_dim, outs = way == SEEN_BY_LANE ? b->lanes : b->n, terms = way == SEEN_BY_LANE ? b->n : b->lanes;
    struct product_a a = {weights, 1, PRODUCT_LANES};
    if (way == SEEN_BY_ROW) a = (struct product_a){weights, PRODUCT_LANES, 1};
    int around = b->seen != SEEN_ALL && !seen_finite(x.at, x.stride, terms, depth);
    for (int64_t d = 0; d < depth; d += PRODUCT_LANES) {
        struct product_b rows = {x.at + d, FD_LANES, x.stride};
        int64_t left = depth - d, some = left < PRODUCT_LANES ? PRODUCT_ROWS : outs;
        if (left < PRODUCT_LANES) {
            memset(part, 0, sizeof part);
            memset(rest, 0, sizeof rest);
            seen_copy(terms, left, x.at + d, x.stride, part, PRODUCT_LANES);
            rows = (struct product_b){part, FD_LANES, PRODUCT_LANES};
        }
        for (int64_t first = 0, n; first < outs; first += n) {
            n = fd_min(some, outs - first);
            struct product_a by = {a.at + first * a.row, a.row, a.step};
            struct product_c to = {out.at + first * out.stride + d, out.stride, FD_LANES};
            if (left < PRODUCT_LANES) {
                seen_copy(n, left, to.at, to.row, rest, PRODUCT_LANES);
                to = (struct product_c){rest, PRODUCT_LANES, FD_LANES};
            }
            for (int64_t i = 0; around && i < n; i++)
                for (int64_t j = 0; j < terms; j++)
                    if (way == SEEN_BY_LANE ? seen_one(b, j, first + i) : seen_one(b, first + i, j))
                        product(1, PRODUCT_GO_ON, 1, (struct product_a){by.at + i * by.row + j * by.step, 0, 0},
                                (struct product_b){rows.at + j * rows.step, FD_LANES, 0}, (struct product_c){to.at + i * to.row, 0, FD_LANES});
            if (!around) product(n, PRODUCT_GO_ON, terms, by, rows, to);
            if (left < PRODUCT_LANES) seen_copy(n, left, rest, PRODUCT_LANES, out.at + first * out.stride + d, out.stride);
        }
    }
}

/* Peak and sum go on key by key: e = exp(-|s - peak|) is what the smaller of both counts beside the other. */
FD_INLINE void seen_sum_up(const int bent, const struct seen_block *b, float *peaks, float *masses)
{
    for (int64_t lane = 0; lane < PRODUCT_LANES; lane += FD_LANES) {
        vf peak = vf_load(peaks + lane), mass = vf_load(masses + lane), one = vf_set1(1.0f), unused;
        for (int64_t j = 0; j < b->n; j++) {
            vf s = seen_score(bent, b, vf_load(b->weight + j * PRODUCT_LANES + lane), j, lane, &unused);
            s = seen_or(b, j, lane, s, -INFINITY);
            vf e = vf_exp_negative(vf_sub(vf_zero(), vf_abs(vf_sub(s, peak))), &unused);
            vm more = vf_less(peak, s);
            mass = vf_fma(mass, vf_select(more, e, one), vf_select(more, one, e));
            peak = vf_select(more, s, peak);
        }
        vf_store(peaks + lane, peak);
        vf_store(masses + lane, mass);
    }
}

/* Of each query in lanes log sum e^score, and its result y times dy. */
static void seen_sums(struct seen_block *b, const float *peaks, const float *masses, struct seen_side y, struct seen_side dy)
{
    for (int64_t lane = 0, dim = b->op->head_dim; lane < b->lanes; lane++) {
        const float *x = y.at + lane * y.stride, *dx = dy.at + lane * dy.stride;
        vf mean = vf_zero();
        for (int64_t d = 0; d < dim; d += 16) mean = vf_fma(vf_load_part(x + d, dim - d, 0.0f), vf_load_part(dx + d, dim - d, 0.0f), mean);
        float mass = masses[lane];
        b->log_sum[lane] = peaks[lane] + (mass == mass ? fd_log(mass) : mass);
        b->mean[lane] = vf_sum(mean);
    }
}

static void seen_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t head, int64_t first, int64_t last)
{
    float products[SEEN_KEPT * PRODUCT_LANES], panel[SEEN_DEPTH * PRODUCT_LANES];
    int64_t dim = op->head_dim, width = op->heads * dim, kv = head / (op->heads / op->kv_heads) * dim;
    int64_t stride = fd_stride(width), kv_stride = fd_stride(op->kv_heads * dim), out_stride = fd_stride(3 * width);
    float *out = op->out[0] + head * dim;               /* by queries; `width` on by keys, then by values */
    struct seen_side keys = {op->in[1] + kv, kv_stride}, values = {op->in[2] + kv, kv_stride};
    for (int64_t row = first; row < last; row++) {
        for (int64_t of = 0; of < 3; of++) memset(out + row * out_stride + of * width, 0, (size_t)dim * sizeof *out);
        for (int64_t k = 3 * width; k < out_stride && head == 0; k++) op->out[0][row * out_stride + k] = 0.0f;
    }
    struct seen_block b = {.op = op, .pass = pass, .head = head};
    for (b.first = first; b.first < last; b.first += PRODUCT_LANES) {
        b.lanes = fd_min(PRODUCT_LANES, last - b.first);
        int64_t own = b.first * stride + head * dim, begin = pass->rows, end = 0, from, to;
        for (int64_t row = b.first; row < b.first + b.lanes; row++) {
            seen_reach(op, pass, row, &from, &to);
            begin = fd_min(begin, from);
            end = fd_max(end, to);
        }
        memset(b.begin, 0, sizeof b.begin);             /* lanes that hold no row see nothing */
        memset(b.end, 0, sizeof b.end);
        int kept = end - begin <= SEEN_KEPT;            /* else products hold a block, and a panel behind it */
        struct seen_side q = {op->in[0] + own, stride}, y = {op->in[3] + own, stride}, dy = {op->in[4] + own, stride};
        struct seen_dots scores = seen_dots_of(&b, keys, q, panel);
        struct seen_dots changes = seen_dots_of(&b, values, dy, kept ? panel : products + SEEN_TILE);
        float peaks[PRODUCT_LANES], masses[PRODUCT_LANES];
        for (int lane = 0; lane < PRODUCT_LANES; lane++) peaks[lane] = -FLT_MAX, masses[lane] = 0.0f;
        seen_fetch(y, 0, b.lanes, dim);
        for (int64_t at = begin; at < end; at += SEEN_BLOCK) {
            if (seen_next(&b, at, end) == SEEN_NONE) continue;
            b.weight = products + (kept ? at - begin : 0) * PRODUCT_LANES;
            seen_fetch(keys, at, b.n, dim);
            seen_products(&b, &scores, b.weight);
            if (seen_bent(op)) seen_sum_up(1, &b, peaks, masses);
            else seen_sum_up(0, &b, peaks, masses);
        }
        seen_sums(&b, peaks, masses, y, dy);
        for (int64_t at = begin; at < end; at += SEEN_BLOCK) {
            if (seen_next(&b, at, end) == SEEN_NONE) continue;
            b.weight = products + (kept ? at - begin : 0) * PRODUCT_LANES;
            float *by_keys = out + at * out_stride + width;
            seen_fetch(values, at, b.n, dim);
            if (!kept) seen_products(&b, &scores, b.weight);
            seen_products(&b, &changes, b.change);
            if (seen_bent(op)) seen_weigh(1, &b);
            else seen_weigh(0, &b);
            seen_add(&b, SEEN_BY_LANE, b.change, (struct seen_side){keys.at + at * kv_stride, kv_stride},
                     (struct seen_sum){out + b.first * out_stride, out_stride});
            seen_add(&b, SEEN_BY_ROW, b.change, q, (struct seen_sum){by_keys, out_stride});
            seen_add(&b, SEEN_BY_ROW, b.weight, dy, (struct seen_sum){by_keys + width, out_stride});
        }
    }
}

static int64_t op_attention_gradient_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return op->heads * fd_ceil(pass->rows, SEEN_GROUP);
}
static int op_attention_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t starts[SEEN_GROUP + 1], pieces = seen_pieces(op, pass, task / op->heads * SEEN_GROUP, starts);
    for (int64_t i = 0; i < pieces; i++) seen_gradient(op, pass, task % op->heads, starts[i], starts[i + 1]);
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
