#!/usr/bin/env bash
# Tests of kernels and of law 1, as this checkout is built, on an emulated x86-64 without AVX and on one with AVX2.
#
#     tests/cross/run_x86_tests.sh [pytest arguments]     # default: a selection of a few minutes
. "$(dirname "$0")/common.sh"
[ "$(uname -m)" = x86_64 ] || { echo "$(basename "$0"): this machine's Python is not for x86-64" >&2; exit 77; }
need qemu-x86_64 qemu-user
on() { (cd "$root" && emulated qemu-x86_64 -cpu "$1,check=off" "$PYTHON" "${@:2}"); }      # without warnings of what qemu lacks
tests_on Nehalem scalar "$@"
tests_on Haswell "scalar avx2" "$@"
all_passed
