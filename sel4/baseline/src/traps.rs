//! Faults: what a thread's trap costs until its handler has the next one.

use core::arch::asm;

use sel4::fault::UnknownSyscall;
use sel4::{BootInfo, MessageInfo, Result, UserContext, Word, cap, with_ipc_buffer_mut};

use crate::Sink;
use crate::pool::Pool;
use crate::samples::{Samples, timed};
use crate::worker::{Space, Worker, ready};

/// RIP, RSP, RFLAGS and RAX.
const REGISTERS: usize = 4;
/// Length of `int 0xA0`.
const TRAP_BYTES: Word = 2;

/// Traps for ever.
extern "C" fn trap() -> ! {
    ready();
    loop {
        // SAFETY: an unknown system call is a fault; its handler moves the
        // thread on and changes no register it relies on.
        unsafe { asm!("int 0xA0", options(nostack)) }
    }
}

pub fn measure(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    // A program's priority is below its server's.
    let cases = [
        ("raw-fault-round-trip", 200),
        ("raw-fault-round-trip-equal-priority", u8::MAX),
    ];
    for (number, (name, priority)) in cases.into_iter().enumerate() {
        let (worker, faults) = trapping(pool, bootinfo, number + 8, priority)?;
        let (_, _, mut words) = faults.recv_with_mrs();
        sink(
            name,
            &Samples::time(|| {
                let info = MessageInfo::new(0, 0, UnknownSyscall::REPLY_LENGTH);
                with_ipc_buffer_mut(|buffer| {
                    let ip = buffer.mr_at::<{ UnknownSyscall::FAULT_IP }>();
                    buffer.set_mr_at::<{ UnknownSyscall::FAULT_IP }>(ip + TRAP_BYTES);
                });
                (_, _, words) = faults.reply_recv_with_mrs(info, words);
                Ok(())
            })?,
        );
        worker.tcb.tcb_suspend()?;
    }
    by_registers(pool, bootinfo, sink)
}

/// The way to let a thread go on that was kept waiting.
fn by_registers(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    let (worker, faults) = trapping(pool, bootinfo, 10, 200)?;
    faults.recv_with_mrs();
    let stopped = worker.tcb.tcb_read_registers(false, REGISTERS)?;
    let mut onwards = UserContext::default();
    (onwards.rip, onwards.rsp) = (stopped.rip, stopped.rsp);
    (onwards.rflags, onwards.rax) = (stopped.rflags, stopped.rax);
    sink(
        "raw-fault-round-trip-by-registers",
        &Samples::take(|| {
            // The loop's jump back is the compiler's: where it trapped again.
            let taken = timed(|| {
                onwards.rip += TRAP_BYTES;
                worker.tcb.tcb_write_registers(true, REGISTERS, &onwards)?;
                faults.recv_with_mrs();
                Ok(())
            })?;
            onwards.rip = worker.tcb.tcb_read_registers(false, REGISTERS)?.rip;
            Ok(taken)
        })?,
    );
    worker.tcb.tcb_suspend()
}

/// A thread about to trap, and where its faults arrive.
fn trapping(
    pool: &mut Pool,
    bootinfo: &BootInfo,
    number: usize,
    priority: u8,
) -> Result<(Worker, cap::Endpoint)> {
    let worker = Worker::create(pool, bootinfo, Space::Own, number, priority)?;
    worker.start(pool, bootinfo, trap)?;
    let faults = worker.control;
    Ok((worker, faults))
}
