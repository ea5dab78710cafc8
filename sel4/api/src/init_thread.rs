//! The slots in which the initial thread finds what the kernel gives it.

use core::marker::PhantomData;

use crate::{CPtr, Cap, CapType};

/// A slot that is known to hold a `T`.
#[derive(Clone, Copy, Debug)]
pub struct Slot<T> {
    index: usize,
    kind: PhantomData<T>,
}

impl<T: CapType> Slot<T> {
    /// Names the slot with that index.
    #[must_use]
    pub const fn from_index(index: usize) -> Self {
        Self {
            index,
            kind: PhantomData,
        }
    }

    /// Its index in the initial CNode.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Its address: the initial CNode makes indices addresses.
    #[must_use]
    pub const fn cptr(&self) -> CPtr {
        CPtr::from_bits(self.index as u64)
    }

    /// The capability in it.
    #[must_use]
    pub const fn cap(&self) -> Cap<T> {
        Cap::from_cptr(self.cptr())
    }
}

/// The kernel's fixed slots (`seL4_RootCNodeCapSlots`).
pub mod slot {
    use super::Slot;
    use crate::cap_type;

    macro_rules! slots {
        ($($(#[$attribute:meta])* $name:ident: $kind:ident = $raw:ident;)*) => {
            $(
                $(#[$attribute])*
                #[doc = concat!("(`", stringify!($raw), "`)")]
                pub const $name: Slot<cap_type::$kind> =
                    Slot::from_index(sel4_raw::$raw as usize);
            )*
        };
    }

    slots! {
        /// The empty slot.
        NULL: Null = seL4_CapNull;
        /// The initial thread.
        TCB: Tcb = seL4_CapInitThreadTCB;
        /// Its CSpace.
        CNODE: CNode = seL4_CapInitThreadCNode;
        /// Its address space.
        VSPACE: Pml4 = seL4_CapInitThreadVSpace;
        /// Authority over interrupts.
        IRQ_CONTROL: IrqControl = seL4_CapIRQControl;
        /// Authority over address-space identifiers.
        ASID_CONTROL: AsidControl = seL4_CapASIDControl;
        /// The pool its own identifier is from.
        ASID_POOL: AsidPool = seL4_CapInitThreadASIDPool;
        /// All I/O ports, on kernels up to 5.
        #[cfg(sel4_has = "seL4_CapIOPort")]
        IO_PORT: IoPort = seL4_CapIOPort;
        /// Authority to issue I/O ports, on later kernels.
        #[cfg(sel4_has = "seL4_CapIOPortControl")]
        IO_PORT_CONTROL: IoPortControl = seL4_CapIOPortControl;
        /// Device memory, where there is an IOMMU.
        IO_SPACE: IoSpace = seL4_CapIOSpace;
        /// The frame that holds the bootinfo.
        BOOT_INFO_FRAME: Granule = seL4_CapBootInfoFrame;
        /// The frame that holds its IPC buffer.
        IPC_BUFFER: Granule = seL4_CapInitThreadIPCBuffer;
        /// Authority over domains.
        DOMAIN: DomainSet = seL4_CapDomain;
    }
}

/// Stops the initial thread for good.
pub fn suspend_self() -> ! {
    loop {
        // Without the capability this spins, which ends nothing either.
        let _ = slot::TCB.cap().tcb_suspend();
    }
}
