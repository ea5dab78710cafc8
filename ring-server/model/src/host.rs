//! A machine whose client memory is this process's own.
//!
//! The published client library passes pointers to its buffers; compiled for
//! the host these are addresses of this process. They are read and written
//! with `process_vm_readv` and `process_vm_writev`, which answer an unmapped
//! or read-only page with an error instead of a crash, as the real machine
//! does.

use ring_server_core::{AccessFault, Machine, Pid, ThreadRef};

use crate::page::ModelRing;

/// The machine for clients that run in this process.
#[derive(Debug, Default)]
pub struct HostMachine {
    /// Monotonic time in nanoseconds.
    pub now_ns: u64,
    /// Everything written to the console.
    pub console: Vec<u8>,
    /// Threads resumed since the test last looked, with RAX.
    pub resumed: Vec<(ThreadRef, u64)>,
}

impl Machine for HostMachine {
    type Ring = ModelRing;

    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn console_write(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    fn read(&mut self, _: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        let local = vector(out.as_mut_ptr() as u64, out.len());
        let remote = vector(addr, out.len());
        // SAFETY: `local` is exactly the exclusive borrow `out`; the kernel
        // validates `remote` and fails the call if any byte is not readable.
        let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
        whole(copied, out.len())
    }

    fn write(&mut self, _: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        let local = vector(bytes.as_ptr() as u64, bytes.len());
        let remote = vector(addr, bytes.len());
        // SAFETY: `local` is only read. `remote` is a range the client named as
        // its result buffer, which it keeps alive and untouched until the
        // completion; the kernel fails the call if any byte is not writable.
        let copied = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        whole(copied, bytes.len())
    }

    fn resume(&mut self, thread: ThreadRef, rax: u64) {
        self.resumed.push((thread, rax));
    }
}

fn vector(addr: u64, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: len,
    }
}

fn whole(copied: isize, wanted: usize) -> Result<(), AccessFault> {
    if copied == wanted as isize {
        Ok(())
    } else {
        Err(AccessFault)
    }
}
