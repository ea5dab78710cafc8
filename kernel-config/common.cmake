# What every kernel configuration shares. A configuration file includes this
# one and then states what it changes; the last statement about an option wins.
#
# kernel_option(NAME VALUE "reason") names an option as the kernel does, without
# its CONFIG_ prefix. ON and OFF are booleans, everything else is a value that
# the C preprocessor sees as written. cmake/configuration.cmake refuses names
# that the kernel's own Kconfig files do not declare.

# ---- Which machine ---------------------------------------------------------
kernel_option(SEL4_ARCH x86_64 "the only architecture this project runs on")
kernel_option(PLAT pc99 "QEMU's pc machine and PCs with a Multiboot loader")
kernel_option(KERNEL_X86_MICRO_ARCH generic "no instruction newer than plain x86_64; silences the boot warning about unknown models")

# ---- Entry and per-thread registers ----------------------------------------
kernel_option(KERNEL_X86_SYSCALL syscall "cheapest kernel entry, and the one processors of both vendors have in 64-bit mode")
kernel_option(KERNEL_FSGS_BASE msr "model-specific registers are on every x86_64 processor; the fsgsbase instructions are not")
kernel_option(KERNEL_X86_FPU FXSAVE "x87 and SSE state is all that x86_64 Rust uses by default; needs no XSAVE support")
kernel_option(XSAVE_SIZE 512 "size in bytes of the FXSAVE area, fixed by the architecture")
kernel_option(FPU_MAX_RESTORES_SINCE_SWITCH 64 "kernel default: kernel exits before an idle FPU owner is dropped")

# ---- Interrupts and time ---------------------------------------------------
kernel_option(KERNEL_IRQ_CONTROLLER IOAPIC "drivers need level and edge routing of every pin; the PIC shares lines")
kernel_option(MAX_NUM_IOAPIC 1 "QEMU's pc machine has one")
kernel_option(KERNEL_LAPIC_MODE XAPIC "QEMU 7.2 cannot emulate x2APIC")
kernel_option(USE_LOGICAL_IDS OFF "physical APIC ids work on every machine")
kernel_option(TIMER_TICK_MS 2 "kernel default: scheduler tick in milliseconds")
kernel_option(TIME_SLICE 5 "kernel default: 5 ticks, so a thread runs at most 10 ms before its equals")

# ---- Scheduling ------------------------------------------------------------
kernel_option(MAX_NUM_NODES 1 "one processor: deterministic, and the only mode QEMU's instruction counter supports")
kernel_option(NUM_DOMAINS 1 "no static domain schedule is used; more than one excludes multiprocessor kernels")
kernel_option(NUM_PRIORITIES 256 "the whole range that the API can express")

# ---- Memory and boot -------------------------------------------------------
kernel_option(HUGE_PAGE OFF "1 GiB pages are missing on many processor models and nothing here maps that much")
kernel_option(SUPPORT_PCID OFF "QEMU's emulation has no process-context identifiers: the kernel would refuse to boot")
kernel_option(IOMMU OFF "QEMU's default machine has none; drivers with bus-master devices are part of the trusted base")
kernel_option(ROOT_CNODE_SIZE_BITS 18 "262144 slots, 8 MiB: two for each 4 KiB frame of 512 MiB")
kernel_option(MAX_NUM_BOOTINFO_UNTYPED_CAPS 230 "device untypeds come first in the list and take about 65: too few entries leave no memory")
kernel_option(KERNEL_STACK_BITS 12 "kernel default: 4 KiB per processor")
kernel_option(CACHE_LN_SZ 64 "cache line of every x86_64 processor so far")
kernel_option(KERNEL_MUTLTIBOOT_GFX_MODE none "headless: nothing draws")

# ---- Bounds on kernel work -------------------------------------------------
kernel_option(RETYPE_FAN_OUT_LIMIT 256 "kernel default: objects per Retype")
kernel_option(RESET_CHUNK_BITS 8 "kernel default: 256 bytes are cleared between preemption points")
kernel_option(MAX_NUM_WORK_UNITS_PER_PREEMPTION 100 "kernel default: revocation steps between preemption points")
kernel_option(FASTPATH ON "short IPC at a quarter of the slow path's cost")

# ---- What a release kernel must not have -----------------------------------
kernel_option(DEBUG_BUILD OFF "its extra system calls include one that halts the machine")
kernel_option(PRINTING OFF "kernel messages would land on the console that applications own")
kernel_option(IRQ_REPORTING OFF "prints about spurious interrupts that are harmless")
kernel_option(COLOUR_PRINTING OFF "output goes to files and pipes")
kernel_option(HARDWARE_DEBUG_API OFF "breakpoints for user space: unused, and more kernel to trust")
kernel_option(DANGEROUS_CODE_INJECTION OFF "lets user space run code in the kernel")
kernel_option(KERNEL_BENCHMARK none "costs are counted by the emulator, not by a log in the kernel")
kernel_option(VTX OFF "no virtual machines")
kernel_option(DEBUG_DISABLE_PREFETCHERS OFF "a measurement aid for real hardware")
kernel_option(VERIFICATION_BUILD OFF "the name invites a claim: this configuration is not the one that was proved")
kernel_option(KERNEL_OPT_LEVEL -O2 "kernel default")

# ---- The C bindings in the prefix ------------------------------------------
libsel4_option(LIB_SEL4_FUNCTION_ATTRIBUTE inline "a C test program needs no library to link")
libsel4_option(LIB_SEL4_STUBS_USE_IPC_BUFFER_ONLY OFF "message words that have registers travel in them")
