/*
 * Aligns the kernel's stacks to their size.
 *
 * seL4 5.0.0 on x86_64 takes a pending interrupt on its way out of the kernel
 * (src/arch/x86/64/c_traps.c, restore_user_context) and finds the top of the
 * stack for it by rounding the stack pointer up to the stack's size. That is
 * the top only if the stacks are aligned to their size, which their definition
 * (src/kernel/stack.c) does not ask for: on a kernel with two nodes the handler
 * then runs over whatever the linker put behind them.
 *
 * A declaration that comes first lends its alignment to the definition.
 */
#include <config.h>

extern char kernel_stack_alloc[CONFIG_MAX_NUM_NODES][1 << CONFIG_KERNEL_STACK_BITS]
    __attribute__((aligned(1 << CONFIG_KERNEL_STACK_BITS)));
