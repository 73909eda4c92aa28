#!/usr/bin/env bash
# The wheel for aarch64, cross-built, and tests of kernels and of law 1 under emulation, on a CPU without the dot product and on one
# that has everything.
#
#     tests/cross/run_arm_tests.sh [pytest arguments]     # default: a selection of a few minutes
. "$(dirname "$0")/common.sh"
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need qemu-aarch64 qemu-user
need apt-get "apt: it fetches a Python for aarch64, so this is for Debian"
need dpkg-deb dpkg
arm=$work/arm
site=$arm/site

# A Debian of the other architecture, as far as Python needs it: packages unpacked, none of them installed.
mkdir -p "$arm"/{debs,system}
apt_of_arm() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Debug::NoLocking=1 -o Dir::State="$arm" -o Dir::State::status=/dev/null -o Dir::Cache="$arm" \
        -o Dir::Cache::archives="$arm/debs" "$@"
}
{ apt_of_arm update && apt_of_arm install --download-only python3 libpython3-dev libstdc++6; } >"$work/apt.log" 2>&1 || {
    cat "$work/apt.log"
    echo "$(basename "$0"): Debian's packages for aarch64 cannot be fetched" >&2
    exit 77
}
for package in "$arm"/debs/*.deb; do dpkg-deb --extract "$package" "$arm/system"; done
python=$(find "$arm/system/usr/bin" -name 'python3.*[0-9]')
on() { (cd "$arm" && PYTHONPATH="$site" emulated qemu-aarch64 -cpu "$1" -L "$arm/system" "$python" "${@:2}"); }
version=$(on max -c 'import sys; print(*sys.version_info[:2], sep=".")')
echo "aarch64: Python $version"

# The build tools are this machine's, so pip must not choose them: it would take the target's.
copy_tree
"$PYTHON" -m pip install --quiet --target "$work/tools" "setuptools>=77" "cffi>=1.16"
(cd "$tree" && PYTHONPATH="$work/tools" CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" _PYTHON_HOST_PLATFORM=linux-aarch64 \
    CFLAGS="-I$(dirname "$(find "$arm/system/usr/include" -name Python.h)") -idirafter $arm/system/usr/include" \
    "$PYTHON" -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$work/wheels" .)
"$PYTHON" -m pip install --quiet --no-compile --target "$site" --only-binary=:all: --python-version "$version" \
    --platform linux_aarch64 --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    "$work"/wheels/*.whl pytest hypothesis safetensors
basename "$work"/wheels/*.whl
"$PYTHON" "$here/check_disassembly.py" "$site/fastdistill/_native.abi3.so"

cp -r "$tree/tests" "$tree/pyproject.toml" "$arm"
tests_on cortex-a53 "scalar neon" "$@"
tests_on max "scalar neon dotprod i8mm" "$@"
all_passed
