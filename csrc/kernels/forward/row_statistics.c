/* row_statistics.c - of each row of logits: the first largest and its token, the second largest, log sum exp, entropy, log p of the
 * first largest.
 *
 * A row is cut into chunks of 256; a chunk's sums run in 16 lanes and fold once, chunks merge in order.  The output head
 * makes the same chunks while it streams the vocabulary, so its statistics have the same bits.
 * log sum exp = m + log S0 and entropy = log S0 - S1 / S0, with S0 = sum e^(z-m), S1 = sum (z-m) e^(z-m).
 * log p = -log S0 too; where p is near 1 it is -log (1 + R), R the terms of S0 but for the largest's 1, which would drown them.
 * A logit of -inf is a ban and adds nothing; a row with NaN or +inf, or of -inf alone, is not finite: NaN - m and inf - inf show
 * in S0.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

struct statistics { float top, second, s0, s1, rest; int32_t argmax; int32_t bad; };

static struct statistics statistics_empty(void)
{
    struct statistics s = {-INFINITY, -INFINITY, 0.0f, 0.0f, 0.0f, 0, 0};
    return s;
}

/* The largest of 16 floats, none of them NaN; of two zeros +0. */
static float statistics_largest(vf a)
{
    vi bits = vi_of_bits(a), low = vi_set1(0x7fffffff);          /* as integers negative floats ascend backwards: turn them around */
    vi order = vi_xor(bits, vi_and(vi_sub(vi_set1(0), vi_shr(bits, 31)), low));
    int32_t most = vi_largest(order);
    most ^= (most < 0) * 0x7fffffff;
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return largest;
}
static int statistics_has_nan(const float *z, int64_t n)
{
    for (int64_t i = 0; i < n; i++) if (z[i] != z[i]) return 1;
    return 0;
}

static const float statistics_sure = 1.25f;                       /* below this S0 the rest is summed by itself */
static struct statistics statistics_of_chunk(const float *z, int64_t n, int64_t first_token)
{
    struct statistics s = statistics_empty();
    vf top = vf_set1(-INFINITY), second = top;
    vi token = vi_set1(0), at = vi_iota();
    for (int64_t i = 0; i < n; i += 16, at = vi_add(at, vi_set1(16))) {
        vf v = vf_load_part(z + i, n - i, -INFINITY);
        token = vi_select(vf_less(top, v), at, token);
        second = vf_max(vf_min(v, top), second);
        top = vf_max(v, top);
    }
    s.top = statistics_largest(top);
    vm best = vf_equal(top, vf_set1(s.top));
    int32_t first = INT32_MAX - vi_largest(vi_select(best, vi_sub(vi_set1(INT32_MAX), token), vi_set1(0)));
    s.argmax = (int32_t)first_token + first;
    s.second = statistics_largest(vf_select(vi_equal(token, vi_set1(first)), second, top));
    if (s.top == -INFINITY) {
        s.bad = statistics_has_nan(z, n);                        /* which the comparisons pass over */
        return s;
    }
    vf s0 = vf_zero(), s1 = vf_zero(), m = vf_set1(s.top);
    for (int64_t i = 0; i < n; i += 16) {
        vf d = vf_sub(vf_load_part(z + i, n - i, -INFINITY), m), e = vf_exp_negative(d, &d);
        s0 = vf_add(s0, e);
        s1 = vf_add(s1, vf_mul(d, e));
    }
    s.s0 = vf_sum(s0);
    s.s1 = vf_sum(s1);
    s.bad = !(s.s0 < INFINITY);
    s.rest = s.s0 - 1.0f;
    if (s.s0 < statistics_sure) {
        vf rest = vf_zero();
        for (int64_t i = 0; i < n; i += 16) {
            vm is_first = vi_equal(vi_add(vi_set1((int32_t)i), vi_iota()), vi_set1(first));
            vf d = vf_sub(vf_load_part(z + i, n - i, -INFINITY), m);
            rest = vf_add(rest, vf_select(is_first, vf_zero(), vf_exp_negative(d, &d)));
        }
        s.rest = vf_sum(rest);
    }
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
    float d = lower - s.top, e = fd_exp(d);                      /* of the one whose top is higher the sums stand */
    if (e == 0.0f) return s;                                     /* d may be -inf: the tops are as far apart as floats are */
    if (a.top < b.top) { struct statistics swapped = a; a = b; b = swapped; }
    s.s0 = a.s0 + b.s0 * e;
    s.s1 = a.s1 + (b.s1 + d * b.s0) * e;
    s.rest = a.rest + b.s0 * e;
    return s;
}

static struct statistics statistics_of_row(const float *z, int64_t vocab)
{
    struct statistics s = statistics_empty();
    for (int64_t at = 0; at < vocab; at += FD_CHUNK)
        s = statistics_merge(s, statistics_of_chunk(z + at, fd_min(FD_CHUNK, vocab - at), at));
    return s;
}

/* log (1 + x) = 2 artanh(x / (2 + x)), 0 <= x < 1/4: the series to s^9, remainder below 3e-11 of it. */
static float statistics_log_1_plus(float x)
{
    float s = x / (2.0f + x), z = s * s;
    return 2.0f * s * (1.0f + z * (1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9)))));
}
static int statistics_result(struct statistics s, int32_t *argmax, float *top, float *second, float *log_sum_exp, float *entropy,
                             float *log_prob)
{
    int finite = !s.bad && s.top > -INFINITY;
    float log_s0 = finite ? fd_log(s.s0) : NAN;
    *argmax = s.argmax;
    *top = s.top;
    *second = s.second;
    *log_sum_exp = s.top + log_s0;
    *entropy = log_s0 - s.s1 / s.s0;
    *log_prob = 0.0f - (finite && s.s0 < statistics_sure ? statistics_log_1_plus(s.rest) : log_s0);
    return finite;
}

struct row_statistics {
    int64_t vocab;
    const float *logits;
    int32_t *argmax;
    float *top, *second, *log_sum_exp, *entropy, *log_prob;
    _Atomic int bad;
};
static void row_statistics_rows(void *context, int64_t begin, int64_t end)
{
    struct row_statistics *r = context;
    for (int64_t i = begin; i < end; i++) {
        struct statistics s = statistics_of_row(r->logits + i * r->vocab, r->vocab);
        if (!statistics_result(s, r->argmax + i, r->top + i, r->second + i, r->log_sum_exp + i, r->entropy + i, r->log_prob + i))
            atomic_store(&r->bad, 1);
    }
}
static int row_statistics(int64_t rows, int64_t vocab, const float *logits, int32_t *argmax, float *top, float *second,
                          float *log_sum_exp, float *entropy, float *log_prob, int threads)
{
    struct row_statistics job = {vocab, logits, argmax, top, second, log_sum_exp, entropy, log_prob, 0};
    fd_parallel_for(threads, rows, 1, row_statistics_rows, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
