# Shared by the scripts in this folder; read with `.`, never run.
# POSIX sh. Callers set `program` to their own name first.

# Messages go to standard error: standard output carries results.
say() { printf '%s: %s\n' "$program" "$*" >&2; }
die() { say "$*"; exit 1; }

# Prints the first Python 3 that can make a virtual environment. The one in
# PATH may be a version manager's and lack the module that Debian's has.
find_python() {
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Prints the C compiler for x86_64. The first name is what Debian calls it on
# every architecture.
find_compiler() {
    for candidate in x86_64-linux-gnu-gcc gcc; do
        case $("$candidate" -dumpmachine 2>/dev/null) in
            x86_64-*) command -v "$candidate"; return 0 ;;
        esac
    done
    return 1
}

# Serialises set-up steps of one build directory; released when the caller ends.
take_lock() {
    exec 9>"$1"
    flock -n 9 && return 0
    say "waiting for another set-up in the same build directory"
    flock 9
}
