//! Interrupts.

use crate::ipc_buffer::buffer;
use crate::{AbsoluteCPtr, Error, Result, Word, cap};

impl cap::IrqControl {
    /// Number of vectors that can be asked for, starting at zero. Each may be
    /// in use once.
    pub const VECTORS: Word = sel4_raw::VECTOR_MAX - sel4_raw::VECTOR_MIN + 1;

    /// `seL4_IRQControl_GetIOAPIC`: issues a handler for an interrupt pin.
    ///
    /// - `level`: 1 for level-triggered, 0 for edge-triggered.
    /// - `polarity`: 1 for active low, 0 for active high.
    /// - `vector`: counted from the kernel's first user vector.
    ///
    /// # Errors
    /// [`Error::RangeError`] for an I/O APIC, pin or vector out of range,
    /// [`Error::RevokeFirst`] where the vector is issued already,
    /// [`Error::DeleteFirst`] where the slot is taken.
    pub fn irq_control_get_ioapic(
        self,
        ioapic: Word,
        pin: Word,
        level: Word,
        polarity: Word,
        vector: Word,
        dst: &AbsoluteCPtr,
    ) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_IRQControl_GetIOAPIC(
                buffer(),
                self.bits(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_word(),
                ioapic,
                pin,
                level,
                polarity,
                vector,
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_IRQControl_GetMSI`: issues a handler for a message-signalled
    /// interrupt. Bus, device and function are for the record.
    ///
    /// # Errors
    /// As for [`irq_control_get_ioapic`](Self::irq_control_get_ioapic).
    pub fn irq_control_get_msi(
        self,
        pci: (Word, Word, Word),
        handle: Word,
        vector: Word,
        dst: &AbsoluteCPtr,
    ) -> Result<()> {
        let (bus, device, function) = pci;
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_IRQControl_GetMSI(
                buffer(),
                self.bits(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_word(),
                bus,
                device,
                function,
                handle,
                vector,
            )
        }
        .map_err(Error::from_raw)
    }
}

impl cap::IrqHandler {
    /// `seL4_IRQHandler_SetNotification`: the interrupt signals `notification`
    /// with the badge of that capability.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] where it is no notification or lacks the
    /// right to signal.
    pub fn irq_handler_set_notification(self, notification: cap::Notification) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_IRQHandler_SetNotification(buffer(), self.bits(), notification.bits())
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_IRQHandler_Ack`: lets the next interrupt through.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where this is no handler.
    #[inline]
    pub fn irq_handler_ack(self) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_IRQHandler_Ack(buffer(), self.bits()) }.map_err(Error::from_raw)
    }

    /// `seL4_IRQHandler_Clear`: forgets the notification.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where this is no handler.
    pub fn irq_handler_clear(self) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_IRQHandler_Clear(buffer(), self.bits()) }.map_err(Error::from_raw)
    }
}
