//! What threads of programs are made with besides memory: where their faults
//! go, and time.
//!
//! Kernels differ in both. Where a thread finds its fault handler in its own
//! CSpace, a badged copy of the endpoint is put there; where the handler is
//! part of the thread, the CSpace stays empty and the copy only passes through
//! a slot of ours. Where threads run on scheduling contexts, each gets one.

use alloc::vec::Vec;

use cap_broker::{Broker, BrokerError, ObjectKind, OwnedObject, cap_of, slot_cap};
use sel4::{
    Badge, BootInfo, Budget, CPtr, CapRights, CapRightsBuilder, FAULT_HANDLER_IN_TCB,
    HAS_SCHED_CONTEXTS, cap, init_thread,
};

use crate::client::BuildError;

/// What the kernel asks of an endpoint it sends faults to, and no more: with
/// the right to receive, a program could take the faults of others, and answer
/// them.
const FAULT_RIGHTS: CapRights = CapRightsBuilder::none()
    .write(true)
    .grant_reply(true)
    .build();

/// How long a thread without a limit runs before its equals do: as long as on
/// kernels that have slices (docs/scheduling.md).
const SLICE_US: u64 = 10_000;

/// Slots and authority that making a thread takes.
pub struct Means {
    /// Where faults of every thread arrive.
    endpoint: cap::Endpoint,
    /// A slot of ours, empty between uses.
    passage: cap::Endpoint,
    /// Authority over the time of each core; none where time is no object.
    cores_time: Vec<cap::SchedControl>,
}

impl Means {
    /// Faults go to `endpoint`.
    ///
    /// # Errors
    /// The broker's, where there is no slot left.
    pub fn new(
        broker: &mut Broker,
        bootinfo: &BootInfo,
        endpoint: cap::Endpoint,
    ) -> Result<Self, BrokerError> {
        let cores = 0..bootinfo.num_nodes() as usize;
        Ok(Self {
            endpoint,
            passage: slot_cap(broker.allocate_slot()?),
            cores_time: cores
                .filter_map(|core| bootinfo.sched_control_of(core))
                .collect(),
        })
    }

    /// The same means for threads whose faults go elsewhere.
    pub fn for_endpoint(&self, endpoint: cap::Endpoint) -> Self {
        Self {
            endpoint,
            passage: self.passage,
            cores_time: self.cores_time.clone(),
        }
    }

    /// Where faults arrive.
    pub const fn endpoint(&self) -> cap::Endpoint {
        self.endpoint
    }

    /// Puts the fault endpoint with `badge` into slot `index` of a thread's
    /// CSpace, where the kernel looks for it there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn furnish_cspace(
        &self,
        cspace: cap::CNode,
        (index, radix): (u64, u8),
        badge: Badge,
    ) -> sel4::Result<()> {
        if FAULT_HANDLER_IN_TCB {
            return Ok(());
        }
        let own = init_thread::slot::CNODE.cap();
        cspace
            .absolute_cptr_from_bits_with_depth(index, radix.into())
            .mint(
                &own.absolute_cptr(self.endpoint.cptr()),
                FAULT_RIGHTS,
                badge,
            )
    }

    /// Calls `configure` with the name of this program's fault endpoint with
    /// `badge`; see [`with_handler_at`](Self::with_handler_at).
    ///
    /// # Errors
    /// The kernel's.
    pub fn with_handler(
        &self,
        place: CPtr,
        badge: Badge,
        configure: impl FnOnce(CPtr) -> sel4::Result<()>,
    ) -> sel4::Result<()> {
        self.with_handler_at(self.endpoint, place, badge, configure)
    }

    /// Calls `configure` with the name of a fault endpoint with `badge`:
    /// `place` of the thread's CSpace, or a slot of ours that holds it
    /// meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn with_handler_at(
        &self,
        endpoint: cap::Endpoint,
        place: CPtr,
        badge: Badge,
        configure: impl FnOnce(CPtr) -> sel4::Result<()>,
    ) -> sel4::Result<()> {
        if !FAULT_HANDLER_IN_TCB {
            return configure(place);
        }
        let own = init_thread::slot::CNODE.cap();
        let passage = own.absolute_cptr(self.passage.cptr());
        let endpoint = own.absolute_cptr(endpoint.cptr());
        passage.mint(&endpoint, FAULT_RIGHTS, badge)?;
        let configured = configure(self.passage.cptr());
        configured.and(passage.delete())
    }

    /// Makes the object from which a thread on `core` has its time; `None`
    /// where the kernel gives slices.
    ///
    /// # Errors
    /// The broker's or the kernel's; nothing is left behind.
    pub fn make_time(
        &self,
        broker: &mut Broker,
        core: u64,
        limit: Option<Budget>,
        badge: Badge,
    ) -> Result<Option<OwnedObject>, BuildError> {
        if !HAS_SCHED_CONTEXTS {
            return Ok(None);
        }
        let context = broker.create_object(broker.sizes().object(ObjectKind::SchedContext))?;
        match self.set_time(&context, core, limit, badge) {
            Ok(()) => Ok(Some(context)),
            Err(error) => {
                broker.destroy_object(context)?;
                Err(error.into())
            }
        }
    }

    /// Gives a scheduling context another budget.
    ///
    /// # Errors
    /// The kernel's, where the budget is below its least or above the period.
    pub fn set_time(
        &self,
        context: &OwnedObject,
        core: u64,
        limit: Option<Budget>,
        badge: Badge,
    ) -> sel4::Result<()> {
        let control = self.cores_time.get(core as usize).copied();
        let control = control.ok_or(sel4::Error::RangeError)?;
        let budget = limit.unwrap_or(Budget::unlimited(SLICE_US));
        control.sched_control_configure(cap_of(context), budget, badge)
    }
}
