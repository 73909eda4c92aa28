/* example.c - the kernels without Python: the best token of a row of logits, and how sure it is. */
#include <stdio.h>
#include "fastdistill.h"

int main(void)
{
    int level = fd_isa_count() - 1;
    while (!fd_isa_supported(level)) level--;       /* the best one that this CPU runs: they stand worst first */
    fd_isa_select(level);

    float logits[1][4] = {{0.5f, 3.0f, -1.0f, 2.0f}}, top, second, log_sum_exp, entropy, log_prob;
    int32_t argmax;
    int status = fd_row_statistics(1, 4, logits[0], &argmax, &top, &second, &log_sum_exp, &entropy, &log_prob, 1);
    printf("token %d, log probability %.4f\n", argmax, log_prob);
    return status != FD_OK;
}
