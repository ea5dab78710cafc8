#!/bin/sh
# Checks that the kernel's stacks are aligned to a page (see kernel_stack.h).
# Arguments: nm, kernel.elf.
set -eu
address=$("$1" "$2" | awk '$3 == "kernel_stack_alloc" { print $1 }')
case $address in
*000) ;;
*)
	echo "kernel_stack_alloc is at '$address', not on a page boundary" >&2
	exit 1
	;;
esac
