/* lookahead_layout.c - the rows of a lookahead step as one tree: a seed, a window of columns, guesses.
 *
 * A cell of the window follows the one above it, in level 0 the one before it; a guess is a chain below the seed.  Then a row's
 * ancestors are what it may see.  Rows below one parent with one token have one context: such a row stands once.  It is looked for
 * among its parent's children, a list in which 0 is the end: the seed is nobody's child.
 */
#pragma once
#include "../../base.h"

struct lookahead {
    int32_t rows, *tokens, *parents, *positions;
    int32_t *first_child, *next_sibling;               /* NULL: nothing is merged */
};
static int32_t lookahead_row(struct lookahead *l, int32_t parent, int32_t token)  /* the row of a token below its parent */
{
    int32_t row = l->rows;
    if (l->first_child != NULL) {
        int32_t *link = &l->first_child[parent];
        for (; *link != 0; link = &l->next_sibling[*link])
            if (l->tokens[*link] == token) return *link;
        *link = row;
        l->first_child[row] = l->next_sibling[row] = 0;
    }
    l->tokens[row] = token;
    l->parents[row] = parent;
    l->positions[row] = l->positions[parent] + 1;
    return l->rows++;
}
static int64_t lookahead_layout(int64_t levels, int64_t columns, int64_t guesses, int64_t length, const int32_t *window,
                                const int32_t *guess_tokens, int32_t seed, int32_t *tokens, int32_t *parents, int32_t *positions,
                                int32_t *cells, int32_t *branches, int32_t *first_child, int32_t *next_sibling)
{
    struct lookahead l = {1, tokens, parents, positions, first_child, next_sibling};
    tokens[0] = seed;
    parents[0] = -1;
    positions[0] = 0;
    if (first_child != NULL) first_child[0] = 0;
    for (int64_t i = 0; i < levels * columns; i++) {
        int32_t parent = i >= columns ? cells[i - columns] : i > 0 ? cells[i - 1] : 0;
        cells[i] = lookahead_row(&l, parent, window[i]);
    }
    for (int64_t i = 0; i < guesses * length; i++) {
        int32_t parent = i % length > 0 ? branches[i - 1] : 0;
        branches[i] = lookahead_row(&l, parent, guess_tokens[i]);
    }
    return l.rows;
}
