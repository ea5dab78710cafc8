//! Addresses every capOS process shares, permissions, and entry registers.
//!
//! Source of the numbers: `capos_config::process_layout`, `ring::RING_VADDR`,
//! `capset::CAPSET_VADDR`. Addresses and sizes are in bytes.

use capos_config::capset::CAPSET_VADDR;
use capos_config::process_layout::{
    USER_IMAGE_BASE, USER_IMAGE_LINK_LIMIT, USER_PAGE_BYTES, USER_STACK_BASE, USER_STACK_TOP,
    USER_TLS_REGION_BASE, USER_TLS_REGION_LIMIT,
};
use capos_config::ring::RING_VADDR;

/// Size of a page.
pub const PAGE_BYTES: u64 = USER_PAGE_BYTES;
/// Mask of the offset within a page.
pub const PAGE_MASK: u64 = PAGE_BYTES - 1;
/// First address of the image window.
pub const IMAGE_BASE: u64 = USER_IMAGE_BASE;
/// First address past the image window.
pub const IMAGE_LIMIT: u64 = USER_IMAGE_LINK_LIMIT;
/// First address of the initial stack.
pub const STACK_BASE: u64 = USER_STACK_BASE;
/// First address past the initial stack.
pub const STACK_TOP: u64 = USER_STACK_TOP;
/// First address of the region that holds the initial thread's TLS block.
pub const TLS_BASE: u64 = USER_TLS_REGION_BASE;
/// First address past the TLS region.
pub const TLS_LIMIT: u64 = USER_TLS_REGION_LIMIT;
/// Address of the capability ring page.
pub const RING_ADDRESS: u64 = RING_VADDR;
/// Address of the CapSet page.
pub const CAPSET_ADDRESS: u64 = CAPSET_VADDR;
/// First address offered to mappings a process makes at run time when it
/// leaves the choice to us. Above everything fixed.
pub const DYNAMIC_BASE: u64 = 0x1000_0000;
/// First address past what seL4 lets a user of x86-64 map (`seL4_UserTop`).
/// The last page below the canonical boundary stays unused, so that no
/// instruction can end exactly at the boundary.
pub const USER_LIMIT: u64 = 0x0000_7fff_ffff_f000;

const _: () = assert!(PAGE_BYTES.is_power_of_two());
const _: () = assert!(IMAGE_BASE < IMAGE_LIMIT && IMAGE_LIMIT <= STACK_BASE);
const _: () = assert!(STACK_BASE < STACK_TOP && STACK_TOP <= TLS_BASE);
const _: () = assert!(TLS_BASE < TLS_LIMIT && TLS_LIMIT <= RING_ADDRESS);
const _: () = assert!(RING_ADDRESS + PAGE_BYTES <= CAPSET_ADDRESS);
const _: () = assert!(CAPSET_ADDRESS + PAGE_BYTES <= DYNAMIC_BASE);
const _: () = assert!(STACK_TOP.is_multiple_of(16), "entry RSP is STACK_TOP - 8");

/// Rounds `address` down to a page boundary.
pub const fn page_floor(address: u64) -> u64 {
    address & !PAGE_MASK
}

/// Rounds `address` up to a page boundary; `None` when that leaves 64 bits.
pub const fn page_ceil(address: u64) -> Option<u64> {
    match address.checked_add(PAGE_MASK) {
        Some(bumped) => Some(page_floor(bumped)),
        None => None,
    }
}

/// What a process may do with a page, as it asked for it.
///
/// x86-64 cannot map a page that is writable or executable but not readable;
/// [`Protection::effective_read`] says what the hardware will allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches are allowed.
    pub execute: bool,
}

impl Protection {
    /// No access at all.
    pub const NONE: Self = Self::new(false, false, false);
    /// Loads only.
    pub const READ: Self = Self::new(true, false, false);
    /// Loads and stores.
    pub const READ_WRITE: Self = Self::new(true, true, false);
    /// Loads and instruction fetches.
    pub const READ_EXECUTE: Self = Self::new(true, false, true);

    /// Builds a protection from its three bits.
    pub const fn new(read: bool, write: bool, execute: bool) -> Self {
        Self {
            read,
            write,
            execute,
        }
    }

    /// From the `prot` word of capOS `VirtualMemory` (`VM_PROT_*`); `None` for
    /// unknown bits. Write and execute together are representable: whoever
    /// applies the value refuses them.
    pub const fn from_vm_prot(prot: u32) -> Option<Self> {
        use capos_config::{VM_PROT_EXEC, VM_PROT_READ, VM_PROT_WRITE};
        if prot & !(VM_PROT_READ | VM_PROT_WRITE | VM_PROT_EXEC) != 0 {
            return None;
        }
        Some(Self::new(
            prot & VM_PROT_READ != 0,
            prot & VM_PROT_WRITE != 0,
            prot & VM_PROT_EXEC != 0,
        ))
    }

    /// True when both stores and fetches are allowed.
    pub const fn is_writable_and_executable(self) -> bool {
        self.write && self.execute
    }

    /// True when nothing is allowed.
    pub const fn is_none(self) -> bool {
        !self.read && !self.write && !self.execute
    }

    /// True when a load works once the page is mapped.
    pub const fn effective_read(self) -> bool {
        !self.is_none()
    }
}

/// User registers at the first instruction of a thread, as plain data.
///
/// Every register not named here starts as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer; 8 modulo 16, as after a call.
    pub rsp: u64,
    /// Flags: interrupts enabled and the bit that always reads as one.
    pub rflags: u64,
    /// First argument.
    pub rdi: u64,
    /// Second argument.
    pub rsi: u64,
    /// Third argument.
    pub rdx: u64,
    /// Fourth argument.
    pub rcx: u64,
    /// Fifth argument.
    pub r8: u64,
    /// FS base; zero when the thread has no TLS block.
    pub fs_base: u64,
}

/// RFLAGS of a new thread: IF, and bit 1, which is always set.
pub const ENTRY_RFLAGS: u64 = 0x202;

impl EntryState {
    /// Registers of a process's first thread:
    /// `_start(ring_addr, pid, capset_addr)`.
    ///
    /// `has_capset` is false when no CapSet page is mapped; the program then
    /// receives zero in its place.
    pub const fn process(entry: u64, pid: u64, has_capset: bool, fs_base: u64) -> Self {
        Self {
            rip: entry,
            rsp: STACK_TOP - 8,
            rflags: ENTRY_RFLAGS,
            rdi: RING_ADDRESS,
            rsi: pid,
            rdx: if has_capset { CAPSET_ADDRESS } else { 0 },
            rcx: 0,
            r8: 0,
            fs_base,
        }
    }

    /// Registers of a thread a process creates:
    /// `entry(arg, tid, pid, ring_addr, capset_addr)`.
    ///
    /// `stack_top` must be 16-byte aligned (the caller checks the request);
    /// the thread starts with the slot of a return address below it.
    pub const fn thread(request: ThreadEntry, pid: u64, tid: u64, has_capset: bool) -> Self {
        Self {
            rip: request.entry,
            rsp: request.stack_top.wrapping_sub(8),
            rflags: ENTRY_RFLAGS,
            rdi: request.argument,
            rsi: tid,
            rdx: pid,
            rcx: RING_ADDRESS,
            r8: if has_capset { CAPSET_ADDRESS } else { 0 },
            fs_base: request.fs_base,
        }
    }
}

/// What a process says about a thread it creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadEntry {
    /// First instruction.
    pub entry: u64,
    /// First address past the stack.
    pub stack_top: u64,
    /// Passed through in RDI.
    pub argument: u64,
    /// FS base of the thread.
    pub fs_base: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_rounding_at_its_edges() {
        assert_eq!(page_floor(0), 0);
        assert_eq!(page_floor(PAGE_BYTES - 1), 0);
        assert_eq!(page_floor(PAGE_BYTES), PAGE_BYTES);
        assert_eq!(page_ceil(0), Some(0));
        assert_eq!(page_ceil(1), Some(PAGE_BYTES));
        assert_eq!(page_ceil(PAGE_BYTES), Some(PAGE_BYTES));
        assert_eq!(page_ceil(u64::MAX), None);
        assert_eq!(page_ceil(u64::MAX - PAGE_MASK), Some(u64::MAX - PAGE_MASK));
    }

    #[test]
    fn process_entry_matches_the_capos_contract() {
        let state = EntryState::process(0x20_0123, 7, true, 0x110_1000);
        assert_eq!(
            (state.rdi, state.rsi, state.rdx),
            (0x120_0000, 7, 0x130_0000)
        );
        assert_eq!(state.rsp, 0x101_0000 - 8);
        assert_eq!(state.rsp % 16, 8);
        assert_eq!(state.rflags, 0x202);
        assert_eq!(state.fs_base, 0x110_1000);
        assert_eq!(EntryState::process(0x20_0123, 7, false, 0).rdx, 0);
    }

    #[test]
    fn thread_entry_matches_the_capos_contract() {
        let request = ThreadEntry {
            entry: 0x20_0000,
            stack_top: 0x50_0000,
            argument: 9,
            fs_base: 3,
        };
        let state = EntryState::thread(request, 4, 5, true);
        let arguments = (state.rdi, state.rsi, state.rdx, state.rcx, state.r8);
        assert_eq!(arguments, (9, 5, 4, 0x120_0000, 0x130_0000));
        assert_eq!(state.rsp, 0x50_0000 - 8);
    }

    #[test]
    fn vm_prot_words_are_decoded_and_unknown_bits_refused() {
        assert_eq!(Protection::from_vm_prot(0), Some(Protection::NONE));
        assert_eq!(Protection::from_vm_prot(1), Some(Protection::READ));
        assert_eq!(Protection::from_vm_prot(3), Some(Protection::READ_WRITE));
        assert_eq!(Protection::from_vm_prot(5), Some(Protection::READ_EXECUTE));
        assert_eq!(Protection::from_vm_prot(8), None);
    }
}
