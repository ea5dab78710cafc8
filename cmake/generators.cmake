# The kernel's own generators, one function each.
#
# They run from a copy in the build directory: the parser library they use saves
# its tables beside the program, and the source must stay as Cargo unpacked it.
# For the same reason only one bitfield generator runs at a time.

set(generators_dir "${CMAKE_CURRENT_BINARY_DIR}/generators")
file(COPY "${SEL4_SOURCE_DIR}/tools/" DESTINATION "${generators_dir}")
file(COPY "${SEL4_SOURCE_DIR}/libsel4/tools/syscall_stub_gen.py" DESTINATION "${generators_dir}")
set_property(GLOBAL PROPERTY JOB_POOLS bitfield_generator=1)

# A fixed seed: the output must not depend on the order of a hash table.
set(run_python "${CMAKE_COMMAND}" -E env PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore "${SEL4_PYTHON}")

# generate_bitfields(BF ROOT NAME ENVIRONMENT flags...): preprocesses the
# declarations in BF into ROOT/NAME.pbf and turns them into ROOT/NAME_gen.h, in
# the dialect of ENVIRONMENT: `kernel` or `libsel4`. The generator makes an
# include guard of the header's absolute path; the part that is ROOT goes again.
function(generate_bitfields bf root name environment)
  get_filename_component(header_dir "${root}/${name}" DIRECTORY)
  file(MAKE_DIRECTORY "${header_dir}")
  set(dialect "")
  if(environment STREQUAL "libsel4")
    set(dialect --environment libsel4)
  endif()
  string(TOUPPER "${root}/" root_in_guard)
  string(REGEX REPLACE "[^A-Z0-9_]" "_" root_in_guard "${root_in_guard}")
  add_custom_command(
    OUTPUT "${root}/${name}.pbf"
    COMMAND "${CMAKE_C_COMPILER}" -E -P -x c ${ARGN} "${bf}" -o "${root}/${name}.pbf"
    DEPENDS "${bf}" "${config_include_dir}/kernel/gen_config.h"
    VERBATIM)
  add_custom_command(
    OUTPUT "${root}/${name}_gen.h"
    COMMAND ${run_python} "${generators_dir}/bitfield_gen.py" ${dialect} "${root}/${name}.pbf" "${root}/${name}_gen.h"
    COMMAND sed -i "s/^\\(#ifndef\\|#define\\) ${root_in_guard}/\\1 _/" "${root}/${name}_gen.h"
    DEPENDS "${root}/${name}.pbf"
    JOB_POOL bitfield_generator
    VERBATIM)
endfunction()

# generate_invocations(XML HEADER flags...): numbers the methods in XML.
function(generate_invocations xml header)
  get_filename_component(header_dir "${header}" DIRECTORY)
  file(MAKE_DIRECTORY "${header_dir}")
  add_custom_command(
    OUTPUT "${header}"
    COMMAND ${run_python} "${generators_dir}/invocation_header_gen.py" --xml "${xml}" ${ARGN} --dest "${header}"
    DEPENDS "${xml}"
    VERBATIM)
endfunction()

# generate_syscalls(XML_DIR FLAG HEADER): validates syscall.xml against its
# schema and numbers the system calls.
function(generate_syscalls xml_dir flag header)
  get_filename_component(header_dir "${header}" DIRECTORY)
  file(MAKE_DIRECTORY "${header_dir}")
  add_custom_command(
    OUTPUT "${header}"
    COMMAND "${XMLLINT}" --noout --nonet --schema "${xml_dir}/syscall.xsd" "${xml_dir}/syscall.xml"
    COMMAND ${run_python} "${generators_dir}/syscall_header_gen.py" --xml "${xml_dir}/syscall.xml" ${flag} "${header}"
    DEPENDS "${xml_dir}/syscall.xml"
    VERBATIM)
endfunction()

# generate_stubs(HEADER xml...): the C functions that perform the invocations.
function(generate_stubs header)
  get_filename_component(header_dir "${header}" DIRECTORY)
  file(MAKE_DIRECTORY "${header_dir}")
  add_custom_command(
    OUTPUT "${header}"
    COMMAND ${run_python} "${generators_dir}/syscall_stub_gen.py" -w ${value_of_WORD_SIZE} -a ${value_of_SEL4_ARCH} -o "${header}" ${ARGN}
    DEPENDS ${ARGN}
    VERBATIM)
endfunction()
