/* plain.c - kernels without vectors, compiled once: packing, n-grams, the shapes of trees, drafts of masks. */
#include <stdlib.h>
#include <string.h>
#include "internal.h"
#include "kernels/pack.c"
#include "kernels/ngram_pool.c"
#include "kernels/best.c"
#include "kernels/build_tree.c"
#include "kernels/tree_layout.c"
#include "kernels/lookahead_layout.c"
#include "kernels/draft_and_verify.c"

#define FD_PLAIN_KERNEL(type, name, parameters, names) type fd_##name parameters { return FD_IEEE(name names); }
#include "kernels.h"
