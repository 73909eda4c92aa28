/* adamw_step.c - one step of AdamW (Loshchilov and Hutter 2019), in one pass over memory.
 *
 * With g = gradient * scale, each line rounded where a word rounds:
 *
 *     first  += (1 - beta1) (g - first)
 *     second += (1 - beta2) (g g - second)
 *     value  -= step_size first / (sqrt(second) root + epsilon) + decay value
 *
 * step_size = learning rate / (1 - beta1^step), root = 1 / sqrt(1 - beta2^step) and decay = learning rate * weight decay come as floats
 * that were computed in doubles, and so do 1 - beta1 and 1 - beta2: beta2 itself, rounded, would be off by 3e-5 of what is left to 1.
 * The step and the decay leave the value together: a value times 1 - decay would be rounded first.  An element depends on its own alone.
 *
 * Where gradients have become zeros, as in the rows of tokens that a text lacks, moments would fade into subnormal numbers, for which
 * some CPUs take seven times as long, and would never leave them.  So a first moment below 2^-100, a second one below 2^-126, and the
 * square of a g below 2^-63, are 0.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

struct adamw_step { struct fd_adamw set; float *value, *gradient, *first, *second; };

FD_INLINE void adamw_step_lanes(const struct adamw_step *a, int64_t at, int64_t n)      /* n of 16 elements */
{
    const struct fd_adamw *s = &a->set;
    vf value = vf_load_part(a->value + at, n, 0.0f), first = vf_load_part(a->first + at, n, 0.0f);
    vf second = vf_load_part(a->second + at, n, 0.0f), g = vf_mul(vf_load_part(a->gradient + at, n, 0.0f), vf_set1(s->scale));
    first = vf_fma(vf_set1(s->first_rate), vf_sub(g, first), first);
    first = vf_without_tiny(first, 0x1p-100f);
    g = vf_without_tiny(g, 0x1p-63f);
    second = vf_without_tiny(vf_fma(vf_set1(s->second_rate), vf_sub(vf_mul(g, g), second), second), 0x1p-126f);
    vf change = vf_div(first, vf_fma(vf_sqrt(second), vf_set1(s->root), vf_set1(s->epsilon)));
    change = vf_fma(change, vf_set1(s->step_size), vf_mul(value, vf_set1(s->decay)));
    vf_store_part(a->value + at, n, vf_sub(value, change));
    vf_store_part(a->first + at, n, first);
    vf_store_part(a->second + at, n, second);
    if (s->zero_gradient) vf_store_part(a->gradient + at, n, vf_zero());
}
static void adamw_step_range(void *context, int64_t begin, int64_t end)
{
    const struct adamw_step a = *(const struct adamw_step *)context;
    int64_t at = begin;
    for (; at + FD_LANES <= end; at += FD_LANES) adamw_step_lanes(&a, at, FD_LANES);
    if (at < end) adamw_step_lanes(&a, at, end - at);
}
static void adamw_step(int64_t n, const struct fd_adamw *set, float *value, float *gradient, float *first, float *second, int threads)
{
    struct adamw_step job = {*set, value, gradient, first, second};
    fd_parallel_for(threads, n, FD_STEP, adamw_step_range, &job);
}
