#!/usr/bin/env bash
# Law 1 across architectures and compilers: bits_main.c built for this machine by gcc, by clang where there is one, with avx512
# emulated where SIMDe is there, and for aarch64 under qemu.  Every level of every build must print the same hashes.
. "$(dirname "$0")/common.sh"
need gcc gcc
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need qemu-aarch64 qemu-user
bits() {         # bits NAME RUNNER COMPILER FLAG...
    local name=$1 runner=$2 compiler=$3
    shift 3
    compile_main "$compiler" "$work/$name" "$here/bits_main.c" -O1 -w -DFD_TEST_LAYOUT "$@"
    $runner "$work/$name" | sed "s/^/$name /" | tee -a "$work/bits"
}
bits gcc "" gcc
if command -v clang >/dev/null; then bits clang "" clang; fi
if [ "$(uname -m)" = x86_64 ] && [ -e /usr/include/simde/x86/avx512.h ]; then bits emulated "" gcc -DFD_EMULATE_AVX512 "-I$here" -Wno-psabi; fi
bits aarch64 qemu-aarch64 aarch64-linux-gnu-gcc -static
different=$(cut -d' ' -f2- "$work/bits" | sed 's/^[^ ]* *//' | sort -u | wc -l)
[ "$different" = 1 ] || { echo "levels differ" >&2; exit 1; }
echo "the same bits on all $(wc -l <"$work/bits") levels"
