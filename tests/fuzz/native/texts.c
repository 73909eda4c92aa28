/* texts.c - find_matches, jacobi_step and fixed_point_prefix: rows of tokens compared, beside comparing them one by one. */
#include "kernels/fixed_point/jacobi_step.c"
#include "kernels/verify/find_matches.c"

static void fuzz_find_matches(struct input *in)
{
    enum { MOST = 80 };
    int64_t n = take_between(in, 0, MOST), min_match = take_between(in, 1, 6), max_match = take_between(in, min_match, 12),
            count = take_between(in, 1, 16), wanted = 0;
    int32_t *tokens = take_integers(in, n), *starts = room(count, 4), *lengths = room(count, 4);
    int64_t found = find_matches(n, tokens, max_match, min_match, count, starts, lengths);
    for (int64_t length = max_match; length >= min_match; length--)
        for (int64_t start = n - 1; start > 0; start--) {
            int64_t same = 0;
            while (same < start && same < max_match && tokens[start - 1 - same] == tokens[n - 1 - same]) same++;
            if (same != length || wanted == count) continue;
            HOLDS(wanted < found && starts[wanted] == start && lengths[wanted] == length);
            wanted++;
        }
    HOLDS(found == wanted);
}

static void fuzz_fixed_points(struct input *in)
{
    int64_t rows = take_between(in, 0, 3), n = take_between(in, 1, 40);
    int32_t *iterate = take_integers(in, rows * n), *drawn = take_integers(in, rows * n), *next = room(rows * n, 4),
            *prefix = room(rows, 4), *bonus = room(rows, 4), *plain = room(rows, 4);
    int8_t *stationary = room(rows * n, 1), *converged = room(rows, 1);
    if (take_flag(in))                                 /* often nearly stationary */
        for (int64_t i = 1; i < rows * n; i++)
            if (drawn[i - 1] % 4) drawn[i - 1] = iterate[i];
    jacobi_step(rows, n, iterate, drawn, next, prefix, stationary, bonus, converged);
    fixed_point_prefix(rows, n, iterate, next, plain);
    for (int64_t row = 0; row < rows; row++) {
        int64_t same = 0;
        for (int64_t i = 0; i < n; i++) {
            HOLDS(next[row * n + i] == (i ? drawn[row * n + i - 1] : iterate[row * n]));
            HOLDS(stationary[row * n + i] == (next[row * n + i] == iterate[row * n + i]));
            if (same == i && stationary[row * n + i]) same++;
        }
        HOLDS(prefix[row] == fd_min(same + 1, n) && plain[row] == prefix[row] && converged[row] == (same == n));
        HOLDS(bonus[row] == drawn[row * n + n - 1]);
    }
}
