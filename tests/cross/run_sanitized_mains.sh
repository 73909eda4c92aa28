#!/usr/bin/env bash
# The C programs of this folder under sanitizers: the pool (threads_main.c) for races, and for leaks; and, told to, what kernels compute
# (bits_main.c) on aarch64, emulated, for wrong addresses and undefined behaviour.  run_sanitized.sh does that here, under the tests.
#
#     tests/cross/run_sanitized_mains.sh               # the pool
#     tests/cross/run_sanitized_mains.sh aarch64       # and kernels on aarch64: many minutes
. "$(dirname "$0")/common.sh"
need gcc gcc

# Without the units of levels, whose kernels the pool's program selects and does not call.
pool() {
    gcc -std=gnu11 -O1 -g -fno-omit-frame-pointer -pthread -no-pie -Wl,--unresolved-symbols=ignore-all "-I$root/csrc" "$@" \
        "$here/threads_main.c" "$root"/csrc/{threads,platform,levels}.c -lm
}
pool -fsanitize=thread -o "$work/races"
# Children start threads of their own, which the sanitizer lets through when told to; their parent's they cannot join.
TSAN_OPTIONS="die_after_fork=0 halt_on_error=0 report_thread_leaks=0" "$work/races"
pool -fsanitize=address,undefined -o "$work/leaks"
ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1 "$work/leaks"
echo "no races, no leaks"

[ "${1-}" = aarch64 ] || exit 0
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need qemu-aarch64 qemu-user
compile_main "$work/bits" "$here/bits_main.c" aarch64-linux-gnu-gcc -fPIC -w -fsanitize=address,undefined -fno-sanitize=null,object-size -fno-omit-frame-pointer -g
# It is a short program and frees nothing.
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    qemu-aarch64 -cpu "${CPU:-max}" -L /usr/aarch64-linux-gnu "$work/bits" >"$work/hashes"
echo "aarch64: nothing found, at $(wc -l <"$work/hashes") levels"
