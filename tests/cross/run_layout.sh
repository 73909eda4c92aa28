#!/usr/bin/env bash
# The tests with one level more, scalar_pairs, whose weights have a layout of their own (csrc/vec_scalar_pairs.h).
#
#     tests/cross/run_layout.sh [pytest arguments]        # default: what multiplies by weights
. "$(dirname "$0")/common.sh"
need gcc gcc
build_in_copy "-DFD_TEST_LAYOUT -O1" ""
(cd "$tree" && "$PYTHON" -c "from fastdistill.kernels import isa_levels; print('levels:', *isa_levels())") | tee "$work/levels"
grep -q scalar_pairs "$work/levels"
[ $# -gt 0 ] || set -- tests/kernels/forward tests/runtime/test_law_one.py tests/runtime/test_executors.py tests/runtime/test_layouts.py
run_tests FASTDISTILL_ISA=scalar_pairs -- "$@"
