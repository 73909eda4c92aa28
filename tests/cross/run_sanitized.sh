#!/usr/bin/env bash
# The tests under the address and undefined-behaviour sanitizers.  Every finding is printed at the end and fails the run.
#
#     tests/cross/run_sanitized.sh [pytest arguments]     # default: tests/kernels
. "$(dirname "$0")/common.sh"
need gcc gcc
# What these two would find, the address sanitizer stops at; with them the compiler takes many minutes.
build_in_copy "-fsanitize=address,undefined -fno-sanitize=null,object-size -fno-omit-frame-pointer -O1 -g" "-fsanitize=address,undefined"
# Python itself leaks at exit.  Its small objects come from malloc here, so that their ends are guarded too.  pytest must leave
# stderr alone (-s): gcc's sanitizers write there whatever log_path says.
status=0
run_tests LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 -- -s "${@:-tests/kernels}" 2>"$work/stderr" || status=$?
sed "s|$tree/||g; s|$root/||g" "$work/stderr" >&2
if grep -qE 'runtime error:|ERROR: AddressSanitizer' "$work/stderr"; then status=1; fi
exit $status
