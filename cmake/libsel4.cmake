# The interface half of the prefix: what a program, or a generator of bindings,
# reads to know the kernel it got.
#
# Everything lands under libsel4/include so that one -I suffices, with the names
# a current seL4 install uses. Files are installed as they are in the source;
# three interface descriptions get their present-day names.

set(libsel4_gen "${CMAKE_CURRENT_BINARY_DIR}/libsel4/include")
set(libsel4_include_dirs
    "${libsel4_source}/include"
    "${libsel4_source}/arch_include/${value_of_ARCH}"
    "${libsel4_source}/sel4_arch_include/${value_of_SEL4_ARCH}"
    "${libsel4_source}/sel4_plat_include/${value_of_PLAT}")

# ---- Generated headers -----------------------------------------------------

set(libsel4_preprocess_flags -nostdinc "-I${config_include_dir}")
foreach(dir IN LISTS libsel4_include_dirs)
  list(APPEND libsel4_preprocess_flags "-I${dir}")
endforeach()

function(libsel4_bitfields bf name)
  generate_bitfields("${bf}" "${libsel4_gen}" ${name} libsel4 ${libsel4_preprocess_flags})
endfunction()
libsel4_bitfields("${libsel4_source}/include/sel4/types_64.bf" sel4/types)
libsel4_bitfields("${libsel4_source}/include/sel4/shared_types_64.bf" sel4/shared_types)
libsel4_bitfields("${libsel4_source}/sel4_arch_include/${value_of_SEL4_ARCH}/sel4/sel4_arch/types.bf" sel4/sel4_arch/types)

generate_invocations("${object_api_xml}" "${libsel4_gen}/sel4/invocation.h" --libsel4)
generate_invocations("${object_api_sel4_arch_xml}" "${libsel4_gen}/sel4/sel4_arch/invocation.h" --libsel4 --sel4_arch)
generate_invocations("${object_api_arch_xml}" "${libsel4_gen}/sel4/arch/invocation.h" --libsel4 --arch)
generate_syscalls("${libsel4_source}/include/api" --libsel4_header "${libsel4_gen}/sel4/syscall.h")
generate_stubs("${libsel4_gen}/interfaces/sel4_client.h"
  "${object_api_sel4_arch_xml}" "${object_api_arch_xml}" "${object_api_xml}")

add_custom_target(libsel4_headers ALL DEPENDS
  "${libsel4_gen}/sel4/types_gen.h"
  "${libsel4_gen}/sel4/shared_types_gen.h"
  "${libsel4_gen}/sel4/sel4_arch/types_gen.h"
  "${libsel4_gen}/sel4/invocation.h"
  "${libsel4_gen}/sel4/sel4_arch/invocation.h"
  "${libsel4_gen}/sel4/arch/invocation.h"
  "${libsel4_gen}/sel4/syscall.h"
  "${libsel4_gen}/interfaces/sel4_client.h")

# ---- The prefix ------------------------------------------------------------

set(include_destination libsel4/include)
set(installed_dirs "${libsel4_gen}/" "${config_include_dir}/")
foreach(dir IN LISTS libsel4_include_dirs)
  list(APPEND installed_dirs "${dir}/")
endforeach()
install(DIRECTORY ${installed_dirs} DESTINATION ${include_destination}
  FILES_MATCHING
  PATTERN "*.h" PATTERN "*.pbf" PATTERN "*.bf" PATTERN "gen_config.json"
  PATTERN "api/syscall.xml" PATTERN "api/syscall.xsd"
  PATTERN "*_32.bf" EXCLUDE)
install(FILES "${object_api_xml}"
  DESTINATION ${include_destination}/interfaces RENAME object-api.xml)
install(FILES "${object_api_arch_xml}"
  DESTINATION ${include_destination}/interfaces RENAME object-api-arch.xml)
install(FILES "${object_api_sel4_arch_xml}"
  DESTINATION ${include_destination}/interfaces RENAME object-api-sel4-arch.xml)
install(DIRECTORY "${libsel4_source}/src/" DESTINATION libsel4/src FILES_MATCHING PATTERN "*.c")
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/configuration.md" DESTINATION share)
