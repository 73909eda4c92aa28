/* ngram_pool.c - inserting, looking up and forgetting in any order, beside a list that does the same by walking through it. */
#include "kernels/fixed_point/ngram_pool.c"

enum { POOL_MOST = 12, POOL_LONGEST = 6 };
struct plain_pool { int64_t count; int32_t tokens[POOL_MOST + 1][POOL_LONGEST]; };       /* the newest first */

static void plain_remove(struct plain_pool *p, int64_t at)
{
    memmove(p->tokens[at], p->tokens[at + 1], (size_t)(--p->count - at) * sizeof p->tokens[0]);
}
static void plain_insert(struct plain_pool *p, const struct fd_ngram_pool *set, const int32_t *tokens)
{
    size_t bytes = (size_t)set->ngram * 4, key_bytes = (size_t)set->key * 4;
    int64_t same = 0, oldest = 0;
    for (int64_t i = 0; i < p->count; i++)
        if (!memcmp(p->tokens[i], tokens, bytes)) { plain_remove(p, i); break; }
    memmove(p->tokens[1], p->tokens[0], (size_t)p->count++ * sizeof p->tokens[0]);
    memcpy(p->tokens[0], tokens, bytes);
    for (int64_t i = 0; i < p->count; i++)
        if (!memcmp(p->tokens[i], tokens, key_bytes)) { same++; oldest = i; }
    if (same > set->per_key) plain_remove(p, oldest);
    else if (p->count > set->capacity) plain_remove(p, p->count - 1);
}

static void fuzz_ngram_pool(struct input *in)
{
    struct plain_pool plain = {0};
    struct fd_ngram_pool pool;
    pool.key = take_between(in, 1, POOL_LONGEST - 1);
    pool.ngram = take_between(in, pool.key + 1, POOL_LONGEST);
    pool.capacity = take_between(in, 1, POOL_MOST);
    pool.per_key = take_between(in, 1, 5);
    int64_t bytes = fd_ngram_pool_bytes(pool.ngram, pool.capacity);
    pool.memory = room(bytes, 1);
    memset(pool.memory, 0, (size_t)bytes);
    while (in->at < in->end) {
        int32_t row[24];
        int what = take_byte(in);
        if (what % 16 == 15) {
            fd_ngram_pool_clear(&pool);
            plain.count = 0;
        } else if (what % 2) {
            int64_t n = take_between(in, 0, 24);
            for (int64_t i = 0; i < n; i++) row[i] = take_integer(in);
            int32_t *tokens = filled(n, 4);
            memcpy(tokens, row, (size_t)n * 4);
            ngram_pool_insert(&pool, 1, n, tokens);
            free(rooms[--rooms_taken]);
            for (int64_t i = 0; i + pool.ngram <= n; i++) plain_insert(&plain, &pool, row + i);
        } else {
            int32_t key[POOL_LONGEST], found_tokens[8][POOL_LONGEST];
            int64_t count = take_between(in, 0, 8), rest = pool.ngram - pool.key, wanted = 0;
            for (int64_t i = 0; i < pool.key; i++) key[i] = take_integer(in);
            int64_t found = ngram_pool_lookup(&pool, key, count, &found_tokens[0][0]);
            for (int64_t i = 0; i < plain.count && wanted < count; i++) {
                if (memcmp(plain.tokens[i], key, (size_t)pool.key * 4)) continue;
                HOLDS(wanted < found && !memcmp(&found_tokens[0][0] + wanted * rest, plain.tokens[i] + pool.key, (size_t)rest * 4));
                wanted++;
            }
            HOLDS(found == wanted);
        }
        HOLDS(fd_ngram_pool_count(&pool) == plain.count);
    }
}
