#!/usr/bin/env bash
# Windows on x86-64: every unit, the C of the module and the programs below compile with mingw-w64's gcc, without a warning.  Where Wine is
# there to run them, kernels give at each level the bits that they give here (bits_main.c), and the pool's threads meet (threads_main.c).
# WINDOWS_HEADERS names the folder of a Windows Python's Python.h, without which the module's own C is left out.
. "$(dirname "$0")/common.sh"
compiler=x86_64-w64-mingw32-gcc
need "$compiler" gcc-mingw-w64-x86-64

compile_units "$work/units" "$compiler" -Werror
for main in bits threads; do
    "$compiler" -std=gnu11 -O2 -ffp-contract=off -Wall -Wextra -Werror "-I$root/csrc" -static -o "$work/$main.exe" "$here/${main}_main.c" "$work/units"/*.o
done
echo "compiled: $(ls "$work/units" | wc -l) units and two programs, for Windows"
if [ -n "${WINDOWS_HEADERS-}" ]; then
    settings "$compiler"
    # shellcheck disable=SC2086
    "$compiler" "-I$WINDOWS_HEADERS" ${flags/-I"$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')"/} -c -o "$work/_native.o" "$work/_native.c"
    echo "compiled: the module's own C, with the headers in $WINDOWS_HEADERS"
else
    echo "skipped: the module's own C; WINDOWS_HEADERS names no folder of a Windows Python's headers"
fi

if lacks wine wine; then exit; fi
need gcc gcc
export WINEPREFIX=$work/wine WINEDEBUG=-all
compile_main "$work/bits" "$here/bits_main.c" gcc
"$work/bits" | sort >"$work/here"
wine "$work/bits.exe" | tr -d '\r' | sort | diff "$work/here" -
echo "the same bits on all $(wc -l <"$work/here") levels under Wine"
wine "$work/threads.exe"
wineserver -k || true                 # or it would write on while the folder goes
wineserver -w
