/* count_region.h - where code whose instructions are counted begins and ends: a system call that no kernel has, which the plugin
 * (count_instructions.c) sees.  Without the plugin nothing happens.
 */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

enum { COUNT_EDGE = 0x0fd0c07 };         /* the call's number */

/* What is counted next: the plugin ends the line with the number of instructions. */
#define COUNT_BEGIN(...) (printf(__VA_ARGS__), fflush(stdout), syscall(COUNT_EDGE))
#define COUNT_END() syscall(COUNT_EDGE)
