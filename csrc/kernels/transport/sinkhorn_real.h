/* sinkhorn_real.h - the passes of sinkhorn.c over costs, kernel and columns, for floats or for doubles. */

/* Costs of some rows -> out (rows, padded); what is beyond the last column is forbidden. */
static void NAME(cost_rows)(const struct sinkhorn_costs *c, int64_t row, int64_t rows, real *out)
{
    if (c->metric == FD_GIVEN)
        for (int64_t r = 0; r < rows; r++)
            memcpy(out + r * c->padded, (const real *)c->cost + (row + r) * c->cost_stride, (size_t)c->m * sizeof(real));
    else NAME(distance_rows)(c->metric, rows, c->d, (const real *)c->x + row * c->d, c->padded, c->y, out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = c->m; j < c->padded; j++) out[r * c->padded + j] = INFINITY;
}

/* (potential_j - cost_j / epsilon) of 16 columns, or of 16 rows likewise, in doubles: what is left of two large numbers is rounded once */
static inline vd NAME(exponent)(const real *cost, vd inverse, vd potential) { return vd_fnma(WIDE(VR(load)(cost)), inverse, potential); }

/* k (rows, padded), weight (padded,) -> sums (rows,) */
FD_INLINE void NAME(sum_rows)(int rows, int64_t padded, const real *k, const real *weight,
                                                                 double *sums)
{
    vr sum[REAL_ROWS];
    FD_ROWS sum[r] = VR(zero)();
    for (int64_t j = 0; j < padded; j += 16) {
        vr w = VR(load)(weight + j);
        FD_ROWS sum[r] = VR(fma)(VR(load)(k + r * padded + j), w, sum[r]);
    }
    FD_ROWS sums[r] = (double)VR(sum)(sum[r]);
}
/* total (padded,) += scale[0] k[0] + scale[1] k[1] + ..., in this sequence */
FD_INLINE void NAME(add_rows)(int rows, int64_t padded, const real *k, const real *scale,
                                                                 real *total)
{
    for (int64_t j = 0; j < padded; j += 16) {
        vr sum = VR(load)(total + j);
        FD_ROWS sum = VR(fma)(VR(set1)(scale[r]), VR(load)(k + r * padded + j), sum);
        VR(store)(total + j, sum);
    }
}
static void NAME(add_block)(int64_t rows, int64_t padded, const real *k, const real *scale, real *total)
{
    if (rows == REAL_ROWS) { NAME(add_rows)(REAL_ROWS, padded, k, scale, total); return; }
    for (int64_t r = 0; r < rows; r++) NAME(add_rows)(1, padded, k + r * padded, scale + r, total);
}

static void NAME(scan_row)(int64_t padded, const real *cost, struct sinkhorn_tile *tile)
{
    vd least = vd_set1(tile->low), most = vd_set1(tile->high), nan = vd_zero();
    for (int64_t j = 0; j < padded; j += 16) {
        vd c = WIDE(VR(load)(cost + j)), size = vd_abs(c);
        least = vd_min(c, least);
        most = vd_max(vd_where_less(size, vd_set1(INFINITY), size, vd_zero()), most);
        nan = vd_max(vd_where_less(vd_set1(-1.0), size, vd_zero(), vd_set1(1.0)), nan);
    }
    tile->low = fd_min_lane_double(least);
    tile->high = fd_max_lane_double(most);
    if (tile->low == -INFINITY || fd_max_lane_double(nan) > 0.0) tile->flags |= SINKHORN_NOT_FINITE;
}

/* A row whose largest exponents meet the smallest masses: masses are exponents too.  Returns log sum_j b_j exp(gamma_j - cost_j / epsilon)
 * and leaves the row's costs. */
static double NAME(weigh_row)(const struct sinkhorn *p, int64_t row, real *k)
{
    const vd inverse = vd_set1(p->inverse);
    vd most = vd_set1(-INFINITY), sum = vd_zero();
    NAME(cost_rows)(&p->costs, row, 1, k);
    for (int64_t j = 0; j < p->padded; j += 16)
        most = vd_max(NAME(exponent)(k + j, inverse, vd_add(vd_load(p->gamma + j), vd_load(p->log_masses + j))), most);
    double peak = fd_max_lane_double(most);
    for (int64_t j = 0; j < p->padded; j += 16) {
        vd x = NAME(exponent)(k + j, inverse, vd_add(vd_load(p->gamma + j), vd_load(p->log_masses + j)));
        sum = vd_add(sum, vd_exp(vd_sub(x, vd_set1(peak))));
    }
    return peak + fd_log_double(vd_sum(sum));
}
/* One row in the log domain: phi, and the row's kernel in place of its costs, whose scale is returned; 0 for a dead row. */
static double NAME(build_row)(const struct sinkhorn *p, int64_t row, real *k, struct sinkhorn_tile *tile)
{
    const double *reach = p->reach, *gamma = p->gamma;                                     /* (padded,) */
    const real *weight = p->weight;                                                        /* (padded,) */
    const vd inverse = vd_set1(p->inverse);
    vd most = vd_set1(-INFINITY);
    for (int64_t j = 0; j < p->padded; j += 16) most = vd_max(NAME(exponent)(k + j, inverse, vd_load(reach + j)), most);
    double peak = fd_max_lane_double(most);
    if (peak == -INFINITY) {                             /* every column with mass is forbidden */
        p->phi[row] = p->fresh_phi[row] = -INFINITY;
        memset(k, 0, (size_t)p->padded * sizeof(real));
        return 0.0;
    }
    const vd shift = vd_set1(peak), cap = vd_set1(SINKHORN_CAP(real));
    vr sum = VR(zero)();
    for (int64_t j = 0; j < p->padded; j += 16) {
        vd x = vd_sub(NAME(exponent)(k + j, inverse, vd_load(gamma + j)), shift);           /* above 0 only where there is no mass */
        vr e = REAL_EXP(NARROW(vd_min(x, cap)));
        VR(store)(k + j, e);
        sum = VR(fma)(e, VR(load)(weight + j), sum);
    }
    double total = (double)VR(sum)(sum), log_sum = peak + fd_log_double(total), *phi = p->phi + row;
    int few = total < SINKHORN_FEW(real);
    if (few) log_sum = NAME(weigh_row)(p, row, k);
    *phi = p->fresh_phi[row] = -p->lambda[0] * (log_sum + p->log_b);
    double fit = few ? 1.0 : p->kappa[0] == 0.0 ? 1.0 / total : fd_exp_double(*phi + p->log_b + peak);
    if (few || !(fit <= SINKHORN_MOST(real))) tile->flags |= SINKHORN_CAPPED;
    if (few) {
        const vd potential = vd_set1(*phi + p->log_b);
        for (int64_t j = 0; j < p->padded; j += 16) {
            vd x = vd_add(NAME(exponent)(k + j, inverse, vd_load(gamma + j)), potential);
            VR(store)(k + j, REAL_EXP(NARROW(vd_min(x, cap))));
        }
    }
    return fmin(fit, SINKHORN_MOST(real));
}

/* New scales of some rows from their sums -> u (rows,) */
static void NAME(scale_rows)(const struct sinkhorn *p, int64_t row, int64_t rows, const double *sums, struct sinkhorn_tile *tile)
{
    double s[16], u[16], phi[16];
    for (int64_t r = 0; r < 16; r++) {
        int alive = r < rows && p->phi[row + r] > -INFINITY;
        s[r] = alive ? sums[r] : 1.0;
        phi[r] = alive ? p->phi[row + r] : 0.0;
        if (!(s[r] >= 1.0 / SINKHORN_HARD(real) && s[r] <= SINKHORN_HARD(real))) { tile->flags |= SINKHORN_FAILED; s[r] = 1.0; }
    }
    if (p->kappa[0] == 0.0) vd_store(u, vd_div(vd_set1(1.0), vd_load(s)));
    else {
        vd old = vd_load(phi);
        vd fresh = vd_mul(vd_set1(-p->lambda[0]), vd_sub(vd_log(vd_load(s)), old));
        vd_store(u, vd_exp(vd_sub(fresh, old)));
        vd_store(phi, fresh);
    }
    for (int64_t r = 0; r < rows; r++) {
        int alive = p->phi[row + r] > -INFINITY;
        p->u[row + r] = alive ? u[r] : 1.0;
        if (alive) p->fresh_phi[row + r] = phi[r];
        if (!alive || (u[r] >= 1.0 / SINKHORN_SOFT(real) && u[r] <= SINKHORN_SOFT(real))) continue;
        tile->flags |= u[r] >= 1.0 / SINKHORN_HARD(real) && u[r] <= SINKHORN_HARD(real) ? SINKHORN_DRIFTED : SINKHORN_FAILED;
    }
}

/* One row of the plan in place of its costs.  Masses are exponents: over a small one the plan may not fit a number. */
static void NAME(evaluate_row)(const struct sinkhorn *p, int64_t row, real *k, struct sinkhorn_tile *tile)
{
    const vd inverse = vd_set1(p->inverse), phi = vd_set1(p->phi[row] + p->log_b + p->log_a[row]);
    vr sum = VR(zero)(), cost = VR(zero)();
    for (int64_t j = 0; j < p->padded; j += 16) {
        vr c = VR(min)(VR(load)(k + j), VR(set1)(SINKHORN_LARGEST(real)));
        vd gamma = vd_add(vd_load(p->gamma + j), vd_load(p->log_masses + j));
        vr mass = REAL_EXP(NARROW(vd_add(NAME(exponent)(k + j, inverse, gamma), phi)));
        VR(store)(k + j, mass);
        sum = VR(add)(sum, mass);
        cost = VR(fma)(mass, c, cost);
    }
    double mass = (double)VR(sum)(sum);
    tile->value += (double)VR(sum)(cost);
    tile->mass += mass;
    tile->error += fabs(mass - sinkhorn_target(p, 0, row));
}

/* A pass over rows [begin, end) of each tile, here of one tile. */
static void NAME(sinkhorn_tile)(struct sinkhorn *p, int64_t index)
{
    int phase = p->state->phase;
    struct sinkhorn_tile *tile = p->results + index;
    int64_t padded = p->padded, first = index * p->tile_rows, last = fd_min(p->costs.n, first + p->tile_rows);
    int64_t begin = first + p->begin, end = fd_min(last, first + p->end);
    real *total = (real *)p->partial + index * padded, *kernel = p->kernel;
    if (p->begin == 0) {
        *tile = (struct sinkhorn_tile){.low = INFINITY};
        for (int64_t j = 0; j < padded; j++) total[j] = phase == SINKHORN_COLUMN_MAX ? -INFINITY : 0;
    }
    if (begin >= end) return;
    int slot = phase == SINKHORN_FAST ? -1 : sinkhorn_take(p->slots);
    real *buffer = slot < 0 ? NULL : (real *)(p->slots->base + slot * p->slots->bytes);    /* (REAL_ROWS, padded) */
    const vd inverse = vd_set1(p->inverse);
    for (int64_t i = begin; i < end; i += REAL_ROWS) {
        int64_t rows = fd_min(REAL_ROWS, end - i);
        real scale[REAL_ROWS];
        real *k = kernel ? kernel + i * padded : NULL;
        if (buffer) NAME(cost_rows)(&p->costs, i, rows, buffer);
        switch (phase) {
        case SINKHORN_SCAN:
            for (int64_t r = 0; r < rows; r++) NAME(scan_row)(padded, buffer + r * padded, tile);
            break;
        case SINKHORN_BUILD:
            for (int64_t r = 0; r < rows; r++) {
                real *e = buffer + r * padded;
                double a = p->a[i + r], fit = NAME(build_row)(p, i + r, e, tile);
                p->u[i + r] = 1.0;
                if (fit == 0.0) tile->value += a;                                          /* cannot go anywhere */
                scale[r] = (real)(a * fit);
                if (k) {
                    for (int64_t j = 0; j < padded; j += 16)
                        VR(store)(k + r * padded + j, VR(mul)(VR(load)(e + j), VR(set1)((real)fit)));
                    scale[r] = (real)a;
                }
            }
            NAME(add_block)(rows, padded, k ? k : buffer, scale, total);
            break;
        case SINKHORN_FAST: {
            double sums[REAL_ROWS];
            if (rows == REAL_ROWS) NAME(sum_rows)(REAL_ROWS, padded, k, p->weight, sums);
            else for (int64_t r = 0; r < rows; r++) NAME(sum_rows)(1, padded, k + r * padded, p->weight, sums + r);
            NAME(scale_rows)(p, i, rows, sums, tile);
            for (int64_t r = 0; r < rows; r++) scale[r] = (real)(p->a[i + r] * p->u[i + r]);
            NAME(add_block)(rows, padded, k, scale, total);
            break;
        }
        case SINKHORN_COLUMN_MAX:
        case SINKHORN_COLUMN_SUM:
            for (int64_t r = 0; r < rows; r++) {
                const vd phi = vd_set1(p->phi[i + r] + p->log_b + p->log_a[i + r]);
                if (p->log_a[i + r] == -INFINITY || p->phi[i + r] == -INFINITY) continue;
                for (int64_t j = 0; j < padded; j += 16) {
                    vd x = NAME(exponent)(buffer + r * padded + j, inverse, phi);
                    vr old = VR(load)(total + j);
                    if (phase == SINKHORN_COLUMN_MAX) VR(store)(total + j, VR(max)(NARROW(x), old));
                    else VR(store)(total + j, VR(add)(old, REAL_EXP(NARROW(vd_sub(x, vd_load(p->peak + j))))));
                }
            }
            break;
        default:
            for (int64_t r = 0; r < rows; r++) {
                NAME(evaluate_row)(p, i + r, buffer + r * padded, tile);
                scale[r] = 1;
            }
            NAME(add_block)(rows, padded, buffer, scale, total);
        }
    }
    if (slot >= 0) sinkhorn_give(p->slots, slot);
}

/* What the tiles found for 16 columns, merged in their order. */
static inline vd NAME(merged)(const struct sinkhorn *p, int64_t j, int largest)
{
    const real *partial = p->partial;
    vd all = WIDE(VR(load)(partial + j));
    for (int64_t tile = 1; tile < p->tiles; tile++) {
        vd one = WIDE(VR(load)(partial + tile * p->padded + j));
        all = largest ? vd_max(one, all) : vd_add(all, one);
    }
    return all;
}
/* The weights of the next pass: masses times v; and where they are, the potentials. */
static void NAME(set_weights)(struct sinkhorn *p)
{
    real *weight = p->weight;
    for (int64_t j = 0; j < p->padded; j += 16) {
        vd b = vd_load(p->b + j);
        VR(store)(weight + j, NARROW(vd_mul(b, vd_load(p->v + j))));
        vd_store(p->reach + j, vd_where_less(vd_zero(), b, vd_load(p->gamma + j), vd_set1(-INFINITY)));
    }
}
static void NAME(absorb_columns)(struct sinkhorn *p)
{
    sinkhorn_absorb(p->costs.m, p->kappa[1], p->gamma, p->v, p->fresh_gamma);
    NAME(set_weights)(p);
}
static void NAME(start_evaluation)(struct sinkhorn *p)
{
    sinkhorn_absorb(p->costs.n, p->kappa[0], p->phi, p->u, p->fresh_phi);
    sinkhorn_absorb(p->costs.m, p->kappa[1], p->gamma, p->v, p->fresh_gamma);
    if (p->kappa[0] == 0.0 && p->kappa[1] == 0.0) sinkhorn_set_gauge(p);
    NAME(set_weights)(p);
    p->state->phase = SINKHORN_EVALUATE;
}

static void NAME(start_columns)(struct sinkhorn *p)
{
    sinkhorn_absorb(p->costs.n, p->kappa[0], p->phi, p->u, p->fresh_phi);
    NAME(absorb_columns)(p);
    p->state->phase = SINKHORN_COLUMN_MAX;
}

/* After the rows of an iteration: column masses, their error, and new scales of columns. */
static void NAME(end_iteration)(struct sinkhorn *p, int flags)
{
    struct sinkhorn_state *state = p->state;
    const double kappa = p->kappa[1];
    const vd none = vd_set1(-1e300);
    vd error = vd_zero(), low = vd_set1(1.0), high = vd_set1(1.0);
    for (int64_t j = 0; j < p->padded; j += 16) {
        vd gamma = vd_load(p->gamma + j), v = vd_load(p->v + j), b = vd_load(p->b + j);
        vd total = NAME(merged)(p, j, 0), target = vd_mul(b, vd_set1(p->ratio));
        if (kappa != 0.0) {
            vd now = vd_load(p->fresh_gamma + j), wanted = vd_add(vd_load(p->log_masses + j), vd_set1(p->log_ratio));
            target = vd_where_less(none, gamma, vd_exp(vd_fnma(vd_set1(kappa), now, wanted)), vd_zero());
        }
        error = vd_add(error, vd_abs(vd_sub(vd_mul(vd_mul(b, v), total), target)));
        vd still = vd_set1(p->ratio);                                                      /* dead and massless columns: v stays 1 */
        total = vd_where_less(none, gamma, vd_where_less(vd_zero(), b, total, still), still);
        low = vd_min(total, low);
        high = vd_max(total, high);
        vd_store(p->peak + j, total);
    }
    int failed = fd_min_lane_double(low) < 1.0 / SINKHORN_HARD(real) || !(fd_max_lane_double(high) <= SINKHORN_HARD(real));
    if (failed || flags & SINKHORN_CAPPED) { NAME(start_columns)(p); return; }
    sinkhorn_count(p, vd_sum(error));
    if (state->last && state->massless) { NAME(start_columns)(p); return; }
    if (state->last) { NAME(start_evaluation)(p); return; }
    if (kappa != 0.0)
        for (int64_t j = 0; j < p->padded; j += 16) {
            vd gamma = vd_load(p->gamma + j), total = vd_load(p->peak + j);
            vd fresh = vd_mul(vd_set1(-p->lambda[1]), vd_sub(vd_sub(vd_log(total), gamma), vd_set1(p->log_ratio)));
            fresh = vd_where_less(none, gamma, vd_where_less(vd_zero(), vd_load(p->b + j), fresh, gamma), gamma);
            vd_store(p->fresh_gamma + j, fresh);
        }
    const double shift = sinkhorn_shift(p), far = kappa == 0.0 && fabs(shift) > SINKHORN_CAP(real) / 4.0 ? shift : 0.0;  /* for a scale */
    low = vd_set1(1.0), high = vd_set1(1.0);
    for (int64_t j = 0; j < p->padded; j += 16) {
        vd gamma = vd_load(p->gamma + j), v = vd_div(vd_set1(p->ratio), vd_load(p->peak + j));
        if (kappa != 0.0) {
            vd fresh = vd_sub(vd_load(p->fresh_gamma + j), vd_set1(shift));
            vd_store(p->fresh_gamma + j, fresh);
            v = vd_where_less(none, gamma, vd_exp(vd_sub(fresh, gamma)), vd_set1(1.0));
        } else if (shift != far) v = vd_where_less(none, gamma, vd_mul(v, vd_exp(vd_set1(-shift))), vd_set1(1.0));
        low = vd_min(v, low);
        high = vd_max(v, high);
        vd_store(p->v + j, v);
    }
    int drifted = fd_min_lane_double(low) < 1.0 / SINKHORN_SOFT(real) || !(fd_max_lane_double(high) <= SINKHORN_SOFT(real));
    if (drifted || flags & SINKHORN_DRIFTED || !p->kernel || far != 0.0) {
        NAME(absorb_columns)(p);
        if (far != 0.0) {
            for (int64_t j = 0; j < p->padded; j++) p->gamma[j] -= far;
            NAME(set_weights)(p);
        }
        state->phase = SINKHORN_BUILD;
    } else {
        NAME(set_weights)(p);
        state->phase = SINKHORN_FAST;
    }
}

/* After a pass over all rows: what the tiles found, merged, and which pass is next. */
static void NAME(sinkhorn_columns)(struct sinkhorn *p)
{
    struct sinkhorn_state *state = p->state;
    struct sinkhorn_tile all = {.low = INFINITY};
    for (int64_t tile = 0; tile < p->tiles; tile++) {
        const struct sinkhorn_tile *one = p->results + tile;
        all.error += one->error;
        all.value += one->value;
        all.mass += one->mass;
        all.high = one->high > all.high ? one->high : all.high;
        all.flags |= one->flags;
    }
    switch (state->phase) {
    case SINKHORN_SCAN:
        if (all.flags & SINKHORN_NOT_FINITE) sinkhorn_stop(p, FD_COST_NOT_FINITE);
        else if (!(all.high * p->inverse <= 0x1p50)) sinkhorn_stop(p, FD_EPSILON_TOO_SMALL);
        else state->phase = SINKHORN_BUILD;
        break;
    case SINKHORN_BUILD:
    case SINKHORN_FAST:
        if (all.value > state->goal && p->kappa[0] == 0.0) sinkhorn_stop(p, FD_INFEASIBLE);
        else if (all.flags & SINKHORN_FAILED) {                                            /* this pass again, in the log domain */
            NAME(absorb_columns)(p);
            state->phase = SINKHORN_BUILD;
        } else NAME(end_iteration)(p, all.flags);
        break;
    case SINKHORN_COLUMN_MAX:
        for (int64_t j = 0; j < p->padded; j += 16) {
            vd peak = NAME(merged)(p, j, 1), none = vd_set1(-INFINITY);
            vd_store(p->v + j, vd_where_less(none, peak, vd_set1(1.0), vd_zero()));        /* 0: a dead column */
            vd_store(p->peak + j, vd_where_less(none, peak, peak, vd_zero()));
        }
        state->phase = SINKHORN_COLUMN_SUM;
        break;
    case SINKHORN_COLUMN_SUM: {
        double error = 0.0, stuck = 0.0;
        for (int64_t j = 0; j < p->padded; j += 16) {
            double total[16];
            vd_store(total, NAME(merged)(p, j, 0));
            for (int64_t i = j; i < j + 16; i++) {
                int dead = p->v[i] == 0.0;
                double target = sinkhorn_target(p, 1, i);
                p->peak[i] = dead ? -INFINITY : p->peak[i] + fd_log_double(total[i - j]);
                if (dead) stuck += p->b[i];
                error += fabs(p->b[i] * fd_exp_double(p->gamma[i] + p->peak[i]) - target);
                p->v[i] = 1.0;
            }
        }
        if (!state->last) sinkhorn_count(p, error);
        for (int64_t i = 0; i < p->padded; i++) {
            if (!state->last || p->b[i] == 0.0)
                p->gamma[i] = p->peak[i] == -INFINITY ? -INFINITY : -p->lambda[1] * (p->peak[i] - p->log_ratio);
            p->fresh_gamma[i] = p->gamma[i];
        }
        const double shift = state->last ? 0.0 : sinkhorn_shift(p);
        if (shift != 0.0)
            for (int64_t i = 0; i < p->padded; i++) p->fresh_gamma[i] = p->gamma[i] -= shift;
        NAME(set_weights)(p);
        if (2.0 * stuck > state->goal && p->kappa[1] == 0.0) sinkhorn_stop(p, FD_INFEASIBLE);
        else if (state->last) NAME(start_evaluation)(p);
        else state->phase = SINKHORN_BUILD;
        break;
    }
    default: {
        vd error = vd_zero();
        for (int64_t j = 0; j < p->padded; j += 16) {
            double target[16];
            for (int64_t i = 0; i < 16; i++) target[i] = sinkhorn_target(p, 1, j + i);
            error = vd_add(error, vd_abs(vd_sub(NAME(merged)(p, j, 0), vd_load(target))));
        }
        sinkhorn_evaluated(p, all.value, all.mass, all.error, vd_sum(error));
    }
    }
}
