/* attention.c - queries over the cached keys and values that their node may see.
 *
 * Keys lie 16 slots in lanes, numbers of a head in sequence: a score is sum <- fma(key[d], query[d], sum) in two chains, of
 * even and of odd d, and 16 scores take no fold.  Values lie slot by slot.
 *
 * A node's visible slots, in position order, are a list given as runs; a key's rank in the list decides where its term
 * stands in every sum.  The list is cut into tiles of FD_KEY_TILE ranks.  Within a tile: scores, their maximum m,
 * l = sum e^(s-m) in 16 lanes by rank, o = sum e^(s-m) v in rank order, even and odd ranks apart; tiles merge in order.  So
 * it matters neither where a key lies nor which thread summed it.  Few rows are split over tiles too, and merged by the same
 * steps.
 *
 * A window cuts the list's beginning: keys at positions up to the row's own - window; where rows see what follows them, its end too: keys
 * beyond the row's own position + ahead.  So ranks count what is left, as if there were no more.  With a softcap c a scaled score s is
 * c tanh(s / c); with slopes, slope * (key position - query position) is added; with a reach, the number that a table of the head has
 * for that distance.
 */
#pragma once
#include "../tile.h"
#include "activation.c"

enum { FD_KEY_TILE = 128 };              /* keys of one softmax tile */
enum { FD_SPLIT_ROWS = 4 };              /* up to this many rows, attention is split over key tiles too */
enum { ATTENTION_HEADS = 3 };            /* query heads, or rows, that share one reading of the keys: 12 sums of 16 registers */

struct attention {                       /* where one (row, kv head) stands */
    const struct fd_op *op;
    const struct fd_pass *pass;
    int64_t row, kv_head, padded;        /* padded: head_dim rounded up to 16 */
    void *const *pages;                  /* of the sequence */
    int64_t keys, values, positions;     /* where in a page those of the layer and the head begin, in bytes */
    int64_t element;                     /* bytes of one cached number */
    const int32_t *runs;
    int64_t key_count, skip;             /* skip: ranks of the first run that the window cuts off */
};

static struct attention attention_at(const struct fd_op *op, const struct fd_pass *pass, int64_t row, int64_t kv_head)
{
    const struct fd_keys *keys = pass->keys + op->key_set;
    const struct fd_cache *cache = keys->caches + pass->sequences[row];
    int32_t node = keys->nodes[row];
    struct attention a = {op, pass, row, kv_head, fd_pad(op->head_dim, FD_LANES), cache->pages, 0, 0, cache->positions,
                          cache->is_f32 ? 4 : 2, keys->runs + 2 * keys->run_offsets[node], keys->key_counts[node], 0};
    int64_t plane = FD_PAGE * a.padded * a.element;                      /* bytes of one kv head's keys in a page */
    a.keys = op->layer * FD_PAGE * a.element + kv_head * plane;
    a.values = a.keys + op->kv_heads * plane;
    return a;
}
static inline char *attention_page(const struct attention *a, int64_t slot) { return a->pages[(uint64_t)slot / FD_PAGE]; }
static inline int32_t *attention_position(const struct attention *a, int64_t slot)
{
    return (int32_t *)(void *)(attention_page(a, slot) + a->positions) + slot % FD_PAGE;
}

/* Cuts the list to the row's window: it is in order of position, and holds the row's own key. */
static void attention_cut(struct attention *a)
{
    int64_t before = a->pass->positions[a->row] - a->op->window, end;    /* the last position that it does not see */
    while (a->key_count > a->runs[1] && *attention_position(a, a->runs[0] + a->runs[1] - 1) <= before) {
        a->key_count -= a->runs[1];
        a->runs += 2;
    }
    for (end = a->runs[1]; a->skip < end;) {
        int64_t middle = (a->skip + end) / 2;
        if (*attention_position(a, a->runs[0] + middle) <= before) a->skip = middle + 1; else end = middle;
    }
    a->key_count -= a->skip;
    if (!a->op->ahead) return;
    int64_t last = a->pass->positions[a->row] + a->op->ahead, rank = -a->skip;               /* the last position that it sees */
    const int32_t *run = a->runs;
    for (; rank + run[1] < a->key_count && *attention_position(a, run[0] + run[1] - 1) <= last; run += 2) rank += run[1];
    int64_t low = rank < 0 ? a->skip : 0;
    for (end = fd_min(run[1], a->key_count - rank); low < end;) {
        int64_t middle = (low + end) / 2;
        if (*attention_position(a, run[0] + middle) <= last) low = middle + 1; else end = middle;
    }
    a->key_count = rank + low;
}

FD_INLINE vf attention_load(const int is_f32, const char *p, int64_t d)
{
    return is_f32 ? vf_load((const float *)(const void *)p + d) : vf_load_f16((const uint16_t *)(const void *)p + d);
}

/* Rounds the row's keys and values to the cache's type; 0 when one of them is not finite there. */
static int op_store(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    const struct fd_keys *keys = pass->keys + op->key_set;
    int64_t at = row * fd_stride(op->width), slot = keys->slots[row];
    vi largest = vi_set1(0);                             /* magnitudes order as their bits do, NaN above infinity */
    int32_t limit = 0x7f800000;
    for (int64_t kv_head = 0; kv_head < op->kv_heads; kv_head++) {
        struct attention a = attention_at(op, pass, row, kv_head);
        if (op->layer + kv_head == 0) *attention_position(&a, slot) = pass->positions[row];  /* once a key set */
        int64_t place = slot % FD_PAGE, first = place / FD_LANES * FD_LANES;                /* of its tile */
        char *key = attention_page(&a, slot) + a.keys + (first * a.padded + slot % FD_LANES) * a.element;
        char *value = attention_page(&a, slot) + a.values + place * a.padded * a.element;
        if (a.element == 2) limit = 0x477ff000;          /* 65520 rounds to an infinite f16 */
        for (int64_t d = 0; d < a.padded; d += 16) {
            vf k = vf_load_part(op->in[0] + at + kv_head * op->head_dim + d, op->head_dim - d, 0.0f);
            vf v = vf_load_part(op->in[1] + at + kv_head * op->head_dim + d, op->head_dim - d, 0.0f);
            largest = vi_max(largest, vi_max(vi_of_bits(vf_abs(k)), vi_of_bits(vf_abs(v))));
            if (a.element == 4) {
                float lanes[16];
                vf_store((float *)(void *)value + d, v);
                vf_store(lanes, k);
                for (int64_t i = 0; i < 16; i++) ((float *)(void *)key)[(d + i) * FD_LANES] = lanes[i];
            } else {
                uint16_t lanes[16];
                vf_store_f16((uint16_t *)(void *)value + d, v);
                vf_store_f16(lanes, k);
                for (int64_t i = 0; i < 16; i++) ((uint16_t *)(void *)key)[(d + i) * FD_LANES] = lanes[i];
            }
        }
    }
    return vi_largest(largest) < limit;
}

/* Values of neighbours: `count` of them from `at` on. */
struct attention_piece { const char *at; int64_t count; };

/* Scores of ranks [begin, end) for `rows` query heads, and where their values lie: the number of pieces.  Slots in lanes that are not
 * asked for are computed with the others and left; a tile of keys that several runs touch in turn is read once.  score[r] has room for
 * 16 more. */
FD_INLINE int attention_scores(const int rows, const int is_f32, const struct attention *a, const float *q, int64_t begin,
                               int64_t end, float (*score)[FD_KEY_TILE + FD_LANES], struct attention_piece *pieces)
{
    int piece = -1;
    const char *beyond = NULL;                           /* the last value */
    const int64_t row_bytes = a->padded * (is_f32 ? 4 : 2), bytes = FD_LANES * row_bytes, pair = bytes / a->padded * 2;
    float found[ATTENTION_HEADS][2 * FD_LANES] = {{0}};
    int64_t rank = -a->skip, n = 0, held = -1;           /* held: the tile whose scores `found` holds */
    for (const int32_t *run = a->runs; rank < end; rank += run[1], run += 2) {
        int64_t slot = run[0] + (begin > rank ? begin - rank : 0), last = run[0] + fd_min(run[1], end - rank);
        while (slot < last) {
            int64_t tile = (int64_t)((uint64_t)slot / FD_LANES), lane = slot & (FD_LANES - 1);
            int64_t count = fd_min(FD_LANES - lane, last - slot);
            const char *page = attention_page(a, slot) + (tile & (FD_PAGE / FD_LANES - 1)) * bytes, *value = page + a->values;
            if (tile != held) {
                int64_t after = (tile + 1) * FD_LANES;
                const char *keys = page + a->keys, *ahead = value, *next = keys + bytes;
                if (after % FD_PAGE == 0 && after < last) next = attention_page(a, after) + a->keys;
                vf even[ATTENTION_HEADS], odd[ATTENTION_HEADS];
                FD_ROWS even[r] = odd[r] = vf_zero();
                for (int64_t d = 0; d < a->padded; d += 2, ahead += pair, next += pair) {
                    __builtin_prefetch(next);
                    __builtin_prefetch(ahead);
                    vf key = attention_load(is_f32, keys, d * FD_LANES);
                    FD_ROWS even[r] = vf_fma(key, vf_set1(q[r * a->padded + d]), even[r]);
                    key = attention_load(is_f32, keys, (d + 1) * FD_LANES);
                    FD_ROWS odd[r] = vf_fma(key, vf_set1(q[r * a->padded + d + 1]), odd[r]);
                }
                FD_ROWS vf_store(found[r], vf_add(even[r], odd[r]));
                held = tile;
            }
            FD_ROWS vf_store(score[r] + n, vf_load(found[r] + lane));        /* what lies beyond `count` is written over */
            value += lane * row_bytes;
            if (value != beyond) pieces[++piece] = (struct attention_piece){value, 0};
            pieces[piece].count += count;
            beyond = value + count * row_bytes;
            slot += count;
            n += count;
        }
    }
    return piece + 1;
}

/* sum[r] <- score[r][j] times a value. */
#define ATTENTION_ADD(sum, from) do { \
    vf value = attention_load(is_f32, from, d); \
    FD_ROWS sum[r] = vf_fma(vf_set1(score[r][j]), value, sum[r]); \
    j++; \
} while (0)

/* o[r] = sum of score[r][j] times value j, even j and odd j apart. */
FD_INLINE void attention_values(const int rows, const int is_f32, const struct attention *a,
                                float (*score)[FD_KEY_TILE + FD_LANES], const struct attention_piece *pieces, int count, float *o)
{
    const int64_t bytes = a->padded * (is_f32 ? 4 : 2);
    for (int64_t d = 0; d < a->padded; d += FD_LANES) {
        vf even[ATTENTION_HEADS], odd[ATTENTION_HEADS];
        int64_t j = 0;
        FD_ROWS even[r] = odd[r] = vf_zero();
        for (int piece = 0; piece < count; piece++) {
            const char *at = pieces[piece].at, *end = at + pieces[piece].count * bytes;
            if (j & 1) { ATTENTION_ADD(odd, at); at += bytes; }
            for (; at + bytes < end; at += 2 * bytes) { ATTENTION_ADD(even, at); ATTENTION_ADD(odd, at + bytes); }
            if (at < end) ATTENTION_ADD(even, at);
        }
        if (j & 1) ATTENTION_ADD(odd, pieces[0].at);     /* of a score that is 0: sums end in pairs */
        FD_ROWS vf_store(o + r * a->padded + d, vf_add(even[r], odd[r]));
    }
}
#undef ATTENTION_ADD

/* Key position less the query's, of ranks [begin, end), and 16 more that go on from there: ascending, as the list does. */
static void attention_distances(const struct attention *a, int64_t begin, int64_t end, int32_t *distance)
{
    const int32_t own = a->pass->positions[a->row];
    int64_t rank = -a->skip, n = 0;
    for (const int32_t *run = a->runs; rank < end; rank += run[1], run += 2) {
        int64_t slot = run[0] + (begin > rank ? begin - rank : 0), last = run[0] + fd_min(run[1], end - rank);
        for (int64_t count; slot < last; slot += count, n += count) {
            int64_t left = FD_PAGE - (slot & (FD_PAGE - 1)), i = 0;     /* slots of the page: what lies beyond `count` is written over */
            const int32_t *at = attention_position(a, slot);
            count = fd_min(left, last - slot);
            for (; i < count && i + FD_LANES <= left; i += FD_LANES) vi_store(distance + n + i, vi_sub(vi_load(at + i), vi_set1(own)));
            for (; i < count; i++) distance[n + i] = at[i] - own;
        }
    }
    vi_store(distance + n, vi_add(vi_iota(), vi_set1(distance[n - 1] + 1)));
}

/* What 16 ascending indices go on by: 1 from each to the next, 0 where they are all one, -1: anything. */
FD_INLINE int attention_step(vi at, int32_t first)
{
    if (vm_bits(vi_equal(at, vi_add(vi_iota(), vi_set1(first)))) == 0xffff) return 1;
    return vm_bits(vi_equal(at, vi_set1(first))) == 0xffff ? 0 : -1;
}
/* What stands in a head's table at 16 indices, all of them inside. */
FD_INLINE vf attention_of_table(const float *table, const int32_t *index, int step)
{
    if (step == 1) return vf_load(table + index[0]);
    if (step == 0) return vf_set1(table[index[0]]);
    float found[FD_LANES];
    for (int lane = 0; lane < FD_LANES; lane++) found[lane] = table[index[lane]];
    return vf_load(found);
}

/* n scores, and what tables of the heads from `head` on have for their distances.  Called and not inlined, like what calls it: plain
 * attention is compiled as if neither were there. */
static __attribute__((noinline)) void attention_by_distance(int rows, const struct fd_op *op, int64_t head, int64_t n, const int32_t *distance,
                                                            float (*score)[FD_KEY_TILE + FD_LANES])
{
    const int32_t reach = (int32_t)op->reach, width = 2 * reach + 1;     /* of a head's table */
    const float *tables = op->vectors[0] + head * width;
    for (int64_t j = 0; j < n; j += 16) {
        int32_t index[FD_LANES];
        vi at = vi_max(vi_set1(-reach), vi_load(distance + j)), far = vi_set1(reach);
        at = vi_add(vi_select(vi_less(at, far), at, far), far);
        vi_store(index, at);
        int step = attention_step(at, index[0]);
        for (int r = 0; r < rows; r++)
            vf_store(score[r] + j, vf_add(vf_load(score[r] + j), attention_of_table(tables + r * width, index, step)));
    }
}

/* Scores as they are, scaled, capped, and sloped or with a table's numbers added; `head` is the first of the rows. */
static __attribute__((noinline)) void attention_bend(int rows, const struct attention *a, int64_t head, int64_t begin, int64_t end,
                                                     float (*score)[FD_KEY_TILE + FD_LANES])
{
    int32_t distance[FD_KEY_TILE + FD_LANES];
    const float *slopes = a->op->vectors && !a->op->reach ? a->op->vectors[0] + head : NULL;
    if (a->op->vectors) attention_distances(a, begin, end, distance);
    for (int r = 0; r < rows; r++)
        for (int64_t j = 0; j < end - begin; j += 16) {
            vf s = vf_mul(vf_load(score[r] + j), vf_set1(a->op->scalar));
            if (a->op->softcap > 0.0f) s = soft_capped(s, a->op->softcap);
            if (slopes) s = vf_fma(vf_set1(slopes[r]), vf_from_int(vi_load(distance + j)), s);
            vf_store(score[r] + j, s);
        }
    if (a->op->reach) attention_by_distance(rows, a->op, head, end - begin, distance, score);
}

/* One tile for `rows` query heads from `head` on: peak[r], mass[r], o[r][padded]. */
FD_SHAPED void attention_tile_heads(const int rows, const int is_f32, const struct attention *a, int64_t head, const float *q,
                                    int64_t begin, int64_t end, float *peak, float *mass, float *o)
{
    float score[ATTENTION_HEADS][FD_KEY_TILE + FD_LANES];
    struct attention_piece pieces[FD_KEY_TILE];
    int64_t n = end - begin;
    pieces[0].at = NULL;                                 /* n >= 1: it is written over; the compiler does not know */
    int count = attention_scores(rows, is_f32, a, q, begin, end, score, pieces);
    float scale = a->op->scalar;
    if (a->op->softcap > 0.0f || a->op->vectors) { attention_bend(rows, a, head, begin, end, score); scale = 1.0f; }
    for (int r = 0; r < rows; r++) {
        vf top = vf_set1(-INFINITY), total = vf_zero();
        for (int64_t j = 0; j < n; j += 16) {
            vf s = vf_mul(vf_load_part(score[r] + j, n - j, -INFINITY), vf_set1(scale));
            vf_store(score[r] + j, s);
            top = vf_max(s, top);
        }
        peak[r] = fd_max_lane(top);
        for (int64_t j = 0; j < n; j += 16) {
            vf e = vf_exp(vf_sub(vf_load(score[r] + j), vf_set1(peak[r])));
            vf_store(score[r] + j, e);
            total = vf_add(total, e);
        }
        mass[r] = vf_sum(total);
    }
    attention_values(rows, is_f32, a, score, pieces, count, o);
}

static void attention_tile(const struct attention *a, int64_t head, int64_t heads, const float *q, int64_t tile, float *peak,
                           float *mass, float *o)
{
    int64_t begin = tile * FD_KEY_TILE, end = fd_min(begin + FD_KEY_TILE, a->key_count);
    switch (heads * 2 + (a->element == 4)) {
    case 2: attention_tile_heads(1, 0, a, head, q, begin, end, peak, mass, o); break;
    case 3: attention_tile_heads(1, 1, a, head, q, begin, end, peak, mass, o); break;
    case 4: attention_tile_heads(2, 0, a, head, q, begin, end, peak, mass, o); break;
    case 5: attention_tile_heads(2, 1, a, head, q, begin, end, peak, mass, o); break;
    case 6: attention_tile_heads(3, 0, a, head, q, begin, end, peak, mass, o); break;
    default: attention_tile_heads(3, 1, a, head, q, begin, end, peak, mass, o);
    }
}

/* state <- state merged with the next tile; a state is peak, mass, o (padded). */
static void attention_merge(float *state_peak, float *state_mass, float *state_o, float peak, float mass, const float *o, int64_t padded)
{
    float top = peak > *state_peak ? peak : *state_peak;
    float keep = fd_exp(*state_peak - top), gain = fd_exp(peak - top);
    *state_peak = top;
    *state_mass = *state_mass * keep + mass * gain;
    for (int64_t d = 0; d < padded; d += 16)
        vf_store(state_o + d, vf_fma(vf_load(o + d), vf_set1(gain), vf_mul(vf_load(state_o + d), vf_set1(keep))));
}

/* The last head writes the row's padding, too: no other task does. */
static void attention_write(const struct fd_op *op, int64_t row, int64_t head, float mass, const float *o)
{
    int64_t width = op->heads * op->head_dim, stride = fd_stride(width);
    float *begin = op->out[0] + row * stride, *out = begin + head * op->head_dim;
    if (head == op->heads - 1)
        for (int64_t k = width; k < stride; k++) begin[k] = 0.0f;
    for (int64_t d = 0; d < op->head_dim; d += 16)
        vf_store_part(out + d, op->head_dim - d, vf_div(vf_load(o + d), vf_set1(mass)));
}

/* Partial results of a split row: [row][head][tile] of { o[padded], peak, mass, 14 unused }. */
static int64_t attention_partial_floats(int64_t head_dim) { return fd_pad(head_dim, FD_LANES) + FD_LANES; }
static int64_t attention_floats(int64_t heads, int64_t head_dim, int64_t tiles)
{
    return FD_SPLIT_ROWS * heads * tiles * attention_partial_floats(head_dim);
}
static int64_t attention_tiles(int64_t keys) { return fd_ceil(keys, FD_KEY_TILE); }
static float *attention_partial(const struct attention *a, int64_t head, int64_t tile)
{
    return a->pass->partial_attention
         + ((a->row * a->op->heads + head) * a->pass->split_tiles + tile) * attention_partial_floats(a->op->head_dim);
}
static int64_t attention_split_tiles(const struct fd_op *op, const struct fd_pass *pass)      /* 0: rows are not split */
{
    int64_t tiles = fd_ceil(pass->keys[op->key_set].most_keys, FD_KEY_TILE);
    return pass->rows <= FD_SPLIT_ROWS && tiles > 1 && tiles <= pass->split_tiles ? tiles : 0;
}

enum { ATTENTION_WIDEST = 512 };         /* largest head_dim; models check it */

/* Where keys are one head's alone: how many rows from this one on see what it sees, and share one reading of it; 0: a row before it has
 * done its work. */
static int64_t attention_rows(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    if (op->heads > op->kv_heads || op->window || op->vectors) return 1;
    const int32_t *nodes = pass->keys[op->key_set].nodes;
    int64_t first = row / ATTENTION_HEADS * ATTENTION_HEADS, last = fd_min(first + ATTENTION_HEADS, pass->rows), end = row + 1;
    if (row > first && nodes[row - 1] == nodes[row]) return 0;
    while (end < last && nodes[end] == nodes[row]) end++;
    return end - row;
}

static int op_attend(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    /* rows last: tasks in sequence read the same keys and values */
    int64_t split = attention_split_tiles(op, pass), piece = task / pass->rows % (split ? split : 1);
    int64_t rows = split ? 1 : attention_rows(op, pass, task % pass->rows);
    if (!rows) return 1;
    struct attention a = attention_at(op, pass, task % pass->rows, task / pass->rows / (split ? split : 1));
    if (op->window) attention_cut(&a);
    int64_t group = op->heads / op->kv_heads, padded = a.padded, tiles = fd_ceil(a.key_count, FD_KEY_TILE);
    if (split && piece >= tiles) return 1;
    for (int64_t first = 0; first < group; first += ATTENTION_HEADS) {
        _Alignas(64) float q[ATTENTION_HEADS * ATTENTION_WIDEST], o[ATTENTION_HEADS * ATTENTION_WIDEST], all[ATTENTION_HEADS * ATTENTION_WIDEST];
        float peak[ATTENTION_HEADS], mass[ATTENTION_HEADS], all_peak[ATTENTION_HEADS], all_mass[ATTENTION_HEADS];
        /* several heads of a row, or one of several rows */
        int64_t heads = rows > 1 ? rows : fd_min(ATTENTION_HEADS, group - first), head = a.kv_head * group + first;
        int64_t stride = fd_stride(op->heads * op->head_dim), step = rows > 1 ? stride : op->head_dim;
        const float *queries = op->in[0] + a.row * stride + head * op->head_dim;
        for (int64_t h = 0; h < heads; h++)
            for (int64_t d = 0; d < padded; d += 16)
                vf_store(q + h * padded + d, vf_load_part(queries + h * step + d, op->head_dim - d, 0.0f));
        if (split) {
            attention_tile(&a, head, heads, q, piece, peak, mass, o);
            for (int64_t h = 0; h < heads; h++) {
                float *partial = attention_partial(&a, head + h, piece);
                memcpy(partial, o + h * padded, (size_t)padded * sizeof *o);
                partial[padded] = peak[h];
                partial[padded + 1] = mass[h];
            }
            continue;
        }
        attention_tile(&a, head, heads, q, 0, all_peak, all_mass, all);
        for (int64_t tile = 1; tile < tiles; tile++) {
            attention_tile(&a, head, heads, q, tile, peak, mass, o);
            for (int64_t h = 0; h < heads; h++)
                attention_merge(all_peak + h, all_mass + h, all + h * padded, peak[h], mass[h], o + h * padded, padded);
        }
        for (int64_t h = 0; h < heads; h++)
            attention_write(op, rows > 1 ? a.row + h : a.row, rows > 1 ? head : head + h, all_mass[h], all + h * padded);
    }
    return 1;
}
static int64_t op_attend_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    int64_t split = attention_split_tiles(op, pass);
    return pass->rows * op->kv_heads * (split ? split : 1);
}

static int op_attend_merge(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t head = task % op->heads;
    struct attention a = attention_at(op, pass, task / op->heads, head / (op->heads / op->kv_heads));
    if (op->window) attention_cut(&a);
    float *all = attention_partial(&a, head, 0);
    for (int64_t tile = 1; tile < fd_ceil(a.key_count, FD_KEY_TILE); tile++) {
        const float *o = attention_partial(&a, head, tile);
        attention_merge(all + a.padded, all + a.padded + 1, all, o[a.padded], o[a.padded + 1], o, a.padded);
    }
    attention_write(op, a.row, head, all[a.padded + 1], all);
    return 1;
}
static int64_t op_attend_merge_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return attention_split_tiles(op, pass) ? pass->rows * op->heads : 0;
}
