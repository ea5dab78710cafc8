#!/bin/sh
# Instructions per cap_enter inside the core, by kind of submission.
# Usage: ring-server/model/measure.sh   (needs valgrind)
set -eu
cd "$(dirname "$0")/../.."
cargo build -q --release -p ring-server-model --example entry_cost
program=target/release/examples/entry_cost
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect='*measured_enter*' "$program" "$@" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
for kind in nop now console; do
    for per_entry in 1 8; do
        short=$(instructions "$kind" 100 "$per_entry")
        long=$(instructions "$kind" 1100 "$per_entry")
        echo "$kind x$per_entry: $(((long - short) / 1000)) instructions per cap_enter"
    done
done
short=$(instructions ipc 100)
long=$(instructions ipc 1100)
echo "ipc: $(((long - short) / 1000)) instructions per RECV, CALL and RETURN (three entries)"
