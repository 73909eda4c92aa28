#!/usr/bin/env bash
# Instructions of the kernels on aarch64, each level: counted under qemu, so that what makes ARM slower is seen where no ARM is.
#
#     tests/cross/run_instructions.sh             # fails where a figure is more than 2 % above its line of instruction_budget.txt
#     tests/cross/run_instructions.sh --record    # writes those lines anew
#     tests/cross/run_instructions.sh --into FOLDER [LLAMA.CPP]          # programs, and counts with their blocks, for
#                                                 # `python -m bench instructions`; of llama.cpp's kernels too where its tree is named
. "$(dirname "$0")/common.sh"
need gcc gcc
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need qemu-aarch64 qemu-user
budget=$here/instruction_budget.txt
compiler="aarch64-linux-gnu-gcc $(aarch64-linux-gnu-gcc -dumpfullversion)"
gcc -std=gnu11 -O1 -Wall -Wextra -fPIC -shared -o "$work/plugin.so" "$here/count_instructions.c"
count() { qemu-aarch64 -cpu "max$3" -plugin "$work/plugin.so$2" "$1"; }            # count PROGRAM PLUGIN-OPTIONS CPU-OPTIONS
compile_main "$work/ours" "$here/count_main.c" aarch64-linux-gnu-gcc -static "-I$here"

# count_llama FOLDER TREE NAME ARCHITECTURE: their kernels as their own build makes them, -O3; what else their files want is left out.
count_llama() {
    local ggml=$2/ggml file objects=()
    for file in "$ggml/src/ggml-cpu/arch/arm/quants.c" "$ggml/src/ggml-cpu/arch/arm/repack.cpp" "$ggml/src/ggml-cpu/vec.cpp" \
                "$here/count_llama.cpp"; do
        objects+=("$work/$3-$(basename "$file").o")
        "aarch64-linux-gnu-$([[ $file = *.c ]] && echo gcc || echo g++)" -O3 -DNDEBUG -w "-march=$4" -ffunction-sections -fdata-sections \
            "-I$ggml/include" "-I$ggml/src" "-I$ggml/src/ggml-cpu" "-I$here" "-DLEVEL=\"$3\"" -c "$file" -o "${objects[-1]}"
    done
    aarch64-linux-gnu-g++ -static -Wl,--gc-sections,--unresolved-symbols=ignore-all -o "$1/$3" "${objects[@]}"
    count "$1/$3" ,blocks=on ,sve-default-vector-length=32 >"$1/$3.counts"         # SVE of 256 bits, as Graviton 3 has it
}

if [ "${1-}" = --into ]; then
    mkdir -p "$2"
    cp "$work/ours" "$2/ours"
    count "$2/ours" ,blocks=on "" >"$2/ours.counts"
    [ $# -gt 2 ] || exit 0
    need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    count_llama "$2" "$3" llama_neon armv8-a
    count_llama "$2" "$3" llama_dotprod armv8.2-a+dotprod
    count_llama "$2" "$3" llama_i8mm armv8.2-a+dotprod+i8mm
    count_llama "$2" "$3" llama_sve armv8.2-a+dotprod+i8mm+sve
    exit
fi

count "$work/ours" "" "" >"$work/counts"
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
