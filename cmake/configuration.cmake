# Reads one file of kernel-config/ and writes it down in the forms in which the
# kernel, libsel4 and binding generators want it:
#
#   kernel/gen_config.json  option -> true, false or string, as current kernels
#                           install it (sel4/gen_config.json likewise)
#   kernel/gen_config.h     the same as CONFIG_* macros
#   autoconf.h              includes both; the name the sources ask for
#   configuration.md        option, value and reason, for people
#
# Options are checked against the Kconfig files of the kernel source, so that a
# misspelt name is an error and not a silent default.

# Current kernels describe a choice by one string and one boolean per
# alternative; the 5.0.0 source knows only the booleans.
set(choice_SEL4_ARCH x86_64=ARCH_X86_64)
set(choice_PLAT pc99=PLAT_PC99)
set(choice_KERNEL_X86_SYSCALL syscall=SYSCALL sysenter=SYSENTER)
set(choice_KERNEL_FSGS_BASE msr=FSGSBASE_MSR inst=FSGSBASE_INST)
set(choice_KERNEL_X86_FPU FXSAVE=FXSAVE XSAVE=XSAVE)
set(choice_KERNEL_IRQ_CONTROLLER IOAPIC=IRQ_IOAPIC PIC=IRQ_PIC)
set(choice_KERNEL_LAPIC_MODE XAPIC=XAPIC X2APIC=X2APIC)
set(choice_KERNEL_OPT_LEVEL
    -O0=KERNEL_OPT_LEVEL_O0 -O1=KERNEL_OPT_LEVEL_O1 -O2=KERNEL_OPT_LEVEL_O2
    -O3=KERNEL_OPT_LEVEL_O3 -Os=KERNEL_OPT_LEVEL_OS)
set(choice_KERNEL_BENCHMARK
    none=NO_BENCHMARKS generic=BENCHMARK_GENERIC
    track_kernel_entries=BENCHMARK_TRACK_KERNEL_ENTRIES
    tracepoints=BENCHMARK_TRACEPOINTS
    track_utilisation=BENCHMARK_TRACK_UTILISATION)
set(choice_KERNEL_X86_MICRO_ARCH
    generic=ARCH_X86_GENERIC nehalem=ARCH_X86_NEHALEM westmere=ARCH_X86_WESTMERE
    sandy=ARCH_X86_SANDY ivy=ARCH_X86_IVY haswell=ARCH_X86_HASWELL
    broadwell=ARCH_X86_BROADWELL skylake=ARCH_X86_SKYLAKE)
# Current kernels spell it so.
set(choice_KERNEL_MUTLTIBOOT_GFX_MODE
    none=MULTIBOOT_GRAPHICS_MODE_NONE text=MULTIBOOT_GRAPHICS_MODE_TEXT
    linear=MULTIBOOT_GRAPHICS_MODE_LINEAR)
set(choice_LIB_SEL4_FUNCTION_ATTRIBUTE
    inline=LIB_SEL4_INLINE_INVOCATIONS default=LIB_SEL4_DEFAULT_FUNCTION_ATTRIBUTES
    public=LIB_SEL4_PUBLIC_SYMBOLS)

# Read by the kernel's C code but declared in no Kconfig file.
set(undeclared_options
    RESET_CHUNK_BITS ARCH_X86_GENERIC ARCH_X86_NEHALEM ARCH_X86_WESTMERE ARCH_X86_SANDY
    ARCH_X86_IVY ARCH_X86_HASWELL ARCH_X86_BROADWELL ARCH_X86_SKYLAKE)

# ---- The statements a configuration file is made of ------------------------

macro(kernel_option name value reason)
  state_option(kernel "${name}" "${value}" "${reason}")
endmacro()

macro(libsel4_option name value reason)
  state_option(sel4 "${name}" "${value}" "${reason}")
endmacro()

# An argument for the compiler that follows from an option.
macro(kernel_compile_flag flag reason)
  list(APPEND kernel_compile_flags "${flag}")
  set(reason_of_flag_${flag} "${reason}")
endmacro()

# Records one option, or all the booleans of a choice, in the named group.
macro(state_option group name value reason)
  if(DEFINED choice_${name})
    set(chosen FALSE)
    foreach(alternative IN LISTS choice_${name})
      string(REGEX REPLACE "=.*" "" alternative_value "${alternative}")
      string(REGEX REPLACE ".*=" "" alternative_name "${alternative}")
      if("${alternative_value}" STREQUAL "${value}")
        set(chosen TRUE)
        record_option(${group} ${alternative_name} ON "chosen by ${name}")
      else()
        record_option(${group} ${alternative_name} OFF "excluded by ${name}")
      endif()
    endforeach()
    if(NOT chosen)
      string(REGEX REPLACE "=[A-Za-z0-9_]+" "" known "${choice_${name}}")
      list(JOIN known ", " known)
      message(FATAL_ERROR "${CMAKE_CURRENT_LIST_FILE}: ${name} cannot be '${value}'; choose one of: ${known}")
    endif()
  else()
    require_declared("${name}")
  endif()
  record_option(${group} "${name}" "${value}" "${reason}")
endmacro()

macro(record_option group name value reason)
  list(FIND ${group}_options "${name}" position)
  if(position EQUAL -1)
    list(APPEND ${group}_options "${name}")
  endif()
  set(value_of_${name} "${value}")
  set(reason_of_${name} "${reason}")
endmacro()

function(require_declared name)
  list(FIND declared_options "${name}" position)
  if(position EQUAL -1)
    message(FATAL_ERROR "${CMAKE_CURRENT_LIST_FILE}: the kernel has no option ${name}; see the Kconfig files under ${SEL4_SOURCE_DIR}")
  endif()
endfunction()

function(read_declared_options result)
  set(names ${undeclared_options})
  foreach(kconfig Kconfig src/plat/pc99/Kconfig libsel4/Kconfig)
    file(STRINGS "${SEL4_SOURCE_DIR}/${kconfig}" lines REGEX "^[ \t]*config [A-Z0-9_a-z]+")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "^[ \t]*config ([A-Za-z0-9_]+).*" "\\1" name "${line}")
      list(APPEND names ${name})
    endforeach()
  endforeach()
  set(${result} ${names} PARENT_SCOPE)
endfunction()

# ---- Writing it down -------------------------------------------------------

function(write_json group file)
  set(entries "")
  foreach(name IN LISTS ${group}_options)
    set(value "${value_of_${name}}")
    if(value STREQUAL "ON")
      list(APPEND entries "    \"${name}\": true")
    elseif(value STREQUAL "OFF")
      list(APPEND entries "    \"${name}\": false")
    else()
      list(APPEND entries "    \"${name}\": \"${value}\"")
    endif()
  endforeach()
  list(JOIN entries ",\n" body)
  file(WRITE "${file}" "{\n${body}\n}\n")
endfunction()

function(write_header group file)
  set(body "#pragma once\n\n")
  foreach(name IN LISTS ${group}_options)
    set(value "${value_of_${name}}")
    if(value STREQUAL "ON")
      string(APPEND body "#define CONFIG_${name} 1\n")
    elseif(value STREQUAL "OFF")
      string(APPEND body "/* disabled: CONFIG_${name} */\n")
    else()
      string(APPEND body "#define CONFIG_${name} ${value}\n")
    endif()
  endforeach()
  file(WRITE "${file}" "${body}")
endfunction()

function(write_table file)
  set(body "# Kernel configuration `${configuration_name}`\n\nseL4 ${sel4_version}. Generated from `kernel-config/${configuration_name}.cmake`.\n\n| option | value | reason |\n|---|---|---|\n")
  foreach(name IN LISTS kernel_options sel4_options)
    string(APPEND body "| `${name}` | `${value_of_${name}}` | ${reason_of_${name}} |\n")
  endforeach()
  foreach(flag IN LISTS kernel_compile_flags)
    string(APPEND body "| compiler | `${flag}` | ${reason_of_flag_${flag}} |\n")
  endforeach()
  file(WRITE "${file}" "${body}")
endfunction()

# ---- Reading the chosen file -----------------------------------------------

read_declared_options(declared_options)
file(READ "${SEL4_SOURCE_DIR}/VERSION" sel4_version)
string(STRIP "${sel4_version}" sel4_version)
get_filename_component(configuration_name "${SEL4_CONFIG_FILE}" NAME_WE)
get_filename_component(configuration_dir "${SEL4_CONFIG_FILE}" DIRECTORY)

# Configuration files name their neighbours without a folder.
set(CMAKE_MODULE_PATH "${configuration_dir}")
set(kernel_compile_flags "")
include("${SEL4_CONFIG_FILE}")

# What follows from the options above, or is fixed by this source, under the
# names that current kernels give it.
record_option(kernel VERSION "${sel4_version}" "version of the kernel source")
record_option(kernel ARCH x86 "follows from SEL4_ARCH")
record_option(kernel ARCH_X86 ON "follows from SEL4_ARCH")
record_option(kernel WORD_SIZE 64 "follows from SEL4_ARCH")
record_option(kernel HAVE_FPU ON "every x86_64 processor has one")
record_option(kernel PC99_TSC_FREQUENCY 0 "5.0.0 measures the frequency at boot")
record_option(kernel KERNEL_MCS OFF "5.0.0 has no scheduling contexts")
record_option(kernel KERNEL_SKIM_WINDOW OFF "5.0.0 maps the whole kernel in every address space")
record_option(kernel SET_TLS_BASE_SELF OFF "5.0.0 has no such system call: TLS bases are set through the TCB")
record_option(kernel KERNEL_INVOCATION_REPORT_ERROR_IPC OFF "5.0.0 reports invocation errors by number only")
record_option(kernel EXCEPTION_FASTPATH OFF "5.0.0 delivers faults on the slow path")
record_option(kernel SIGNAL_FASTPATH OFF "5.0.0 delivers signals on the slow path")
record_option(kernel EXPORT_PMC_USER OFF "5.0.0 does not expose performance counters")
record_option(kernel KERNEL_X86_DANGEROUS_MSR OFF "5.0.0 has no such system calls")
record_option(kernel X86_64_VTX_64BIT_GUESTS OFF "5.0.0 has 32-bit guests only")
record_option(kernel ENABLE_BENCHMARKS OFF "follows from KERNEL_BENCHMARK")
if(NOT value_of_KERNEL_BENCHMARK STREQUAL "none")
  record_option(kernel ENABLE_BENCHMARKS ON "follows from KERNEL_BENCHMARK")
endif()
record_option(kernel ENABLE_SMP_SUPPORT OFF "follows from MAX_NUM_NODES")
if(value_of_MAX_NUM_NODES GREATER 1)
  record_option(kernel ENABLE_SMP_SUPPORT ON "follows from MAX_NUM_NODES")
endif()
if(value_of_PRINTING AND NOT value_of_DEBUG_BUILD)
  message(FATAL_ERROR "${SEL4_CONFIG_FILE}: PRINTING needs DEBUG_BUILD; the kernel does not compile without it")
endif()

record_option(sel4 LIB_SEL4_PRINT_INVOCATION_ERRORS 0 "5.0.0 has no such stubs")
record_option(sel4 LIB_SEL4_USE_THREAD_LOCALS OFF "5.0.0 finds the IPC buffer through the GS segment")

set(config_include_dir "${CMAKE_CURRENT_BINARY_DIR}/config")
foreach(group kernel sel4)
  write_json(${group} "${config_include_dir}/${group}/gen_config.json")
  write_header(${group} "${config_include_dir}/${group}/gen_config.h")
endforeach()
# Some libsel4 headers ask for autoconf.h only when told that there is one.
file(WRITE "${config_include_dir}/autoconf.h" "#pragma once\n\n#ifndef HAVE_AUTOCONF\n#define HAVE_AUTOCONF 1\n#endif\n\n#include <kernel/gen_config.h>\n#include <sel4/gen_config.h>\n")
write_table("${CMAKE_CURRENT_BINARY_DIR}/configuration.md")
