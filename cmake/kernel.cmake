# kernel.elf: every C file of the kernel in one translation unit, as seL4 is
# always built, plus the assembly entry code.

set(gen_dir "${CMAKE_CURRENT_BINARY_DIR}/kernel")
set(arch_dir "${SEL4_SOURCE_DIR}/include/arch/${value_of_ARCH}")
set(plat_dir "${SEL4_SOURCE_DIR}/include/plat/${value_of_PLAT}")

# Our configuration stands first: the source carries one of its own under the
# same name in plat_dir.
set(kernel_include_dirs
    "${config_include_dir}"
    "${arch_dir}/arch/64"
    "${plat_dir}/plat/64"
    "${SEL4_SOURCE_DIR}/include"
    "${arch_dir}"
    "${plat_dir}"
    "${gen_dir}"
    "${SEL4_SOURCE_DIR}")
set(kernel_definitions
    HAVE_AUTOCONF ARCH_X86 X86_64 KERNEL_64=y __KERNEL_64__ __X86_64__=y)
if(value_of_FASTPATH)
  list(APPEND kernel_definitions FASTPATH)
endif()
if(value_of_DEBUG_BUILD)
  list(APPEND kernel_definitions DEBUG)
endif()

# ---- Generated headers -----------------------------------------------------

set(preprocess_flags -nostdinc)
foreach(dir IN LISTS kernel_include_dirs)
  list(APPEND preprocess_flags "-I${dir}")
endforeach()
foreach(definition IN LISTS kernel_definitions)
  list(APPEND preprocess_flags "-D${definition}")
endforeach()

function(kernel_bitfields bf name)
  generate_bitfields("${bf}" "${gen_dir}" ${name} kernel ${preprocess_flags})
endfunction()
kernel_bitfields("${SEL4_SOURCE_DIR}/include/64/mode/api/shared_types.bf" mode/api/shared_types)
kernel_bitfields("${arch_dir}/arch/object/structures.bf" arch/object/structures)
kernel_bitfields("${plat_dir}/plat/64/plat_mode/machine/hardware.bf" plat_mode/machine/hardware)

set(libsel4_source "${SEL4_SOURCE_DIR}/libsel4")
set(object_api_xml "${libsel4_source}/include/interfaces/sel4.xml")
set(object_api_arch_xml "${libsel4_source}/arch_include/${value_of_ARCH}/interfaces/sel4arch.xml")
set(object_api_sel4_arch_xml "${libsel4_source}/sel4_arch_include/${value_of_SEL4_ARCH}/interfaces/sel4arch.xml")
generate_invocations("${object_api_xml}" "${gen_dir}/api/invocation.h")
generate_invocations("${object_api_sel4_arch_xml}" "${gen_dir}/arch/api/sel4_invocation.h" --sel4_arch)
generate_invocations("${object_api_arch_xml}" "${gen_dir}/arch/api/invocation.h" --arch)
generate_syscalls("${SEL4_SOURCE_DIR}/include/api" --kernel_header "${gen_dir}/arch/api/syscall.h")

add_custom_target(kernel_headers DEPENDS
  "${gen_dir}/mode/api/shared_types_gen.h"
  "${gen_dir}/arch/object/structures_gen.h"
  "${gen_dir}/plat_mode/machine/hardware_gen.h"
  "${gen_dir}/api/invocation.h"
  "${gen_dir}/arch/api/sel4_invocation.h"
  "${gen_dir}/arch/api/invocation.h"
  "${gen_dir}/arch/api/syscall.h")

# ---- Sources ---------------------------------------------------------------

# All files for this architecture and platform; those for the other word size
# lie in folders that are not named here.
set(source_globs "")
foreach(dir . api benchmark fastpath kernel machine model object smp
            arch/x86 arch/x86/api arch/x86/benchmark arch/x86/kernel arch/x86/machine arch/x86/model arch/x86/object
            arch/x86/64 arch/x86/64/kernel arch/x86/64/machine arch/x86/64/model arch/x86/64/object
            plat/pc99/machine)
  list(APPEND source_globs "${SEL4_SOURCE_DIR}/src/${dir}/*.c")
endforeach()
file(GLOB kernel_sources RELATIVE "${SEL4_SOURCE_DIR}" ${source_globs})
list(REMOVE_ITEM kernel_sources src/machine/profiler.c)
if(NOT value_of_DEBUG_BUILD)
  # Walks every capability for a system call that release kernels do not have.
  list(REMOVE_ITEM kernel_sources src/arch/x86/machine/capdl.c)
endif()
list(SORT kernel_sources)
list(APPEND kernel_sources src/config/default_domain.c)

# First of all, what aligns the kernel's stacks (see the file).
set(kernel_all "#include \"${CMAKE_CURRENT_SOURCE_DIR}/kernel_stack.h\"\n")
foreach(source IN LISTS kernel_sources)
  string(APPEND kernel_all "#include \"${source}\"\n")
endforeach()
file(GENERATE OUTPUT "${gen_dir}/kernel_all.c" CONTENT "${kernel_all}")

set(asm_dir "${SEL4_SOURCE_DIR}/src/arch/x86")
set(kernel_asm_sources
    "${asm_dir}/64/machine_asm.S" "${asm_dir}/64/traps.S" "${asm_dir}/64/head.S" "${asm_dir}/multiboot.S")

# ---- Compiling and linking -------------------------------------------------

set(link_script_source "${SEL4_SOURCE_DIR}/src/plat/${value_of_PLAT}/linker.lds")
set(link_script "${gen_dir}/linker.lds")
add_custom_command(
  OUTPUT "${link_script}"
  COMMAND "${CMAKE_C_COMPILER}" -E -P -x c ${preprocess_flags} "${link_script_source}" -o "${link_script}"
  DEPENDS "${link_script_source}" "${config_include_dir}/kernel/gen_config.h"
  VERBATIM)
add_custom_target(kernel_link_script DEPENDS "${link_script}")

# In the order of the kernel's own Makefile, so that the two can be compared.
add_executable(kernel.elf ${kernel_asm_sources} "${gen_dir}/kernel_all.c")
add_dependencies(kernel.elf kernel_headers kernel_link_script)
set_target_properties(kernel.elf PROPERTIES LINK_DEPENDS "${link_script}")
target_include_directories(kernel.elf PRIVATE ${kernel_include_dirs})
target_compile_definitions(kernel.elf PRIVATE ${kernel_definitions})

# The kernel's own flags.
target_compile_options(kernel.elf PRIVATE
  -m64 ${value_of_KERNEL_OPT_LEVEL} -ffreestanding -nostdinc -fno-pic ${kernel_compile_flags})
target_compile_options(kernel.elf PRIVATE $<$<COMPILE_LANGUAGE:C>:
  -std=c99 -mcmodel=kernel -mno-mmx -mno-sse -mno-sse2 -mno-3dnow -fno-asynchronous-unwind-tables
  -Wall -Wno-address-of-packed-member -Wno-array-bounds>)
# What distributions switch on by default and a kernel cannot use.
target_compile_options(kernel.elf PRIVATE
  -fno-stack-protector -fno-stack-clash-protection -fcf-protection=none -U_FORTIFY_SOURCE -fno-pie)
# The same bytes wherever the source and the build directory lie.
target_compile_options(kernel.elf PRIVATE
  "-ffile-prefix-map=${SEL4_SOURCE_DIR}=seL4" "-ffile-prefix-map=${CMAKE_CURRENT_BINARY_DIR}=build"
  "-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}=cmake")
if(value_of_DEBUG_BUILD)
  target_compile_options(kernel.elf PRIVATE -g)
endif()

target_link_options(kernel.elf PRIVATE
  -m64 -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-n "-Wl,-T,${link_script}")
# One segment is code and data on purpose; binutils before 2.39 has no such
# warnings and no flags for them.
include(CheckCCompilerFlag)
foreach(flag no-warn-rwx-segments no-warn-execstack)
  set(CMAKE_TRY_COMPILE_TARGET_TYPE EXECUTABLE)
  set(CMAKE_REQUIRED_FLAGS "-nostdlib -static -Wl,-e0,--${flag}")
  check_c_compiler_flag("" linker_has_${flag})
  if(linker_has_${flag})
    target_link_options(kernel.elf PRIVATE "-Wl,--${flag}")
  endif()
endforeach()
unset(CMAKE_REQUIRED_FLAGS)

# The alignment is a property of the result, so it is checked there.
add_custom_command(TARGET kernel.elf POST_BUILD
  COMMAND sh "${CMAKE_CURRENT_SOURCE_DIR}/check_stack.sh" "${CMAKE_NM}" "$<TARGET_FILE:kernel.elf>"
  VERBATIM)

install(TARGETS kernel.elf RUNTIME DESTINATION bin)
