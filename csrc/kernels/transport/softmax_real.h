/* softmax_real.h - softmax.c for one kind of real. */

static void NAME(softmax_rows)(void *context, int64_t begin, int64_t end)
{
    struct softmax *s = context;
    int64_t width = s->width;
    vr scale = VR(set1)((real)s->scale);
    for (int64_t row = begin; row < end; row++) {
        const real *z = (const real *)s->in + row * width;                  /* (width,) */
        real *p = (real *)s->out + row * width;
        vr top = VR(set1)(-INFINITY);
        for (int64_t k = 0; k < width; k += 16) top = VR(max)(VR(load_part)(z + k, width - k, -INFINITY), top);
        vr most = VR(set1)(REAL_MOST(top));
        vd sum = vd_zero();
        for (int64_t k = 0; k < width; k += 16) {
            vr e = REAL_EXP(VR(mul)(VR(sub)(VR(load_part)(z + k, width - k, -INFINITY), most), scale));
            VR(store_part)(p + k, width - k, e);
            sum = vd_add(sum, WIDE(e));
        }
        real total = (real)vd_sum(sum);
        for (int64_t k = 0; k < width; k += 16)
            VR(store_part)(p + k, width - k, VR(div)(VR(load_part)(p + k, width - k, 0), VR(set1)(total)));
        if (!(total < INFINITY)) atomic_store(&s->bad, 1);
    }
}

/* gradient by z = scale p (g - <p, g>) for g the gradient by p; in place */
static void NAME(softmax_gradient_rows)(void *context, int64_t begin, int64_t end)
{
    const struct softmax *s = context;
    int64_t width = s->width;
    vr scale = VR(set1)((real)s->scale);
    for (int64_t row = begin; row < end; row++) {
        const real *p = (const real *)s->in + row * width;
        real *g = (real *)s->out + row * width;
        vd dot = vd_zero();
        for (int64_t k = 0; k < width; k += 16)
            dot = vd_fma(WIDE(VR(load_part)(p + k, width - k, 0)), WIDE(VR(load_part)(g + k, width - k, 0)), dot);
        vr mean = VR(set1)((real)vd_sum(dot));
        for (int64_t k = 0; k < width; k += 16) {
            vr above = VR(sub)(VR(load_part)(g + k, width - k, 0), mean);
            VR(store_part)(g + k, width - k, VR(mul)(VR(mul)(VR(load_part)(p + k, width - k, 0), above), scale));
        }
    }
}
