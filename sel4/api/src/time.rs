//! Time: what lets a thread run, and for how long.
//!
//! Without MCS the kernel gives every thread of a priority the same slice in
//! turn, and there is nothing to say. With MCS a thread runs on a scheduling
//! context: an object with a budget of time in every period, configured with
//! the authority over one core's time. Everything here exists on every kernel;
//! where there is no such object, [`ObjectBlueprint::thread_time`] says so and
//! the invocations refuse.

use crate::{BootInfo, Cap, Error, ObjectBlueprint, Result, Word, cap};

#[cfg(sel4_config = "KERNEL_MCS")]
use crate::ipc_buffer::buffer;

/// Whether threads need a scheduling context to run, and can be limited by it.
pub const HAS_SCHED_CONTEXTS: bool = cfg!(sel4_config = "KERNEL_MCS");

/// How much time a thread may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So much of every period, in microseconds.
    pub budget_us: u64,
    /// The period, in microseconds. Where it equals the budget the thread is
    /// not limited: it then takes turns with those of its priority, this long
    /// each.
    pub period_us: u64,
}

impl Budget {
    /// No limit; turns of `slice_us` microseconds.
    #[must_use]
    pub const fn unlimited(slice_us: u64) -> Self {
        Self {
            budget_us: slice_us,
            period_us: slice_us,
        }
    }

    /// Whether the thread may have less than all time.
    #[must_use]
    pub const fn is_limited(self) -> bool {
        self.budget_us < self.period_us
    }
}

impl ObjectBlueprint {
    /// The object from which a thread has its time; `None` where the kernel
    /// gives time itself.
    #[must_use]
    pub const fn thread_time() -> Option<Self> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        return Some(Self::SchedContext {
            size_bits: sel4_raw::seL4_MinSchedContextBits as usize,
        });
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        None
    }

    /// The object that remembers whom to answer; `None` where the kernel
    /// remembers it in the thread.
    #[must_use]
    pub const fn reply() -> Option<Self> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        return Some(Self::Reply);
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        None
    }
}

impl BootInfo {
    /// Authority over the time of core `node`; `None` where there is no such
    /// core, or no such authority.
    #[must_use]
    pub fn sched_control_of(&self, node: usize) -> Option<cap::SchedControl> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        let slot = self.sched_control().nth(node);
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        let slot = Option::<usize>::None.filter(|_| node == 0);
        slot.map(|slot| Cap::from_bits(slot as Word))
    }
}

impl cap::SchedControl {
    /// `seL4_SchedControl_ConfigureFlags`: gives a scheduling context its
    /// budget, on this authority's core. `badge` comes back in timeout faults.
    ///
    /// # Errors
    /// [`Error::RangeError`] where the budget is less than the kernel's own
    /// worst case, or exceeds the period; [`Error::IllegalOperation`] on
    /// kernels without.
    pub fn sched_control_configure(
        self,
        context: cap::SchedContext,
        budget: Budget,
        badge: Word,
    ) -> Result<()> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        {
            /// The object of least size has room for no more than two refills.
            const EXTRA_REFILLS: Word = 0;
            const FLAGS: Word = 0;
            // SAFETY: B1.
            let configured = unsafe {
                sel4_raw::seL4_SchedControl_ConfigureFlags(
                    buffer(),
                    self.bits(),
                    context.bits(),
                    budget.budget_us,
                    budget.period_us,
                    EXTRA_REFILLS,
                    badge,
                    FLAGS,
                )
            };
            configured.map_err(Error::from_raw)
        }
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        {
            let _ = (context, budget, badge);
            Err(Error::IllegalOperation)
        }
    }
}

impl cap::SchedContext {
    /// `seL4_SchedContext_Bind`: the thread runs on this context from now on.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where either is bound already, or on
    /// kernels without.
    pub fn sched_context_bind(self, thread: cap::Tcb) -> Result<()> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        {
            // SAFETY: B1.
            unsafe { sel4_raw::seL4_SchedContext_Bind(buffer(), self.bits(), thread.bits()) }
                .map_err(Error::from_raw)
        }
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        {
            let _ = thread;
            Err(Error::IllegalOperation)
        }
    }

    /// `seL4_SchedContext_Unbind`: the thread that runs on it stops, for want
    /// of time.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] on kernels without.
    pub fn sched_context_unbind(self) -> Result<()> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        {
            // SAFETY: B1.
            unsafe { sel4_raw::seL4_SchedContext_Unbind(buffer(), self.bits()) }
                .map_err(Error::from_raw)
        }
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        Err(Error::IllegalOperation)
    }

    /// `seL4_SchedContext_Consumed`: microseconds that were used since this
    /// was last asked.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] on kernels without.
    pub fn sched_context_consumed(self) -> Result<u64> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        {
            // SAFETY: B1.
            unsafe { sel4_raw::seL4_SchedContext_Consumed(buffer(), self.bits()) }
                .map_err(Error::from_raw)
        }
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        Err(Error::IllegalOperation)
    }
}

impl cap::Tcb {
    /// `seL4_TCB_SetTimeoutEndpoint`: where a fault is sent when the thread's
    /// budget is used up; without one it waits for the next period silently.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] where it is no endpoint with the rights a
    /// fault handler needs; [`Error::IllegalOperation`] on kernels without.
    pub fn tcb_set_timeout_endpoint(self, endpoint: cap::Endpoint) -> Result<()> {
        #[cfg(sel4_config = "KERNEL_MCS")]
        {
            // SAFETY: B1.
            unsafe { sel4_raw::seL4_TCB_SetTimeoutEndpoint(buffer(), self.bits(), endpoint.bits()) }
                .map_err(Error::from_raw)
        }
        #[cfg(not(sel4_config = "KERNEL_MCS"))]
        {
            let _ = endpoint;
            Err(Error::IllegalOperation)
        }
    }
}
