/* exp_log.c - the exp and log that every kernel uses, over an array, so that they can be tested on their own. */
static void exp_log(int64_t n, const float *x, float *exp_out, float *log_out)
{
    for (int64_t i = 0; i < n; i += 16) {
        vf v = vf_load_part(x + i, n - i, 1.0f);
        vf_store_part(exp_out + i, n - i, vf_exp(v));
        vf_store_part(log_out + i, n - i, vf_log(v));
    }
}
