/* head.c - the output head: logits chunk by chunk, statistics of each chunk at once, so that logits need not be kept.
 *
 * One task is one chunk of the vocabulary for all rows that are read; the weights of a chunk are read once.
 */
static int64_t op_head_tasks(const struct fd_op *op) { return fd_ceil(op->weights[0]->outputs, FD_CHUNK); }

static void op_head(const struct fd_op *op, const struct fd_pass *pass, int64_t chunk)
{
    const struct fd_weight *weight = op->weights[0];
    int64_t vocab = weight->outputs, token = chunk * FD_CHUNK, n = fd_min(FD_CHUNK, vocab - token);
    int64_t tile = token / FD_LANES, tiles = fd_ceil(n, FD_LANES), chunks = op_head_tasks(op);
    _Alignas(64) float z[FD_HEAD_ROWS * FD_CHUNK];
    struct linear_job job = {weight, NULL, linear_rows_of(op), NULL, z, FD_CHUNK, FD_CHUNK};
    for (int64_t row = 0; row < pass->reads; row += FD_HEAD_ROWS) {
        int64_t rows = fd_min(FD_HEAD_ROWS, pass->reads - row);
        linear_tiles(&job, row, row + rows, tile, tile + tiles);
        for (int64_t r = 0; r < rows; r++) {
            const float *logits = z + r * FD_CHUNK;
            struct statistics s = statistics_of_chunk(logits, n, token);
            memcpy(pass->partial_statistics + ((row + r) * chunks + chunk) * FD_PARTIAL, &s, sizeof s);
            if (pass->logits) memcpy(pass->logits + (row + r) * vocab + token, logits, (size_t)n * sizeof *logits);
            if (pass->wanted_tokens) {
                int64_t at = pass->wanted_tokens[row + r] - token;
                if (at >= 0 && at < n) pass->wanted_log_prob[row + r] = logits[at];
            }
        }
    }
}

static int op_head_merge(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t chunks = op_head_tasks(op);
    struct statistics all = statistics_empty();
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        struct statistics s;
        memcpy(&s, pass->partial_statistics + (row * chunks + chunk) * FD_PARTIAL, sizeof s);
        all = statistics_merge(all, s);
    }
    int finite = statistics_result(all, pass->argmax + row, pass->top + row, pass->second + row, pass->log_sum_exp + row,
                                   pass->entropy + row);
    if (pass->wanted_tokens) pass->wanted_log_prob[row] -= pass->log_sum_exp[row];
    return finite;
}
