# common.sh - what the scripts beside it share; they source it.  PYTHON is the interpreter (default python3), with the packages
# of `pip install -e '.[test]'`.  Nothing is written outside a temporary folder, which goes at the end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
PYTHON=$(command -v "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree

# need PATH-OR-COMMAND DEBIAN-PACKAGE: or the script ends with 77, which says that it was skipped.
need() {
    [ -e "$1" ] || command -v "$1" >/dev/null || { echo "$(basename "$0"): $1 is missing; on Debian: apt install $2" >&2; exit 77; }
}

# lacks COMMAND DEBIAN-PACKAGE: then the part of a script that wants it is skipped.
lacks() {
    ! command -v "$1" >/dev/null || return 1
    echo "skipped: $1 is missing; on Debian: apt install $2"
}

# settings COMPILER: what build_native.py says for one: C files, flags; and the C of the module itself.  It needs cffi, not setuptools, which a
# fresh environment may lack.
settings() {
    [ -e "$work/settings-$1" ] || (cd "$root" && CC=$1 "$PYTHON" - "$work" "$1" >/dev/null) <<'END'
import sys
import sysconfig
sys.path.insert(0, "csrc")
sys.dont_write_bytecode = True
from build_native import FLAGS, SOURCES, ffi, here
ffi.emit_c_code(sys.argv[1] + "/_native.c")
with open(f"{sys.argv[1]}/settings-{sys.argv[2]}", "w") as settings:
    print(*(here / name for name in SOURCES), file=settings)
    print(*FLAGS, f"-I{here}", "-I" + sysconfig.get_path("include"), "-pthread", file=settings)
END
    { read -r sources; read -r flags; } <"$work/settings-$1"
}

# compile_units FOLDER COMPILER FLAG...: an object of each unit in FOLDER, under the extension's own flags; as many at once as there are
# cores.
compile_units() {
    local folder=$1 compiler=$2 sources flags
    shift 2
    settings "$compiler"
    mkdir "$folder"
    # shellcheck disable=SC2086
    (cd "$folder" && xargs -n 1 -P "$(nproc)" "$compiler" $flags "$@" -c <<<"$sources")
}

# compile_main OUTPUT MAIN COMPILER FLAG...: a C main linked with the extension's units.
compile_main() {
    local output=$1 main=$2 compiler=$3
    shift 3
    compile_units "$output.units" "$compiler" "$@"
    "$compiler" -std=gnu11 -ffp-contract=off -pthread "-I$root/csrc" "$@" -o "$output" "$main" "$output.units"/*.o -lm
}

# copy_tree: a copy of the tree, with nothing that was built.
copy_tree() {
    mkdir "$tree"
    tar -C "$root" --exclude-vcs --exclude=./build --exclude=./dist --exclude='*.so' --exclude=__pycache__ -cf - . | tar -C "$tree" -xf -
}

# wheel_tools PACKAGE...: what builds wheels, and these, for Python to find in $work/tools.
wheel_tools() { "$PYTHON" -m pip install --quiet --target "$work/tools" "setuptools>=77" "cffi>=1.16" ziglang "$@"; }
tool() { PATH="$work/tools/bin:$PATH" PYTHONPATH="$work/tools" "$PYTHON" -m "$@"; }

# build_wheel PLATFORM [LDFLAG...]: the wheel for a platform, by the name that pip has for it; its path is $wheel then.  gcc compiles, as it
# does everywhere; zig links, which has the symbols of each glibc, so that the wheel asks for none that is newer, and musl with its headers.
build_wheel() {
    local platform=$1 machine=${1#*linux_*_*_} cpu abi="" libc zig include=""
    shift
    cpu=$machine
    if [ "$machine" = armv7l ]; then cpu=arm abi=eabihf; fi
    need "$cpu-linux-gnu$abi-gcc" "gcc-${cpu/_/-}-linux-gnu$abi"
    # Python.h is of this machine's Python; what the stable ABI sees of another's differs in three sizes.
    rm -rf "$work/headers"
    "$PYTHON" - "$work/headers" "$([ "$machine" = armv7l ] && echo 4 || echo 8)" <<'END'
import re, shutil, sys, sysconfig
from pathlib import Path

folder, size = sys.argv[1:]
include = Path(sysconfig.get_path("include"))
config = include.parent / (sysconfig.get_config_var("MULTIARCH") or "") / include.name / "pyconfig.h"       # of Debian's Python
if not config.exists():
    config = include / "pyconfig.h"
shutil.copytree(include, folder)
Path(folder, "pyconfig.h").write_text(re.sub(r"(#define SIZEOF_(?:LONG|SIZE_T|VOID_P)) \d", rf"\1 {size}", config.read_text()))
END
    include="-I$work/headers"
    zig=$(PYTHONPATH="$work/tools" "$PYTHON" -c 'import ziglang; print(*ziglang.__path__)')
    case $platform in
        manylinux_*) libc=${platform#manylinux_} libc=gnu$abi.${libc%"_$machine"} libc=${libc/_/.} ;;
        musllinux_*)
            libc=musl$abi
            include+=" -nostdinc -isystem $zig/lib/libc/include/$cpu-linux-musl -isystem $zig/lib/libc/include/generic-musl"
            include+=" -isystem $("$cpu-linux-gnu$abi-gcc" -print-file-name=include)" ;;
    esac
    [ -e "$tree" ] || copy_tree
    (cd "$tree" && PYTHONPATH="$work/tools" CC="$cpu-linux-gnu$abi-gcc" LDSHARED="$zig/zig cc -target $cpu-linux-$libc -shared" \
        ZIG_GLOBAL_CACHE_DIR="$work/zig" CFLAGS="$include" FASTDISTILL_LDFLAGS="$*" _PYTHON_HOST_PLATFORM="linux-$machine" \
        "$PYTHON" -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$work/$platform" .)
    wheel=$(echo "$work/$platform"/*.whl)
}

# debian FOLDER ARCHITECTURE PACKAGE...: Debian's packages for another machine, and what they need, unpacked in FOLDER/system, none of them
# installed; $python is the Python among them.  RISC-V is there since Debian 13, which therefore is where all come from.
debian() {
    local folder=$1 architecture=$2 package
    shift 2
    mkdir -p "$folder"/{debs,system}
    echo "deb http://deb.debian.org/debian trixie main" >"$folder/sources"
    apt_of() {
        apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" -o APT::Install-Recommends=false \
            -o APT::Sandbox::User=root -o Acquire::Languages=none -o Debug::NoLocking=1 -o Dir::Etc::SourceList="$folder/sources" \
            -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$folder" -o Dir::State::status=/dev/null -o Dir::Cache="$folder" \
            -o Dir::Cache::archives="$folder/debs" "$@"
    }
    { apt_of update && apt_of install --download-only "$@"; } >"$work/apt.log" 2>&1 || {
        cat "$work/apt.log"
        echo "$(basename "$0"): Debian's packages for $architecture cannot be fetched" >&2
        exit 77
    }
    mkdir -p "$folder/system/usr/lib"
    ln -s usr/lib "$folder/system/lib"
    for package in "$folder"/debs/*.deb; do dpkg-deb --extract "$package" "$folder/system"; done
    python=$(find "$folder/system/usr/bin" -name 'python3.*[0-9]')
}

# build_in_copy CFLAGS LDFLAGS: a copy of the tree with the extension built in place.
build_in_copy() {
    copy_tree
    # shellcheck disable=SC2086
    compile_units "$work/units" gcc -fPIC $1
    local sources flags
    settings gcc
    # shellcheck disable=SC2086
    gcc -fPIC $flags $1 -shared $2 -o "$tree/fastdistill/_native.abi3.so" "$work/_native.c" "$work/units"/*.o -lm
}

# run_tests [VARIABLE=VALUE ...] -- PYTEST-ARGUMENTS: the copy's tests; tests/kernels where no argument says which.
run_tests() {
    local settings=()
    while [ "$1" != -- ]; do settings+=("$1"); shift; done
    shift
    [ $# -gt 0 ] || set -- tests/kernels
    (cd "$tree" && env PYTHONPATH="$tree" PYTHONDONTWRITEBYTECODE=1 "${settings[@]}" "$PYTHON" -m pytest -p no:cacheprovider "$@")
}

# emulated COMMAND...: with few examples of each test.
emulated() { env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_PROFILE=quick "$@"; }

# Kernels and law 1 in a minute or two of an emulated CPU.
few_tests=(
    tests/kernels/forward/test_{linear,quantize_rows,row_statistics}.py tests/kernels/unmask
    tests/kernels/fixed_point/test_{fixed_point_prefix,jacobi_step,lookahead_layout}.py
    tests/runtime/test_law_one.py::test_{a_row_of_a_tree_has_the_bits_of_its_path_as_a_text,branches_over_the_context_do_not_see_each_other}
    tests/runtime/test_law_one.py::test_rows_on_both_sides_of_a_tile_border_may_share_a_split_pass
    tests/runtime/test_law_one.py::test_any_split_of_a_text_into_forwards_gives_the_same_bits
)

# tests_on CPU LEVELS [PYTEST-ARGUMENT...]: the script's `on CPU` runs a Python that finds these levels and passes the tests: those few
# where no argument says which.  Several CPUs at once; all_passed waits for them.
tests_on() {
    local cpu=$1 levels
    levels=$(on "$cpu" -c 'import fastdistill; print(*fastdistill.isa_levels())')
    [ "$levels" = "$2" ] || { echo "$cpu has the levels '$levels', not '$2'" >&2; exit 1; }
    shift 2
    [ $# -gt 0 ] || set -- "${few_tests[@]}"
    on "$cpu" -m pytest --quiet -p no:cacheprovider "$@" >"$work/$cpu.out" 2>&1 &
    tested+=("$! $cpu: $levels")
}
all_passed() {
    local one status=0
    for one in "${tested[@]}"; do
        wait "${one%% *}" || status=1
        echo "${one#* }"
        one=${one#* }
        cat "$work/${one%%:*}.out"
    done
    return $status
}
