//! One life of a protection domain: address space, CSpace, thread.
//!
//! The CSpace is one CNode in Microkit's layout (`capos_domains::slot`), behind
//! a guard of zeroes, so that a slot's number is its CPtr. The page below the
//! stack and the one above it, before the IPC buffer, stay unmapped.

use core::fmt;

use alloc::vec::Vec;

use cap_broker::{
    Broker, BrokerError, FrameId, Hold, ObjectKind, OwnedObject, Rights, SpaceId, cap_of,
};
use capos_domains::{Domain, IPC_BUFFER, PAGE_BYTES, STACK_TOP, slot};
use capos_loader::LoadPlan;
use sel4::{
    AbsoluteCPtr, Budget, CNodeCapData, CPtr, CapRights, CapRightsBuilder, CapType,
    ObjectBlueprint, UserContext, cap, cap_type, init_thread,
};

use crate::client::{BuildError, new_page, rights};
use crate::means::Means;

/// What one needs to call an endpoint or to fault at it, and no more.
pub const CALLER: CapRights = CapRightsBuilder::none()
    .write(true)
    .grant_reply(true)
    .build();

/// Why a domain could not be made; nothing of it is left.
#[derive(Debug)]
pub enum MakeError {
    /// Memory, slots or window.
    Broker(BrokerError),
    /// The kernel refused something.
    Kernel(sel4::Error),
    /// The program cannot be loaded.
    Program(capos_loader::LoadError),
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => write!(f, "{error}"),
            Self::Kernel(error) => write!(f, "seL4: {error:?}"),
            Self::Program(error) => write!(f, "program: {error}"),
        }
    }
}

impl From<BrokerError> for MakeError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<sel4::Error> for MakeError {
    fn from(error: sel4::Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<BuildError> for MakeError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Broker(error) => Self::Broker(error),
            BuildError::Kernel(error) => Self::Kernel(error),
            // Nothing of a domain is prepared beforehand.
            BuildError::NotPrepared => Self::Kernel(sel4::Error::InvalidArgument),
        }
    }
}

/// A domain that has everything but the start.
pub struct Life {
    space: SpaceId,
    cspace: Option<OwnedObject>,
    tcb: Option<OwnedObject>,
    /// What it has its time from, where that is an object.
    time: Option<OwnedObject>,
    /// What remembers its callers, where that is an object.
    reply: Option<OwnedObject>,
}

/// What a domain is made of.
pub struct Parts<'a> {
    /// What the description says.
    pub domain: &'a Domain,
    /// Its program.
    pub program: &'a [u8],
    /// The frames of each region.
    pub regions: &'a [Vec<FrameId>],
    /// Its notification.
    pub notification: cap::Notification,
    /// Where its faults go, and the badge they arrive with.
    pub faults: (cap::Endpoint, u64),
    /// What threads are made with.
    pub means: &'a Means,
}

impl Life {
    /// Fills an address space and makes a thread that does not run yet; its
    /// CSpace is empty.
    ///
    /// # Errors
    /// [`MakeError`]
    pub fn make(broker: &mut Broker, parts: &Parts<'_>) -> Result<Self, MakeError> {
        let mut life = Self {
            space: broker.create_space()?,
            cspace: None,
            tcb: None,
            time: None,
            reply: None,
        };
        match life.furnish(broker, parts) {
            Ok(()) => Ok(life),
            Err(error) => {
                life.end(broker)?;
                Err(error)
            }
        }
    }

    fn furnish(&mut self, broker: &mut Broker, parts: &Parts<'_>) -> Result<(), MakeError> {
        let plan = LoadPlan::parse(parts.program).map_err(MakeError::Program)?;
        self.load(broker, &plan, parts.program)?;
        self.map_regions(broker, parts)?;
        let pages = u64::from(parts.domain.stack_pages);
        for page in 1..=pages {
            let address = STACK_TOP - page * PAGE_BYTES;
            new_page(broker, self.space, address, Rights::ReadWrite)?;
        }
        let buffer = broker.back_page(self.space, IPC_BUFFER, Rights::ReadWrite)?;
        let buffer = broker.frame_cap(buffer)?;
        let cnode = broker.sizes().cnode(slot::BITS);
        let cspace = self.cspace.insert(broker.create_object(cnode)?);
        let cspace = cap::CNode::from_bits(cspace.slot().0.into());
        let tcb = broker.sizes().object(ObjectKind::Tcb);
        let tcb = self.tcb.insert(broker.create_object(tcb)?);
        let tcb = cap::Tcb::from_bits(tcb.slot().0.into());
        let (guard, vspace) = (
            CNodeCapData::skip_high_bits(slot::BITS.into()),
            broker.vspace(self.space)?,
        );
        let (endpoint, badge) = parts.faults;
        let place = CPtr::from_bits(slot::FAULT);
        parts
            .means
            .with_handler_at(endpoint, place, badge, |handler| {
                tcb.tcb_set_space(handler, cspace, guard, vspace)
            })?;
        tcb.tcb_set_ipc_buffer(IPC_BUFFER, buffer)?;
        tcb.tcb_set_priority(init_thread::slot::TCB.cap(), parts.domain.priority)?;
        tcb.tcb_bind_notification(parts.notification)?;
        self.give_time(broker, parts, tcb)?;
        if ObjectBlueprint::reply().is_some() {
            let reply = broker.sizes().object(ObjectKind::Reply);
            self.reply = Some(broker.create_object(reply)?);
        }
        let mut context = UserContext::default();
        context.rip = plan.entry();
        context.rsp = STACK_TOP;
        tcb.tcb_write_all_registers(false, &context)?;
        Ok(())
    }

    /// On kernels where time is an object.
    fn give_time(
        &mut self,
        broker: &mut Broker,
        parts: &Parts<'_>,
        tcb: cap::Tcb,
    ) -> Result<(), MakeError> {
        /// Domains run where the root task does.
        const CORE: u64 = 0;
        let limit = parts.domain.time.map(|(budget_us, period_us)| Budget {
            budget_us,
            period_us,
        });
        self.time = parts.means.make_time(broker, CORE, limit, 0)?;
        match &self.time {
            Some(time) => Ok(cap_of::<cap_type::SchedContext>(time).sched_context_bind(tcb)?),
            None => Ok(()),
        }
    }

    /// Backs every page of the program: a domain is not paged.
    fn load(&self, broker: &mut Broker, plan: &LoadPlan, file: &[u8]) -> Result<(), BrokerError> {
        for segment in plan.segments() {
            for address in (segment.start..segment.end).step_by(PAGE_BYTES as usize) {
                let page = new_page(broker, self.space, address, rights(segment.protection))?;
                let content = segment.page_content(address);
                let bytes = content.and_then(|c| Some((c.offset_in_page, c.bytes.of(file)?)));
                if let Some((offset, bytes)) = bytes {
                    page.copy_in(offset as usize, bytes);
                }
            }
        }
        Ok(())
    }

    fn map_regions(&self, broker: &mut Broker, parts: &Parts<'_>) -> Result<(), BrokerError> {
        for map in &parts.domain.maps {
            let rights = match map.writable {
                true => Rights::ReadWrite,
                false => Rights::Read,
            };
            let mut address = map.vaddr;
            for &frame in &parts.regions[usize::from(map.region)] {
                broker.map_frame(self.space, address, frame, rights, Hold::Shared)?;
                address += PAGE_BYTES;
            }
        }
        Ok(())
    }

    /// Puts a capability into the CSpace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn grant<T: CapType>(
        &self,
        slot: u64,
        source: sel4::Cap<T>,
        rights: CapRights,
        badge: u64,
    ) -> sel4::Result<()> {
        let Some(place) = self.slot(slot) else {
            return Ok(());
        };
        let source = init_thread::slot::CNODE.cap().absolute_cptr(source.cptr());
        match badge {
            0 => place.copy(&source, rights),
            badge => place.mint(&source, rights, badge),
        }
    }

    /// A slot of its CSpace.
    pub fn slot(&self, slot: u64) -> Option<AbsoluteCPtr> {
        let cspace: cap::CNode = self.cspace.as_ref().map(cap_of)?;
        Some(cspace.absolute_cptr_from_bits_with_depth(slot, slot::BITS.into()))
    }

    /// Its address space.
    pub const fn space(&self) -> SpaceId {
        self.space
    }

    /// What remembers its callers, on kernels where that is an object.
    pub fn reply(&self) -> Option<cap::Reply> {
        self.reply.as_ref().map(cap_of)
    }

    /// Its thread.
    pub fn tcb(&self) -> Option<cap::Tcb> {
        let tcb = self.tcb.as_ref()?;
        Some(cap::Tcb::from_bits(tcb.slot().0.into()))
    }

    /// Takes it apart and gives everything back.
    ///
    /// # Errors
    /// The broker's first; the rest is gone all the same.
    pub fn end(mut self, broker: &mut Broker) -> Result<(), BrokerError> {
        let own = [
            &mut self.tcb,
            &mut self.time,
            &mut self.reply,
            &mut self.cspace,
        ];
        let objects = own.into_iter().filter_map(Option::take);
        let mut outcome = Ok(());
        for object in objects {
            outcome = outcome.and(broker.destroy_object(object));
        }
        outcome.and(broker.destroy_space(self.space))
    }
}
