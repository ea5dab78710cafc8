# Runs application files bit for bit as their authors built them: without the
# `syscall` entry the instruction raises an invalid-opcode exception that keeps
# every register. Intel processors only: others have no sysenter in 64-bit mode
# and the kernel hangs at boot.
include(common)

kernel_option(KERNEL_X86_SYSCALL sysenter "leaves EFER.SCE clear, so that an application's `syscall` is a plain exception")
