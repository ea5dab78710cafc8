//! The direct transport between two protection domains: the initial thread is
//! the client, a worker with its own address space and CSpace the server.

use sel4::{
    Badge, BootInfo, CPtr, Cap, CapRights, Error, ObjectBlueprint, Result, Word, cap,
    with_ipc_buffer_mut,
};
use sel4_direct::transport::{
    CapBundle, DONE, Message, REFUSED, Sel4DirectTransport, Service, SessionCaps,
};
use sel4_direct::{Budget, Derivation, Descriptor, Progress, process_tx_queue};

use crate::Sink;
use crate::pool::{Pool, absolute};
use crate::samples::{Samples, timed};
use crate::worker::{CSPACE_BITS, FIRST_SLOT, Space, Worker, ready};

/// Methods of the server.
const ECHO: Word = 16;
const OPEN: Word = 17;
const CLOSE: Word = 18;
const REGISTER: Word = 19;
const KICK: Word = 20;
const GRANT: Word = 21;
const LOOK: Word = 22;
const COUNT: Word = 23;

/// Slots of the server's CSpace.
const SERVICE: Word = FIRST_SLOT;
const CSPACE: Word = FIRST_SLOT + 1;
const ROOT: Word = FIRST_SLOT + 2;
const ARRIVED: Word = FIRST_SLOT + 3;
const QUEUE: Word = FIRST_SLOT + 4;
const BUNDLE: Word = FIRST_SLOT + 5;
const FRAME: Word = FIRST_SLOT + 6;
const SESSION: Word = FIRST_SLOT + 7;

/// What the server knows its client by, and a badge it never gave.
const CLIENT: Badge = 0x51;
const STRANGER: Badge = 0x52;
/// The badge a queue's completions carry.
const QUEUE_BADGE: Badge = 0x9;
/// Sessions that may be open at once.
const SESSIONS: u32 = 1;
/// A page both can write: descriptors.
const SHARED: usize = 0x5300_0000_0000;
const DESCRIPTORS: u32 = 8;
/// Frames in a bundle, and its slots as a power of two.
const GRANTED: Word = 100;
const GRANTED_BITS: usize = 7;
const DERIVED: Word = 500;
const DERIVED_BITS: usize = 9;

struct Server {
    budget: Budget,
    open: Option<Derivation>,
    session: SessionCaps,
    progress: Progress,
    calls: Word,
}

fn own(index: Word) -> sel4::AbsoluteCPtr {
    let cspace: cap::CNode = Cap::from_bits(CSPACE);
    cspace.absolute_cptr_from_bits_with_depth(index, CSPACE_BITS)
}

impl Server {
    fn open(&mut self) -> Result<CPtr> {
        let derived = self.budget.derive(None);
        self.open = Some(derived.map_err(|_| Error::NotEnoughMemory)?);
        own(SESSION).delete()?;
        self.session.derive(&own(SESSION))?;
        Ok(CPtr::from_bits(SESSION))
    }

    fn close(&mut self) -> Result<Word> {
        if let Some(open) = self.open.take() {
            self.budget.give_back(open);
        }
        Ok(self.budget.live().into())
    }

    /// Keeps what came with the call, so that the next can bring something.
    fn keep(&self, call: &Message, place: Word) -> Result<Word> {
        if !call.has_cap {
            return Err(Error::InvalidCapability);
        }
        own(place).delete()?;
        own(place).move_(&own(ARRIVED))?;
        Ok(place)
    }

    fn kick(&mut self, head: Word) -> Result<Word> {
        let read = |slot: u32| {
            let at = SHARED + slot as usize * size_of::<Word>();
            // SAFETY: the page is mapped before the server starts, and holds a
            // word for each slot of the queue; it is copied once.
            let word = unsafe { core::ptr::with_exposed_provenance::<Word>(at).read_volatile() };
            Descriptor {
                offset: word as u32,
                length: (word >> 32) as u32,
            }
        };
        let taken = process_tx_queue(&mut self.progress, head as u32, read, |_| {});
        let taken = taken.map_err(|_| Error::InvalidArgument)?;
        Cap::<sel4::cap_type::Notification>::from_bits(QUEUE).signal();
        Ok(taken.into())
    }

    /// Uses every frame of the bundle; how many were usable.
    fn look(&self) -> Result<Word> {
        let bundle = CapBundle::new(Cap::from_bits(BUNDLE), GRANTED_BITS);
        for index in 0..GRANTED {
            own(FRAME).copy(&bundle.slot(index), CapRights::all())?;
            let frame: cap::Granule = Cap::from_bits(FRAME);
            frame.frame_get_address()?;
            own(FRAME).delete()?;
        }
        Ok(GRANTED)
    }
}

impl Service for Server {
    #[inline]
    fn dispatch(&mut self, badge: Badge, call: Message) -> (Message, Option<CPtr>) {
        self.calls += 1;
        if badge != CLIENT {
            return (Message::new(REFUSED, 0, [0; 4]), None);
        }
        if call.method == ECHO {
            return (Message::new(DONE, call.length, call.words), None);
        }
        let (outcome, given) = match call.method {
            OPEN => match self.open() {
                Ok(session) => (Ok(0), Some(session)),
                Err(error) => (Err(error), None),
            },
            CLOSE => (self.close(), None),
            REGISTER => (self.keep(&call, QUEUE), None),
            GRANT => (self.keep(&call, BUNDLE), None),
            KICK => (self.kick(call.words[0]), None),
            LOOK => (self.look(), None),
            COUNT => (Ok(self.calls), None),
            _ => (Err(Error::IllegalOperation), None),
        };
        match outcome {
            Ok(word) => (Message::new(DONE, 1, [word, 0, 0, 0]), given),
            Err(_) => (Message::new(REFUSED, 0, [0; 4]), None),
        }
    }
}

extern "C" fn serve() -> ! {
    with_ipc_buffer_mut(|buffer| buffer.set_recv_slot(&own(ARRIVED)));
    let session = SessionCaps::at(own(ROOT));
    let mut server = Server {
        budget: Budget::new(SESSIONS),
        open: None,
        session,
        progress: Progress::default(),
        calls: 0,
    };
    let transport = Sel4DirectTransport::new(Cap::from_bits(SERVICE));
    ready();
    let mut call = transport.receive();
    loop {
        call = transport.serve_once(&mut server, call);
    }
}

/// The client, which counts what it sends.
struct Client {
    transport: Sel4DirectTransport,
    calls: Word,
}

impl Client {
    #[inline]
    fn call(&mut self, method: Word, word: Word) -> Result<Message> {
        self.calls += 1;
        done(
            self.transport
                .call(Message::new(method, 1, [word, 0, 0, 0]))?,
        )
    }

    #[inline]
    fn give(&mut self, method: Word, given: CPtr) -> Result<Message> {
        self.calls += 1;
        let call = Message::new(method, 0, [0; 4]);
        done(self.transport.call_with_cap(call, given)?)
    }
}

#[inline]
fn done(answer: Message) -> Result<Message> {
    expect(answer.method == DONE)?;
    Ok(answer)
}

fn expect(holds: bool) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::IllegalOperation)
    }
}

pub fn measure(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    let service: cap::Endpoint = pool.object(ObjectBlueprint::Endpoint)?;
    let worker = Worker::create(pool, bootinfo, Space::Own, 4, u8::MAX)?;
    let endpoint = absolute(service.cptr());
    worker.slot(SERVICE).copy(&endpoint, CapRights::all())?;
    let cspace = absolute(worker.cspace.cptr());
    worker.slot(CSPACE).copy(&cspace, CapRights::all())?;
    SessionCaps::mint(&endpoint, worker.slot(ROOT), CLIENT)?;
    share(pool, &worker)?;
    worker.start(pool, bootinfo, serve)?;
    let (own, strange) = (pool.slot()?, pool.slot()?);
    own.mint(&endpoint, CapRights::all(), CLIENT)?;
    strange.mint(&endpoint, CapRights::all(), STRANGER)?;
    let mut client = Client {
        transport: Sel4DirectTransport::new(Cap::from_bits(own.path().bits())),
        calls: 0,
    };
    calls(&mut client, sink)?;
    sessions(pool, &mut client, sink)?;
    queue(pool, &mut client, sink)?;
    grant(pool, &mut client, sink)?;
    let stranger = Sel4DirectTransport::new(Cap::from_bits(strange.path().bits()));
    let refused = stranger.call(Message::new(ECHO, 0, [0; 4]))?;
    expect(refused.method == REFUSED)?;
    let counted = client.call(COUNT, 0)?.words[0];
    // The stranger's call was counted too, and nothing was lost.
    expect(counted == client.calls + 1)?;
    worker.tcb.tcb_suspend()?;
    revocation(pool, &endpoint, sink)
}

/// A page that both sides have at the same address.
fn share(pool: &mut Pool, worker: &Worker) -> Result<()> {
    let page: cap::Granule = pool.object(ObjectBlueprint::Granule)?;
    let copy = pool.copy_of(page)?;
    let own = sel4::init_thread::slot::VSPACE.cap();
    pool.map(own, page, SHARED, CapRights::read_write())?;
    pool.map(worker.vspace, copy, SHARED, CapRights::read_only())
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
            let answer = client
                .transport
                .call(Message::new(ECHO, length, [1, 2, 3, 4]))?;
            expect(answer.method == DONE && answer.length == length)
        })?;
        sink(name, &samples);
    }
    Ok(())
}

/// Opening a session brings a capability, which works; one more is refused.
fn sessions(pool: &mut Pool, client: &mut Client, sink: &mut Sink<'_>) -> Result<()> {
    let place = pool.slot()?;
    with_ipc_buffer_mut(|buffer| buffer.set_recv_slot(&place));
    let samples = Samples::take(|| {
        let taken = timed(|| expect(client.call(OPEN, 0)?.has_cap))?;
        client.calls += 1;
        let over = client.transport.call(Message::new(OPEN, 0, [0; 4]))?;
        expect(over.method == REFUSED)?;
        let session = Sel4DirectTransport::new(Cap::from_bits(place.path().bits()));
        client.calls += 1;
        done(session.call(Message::new(ECHO, 0, [0; 4]))?)?;
        place.delete()?;
        client.call(CLOSE, 0)?;
        Ok(taken)
    })?;
    with_ipc_buffer_mut(|buffer| buffer.clear_recv_slot());
    sink("direct-open-session", &samples);
    Ok(())
}

fn queue(pool: &mut Pool, client: &mut Client, sink: &mut Sink<'_>) -> Result<()> {
    let completions: cap::Notification = pool.object(ObjectBlueprint::Notification)?;
    let badged = pool.slot()?;
    let from = absolute(completions.cptr());
    badged.mint(&from, CapRights::write_only(), QUEUE_BADGE)?;
    let given = CPtr::from_bits(badged.path().bits());
    sink(
        "direct-register-queue",
        &Samples::time(|| client.give(REGISTER, given).map(drop))?,
    );
    let mut head = 0_u32;
    sink(
        "direct-kick-complete descriptors=8",
        &Samples::time(|| {
            for _ in 0..DESCRIPTORS {
                let slot = head % sel4_direct::queue::ENTRIES;
                let at = SHARED + slot as usize * size_of::<Word>();
                // SAFETY: `share` mapped the page for writing, and it holds a
                // word for each slot of the queue.
                unsafe {
                    core::ptr::with_exposed_provenance_mut::<Word>(at).write_volatile(64 << 32);
                }
                head = head.wrapping_add(1);
            }
            let answer = client.call(KICK, head.into())?;
            expect(answer.words[0] == DESCRIPTORS.into())?;
            expect(completions.wait() == QUEUE_BADGE)
        })?,
    );
    Ok(())
}

/// A CNode of frames goes with one call, and every frame in it can be used.
fn grant(pool: &mut Pool, client: &mut Client, sink: &mut Sink<'_>) -> Result<()> {
    let cnode: cap::CNode = pool.object(ObjectBlueprint::CNode {
        size_bits: GRANTED_BITS,
    })?;
    let bundle = CapBundle::new(cnode, GRANTED_BITS);
    let frame: cap::Granule = pool.object(ObjectBlueprint::Granule)?;
    for index in 0..GRANTED {
        let slot = bundle.slot(index);
        slot.copy(&absolute(frame.cptr()), CapRights::all())?;
    }
    sink(
        "direct-pre-grant frames=100",
        &Samples::time(|| client.give(GRANT, bundle.cptr()).map(drop))?,
    );
    expect(client.call(LOOK, 0)?.words[0] == GRANTED)
}

/// Ending a session with so many capabilities derived from its root.
fn revocation(pool: &mut Pool, endpoint: &sel4::AbsoluteCPtr, sink: &mut Sink<'_>) -> Result<()> {
    let session = SessionCaps::mint(endpoint, pool.slot()?, CLIENT)?;
    let cnode: cap::CNode = pool.object(ObjectBlueprint::CNode {
        size_bits: DERIVED_BITS,
    })?;
    let (bundle, probe) = (CapBundle::new(cnode, DERIVED_BITS), pool.slot()?);
    let samples = Samples::take(|| {
        for index in 0..DERIVED {
            session.derive(&bundle.slot(index))?;
        }
        let taken = timed(|| session.revoke())?;
        for index in 0..DERIVED {
            let left = probe.move_(&bundle.slot(index));
            expect(left == Err(Error::FailedLookup))?;
        }
        Ok(taken)
    })?;
    sink("direct-revoke derived=500", &samples);
    Ok(())
}
