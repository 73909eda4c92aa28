/* trees.c - tree_layout, build_tree and lookahead_layout: arrays that say who stands below whom. */
#include "kernels/fixed_point/lookahead_layout.c"
#include "kernels/verify/build_tree.c"
#include "kernels/verify/tree_layout.c"

static void fuzz_tree_layout(struct input *in)
{
    int64_t n = take_between(in, 1, 200), words = (n + 63) / 64, wrong = 0;
    int32_t *parents = take_parents(in, n, 0), *depths = room(n, 4), *leaves = room(n, 4), *children = room(n - 1, 4),
            *offsets = room(n + 1, 4);
    uint64_t *ancestors = room(n * words, 8);
    int64_t found = tree_layout(n, parents, depths, ancestors, leaves, children, offsets);
    while (wrong < n && (wrong ? parents[wrong] >= 0 && parents[wrong] < wrong : parents[wrong] == -1)) wrong++;
    if (wrong < n) {
        HOLDS(found == -1 - wrong);
        return;
    }
    int64_t leaf = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t depth = 0, sees = 0;
        for (int64_t at = i; at >= 0; at = parents[at], depth++) HOLDS(ancestors[i * words + at / 64] >> at % 64 & 1);
        for (int64_t word = 0; word < words; word++) sees += __builtin_popcountll(ancestors[i * words + word]);
        HOLDS(depths[i] == depth - 1 && sees == depth);
        for (int32_t c = offsets[i]; c < offsets[i + 1]; c++)
            HOLDS(parents[children[c]] == i && (c == offsets[i] || children[c - 1] < children[c]));
        if (offsets[i] == offsets[i + 1]) HOLDS(leaves[leaf++] == i);
    }
    HOLDS(leaf == found && offsets[0] == 0 && offsets[n] == n - 1);
}

static void fuzz_build_tree(struct input *in)
{
    int64_t n = take_between(in, 0, 200), budget = take_between(in, 1, 220), kept = fd_min(budget, n), wrong = 0, at = 0;
    int32_t *parents = take_parents(in, n, -1), *nodes = room(kept, 4), *kept_parents = room(kept, 4);
    float *scores = take_reals(in, n);
    uint64_t *workspace = room(n + kept, 8);
    for (int64_t i = 0; i < n; i++)
        if (!(scores[i] < INFINITY)) return;           /* the wrapper refuses it */
    int64_t found = build_tree(n, parents, scores, kept, nodes, kept_parents, workspace);
    while (wrong < n && parents[wrong] >= -1 && parents[wrong] < wrong) wrong++;
    if (wrong < n) {
        HOLDS(found == -1 - wrong);
        return;
    }
    HOLDS(found == kept);
    for (; at < kept; at++) {
        int32_t parent = parents[nodes[at]];
        HOLDS(nodes[at] >= 0 && nodes[at] < n && (at == 0 || nodes[at - 1] < nodes[at]));
        HOLDS(parent < 0 ? kept_parents[at] == -1 : kept_parents[at] >= 0 && kept_parents[at] < at && nodes[kept_parents[at]] == parent);
    }
}

static void fuzz_lookahead_layout(struct input *in)
{
    int64_t length = take_between(in, 1, 63), levels = take_between(in, 0, length), columns = take_between(in, 0, 12),
            guesses = take_between(in, 0, 12), merged = take_flag(in), rows = 1 + levels * columns + guesses * length;
    int32_t *window = take_integers(in, levels * columns), *guess_tokens = take_integers(in, guesses * length),
            *tokens = room(rows, 4), *parents = room(rows, 4), *positions = room(rows, 4), *cells = room(levels * columns, 4),
            *branches = room(guesses * length, 4), *first = merged ? room(rows, 4) : NULL, *next = merged ? room(rows, 4) : NULL;
    int64_t found = lookahead_layout(levels, columns, guesses, length, window, guess_tokens, -1, tokens, parents, positions, cells,
                                     branches, first, next);
    HOLDS(found >= 1 && (merged ? found <= rows : found == rows) && parents[0] == -1 && positions[0] == 0);
    for (int64_t i = 1; i < found; i++) {
        HOLDS(parents[i] >= 0 && parents[i] < i && positions[i] == positions[parents[i]] + 1);
        for (int64_t j = 1; merged && j < i; j++) HOLDS(parents[i] != parents[j] || tokens[i] != tokens[j]);
    }
    for (int64_t i = 0; i < levels * columns; i++)
        HOLDS(cells[i] < found && tokens[cells[i]] == window[i] && positions[cells[i]] == 1 + i % columns + i / columns);
    for (int64_t i = 0; i < guesses * length; i++)
        HOLDS(branches[i] < found && tokens[branches[i]] == guess_tokens[i] && positions[branches[i]] == 1 + i % length);
}
