/* philox.c - Philox4x32-10 (Salmon et al. 2011), 16 counters in lanes: four random words of each (counter, key). */
#pragma once
#include "../tile.h"

static void philox_lanes(vi c[4], uint32_t key0, uint32_t key1)          /* counter words in, random words out */
{
    const vi m0 = vi_set1((int32_t)0xd2511f53u), m1 = vi_set1((int32_t)0xcd9e8d57u);
    for (int round = 0; round < 10; round++) {
        vi high0 = vi_mul_high(m0, c[0]), low0 = vi_mul_low(m0, c[0]);
        vi high1 = vi_mul_high(m1, c[2]), low1 = vi_mul_low(m1, c[2]);
        c[0] = vi_xor(vi_xor(high1, c[1]), vi_set1((int32_t)key0));
        c[1] = low1;
        c[2] = vi_xor(vi_xor(high0, c[3]), vi_set1((int32_t)key1));
        c[3] = low0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
}

static void philox(int64_t n, const uint32_t *counter, const uint32_t *key, uint32_t *words)
{
    for (int64_t i = 0; i < n; i += 16) {
        int32_t lanes[4][16] = {{0}};
        vi c[4];
        int64_t count = fd_min(16, n - i);
        for (int64_t lane = 0; lane < count; lane++)
            FD_UNROLL for (int w = 0; w < 4; w++) lanes[w][lane] = (int32_t)counter[4 * (i + lane) + w];
        FD_UNROLL for (int w = 0; w < 4; w++) c[w] = vi_load(lanes[w]);
        philox_lanes(c, key[0], key[1]);
        FD_UNROLL for (int w = 0; w < 4; w++) vi_store(lanes[w], c[w]);
        for (int64_t lane = 0; lane < count; lane++)
            FD_UNROLL for (int w = 0; w < 4; w++) words[4 * (i + lane) + w] = (uint32_t)lanes[w][lane];
    }
}
