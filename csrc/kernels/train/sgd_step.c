/* sgd_step.c - one step of gradient descent with momentum, plain or Nesterov's, in one pass over memory.
 *
 *     g         = gradient * scale + coupled_decay value
 *     velocity  = momentum velocity + g
 *     direction = velocity, or g + momentum velocity (Nesterov), or g where there is no momentum
 *     value    -= learning_rate direction + decay value
 *
 * That is torch.optim.SGD, whose weight decay is the coupled one, without dampening: its velocity begins as the first gradient, which
 * is what a velocity of zeros becomes.  One below 2^-100 is 0 (adamw_step.c says why).  An element depends on its own alone.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

struct sgd_step { struct fd_sgd set; float *value, *gradient, *velocity; };

FD_INLINE void sgd_step_lanes(const struct sgd_step *d, const int momentum, int64_t at, int64_t n)      /* n of 16 elements */
{
    const struct fd_sgd *s = &d->set;
    vf value = vf_load_part(d->value + at, n, 0.0f), g = vf_mul(vf_load_part(d->gradient + at, n, 0.0f), vf_set1(s->scale));
    g = vf_fma(value, vf_set1(s->coupled_decay), g);
    if (momentum) {
        vf velocity = vf_fma(vf_load_part(d->velocity + at, n, 0.0f), vf_set1(s->momentum), g);
        velocity = vf_without_tiny(velocity, 0x1p-100f);
        vf_store_part(d->velocity + at, n, velocity);
        g = s->nesterov ? vf_fma(velocity, vf_set1(s->momentum), g) : velocity;
    }
    vf_store_part(d->value + at, n, vf_sub(value, vf_fma(g, vf_set1(s->learning_rate), vf_mul(value, vf_set1(s->decay)))));
    if (s->zero_gradient) vf_store_part(d->gradient + at, n, vf_zero());
}
FD_INLINE void sgd_step_elements(const struct sgd_step *d, const int momentum, int64_t begin, int64_t end)
{
    int64_t at = begin;
    for (; at + FD_LANES <= end; at += FD_LANES) sgd_step_lanes(d, momentum, at, FD_LANES);
    if (at < end) sgd_step_lanes(d, momentum, at, end - at);
}
static void sgd_step_range(void *context, int64_t begin, int64_t end)
{
    const struct sgd_step d = *(const struct sgd_step *)context;
    if (d.velocity) sgd_step_elements(&d, 1, begin, end);
    else sgd_step_elements(&d, 0, begin, end);
}
static void sgd_step(int64_t n, const struct fd_sgd *set, float *value, float *gradient, float *velocity, int threads)
{
    struct sgd_step job = {*set, value, gradient, velocity};
    fd_parallel_for(threads, n, FD_STEP, sgd_step_range, &job);
}
