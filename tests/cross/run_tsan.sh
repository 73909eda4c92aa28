#!/usr/bin/env bash
# The pool under the thread sanitizer (threads_main.c).
. "$(dirname "$0")/common.sh"
need gcc gcc
compile_main "$work/threads" "$here/threads_main.c" gcc -fsanitize=thread -fno-omit-frame-pointer -O1 -g
# Children start threads of their own, which the sanitizer lets through when told to; their parent's they cannot join.
TSAN_OPTIONS="die_after_fork=0 halt_on_error=0 report_thread_leaks=0" "$work/threads"
echo "no races"
