//! I/O ports.

use crate::ipc_buffer::buffer;
use crate::{AbsoluteCPtr, Error, Result, cap, init_thread};

/// Gives a width of access its two invocations.
macro_rules! access {
    ($width:literal, $ty:ty, $read:ident, $raw_read:ident, $write:ident, $raw_write:ident) => {
        #[doc = concat!("`", stringify!($raw_read), "`: reads ", $width, " bits.")]
        ///
        /// # Errors
        /// [`Error::IllegalOperation`] where the capability does not cover the
        /// port.
        #[inline]
        pub fn $read(self, port: u16) -> Result<$ty> {
            // SAFETY: B1. The kernel returns no more bits than were read.
            unsafe { sel4_raw::$raw_read(buffer(), self.bits(), port.into()) }
                .map(|value| value as $ty)
                .map_err(Error::from_raw)
        }

        #[doc = concat!("`", stringify!($raw_write), "`: writes ", $width, " bits.")]
        ///
        /// # Errors
        /// [`Error::IllegalOperation`] where the capability does not cover the
        /// port.
        #[inline]
        pub fn $write(self, port: u16, value: $ty) -> Result<()> {
            // SAFETY: B1.
            unsafe { sel4_raw::$raw_write(buffer(), self.bits(), port.into(), value.into()) }
                .map_err(Error::from_raw)
        }
    };
}

impl cap::IoPort {
    access!(
        "8",
        u8,
        ioport_in8,
        seL4_X86_IOPort_In8,
        ioport_out8,
        seL4_X86_IOPort_Out8
    );
    access!(
        "16",
        u16,
        ioport_in16,
        seL4_X86_IOPort_In16,
        ioport_out16,
        seL4_X86_IOPort_Out16
    );
    access!(
        "32",
        u32,
        ioport_in32,
        seL4_X86_IOPort_In32,
        ioport_out32,
        seL4_X86_IOPort_Out32
    );
}

/// The initial authority over all I/O ports, which is of different kinds on
/// different kernels and is used the same way: to issue ranges. Ranges should
/// not overlap: later kernels refuse that.
#[derive(Clone, Copy, Debug)]
pub struct IoPortAuthority(());

impl IoPortAuthority {
    /// Claims that the program is the initial thread and still holds what the
    /// kernel gave it.
    #[must_use]
    pub const fn of_init_thread() -> Self {
        Self(())
    }

    /// `seL4_X86_IOPortControl_Issue`: a capability for ports `first` to
    /// `last`, both included, put into `dst`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `first` exceeds `last`,
    /// [`Error::RevokeFirst`] where a port of the range is issued already,
    /// [`Error::DeleteFirst`] where the slot is taken.
    #[cfg(sel4_has = "X86IOPortControlIssue")]
    pub fn issue(self, first: u16, last: u16, dst: &AbsoluteCPtr) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_X86_IOPortControl_Issue(
                buffer(),
                init_thread::slot::IO_PORT_CONTROL.cap().bits(),
                first.into(),
                last.into(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_word(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// A capability for ports `first` to `last`, both included, put into
    /// `dst`: the initial capability minted with the range as its data, first
    /// port above last, 16 bits each (kernel up to 5: `io_port_capdata`, which
    /// no installed header describes).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `first` exceeds `last`,
    /// [`Error::DeleteFirst`] where the slot is taken.
    #[cfg(not(sel4_has = "X86IOPortControlIssue"))]
    pub fn issue(self, first: u16, last: u16, dst: &AbsoluteCPtr) -> Result<()> {
        const PORT_BITS: u32 = u16::BITS;
        if first > last {
            return Err(Error::InvalidArgument);
        }
        let src = init_thread::slot::CNODE
            .cap()
            .absolute_cptr(init_thread::slot::IO_PORT.cptr());
        let range = u64::from(first) << PORT_BITS | u64::from(last);
        dst.mint_word(&src, crate::CapRights::all(), range)
    }
}
