/* find_matches.c - where the end of a text has stood before: the longest matches, the latest first among equals.
 *
 * 16 tokens at a time are compared with the last one; only where it stands is the match extended, backwards.  The scan runs from the
 * end of the text: what it finds later is the worse of equals, so it is over once nothing longer than the worst match can come.
 */
#pragma once
#include "../tile.h"

static uint32_t matches_of_last(const int32_t *tokens, int64_t n, int32_t last)  /* bit i, i < n <= 16: tokens[i] is the last token */
{
    if (n == 16) return vm_bits(vi_equal(vi_load(tokens), vi_set1(last)));
    uint32_t bits = 0;
    for (int64_t i = 0; i < n; i++) bits |= (uint32_t)(tokens[i] == last) << i;
    return bits;
}
static int64_t find_matches(int64_t n, const int32_t *tokens, int64_t max_match, int64_t min_match, int64_t count, int32_t *starts,
                            int32_t *lengths)
{
    int64_t found = 0, least = min_match;              /* least: the length from which a match is wanted */
    for (int64_t end = n - 1; end > 0; end -= 16) {
        int64_t begin = end < 16 ? 0 : end - 16;
        for (uint32_t left = matches_of_last(tokens + begin, end - begin, tokens[n - 1]); left;) {
            int top = 31 - __builtin_clz(left);
            int64_t start = begin + top + 1, most = fd_min(max_match, start), length = 1;
            left ^= 1u << top;
            if (most < least) return found;            /* an earlier start has no more tokens before it */
            if (tokens[start - least] != tokens[n - least]) continue;
            while (length < most && tokens[start - 1 - length] == tokens[n - 1 - length]) length++;
            if (length < least) continue;
            int64_t at = found < count ? found++ : count - 1;
            for (; at > 0 && lengths[at - 1] < length; at--) {
                lengths[at] = lengths[at - 1];
                starts[at] = starts[at - 1];
            }
            lengths[at] = (int32_t)length;
            starts[at] = (int32_t)start;
            if (found == count) least = lengths[count - 1] + 1;
        }
    }
    return found;
}
