/* unit_rows_real.h - unit_rows.c for one kind of real. */

static void NAME(unit_rows)(void *context, int64_t begin, int64_t end)
{
    const struct unit_rows *u = context;
    int64_t d = u->d;
    for (int64_t row = begin; row < end; row++) {
        const real *x = (const real *)u->x + row * d;                       /* (d,) */
        real *unit = (real *)u->unit + row * d;
        vr top = VR(zero)();
        for (int64_t k = 0; k < d; k += 16) top = VR(max)(VR(abs)(VR(load_part)(x + k, d - k, 0)), top);
        double most = (double)REAL_MOST(top);
        vd sum = vd_zero();
        for (int64_t k = 0; k < d; k += 16) {
            vd part = vd_div(WIDE(VR(load_part)(x + k, d - k, 0)), vd_set1(most > 0 ? most : 1));
            sum = vd_fma(part, part, sum);
        }
        double length = sqrt(vd_sum(sum));                                  /* of x / most: within 1 .. sqrt d, or 0 */
        u->lengths[row] = most * length;
        for (int64_t k = 0; k < d; k += 16) {
            vd part = vd_div(WIDE(VR(load_part)(x + k, d - k, 0)), vd_set1(most > 0 ? most : 1));
            VR(store_part)(unit + k, d - k, NARROW(vd_div(part, vd_set1(length > 0 ? length : 1))));
        }
    }
}
