/* plain.c - kernels without vectors, compiled once: packing, n-grams, the shapes of trees, drafts of masks. */
#include "float_mode.h"
#include "kernels/fixed_point/lookahead_layout.c"
#include "kernels/fixed_point/ngram_pool.c"
#include "kernels/forward/pack.c"
#include "kernels/unmask/draft_and_verify.c"
#include "kernels/verify/best.c"
#include "kernels/verify/build_tree.c"
#include "kernels/verify/tree_layout.c"

#define FD_PLAIN_KERNEL(type, name, parameters, names) type fd_##name parameters { return FD_IEEE(name names); }
#include "kernels.h"
