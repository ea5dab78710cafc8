//! Calls and signals between threads.

use sel4::{
    BootInfo, Cap, CapRights, Error, MessageInfo, ObjectBlueprint, Result, Word, cap,
    with_ipc_buffer_mut,
};

use crate::Sink;
use crate::pool::{Pool, absolute};
use crate::samples::{Samples, timed};
use crate::worker::{FIRST_SLOT, Space, Worker, own_reply, ready};

/// The initial thread's priority: a call takes the fast path where the server's
/// is no lower.
const PRIORITY: u8 = u8::MAX;
/// One below: a signal does not switch to who waits.
const LOWER: u8 = PRIORITY - 1;
const SERVICE: Word = FIRST_SLOT;
const AWAITED: Word = FIRST_SLOT;
const SIGNALLED: Word = FIRST_SLOT + 1;
/// Label of a call that is to be answered with a capability.
const WANT_CAP: Word = 1;

/// Answers each call with as many words as it has.
extern "C" fn echo() -> ! {
    ready();
    let service: cap::Endpoint = Cap::from_bits(SERVICE);
    let reply = Some(own_reply());
    let (mut info, _, mut words) = service.recv_with_reply(reply);
    loop {
        let answer = MessageInfo::new(0, 0, info.length());
        (info, _, words) = service.reply_recv_with_reply(answer, words, reply);
    }
}

/// Answers each call with a capability to its own endpoint where the label asks
/// for one.
extern "C" fn give() -> ! {
    ready();
    with_ipc_buffer_mut(|buffer| buffer.set_cap(0, sel4::CPtr::from_bits(SERVICE)));
    let service: cap::Endpoint = Cap::from_bits(SERVICE);
    let reply = Some(own_reply());
    let (mut info, _, _) = service.recv_with_reply(reply);
    loop {
        let caps = usize::from(info.label() == WANT_CAP);
        // Receiving without a receive slot leaves the named capability there.
        let answer = MessageInfo::new(0, caps, 0);
        (info, _, _) = service.reply_recv_with_reply(answer, [0; 4], reply);
    }
}

/// Waits for a signal and sends one back.
extern "C" fn pong() -> ! {
    ready();
    let awaited: cap::Notification = Cap::from_bits(AWAITED);
    let signalled: cap::Notification = Cap::from_bits(SIGNALLED);
    loop {
        awaited.wait();
        signalled.signal();
    }
}

pub fn measure(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    calls(pool, bootinfo, Space::Same, 0, sink)?;
    calls(pool, bootinfo, Space::Own, 1, sink)?;
    transfer(pool, bootinfo, sink)?;
    signals(pool, bootinfo, sink)
}

/// A server that runs `entry`, and its endpoint.
fn server(
    pool: &mut Pool,
    bootinfo: &BootInfo,
    space: Space,
    number: usize,
    entry: extern "C" fn() -> !,
) -> Result<(Worker, cap::Endpoint)> {
    let service: cap::Endpoint = pool.object(ObjectBlueprint::Endpoint)?;
    let worker = Worker::create(pool, bootinfo, space, number, PRIORITY)?;
    let own = worker.slot(SERVICE);
    own.copy(&absolute(service.cptr()), CapRights::all())?;
    worker.start(pool, bootinfo, entry)?;
    // Once it has answered it waits for the next call.
    service.call_with_mrs(MessageInfo::new(0, 0, 0), [0; 4]);
    worker.make_passive()?;
    Ok((worker, service))
}

fn calls(
    pool: &mut Pool,
    bootinfo: &BootInfo,
    space: Space,
    number: usize,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let (worker, service) = server(pool, bootinfo, space, number, echo)?;
    let names = match space {
        Space::Same => [
            "raw-call-same words=0",
            "raw-call-same words=4",
            "raw-call-same words=20",
        ],
        Space::Own => [
            "raw-call-cross words=0",
            "raw-call-cross words=4",
            "raw-call-cross words=20",
        ],
    };
    for (name, length) in names.into_iter().zip([0, 4, 20]) {
        let samples = Samples::time(|| {
            let info = MessageInfo::new(0, 0, length);
            let (info, words) = service.call_with_mrs(info, [1, 2, 3, 4]);
            expect(info.length() == length && (length == 0 || words == [1, 2, 3, 4]))
        })?;
        sink(name, &samples);
    }
    worker.tcb.tcb_suspend()
}

/// A call that is answered with a capability, and one that is not.
fn transfer(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    let (worker, service) = server(pool, bootinfo, Space::Own, 2, give)?;
    let place = pool.slot()?;
    with_ipc_buffer_mut(|buffer| buffer.set_recv_slot(&place));
    let call = |label, caps| {
        let info = MessageInfo::new(label, 0, 0);
        let taken = timed(|| {
            let (info, _) = service.call_with_mrs(info, [0; 4]);
            expect(info.extra_caps() == caps)
        })?;
        place.delete()?;
        Ok(taken)
    };
    let with = Samples::take(|| call(WANT_CAP, 1))?;
    sink("raw-call-answered-with-cap", &with);
    let without = Samples::take(|| call(0, 0))?;
    sink("raw-call-answered-without-cap", &without);
    with_ipc_buffer_mut(|buffer| buffer.clear_recv_slot());
    worker.tcb.tcb_suspend()
}

fn signals(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    let there: cap::Notification = pool.object(ObjectBlueprint::Notification)?;
    sink(
        "raw-signal",
        &Samples::take(|| {
            let taken = timed(|| {
                there.signal();
                Ok(())
            })?;
            there.wait();
            Ok(taken)
        })?,
    );
    sink(
        "raw-wait-pending",
        &Samples::take(|| {
            there.signal();
            timed(|| {
                there.wait();
                Ok(())
            })
        })?,
    );
    sink(
        "raw-signal-and-wait",
        &Samples::time(|| {
            there.signal();
            there.wait();
            Ok(())
        })?,
    );
    let back: cap::Notification = pool.object(ObjectBlueprint::Notification)?;
    let worker = Worker::create(pool, bootinfo, Space::Own, 3, LOWER)?;
    for (place, notification) in [(AWAITED, there), (SIGNALLED, back)] {
        let from = absolute(notification.cptr());
        worker.slot(place).copy(&from, CapRights::all())?;
    }
    worker.start(pool, bootinfo, pong)?;
    sink(
        "raw-signal-round-trip",
        &Samples::time(|| {
            there.signal();
            back.wait();
            Ok(())
        })?,
    );
    worker.tcb.tcb_suspend()
}

/// Fails where a measured action was not what it should have been.
fn expect(holds: bool) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::IllegalOperation)
    }
}
