#!/bin/sh
# Builds the image of a system twice and compares: in different folders, with
# Cargo's files in different folders, one after the other, the second from files
# that are a year older.
#
#   reproduce.sh SEL4_COMPOSE [SYSTEM]
#
# SEL4_COMPOSE is the built tool; SYSTEM a description in the repository
# (system.toml). The files that Git knows, changed or not, are copied below
# build/reproduce and built there from nothing, kernel included. Prints the
# digests; the status is 1 if they differ.
set -eu

program=reproduce
folder=$(CDPATH='' cd "$(dirname "$0")" && pwd)
. "$folder/common.sh"
root=$(CDPATH='' cd "$folder/../.." && pwd)
compose=$(CDPATH='' cd "$(dirname "$1")" && pwd)/$(basename "$1")
system=${2:-system.toml}
work=$root/build/reproduce
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# place FOLDER: the files that Git knows, and what Cargo has downloaded.
place() {
    mkdir -p "$1/source" "$1/home/registry"
    (cd "$root" && git ls-files -z --cached --others --exclude-standard |
        tar --null --files-from=- --create) | tar --extract --directory "$1/source"
    for part in index cache; do
        [ ! -d "$cargo_home/registry/$part" ] || cp -a "$cargo_home/registry/$part" "$1/home/registry/"
    done
    for file in config.toml config; do
        [ ! -f "$cargo_home/$file" ] || cp "$cargo_home/$file" "$1/home/"
    done
}

# build FOLDER: a clean build in a place.
build() {
    say "building in $1"
    (cd "$1/source" && CARGO_HOME=$1/home "$compose" build "$system" --output "$1/image") >"$1/log" 2>&1 ||
        { tail -20 "$1/log" >&2; die "the build in $1 failed"; }
}

one=$work/one
other=$work/another/folder/with/a/longer/name
rm -rf "$work"
place "$one"
place "$other"
find "$other/source" -exec touch --no-dereference --date='1 year ago' {} +
build "$one"
build "$other"

status=0
for file in image.elf kernel.elf32; do
    first=$(sha256sum <"$one/image/$file")
    second=$(sha256sum <"$other/image/$file")
    if [ "$first" = "$second" ]; then
        printf '%s  %s\n' "${first%% *}" "$file"
    else
        printf '%s differs: %s and %s\n' "$file" "${first%% *}" "${second%% *}"
        status=1
    fi
done
exit $status
