/* sample.c - sample and probabilities: any logits, processors and bans; what is drawn has a probability. */
#include "kernels/sample/probabilities.c"
#include "kernels/sample/sample.c"

int64_t fd_sample_workspace(int64_t vocab) { return sample_workspace(vocab); }           /* dispatch.c is not here */

static float take_positive(struct input *in, float least, float most)           /* within them, whatever it is */
{
    float real = fabsf(take_real(in));
    return real >= least && real <= most ? real : least;
}

static void fuzz_sample(struct input *in)
{
    int64_t rows = take_between(in, 0, 2), vocab = take_between(in, 1, 70), words = (vocab + 31) / 32;
    struct fd_sampler set = {0};
    set.temperature = take_positive(in, 0.0f, 1e30f);
    set.top_p = take_flag(in) ? 1.0f : take_positive(in, FLT_MIN, 1.0f);
    set.min_p = take_flag(in) ? 0.0f : take_positive(in, 0.0f, 1.0f);
    set.top_k = take_between(in, 0, 80);
    set.repetition_penalty = take_flag(in) ? 1.0f : take_positive(in, FLT_MIN, FLT_MAX);
    set.frequency_penalty = take_flag(in) ? 0.0f : take_positive(in, 0.0f, 2.0f) - 1.0f;
    set.presence_penalty = take_flag(in) ? 0.0f : take_positive(in, 0.0f, 2.0f) - 1.0f;
    set.prompt_length = take_between(in, 0, 5);
    set.seed = take_byte(in);
    set.biases = take_between(in, 0, 4);
    int32_t *bias_tokens = filled(set.biases, 4);
    float *bias_values = filled(set.biases, 4);
    for (int64_t i = 0; i < set.biases; i++) {         /* a map: each token once */
        bias_tokens[i] = (int32_t)(i == 0 ? take_between(in, 0, vocab - 1) : bias_tokens[i - 1] + 1);
        bias_values[i] = take_real(in);
        if (bias_tokens[i] >= vocab || !(bias_values[i] < INFINITY)) return;
    }
    set.bias_tokens = bias_tokens;
    set.bias_values = bias_values;
    int gives = take_byte(in);
    int64_t *offsets = filled(rows + 1, 8);
    offsets[0] = 0;
    for (int64_t row = 0; row < rows; row++) offsets[row + 1] = offsets[row] + take_between(in, 0, 9);
    int32_t *seen = filled(offsets[rows], 4), *positions = take_integers(in, rows), *tokens = room(rows, 4);
    for (int64_t i = 0; i < offsets[rows]; i++) seen[i] = (int32_t)take_between(in, 0, vocab - 1);
    uint32_t *allowed = gives & 1 ? filled(rows * words, 4) : NULL;
    for (int64_t i = 0; allowed && i < rows * words; i++) allowed[i] = take_word(in) | (take_flag(in) ? 0xffffffffu : 0);
    float *logits = take_reals(in, rows * vocab), *noise = gives & 2 ? take_reals(in, rows * vocab) : NULL, *laws = room(rows * vocab, 4);
    for (int64_t i = 0; noise && i < rows * vocab; i++)
        if (!isfinite(noise[i])) noise[i] = 0;
    void *workspace = room(sample_workspace(vocab), 1);
    int drawn = sample(rows, vocab, logits, positions, &set, gives & 4 ? seen : NULL, gives & 4 ? offsets : NULL, allowed, noise, tokens,
                       workspace, 1);
    int known = probabilities(rows, vocab, logits, &set, gives & 4 ? seen : NULL, gives & 4 ? offsets : NULL, allowed, laws, workspace, 1);
    HOLDS(drawn == FD_OK || drawn == FD_NOT_FINITE || drawn == FD_NOTHING_ALLOWED);
    HOLDS(known == drawn);
    for (int64_t row = 0; row < rows && drawn == FD_OK; row++) {
        double sum = 0;
        HOLDS(tokens[row] >= 0 && tokens[row] < vocab);
        HOLDS(!allowed || allowed[row * words + tokens[row] / 32] >> tokens[row] % 32 & 1);
        for (int64_t i = 0; i < vocab; i++) {
            HOLDS(laws[row * vocab + i] >= 0.0f && laws[row * vocab + i] <= 1.0f);
            sum += (double)laws[row * vocab + i];
        }
        HOLDS(fabs(sum - 1) < 1e-4);
    }
}
