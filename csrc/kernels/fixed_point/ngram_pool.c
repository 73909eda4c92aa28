/* ngram_pool.c - the n-grams of late, found by their first tokens: one hash table over memory that the caller owns.
 *
 * Nodes 1 .. capacity + 1 are n-grams, as many after them keys.  A node lies in a bucket of the table, by the hash of its tokens; a
 * key's tokens are those of its newest n-gram.  N-grams lie in two rings, of all of them and of those with one key, from the newest
 * to the oldest; node 0 closes the first ring, the key's node the second.  One n-gram and one key more than the capacity have room,
 * so that what is too much goes after what is new has come.  Only indices are kept: where the memory lies changes nothing.
 */
#pragma once
#include <string.h>
#include "../../base.h"

enum { NGRAM, NGRAM_KEY };                             /* kinds of nodes */
enum { NGRAM_ALL, NGRAM_SAME_KEY };                    /* rings */

/* The memory of a pool: a header, heads of buckets, nodes, tokens.  All zeros, it is empty. */
struct ngram_header {
    int32_t count;                      /* n-grams */
    int32_t used[2], free[2];           /* of n-grams and of keys: nodes ever used, and the first of those free again, or 0 */
};
struct ngram_node {
    struct { int32_t newer, older; } ring[2];
    int32_t next;                       /* of its bucket, or of the free ones; 0: none */
    uint32_t bucket;
    union { int32_t owner, count; };    /* an n-gram's key; how many n-grams a key has */
};
static int64_t ngram_nodes(int64_t capacity) { return 2 * capacity + 3; }
static int64_t ngram_buckets(int64_t capacity)                /* a power of two, one for each n-gram and each key */
{
    int64_t buckets = 2;
    while (buckets < 2 * capacity) buckets *= 2;
    return buckets;
}

struct ngram_view {                                    /* a pool and the parts of its memory */
    int64_t ngram, capacity, per_key, key;
    uint64_t mask;
    struct ngram_header *header;
    int32_t *heads;                                    /* (mask + 1,) the first node of each bucket, or 0 */
    struct ngram_node *nodes;                          /* (2 capacity + 3,) */
    int32_t *tokens;                                   /* (capacity + 1, ngram) of nodes 1, 2, ... */
};
static struct ngram_view ngram_view(const struct fd_ngram_pool *pool)
{
    int64_t buckets = ngram_buckets(pool->capacity);
    struct ngram_view p = {pool->ngram, pool->capacity, pool->per_key, pool->key, (uint64_t)buckets - 1, pool->memory, 0, 0, 0};
    p.heads = (int32_t *)(p.header + 1);
    p.nodes = (struct ngram_node *)(p.heads + buckets);
    p.tokens = (int32_t *)(p.nodes + ngram_nodes(pool->capacity));
    return p;
}
static inline int32_t *ngram_tokens(const struct ngram_view *p, int64_t ngram) { return p->tokens + (ngram - 1) * p->ngram; }

/* Goes on with the hash of the tokens before these: an n-gram's goes on with its key's. */
static uint64_t ngram_hash(uint64_t hash, const int32_t *tokens, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 0x9e3779b97f4a7c15u;       /* 2^64 over the golden ratio, odd */
        hash ^= hash >> 32;                            /* the lowest bits of a product know the lowest bits of its factors only */
    }
    return hash;
}
static int32_t ngram_find(const struct ngram_view *p, int kind, uint64_t hash, const int32_t *tokens)      /* its node, or 0 */
{
    size_t bytes = (size_t)(kind == NGRAM ? p->ngram : p->key) * sizeof *tokens;
    for (int32_t i = p->heads[hash & p->mask]; i; i = p->nodes[i].next) {
        if ((i <= p->capacity + 1) != (kind == NGRAM)) continue;
        int32_t ngram = kind == NGRAM ? i : p->nodes[i].ring[NGRAM_SAME_KEY].older;
        if (memcmp(ngram_tokens(p, ngram), tokens, bytes) == 0) return i;
    }
    return 0;
}
static int32_t ngram_add(const struct ngram_view *p, int kind, uint64_t hash)   /* a node, in its bucket */
{
    int32_t *spare = &p->header->free[kind], *head = &p->heads[hash & p->mask], i = *spare;
    if (i) *spare = p->nodes[i].next;
    else i = (int32_t)(kind == NGRAM ? 1 : p->capacity + 2) + p->header->used[kind]++;
    p->nodes[i].bucket = (uint32_t)(hash & p->mask);
    p->nodes[i].next = *head;
    return *head = i;
}
static void ngram_free(const struct ngram_view *p, int kind, int32_t i)
{
    int32_t *at = &p->heads[p->nodes[i].bucket];
    while (*at != i) at = &p->nodes[*at].next;
    *at = p->nodes[i].next;
    p->nodes[i].next = p->header->free[kind];
    p->header->free[kind] = i;
}

static void ngram_join(struct ngram_node *nodes, int ring, int32_t end, int32_t i)   /* as the newest; `end` closes the ring */
{
    int32_t newest = nodes[end].ring[ring].older;
    nodes[i].ring[ring].newer = end;
    nodes[i].ring[ring].older = newest;
    nodes[newest].ring[ring].newer = nodes[end].ring[ring].older = i;
}
static void ngram_leave(struct ngram_node *nodes, int ring, int32_t i)
{
    int32_t newer = nodes[i].ring[ring].newer, older = nodes[i].ring[ring].older;
    nodes[newer].ring[ring].older = older;
    nodes[older].ring[ring].newer = newer;
}

static void ngram_remove(const struct ngram_view *p, int32_t i)
{
    int32_t key = p->nodes[i].owner;
    ngram_leave(p->nodes, NGRAM_ALL, i);
    ngram_leave(p->nodes, NGRAM_SAME_KEY, i);
    ngram_free(p, NGRAM, i);
    p->header->count--;
    if (--p->nodes[key].count == 0) ngram_free(p, NGRAM_KEY, key);
}
static void ngram_insert(const struct ngram_view *p, const int32_t *tokens)
{
    struct ngram_node *nodes = p->nodes;
    uint64_t key_hash = ngram_hash(0, tokens, p->key), hash = ngram_hash(key_hash, tokens + p->key, p->ngram - p->key);
    int32_t i = ngram_find(p, NGRAM, hash, tokens), key;
    if (i) {
        key = nodes[i].owner;
        ngram_leave(nodes, NGRAM_ALL, i);
        ngram_leave(nodes, NGRAM_SAME_KEY, i);
    } else {
        key = ngram_find(p, NGRAM_KEY, key_hash, tokens);
        if (!key) {
            key = ngram_add(p, NGRAM_KEY, key_hash);
            nodes[key].count = 0;
            nodes[key].ring[NGRAM_SAME_KEY].newer = nodes[key].ring[NGRAM_SAME_KEY].older = key;
        }
        i = ngram_add(p, NGRAM, hash);
        nodes[i].owner = key;
        nodes[key].count++;
        p->header->count++;
        memcpy(ngram_tokens(p, i), tokens, (size_t)p->ngram * sizeof *tokens);
    }
    ngram_join(nodes, NGRAM_ALL, 0, i);
    ngram_join(nodes, NGRAM_SAME_KEY, key, i);
    /* What is newer than the end of a ring is the oldest. */
    if (nodes[key].count > p->per_key) ngram_remove(p, nodes[key].ring[NGRAM_SAME_KEY].newer);
    else if (p->header->count > p->capacity) ngram_remove(p, nodes[0].ring[NGRAM_ALL].newer);
}

static void ngram_pool_insert(const struct fd_ngram_pool *pool, int64_t rows, int64_t n, const int32_t *tokens)
{
    struct ngram_view p = ngram_view(pool);
    int32_t window[FD_NGRAM];                          /* a copy: a thread may write to the tokens between hashing and storing */
    if (n < p.ngram) return;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i <= n - p.ngram; i++) {
            memcpy(window, tokens + row * n + i, (size_t)p.ngram * sizeof *window);
            ngram_insert(&p, window);
        }
}
static int64_t ngram_pool_lookup(const struct fd_ngram_pool *pool, const int32_t *key, int64_t count, int32_t *continuations)
{
    struct ngram_view p = ngram_view(pool);
    int64_t found = 0, rest = p.ngram - p.key;
    int32_t owner = ngram_find(&p, NGRAM_KEY, ngram_hash(0, key, p.key), key), i = owner;
    for (; owner && found < count && (i = p.nodes[i].ring[NGRAM_SAME_KEY].older) != owner; found++)
        memcpy(continuations + found * rest, ngram_tokens(&p, i) + p.key, (size_t)rest * sizeof *key);
    return found;
}

int64_t fd_ngram_pool_bytes(int64_t ngram, int64_t capacity)
{
    return (int64_t)sizeof(struct ngram_header) + ngram_nodes(capacity) * (int64_t)sizeof(struct ngram_node)
         + (ngram_buckets(capacity) + (capacity + 1) * ngram) * (int64_t)sizeof(int32_t);
}
int64_t fd_ngram_pool_count(const struct fd_ngram_pool *pool) { return ((const struct ngram_header *)pool->memory)->count; }
void fd_ngram_pool_clear(const struct fd_ngram_pool *pool)              /* header, heads, and node 0, the end of the ring of all */
{
    int64_t heads = ngram_buckets(pool->capacity) * (int64_t)sizeof(int32_t);
    memset(pool->memory, 0, sizeof(struct ngram_header) + (size_t)heads + sizeof(struct ngram_node));
}
