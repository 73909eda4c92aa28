/* attention.c - queries over the cached keys and values that their node may see.
 *
 * A node's visible slots, in position order, are a list given as runs; a key's rank in the list decides where its term
 * stands in every sum.  The list is cut into tiles of FD_KEY_TILE ranks.  Within a tile: scores, their maximum m,
 * l = sum e^(s-m) in 16 lanes by rank, o = sum e^(s-m) v in rank order; tiles merge in order.  So it matters neither where
 * a key lies nor which thread summed it.  Few rows are split over tiles too, and merged by the same steps.
 */
enum { ATTENTION_HEADS = 4 };            /* query heads that share one reading of the keys */

struct attention {                       /* where one (row, kv head) stands */
    const struct fd_op *op;
    const struct fd_pass *pass;
    int64_t row, kv_head, padded;        /* padded: head_dim rounded up to 16 */
    const char *keys, *values;
    int64_t element;                     /* bytes of one cached number */
    const int32_t *runs;
    int64_t key_count;
};

static struct attention attention_at(const struct fd_op *op, const struct fd_pass *pass, int64_t row, int64_t kv_head)
{
    const struct fd_cache *cache = pass->caches + pass->sequences[row];
    struct attention a = {op, pass, row, kv_head, fd_pad(op->head_dim, FD_LANES), NULL, NULL, cache->is_f32 ? 4 : 2,
                          pass->runs + 2 * pass->run_offsets[pass->nodes[row]], pass->key_counts[pass->nodes[row]]};
    int64_t plane = cache->capacity * a.padded * a.element;              /* bytes of one kv head's keys */
    a.keys = (const char *)cache->base + ((op->layer * 2) * op->kv_heads + kv_head) * plane;
    a.values = a.keys + op->kv_heads * plane;
    return a;
}

FD_INLINE vf attention_load(const int is_f32, const char *p, int64_t d)
{
    return is_f32 ? vf_load((const float *)(const void *)p + d) : vf_load_f16((const uint16_t *)(const void *)p + d);
}

/* Rounds the row's keys and values to the cache's type; 0 when one of them is not finite there. */
static int op_store(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t at = row * fd_stride(op->width);
    vi largest = vi_set1(0);                             /* magnitudes order as their bits do, NaN above infinity */
    int32_t bits[16], limit = 0x7f800000;
    for (int64_t kv_head = 0; kv_head < op->kv_heads; kv_head++) {
        struct attention a = attention_at(op, pass, row, kv_head);
        int64_t offset = pass->slots[row] * a.padded * a.element;
        if (a.element == 2) limit = 0x477ff000;          /* 65520 rounds to an infinite f16 */
        for (int which = 0; which < 2; which++) {
            const float *from = (which ? op->in2 : op->in1) + at + kv_head * op->head_dim;
            char *to = (char *)(uintptr_t)(which ? a.values : a.keys) + offset;
            for (int64_t d = 0; d < a.padded; d += 16) {
                vf v = vf_load_part(from + d, op->head_dim - d, 0.0f);
                largest = vi_max(largest, vi_of_bits(vf_abs(v)));
                if (a.element == 4) vf_store((float *)(void *)to + d, v);
                else vf_store_f16((uint16_t *)(void *)to + d, v);
            }
        }
    }
    vi_store(bits, largest);
    for (int i = 0; i < 16; i++) if (bits[i] >= limit) return 0;
    return 1;
}

/* Slots of ranks [begin, end) of the list. */
static void attention_slots(const struct attention *a, int64_t begin, int64_t end, int32_t *slots)
{
    int64_t rank = 0, n = 0;
    for (const int32_t *run = a->runs; rank < end; rank += run[1], run += 2) {
        int64_t from = begin > rank ? begin - rank : 0, to = fd_min(run[1], end - rank);
        for (int64_t i = from; i < to; i++) slots[n++] = run[0] + (int32_t)i;
    }
}

/* One tile for `heads` query heads: peak[h], mass[h], o[h][padded]. */
FD_INLINE void attention_tile_heads(const int rows, const int is_f32, const struct attention *a, const float *q, const int32_t *slots,
                                    int64_t n, float *peak, float *mass, float *o)
{
    int64_t padded = a->padded, bytes = padded * a->element;
    float score[ATTENTION_HEADS][FD_KEY_TILE];
    for (int64_t j = 0; j < n; j += 4) {                 /* four keys fold together; those beyond n are not used */
        vf lanes[ATTENTION_HEADS][4];
        for (int64_t i = 0; i < 4; i++) {
            const char *key = a->keys + slots[fd_min(j + i, n - 1)] * bytes;
            vf sum[ATTENTION_HEADS];
            FD_ROWS sum[r] = vf_zero();
            for (int64_t d = 0; d < padded; d += 16) {
                vf k = attention_load(is_f32, key, d);
                FD_ROWS sum[r] = vf_fma(vf_load(q + r * padded + d), k, sum[r]);
            }
            FD_ROWS lanes[r][i] = sum[r];
        }
        FD_ROWS vf_sum4(lanes[r], score[r] + j);
    }
    for (int r = 0; r < rows; r++) {
        vf top = vf_set1(-INFINITY), total = vf_zero();
        for (int64_t j = 0; j < n; j += 16) {
            vf s = vf_mul(vf_load_part(score[r] + j, n - j, -INFINITY), vf_set1(a->op->scalar));
            vf_store_part(score[r] + j, n - j, s);
            top = vf_max(s, top);
        }
        peak[r] = fd_max_lane(top);
        for (int64_t j = 0; j < n; j += 16) {
            vf e = vf_exp(vf_sub(vf_load_part(score[r] + j, n - j, -INFINITY), vf_set1(peak[r])));
            vf_store_part(score[r] + j, n - j, e);
            total = vf_add(total, e);
        }
        mass[r] = vf_sum(total);
    }
    for (int64_t d = 0; d < padded; d += 16) {
        vf sum[8];
        FD_ROWS sum[r] = vf_zero();
        for (int64_t j = 0; j < n; j++) {
            vf v = attention_load(is_f32, a->values + slots[j] * bytes, d);
            FD_ROWS sum[r] = vf_fma(vf_set1(score[r][j]), v, sum[r]);
        }
        FD_ROWS vf_store(o + r * padded + d, sum[r]);
    }
}

static void attention_tile(const struct attention *a, int64_t heads, const float *q, int64_t tile, float *peak, float *mass, float *o)
{
    int32_t slots[FD_KEY_TILE];
    int64_t begin = tile * FD_KEY_TILE, end = fd_min(begin + FD_KEY_TILE, a->key_count), n = end - begin;
    attention_slots(a, begin, end, slots);
    switch (heads * 2 + (a->element == 4)) {
    case 2: attention_tile_heads(1, 0, a, q, slots, n, peak, mass, o); break;
    case 3: attention_tile_heads(1, 1, a, q, slots, n, peak, mass, o); break;
    case 4: attention_tile_heads(2, 0, a, q, slots, n, peak, mass, o); break;
    case 5: attention_tile_heads(2, 1, a, q, slots, n, peak, mass, o); break;
    case 6: attention_tile_heads(3, 0, a, q, slots, n, peak, mass, o); break;
    case 7: attention_tile_heads(3, 1, a, q, slots, n, peak, mass, o); break;
    case 8: attention_tile_heads(4, 0, a, q, slots, n, peak, mass, o); break;
    default: attention_tile_heads(4, 1, a, q, slots, n, peak, mass, o);
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

static void attention_write(const struct attention *a, int64_t head, float mass, const float *o)
{
    float *out = a->op->out[0] + a->row * fd_stride(a->op->heads * a->op->head_dim) + head * a->op->head_dim;
    for (int64_t d = 0; d < a->op->head_dim; d += 16)
        vf_store_part(out + d, a->op->head_dim - d, vf_div(vf_load(o + d), vf_set1(mass)));
}

/* Partial results of a split row: [row][head][tile] of { o[padded], peak, mass, 14 unused }. */
static int64_t attention_partial_floats(int64_t head_dim) { return fd_pad(head_dim, FD_LANES) + FD_LANES; }
static float *attention_partial(const struct attention *a, int64_t head, int64_t tile)
{
    return a->pass->partial_attention
         + ((a->row * a->op->heads + head) * a->pass->split_tiles + tile) * attention_partial_floats(a->op->head_dim);
}
static int64_t attention_split_tiles(const struct fd_pass *pass)      /* 0: rows are not split */
{
    int64_t tiles = fd_ceil(pass->most_keys, FD_KEY_TILE);
    return pass->rows <= FD_SPLIT_ROWS && tiles > 1 && tiles <= pass->split_tiles ? tiles : 0;
}

enum { ATTENTION_WIDEST = 512 };         /* largest head_dim; models check it */

static void op_attend(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t split = attention_split_tiles(pass), pieces = split ? split : 1;
    struct attention a = attention_at(op, pass, task / pieces / op->kv_heads, task / pieces % op->kv_heads);
    int64_t group = op->heads / op->kv_heads, padded = a.padded, tiles = fd_ceil(a.key_count, FD_KEY_TILE);
    if (split && task % pieces >= tiles) return;
    for (int64_t first = 0; first < group; first += ATTENTION_HEADS) {
        _Alignas(64) float q[ATTENTION_HEADS * ATTENTION_WIDEST], o[ATTENTION_HEADS * ATTENTION_WIDEST], all[ATTENTION_HEADS * ATTENTION_WIDEST];
        float peak[ATTENTION_HEADS], mass[ATTENTION_HEADS], all_peak[ATTENTION_HEADS], all_mass[ATTENTION_HEADS];
        int64_t heads = fd_min(ATTENTION_HEADS, group - first), head = a.kv_head * group + first;
        const float *queries = op->in1 + a.row * fd_stride(op->heads * op->head_dim);
        for (int64_t h = 0; h < heads; h++)
            for (int64_t d = 0; d < padded; d += 16)
                vf_store(q + h * padded + d, vf_load_part(queries + (head + h) * op->head_dim + d, op->head_dim - d, 0.0f));
        if (split) {
            attention_tile(&a, heads, q, task % pieces, peak, mass, o);
            for (int64_t h = 0; h < heads; h++) {
                float *partial = attention_partial(&a, head + h, task % pieces);
                memcpy(partial, o + h * padded, (size_t)padded * sizeof *o);
                partial[padded] = peak[h];
                partial[padded + 1] = mass[h];
            }
            continue;
        }
        attention_tile(&a, heads, q, 0, all_peak, all_mass, all);
        for (int64_t tile = 1; tile < tiles; tile++) {
            attention_tile(&a, heads, q, tile, peak, mass, o);
            for (int64_t h = 0; h < heads; h++)
                attention_merge(all_peak + h, all_mass + h, all + h * padded, peak[h], mass[h], o + h * padded, padded);
        }
        for (int64_t h = 0; h < heads; h++) attention_write(&a, head + h, all_mass[h], all + h * padded);
    }
}
static int64_t op_attend_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    int64_t split = attention_split_tiles(pass);
    return pass->rows * op->kv_heads * (split ? split : 1);
}

static void op_attend_merge(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t head = task % op->heads;
    struct attention a = attention_at(op, pass, task / op->heads, head / (op->heads / op->kv_heads));
    float *all = attention_partial(&a, head, 0);
    for (int64_t tile = 1; tile < fd_ceil(a.key_count, FD_KEY_TILE); tile++) {
        const float *o = attention_partial(&a, head, tile);
        attention_merge(all + a.padded, all + a.padded + 1, all, o[a.padded], o[a.padded + 1], o, a.padded);
    }
    attention_write(&a, head, all[a.padded + 1], all);
}
static int64_t op_attend_merge_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return attention_split_tiles(pass) ? pass->rows * op->heads : 0;
}
