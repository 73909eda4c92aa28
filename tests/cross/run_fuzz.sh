#!/usr/bin/env bash
# Every target of tests/fuzz for a second: about half a minute of fuzzing in all.  Needs clang and its run-time library for those in C, and
# the package atheris for those in Python, which it installs beside PYTHON's packages where they lack it.
#
#     tests/cross/run_fuzz.sh [arguments of python -m tests.fuzz]      # default: --seconds 1
. "$(dirname "$0")/common.sh"
need clang "clang libclang-rt-14-dev"
if ! "$PYTHON" -c "import atheris" 2>/dev/null; then
    packages=$("$PYTHON" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    "$PYTHON" -m venv "$work/environment"
    "$work/environment/bin/pip" install --quiet --disable-pip-version-check atheris || { echo "$(basename "$0"): atheris cannot be installed" >&2; exit 77; }
    echo "$packages" >"$("$work/environment/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/packages.pth"
    PYTHON=$work/environment/bin/python
fi
[ $# -gt 0 ] || set -- --seconds 1
cd "$root" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$root" "$PYTHON" -m tests.fuzz --corpus "$work/corpus" "$@"
