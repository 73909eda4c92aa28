/* input.h - what a target makes of the bytes it is given: numbers in a range, and arrays of exactly their size, so that the address
 * sanitizer sees the first element beyond one.  A byte is mostly a small number, so that few bytes say much.  When there are no more
 * of them, all is 0.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t planted;                                /* arrays of outputs are so many elements too short: a fault to be found */

struct input { const uint8_t *at, *end; };
enum { MOST_ROOMS = 64 };
static void *rooms[MOST_ROOMS];
static int rooms_taken;

static void *room(int64_t count, size_t size)          /* memory of its own, for what is written */
{
    if (rooms_taken == MOST_ROOMS) abort();
    count = count > planted ? count - planted : 0;
    return rooms[rooms_taken++] = malloc((size_t)count * size);
}
static void leave_rooms(void)
{
    while (rooms_taken > 0) free(rooms[--rooms_taken]);
}
static void *filled(int64_t count, size_t size)        /* the same, for what is read */
{
    if (rooms_taken == MOST_ROOMS) abort();
    return rooms[rooms_taken++] = malloc((size_t)count * size);
}
/* What is true of every result: the process ends where it is not. */
#define HOLDS(condition) \
    do { if (!(condition)) { fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)

static uint8_t take_byte(struct input *in) { return in->at < in->end ? *in->at++ : 0; }
static uint32_t take_word(struct input *in)
{
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) word |= (uint32_t)take_byte(in) << 8 * i;
    return word;
}
static int64_t take_between(struct input *in, int64_t least, int64_t most)
{
    uint64_t span = (uint64_t)(most - least) + 1, found = take_byte(in);
    if (span > 256) found |= (uint64_t)take_byte(in) << 8;
    if (span > 65536) found |= (uint64_t)take_word(in) << 16;
    return least + (int64_t)(found % span);
}
static int take_flag(struct input *in) { return take_byte(in) & 1; }
static int32_t take_integer(struct input *in)
{
    int8_t small = (int8_t)take_byte(in);
    return small == INT8_MIN ? (int32_t)take_word(in) : small;
}
static float take_real(struct input *in)
{
    static const float odd[8] = {NAN, INFINITY, -INFINITY, -0.0f, 3e38f, -3e38f, 1e-40f, 1e-30f};
    int8_t small = (int8_t)take_byte(in);
    if (small < -120) return odd[small + 128];
    if (small != -120) return (float)small / 8.0f;
    uint32_t bits = take_word(in);
    float real;
    memcpy(&real, &bits, 4);
    return real;
}
static int32_t *take_integers(struct input *in, int64_t n)
{
    int32_t *found = filled(n, sizeof *found);
    for (int64_t i = 0; i < n; i++) found[i] = take_integer(in);
    return found;
}
static float *take_reals(struct input *in, int64_t n)
{
    float *found = filled(n, sizeof *found);
    for (int64_t i = 0; i < n; i++) found[i] = take_real(in);
    return found;
}
static int8_t *take_flags(struct input *in, int64_t n)
{
    int8_t *found = filled(n, 1);
    for (int64_t i = 0; i < n; i++) found[i] = (int8_t)take_flag(in);
    return found;
}
/* Parents of n nodes: any numbers, or, half the time, those of a tree, whose first node has `root`. */
static int32_t *take_parents(struct input *in, int64_t n, int least)
{
    int32_t *parents = filled(n, sizeof *parents);
    int honest = take_flag(in);
    for (int64_t i = 0; i < n; i++)
        parents[i] = !honest ? take_integer(in) : (int32_t)(i == 0 ? -1 : take_between(in, least, i - 1));
    return parents;
}
