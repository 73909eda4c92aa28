/* row_divergence_real.h - row_divergence.c for one kind of real. */

struct NAME(divergence_law) {                           /* one side of a row */
    const void *row;                                    /* (vocab,) of `numbers`, logits or probabilities */
    int numbers, is_law;
    real inverse;                                       /* 1 / temperature */
    real *e;                                            /* (vocab,), padded to 16: of each chunk e^((z - its largest) / T); then */
    double *factors;                                    /* (chunks,) what makes probabilities of them; before, */
    double *sums;                                       /* (chunks,) sums of e, factors being the chunks' largest logits */
    real most, log_sum;                                 /* of all: log q = (z - most) / T - log_sum */
};
struct NAME(divergence_sums) { double terms, psi, overlap; };
struct NAME(divergence_mix) {
    real forward, reverse, variation, parameter;
    real near;                                          /* 1; or 0: of laws that have little in common psi is taken without what cancels */
};

/* Logits `at` to `at` + n of a side, n <= DIVERGENCE_CHUNK: where they lie, or in `buffer`, padded to 16 with -inf. */
static const real *NAME(divergence_chunk)(const struct NAME(divergence_law) *side, int64_t at, int64_t n, real *buffer)
{
    const void *from = divergence_at(side->row, side->numbers, at);
    if (divergence_sizes[side->numbers] == sizeof(real) && !side->is_law && n % 16 == 0) return from;
    for (int64_t k = 0; k < n; k += 16) {
        const void *p = divergence_at(from, side->numbers, k);
        vr z = side->numbers == FD_NUMBERS_F32   ? REAL_OF_FLOATS(vf_load_part(p, n - k, -INFINITY))
               : side->numbers == FD_NUMBERS_F64 ? REAL_OF_DOUBLES(vd_load_part(p, n - k, -INFINITY))
                                                 : REAL_OF_FLOATS(divergence_halves(side->numbers, p, n - k));
        if (side->is_law) {                             /* of numbers below 1e-30, which may be subnormal, through 2^64 times them */
            const real small = (real)1e-30;
            vr zero = VR(zero)(), tiny = VR(set1)(small), huge = VR(set1)(0x1p64f);
            vr log = VR(log)(VR(where_less)(z, tiny, VR(mul)(z, huge), z));
            log = VR(where_less)(z, tiny, VR(sub)(log, VR(set1)((real)44.361419555836499802)), log);
            log = VR(where_less)(zero, z, log, VR(set1)(-INFINITY));
            z = VR(add)(VR(where_less)(z, zero, VR(set1)(NAN), log), VR(sub)(z, z));             /* NaN and +inf are NaN */
        }
        VR(store)(buffer + k, z);
    }
    for (int64_t k = n; k < fd_pad(n, 16); k++) buffer[k] = -INFINITY;
    return buffer;
}
static real NAME(divergence_entry)(const struct NAME(divergence_law) *side, int64_t at)
{
    real buffer[16];
    return NAME(divergence_chunk)(side, at, 1, buffer)[0];
}

/* The law of a side, by its e's where `keep`; whether it is one. */
static int NAME(divergence_measure)(struct NAME(divergence_law) *side, int64_t vocab, int keep)
{
    int64_t chunk = 0;
    vr inverse = VR(set1)(side->inverse);
    real most = -INFINITY;
    for (int64_t at = 0; at < vocab; at += DIVERGENCE_CHUNK, chunk++) {
        real buffer[DIVERGENCE_CHUNK];
        int64_t n = fd_min(DIVERGENCE_CHUNK, vocab - at);
        const real *z = NAME(divergence_chunk)(side, at, n, buffer);
        vr top = VR(set1)(-INFINITY), sum = VR(zero)();
        for (int64_t k = 0; k < n; k += 16) top = VR(max)(VR(load)(z + k), top);
        real largest = REAL_MOST(top);
        vr base = VR(set1)(largest == -INFINITY ? 0 : largest);
        for (int64_t k = 0; k < n; k += 16) {
            vr e = REAL_EXP_NEGATIVE(VR(mul)(VR(sub)(VR(load)(z + k), base), inverse));
            if (keep) VR(store)(side->e + at + k, e);
            sum = VR(add)(sum, e);
        }
        side->factors[chunk] = largest;
        side->sums[chunk] = (double)VR(sum)(sum);
        most = largest > most ? largest : most;
    }
    int64_t chunks = chunk;
    for (; chunk < divergence_chunks(vocab); chunk++) side->factors[chunk] = -INFINITY, side->sums[chunk] = 0.0;
    double total = 0.0;
    for (int64_t k = 0; k < chunks; k += 16) {
        vd far = vd_mul(vd_sub(vd_load(side->factors + k), vd_set1((double)most)), vd_set1((double)side->inverse)), f = vd_exp(far);
        double products[16];
        vd_store(side->factors + k, f);
        vd_store(products, vd_mul(f, vd_load(side->sums + k)));
        for (int i = 0; i < 16; i++) total += products[i];
    }
    side->most = most;
    side->log_sum = (real)fd_log_double(total);
    for (int64_t k = 0; k < chunks; k++) side->factors[k] /= total;
    return most > -INFINITY && total < INFINITY;
}

/* Probabilities in the place of e's; the sum of what both laws have in common. */
static double NAME(divergence_laws)(struct NAME(divergence_law) *q, struct NAME(divergence_law) *p, int64_t vocab)
{
    double overlap = 0.0;
    int64_t chunk = 0;
    for (int64_t at = 0; at < vocab; at += DIVERGENCE_CHUNK, chunk++) {
        vr fq = VR(set1)((real)q->factors[chunk]), fp = VR(set1)((real)p->factors[chunk]), least = VR(zero)();
        for (int64_t k = at; k < fd_min(at + DIVERGENCE_CHUNK, vocab); k += 16) {
            vr qk = VR(mul)(VR(load)(q->e + k), fq), pk = VR(mul)(VR(load)(p->e + k), fp);
            VR(store)(q->e + k, qk);
            VR(store)(p->e + k, pk);
            least = VR(add)(least, VR(min)(pk, qk));
        }
        q->factors[chunk] = p->factors[chunk] = 1.0;
        overlap += (double)VR(sum)(least);
    }
    return overlap;
}

/* The share of sum |p - q| that lies in the head: the tokens of the largest p, of equal ones the first, for as long as they sum up to
 * `share` at most, and the first token always.  The smallest p of the head is found by the bits of floats, which are in their order,
 * a few of them at a time, the mass above summed by buckets. */
static double NAME(divergence_head)(int64_t vocab, const real *p, const real *q, double share)
{
    enum { WIDTH = sizeof(real) == 4 ? 10 : 13, FIRST = sizeof(real) == 4 ? 20 : 52 };
    double mass[1 << 13], above = 0.0, head = 0.0, all = 0.0;
    uint64_t prefix = 0;
    for (int shift = FIRST, before = 63;; before = shift, shift = shift < WIDTH ? 0 : shift - WIDTH) {
        int buckets = before == 63 ? 1 << 12 : 1 << (before - shift), at = buckets - 1;
        memset(mass, 0, (size_t)buckets * sizeof *mass);
        for (int64_t i = 0; i < vocab; i++) {
            uint64_t key = 0;
            memcpy(&key, p + i, sizeof *p);
            if (key >> before == prefix) mass[(key >> shift) & (uint64_t)(buckets - 1)] += (double)p[i];
        }
        for (; at > 0 && above + mass[at] <= share; at--) above += mass[at];
        prefix = before == 63 ? (uint64_t)at : prefix << (before - shift) | (uint64_t)at;
        if (shift == 0) break;
    }
    real least = 0;
    memcpy(&least, &prefix, sizeof least);
    int64_t equal = least > 0 ? (int64_t)((share - above) / (double)least) : vocab;  /* of those that fit */
    if (above == 0.0 && equal == 0) equal = 1;
    for (int64_t i = 0; i < vocab; i++) {
        double gap = fabs((double)p[i] - (double)q[i]);
        all += gap;
        if (p[i] > least || (p[i] == least && equal-- > 0)) head += gap;
    }
    return all > 0.0 ? head / all : 0.5;
}

/* A series of six terms where probabilities are near each other, apart^6 / 2520 below a unit; else what it is a series of. */
static inline vr NAME(divergence_nearer)(vr apart, vr series, vr far)
{
    return VR(where_less)(VR(abs)(apart), VR(set1)(sizeof(real) == 4 ? (real)0.125 : (real)0.00390625), series, far);
}
/* p log (p / q) + q - p, of `apart` = log (p / q).  Sums of p and of q are 1, so these sum up to the KL; but none is below 0, and near p = q,
 * where it is (p / 2) apart^2 and more of the series, neither an error of the law's sum nor the terms' own cancelling is left. */
static inline vr NAME(divergence_excess)(vr p, vr q, vr apart)
{
    vr zero = VR(zero)(), x = apart, series = VR(set1)((real)(-1.0 / 5040));
    series = VR(fma)(series, x, VR(set1)((real)(1.0 / 720)));
    series = VR(fma)(series, x, VR(set1)((real)(-1.0 / 120)));
    series = VR(fma)(series, x, VR(set1)((real)(1.0 / 24)));
    series = VR(fma)(series, x, VR(set1)((real)(-1.0 / 6)));
    series = VR(fma)(series, x, VR(set1)((real)0.5));
    vr near = VR(mul)(p, VR(mul)(VR(mul)(x, x), series));
    vr far = VR(add)(VR(where_less)(zero, p, VR(mul)(p, apart), zero), VR(sub)(q, p));
    return NAME(divergence_nearer)(apart, near, far);
}

/* p log (p / m) + m - p and q log (q / m) + m - q of m = b p + (1 - b) q, q log (q / m), and u = m / max(p, q): through the smaller over
 * the larger, which neither overflows nor vanishes, and is exactly 1 where p = q. */
struct NAME(divergence_middle) { vr p_excess, q_excess, q_term, u, ratio; };
static inline struct NAME(divergence_middle) NAME(divergence_to_middle)(vr p, vr q, vr lp, vr lq, real b)
{
    vr zero = VR(zero)(), one = VR(set1)(1), wp = VR(set1)(b), wq = VR(set1)(1 - b);
    vr high = VR(max)(p, q), low = VR(min)(p, q);
    struct NAME(divergence_middle) m;
    m.ratio = VR(where_less)(zero, high, VR(div)(low, high), one);
    m.u = VR(where_less)(q, p, VR(fma)(wq, m.ratio, wp), VR(fma)(wp, m.ratio, wq));
    vr log = VR(log)(m.u), apart = VR(sub)(lp, lq);                        /* log (m / high), log (p / q) */
    vr p_log = VR(sub)(VR(where_less)(q, p, zero, apart), log), q_log = VR(where_less)(q, p, VR(add)(apart, log), log);
    q_log = VR(sub)(zero, q_log);
    vr middle = VR(mul)(high, m.u);
    m.p_excess = NAME(divergence_excess)(p, middle, p_log);
    m.q_excess = NAME(divergence_excess)(q, middle, q_log);
    m.q_term = VR(where_less)(zero, q, VR(mul)(q, q_log), zero);
    return m;
}

/* Terms of D and psi of a chunk, n a multiple of 16; probabilities and psi take the place of e's where `keep`. */
FD_SHAPED void NAME(divergence_terms)(int body, int keep, const struct NAME(divergence_mix) *mix, const struct NAME(divergence_law) *q_side,
                                      const struct NAME(divergence_law) *p_side, int64_t chunk, int64_t n, const real *s, const real *t,
                                      real *e, real *f, struct NAME(divergence_sums) *sums)
{
    vr zero = VR(zero)(), one = VR(set1)(1), half = VR(set1)((real)0.5);
    vr fq = VR(set1)((real)q_side->factors[chunk]), fp = VR(set1)((real)p_side->factors[chunk]);
    vr most_s = VR(set1)(q_side->most), most_t = VR(set1)(p_side->most), inverse = VR(set1)(q_side->inverse);
    vr log_s = VR(set1)(q_side->log_sum), log_t = VR(set1)(p_side->log_sum);
    vr a = VR(set1)(mix->parameter), near = VR(set1)(mix->near), terms = zero, psis = zero, overlap = zero;
    for (int64_t k = 0; k < n; k += 16) {
        vr q = VR(mul)(VR(load)(e + k), fq), p = VR(mul)(VR(load)(f + k), fp);
        vr lq = VR(sub)(VR(mul)(VR(sub)(VR(load)(s + k), most_s), inverse), log_s);
        vr lp = VR(sub)(VR(mul)(VR(sub)(VR(load)(t + k), most_t), inverse), log_t);
        vr term = zero, psi = zero;
        if (body == DIVERGENCE_FORWARD) {
            term = NAME(divergence_excess)(p, q, VR(sub)(lp, lq));
            psi = VR(sub)(q, p);
        } else if (body == DIVERGENCE_REVERSE) {
            term = NAME(divergence_excess)(q, p, VR(sub)(lq, lp));
            psi = VR(where_less)(zero, q, VR(mul)(q, VR(sub)(lq, lp)), zero);
        } else if (body == DIVERGENCE_MIXED) {
            vr forward = VR(set1)(mix->forward), reverse = VR(set1)(mix->reverse), variation = VR(set1)(mix->variation);
            vr over = VR(sub)(q, p), back = VR(where_less)(zero, q, VR(mul)(q, VR(sub)(lq, lp)), zero);
            vr there = NAME(divergence_excess)(p, q, VR(sub)(lp, lq)), excess = NAME(divergence_excess)(q, p, VR(sub)(lq, lp));
            vr side = VR(where_less)(over, zero, VR(sub)(zero, q), VR(where_less)(zero, over, q, zero));
            /* What is multiplied by 0 has no part in it, though it were infinite. */
            there = VR(where_less)(zero, forward, VR(mul)(forward, there), zero);
            back = VR(where_less)(zero, reverse, VR(mul)(reverse, back), zero);
            excess = VR(where_less)(zero, reverse, VR(mul)(reverse, excess), zero);
            term = VR(add)(VR(add)(there, excess), VR(mul)(variation, VR(mul)(half, VR(abs)(over))));
            psi = VR(add)(VR(fma)(forward, over, back), VR(mul)(variation, VR(mul)(half, side)));
        } else if (body == DIVERGENCE_JSD) {
            struct NAME(divergence_middle) m = NAME(divergence_to_middle)(p, q, lp, lq, mix->parameter);
            psi = VR(mul)(VR(sub)(one, a), m.q_term);
            term = VR(fma)(a, m.p_excess, VR(mul)(VR(sub)(one, a), m.q_excess));
        } else if (body == DIVERGENCE_SKEW) {
            struct NAME(divergence_middle) m = NAME(divergence_to_middle)(p, q, lp, lq, mix->parameter);
            term = m.p_excess;
            psi = VR(mul)(VR(sub)(one, a), VR(sub)(q, VR(div)(VR(min)(p, q), m.u)));
        } else if (body == DIVERGENCE_SKEW_REVERSE) {
            struct NAME(divergence_middle) m = NAME(divergence_to_middle)(p, q, lp, lq, 1 - mix->parameter);
            term = m.q_excess;
            vr share = VR(where_less)(q, p, VR(mul)(q, m.ratio), q);       /* q q / max(p, q) */
            psi = VR(fma)(a, VR(sub)(q, VR(div)(share, m.u)), m.q_term);
        } else if (body == DIVERGENCE_ALPHA) {
            vr rest = VR(sub)(one, a), apart = VR(sub)(lp, lq);
            vr by = VR(where_less)(q, p, VR(mul)(rest, VR(sub)(zero, apart)), VR(mul)(a, apart));    /* p^a q^(1-a) over the larger */
            vr product = VR(mul)(VR(max)(p, q), REAL_EXP_NEGATIVE(VR(min)(by, zero)));
            product = VR(where_less)(zero, VR(min)(p, q), product, zero);
            vr far = VR(div)(VR(sub)(VR(fma)(a, VR(sub)(p, q), q), product), VR(mul)(a, rest));
            vr series = VR(mul)(VR(fma)(a, VR(fma)(a, VR(fma)(a, VR(fma)(a, VR(add)(a, one), one), one), one), one), VR(set1)((real)(1.0 / 5040)));
            series = VR(fma)(series, apart, VR(mul)(VR(fma)(a, VR(fma)(a, VR(fma)(a, VR(add)(a, one), one), one), one), VR(set1)((real)(1.0 / 720))));
            series = VR(fma)(series, apart, VR(mul)(VR(fma)(a, VR(fma)(a, VR(add)(a, one), one), one), VR(set1)((real)(1.0 / 120))));
            series = VR(fma)(series, apart, VR(mul)(VR(fma)(a, VR(add)(a, one), one), VR(set1)((real)(1.0 / 24))));
            series = VR(fma)(series, apart, VR(mul)(VR(add)(a, one), VR(set1)((real)(1.0 / 6))));
            series = VR(fma)(series, apart, half);
            term = NAME(divergence_nearer)(apart, VR(mul)(q, VR(mul)(VR(mul)(apart, apart), series)), far);
            psi = VR(div)(VR(sub)(VR(mul)(near, q), product), a);
            overlap = VR(add)(overlap, product);
        } else if (body == DIVERGENCE_VARIATION) {
            vr over = VR(sub)(q, p), side = VR(mul)(half, q);
            term = VR(mul)(half, VR(abs)(over));
            psi = VR(where_less)(over, zero, VR(sub)(zero, side), VR(where_less)(zero, over, side, zero));
            psi = VR(sub)(psi, VR(mul)(VR(sub)(one, near), side));
            overlap = VR(add)(overlap, VR(min)(p, q));
        } else if (body == DIVERGENCE_SOFT) {
            term = VR(where_less)(zero, p, VR(sub)(zero, VR(mul)(p, lq)), zero);
            psi = VR(sub)(q, p);
        } else if (body == DIVERGENCE_ENTROPY) {
            term = psi = VR(where_less)(zero, q, VR(sub)(zero, VR(mul)(q, lq)), zero);
        } else if (body == DIVERGENCE_LOGITS) {                             /* a: 1 / vocab; both banned: no difference */
            vr apart = VR(mul)(VR(sub)(VR(load)(s + k), VR(load)(t + k)), inverse), none = VR(set1)(-INFINITY);
            vr larger = VR(max)(VR(load)(s + k), VR(load)(t + k));
            apart = VR(where_less)(none, larger, apart, zero);
            term = VR(mul)(a, VR(mul)(apart, apart));
            psi = VR(mul)(VR(add)(a, a), apart);
        } else {                                                            /* a: 1 / vocab */
            vr over = VR(sub)(q, p), share = VR(mul)(a, over);
            term = VR(mul)(share, over);
            psi = VR(mul)(VR(add)(share, share), q);
        }
        terms = VR(add)(terms, term);
        psis = VR(add)(psis, psi);
        if (keep) {
            VR(store)(e + k, q);
            VR(store)(f + k, psi);
        }
    }
    sums->terms += (double)VR(sum)(terms);
    sums->psi += (double)VR(sum)(psis);
    sums->overlap += (double)VR(sum)(overlap);
}

static void NAME(divergence_terms_of)(int body, int keep, const struct NAME(divergence_mix) *mix, const struct NAME(divergence_law) *q,
                                      const struct NAME(divergence_law) *p, int64_t chunk, int64_t n, const real *s, const real *t, real *e,
                                      real *f, struct NAME(divergence_sums) *sums)
{
#define DIVERGENCE_CASE(of) case of: NAME(divergence_terms)(of, keep, mix, q, p, chunk, n, s, t, e, f, sums); break;
    switch (body) {
        DIVERGENCE_CASE(DIVERGENCE_FORWARD)
        DIVERGENCE_CASE(DIVERGENCE_REVERSE)
        DIVERGENCE_CASE(DIVERGENCE_MIXED)
        DIVERGENCE_CASE(DIVERGENCE_JSD)
        DIVERGENCE_CASE(DIVERGENCE_SKEW)
        DIVERGENCE_CASE(DIVERGENCE_SKEW_REVERSE)
        DIVERGENCE_CASE(DIVERGENCE_ALPHA)
        DIVERGENCE_CASE(DIVERGENCE_VARIATION)
        DIVERGENCE_CASE(DIVERGENCE_SOFT)
        DIVERGENCE_CASE(DIVERGENCE_ENTROPY)
        DIVERGENCE_CASE(DIVERGENCE_LOGITS)
        DIVERGENCE_CASE(DIVERGENCE_SQUARES)
    }
#undef DIVERGENCE_CASE
}
static struct NAME(divergence_sums) NAME(divergence_sum)(int body, int keep, const struct NAME(divergence_mix) *mix,
                                                        const struct NAME(divergence_law) *q, const struct NAME(divergence_law) *p,
                                                        int64_t vocab)
{
    struct NAME(divergence_sums) sums = {0.0, 0.0, 0.0};
    int64_t chunk = 0;
    for (int64_t at = 0; at < vocab; at += DIVERGENCE_CHUNK, chunk++) {
        real s_buffer[DIVERGENCE_CHUNK], t_buffer[DIVERGENCE_CHUNK];
        int64_t n = fd_min(DIVERGENCE_CHUNK, vocab - at);
        const real *s = NAME(divergence_chunk)(q, at, n, s_buffer), *t = NAME(divergence_chunk)(p, at, n, t_buffer);
        NAME(divergence_terms_of)(body, keep, mix, q, p, chunk, fd_pad(n, 16), s, t, q->e + at, p->e + at, &sums);
    }
    return sums;
}

/* What two laws have in common, sum min(p, q) or sum p^a q^(1-a): 1 less what they have not, or its own sum where that is little. */
static double NAME(divergence_common)(const struct fd_divergence *set, const struct NAME(divergence_sums) *sums)
{
    double a = set->parameter, apart = sums->terms * (set->kind == FD_RENYI_DIVERGENCE ? a * (1.0 - a) : 1.0);
    return apart < 0.5 ? 1.0 - apart : sums->overlap;
}

/* What becomes of the sum of terms; *slope is the derivative by it. */
static double NAME(divergence_value)(const struct fd_divergence *set, const struct NAME(divergence_sums) *sums, double *slope)
{
    double a = set->parameter;
    *slope = 1.0;
    if (set->kind == FD_LOG_ACCEPTANCE) {
        double accepted = NAME(divergence_common)(set, sums);
        *slope = 1.0 / accepted;
        return 0.0 - fd_log_double(accepted);
    }
    if (set->kind == FD_RENYI_DIVERGENCE) {                 /* of the alpha divergence */
        double product = NAME(divergence_common)(set, sums);
        *slope = a / product;
        return 0.0 - fd_log_double(product) / (1.0 - a);
    }
    return sums->terms;
}

/* D between two laws that have been measured; probabilities and psi take the place of their e's where `keep`.  *slope is what a gradient
 * by the terms is multiplied by, *mean the sum of psi. */
static double NAME(divergence_between)(const struct fd_divergence *set, struct NAME(divergence_law) *q, struct NAME(divergence_law) *p,
                                       int64_t vocab, int keep, double *slope, double *mean)
{
    int body = divergence_body_of(set->kind);
    int of_logarithm = divergence_is_of_logarithm(set->kind);
    struct NAME(divergence_mix) mix = {(real)set->forward, (real)set->reverse, 0, (real)set->parameter, 1};
    if (body == DIVERGENCE_LOGITS || body == DIVERGENCE_SQUARES) mix.parameter = (real)(1.0 / (double)vocab);
    if (set->kind == FD_ADAPTIVE_KL || set->kind == FD_ACCEPTANCE_HYBRID) {
        double overlap = NAME(divergence_laws)(q, p, vocab);
        mix.forward = (real)(set->kind == FD_ADAPTIVE_KL ? NAME(divergence_head)(vocab, p->e, q->e, set->parameter)
                                                         : fd_exp_double(-set->parameter * overlap));
        *(set->kind == FD_ADAPTIVE_KL ? &mix.reverse : &mix.variation) = 1 - mix.forward;
    }
    struct NAME(divergence_sums) sums = NAME(divergence_sum)(body, keep && !of_logarithm, &mix, q, p, vocab);
    if (keep && of_logarithm) {                             /* whose slope is 1 over what they have in common */
        mix.near = NAME(divergence_common)(set, &sums) >= 0.5;
        sums = NAME(divergence_sum)(body, keep, &mix, q, p, vocab);
    }
    *mean = body == DIVERGENCE_LOGITS ? 0.0 : sums.psi;
    return NAME(divergence_value)(set, &sums, slope);
}

/* The cross entropy of a row's label, at temperature 1. */
struct NAME(divergence_label) {
    int32_t token;                                      /* -1: none */
    int tempered;                                       /* the law at temperature 1 is another than q */
    double by, value;                                   /* what the gradient is multiplied by */
    struct NAME(divergence_law) law;
};
static struct NAME(divergence_label) NAME(divergence_to_label)(const struct divergence *d, int64_t row,
                                                              const struct NAME(divergence_law) *q, double *unused)
{
    struct NAME(divergence_label) label = {d->labels ? d->labels[row] : -1, 0, 0.0, 0.0, *q};
    if (label.token < 0) return label;
    label.by = d->weights[row] * d->set->label_scale;
    label.tempered = q->inverse != 1;
    if (label.tempered) {
        label.law.inverse = 1;
        label.law.factors = unused;
        label.law.sums = unused + divergence_chunks(d->vocab);
        NAME(divergence_measure)(&label.law, d->vocab, 0);
    }
    label.value = (double)label.law.log_sum - (double)(NAME(divergence_entry)(&label.law, label.token) - label.law.most);
    return label;
}

/* gradient = psi_by psi + q_by q f, and the label's term; f: factors of chunks, or NULL for 1.  Whether it is of numbers.  The student's
 * logits may lie where the gradient does: a chunk is read, then written. */
static int NAME(divergence_write)(int64_t vocab, double psi_by, const real *psi, double q_by, const real *q, const double *factors,
                                   const struct NAME(divergence_label) *label, real *gradient)
{
    const struct NAME(divergence_law) *law = &label->law;
    vr most = VR(set1)(law->most), log_sum = VR(set1)(law->log_sum), label_by = VR(set1)((real)label->by), zero = VR(zero)();
    vr by = VR(set1)((real)psi_by), nothing = zero;             /* NaN, once an element is NaN or infinite */
    if (!label->tempered) q_by += label->by;
    int64_t chunk = 0;
    for (int64_t at = 0; at < vocab; at += DIVERGENCE_CHUNK, chunk++) {
        real buffer[DIVERGENCE_CHUNK];
        int64_t n = fd_min(DIVERGENCE_CHUNK, vocab - at);
        const real *s = NAME(divergence_chunk)(law, at, n, buffer);
        vr times = VR(set1)((real)(factors ? q_by * factors[chunk] : q_by));
        for (int64_t k = 0; k < n; k += 16) {
            vr g = VR(mul)(times, VR(load)(q + at + k));
            if (psi) g = VR(fma)(by, VR(load)(psi + at + k), g);
            if (label->tempered)
                g = VR(fma)(label_by, REAL_EXP_NEGATIVE(VR(min)(VR(sub)(VR(sub)(VR(load)(s + k), most), log_sum), zero)), g);
            VR(store_part)(gradient + at + k, n - k, g);
            nothing = VR(fma)(g, zero, nothing);
        }
    }
    if (label->token >= 0) gradient[label->token] -= (real)label->by;
    return VR(sum)(nothing) == 0;
}

static void NAME(divergence_row)(const struct divergence *d, int64_t row, void *space)
{
    const struct fd_divergence *set = d->set;
    int64_t vocab = d->vocab, padded = fd_pad(vocab, 16), chunks = divergence_chunks(vocab);
    double weight = d->weights[row], *numbers = space;
    real *e = (real *)(void *)(numbers + 4 * chunks), *gradient = d->gradient ? (real *)d->gradient + row * vocab : NULL;
    real inverse = (real)(1.0 / set->temperature);
    d->values[row] = d->label_values[row] = 0.0;
    if (weight == 0.0) {
        if (gradient) memset(gradient, 0, (size_t)vocab * sizeof *gradient);
        return;
    }
    struct NAME(divergence_law) q = {divergence_at(d->student, set->student_numbers, row * vocab), set->student_numbers, 0, inverse, e,
                                     numbers, numbers + chunks, 0, 0}, p = q;
    int good = NAME(divergence_measure)(&q, vocab, 1);
    if (set->kind != FD_STUDENT_ENTROPY) {
        p = (struct NAME(divergence_law)){divergence_at(d->teacher, set->teacher_numbers, row * vocab), set->teacher_numbers,
                                          set->teacher_is_law, inverse, e + padded, numbers + 2 * chunks, numbers + 3 * chunks, 0, 0};
        good &= NAME(divergence_measure)(&p, vocab, 1);
    } else {
        p.e = e + padded;                                   /* psi's place; what it reads of p goes nowhere, but must be numbers */
        memset(p.e, 0, (size_t)padded * sizeof *e);
    }
    if (!good) { d->values[row] = NAN; return; }
    double slope, mean;
    d->values[row] = NAME(divergence_between)(set, &q, &p, vocab, gradient != NULL, &slope, &mean);
    struct NAME(divergence_label) label = NAME(divergence_to_label)(d, row, &q, numbers + 2 * chunks);
    d->label_values[row] = label.value;
    double by = weight * set->scale * slope / set->temperature;
    if (gradient && !NAME(divergence_write)(vocab, by, p.e, -by * mean, q.e, NULL, &label, gradient)) d->label_values[row] = NAN;
}
