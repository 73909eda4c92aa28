#!/usr/bin/env bash
# The tests with the avx512 level present on a machine that has AVX2 only: its intrinsics are emulated (emulate_avx512.h).
#
#     tests/cross/run_avx512.sh [pytest arguments]        # default: tests/kernels
. "$(dirname "$0")/common.sh"
need gcc gcc
need /usr/include/simde/x86/avx512.h libsimde-dev
build_in_copy "-DFD_EMULATE_AVX512 -I$here -O1 -Wno-psabi" ""        # -O3 takes a minute and finds nothing else
(cd "$tree" && "$PYTHON" -c "from fastdistill.kernels import isa_levels; print('levels:', *isa_levels())") | tee "$work/levels"
grep -q avx512 "$work/levels" || { echo "this CPU has no AVX2: avx512 cannot be emulated" >&2; exit 77; }
run_tests -- "$@"
