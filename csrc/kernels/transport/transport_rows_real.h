/* transport_rows_real.h - the bodies of transport_rows.c, for floats or for doubles. */

/* One row of costs becomes one of the plan; of the plan over the distance, where that is what a gradient weighs with. */
static void NAME(plan_row)(const struct transport_rows *p, double phi, int over_distance, real *k)
{
    const vd inverse = vd_set1(p->inverse), potential = vd_set1(phi);
    const vr factor = VR(set1)((real)p->scale), zero = VR(zero)();
    for (int64_t j = 0; j < p->costs.padded; j += 16) {
        vr c = VR(load)(k + j);
        vr mass = VR(mul)(REAL_EXP(NARROW(vd_add(NAME(exponent)(k + j, inverse, vd_load(p->gamma + j)), potential))), factor);
        if (over_distance) mass = NARROW(vd_where_less(vd_zero(), WIDE(c), WIDE(VR(div)(mass, c)), WIDE(zero)));
        VR(store)(k + j, mass);
    }
}
/* k (rows, padded), x (rows, d), y (padded / 16, d, 16) -> out (rows, d): sum_j k_j (x - y_j), or of the signs, or of -y_j */
FD_INLINE void NAME(pull_rows)(int metric, int rows, const struct transport_rows *p, const real *k,
                                                                  const real *x, real *out)
{
    const struct sinkhorn_costs *c = &p->costs;
    for (int64_t i = 0; i < c->d; i++) {
        const real *y = (const real *)c->y + 16 * i;
        vr sum[REAL_ROWS];
        FD_ROWS sum[r] = VR(zero)();
        for (int64_t j = 0; j < c->padded; j += 16) {
            vr there = VR(load)(y + j * c->d);
            FD_ROWS {
                vr weight = VR(load)(k + r * c->padded + j), apart = VR(sub)(VR(set1)(metric == FD_COSINE ? 0 : x[r * c->d + i]), there);
                if (metric == FD_L1) {
                    vd wide = WIDE(apart), one = vd_set1(1.0);
                    apart = NARROW(vd_sub(vd_where_less(vd_zero(), wide, one, vd_zero()), vd_where_less(wide, vd_zero(), one, vd_zero())));
                }
                sum[r] = VR(fma)(weight, apart, sum[r]);
            }
        }
        FD_ROWS out[r * c->d + i] = VR(sum)(sum[r]) * (metric == FD_SQEUCLIDEAN ? 2 : 1);
    }
}
static void NAME(pull_block)(int64_t rows, const struct transport_rows *p, const real *k, const real *x, real *out)
{
#define FD_PULL(metric) do { \
        if (rows == REAL_ROWS) NAME(pull_rows)(metric, REAL_ROWS, p, k, x, out); \
        else for (int64_t r = 0; r < rows; r++) \
            NAME(pull_rows)(metric, 1, p, k + r * p->costs.padded, x + r * p->costs.d, out + r * p->costs.d); \
    } while (0)
    switch (p->costs.metric) {
    case FD_SQEUCLIDEAN: FD_PULL(FD_SQEUCLIDEAN); break;
    case FD_EUCLIDEAN: FD_PULL(FD_EUCLIDEAN); break;
    case FD_L1: FD_PULL(FD_L1); break;
    default: FD_PULL(FD_COSINE); break;
    }
#undef FD_PULL
}
static void NAME(transport_rows_range)(void *context, int64_t begin, int64_t end)
{
    struct transport_rows *p = context;
    const struct sinkhorn_costs *c = &p->costs;
    int slot = sinkhorn_take(&p->slots), over_distance = p->kind == FD_GRADIENT && c->metric == FD_EUCLIDEAN;
    real *buffer = (real *)(p->slots.base + slot * p->slots.bytes);                        /* (REAL_ROWS, padded) */
    for (int64_t i = begin; i < end; i += REAL_ROWS) {
        int64_t rows = fd_min(REAL_ROWS, end - i), row = p->first + i;
        NAME(cost_rows)(c, row, rows, buffer);
        for (int64_t r = 0; r < rows; r++)
            NAME(plan_row)(p, p->phi[row + r] + p->log_b + fd_log_double(p->a[row + r]), over_distance, buffer + r * c->padded);
        if (p->kind == FD_PLAN)
            for (int64_t r = 0; r < rows; r++)
                memcpy((real *)p->out + (i + r) * p->t->m, buffer + r * c->padded, (size_t)c->m * sizeof(real));
        else if (p->kind == FD_GRADIENT)
            NAME(pull_block)(rows, p, buffer, (const real *)c->x + row * c->d, (real *)p->out + i * c->d);
        else for (int64_t k = 0; k < p->width; k++) {
            const real *values = (const real *)p->values + k * c->values_stride;
            double sums[REAL_ROWS];
            if (rows == REAL_ROWS) NAME(sum_rows)(REAL_ROWS, c->padded, buffer, values, sums);
            else for (int64_t r = 0; r < rows; r++) NAME(sum_rows)(1, c->padded, buffer + r * c->padded, values, sums + r);
            for (int64_t r = 0; r < rows; r++) ((real *)p->out)[(i + r) * p->width + k] = (real)sums[r];
        }
    }
    sinkhorn_give(&p->slots, slot);
}
