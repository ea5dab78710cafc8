#!/bin/sh
# Makes the Python virtual environment for the kernel's generators.
#
#   python.sh BUILD_DIR
#
# The environment is BUILD_DIR/python, with exactly the packages and file hashes
# of requirements.txt. Prints the path of its interpreter. Does nothing when it
# is up to date; removes it again when it cannot be completed.
set -eu

program=python
folder=$(CDPATH='' cd "$(dirname "$0")" && pwd)
. "$folder/common.sh"

[ $# -eq 1 ] || die "usage: python.sh BUILD_DIR"
mkdir -p "$1"
build_dir=$(CDPATH='' cd "$1" && pwd)
environment=$build_dir/python
requirements=$folder/requirements.txt

python=$(find_python) || die "no Python 3 with the venv module; run tools/setup/packages.sh"
stamp="$(sha256sum <"$requirements") $python $("$python" -V 2>&1) $environment"

up_to_date() {
    [ "$(cat "$environment/stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$environment/bin/python" ]
}

if ! up_to_date; then
    take_lock "$build_dir/.python.lock"
fi
if ! up_to_date; then
    say "making $environment with the packages of requirements.txt"
    trap 'rm -rf "$environment"' EXIT
    trap 'exit 1' HUP INT TERM
    rm -rf "$environment"
    "$python" -m venv "$environment" >&2 || die "$python could not make a virtual environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --only-binary :all: --no-deps --require-hashes --requirement "$requirements" >&2 ||
        die "pip could not install requirements.txt; check the network"
    printf '%s\n' "$stamp" >"$environment/stamp"
    trap - EXIT
fi
printf '%s\n' "$environment/bin/python"
