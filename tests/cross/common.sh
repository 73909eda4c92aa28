# common.sh - what the scripts beside it share; they source it.  PYTHON is the interpreter (default python3), with the packages
# of `pip install -e '.[test]'`.  Nothing is written outside a temporary folder, which goes at the end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
PYTHON=$(command -v "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree

# need PATH-OR-COMMAND DEBIAN-PACKAGE
need() {
    [ -e "$1" ] || command -v "$1" >/dev/null || { echo "$(basename "$0"): $1 is missing; on Debian: apt install $2" >&2; exit 2; }
}

# build_in_copy CFLAGS LDFLAGS: a copy of the tree with the extension built in place.
build_in_copy() {
    mkdir "$tree"
    tar -C "$root" --exclude-vcs --exclude=./build --exclude=./dist --exclude='*.so' --exclude=__pycache__ -cf - . | tar -C "$tree" -xf -
    (cd "$tree" && CC=gcc FASTDISTILL_CFLAGS=$1 FASTDISTILL_LDFLAGS=$2 "$PYTHON" setup.py -q build_ext --inplace) >"$work/log" 2>&1 \
        || { cat "$work/log" >&2; exit 1; }
}

# run_tests [VARIABLE=VALUE ...] -- PYTEST-ARGUMENTS: the copy's tests; tests/kernels where no argument says which.
run_tests() {
    local settings=()
    while [ "$1" != -- ]; do settings+=("$1"); shift; done
    shift
    [ $# -gt 0 ] || set -- tests/kernels
    (cd "$tree" && env PYTHONPATH="$tree" PYTHONDONTWRITEBYTECODE=1 "${settings[@]}" "$PYTHON" -m pytest -p no:cacheprovider "$@")
}

# compile_main COMPILER OUTPUT MAIN FLAG...: a C main linked with the extension's sources, under the extension's own flags.
compile_main() {
    local compiler=$1 output=$2 main=$3
    shift 3
    [ -e "$work/settings" ] || (cd "$root" && "$PYTHON" - "$work" >/dev/null) <<'END'
import sys
sys.path.insert(0, "csrc")
sys.dont_write_bytecode = True
from build_native import ffi
extension = ffi.distutils_extension(sys.argv[1], verbose=False)
with open(sys.argv[1] + "/settings", "w") as settings:
    print(*extension.sources[1:], file=settings)  # the first is cffi's own
    print(*extension.extra_compile_args, *("-I" + folder for folder in extension.include_dirs), *extension.extra_link_args, file=settings)
    print(*("-l" + library for library in extension.libraries), file=settings)
END
    local sources flags libraries
    { read -r sources; read -r flags; read -r libraries; } <"$work/settings"
    [ "$compiler" != clang ] || flags=$(sed 's/-fno-tree-[a-z-]*//g' <<<"$flags")       # gcc's own
    # shellcheck disable=SC2086
    (cd "$root" && "$compiler" $flags "$@" -o "$output" "$main" $sources $libraries)
}
