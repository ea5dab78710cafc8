#!/bin/sh
# Builds one seL4 configuration into an installed prefix.
#
#   kernel.sh CONFIG [BUILD_DIR]
#
# CONFIG names a file of kernel-config/ without its suffix. The prefix is
# BUILD_DIR/sel4/CONFIG (BUILD_DIR is `build` in the repository unless given);
# its absolute path is printed on standard output, messages go to standard
# error.
#
# A prefix carries a stamp over everything it was made from: the configuration,
# cmake/, the checksum of the source package in Cargo.lock, the Python packages
# and the compiler. When it matches, nothing is done. Otherwise the prefix is
# built from nothing beside its final place and moved there when it is complete;
# a failure leaves what was there before, and BUILD_DIR/sel4/CONFIG.log.
set -eu

program=kernel
folder=$(CDPATH='' cd "$(dirname "$0")" && pwd)
. "$folder/common.sh"
repository=$(CDPATH='' cd "$folder/../.." && pwd)

# ---- Inputs ----------------------------------------------------------------

configurations() {
    for file in "$repository"/kernel-config/*.cmake; do
        name=$(basename "$file" .cmake)
        [ "$name" = common ] || printf ' %s' "$name"
    done
}

{ [ $# -ge 1 ] && [ $# -le 2 ]; } || die "usage: kernel.sh CONFIG [BUILD_DIR], CONFIG one of:$(configurations)"
config=$1
case " $(configurations) " in
    *" $config "*) ;;
    *) die "there is no kernel configuration '$config'; choose one of:$(configurations)" ;;
esac
mkdir -p "${2:-$repository/build}/sel4"
build_dir=$(CDPATH='' cd "${2:-$repository/build}" && pwd)
prefix=$build_dir/sel4/$config

compiler=$(find_compiler) || die "no C compiler for x86_64; run tools/setup/packages.sh"

# Prints the checksum that Cargo verified the kernel's source package against.
source_checksum() {
    awk '$1 == "name" { found = ($3 == "\"sel4-sys\"") } found && $1 == "checksum" { gsub(/"/, "", $3); print $3; exit }' \
        "$repository/Cargo.lock"
}

current_stamp() {
    checksum=$(source_checksum)
    [ -n "$checksum" ] || die "Cargo.lock does not name the package sel4-sys that carries the kernel source"
    {
        cd "$repository"
        sha256sum cmake/* kernel-config/common.cmake "kernel-config/$config.cmake" \
            tools/setup/kernel.sh tools/setup/requirements.txt
        printf '%s\n' "$checksum"
        "$compiler" --version
        ld --version
    } | sha256sum | cut -d ' ' -f 1
}

up_to_date() {
    [ "$(cat "$prefix/share/stamp" 2>/dev/null)" = "$stamp" ] &&
        [ -f "$prefix/bin/kernel.elf" ] &&
        [ -f "$prefix/libsel4/include/kernel/gen_config.json" ]
}

# Prints the folder of the kernel source, downloading its package if need be.
source_dir() {
    metadata=$(cd "$repository" && "${CARGO:-cargo}" metadata --locked --format-version 1) || return 1
    printf '%s' "$metadata" | "$python" -c '
import json, os, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "sel4-sys":
        print(os.path.join(os.path.dirname(package["manifest_path"]), "seL4"))
'
}

# ---- Building --------------------------------------------------------------

# Runs a command with its output in the log; shows the end of it on failure.
logged() {
    "$@" >>"$log" 2>&1 && return 0
    tail -n 40 "$log" >&2
    die "building seL4 '$config' failed; the whole log is $log"
}

build_prefix() {
    python=$("$folder/python.sh" "$build_dir") || exit 1
    source=$(source_dir) || die "Cargo could not provide the package sel4-sys; see the message above"
    [ -d "$source" ] || die "Cargo's metadata names no package sel4-sys"

    say "building seL4 $(cat "$source/VERSION") in configuration '$config'"
    started=$(date +%s)
    log=$prefix.log
    : >"$log"
    work=$(mktemp -d "$build_dir/sel4/.$config.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    logged cmake -S "$repository/cmake" -B "$work/build" -G Ninja \
        -DCMAKE_C_COMPILER="$compiler" \
        -DSEL4_SOURCE_DIR="$source" \
        -DSEL4_CONFIG_FILE="$repository/kernel-config/$config.cmake" \
        -DSEL4_PYTHON="$python" \
        -DCMAKE_INSTALL_PREFIX="$work/prefix"
    logged cmake --build "$work/build"
    logged cmake --install "$work/build"
    printf '%s\n' "$stamp" >"$work/prefix/share/stamp"

    if [ -e "$prefix" ]; then
        mv "$prefix" "$work/replaced"
    fi
    mv "$work/prefix" "$prefix"
    rm -f "$log"
    say "installed $prefix in $(($(date +%s) - started)) s"
}

stamp=$(current_stamp)
if ! up_to_date; then
    take_lock "$build_dir/sel4/.lock"
    up_to_date || build_prefix
fi
printf '%s\n' "$prefix"
