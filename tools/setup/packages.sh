#!/bin/sh
# Makes sure that the Debian packages this project builds and runs with are
# there.
#
#   packages.sh          what building, booting and testing needs
#   packages.sh gdb      the same and the debugger
#   packages.sh make     the same and make, for scripts that go on with it
#
# A package counts as present when its program works, whoever installed it. As
# root, missing packages are installed; otherwise the command that would do it
# is printed, nothing is changed, and the status is 1. With everything present
# this takes a fraction of a second and prints nothing.
set -eu

program=packages
folder=$(dirname "$0")
. "$folder/common.sh"

works() { "$@" >/dev/null 2>&1; }
has_c_headers() { printf '#include <stdio.h>\n' | gcc -E -x c - >/dev/null 2>&1; }
# Debian keeps the server's programs out of PATH.
has_postgresql() { ls /usr/lib/postgresql/*/bin/initdb || command -v initdb; }

# Prints the packages whose check fails.
missing_packages() {
    works find_compiler || echo gcc
    works has_c_headers || echo libc6-dev
    { works ld --version && works objcopy --version; } || echo binutils
    works cmake --version || echo cmake
    works ninja --version || echo ninja-build
    works xmllint --version || echo libxml2-utils
    works find_python || echo python3-venv
    works qemu-system-x86_64 --version || echo qemu-system-x86
    # A test loads measurements into a server of its own.
    works has_postgresql || echo postgresql
    for extra in "$@"; do
        works "$extra" --version || echo "$extra"
    done
}

for extra in "$@"; do
    case $extra in
        gdb | make) ;;
        *) die "unknown argument '$extra'; usage: packages.sh [gdb] [make]" ;;
    esac
done

# One package per line becomes one word each.
missing=$(missing_packages "$@" | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0

install="apt-get install --yes --no-install-recommends $missing"
if ! works apt-get --version; then
    die "missing: $missing (these are Debian package names; install the equivalents of this system)"
fi
if [ "$(id -u)" -ne 0 ]; then
    say "missing: $missing"
    die "run this, then try again:  sudo sh -c 'apt-get update && $install'"
fi

say "installing: $missing"
export DEBIAN_FRONTEND=noninteractive
# Both commands report their own progress; keep it off standard output.
apt-get update >&2 || die "apt-get update failed; check the network and /etc/apt/sources.list"
# Unquoted on purpose: the words of the command.
$install >&2 || die "apt-get could not install: $missing"

missing=$(missing_packages "$@" | tr '\n' ' ')
[ -z "$missing" ] || die "installed, yet still not working: $missing"
say "done"
