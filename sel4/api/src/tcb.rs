//! Threads.

use core::ops::{Deref, DerefMut};

use crate::ipc_buffer::buffer;
use crate::{CNodeCapData, CPtr, Error, Result, Word, cap};

/// Whether a thread's fault handler is a capability in its TCB, given by who
/// configures it; otherwise it is found in the thread's own CSpace at each
/// fault.
pub const FAULT_HANDLER_IN_TCB: bool = cfg!(sel4_config = "KERNEL_MCS");

/// `seL4_UserContext`: a thread's registers. The fields have the registers'
/// names (`rip`, `rsp`, `rflags`, `rax`, ...), and their order is the order in
/// which [`tcb_write_registers`](cap::Tcb::tcb_write_registers) counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserContext(sel4_raw::seL4_UserContext);

impl UserContext {
    /// How many registers there are.
    pub const COUNT: usize = sel4_raw::seL4_UserContext::WORDS;

    /// Base of the FS segment: thread-local storage.
    #[cfg(sel4_has = "seL4_UserContext.fs_base")]
    #[must_use]
    pub const fn fs_base(&self) -> Word {
        self.0.fs_base
    }

    /// Base of the FS segment: thread-local storage.
    #[cfg(not(sel4_has = "seL4_UserContext.fs_base"))]
    #[must_use]
    pub const fn fs_base(&self) -> Word {
        self.0.tls_base
    }

    /// Sets the base of the FS segment.
    #[cfg(sel4_has = "seL4_UserContext.fs_base")]
    pub const fn set_fs_base(&mut self, base: Word) {
        self.0.fs_base = base;
    }

    /// Sets the base of the FS segment.
    #[cfg(not(sel4_has = "seL4_UserContext.fs_base"))]
    pub const fn set_fs_base(&mut self, base: Word) {
        self.0.tls_base = base;
    }

    /// All registers in the kernel's order.
    #[must_use]
    pub const fn to_words(&self) -> [Word; Self::COUNT] {
        self.0.to_words()
    }
}

impl Deref for UserContext {
    type Target = sel4_raw::seL4_UserContext;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for UserContext {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl cap::Tcb {
    /// `seL4_TCB_ReadRegisters`: reads the first `count` registers, the others
    /// are zero; with `suspend`, stops the thread first.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] for the calling thread itself,
    /// [`Error::RangeError`] where `count` is zero or exceeds
    /// [`UserContext::COUNT`].
    #[inline]
    pub fn tcb_read_registers(self, suspend: bool, count: usize) -> Result<UserContext> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_TCB_ReadRegisters(buffer(), self.bits(), suspend, 0, count as Word)
        }
        .map(UserContext)
        .map_err(Error::from_raw)
    }

    /// [`tcb_read_registers`](Self::tcb_read_registers) of all registers.
    ///
    /// # Errors
    /// As there.
    pub fn tcb_read_all_registers(self, suspend: bool) -> Result<UserContext> {
        self.tcb_read_registers(suspend, UserContext::COUNT)
    }

    /// `seL4_TCB_WriteRegisters`: sets the first `count` registers; with
    /// `resume`, the thread then runs, whether it was new, suspended or
    /// waiting for its fault to be answered.
    ///
    /// Only `count` registers are sent, which is cheaper than in libsel4.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] for the calling thread itself,
    /// [`Error::TruncatedMessage`] where `count` exceeds
    /// [`UserContext::COUNT`].
    #[inline]
    pub fn tcb_write_registers(
        self,
        resume: bool,
        count: usize,
        registers: &UserContext,
    ) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_TCB_WriteRegisters(
                buffer(),
                self.bits(),
                resume,
                0,
                count as Word,
                &registers.0,
            )
        }
        .map_err(Error::from_raw)
    }

    /// [`tcb_write_registers`](Self::tcb_write_registers) of all registers.
    ///
    /// # Errors
    /// As there.
    pub fn tcb_write_all_registers(self, resume: bool, registers: &UserContext) -> Result<()> {
        self.tcb_write_registers(resume, UserContext::COUNT, registers)
    }

    /// `seL4_TCB_Configure` without the priority: fault handler, CSpace with
    /// guard, VSpace, and IPC buffer (address zero and a null capability for
    /// none).
    ///
    /// `fault_ep` is a slot in the *configured thread's* CSpace, or, with
    /// [`FAULT_HANDLER_IN_TCB`], one of the caller's. Kernels up to 5 set priorities
    /// in the same call; there this makes two others instead, so that a
    /// failure of the second leaves the spaces set.
    ///
    /// # Errors
    /// - [`Error::IllegalOperation`]: a root is not what it should be, or
    ///   null.
    /// - [`Error::InvalidCapability`]: the VSpace has no ASID, or the buffer
    ///   is no frame.
    /// - [`Error::AlignmentError`]: the IPC buffer's address.
    pub fn tcb_configure(
        self,
        fault_ep: CPtr,
        cspace_root: cap::CNode,
        cspace_root_data: CNodeCapData,
        vspace_root: cap::VSpace,
        ipc_buffer: Word,
        ipc_buffer_frame: cap::Granule,
    ) -> Result<()> {
        self.tcb_set_space(fault_ep, cspace_root, cspace_root_data, vspace_root)?;
        self.tcb_set_ipc_buffer(ipc_buffer, ipc_buffer_frame)
    }

    /// `seL4_TCB_SetSpace`: fault handler, CSpace with guard, VSpace.
    ///
    /// # Errors
    /// As for [`tcb_configure`](Self::tcb_configure).
    pub fn tcb_set_space(
        self,
        fault_ep: CPtr,
        cspace_root: cap::CNode,
        cspace_root_data: CNodeCapData,
        vspace_root: cap::VSpace,
    ) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_TCB_SetSpace(
                buffer(),
                self.bits(),
                fault_ep.bits(),
                cspace_root.bits(),
                cspace_root_data.into_word(),
                vspace_root.bits(),
                0,
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_TCB_SetIPCBuffer`: where the thread's IPC buffer is in its
    /// address space, and in which frame.
    ///
    /// # Errors
    /// [`Error::AlignmentError`] for the address,
    /// [`Error::IllegalOperation`] where the frame is none or is device
    /// memory.
    pub fn tcb_set_ipc_buffer(self, address: Word, frame: cap::Granule) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_TCB_SetIPCBuffer(buffer(), self.bits(), address, frame.bits()) }
            .map_err(Error::from_raw)
    }

    /// `seL4_TCB_SetPriority`. `authority` is a thread whose maximum bounds
    /// the priority; kernels up to 5 take the caller instead.
    ///
    /// # Errors
    /// [`Error::RangeError`] (up to 5: [`Error::IllegalOperation`]) where the
    /// priority exceeds that maximum.
    pub fn tcb_set_priority(self, authority: cap::Tcb, priority: u8) -> Result<()> {
        // SAFETY: B1.
        #[cfg(sel4_has = "TCBSetPriority.authority")]
        let result = unsafe {
            sel4_raw::seL4_TCB_SetPriority(buffer(), self.bits(), authority.bits(), priority.into())
        };
        #[cfg(not(sel4_has = "TCBSetPriority.authority"))]
        let _ = authority;
        // SAFETY: B1.
        #[cfg(not(sel4_has = "TCBSetPriority.authority"))]
        let result =
            unsafe { sel4_raw::seL4_TCB_SetPriority(buffer(), self.bits(), priority.into()) };
        result.map_err(Error::from_raw)
    }

    /// `seL4_TCB_SetMCPriority`: the highest priority the thread may give.
    ///
    /// # Errors
    /// As for [`tcb_set_priority`](Self::tcb_set_priority).
    pub fn tcb_set_mc_priority(self, authority: cap::Tcb, mcp: u8) -> Result<()> {
        // SAFETY: B1.
        #[cfg(sel4_has = "TCBSetPriority.authority")]
        let result = unsafe {
            sel4_raw::seL4_TCB_SetMCPriority(buffer(), self.bits(), authority.bits(), mcp.into())
        };
        #[cfg(not(sel4_has = "TCBSetPriority.authority"))]
        let _ = authority;
        // SAFETY: B1.
        #[cfg(not(sel4_has = "TCBSetPriority.authority"))]
        let result = unsafe { sel4_raw::seL4_TCB_SetMCPriority(buffer(), self.bits(), mcp.into()) };
        result.map_err(Error::from_raw)
    }

    /// `seL4_TCB_SetSchedParams` as far as all kernels agree on it: maximum and
    /// priority, by the two calls it replaced. With MCS a thread needs time as
    /// well ([`sched_context_bind`](cap::SchedContext::sched_context_bind)).
    ///
    /// # Errors
    /// As for [`tcb_set_priority`](Self::tcb_set_priority).
    pub fn tcb_set_sched_params(self, authority: cap::Tcb, mcp: u8, priority: u8) -> Result<()> {
        self.tcb_set_mc_priority(authority, mcp)?;
        self.tcb_set_priority(authority, priority)
    }

    /// `seL4_TCB_SetAffinity`: moves the thread to another core, on kernels
    /// with several and without MCS. Other kernels are not asked; they have
    /// core 0 alone. With MCS a thread's scheduling context names its core.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where there is no such core.
    pub fn tcb_set_affinity(self, node: Word) -> Result<()> {
        // SAFETY: B1.
        #[cfg(sel4_has = "TCBSetAffinity")]
        return unsafe { sel4_raw::seL4_TCB_SetAffinity(buffer(), self.bits(), node) }
            .map_err(Error::from_raw);
        #[cfg(not(sel4_has = "TCBSetAffinity"))]
        match node {
            0 => Ok(()),
            _ => Err(Error::IllegalOperation),
        }
    }

    /// `seL4_TCB_Resume`: lets the thread run. A thread that waits for its
    /// fault to be answered runs from where it faulted.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where this is no thread.
    #[inline]
    pub fn tcb_resume(self) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_TCB_Resume(buffer(), self.bits()) }.map_err(Error::from_raw)
    }

    /// `seL4_TCB_Suspend`: stops the thread and cancels what it waits for.
    ///
    /// A fault message not received yet stays behind and is delivered by the
    /// thread's next message (measured on 5.0.0 and 16): receive it first.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where this is no thread.
    pub fn tcb_suspend(self) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_TCB_Suspend(buffer(), self.bits()) }.map_err(Error::from_raw)
    }

    /// `seL4_TCB_BindNotification`: signals reach the thread also while it
    /// receives on an endpoint.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where either is bound already or the right
    /// to receive is missing.
    pub fn tcb_bind_notification(self, notification: cap::Notification) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_TCB_BindNotification(buffer(), self.bits(), notification.bits()) }
            .map_err(Error::from_raw)
    }

    /// `seL4_TCB_UnbindNotification`.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where none is bound.
    pub fn tcb_unbind_notification(self) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_TCB_UnbindNotification(buffer(), self.bits()) }
            .map_err(Error::from_raw)
    }
}
