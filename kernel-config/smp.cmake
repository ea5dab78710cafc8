# Two processors under one kernel lock. Not usable with QEMU's instruction
# counter: boot it with `-smp 2` and without `-icount`.
include(common)

kernel_option(MAX_NUM_NODES 2 "two processors, as many as a small build machine can emulate")
kernel_compile_flag(-mpopcnt "the kernel counts bits of processor masks and links no compiler library to do it")
