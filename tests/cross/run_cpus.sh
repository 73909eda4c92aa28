#!/usr/bin/env bash
# Law 1 across CPUs, architectures and compilers, and never an illegal instruction: bits_main.c, under the flags of a release, built by
# gcc and clang, with musl, with avx512 emulated where SIMDe is there, and for aarch64, riscv64 and armv7; run on CPUs that have a level
# and on those that lack one thing of it.  Each must list exactly the levels that it can run, and every level print the same hashes.
. "$(dirname "$0")/common.sh"
need gcc gcc
need qemu-aarch64 qemu-user

# build NAME COMPILER FLAG...: $work/NAME.
build() {
    local began=$SECONDS
    compile_main "$work/$1" "$here/bits_main.c" "${@:2}" -fPIC -w -static
    echo "built: $1, in $((SECONDS - began)) s"
}
# guarded NAME COMPILER FLAG...: what was built holds no instruction where detection does not guard it.
guarded() {
    "${@:2}" -shared -o "$work/$1.so" "$work/$1.units"/*.o
    "$PYTHON" "$here/check_disassembly.py" "$work/$1.so" >"$work/$1.check" || { cat "$work/$1.check"; exit 1; }
    echo "guarded: $1"
}
# lists LEVELS COMMAND...: the levels that are found, and no other.
lists() {
    local found
    found=$("${@:2}" levels | sed -n 's/^levels: //p')
    [ "$found" = "$1" ] || { echo "${*:2} lists the levels '$found', not '$1'" >&2; exit 1; }
}
# runs LEVELS COMMAND...: and each of them gives its hashes (at the end, a run a core).
runs() {
    lists "$@"
    echo "${@:2}" >>"$work/runs"
}

# has WORD...: what Linux says of this CPU, independently of ours.
has() {
    local word
    for word; do grep -qw "$word" /proc/cpuinfo || return 1; done
}
here_are="scalar scalar_pairs"
case $(uname -m) in
    x86_64)
        if has avx2 fma f16c; then here_are+=" avx2"; emulated="$here_are avx512"; fi
        if has avx512f avx512bw avx512dq avx512vl avx512_vnni; then here_are+=" avx512"; fi ;;
    aarch64)
        here_are+=" neon"
        if has asimddp asimdrdm atomics; then here_are+=" dotprod"; fi
        if has asimddp asimdrdm atomics i8mm; then here_are+=" i8mm"; fi ;;
esac

build gcc gcc -DFD_TEST_LAYOUT
guarded gcc gcc
runs "$here_are" "$work/gcc"
if ! lacks clang clang; then
    build clang clang -DFD_TEST_LAYOUT
    guarded clang clang
    runs "$here_are" "$work/clang"
fi
if [[ $here_are == *avx512* ]]; then
    echo "avx512 is not emulated: this CPU has it"
elif [ -n "${emulated-}" ] && [ -e /usr/include/simde/x86/avx512.h ]; then
    build emulated gcc -DFD_TEST_LAYOUT -DFD_EMULATE_AVX512 "-I$here"
    runs "$emulated" "$work/emulated"
else
    echo "skipped: to emulate avx512 needs a CPU with AVX2, and Debian's libsimde-dev"
fi

if [ "$(uname -m)" = x86_64 ] && ! lacks musl-gcc musl-tools; then
    x86() { "$1" "$2" qemu-x86_64 -cpu "$3,check=off" "$work/musl"; }    # without warnings of what qemu lacks
    build musl musl-gcc
    runs "${here_are/ scalar_pairs/}" "$work/musl"
    x86 runs scalar Nehalem
    x86 runs "scalar avx2" Haswell
    x86 lists scalar qemu64
    for feature in avx2 avx fma f16c xsave; do x86 lists scalar "Haswell,-$feature"; done
    x86 lists "scalar avx2" max
fi

arm() { "$1" "$2" qemu-aarch64 -cpu "$3" "$work/aarch64"; }
if ! lacks aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu; then
    build aarch64 aarch64-linux-gnu-gcc -Wl,--wrap=getauxval
    guarded aarch64 aarch64-linux-gnu-gcc
    arm runs "scalar neon" cortex-a53
    arm runs "scalar neon" cortex-a72
    arm runs "scalar neon dotprod" cortex-a76
    arm runs "scalar neon dotprod" neoverse-n1
    arm runs "scalar neon dotprod i8mm" max
    diff - <(qemu-aarch64 -cpu max "$work/aarch64" levels) <<'END'
levels: scalar neon dotprod i8mm
without bit 8 of AT_HWCAP: scalar neon
without bit 12 of AT_HWCAP: scalar neon
without bit 20 of AT_HWCAP: scalar neon
without bit 13 of AT_HWCAP2: scalar neon dotprod
with these alone: scalar neon dotprod i8mm
with none: scalar neon
END
    if ! lacks clang clang; then
        build clang_aarch64 clang --target=aarch64-linux-gnu -idirafter /usr/aarch64-linux-gnu/include -Wl,--wrap=getauxval
        runs "scalar neon dotprod i8mm" qemu-aarch64 -cpu max "$work/clang_aarch64"
    fi
    if told=$(aarch64-linux-gnu-gcc -mbig-endian -ffreestanding -fsyntax-only -x c "-I$root/csrc" - <<<'#include "base.h"' 2>&1); then
        echo "a big-endian target was not refused" >&2; exit 1
    fi
    grep -q "fastdistill is for little-endian CPUs" <<<"$told"
fi
if ! lacks riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu; then
    build riscv64 riscv64-linux-gnu-gcc
    runs scalar qemu-riscv64 "$work/riscv64"
fi
if ! lacks arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf; then
    build armv7 arm-linux-gnueabihf-gcc
    runs scalar qemu-arm "$work/armv7"
fi

# shellcheck disable=SC2016
xargs -L 1 -P "$(nproc)" bash -c 'out=$(mktemp "$0/bits.XXXXXX") && "$@" >"$out" && sed "s|^|${*//$0\//} |" "$out"' "$work" <"$work/runs"
different=$(cat "$work"/bits.* | sed 's/^[^ ]* *//' | sort -u | wc -l)
[ "$different" = 1 ] || { echo "levels differ" >&2; exit 1; }
echo "the same bits on all $(cat "$work"/bits.* | wc -l) levels"
