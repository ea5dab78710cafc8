//! Slots and memory for the checks: handed out once, never taken back.

use core::ops::Range;

use sel4::init_thread::slot;
use sel4::{
    AbsoluteCPtr, BootInfo, Budget, CPtr, Cap, CapType, IoPortAuthority, ObjectBlueprint, Result,
    cap,
};

/// What the checks create objects from.
pub struct Resources {
    slots: Range<usize>,
    untyped: cap::Untyped,
    time: Option<cap::SchedControl>,
}

impl Resources {
    /// Takes the empty slots and the largest untyped.
    pub fn new(bootinfo: &BootInfo) -> Self {
        let (untyped, _) = bootinfo
            .untypeds()
            .filter(|(_, desc)| !desc.is_device())
            .max_by_key(|(_, desc)| desc.size_bits())
            .expect("the kernel hands out memory");
        Self {
            slots: bootinfo.empty(),
            untyped,
            time: bootinfo.sched_control_of(0),
        }
    }

    /// Makes the object by which this program answers, on kernels that want
    /// one.
    pub fn open_reply(&mut self) -> Result<()> {
        if let Some(blueprint) = ObjectBlueprint::reply() {
            sel4::set_reply_object(self.object(blueprint)?);
        }
        Ok(())
    }

    /// Gives a thread so much time, on kernels where it needs any.
    pub fn give_time(&mut self, thread: cap::Tcb, budget: Budget) -> Result<()> {
        let (Some(blueprint), Some(control)) = (ObjectBlueprint::thread_time(), self.time) else {
            return Ok(());
        };
        let context: cap::SchedContext = self.object(blueprint)?;
        control.sched_control_configure(context, budget, 0)?;
        context.sched_context_bind(thread)
    }

    /// An empty slot.
    pub fn slot(&mut self) -> AbsoluteCPtr {
        let index = self.slots.next().expect("the initial CNode has room");
        absolute(CPtr::from_bits(index as u64))
    }

    /// Ports `first` to `last`, which nobody else has.
    pub fn ports(&mut self, first: u16, last: u16) -> Result<cap::IoPort> {
        let slot = self.slot();
        IoPortAuthority::of_init_thread().issue(first, last, &slot)?;
        Ok(Cap::from_bits(slot.path().bits()))
    }

    /// A new object.
    pub fn object<T: CapType>(&mut self, blueprint: ObjectBlueprint) -> Result<Cap<T>> {
        let untyped = self.untyped;
        self.object_from(untyped, blueprint)
    }

    /// A new object from a particular untyped.
    pub fn object_from<T: CapType>(
        &mut self,
        untyped: cap::Untyped,
        blueprint: ObjectBlueprint,
    ) -> Result<Cap<T>> {
        let slot = self.slot();
        let index = slot.path().bits();
        untyped.untyped_retype(
            &blueprint,
            &slot::CNODE.cap().absolute_cptr_for_self(),
            index as usize,
            1,
        )?;
        Ok(Cap::from_bits(index))
    }
}

/// A slot of the initial CNode as an object of CNode operations.
pub fn absolute(cptr: CPtr) -> AbsoluteCPtr {
    slot::CNODE.cap().absolute_cptr(cptr)
}
