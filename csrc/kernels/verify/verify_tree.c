/* verify_tree.c - which path of a drafted tree the target accepts, and the token after it.
 *
 * Under the rules that keep the law, a node holds what is left of the law after it, p(x) = row[x] / mass, and the weight w of the
 * path to it.  A child x drawn from q is kept with probability min(1, w p(x) / q(x)).  Refused, it leaves R = max(w p - q, 0) with
 * S = sum R: then p = R / S, w = S / (S + 1 - w).  A token that was chosen has all of q on itself: refused, it is struck out.
 * "rejection" asks children from the root down, where w stays 1; "traversal", whose chain is "block", from the deepest up, with
 * the weight that a node's own children have left.
 *
 * A row is the caller's until a child is refused, and is then written to a slot of the workspace, behind it the sums of its chunks:
 * the final token is looked for in one of them.  Where q is a row of which `left` is still to be drawn, everything is in units of
 * that row: R = max(factor p - q, 0), factor = w left / mass.  The factor is a float, so that factor p(x) is exact in double, and
 * a token refused by it is exactly 0 in R.
 *
 * Every law that decides is summed first, and has to sum to 1 (verify_law_status): of one that does not, chances would be wrong in silence.
 */
#pragma once
#include "../tile.h"
#include "residual_distribution.c"

/* What is left of the law after a node, as far as children have been refused. */
struct verify_law {
    const float *row;                                  /* (vocab,) the target's, or `own` */
    float *own;                                        /* a slot, or NULL */
    double mass, weight;
    double left;                                       /* of the row that the child in question was drawn from */
    float factor;
    int64_t totalled;                                  /* a row of the drafts, and its sum; or -1 */
    double total;
    int32_t known;                                     /* the target's row is a law: it has been looked at */
    int32_t checked;                                   /* the row of the drafts last found to be a law; or -1 */
};
struct verify_node { struct verify_law law; int32_t child, sibling; };                   /* the next ones, or -1 */
/* Rows that verification holds at once: of each node on a path whose earlier child was refused, and of one being made. */
static int64_t verify_slots(int rule, int64_t nodes) { return rule == FD_TRAVERSAL ? nodes / 2 + 2 : 3; }
static int64_t verify_head_bytes(int rule, int64_t nodes)             /* nodes, and pointers to slots */
{
    return nodes * (int64_t)sizeof(struct verify_node) + fd_pad(verify_slots(rule, nodes) * (int64_t)sizeof(float *), sizeof(double));
}
static int64_t verify_slot_bytes(int64_t vocab) { return fd_pad(vocab, FD_CHUNK) * 4 + fd_ceil(vocab, FD_CHUNK) * 8; }
/* sum of log p; NaN: not known; -1: no path; whether its row has been summed.  Lies where a node does. */
struct verify_typical { double logs, threshold; int32_t length, known; };

struct verify {                                        /* one tree */
    const struct fd_verifier *set;
    int64_t vocab, padded, nodes, rows;
    const int32_t *parents, *tokens, *drawn, *draft_rows;
    const float *target, *drafts;
    const double *uniforms;
    int8_t *verdicts;
    struct verify_node *node;                          /* (nodes,) */
    float **slots;                                     /* those that are free */
    int64_t free_slots;
    int64_t fault_node, fault_row;
};

static int verify_fault(struct verify *v, int status, int64_t node, int64_t row)
{
    v->fault_node = node;
    v->fault_row = row;
    return status;
}
static inline double *verify_sums(const struct verify *v, float *slot) { return (double *)(void *)(slot + v->padded); }
static inline const float *verify_target(const struct verify *v, int64_t node) { return v->target + node * v->vocab; }
static inline int64_t verify_row(const struct verify *v, int64_t node) { return v->draft_rows ? v->draft_rows[node] : -1; }
static inline struct verify_law verify_law_after(const struct verify *v, int64_t node, double weight)
{
    return (struct verify_law){.row = verify_target(v, node), .mass = 1.0, .weight = weight, .checked = -1, .totalled = -1};
}

/* ---- sums ---- */
static inline double verify_chunk(int64_t n, const float *p, vi *bits)
{
    vd sum = vd_zero();
    vi most = *bits;                                   /* in registers */
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        vf pi = vf_load(p + i);
        most = vi_max_unsigned(most, vi_of_bits(pi));
        sum = vd_add_floats(sum, pi);
    }
    if (i < n) {
        vf pi = vf_load_part(p + i, n - i, 0.0f);
        most = vi_max_unsigned(most, vi_of_bits(pi));
        sum = vd_add_floats(sum, pi);
    }
    *bits = most;
    return vd_sum(sum);
}
static struct residual verify_sum(int64_t vocab, const float *p, double *sums)           /* sums or NULL */
{
    struct residual found = {0.0, 1};
    vi bits = vi_set1(0);
    for (int64_t chunk = 0; chunk < vocab; chunk += FD_CHUNK) {
        double mass = verify_chunk(fd_min(FD_CHUNK, vocab - chunk), p + chunk, &bits);
        found.mass += mass;
        if (sums) sums[chunk / FD_CHUNK] = mass;
    }
    if (residual_most(bits) >= RESIDUAL_INFINITY) found.good = residual_row_is_good(vocab, p);
    found.good = found.good && found.mass < INFINITY;
    return found;
}
/* A sum of 1 but for roundings: laws in 16 bits, of 2^-9 an entry and 2^-9 of the sum that divided it, and a float sum of V terms;
 * of verify_law_status itself, V / 64 + 7 a term. */
static int verify_is_law(const struct verify *v, double mass)
{
    return fabs(mass - 1.0) <= 0x1p-8 + 0x1p-24 * ((double)v->vocab * (1.0 + 1.0 / 64) + 7.0);
}
/* Whether a row that nothing else reads whole is a law: as fast as it can be read, so in floats, of 64 lanes. */
static int verify_law_status(const struct verify *v, const float *row)
{
    vf a = vf_zero(), b = a, c = a, d = a;
    vi most = vi_set1(0), more = most;
    int64_t i = 0;
    for (; i + 64 <= v->vocab; i += 64) {
        vf p = vf_load(row + i), q = vf_load(row + i + 16), r = vf_load(row + i + 32), s = vf_load(row + i + 48);
        most = vi_max_unsigned(most, vi_max_unsigned(vi_of_bits(p), vi_of_bits(q)));
        more = vi_max_unsigned(more, vi_max_unsigned(vi_of_bits(r), vi_of_bits(s)));
        a = vf_add(a, p); b = vf_add(b, q); c = vf_add(c, r); d = vf_add(d, s);
    }
    for (; i < v->vocab; i += 16) {
        vf p = vf_load_part(row + i, v->vocab - i, 0.0f);
        most = vi_max_unsigned(most, vi_of_bits(p));
        a = vf_add(a, p);
    }
    double mass = (double)vf_sum(vf_add(vf_add(a, b), vf_add(c, d)));
    if (residual_most(vi_max_unsigned(most, more)) >= RESIDUAL_INFINITY && !residual_row_is_good(v->vocab, row)) return FD_NO_LAW;
    if (mass == 0.0) return FD_NO_MASS;
    return verify_is_law(v, mass) ? FD_OK : FD_NO_UNIT;
}
static int verify_check_target(struct verify *v, int64_t node, int32_t *known)           /* its row, once */
{
    int status = *known ? FD_OK : verify_law_status(v, verify_target(v, node));
    if (status) return verify_fault(v, status, node, -1);
    *known = 1;
    return FD_OK;
}
/* The first token at which the cumulated mass exceeds u of the whole; never one without mass. */
static int32_t verify_draw(int64_t vocab, const float *row, const double *sums, double mass, double u)
{
    double aim = u * mass, before = 0.0;
    int64_t chunk = 0, chunks = fd_ceil(vocab, FD_CHUNK);
    while (chunk < chunks - 1 && before + sums[chunk] <= aim) before += sums[chunk++];
    for (; sums[chunk] == 0.0; chunk--) before = -INFINITY;                      /* u mass has rounded up to all of it: the last */
    int32_t token = 0;
    for (int64_t i = chunk * FD_CHUNK; i < fd_min((chunk + 1) * FD_CHUNK, vocab); i++) {
        if (row[i] == 0.0f) continue;
        token = (int32_t)i;
        before += (double)row[i];
        if (before > aim) break;
    }
    return token;
}

/* ---- lenience: f(p) = scale p, or p^exponent ---- */
static inline vf verify_log(vf p)                      /* of any float above 0 */
{
    vm small = vf_less(p, vf_set1(0x1p-126f));
    vf log = vf_log(vf_select(small, vf_mul(p, vf_set1(0x1p24f)), p));
    return vf_select(small, vf_sub(log, vf_set1(16.6355323f)), log);                     /* 24 ln 2 */
}
static inline vf verify_power(vf p, vf exponent)
{
    return vf_select(vf_equal(p, vf_zero()), vf_zero(), vf_exp(vf_mul(exponent, verify_log(p))));
}
static int verify_raises(const struct verify *v) { return v->set->exponent != 1.0f; }
static double verify_lenient(const struct verify *v, float p)
{
    float lanes[16];
    if (!verify_raises(v)) return (double)p;
    vf_store(lanes, verify_power(vf_set1(p), vf_set1(v->set->exponent)));
    return (double)lanes[0];
}

/* ---- one child ---- */
/* How much of the row this child was drawn from was left to be drawn. */
static int verify_left(struct verify *v, struct verify_law *law, int64_t child, int64_t row)
{
    const float *q = v->drafts + row * v->vocab;
    int64_t parent = v->parents[child], before = 0;
    double gone = 0.0;
    vi bits = vi_set1(0);
    law->left = 1.0;
    if (v->set->replacement) return FD_OK;
    for (int64_t i = parent + 1; i < child; i++) {
        if (v->parents[i] != parent || verify_row(v, i) != row) continue;
        if (v->tokens[i] == v->tokens[child]) return verify_fault(v, FD_NOT_DRAWN, child, row);
        gone += (double)q[v->tokens[i]];
        before++;
    }
    if (before == 0) return FD_OK;
    if (law->totalled != row) {
        law->total = verify_sum(v->vocab, q, NULL).mass;
        law->totalled = row;
    }
    law->left = law->total - gone;
    if (law->left > 0x1p-20 * law->total) return FD_OK;                          /* right to 2^-30: total is right to 2^-50 */
    law->left = 0.0;
    for (int64_t chunk = 0; chunk < v->vocab; chunk += FD_CHUNK) {
        float some[FD_CHUNK];
        int64_t n = fd_min(FD_CHUNK, v->vocab - chunk);
        memcpy(some, q + chunk, (size_t)n * sizeof *some);
        for (int64_t i = parent + 1; i < child; i++)
            if (v->parents[i] == parent && verify_row(v, i) == row && v->tokens[i] >= chunk && v->tokens[i] < chunk + n)
                some[v->tokens[i] - chunk] = 0.0f;
        law->left += verify_chunk(n, some, &bits);
    }
    return FD_OK;
}
static int verify_chance(struct verify *v, struct verify_law *law, int64_t child, double *chance)
{
    int64_t token = v->tokens[child], row = verify_row(v, child);
    int status = verify_check_target(v, v->parents[child], &law->known);
    if (status) return status;
    float p = law->row[token], q = 1.0f;
    if (!residual_entry_is_good(p)) return verify_fault(v, FD_NO_LAW, v->parents[child], -1);
    double scale = law->weight * v->set->scale / law->mass;
    if (row >= 0) {
        q = v->drafts[row * v->vocab + token];
        if (!residual_entry_is_good(q)) return verify_fault(v, FD_NO_LAW, v->parents[child], row);
        if (q == 0.0f) return verify_fault(v, FD_NOT_DRAWN, child, row);
        if (law->checked != row) {
            status = verify_law_status(v, v->drafts + row * v->vocab);           /* not without mass: q is above 0 */
            if (status) return verify_fault(v, status, v->parents[child], row);
            law->checked = (int32_t)row;
        }
        status = verify_left(v, law, child, row);
        if (status) return status;
        law->factor = (float)(scale * law->left);
        scale = (double)law->factor;
    }
    *chance = scale * verify_lenient(v, p) / (double)q;
    if (*chance > 1.0) *chance = 1.0;
    return FD_OK;
}
/* What is left of a law whose row has just been written to the slot `own`, and of its weight: R has the sum S. */
static void verify_leave(struct verify *v, struct verify_law *law, float *own, double mass, double s)
{
    if (law->own && law->own != own) v->slots[v->free_slots++] = law->own;
    law->weight = s / (s + (1.0 - law->weight));
    law->row = law->own = own;
    if (mass < 0x1p-80) {                              /* the next factor shall not overflow; a power of two rounds nothing */
        double *sums = verify_sums(v, own);
        for (int64_t i = 0; i < v->vocab; i++) own[i] *= 0x1p80f;
        for (int64_t i = 0; i < fd_ceil(v->vocab, FD_CHUNK); i++) sums[i] *= 0x1p80;
        mass *= 0x1p80;
    }
    law->mass = mass;
}
static int verify_refuse_chosen(struct verify *v, struct verify_law *law, int64_t child)
{
    int64_t token = v->tokens[child], chunk = token / FD_CHUNK, chunks = fd_ceil(v->vocab, FD_CHUNK);
    double scale = law->weight / law->mass, mass = 0.0;
    float *own = law->own ? law->own : v->slots[--v->free_slots];
    double *sums = verify_sums(v, own);
    vi bits = vi_set1(0);
    if (!law->own) {
        if (verify_raises(v)) {
            vf exponent = vf_set1(v->set->exponent);
            for (int64_t i = 0; i < v->vocab; i += 16)
                vf_store(own + i, verify_power(vf_load_part(law->row + i, v->vocab - i, 0.0f), exponent));
        } else {
            memcpy(own, law->row, (size_t)v->vocab * sizeof *own);
        }
        if (!verify_sum(v->vocab, law->row, sums).good || !verify_sum(v->vocab, own, sums).good)
            return verify_fault(v, FD_NO_LAW, v->parents[child], -1);
    }
    float before = own[token];
    own[token] = 0.0f;
    sums[chunk] = verify_chunk(fd_min(FD_CHUNK, v->vocab - chunk * FD_CHUNK), own + chunk * FD_CHUNK, &bits);
    for (int64_t i = 0; i < chunks; i++) mass += sums[i];
    if (mass > 0.0) {
        verify_leave(v, law, own, mass, scale * mass);
    } else {
        own[token] = before;
        sums[chunk] = (double)before;
        if (!law->own) v->slots[v->free_slots++] = own;
        if (law->weight < 1.0) law->weight = 0.0;
    }
    return FD_OK;
}
static int verify_refuse(struct verify *v, struct verify_law *law, int64_t child)        /* after its verify_chance */
{
    int64_t row = verify_row(v, child);
    if (row < 0) return verify_refuse_chosen(v, law, child);
    const float *p = law->row, *q = v->drafts + row * v->vocab;
    float *own = v->slots[--v->free_slots], *raised = NULL;
    if (verify_raises(v)) {
        vf exponent = vf_set1(v->set->exponent);
        raised = v->slots[--v->free_slots];
        for (int64_t i = 0; i < v->vocab; i += 16)
            vf_store(raised + i, verify_power(vf_load_part(p + i, v->vocab - i, 0.0f), exponent));
        v->slots[v->free_slots++] = raised;            /* free again after the next line */
    }
    struct residual left = residual_row(v->vocab, law->factor, raised ? raised : p, q, own, verify_sums(v, own));
    if (raised) left.good = left.good && residual_row_is_good(v->vocab, p);
    if (!left.good || !(left.mass < INFINITY)) return verify_fault(v, FD_NO_LAW, v->parents[child], row);
    if (left.mass > 0.0) {
        verify_leave(v, law, own, left.mass, left.mass / law->left);
    } else {                                           /* p = q but for a rounding: p stays; or, w < 1, nothing is left */
        v->slots[v->free_slots++] = own;
        if (law->weight < 1.0) law->weight = 0.0;
    }
    return FD_OK;
}

/* ---- the rules: each gives the last accepted node, and its token ---- */
static int verify_finish(struct verify *v, const struct verify_law *law, int64_t last, int32_t *bonus)
{
    double mass = law->mass, *sums;
    if (law->own) {
        sums = verify_sums(v, law->own);
    } else {
        sums = verify_sums(v, v->slots[0]);
        struct residual all = verify_sum(v->vocab, law->row, sums);
        if (!all.good) return verify_fault(v, FD_NO_LAW, last, -1);
        mass = all.mass;
    }
    if (mass == 0.0) return verify_fault(v, FD_NO_MASS, last, -1);
    if (!law->own && !verify_is_law(v, mass)) return verify_fault(v, FD_NO_UNIT, last, -1);
    *bonus = verify_draw(v->vocab, law->row, sums, mass, v->uniforms[0]);
    return FD_OK;
}
static int verify_top_down(struct verify *v, int64_t *last, int32_t *bonus)
{
    struct verify_law law = verify_law_after(v, 0, 1.0);
    int64_t at = 0;
    for (int64_t i = 1; i < v->nodes; i++) {
        if (v->parents[i] != at) continue;
        double chance = 0.0;
        int status = verify_chance(v, &law, i, &chance);
        if (status) return status;
        if (v->uniforms[i] < chance) {
            if (law.own) v->slots[v->free_slots++] = law.own;
            law = verify_law_after(v, i, 1.0);
            at = i;
        } else {
            v->verdicts[i] = -1;
            status = verify_refuse(v, &law, i);
            if (status) return status;
        }
    }
    *last = at;
    return verify_finish(v, &law, at, bonus);
}
static int verify_bottom_up(struct verify *v, int64_t *last, int32_t *bonus)
{
    for (int64_t i = 0; i < v->nodes; i++) v->node[i].child = -1;
    for (int64_t i = v->nodes - 1; i > 0; i--) {
        v->node[i].sibling = v->node[v->parents[i]].child;
        v->node[v->parents[i]].child = (int32_t)i;
    }
    int64_t at = 0;
    v->node[0].law = verify_law_after(v, 0, 1.0);
    for (;;) {
        struct verify_node *node = v->node + at;
        int64_t child = node->law.weight > 0.0 ? node->child : -1;
        if (child >= 0) {                              /* its own children first */
            double chance = 0.0;
            int status = verify_chance(v, &node->law, child, &chance);
            if (status) return status;
            v->node[child].law = verify_law_after(v, child, chance);
            at = child;
            continue;
        }
        if (at == 0 || v->uniforms[at] < node->law.weight) break;
        v->verdicts[at] = -1;
        if (node->law.own) v->slots[v->free_slots++] = node->law.own;
        struct verify_node *parent = v->node + v->parents[at];
        int status = verify_refuse(v, &parent->law, at);
        if (status) return status;
        parent->child = node->sibling;
        at = v->parents[at];
    }
    *last = at;
    return verify_finish(v, &v->node[at].law, at, bonus);
}
/* min(epsilon, delta e^-H), H = - sum p log p; p below the normal numbers adds nothing. */
static int verify_threshold(struct verify *v, int64_t node, double *threshold)
{
    const float *row = verify_target(v, node);
    vi bits = vi_set1(0);
    double minus_entropy = 0.0;
    for (int64_t chunk = 0; chunk < v->vocab; chunk += FD_CHUNK) {
        vd sum = vd_zero();
        for (int64_t i = chunk; i < fd_min(chunk + FD_CHUNK, v->vocab); i += 16) {
            vf p = vf_load_part(row + i, v->vocab - i, 0.0f);
            bits = vi_max_unsigned(bits, vi_of_bits(p));
            sum = vd_add_floats(sum, vf_select(vf_less(p, vf_set1(0x1p-126f)), vf_zero(), vf_mul(p, vf_log(p))));
        }
        minus_entropy += vd_sum(sum);
    }
    if (residual_most(bits) >= RESIDUAL_INFINITY && !residual_row_is_good(v->vocab, row)) return verify_fault(v, FD_NO_LAW, node, -1);
    *threshold = v->set->delta * (double)fd_exp((float)minus_entropy);
    if (!(*threshold < v->set->epsilon)) *threshold = v->set->epsilon;
    return FD_OK;
}
static int verify_longest(struct verify *v, int64_t *last, int32_t *bonus)
{
    struct verify_typical *node = (struct verify_typical *)(void *)v->node;
    int64_t best = 0;
    node[0] = (struct verify_typical){0.0, NAN, 0, 0};
    for (int64_t i = 1; i < v->nodes; i++) {
        struct verify_typical *parent = node + v->parents[i];
        node[i] = (struct verify_typical){0.0, NAN, -1, 0};
        if (parent->length < 0) continue;
        v->verdicts[i] = -1;
        int status = verify_check_target(v, v->parents[i], &parent->known);
        if (status) return status;
        float p = verify_target(v, v->parents[i])[v->tokens[i]], log[16];
        if (!residual_entry_is_good(p)) return verify_fault(v, FD_NO_LAW, v->parents[i], -1);
        if (p == 0.0f) continue;
        if (!((double)p > v->set->epsilon)) {          /* the threshold is not above epsilon: its entropy is not always needed */
            if (isnan(parent->threshold)) {
                status = verify_threshold(v, v->parents[i], &parent->threshold);
                if (status) return status;
            }
            if (!((double)p > parent->threshold)) continue;
        }
        vf_store(log, verify_log(vf_set1(p)));
        node[i].length = parent->length + 1;
        node[i].logs = parent->logs + (double)log[0];
        if (node[i].length > node[best].length || (node[i].length == node[best].length && node[i].logs > node[best].logs)) best = i;
    }
    struct verify_law law = verify_law_after(v, best, 1.0);
    *last = best;
    return verify_finish(v, &law, best, bonus);
}
static int verify_follow(struct verify *v, int64_t *last, int32_t *bonus)
{
    int64_t at = 0;
    for (int64_t i = 1; i < v->nodes; i++) {
        if (v->parents[i] != at) continue;
        v->verdicts[i] = -1;
        if (v->tokens[i] == v->drawn[at]) at = i;
    }
    *last = at;
    *bonus = v->drawn[at];
    return FD_OK;
}

/* ---- one tree after the other ---- */
static int verify_check(struct verify *v)
{
    for (int64_t i = 0; i < v->nodes; i++) {
        int32_t parent = v->parents[i];
        if (i == 0 ? parent != -1 : parent < 0 || parent >= i) return verify_fault(v, FD_NO_TREE, i, -1);
        if (i > 0 && v->set->chain && parent != i - 1) return verify_fault(v, FD_NO_CHAIN, i, -1);
        if (v->set->rule == FD_COUPLED) continue;
        if (i > 0 && (v->tokens[i] < 0 || v->tokens[i] >= v->vocab)) return verify_fault(v, FD_NO_TOKEN, i, -1);
        if (i > 0 && (verify_row(v, i) < -1 || verify_row(v, i) >= v->rows)) return verify_fault(v, FD_NO_ROW, i, -1);
        if (!(v->uniforms[i] >= 0.0 && v->uniforms[i] < 1.0)) return verify_fault(v, FD_NO_CHANCE, i, -1);
    }
    return FD_OK;
}
static void verify_space(struct verify *v, char *base, int64_t most_nodes)       /* verify_tree_workspace bytes */
{
    int64_t slots = verify_slots(v->set->rule, most_nodes);
    v->node = (struct verify_node *)(void *)base;
    v->slots = (float **)(void *)(v->node + most_nodes);
    char *slot = base + verify_head_bytes(v->set->rule, most_nodes);
    for (int64_t i = 0; i < slots; i++) v->slots[i] = (float *)(void *)(slot + i * verify_slot_bytes(v->vocab));
    v->free_slots = slots;
}
static int64_t verify_tree_workspace(int rule, int64_t nodes, int64_t vocab)
{
    return verify_head_bytes(rule, nodes) + verify_slots(rule, nodes) * verify_slot_bytes(vocab);
}
static int verify_tree(int64_t trees, int64_t vocab, int64_t rows, const int64_t *offsets, const int32_t *parents,
                       const int32_t *tokens, const int32_t *drawn, const float *target, const float *drafts,
                       const int32_t *draft_rows, const double *uniforms, const struct fd_verifier *set, int32_t *path,
                       int32_t *emitted, int32_t *accepted, int32_t *bonus, int8_t *verdicts, void *workspace, int64_t *where)
{
    int64_t most_nodes = 1;
    for (int64_t t = 0; t < trees; t++)
        if (offsets[t + 1] - offsets[t] > most_nodes) most_nodes = offsets[t + 1] - offsets[t];
    for (int64_t t = 0; t < trees; t++) {
        int64_t first = offsets[t], last = 0;
        struct verify v = {
            .set = set, .vocab = vocab, .padded = fd_pad(vocab, FD_CHUNK), .nodes = offsets[t + 1] - first, .rows = rows,
            .parents = parents + first, .tokens = tokens + first, .drawn = drawn ? drawn + first : NULL,
            .draft_rows = draft_rows ? draft_rows + first : NULL, .target = target ? target + first * vocab : NULL,
            .drafts = drafts, .uniforms = uniforms ? uniforms + first : NULL, .verdicts = verdicts + first};
        memset(v.verdicts, 0, (size_t)v.nodes);
        int status = verify_check(&v);
        if (!status) {
            if (set->rule != FD_COUPLED) verify_space(&v, workspace, most_nodes);
            status = set->rule == FD_COUPLED ? verify_follow(&v, &last, bonus + t)
                   : set->rule == FD_REJECTION ? verify_top_down(&v, &last, bonus + t)
                   : set->rule == FD_TRAVERSAL ? verify_bottom_up(&v, &last, bonus + t) : verify_longest(&v, &last, bonus + t);
        }
        if (status) {
            where[0] = first + v.fault_node;
            where[1] = v.fault_row;
            return status;
        }
        int32_t depth = 0;
        for (int64_t i = last; i > 0; i = v.parents[i]) depth++;
        accepted[t] = depth;
        for (int64_t i = 0; i < v.nodes; i++) path[first + i] = emitted[first + i] = -1;
        emitted[first + depth] = bonus[t];
        for (int64_t i = last; i >= 0; i = v.parents[i], depth--) {
            path[first + depth] = (int32_t)i;
            v.verdicts[i] = 1;
            if (depth > 0) emitted[first + depth - 1] = v.tokens[i];
        }
    }
    return FD_OK;
}
