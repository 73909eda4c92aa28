/* count_instructions.c - a plugin of qemu's user mode that counts executed instructions between two calls of COUNT_EDGE and writes the
 * number, with the end of a line, to standard output.  With the argument `blocks=on` lines of the blocks of code that were run follow:
 * "block", address, instructions, how often.
 *
 * The prototypes are those of version 1 of qemu's plugin interface (qemu 4.2 to 8.2), as far as they are used.  A block is what qemu
 * translates at once: it is left at its end alone, so counts are exact for a program of one thread.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "count_region.h"

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void on_system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                            uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, on_block *translated);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, enum qemu_plugin_op op, void *at, uint64_t add);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, on_system_call *called);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

struct block { struct block *next; uint64_t address, instructions, times; };
static struct block *blocks;             /* all, the newest first */
static int inside, show_blocks;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *of)
{
    struct block *block = malloc(sizeof *block);
    (void)id;
    *block = (struct block){blocks, qemu_plugin_tb_vaddr(of), qemu_plugin_tb_n_insns(of), 0};
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(of, QEMU_PLUGIN_INLINE_ADD_U64, &block->times, 1);
}

static void called(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                   uint64_t a6, uint64_t a7, uint64_t a8)
{
    uint64_t sum = 0;
    (void)id, (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != COUNT_EDGE) return;
    inside = !inside;
    for (struct block *block = blocks; block; block = block->next)
        if (inside) block->times = 0; else sum += block->times * block->instructions;
    if (inside) return;
    dprintf(STDOUT_FILENO, " %" PRIu64 "\n", sum);
    for (struct block *block = blocks; show_blocks && block; block = block->next)
        if (block->times)
            dprintf(STDOUT_FILENO, "block %#" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address, block->instructions, block->times);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int count, char **arguments)
{
    (void)info;
    for (int i = 0; i < count; i++) show_blocks |= !strcmp(arguments[i], "blocks=on");
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
