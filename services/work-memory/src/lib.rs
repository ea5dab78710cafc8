//! Memory blocks for Argon2, from `VirtualMemory`.
//!
//! A hash needs more memory than a program's heap has, for less than a second.
//! [`with_blocks`] maps it, lends it out, overwrites it and gives it back. This
//! is the one service crate with unsafe code: an address that the system mapped
//! becomes a slice here.

#![no_std]
#![deny(unsafe_code)]

use argon2::Block;
use capos::{ClientError, RuntimeRingClient, VM_PROT_READ, VM_PROT_WRITE, VirtualMemoryClient};
use zeroize::Zeroize;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const PAGE_BYTES: usize = 4096;
/// Most blocks that are mapped at a time: what a console password verifier may
/// ask for.
pub const BLOCKS_MAX: usize = 19 * 1024;

/// Calls `work` with `count` zeroed blocks, which are zero again when they are
/// given back.
///
/// # Errors
/// More than [`BLOCKS_MAX`] blocks, as `MessageEncode`; what mapping and
/// unmapping answer.
pub fn with_blocks<T>(
    memory: &mut VirtualMemoryClient,
    ring: &mut RuntimeRingClient<'_>,
    count: usize,
    work: impl FnOnce(&mut [Block]) -> T,
) -> Result<T, ClientError> {
    if count == 0 || count > BLOCKS_MAX {
        return Err(ClientError::MessageEncode);
    }
    let size = (count * Block::SIZE).next_multiple_of(PAGE_BYTES) as u64;
    let protection = VM_PROT_READ | VM_PROT_WRITE;
    let address = memory.map_wait(ring, 0, size, protection, FOREVER)?;
    let outcome = lend(address, count, work);
    memory.unmap_wait(ring, address, size, FOREVER)?;
    Ok(outcome)
}

/// Lends out a fresh mapping of at least `count` blocks at `address`.
#[allow(unsafe_code, reason = "see the SAFETY comments")]
fn lend<T>(address: u64, count: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
    let start = address as *mut Block;
    for index in 0..count {
        // SAFETY: the caller mapped `count` blocks at `address`, readable and
        // writable, page-aligned and so aligned for a block; nobody else knows
        // the address, and it is unmapped only after this function.
        unsafe { start.add(index).write(Block::new()) };
    }
    // SAFETY: as above, and every block was just written. The slice ends with
    // this function.
    let blocks = unsafe { core::slice::from_raw_parts_mut(start, count) };
    let outcome = work(blocks);
    blocks.iter_mut().for_each(Zeroize::zeroize);
    outcome
}
