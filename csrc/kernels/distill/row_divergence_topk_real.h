/* row_divergence_topk_real.h - row_divergence_topk.c for one kind of real. */

/* What is not listed, of which so little is left beside the best token that its e's have lost digits: from its own largest logit.  e's of
 * listed tokens are -1 and become 0; the others' are shares of *mass, which is their sum, and factors 1. */
static real NAME(divergence_far_tail)(struct NAME(divergence_law) *q, int64_t vocab, double *mass)
{
    real buffer[DIVERGENCE_CHUNK], most = -INFINITY;
    vr zero = VR(zero)(), none = VR(set1)(-INFINITY), inverse = VR(set1)(q->inverse);
    for (int64_t at = 0; at < vocab; at += DIVERGENCE_CHUNK) {
        int64_t n = fd_min(DIVERGENCE_CHUNK, vocab - at);
        const real *z = NAME(divergence_chunk)(q, at, n, buffer);
        vr top = none;
        for (int64_t i = 0; i < n; i += 16)
            top = VR(max)(VR(where_less)(VR(load)(q->e + at + i), zero, none, VR(load)(z + i)), top);
        real largest = REAL_MOST(top);
        most = largest > most ? largest : most;
    }
    vr base = VR(set1)(most == -INFINITY ? 0 : most);
    int64_t chunk = 0;
    *mass = 0.0;
    for (int64_t at = 0; at < vocab; at += DIVERGENCE_CHUNK, chunk++) {
        int64_t n = fd_min(DIVERGENCE_CHUNK, vocab - at);
        const real *z = NAME(divergence_chunk)(q, at, n, buffer);
        vr sum = zero;
        for (int64_t i = 0; i < n; i += 16) {
            vr below = VR(mul)(VR(sub)(VR(where_less)(VR(load)(q->e + at + i), zero, none, VR(load)(z + i)), base), inverse);
            vr e = REAL_EXP_NEGATIVE(below);
            VR(store)(q->e + at + i, e);
            sum = VR(add)(sum, e);
        }
        q->factors[chunk] = 1.0;
        *mass += (double)VR(sum)(sum);
    }
    return (most - q->most) * q->inverse - q->log_sum + (real)fd_log_double(*mass);
}

/* log of the probability of what is not listed: e's of listed tokens become 0, those of others times factors are shares of *mass.  NAN
 * where a token is listed twice.  *far: these shares are no probabilities. */
static real NAME(divergence_tail)(struct NAME(divergence_law) *q, int64_t vocab, int64_t k, const int32_t *tokens, double *mass, int *far)
{
    /* e^x below 1.7e-38 is 0 in float32: what 2^31 tokens may lose is 4e-29, 2^-14 units of this. */
    const double little = 1e-24;
    int again = 0;
    for (int64_t j = 0; j < k; j++)
        if (tokens[j] >= 0) {
            again |= q->e[tokens[j]] < 0;
            q->e[tokens[j]] = -1;
        }
    if (again) return NAN;
    *mass = 0.0;
    int64_t chunk = 0;
    for (int64_t at = 0; at < vocab; at += DIVERGENCE_CHUNK, chunk++) {
        vr sum = VR(zero)();
        for (int64_t i = at; i < fd_min(at + DIVERGENCE_CHUNK, vocab); i += 16)
            sum = VR(add)(sum, VR(max)(VR(load)(q->e + i), VR(zero)()));
        *mass += (double)VR(sum)(sum) * q->factors[chunk];
    }
    *far = *mass < little;
    if (*far) return NAME(divergence_far_tail)(q, vocab, mass);
    for (int64_t j = 0; j < k; j++)
        if (tokens[j] >= 0) q->e[tokens[j]] = 0;
    return (real)fd_log_double(*mass);
}

/* What divergence_write, which takes a law at temperature 1 from e's, leaves out where these are 0: the label's term of listed tokens. */
static void NAME(divergence_plain)(int64_t k, const int32_t *tokens, const struct NAME(divergence_label) *label, real *gradient)
{
    if (label->tempered || label->by == 0.0) return;
    for (int64_t j = 0; j < k; j++)
        if (tokens[j] >= 0) {
            double log_q = (double)(NAME(divergence_entry)(&label->law, tokens[j]) - label->law.most) - (double)label->law.log_sum;
            gradient[j] += (real)(label->by * fd_exp_double(log_q));
        }
}

static void NAME(divergence_topk_row)(const struct divergence_topk *d, int64_t row, void *space)
{
    const struct divergence *all = &d->all;
    const struct fd_divergence *set = all->set;
    int64_t vocab = all->vocab, k = d->k, width = d->tail ? k + 1 : k, short_padded = fd_pad(k + 1, 16), chunks = divergence_chunks(k + 1);
    const int32_t *tokens = d->tokens + row * k;
    double weight = all->weights[row], *numbers = space;
    real *x = (real *)(void *)(numbers + 4 * chunks), *y = x + short_padded, *ex = y + short_padded, *ey = ex + short_padded;
    double *long_numbers = (double *)(void *)((char *)space + fd_pad((int64_t)((char *)(ey + short_padded) - (char *)space), 64));
    real *e = (real *)(void *)(long_numbers + 4 * divergence_chunks(vocab));
    real *gradient = all->gradient ? (real *)all->gradient + row * vocab : NULL, inverse = (real)(1.0 / set->temperature);
    all->values[row] = all->label_values[row] = 0.0;
    if (weight == 0.0) {
        if (gradient) memset(gradient, 0, (size_t)vocab * sizeof *gradient);
        return;
    }
    struct NAME(divergence_law) law = {divergence_at(all->student, set->student_numbers, row * vocab), set->student_numbers, 0, inverse, e,
                                       long_numbers, long_numbers + divergence_chunks(vocab), 0, 0};
    if (!NAME(divergence_measure)(&law, vocab, 1)) { all->values[row] = NAN; return; }
    struct NAME(divergence_label) label = NAME(divergence_to_label)(all, row, &law, long_numbers + 2 * divergence_chunks(vocab));
    all->label_values[row] = label.value;

    for (int64_t j = 0; j < k; j++) {
        int listed = tokens[j] >= 0;
        x[j] = listed ? (NAME(divergence_entry)(&law, tokens[j]) - law.most) * inverse - law.log_sum : -INFINITY;
        y[j] = listed ? ((const real *)d->teacher)[row * k + j] * (d->tail ? 1 : inverse) : -INFINITY;
    }
    double mass;
    int far;
    real tail = NAME(divergence_tail)(&law, vocab, k, tokens, &mass, &far);
    if (tail != tail) { all->values[row] = -INFINITY; return; }
    if (d->tail) {
        x[k] = tail;
        y[k] = ((const real *)d->tail)[row];
    }
    int numbers_are = sizeof(real) == 8 ? FD_NUMBERS_F64 : FD_NUMBERS_F32;
    struct NAME(divergence_law) q = {x, numbers_are, 0, 1, ex, numbers, numbers + chunks, 0, 0},
                                p = {y, numbers_are, 0, 1, ey, numbers + 2 * chunks, numbers + 3 * chunks, 0, 0};
    int good = NAME(divergence_measure)(&q, width, 1);
    good &= NAME(divergence_measure)(&p, width, 1);
    if (!good) { all->values[row] = NAN; return; }
    double slope, mean;
    all->values[row] = NAME(divergence_between)(set, &q, &p, width, gradient != NULL, &slope, &mean);
    if (!gradient) return;

    double by = weight * set->scale * slope / set->temperature;
    for (int64_t j = 0; j < width; j++) ey[j] = (real)(by * ((double)ey[j] - mean * (double)ex[j]));    /* the short row's gradient */
    double share = 0.0;                                 /* of a token that is not listed: g' of the tail, over what it has a share of */
    if (d->tail && mass > 0.0) share = (double)ey[k] / mass;
    label.tempered |= far && label.token >= 0;          /* its law is not in the e's */
    NAME(divergence_plain)(k, tokens, &label, ey);
    NAME(divergence_write)(vocab, 0.0, NULL, share, e, law.factors, &label, gradient);
    for (int64_t j = 0; j < k; j++)
        if (tokens[j] >= 0) gradient[tokens[j]] += ey[j];
}
