# For finding out why the root task or the kernel stopped. Never for numbers
# (half as many instructions again) and never with programs you do not trust:
# any of them can halt the machine.
include(common)

kernel_option(DEBUG_BUILD ON "assertions, symbols, and the debugging system calls")
kernel_option(PRINTING ON "the kernel says on COM1 why a fault or an invocation failed")
kernel_option(USER_STACK_TRACE_LENGTH 16 "words of user stack printed at a double fault; printing does not compile without it")
