/* sinkhorn.c - entropic optimal transport: potentials whose plan a_i b_j exp(phi_i + gamma_j - cost_ij / epsilon) has the marginals a, b.
 *
 * An iteration is one pass over the rows: the sum of a row gives its new phi, and the row so scaled is added to the column sums, which
 * give the new gammas.  Rows with exact sums leave the error of the columns as the error of the plan, at no cost.
 *
 *   FAST        over the stored kernel K = exp(phi + gamma - cost / epsilon) with scales u, v beside it: two multiply-adds an entry.
 *   BUILD       the same in the log domain, from the costs: each row's largest exponent is taken out first.  It stores K anew.
 *   COLUMN_MAX, COLUMN_SUM       new gammas in the log domain, when column sums of K say too little.
 *   SCAN        before all: are the costs numbers?      EVALUATE    after all: the plan of the final potentials is measured.
 *
 * FAST is the log domain's answer as long as what K has lost to underflow does not count: entries below 1e-307 (1e-37 in floats).  Where
 * a scale passes SOFT, the next pass builds K anew around the potentials reached; where a sum passes HARD, it is not used: the pass is
 * done again in the log domain.  Costs from points are computed in a few rows at a time and never stored, so every pass is a BUILD.
 *
 * Rows are cut into at most 32 tiles, fixed by shape.  Each has column sums of its own, merged in order: any number of threads gives
 * the same bits.  A pass over many rows is cut again, into rows begin..end of each tile, so that a call ends in time; all that it needs
 * to go on is in the workspace.
 *
 * Unbalanced: phi = -lambda log sum (lambda = tau / (tau + epsilon)), and the plan's marginal is a exp(-kappa phi), kappa = epsilon / tau.
 * An iteration ends with the best shift of phi against gamma.
 * Masses have total 1 here: the kernel has b's true total as a factor, and is a plan's over a's total.  Potentials of rows and columns
 * that reach no mass are -inf here: they carry nothing.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "distance_rows.c"

enum { SINKHORN_TILE = 64, SINKHORN_TILES = 32, SINKHORN_STEP = 8 };    /* least rows of a tile; most tiles; a multiple of REAL_ROWS */
enum { SINKHORN_SHARED = 1 << 18 };     /* pairs of a FAST pass of some 30 us: a shorter one does not pay for waiting on a thread */
enum { SINKHORN_SCAN, SINKHORN_BUILD, SINKHORN_FAST, SINKHORN_COLUMN_MAX, SINKHORN_COLUMN_SUM, SINKHORN_EVALUATE, SINKHORN_DONE };
enum { SINKHORN_NOT_FINITE = 1, SINKHORN_FAILED = 2, SINKHORN_DRIFTED = 4, SINKHORN_CAPPED = 8 };
/* With the smallest number kept 10^-e (307, 37): SOFT^2 HARD 10^-e is far below the rounding of a sum above 1 / HARD; CAP, MOST and HARD
 * keep products finite, so that 0 times one is 0. */
#define SINKHORN_SOFT(real) (sizeof(real) == 8 ? 1e40 : 1e6)
#define SINKHORN_HARD(real) (sizeof(real) == 8 ? 1e120 : 1e10)
#define SINKHORN_CAP(real) (sizeof(real) == 8 ? 300.0 : 30.0)           /* of an exponent: e^300 = 1e130, e^30 = 1e13 */
#define SINKHORN_MOST(real) (sizeof(real) == 8 ? 1e150 : 1e20)          /* of a row's scale */
#define SINKHORN_FEW(real) (sizeof(real) == 8 ? 1e-250 : 1e-25)         /* a sum that lost terms may be of consequence to */
#define SINKHORN_ROUNDING 0x1p-45                                       /* of a logarithm of a total, */
#define SINKHORN_FARTHEST 0x1p40                                        /* and how far potentials are moved at once, in epsilons */
#define SINKHORN_LARGEST(real) (sizeof(real) == 8 ? (real)1e300 : (real)3e38f)             /* in place of an infinite cost */

struct sinkhorn_costs {                     /* of one problem */
    int metric;
    int64_t n, m, d, padded, cost_stride, values_stride;
    const void *cost, *x, *y;
};
struct sinkhorn_tile { double error, value, mass, low, high; int flags; };
struct sinkhorn_state {
    int phase, last, massless;              /* last: no more iterations, unless the evaluation says so; massless: some columns are, ... */
                                            /* ... which get their potentials at the end */
    int64_t iterations, row, tile;          /* rows of each tile from which the pass goes on, and the first tile that has not come to them */
    double goal, error;
    double pairs[2];                        /* that a stretch of passes should have, to take a few milliseconds: of FAST, of others */
};
struct sinkhorn_slots { char *base; int64_t bytes; _Atomic uint64_t taken; };
struct sinkhorn {                           /* one problem, as the passes see it */
    const struct fd_transport *t;
    struct sinkhorn_state *state;
    struct sinkhorn_costs costs;
    int64_t index, padded, tile_rows, tiles, begin, end, from, some;    /* rows and tiles of the stretch of a pass that is run */
    _Atomic int stop;                       /* leave the stages that are left */
    double inverse, lambda[2], kappa[2], log_b, ratio, log_ratio;       /* of b's total, and of it over a's */
    const double *a;                        /* (n,) */
    double *log_a, *log_masses;             /* (n padded,), (padded,) logarithms of a and b, -inf where there is no mass */
    double *phi, *u, *fresh_phi;            /* (n padded,) potentials in the kernel, scales, and where unbalanced the two together */
    double *gamma, *v, *fresh_gamma, *b, *reach, *peak;                 /* (padded,) */
    void *weight, *partial, *kernel;        /* (padded,), (tiles, padded), (n, padded) or NULL */
    struct sinkhorn_tile *results;          /* (tiles,) */
    struct sinkhorn_slots *slots;
};

static int sinkhorn_take(struct sinkhorn_slots *slots)                  /* one of 64; no more threads than that run */
{
    uint64_t taken = slots->taken;
    for (;;) {
        int free = __builtin_ctzll(~taken);
        if (atomic_compare_exchange_weak(&slots->taken, &taken, taken | 1ull << free)) return free;
    }
}
static void sinkhorn_give(struct sinkhorn_slots *slots, int slot) { atomic_fetch_and(&slots->taken, ~(1ull << slot)); }

/* An iteration ends with this error. */
static void sinkhorn_count(struct sinkhorn *p, double error)
{
    struct sinkhorn_state *state = p->state;
    if (p->t->errors) p->t->errors[p->index * p->t->most_iterations + state->iterations] = error;
    state->error = error;
    state->iterations++;
    state->last = error <= state->goal || state->iterations >= p->t->max_iterations[p->index];
}
/* Scales go into potentials, arrays of which are padded to 16: log scale is added, or the fresh ones taken where kappa would magnify the
 * rounding of a logarithm. */
static void sinkhorn_absorb(int64_t n, double kappa, double *potential, double *scale, const double *fresh)
{
    for (int64_t i = 0; i < n; i += 16) {
        vd sum = vd_add(vd_load(potential + i), vd_log(vd_load(scale + i)));
        vd_store(potential + i, kappa == 0.0 ? sum : vd_load(fresh + i));
        vd_store(scale + i, vd_set1(1.0));
    }
}
/* The mass that the potential of a row or of a column asks for, in units of a's total.  As exponents: one factor alone may not fit. */
static double sinkhorn_target(const struct sinkhorn *p, int side, int64_t i)
{
    double kappa = p->kappa[side], potential = side == 0 ? p->phi[i] : p->gamma[i];
    if (kappa == 0.0) return side == 0 ? p->a[i] : p->b[i] * p->ratio;
    if (potential == -INFINITY) return 0.0;
    return fd_exp_double((side == 0 ? p->log_a[i] : p->log_masses[i] + p->log_ratio) - kappa * potential);
}
/* sum a phi = sum b gamma, over those that reach something */
static void sinkhorn_set_gauge(struct sinkhorn *p)
{
    double rows = 0.0, columns = 0.0;
    for (int64_t i = 0; i < p->costs.n; i++) if (p->a[i] > 0.0 && p->phi[i] > -INFINITY) rows += p->a[i] * p->phi[i];
    for (int64_t j = 0; j < p->costs.m; j++) if (p->b[j] > 0.0 && p->gamma[j] > -INFINITY) columns += p->b[j] * p->gamma[j];
    double shift = (columns - rows) / 2.0;
    for (int64_t i = 0; i < p->costs.n; i++) p->phi[i] += shift;
    for (int64_t j = 0; j < p->padded; j++) p->gamma[j] -= shift;
}
/* log sum mass exp(-kappa potential), of the points that reach something: the total that this side asks for. */
static double sinkhorn_log_total(int64_t n, const double *log_mass, const double *potential, double kappa)
{
    const vd rate = vd_set1(kappa), none = vd_set1(-1e300), nothing = vd_set1(-INFINITY);
    vd most = nothing, sum = vd_zero();
    for (int64_t i = 0; i < n; i += 16) {
        vd x = vd_load(potential + i);
        most = vd_max(vd_where_less(none, x, vd_fnma(rate, x, vd_load(log_mass + i)), nothing), most);
    }
    double peak = fd_max_lane_double(most);
    if (peak == -INFINITY) return peak;
    for (int64_t i = 0; i < n; i += 16) {
        vd x = vd_load(potential + i);
        x = vd_where_less(none, x, vd_sub(vd_fnma(rate, x, vd_load(log_mass + i)), vd_set1(peak)), nothing);
        sum = vd_add(sum, vd_exp(x));
    }
    return peak + fd_log_double(vd_sum(sum));
}
/* phi + shift, gamma - shift: the plan stays what it is, and of all shifts this one leaves the largest dual value, where both sides ask for
 * the same total.  Without it a total that is wrong shrinks by lambda^2 an iteration, which takes tau / epsilon of them.  Only gamma has to
 * be moved: the next pass computes phi from it.  What is less than rounding is no shift, and one that leaves no digits is none either. */
static double sinkhorn_shift(const struct sinkhorn *p)
{
    if (p->kappa[0] == 0.0 && p->kappa[1] == 0.0) return 0.0;
    double apart = sinkhorn_log_total(p->costs.n, p->log_a, p->fresh_phi, p->kappa[0]) -
                   (sinkhorn_log_total(p->costs.m, p->log_masses, p->fresh_gamma, p->kappa[1]) + p->log_ratio);
    double shift = apart / (p->kappa[0] + p->kappa[1]);
    return fabs(apart) > SINKHORN_ROUNDING && fabs(shift) < SINKHORN_FARTHEST ? shift : 0.0;
}
/* This side's part of the dual objective, over epsilon: sum mass phi, or sum mass (1 - exp(-kappa phi)) / kappa. */
static double sinkhorn_dual(int64_t n, const double *mass, const double *log_mass, const double *potential, double kappa)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (!(mass[i] > 0.0)) continue;
        double f = potential[i], z = kappa * f;
        if (f == -INFINITY) sum += kappa == 0.0 ? 0.0 : mass[i] / kappa;       /* it reaches nothing; balanced, within tolerance */
        else if (fabs(z) < 0x1p-10) sum += mass[i] * f * (1.0 - z * (0.5 - z * (1.0 / 6.0 - z * (1.0 / 24.0))));
        else sum += (mass[i] - fd_exp_double(log_mass[i] - z)) / kappa;
    }
    return sum;
}
static void sinkhorn_stop(struct sinkhorn *p, int status)
{
    const struct fd_transport *t = p->t;
    p->state->phase = SINKHORN_DONE;
    memcpy(t->phi + p->index * t->n, p->phi, (size_t)p->costs.n * sizeof(double));
    memcpy(t->gamma + p->index * t->m, p->gamma, (size_t)p->costs.m * sizeof(double));
    t->results[5 * p->index + 4] = INFINITY;
    t->status[p->index] = status;
}
static void sinkhorn_evaluated(struct sinkhorn *p, double value, double mass, double error_rows, double error_columns)
{
    const struct fd_transport *t = p->t;
    struct sinkhorn_state *state = p->state;
    double error = error_rows > error_columns ? error_rows : error_columns, tolerance = t->constants[4 * p->index + 1];
    if (error > tolerance && state->iterations < t->max_iterations[p->index]) {   /* rounding: aim lower */
        state->last = 0;
        state->goal /= 2.0;
        state->phase = SINKHORN_BUILD;
        return;
    }
    double *results = t->results + 5 * p->index;
    sinkhorn_stop(p, error <= tolerance ? FD_CONVERGED : FD_MAX_ITERATIONS);
    results[0] = value;
    results[1] = sinkhorn_dual(p->costs.n, p->a, p->log_a, p->phi, p->kappa[0]);
    results[2] = sinkhorn_dual(p->costs.m, p->b, p->log_masses, p->gamma, p->kappa[1]);
    results[3] = mass;
    results[4] = error;
}

#define FD_REAL 32
#include "../real.h"
#include "sinkhorn_real.h"
#define FD_REAL 64
#include "../real.h"
#include "sinkhorn_real.h"

static struct sinkhorn_costs sinkhorn_costs(const struct fd_transport *t, int64_t index)
{
    int64_t size = t->bits / 8, m = t->sizes[2 * index + 1];
    return (struct sinkhorn_costs){
        t->metric, t->sizes[2 * index], m, t->d, fd_pad(m, 16), t->m, fd_pad(t->m, 16),
        (const char *)t->cost + index * t->cost_step * size,
        (const char *)t->x + index * t->x_step * size, (const char *)t->y + index * t->y_step * size};
}

/* A problem's part of the workspace, which it shares out if `base` is given.  Returns its bytes. */
static int64_t sinkhorn_layout(const struct fd_transport *t, struct sinkhorn *p, char *base)
{
    int64_t size = t->bits / 8, n = fd_pad(t->n, 16), m = fd_pad(t->m, 16), used = 0;
#define FD_PLACE(pointer, bytes) do { if (base) (pointer) = (void *)(base + used); used += fd_pad(bytes, 64); } while (0)
    FD_PLACE(p->state, (int64_t)sizeof *p->state);
    FD_PLACE(p->results, SINKHORN_TILES * (int64_t)sizeof *p->results);
    FD_PLACE(p->log_a, n * 8);
    FD_PLACE(p->log_masses, m * 8);
    FD_PLACE(p->phi, n * 8);
    FD_PLACE(p->u, n * 8);
    FD_PLACE(p->fresh_phi, n * 8);
    FD_PLACE(p->gamma, m * 8);
    FD_PLACE(p->v, m * 8);
    FD_PLACE(p->fresh_gamma, m * 8);
    FD_PLACE(p->b, m * 8);
    FD_PLACE(p->reach, m * 8);
    FD_PLACE(p->peak, m * 8);
    FD_PLACE(p->weight, m * size);
    FD_PLACE(p->partial, fd_min(SINKHORN_TILES, fd_ceil(t->n, SINKHORN_TILE)) * m * size);
    if (t->metric == FD_GIVEN) FD_PLACE(p->kernel, t->n * m * size);
#undef FD_PLACE
    return used;
}
static int64_t sinkhorn_slot_bytes(const struct fd_transport *t) { return SINKHORN_STEP * fd_pad(t->m, 16) * t->bits / 8; }
static int64_t sinkhorn_workspace(const struct fd_transport *t, int64_t count, int threads)
{
    struct sinkhorn p;
    return threads * sinkhorn_slot_bytes(t) + count * sinkhorn_layout(t, &p, NULL);
}

static void sinkhorn_logs(int64_t n, const double *mass, double *logs)
{
    for (int64_t i = 0; i < n; i += 16) {
        double lanes[16];
        for (int64_t j = 0; j < 16; j++) lanes[j] = i + j < n ? mass[i + j] : 0.0;
        vd m = vd_load(lanes), least = vd_set1(0x1p-1000);
        vd log = vd_sub(vd_log(vd_mul(m, vd_where_less(m, least, vd_set1(0x1p100), vd_set1(1.0)))),
                        vd_where_less(m, least, vd_set1(69.314718055994531), vd_zero()));
        vd_store(logs + i, vd_where_less(vd_zero(), m, log, vd_set1(-INFINITY)));
    }
}
static void sinkhorn_begin(struct sinkhorn *p)
{
    const struct fd_transport *t = p->t;
    struct sinkhorn_state *state = p->state;
    memset(p->phi, 0, (size_t)fd_pad(p->costs.n, 16) * sizeof(double));
    memset(p->fresh_phi, 0, (size_t)fd_pad(p->costs.n, 16) * sizeof(double));
    for (int64_t i = 0; i < fd_pad(p->costs.n, 16); i++) p->u[i] = 1.0;
    for (int64_t j = 0; j < p->padded; j++) {
        p->gamma[j] = j < p->costs.m ? t->gamma[p->index * t->m + j] : -INFINITY;
        p->b[j] = j < p->costs.m ? t->b[p->index * t->m + j] : 0.0;
        p->v[j] = 1.0;
        p->fresh_gamma[j] = p->gamma[j];
    }
    sinkhorn_logs(p->costs.n, p->a, p->log_a);
    sinkhorn_logs(p->costs.m, p->b, p->log_masses);
    if (t->bits == 64) set_weights_f64(p);
    else set_weights_f32(p);
    t->status[p->index] = FD_RUNNING;
    int massless = 0;
    for (int64_t j = 0; j < p->costs.m; j++) massless |= p->b[j] == 0.0;
    *state = (struct sinkhorn_state){.massless = massless, .phase = t->metric == FD_GIVEN ? SINKHORN_SCAN : SINKHORN_BUILD,
                                     .goal = t->constants[4 * p->index + 1], .pairs = {1 << 19, 1 << 17}};
}

/* Stages in twos: a pass over the tiles, then the columns. */
static int64_t sinkhorn_tasks(void *context, int64_t stage)
{
    struct sinkhorn *p = context;
    return atomic_load_explicit(&p->stop, memory_order_relaxed) ? 0 : stage % 2 ? 1 : p->some;
}
static void sinkhorn_stage(void *context, int64_t stage, int64_t task)
{
    struct sinkhorn *p = context;
    if (stage % 2 == 0) {
        if (p->t->bits == 64) sinkhorn_tile_f64(p, p->from + task);
        else sinkhorn_tile_f32(p, p->from + task);
        return;
    }
    int before = p->state->phase;
    if (p->t->bits == 64) sinkhorn_columns_f64(p);
    else sinkhorn_columns_f32(p);
    if (p->state->phase != before) atomic_store_explicit(&p->stop, 1, memory_order_relaxed);        /* of another speed, or none */
}

/* Some milliseconds of one problem. */
static void sinkhorn_advance(struct sinkhorn *p, int threads)
{
    struct sinkhorn_state *state = p->state;
    int fast = state->phase == SINKHORN_FAST;
    double *budget = &state->pairs[!fast], pairs = (double)p->costs.n * (double)p->padded;
    if (pairs * (fast ? 1.0 : 8.0 + (double)p->costs.d) < SINKHORN_SHARED) threads = 1;
    int64_t start = fd_nanoseconds(), passes = (int64_t)fmin(64.0, *budget / pairs), stages = 2 * passes;
    double done = pairs * (double)passes;
    p->stop = 0;
    p->begin = 0, p->end = p->tile_rows, p->from = 0, p->some = p->tiles;
    if (passes == 0 || state->row || state->tile) {                     /* part of a pass: some rows of all tiles, or the least of some */
        double steps = *budget / pairs * (double)p->tile_rows / SINKHORN_STEP;
        p->begin = state->row;
        p->end = fd_min(p->tile_rows, p->begin + SINKHORN_STEP * (steps < 1.0 ? 1 : (int64_t)steps));
        p->from = state->tile;
        int64_t some = steps < 1.0 ? (int64_t)((double)p->tiles * steps) : p->tiles;
        p->some = fd_min(p->tiles - p->from, some < threads ? threads : some);
        state->tile = p->from + p->some < p->tiles ? p->from + p->some : 0;
        if (state->tile == 0) state->row = p->end < p->tile_rows ? p->end : 0;
        stages = state->tile || state->row ? 1 : 2;
        done = pairs * (double)(p->end - p->begin) / (double)p->tile_rows * (double)p->some / (double)p->tiles;
    }
    fd_run_stages(threads, stages, sinkhorn_tasks, sinkhorn_stage, NULL, p);
    double took = (double)(fd_nanoseconds() - start);
    if (took < 2e6 && done >= *budget / 2 && *budget < 1e12) *budget *= 2;
    if (took > 6e6) *budget /= 2;
}

struct sinkhorn_run {
    const struct fd_transport *t;
    int64_t first, deadline, bytes;         /* bytes: of a problem's part of the workspace */
    char *problems;
    int threads;
    struct sinkhorn_slots slots;
};
static void sinkhorn_run(void *context, int64_t begin, int64_t end)
{
    struct sinkhorn_run *run = context;
    const struct fd_transport *t = run->t;
    for (int64_t i = begin; i < end; i++) {
        int64_t index = run->first + i;
        if (t->status[index] > FD_RUNNING) continue;
        const double *constants = t->constants + 4 * index;
        struct sinkhorn p = {.t = t, .index = index, .costs = sinkhorn_costs(t, index), .slots = &run->slots,
                             .inverse = 1.0 / constants[0]};
        sinkhorn_layout(t, &p, run->problems + i * run->bytes);
        p.padded = p.costs.padded;
        p.tile_rows = fd_pad(fd_ceil(p.costs.n, SINKHORN_TILES), SINKHORN_STEP);
        if (p.tile_rows < SINKHORN_TILE) p.tile_rows = SINKHORN_TILE;
        p.tiles = fd_ceil(p.costs.n, p.tile_rows);
        p.a = t->a + index * t->n;
        for (int side = 0; side < 2; side++) {
            p.kappa[side] = constants[0] / t->tau[side];
            p.lambda[side] = 1.0 / (1.0 + p.kappa[side]);
        }
        p.log_b = constants[2];
        p.ratio = constants[3];
        p.log_ratio = fd_log_double(p.ratio);
        if (t->status[index] == FD_NOT_BEGUN) sinkhorn_begin(&p);
        while (p.state->phase != SINKHORN_DONE && fd_nanoseconds() < run->deadline) sinkhorn_advance(&p, run->threads);
        t->iterations[index] = p.state->iterations;
        if (t->status[index] == FD_RUNNING) t->results[5 * index + 4] = p.state->error;
    }
}
static int64_t sinkhorn(const struct fd_transport *t, int64_t first, int64_t count, void *workspace, int64_t nanoseconds, int threads)
{
    struct sinkhorn_run run = {t, first, fd_nanoseconds() + nanoseconds, 0, (char *)workspace + threads * sinkhorn_slot_bytes(t), threads,
                               {workspace, sinkhorn_slot_bytes(t), 0}};
    struct sinkhorn shape;
    run.bytes = sinkhorn_layout(t, &shape, NULL);
    if (count == 1) sinkhorn_run(&run, 0, 1);
    else {
        run.threads = 1;
        fd_parallel_for(threads, count, 1, sinkhorn_run, &run);
    }
    int64_t left = 0;
    for (int64_t i = first; i < first + count; i++) left += t->status[i] <= FD_RUNNING;
    return left;
}
