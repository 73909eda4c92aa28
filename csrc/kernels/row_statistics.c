/* row_statistics.c - of each row of logits: the first largest and its token, the second largest, log sum exp, entropy.
 *
 * A row is cut into chunks of 256; a chunk's sums run in 16 lanes and fold once, chunks merge in order.  The output head
 * makes the same chunks while it streams the vocabulary, so its statistics have the same bits.
 * log sum exp = m + log S0 and entropy = log S0 - S1 / S0, with S0 = sum e^(z-m), S1 = sum (z-m) e^(z-m).
 * A logit of -inf is a ban and adds nothing; a row with NaN or +inf, or of -inf alone, is not finite.
 */
struct statistics { float top, second, s0, s1; int32_t argmax; int32_t bad; };   /* FD_PARTIAL floats hold one */

static struct statistics statistics_empty(void)
{
    struct statistics s = {-INFINITY, -INFINITY, 0.0f, 0.0f, 0, 0};
    return s;
}

static struct statistics statistics_of_chunk(const float *z, int64_t n, int64_t first_token)
{
    struct statistics s = statistics_empty();
    vf top = vf_set1(-INFINITY), second = top;
    vi token = vi_set1(0), at = vi_iota(), bits = vi_set1((int32_t)0x80000000);
    for (int64_t i = 0; i < n; i += 16, at = vi_add(at, vi_set1(16))) {
        vf v = vf_load_part(z + i, n - i, -INFINITY);
        vm better = vf_less(top, v);
        second = vf_select(better, top, vf_max(v, second));
        top = vf_select(better, v, top);
        token = vi_select(better, at, token);
        bits = vi_max(bits, vi_of_bits(v));          /* +inf and positive NaN are the largest positive integers */
        bits = vi_select(vf_equal(v, v), bits, vi_set1(0x7fffffff));
    }
    float tops[16], seconds[16];
    int32_t tokens[16];
    vf_store(tops, top); vf_store(seconds, second); vi_store(tokens, token);
    s.top = tops[0]; s.second = seconds[0]; s.argmax = tokens[0];
    s.bad = vi_largest(bits) >= 0x7f800000;
    for (int i = 1; i < 16; i++) {
        int better = tops[i] > s.top || (tops[i] == s.top && tokens[i] < s.argmax);
        float loser = better ? s.top : tops[i];
        if (better) { s.top = tops[i]; s.argmax = tokens[i]; }
        s.second = loser > s.second ? loser : s.second;
        s.second = seconds[i] > s.second ? seconds[i] : s.second;
    }
    s.argmax += (int32_t)first_token;
    if (s.top == -INFINITY || s.bad) return s;
    vf s0 = vf_zero(), s1 = vf_zero(), m = vf_set1(s.top);
    for (int64_t i = 0; i < n; i += 16) {
        vf d = vf_sub(vf_load_part(z + i, n - i, -INFINITY), m), e = vf_exp(d);
        s0 = vf_add(s0, e);
        s1 = vf_add(s1, vf_select(vf_equal(e, vf_zero()), vf_zero(), vf_mul(d, e)));     /* -inf * 0 adds nothing */
    }
    s.s0 = vf_sum(s0);
    s.s1 = vf_sum(s1);
    return s;
}

static struct statistics statistics_merge(struct statistics a, struct statistics b)    /* b's tokens come after a's */
{
    struct statistics s = a.top >= b.top ? a : b;
    float lower = a.top >= b.top ? b.top : a.top;
    s.second = a.second > b.second ? a.second : b.second;
    s.second = lower > s.second ? lower : s.second;
    s.bad = a.bad | b.bad;
    if (lower == -INFINITY || s.bad) return s;
    float da = a.top - s.top, db = b.top - s.top, ea = fd_exp(da), eb = fd_exp(db);
    s.s0 = a.s0 * ea + b.s0 * eb;
    s.s1 = (a.s1 + da * a.s0) * ea + (b.s1 + db * b.s0) * eb;
    return s;
}

static struct statistics statistics_of_row(const float *z, int64_t vocab)
{
    struct statistics s = statistics_empty();
    for (int64_t at = 0; at < vocab; at += FD_CHUNK)
        s = statistics_merge(s, statistics_of_chunk(z + at, fd_min(FD_CHUNK, vocab - at), at));
    return s;
}

static int statistics_result(struct statistics s, int32_t *argmax, float *top, float *second, float *log_sum_exp, float *entropy)
{
    int finite = !s.bad && s.top > -INFINITY;
    float log_s0 = finite ? fd_log(s.s0) : NAN;
    *argmax = s.argmax;
    *top = s.top;
    *second = s.second;
    *log_sum_exp = s.top + log_s0;
    *entropy = log_s0 - s.s1 / s.s0;
    return finite;
}

struct row_statistics {
    int64_t vocab;
    const float *logits;
    int32_t *argmax;
    float *top, *second, *log_sum_exp, *entropy;
    _Atomic int bad;
};
static void row_statistics_rows(void *context, int64_t begin, int64_t end)
{
    struct row_statistics *r = context;
    for (int64_t i = begin; i < end; i++) {
        struct statistics s = statistics_of_row(r->logits + i * r->vocab, r->vocab);
        if (!statistics_result(s, r->argmax + i, r->top + i, r->second + i, r->log_sum_exp + i, r->entropy + i))
            atomic_store(&r->bad, 1);
    }
}
static int row_statistics(int64_t rows, int64_t vocab, const float *logits, int32_t *argmax, float *top, float *second,
                          float *log_sum_exp, float *entropy, int threads)
{
    struct row_statistics job = {vocab, logits, argmax, top, second, log_sum_exp, entropy, 0};
    fd_parallel_for(threads, rows, 1, row_statistics_rows, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
