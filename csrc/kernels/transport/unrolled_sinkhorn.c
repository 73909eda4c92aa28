/* unrolled_sinkhorn.c - Sinkhorn's plan after a number of iterations, its cost, and that cost's gradient through all of them.
 *
 * From K = exp(-C / epsilon), `iterations` times: every row is divided by its sum, then every column.  In logarithms, so that any epsilon
 * works: log P = row_i + column_j - C / epsilon, and dividing a row sets row_i = -log sum_j exp(column_j - C / epsilon).
 *
 * Backwards: H is the adjoint of log P, P * C in the end.  log P less the log of a row's sum has the adjoint H - P (row's sum of H), with P
 * as the division left it; rebuilt from the stored row and column terms.  The adjoint of log K then gives the gradient P - H / epsilon.
 *
 * Doubles throughout.  A step is a stage, its tasks blocks of rows or of columns: a sum lies within one task, whatever the threads.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

enum { UNROLLED_ROWS = 16, UNROLLED_COLUMNS = 32 };
struct unrolled {                           /* one problem of the batch, and its part of the workspace */
    int64_t n, m, padded, rows, iterations; /* padded m and n */
    double epsilon;
    const double *cost;
    double *scaled, *adjoint;               /* (n, padded): -C / epsilon, -inf behind; H, 0 behind */
    double *potentials;                     /* (iterations + 1, rows + padded): of the rows, then of the columns; 0 at first */
    double *value, *plan, *gradient;
};
static int64_t unrolled_potentials(int64_t n, int64_t m) { return fd_pad(n, 16) + fd_pad(m, 16); }
static struct unrolled unrolled_problem(const struct fd_unrolled *p, int64_t index)
{
    int64_t padded = fd_pad(p->m, 16), size = p->n * p->m;
    double *memory = p->workspace + index * (2 * p->n * padded + (p->iterations + 1) * unrolled_potentials(p->n, p->m));
    struct unrolled u = {p->n, p->m, padded, fd_pad(p->n, 16), p->iterations, p->epsilon, p->cost + index * size,
                         memory, memory + p->n * padded, memory + 2 * p->n * padded,
                         p->value + index, p->plan + index * size, p->gradient + index * size};
    return u;
}
static double *unrolled_row_terms(const struct unrolled *u, int64_t iteration) { return u->potentials + iteration * (u->rows + u->padded); }
static double *unrolled_column_terms(const struct unrolled *u, int64_t iteration) { return unrolled_row_terms(u, iteration) + u->rows; }

static void unrolled_begin(const struct unrolled *u, int64_t begin, int64_t end)
{
    if (begin == 0) memset(u->potentials, 0, (size_t)(u->rows + u->padded) * sizeof *u->potentials);
    vd epsilon = vd_set1(-u->epsilon);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < u->padded; j += 16) {
            vd cost = vd_load_part(u->cost + i * u->m + j, u->m - j, INFINITY);
            vd_store(u->scaled + i * u->padded + j, vd_div(cost, epsilon));
        }
}
/* -log sum over j of exp(column_j - C_ij / epsilon), for up to 16 rows */
static void unrolled_divide_rows(const struct unrolled *u, int64_t iteration, int64_t begin, int64_t end)
{
    const double *columns = unrolled_column_terms(u, iteration - 1);
    double top[UNROLLED_ROWS] = {0}, sum[UNROLLED_ROWS];
    for (int i = 0; i < UNROLLED_ROWS; i++) sum[i] = 1;
    for (int64_t i = begin; i < end; i++) {
        const double *row = u->scaled + i * u->padded;
        vd most = vd_set1(-INFINITY), total = vd_zero();
        for (int64_t j = 0; j < u->padded; j += 16) most = vd_max(vd_add(vd_load(row + j), vd_load(columns + j)), most);
        top[i - begin] = fd_max_lane_double(most);
        most = vd_set1(top[i - begin]);
        for (int64_t j = 0; j < u->padded; j += 16)
            total = vd_add(total, vd_exp(vd_sub(vd_add(vd_load(row + j), vd_load(columns + j)), most)));
        sum[i - begin] = vd_sum(total);
    }
    vd terms = vd_sub(vd_zero(), vd_add(vd_load(top), vd_log(vd_load(sum))));
    vd_store(unrolled_row_terms(u, iteration) + begin, terms);
}
/* -log sum over i of exp(row_i - C_ij / epsilon), for up to UNROLLED_COLUMNS columns */
static void unrolled_divide_columns(const struct unrolled *u, int64_t iteration, int64_t begin, int64_t end)
{
    const double *rows = unrolled_row_terms(u, iteration);
    double *columns = unrolled_column_terms(u, iteration);
    for (int64_t j = begin; j < end; j += 16) {
        const double *scaled = u->scaled + j;
        vd top = vd_set1(-INFINITY), sum = vd_zero();
        for (int64_t i = 0; i < u->n; i++) top = vd_max(vd_add(vd_load(scaled + i * u->padded), vd_set1(rows[i])), top);
        for (int64_t i = 0; i < u->n; i++)
            sum = vd_add(sum, vd_exp(vd_sub(vd_add(vd_load(scaled + i * u->padded), vd_set1(rows[i])), top)));
        vd_store(columns + j, vd_sub(vd_zero(), vd_add(top, vd_log(sum))));
    }
    for (int64_t j = u->m; j < end; j++) columns[j] = 0;
}
static vd unrolled_plan(const struct unrolled *u, const double *rows, const double *columns, int64_t i, int64_t j)
{
    return vd_exp(vd_add(vd_add(vd_load(u->scaled + i * u->padded + j), vd_load(columns + j)), vd_set1(rows[i])));
}
static void unrolled_turn(const struct unrolled *u, int64_t begin, int64_t end)
{
    const double *rows = unrolled_row_terms(u, u->iterations), *columns = unrolled_column_terms(u, u->iterations);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < u->padded; j += 16) {
            vd plan = unrolled_plan(u, rows, columns, i, j), cost = vd_load_part(u->cost + i * u->m + j, u->m - j, 0);
            vd_store_part(u->plan + i * u->m + j, u->m - j, plan);
            vd_store(u->adjoint + i * u->padded + j, vd_mul(plan, cost));
        }
}
static void unrolled_back_columns(const struct unrolled *u, int64_t iteration, int64_t begin, int64_t end)
{
    const double *rows = unrolled_row_terms(u, iteration), *columns = unrolled_column_terms(u, iteration);
    for (int64_t j = begin; j < end; j += 16) {
        double *adjoint = u->adjoint + j;
        vd sum = vd_zero();
        for (int64_t i = 0; i < u->n; i++) sum = vd_add(sum, vd_load(adjoint + i * u->padded));
        for (int64_t i = 0; i < u->n; i++, adjoint += u->padded)
            vd_store(adjoint, vd_fnma(unrolled_plan(u, rows, columns, i, j), sum, vd_load(adjoint)));
    }
}
static void unrolled_back_rows(const struct unrolled *u, int64_t iteration, int64_t begin, int64_t end)
{
    const double *rows = unrolled_row_terms(u, iteration), *columns = unrolled_column_terms(u, iteration - 1);
    for (int64_t i = begin; i < end; i++) {
        double *adjoint = u->adjoint + i * u->padded;
        vd sum = vd_zero();
        for (int64_t j = 0; j < u->padded; j += 16) sum = vd_add(sum, vd_load(adjoint + j));
        sum = vd_set1(vd_sum(sum));
        for (int64_t j = 0; j < u->padded; j += 16)
            vd_store(adjoint + j, vd_fnma(unrolled_plan(u, rows, columns, i, j), sum, vd_load(adjoint + j)));
    }
}
static void unrolled_end(const struct unrolled *u, int64_t begin, int64_t end)
{
    vd epsilon = vd_set1(u->epsilon);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < u->padded; j += 16) {
            vd plan = vd_load_part(u->plan + i * u->m + j, u->m - j, 0), adjoint = vd_load(u->adjoint + i * u->padded + j);
            vd_store_part(u->gradient + i * u->m + j, u->m - j, vd_sub(plan, vd_div(adjoint, epsilon)));
        }
    if (begin > 0) return;
    vd value = vd_zero();
    for (int64_t k = 0; k < u->n * u->m; k += 16)
        value = vd_fma(vd_load_part(u->plan + k, u->n * u->m - k, 0), vd_load_part(u->cost + k, u->n * u->m - k, 0), value);
    *u->value = vd_sum(value);
}

/* Steps: begin; rows and columns of each iteration; turn; columns and rows of each iteration, the last one first; end. */
struct unrolled_steps { const struct fd_unrolled *problem; int64_t first; };
static int unrolled_by_columns(int64_t step, int64_t iterations)
{
    return step <= 2 * iterations ? step > 0 && step % 2 == 0 : step % 2 == 0 && step < 4 * iterations + 2;
}
static int64_t unrolled_blocks(const struct fd_unrolled *p, int64_t step)
{
    return unrolled_by_columns(step, p->iterations) ? fd_ceil(p->m, UNROLLED_COLUMNS) : fd_ceil(p->n, UNROLLED_ROWS);
}
static int64_t unrolled_tasks(void *context, int64_t stage)
{
    const struct unrolled_steps *s = context;
    return s->problem->batch * unrolled_blocks(s->problem, s->first + stage);
}
static void unrolled_run(void *context, int64_t stage, int64_t task)
{
    const struct unrolled_steps *s = context;
    int64_t step = s->first + stage, iterations = s->problem->iterations, blocks = unrolled_blocks(s->problem, step);
    struct unrolled u = unrolled_problem(s->problem, task / blocks);
    int64_t row = task % blocks * UNROLLED_ROWS, last_row = fd_min(row + UNROLLED_ROWS, u.n);
    int64_t column = task % blocks * UNROLLED_COLUMNS, last_column = fd_min(column + UNROLLED_COLUMNS, u.padded);
    if (step == 0) unrolled_begin(&u, row, last_row);
    else if (step <= 2 * iterations && step % 2) unrolled_divide_rows(&u, (step + 1) / 2, row, last_row);
    else if (step <= 2 * iterations) unrolled_divide_columns(&u, step / 2, column, last_column);
    else if (step == 2 * iterations + 1) unrolled_turn(&u, row, last_row);
    else if (step == 4 * iterations + 2) unrolled_end(&u, row, last_row);
    else if (step % 2 == 0) unrolled_back_columns(&u, (4 * iterations + 2 - step) / 2, column, last_column);
    else unrolled_back_rows(&u, (4 * iterations + 3 - step) / 2, row, last_row);
}
static void unrolled_sinkhorn(const struct fd_unrolled *problem, int64_t begin, int64_t end, int threads)
{
    struct unrolled_steps steps = {problem, begin};
    fd_run_stages(threads, end - begin, unrolled_tasks, unrolled_run, NULL, &steps);
}
static int64_t unrolled_sinkhorn_workspace(int64_t batch, int64_t n, int64_t m, int64_t iterations)
{
    return batch * (2 * n * fd_pad(m, 16) + (iterations + 1) * unrolled_potentials(n, m));
}
static int64_t unrolled_sinkhorn_steps(int64_t iterations) { return 4 * iterations + 3; }
