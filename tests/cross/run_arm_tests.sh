#!/usr/bin/env bash
# The wheel for aarch64, cross-built, and tests of kernels and of law 1 under emulation, on a CPU without the dot product and on one
# that has everything.
#
#     tests/cross/run_arm_tests.sh [pytest arguments]     # default: a selection of a few minutes
. "$(dirname "$0")/common.sh"
need qemu-aarch64 qemu-user
need apt-get "apt: it fetches a Python for aarch64, so this is for Debian"
need dpkg-deb dpkg
arm=$work/arm
site=$arm/site

debian "$arm" arm64 python3 libstdc++6
on() { (cd "$arm" && PYTHONPATH="$site" emulated qemu-aarch64 -cpu "$1" -L "$arm/system" "$python" "${@:2}"); }
version=$(on max -c 'import sys; print(*sys.version_info[:2], sep=".")')
echo "aarch64: Python $version"

wheel_tools
build_wheel manylinux_2_17_aarch64
"$PYTHON" -m pip install --quiet --no-compile --target "$site" --only-binary=:all: --python-version "$version" \
    --platform linux_aarch64 --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    "$wheel" pytest hypothesis safetensors
basename "$wheel"
"$PYTHON" "$here/check_disassembly.py" "$site/fastdistill/_native.abi3.so"

cp -r "$tree/tests" "$tree/pyproject.toml" "$arm"
tests_on cortex-a53 "scalar neon" "$@"
tests_on max "scalar neon dotprod i8mm" "$@"
all_passed
