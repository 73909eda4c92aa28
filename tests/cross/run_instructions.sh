#!/usr/bin/env bash
# Instructions of the kernels on aarch64, each level: counted under qemu, so that what makes ARM slower is seen where no ARM is.
#
#     tests/cross/run_instructions.sh             # fails where a figure is more than 2 % above its line of instruction_budget.txt
#     tests/cross/run_instructions.sh --record    # writes those lines anew
. "$(dirname "$0")/common.sh"
need gcc gcc
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need qemu-aarch64 qemu-user
budget=$here/instruction_budget.txt
compiler="aarch64-linux-gnu-gcc $(aarch64-linux-gnu-gcc -dumpfullversion)"
gcc -std=gnu11 -O1 -Wall -Wextra -fPIC -shared -o "$work/plugin.so" "$here/count_instructions.c"
compile_main aarch64-linux-gnu-gcc "$work/count" "$here/count_main.c" -static "-I$here"
qemu-aarch64 -cpu max -plugin "$work/plugin.so" "$work/count" >"$work/counts"
figures() { awk 'NF != 5 { exit 1 } { printf "%-8s %-20s %2d %8.1f\n", $1, $2, $3, $5 / $4 }'; }
{ echo "compiler $compiler"; figures <"$work/counts"; } | tee "$work/figures"
if [ "${1-}" = --record ]; then
    { sed -n '/^#/p' "$budget"; cat "$work/figures"; } >"$work/budget"
    cp "$work/budget" "$budget"
    exit
fi
if ! grep -qx "compiler $compiler" "$budget"; then
    echo "not compared: $(basename "$budget") was recorded with $(sed -n 's/^compiler //p' "$budget"), this is $compiler"
    exit
fi
awk '/^#|^compiler/ { next }
    { name = $1 " " $2 " " $3 }
    NR == FNR { budget[name] = $4; next }
    { found[name] = 1 }
    !(name in budget) { print name ": has no line"; bad = 1; next }
    $4 > 1.02 * budget[name] { print name ": " $4 ", above " budget[name]; bad = 1 }
    END {
        for (name in budget) if (!(name in found)) { print name ": was not counted"; bad = 1 }
        exit bad
    }' "$budget" "$work/figures" >&2 || { echo "$(basename "$budget") is not kept" >&2; exit 1; }
echo "$(basename "$budget") is kept"
