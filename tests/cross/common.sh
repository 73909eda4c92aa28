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

# settings: what build_native.py says, in $work/settings: C files, flags, libraries; and the C of the module itself.  It needs cffi, not
# setuptools, which a fresh environment may lack.
settings() {
    [ -e "$work/settings" ] || (cd "$root" && "$PYTHON" - "$work" >/dev/null) <<'END'
import sys
import sysconfig
sys.path.insert(0, "csrc")
sys.dont_write_bytecode = True
from build_native import FLAGS, SOURCES, ffi
ffi.emit_c_code(sys.argv[1] + "/_native.c")
with open(sys.argv[1] + "/settings", "w") as settings:
    print(*("csrc/" + name for name in SOURCES), file=settings)
    print(*FLAGS, "-Icsrc", "-I" + sysconfig.get_path("include"), "-pthread", file=settings)
    print("-lm", file=settings)
END
    { read -r sources; read -r flags; read -r libraries; } <"$work/settings"
}

# build_in_copy CFLAGS LDFLAGS: a copy of the tree with the extension built in place, all units side by side.
build_in_copy() {
    mkdir "$tree"
    tar -C "$root" --exclude-vcs --exclude=./build --exclude=./dist --exclude='*.so' --exclude=__pycache__ -cf - . | tar -C "$tree" -xf -
    local sources flags libraries source jobs=()
    settings
    for source in $sources "$work/_native.c"; do
        # shellcheck disable=SC2086
        (cd "$tree" && gcc -fPIC $flags $1 -c "$source" -o "$work/$(basename "$source" .c).o") & jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || exit 1; done
    # shellcheck disable=SC2086
    gcc -shared -pthread $2 -o "$tree/fastdistill/_native.abi3.so" "$work"/*.o $libraries
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
    local compiler=$1 output=$2 main=$3 sources flags libraries
    shift 3
    settings
    [ "$compiler" != clang ] || flags=$(sed 's/-fno-\(tree\|gcse\|schedule\)-[a-z-]*\|--param [a-z=0-9-]*//g' <<<"$flags")       # gcc's own
    # shellcheck disable=SC2086
    (cd "$root" && "$compiler" $flags "$@" -o "$output" "$main" $sources $libraries)
}
