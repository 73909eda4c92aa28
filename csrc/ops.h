/* ops.h - the ops of a forward pass, one a line: its name, how many tasks it is (op_rows: one a row).  The enum that Python knows them by
 * and each level's table of them (kernels/forward/ops.c) are made of these lines; `op_<name>` does one task, and returns 0 where
 * it meets a row that is not finite. */
FD_OP(embedding, op_rows)                   /* tokens by weights[0], or the pass's input rows -> out[0] */
FD_OP(position_embedding, op_rows)          /* positions by weights[0] -> out[0] */
FD_OP(rms_norm, op_rows)                    /* in[0] / sqrt(mean(in[0]^2) + scalar) * vectors[0] -> out[0] and, where given, codes_out; vectors may be of one of `heads` */
FD_OP(layer_norm, op_rows)                  /* the same of in[0] - mean(in[0]), + vectors[1] */
FD_OP(quantize, op_rows)                    /* in[0] -> codes_out */
FD_OP(linear, op_linear_tasks)              /* weights[0..parts) over in[0] or codes_in -> out[...]; `epilogue` */
FD_OP(add, op_rows)                         /* in[0] + in[1] -> out[0] */
FD_OP(scale, op_rows)                       /* in[0] * scalar -> out[0] */
FD_OP(activation, op_rows)                  /* activation(in[0]) -> out[0] */
FD_OP(gated, op_rows)                       /* activation(in[0]) * in[1] -> out[0] */
FD_OP(sigmoid_mul, op_rows)                 /* in[0] * sigmoid(in[1]), one number a row -> out[0] */
FD_OP(softcap, op_rows)                     /* softcap tanh(in[0] / softcap) -> out[0] */
FD_OP(route, op_rows)                       /* in[0] = the router's logits -> out[0], routes: experts.c */
FD_OP(experts_up, op_experts_up_tasks)      /* weights[2 e], weights[2 e + 1] of expert e over in[0] or codes_in, by the routes in[1] -> out[0] */
FD_OP(experts_down, op_experts_down_tasks)  /* weights[e] over what that made, in[0] or codes_in; routes in[1] -> out[0] */
FD_OP(rotary_table, op_rows)                /* positions, vectors[0] = inverse frequencies, vectors[1] of long texts -> scalar cos out[0], scalar sin out[1] */
FD_OP(rotary, op_rows)                      /* in[0]; cos in[1], sin in[2] -> out[0] */
FD_OP(rotary_gradient, op_rows)             /* the same, turned back */
FD_OP(store, op_rows)                       /* keys in[0], values in[1] -> the caches of `key_set`, layer `layer` */
FD_OP(attend, op_attend_tasks)              /* queries in[0] over those caches -> out[0], or partial results where split; vectors[0]: slopes, or by distance */
FD_OP(attend_merge, op_attend_merge_tasks)  /* partial results -> out[0] */
FD_OP(read, op_rows)                        /* the rows that are read, of in[0] -> out[0] */
FD_OP(head, op_head_tasks)                  /* weights[0] over in[0] or codes_in -> partial statistics, logits where asked */
FD_OP(head_merge, op_rows)                  /* partial statistics -> statistics, drawn tokens; in[0] or codes_in as the head's */
FD_OP(copy, op_rows)                        /* in[0] -> out[0]: a tap */
FD_OP(given, op_rows)                       /* the pass's input rows -> out[0] */
FD_OP(spread, op_rows)                      /* in[0], of rows that are read -> out[0], zeros in all others */
FD_OP(embedding_gradient, op_column_tasks)  /* in[0] added to the rows of weights[0], a gradient, that tokens name */
FD_OP(position_embedding_gradient, op_column_tasks)               /* the same of positions */
FD_OP(linear_input_gradient, op_linear_input_gradient_tasks)      /* in[0] weights[0] + in[1] weights[1] + .. -> out[0] */
FD_OP(linear_weight_gradient, op_linear_weight_gradient_tasks)    /* in[1]^T in[0] added to weights[0], a gradient */
FD_OP(column_sums, op_column_tasks)         /* the rows of in[0], and `heads` of each, added to vectors[0], a gradient */
FD_OP(rms_norm_gradient, op_rows)           /* x in[0], dy in[1], the norm's vectors[0] -> dx out[0] */
FD_OP(layer_norm_gradient, op_rows)         /* the same */
FD_OP(rms_norm_weight_terms, op_rows)       /* x in[0], dy in[1] -> out[0], summed over rows the gradient by the norm's weight */
FD_OP(layer_norm_weight_terms, op_rows)     /* the same */
FD_OP(activation_gradient, op_rows)         /* activation'(in[0]) * in[1] -> out[0] */
FD_OP(gated_gate_gradient, op_rows)         /* activation'(in[0]) * in[1] * in[2] -> out[0] */
FD_OP(sigmoid_mul_share_gradient, op_rows)  /* sigmoid'(in[1]) * sum in[0] * in[2] -> out[0], one number a row */
FD_OP(softcap_gradient, op_rows)            /* (1 - tanh(in[0] / softcap)^2) * in[1] -> out[0] */
FD_OP(experts_linear, op_experts_up_tasks)  /* weights[e] of expert e over in[0] or codes_in, by the routes in[1] -> out[0], by choice */
FD_OP(experts_up_gradient, op_experts_input_tasks)                /* in[0], by choice, times weights[e] of the routes in[1] -> their sums, out[0] */
FD_OP(experts_down_gradient, op_experts_input_tasks)              /* in[0] times weights[e] of each of the routes in[1] -> out[0], by choice */
FD_OP(experts_weight_gradient, op_experts_weight_gradient_tasks)  /* in[1]^T in[0] of rows whose routes in[2] name expert vectors[0][i], added to weights[i], a gradient */
FD_OP(experts_scale, op_rows)               /* in[0], by choice, times the shares of the routes in[1] -> out[0] */
FD_OP(experts_share_gradient, op_rows)      /* sums of in[0] * in[1], by choice -> out[0], shaped as routes */
FD_OP(route_gradient, op_rows)              /* by the logits in[0], of routes in[1], of that by their shares in in[2] -> out[0] */
FD_OP(attention_gradient, op_attention_gradient_tasks)            /* queries in[0], keys in[1], values in[2], result in[3], its gradient in[4] -> by each head's queries, keys, values, side by side, out[0] */
FD_OP(columns, op_rows)                   /* in[0] from column `first` on -> out[0], `columns` wide; each `heads` of head_dim summed, where given */
