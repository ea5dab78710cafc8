//! The bridge of `sel4-direct` between two protection domains: the initial
//! thread is the client, a worker with its own address space and CSpace the
//! server. What is measured is checked to have happened, and what should be
//! refused is tried.

mod server;

use core::ptr::with_exposed_provenance_mut;

use sel4::{
    AbsoluteCPtr, Badge, BootInfo, CPtr, Cap, CapRights, Error, MessageInfo, ObjectBlueprint,
    Result, Word, cap, cap_type, with_ipc_buffer_mut,
};
use sel4_direct::budget::{DEPTH_MAX, Exhausted};
use sel4_direct::messages::{ECHO, Method};
use sel4_direct::queue::{BUFFER_BYTES, ENTRIES};
use sel4_direct::transport::{
    CapBundle, DONE, Derived, Message, MintError, REFUSED, Sel4DirectTransport, SessionCaps,
};

use self::server::{
    BUNDLE_BITS, CLIENT, FRAMES, GUEST, IN_SESSION, QUEUES, SESSIONS, SHARED, WINDOW, serve,
};
use crate::Sink;
use crate::pool::{Pool, absolute};
use crate::samples::{Samples, timed};
use crate::worker::{Space, Worker};

/// A badge that the server gave to nobody.
const STRANGER: Badge = 0x53;
/// The badge that completions of queue *n* carry is `COMPLETED << n`.
const COMPLETED: Badge = 0x10;
const DESCRIPTORS: u32 = 8;
/// Bytes of each descriptor, in its upper half.
const DESCRIPTOR: Word = 64 << 32;
/// Numbers of derived capabilities that are revoked at once, most of them in a
/// CNode of so many slots as a power of two.
const DERIVED: [u32; 4] = [10, 100, 250, 500];
const DERIVED_BITS: usize = 9;

/// The client, which counts what it sends.
struct Client {
    transport: Sel4DirectTransport,
    endpoint: cap::Endpoint,
    /// Where capabilities arrive.
    arrival: AbsoluteCPtr,
    calls: Word,
}

impl Client {
    /// As the server's client, or as whoever has that badge.
    fn new(pool: &mut Pool, service: &AbsoluteCPtr, badge: Badge) -> Result<Self> {
        let (own, arrival) = (pool.slot()?, pool.slot()?);
        own.mint(service, CapRights::all(), badge)?;
        let endpoint = Cap::from_bits(own.path().bits());
        Ok(Self {
            transport: Sel4DirectTransport::receiving(endpoint, arrival),
            endpoint,
            arrival,
            calls: 0,
        })
    }

    /// Sends what may be refused.
    #[inline]
    fn ask(&mut self, method: Method, given: Option<CPtr>) -> Result<Message> {
        self.calls += 1;
        let (label, params) = method.encode();
        let words = [params.unwrap_or(0), 0, 0, 0];
        let call = Message::new(label, usize::from(params.is_some()), words);
        match given {
            None => self.transport.call(call),
            Some(given) => self.transport.call_with_cap(call, given),
        }
    }

    /// Sends what is to be granted; the answer's word.
    #[inline]
    fn call(&mut self, method: Method) -> Result<Word> {
        self.granted(method, None)
    }

    /// As [`call`](Self::call), with a capability.
    #[inline]
    fn give(&mut self, method: Method, given: CPtr) -> Result<Word> {
        self.granted(method, Some(given))
    }

    #[inline]
    fn granted(&mut self, method: Method, given: Option<CPtr>) -> Result<Word> {
        let answer = self.ask(method, given)?;
        expect(answer.label == DONE)?;
        Ok(answer.words[0])
    }

    fn refused(&mut self, method: Method, given: Option<CPtr>) -> Result<()> {
        let answer = self.ask(method, given)?;
        expect(answer.label == REFUSED && !answer.has_cap)
    }

    /// Sends more capabilities than a transport would; the answer's label.
    fn with_caps(&mut self, method: Method, given: &[CPtr]) -> Word {
        self.calls += 1;
        with_ipc_buffer_mut(|buffer| {
            for (index, &given) in given.iter().enumerate() {
                buffer.set_cap(index, given);
            }
        });
        let (label, params) = method.encode();
        let info = MessageInfo::new(label, given.len(), 1);
        let words = [params.unwrap_or(0), 0, 0, 0];
        self.endpoint.call_with_mrs(info, words).0.label()
    }
}

fn expect(holds: bool) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::IllegalOperation)
    }
}

/// Whether calls through a capability to the server are answered by it, and not
/// by the kernel, which says that there is no such capability.
fn works(endpoint: cap::Endpoint) -> Result<bool> {
    let answer = Sel4DirectTransport::new(endpoint).call(Message::new(ECHO, 0, [0; 4]))?;
    Ok(answer.label == DONE)
}

/// Whether nothing is in a slot: there is nothing to copy then.
fn is_empty(slot: &AbsoluteCPtr, scratch: &AbsoluteCPtr) -> Result<bool> {
    match scratch.copy(slot, CapRights::all()) {
        Err(Error::FailedLookup) => Ok(true),
        Ok(()) => scratch.delete().map(|()| false),
        Err(error) => Err(error),
    }
}

pub fn measure(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    let service: cap::Endpoint = pool.object(ObjectBlueprint::Endpoint)?;
    let service = absolute(service.cptr());
    let worker = Worker::create(pool, bootinfo, Space::Own, 4, u8::MAX)?;
    for (place, held) in [
        (server::SERVICE, service),
        (server::CSPACE, absolute(worker.cspace.cptr())),
        (server::VSPACE, absolute(worker.vspace.cptr())),
    ] {
        worker.slot(place).copy(&held, CapRights::all())?;
    }
    worker
        .slot(server::ROOT)
        .mint(&service, CapRights::all(), IN_SESSION)?;
    share(pool, &worker)?;
    worker.start(pool, bootinfo, serve)?;
    let mut client = Client::new(pool, &service, CLIENT)?;
    client.call(Method::Echo)?;
    worker.make_passive()?;
    calls(&mut client, sink)?;
    sessions(&mut client, sink)?;
    bounds(pool, &mut client)?;
    queues(pool, &mut client, sink)?;
    capabilities(pool, &mut client)?;
    memory(pool, &mut client, sink)?;
    let strangers = strangers(pool, &service)?;
    with_ipc_buffer_mut(|buffer| buffer.set_recv_slot(&client.arrival));
    let through_session = revocation(pool, &service, &worker, sink)?;
    // Nothing was lost, and nothing answered that did not arrive.
    let expected = client.calls + strangers + through_session + 1;
    expect(client.call(Method::CountCalls)? == expected)?;
    with_ipc_buffer_mut(|buffer| buffer.clear_recv_slot());
    worker.tcb.tcb_suspend()
}

/// A page that both sides have at the same address and the client can write,
/// and the tables of the server's window.
fn share(pool: &mut Pool, worker: &Worker) -> Result<()> {
    let page: cap::Granule = pool.object(ObjectBlueprint::Granule)?;
    let copy = pool.copy_of(page)?;
    let own = sel4::init_thread::slot::VSPACE.cap();
    pool.map(own, page, SHARED, CapRights::read_write())?;
    pool.map(worker.vspace, copy, SHARED, CapRights::read_only())?;
    let first: cap::Granule = pool.object(ObjectBlueprint::Granule)?;
    pool.map(worker.vspace, first, WINDOW, CapRights::read_write())?;
    first.frame_unmap()
}

fn calls(client: &mut Client, sink: &mut Sink<'_>) -> Result<()> {
    let cases = [
        ("direct-call words=0", 0),
        ("direct-call words=4", 4),
        ("direct-call words=20", 20),
    ];
    for (name, length) in cases {
        let samples = Samples::time(|| {
            client.calls += 1;
            let call = Message::new(ECHO, length, [1, 2, 3, 4]);
            let answer = client.transport.call(call)?;
            let same = length == 0 || answer.words == [1, 2, 3, 4];
            expect(answer.label == DONE && answer.length == length && same)
        })?;
        sink(name, &samples);
    }
    Ok(())
}

/// Opening a session brings a capability, which works.
fn sessions(client: &mut Client, sink: &mut Sink<'_>) -> Result<()> {
    let samples = Samples::take(|| {
        let mut session = 0;
        let taken = timed(|| {
            let answer = client.ask(Method::OpenSession { parent: 0 }, None)?;
            session = answer.words[0] as u32;
            expect(answer.label == DONE && answer.has_cap)
        })?;
        client.calls += 1;
        expect(works(Cap::from_bits(client.arrival.path().bits()))?)?;
        client.arrival.delete()?;
        expect(client.call(Method::CloseSession { session })? == 0)?;
        Ok(taken)
    })?;
    sink("direct-open-session", &samples);
    Ok(())
}

/// Chains end where they should, and so does the number of sessions; the end of
/// all of them is the end of every capability that was given away for them.
fn bounds(pool: &mut Pool, client: &mut Client) -> Result<()> {
    let mut held = [None; SESSIONS];
    let mut parent = 0;
    for (index, place) in held.iter_mut().enumerate() {
        let slot = pool.slot()?;
        parent = client.call(Method::OpenSession { parent })? as u32;
        slot.move_(&client.arrival)?;
        *place = Some(slot);
        if index + 1 == DEPTH_MAX.into() {
            client.refused(Method::OpenSession { parent }, None)?;
            parent = 0;
        }
    }
    client.refused(Method::OpenSession { parent: 0 }, None)?;
    let all = held.into_iter().flatten();
    for slot in all.clone() {
        client.calls += 1;
        expect(works(Cap::from_bits(slot.path().bits()))?)?;
    }
    client.call(Method::RevokeSessions)?;
    for slot in all {
        expect(!works(Cap::from_bits(slot.path().bits()))?)?;
        expect(is_empty(&slot, &client.arrival)?)?;
    }
    // Numbers of sessions that ended name nothing.
    client.refused(Method::OpenSession { parent: 1 }, None)?;
    client.refused(Method::CloseSession { session: 1 }, None)
}

/// A notification with the badge of a queue.
fn completion(pool: &mut Pool, notification: cap::Notification, queue: u32) -> Result<CPtr> {
    let badged = pool.slot()?;
    let from = absolute(notification.cptr());
    badged.mint(&from, CapRights::write_only(), COMPLETED << queue)?;
    Ok(CPtr::from_bits(badged.path().bits()))
}

/// Writes so many descriptors from `head` on; the new head.
fn describe(queue: u32, head: u32, count: u32, word: Word) -> u32 {
    for index in 0..count {
        let slot = head.wrapping_add(index) % ENTRIES;
        let at = with_exposed_provenance_mut::<Word>(server::descriptor_at(queue, slot));
        // SAFETY: `share` mapped the page for writing, and it holds a word for
        // each slot of each queue.
        unsafe { at.write_volatile(word) }
    }
    head.wrapping_add(count)
}

fn queues(pool: &mut Pool, client: &mut Client, sink: &mut Sink<'_>) -> Result<()> {
    let completions: cap::Notification = pool.object(ObjectBlueprint::Notification)?;
    let mut given = [CPtr::from_bits(0); QUEUES];
    for (queue, given) in given.iter_mut().enumerate() {
        *given = completion(pool, completions, queue as u32)?;
    }
    let register = Method::RegisterQueue { queue: 0 };
    client.refused(register, None)?;
    let samples = Samples::time(|| client.give(register, given[0]).map(drop))?;
    sink("direct-register-queue", &samples);
    client.give(Method::RegisterQueue { queue: 1 }, given[1])?;
    client.refused(Method::RegisterQueue { queue: 2 }, Some(given[0]))?;
    let mut head = 0;
    let samples = Samples::time(|| {
        head = describe(0, head, DESCRIPTORS, DESCRIPTOR);
        let taken = client.call(Method::Kick { queue: 0, head })?;
        expect(taken == DESCRIPTORS.into() && completions.wait() == COMPLETED)
    })?;
    sink("direct-kick-complete descriptors=8", &samples);
    // The badge says which queue is complete.
    let one = describe(1, 0, 1, DESCRIPTOR);
    client.call(Method::Kick {
        queue: 1,
        head: one,
    })?;
    expect(completions.wait() == COMPLETED << 1)?;
    // A queue that lies is taken no more of; the other one is.
    let outside = Word::from(BUFFER_BYTES) | DESCRIPTOR;
    let head = describe(0, head, 1, outside);
    client.refused(Method::Kick { queue: 0, head }, None)?;
    describe(0, head - 1, 1, DESCRIPTOR);
    client.refused(Method::Kick { queue: 0, head }, None)?;
    let far = one + ENTRIES + 1;
    client.refused(
        Method::Kick {
            queue: 1,
            head: far,
        },
        None,
    )?;
    client.give(register, given[0])?;
    let head = describe(0, 0, DESCRIPTORS, DESCRIPTOR);
    client.call(Method::Kick { queue: 0, head })?;
    expect(completions.wait() == COMPLETED)
}

/// One capability goes with a call, and none stays that was not asked for.
fn capabilities(pool: &mut Pool, client: &mut Client) -> Result<()> {
    let notification: cap::Notification = pool.object(ObjectBlueprint::Notification)?;
    let given = completion(pool, notification, 0)?;
    let own = client.endpoint.cptr();
    let register = Method::RegisterQueue { queue: 0 };
    let grant = Method::PreGrantMemory { frames: 1 };
    // A capability to the server itself arrives as its badge.
    expect(client.with_caps(register, &[own]) == REFUSED)?;
    expect(client.with_caps(register, &[own, given]) == REFUSED)?;
    client.refused(grant, None)?;
    // Of two, the kernel has a receive slot for the first.
    expect(client.with_caps(register, &[given, given]) == DONE)?;
    client.refused(grant, None)?;
    // One that nobody asked for does not keep the next from arriving.
    client.give(Method::Echo, given)?;
    client.give(register, given)?;
    let head = describe(0, 0, 1, DESCRIPTOR);
    client.call(Method::Kick { queue: 0, head })?;
    expect(notification.wait() == COMPLETED)
}

/// A CNode of frames goes with one call, and every frame in it can be used.
fn memory(pool: &mut Pool, client: &mut Client, sink: &mut Sink<'_>) -> Result<()> {
    let blueprint = ObjectBlueprint::CNode {
        size_bits: BUNDLE_BITS,
    };
    let cnode: cap::CNode = pool.object(blueprint)?;
    pool.fill(cnode, ObjectBlueprint::Granule, FRAMES as usize)?;
    let bundle = CapBundle::<cap_type::Granule>::new(cnode, BUNDLE_BITS);
    let grant = Method::PreGrantMemory { frames: FRAMES };
    let more = Method::PreGrantMemory { frames: FRAMES + 1 };
    client.refused(more, Some(bundle.cptr()))?;
    let granting = Samples::time(|| client.give(grant, bundle.cptr()).map(drop))?;
    sink("direct-pre-grant frames=100", &granting);
    let until_used = Samples::take(|| {
        let taken = timed(|| {
            client.give(grant, bundle.cptr())?;
            expect(client.call(Method::UseMemory)? == FRAMES.into())
        })?;
        client.refused(grant, Some(bundle.cptr()))?;
        expect(client.call(Method::ReturnMemory)? == FRAMES.into())?;
        Ok(taken)
    })?;
    sink("direct-pre-grant-and-use frames=100", &until_used);
    Ok(())
}

/// Badges that the server gave to nobody, or only for other calls, are refused;
/// how many calls that took.
fn strangers(pool: &mut Pool, service: &AbsoluteCPtr) -> Result<Word> {
    let mut calls = 0;
    for (badge, may_echo) in [(STRANGER, false), (0, false), (IN_SESSION, true)] {
        let mut stranger = Client::new(pool, service, badge)?;
        let answer = stranger.ask(Method::Echo, None)?;
        expect(answer.label == if may_echo { DONE } else { REFUSED })?;
        for method in [
            Method::OpenSession { parent: 0 },
            Method::RevokeSessions,
            Method::CountCalls,
        ] {
            stranger.refused(method, None)?;
        }
        calls += stranger.calls;
    }
    Ok(calls)
}

/// Ends sessions with so many capabilities derived from their root, in three
/// CSpaces, and looks for one that is left; how many calls that took.
fn revocation(
    pool: &mut Pool,
    service: &AbsoluteCPtr,
    worker: &Worker,
    sink: &mut Sink<'_>,
) -> Result<Word> {
    let cnode: cap::CNode = pool.object(ObjectBlueprint::CNode {
        size_bits: DERIVED_BITS,
    })?;
    let bundle = CapBundle::<cap_type::Endpoint>::new(cnode, DERIVED_BITS);
    let (root, own, scratch) = (pool.slot()?, pool.slot()?, pool.slot()?);
    let place = |index: u32| match index {
        0 => own,
        1 => worker.slot(GUEST),
        _ => bundle.slot(index.into()),
    };
    let through = Cap::from_bits(own.path().bits());
    let mut calls = 0;
    for count in DERIVED {
        let mut session = SessionCaps::mint(service, root, IN_SESSION, count)?;
        let samples = Samples::take(|| {
            derive_all(&mut session, count, &place)?;
            let over = session.derive(None, place(count));
            let full = matches!(over, Err(MintError::Exhausted(Exhausted::Count)));
            expect(full && session.live() == count)?;
            calls += 1;
            expect(works(through)?)?;
            let taken = timed(|| session.revoke())?;
            expect(!works(through)? && session.live() == 0)?;
            for index in 0..count {
                expect(is_empty(&place(index), &scratch)?)?;
            }
            Ok(taken)
        })?;
        root.delete()?;
        sink(&alloc::format!("direct-revoke derived={count}"), &samples);
    }
    Ok(calls)
}

/// Derives as much as the session may, in chains as long as they may be.
fn derive_all(
    session: &mut SessionCaps<cap_type::Endpoint>,
    count: u32,
    place: &impl Fn(u32) -> AbsoluteCPtr,
) -> Result<()> {
    let mut last: Option<Derived<cap_type::Endpoint>> = None;
    for index in 0..count {
        let from = last.filter(|_| index % u32::from(DEPTH_MAX) != 0);
        let derived = session.derive(from.as_ref(), place(index));
        last = Some(derived.map_err(|error| match error {
            MintError::Kernel(error) => error,
            MintError::Exhausted(_) => Error::NotEnoughMemory,
        })?);
    }
    Ok(())
}
