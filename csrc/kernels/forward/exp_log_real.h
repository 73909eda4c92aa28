/* exp_log_real.h - exp_log.c for one kind of real. */
static void NAME(exp_log)(int64_t n, const real *x, real *exp_out, real *log_out)
{
    for (int64_t i = 0; i < n; i += 16) {
        vr v = VR(load_part)(x + i, n - i, 1);
        VR(store_part)(exp_out + i, n - i, VR(exp)(v));
        VR(store_part)(log_out + i, n - i, VR(log)(v));
    }
}
