//! The server of the bridge: it runs in a domain of its own, and trusts nothing
//! that a call says.

use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

use sel4::{
    AbsoluteCPtr, Badge, CPtr, Cap, CapRights, Error, Result, VmAttributes, Word, cap, cap_type,
};
use sel4_direct::messages::Method;
use sel4_direct::transport::{
    CapBundle, DONE, Derived, Message, REFUSED, Sel4DirectTransport, Service, SessionCaps,
};
use sel4_direct::{Descriptor, Progress, process_tx_queue, queue};

use crate::worker::{CSPACE_BITS, FIRST_SLOT, REPLY_SLOT, own_reply, ready};

/// Slots of the server's CSpace that whoever makes it fills.
pub const SERVICE: Word = FIRST_SLOT;
pub const CSPACE: Word = FIRST_SLOT + 1;
pub const VSPACE: Word = FIRST_SLOT + 2;
pub const ROOT: Word = FIRST_SLOT + 3;
/// One more, for who wants to try what can be kept there.
pub const GUEST: Word = FIRST_SLOT + 4;
/// Slots that it fills itself.
const ARRIVED: Word = FIRST_SLOT + 5;
const BUNDLE: Word = FIRST_SLOT + 6;
const QUEUE: Word = 16;
const SESSION: Word = 32;
const FRAME: Word = 64;

/// What the server knows its client by, and the badge of every session.
pub const CLIENT: Badge = 0x51;
pub const IN_SESSION: Badge = 0x52;
/// Sessions that may be open at once.
pub const SESSIONS: usize = 8;
pub const QUEUES: usize = 2;
/// Frames it takes at most, and the slots of their CNode as a power of two.
pub const FRAMES: u32 = 100;
pub const BUNDLE_BITS: usize = 7;
/// The page with the descriptors of every queue, which it can only read.
pub const SHARED: usize = 0x5300_0000_0000;
/// Where it maps frames; the tables are there.
pub const WINDOW: usize = 0x5400_0000_0000;

const _: () = assert!(QUEUES * queue::ENTRIES as usize * size_of::<Word>() <= sel4::GRANULE_SIZE);
const _: () = assert!(FRAME + FRAMES as Word <= REPLY_SLOT);

struct Server {
    sessions: SessionCaps<cap_type::Endpoint>,
    open: [Option<Derived<cap_type::Endpoint>>; SESSIONS],
    queues: [Option<Progress>; QUEUES],
    /// Frames in the bundle, and those of them that are taken out.
    granted: u32,
    taken: u32,
    calls: Word,
}

/// What goes with an answer.
type Answer = Result<(Word, Option<CPtr>)>;

/// A slot of this CSpace.
fn own(index: Word) -> AbsoluteCPtr {
    let cspace: cap::CNode = Cap::from_bits(CSPACE);
    cspace.absolute_cptr_from_bits_with_depth(index, CSPACE_BITS)
}

/// Where the descriptor of a slot is.
pub fn descriptor_at(queue: u32, slot: u32) -> usize {
    SHARED + (queue * queue::ENTRIES + slot) as usize * size_of::<Word>()
}

const fn window_at(index: u32) -> usize {
    WINDOW + index as usize * sel4::GRANULE_SIZE
}

impl Server {
    fn control(&mut self, call: &Message) -> Answer {
        let params = (call.length > 0).then_some(call.words[0]);
        let method = Method::decode((call.label, params)).map_err(|_| Error::IllegalOperation)?;
        let word = match method {
            Method::OpenSession { parent } => return self.open(parent),
            Method::Echo => 0,
            Method::CloseSession { session } => self.close(session)?,
            Method::RegisterQueue { queue } => self.register(call, queue)?,
            Method::Kick { queue, head } => self.kick(queue, head)?,
            Method::PreGrantMemory { frames } => self.granted(call, frames)?,
            Method::UseMemory => self.use_memory()?,
            Method::ReturnMemory => self.return_memory()?,
            Method::RevokeSessions => self.revoke()?,
            Method::CountCalls => self.calls,
        };
        Ok((word, None))
    }

    fn open(&mut self, parent: u32) -> Answer {
        let free = self.open.iter().position(Option::is_none);
        let free = free.ok_or(Error::NotEnoughMemory)?;
        let parent = match (parent as usize).checked_sub(1) {
            None => None,
            Some(index) => {
                let open = self.open.get(index).and_then(Option::as_ref);
                Some(open.ok_or(Error::InvalidArgument)?)
            }
        };
        let derived = self.sessions.derive(parent, own(SESSION + free as Word));
        let derived = derived.map_err(|_| Error::NotEnoughMemory)?;
        let given = derived.cap().cptr();
        self.open[free] = Some(derived);
        Ok((free as Word + 1, Some(given)))
    }

    fn close(&mut self, session: u32) -> Result<Word> {
        let index = (session as usize).wrapping_sub(1);
        let open = self.open.get_mut(index).and_then(Option::take);
        self.sessions
            .give_back(open.ok_or(Error::InvalidArgument)?)?;
        Ok(self.sessions.live().into())
    }

    fn revoke(&mut self) -> Result<Word> {
        self.sessions.revoke()?;
        self.open = [const { None }; SESSIONS];
        Ok(0)
    }

    /// Keeps what came with the call, in place of what was there.
    fn keep(call: &Message, place: Word) -> Result<Word> {
        if !call.has_cap {
            return Err(Error::InvalidCapability);
        }
        own(place).delete()?;
        own(place).move_(&own(ARRIVED))?;
        Ok(0)
    }

    fn register(&mut self, call: &Message, queue: u32) -> Result<Word> {
        let progress = self.queues.get_mut(queue as usize);
        let progress = progress.ok_or(Error::InvalidArgument)?;
        *progress = Some(Progress::default());
        Self::keep(call, QUEUE + Word::from(queue))
    }

    fn kick(&mut self, queue: u32, head: u32) -> Result<Word> {
        let kept = self.queues.get_mut(queue as usize);
        let kept = kept.ok_or(Error::InvalidArgument)?;
        let progress = kept.as_mut().ok_or(Error::IllegalOperation)?;
        let read = |slot| {
            let at = with_exposed_provenance::<Word>(descriptor_at(queue, slot));
            // SAFETY: the page is mapped before the server starts and has a
            // word for each slot of each queue, of which `queue` is one; the
            // word is copied once.
            let word = unsafe { at.read_volatile() };
            Descriptor {
                offset: word as u32,
                length: (word >> 32) as u32,
            }
        };
        let taken = process_tx_queue(progress, head, read, |_| {});
        let Ok(taken) = taken else {
            *kept = None;
            return Err(Error::InvalidArgument);
        };
        let completion: cap::Notification = Cap::from_bits(QUEUE + Word::from(queue));
        completion.signal();
        Ok(taken.into())
    }

    fn granted(&mut self, call: &Message, frames: u32) -> Result<Word> {
        if frames > FRAMES || self.taken != 0 {
            return Err(Error::RangeError);
        }
        Self::keep(call, BUNDLE)?;
        self.granted = frames;
        Ok(0)
    }

    fn bundle() -> CapBundle<cap_type::Granule> {
        CapBundle::new(Cap::from_bits(BUNDLE), BUNDLE_BITS)
    }

    /// Takes every frame and maps it; how many of them hold what was written.
    fn use_memory(&mut self) -> Result<Word> {
        let vspace: cap::VSpace = Cap::from_bits(VSPACE);
        for index in self.taken..self.granted {
            let place = own(FRAME + Word::from(index));
            let frame = Self::bundle().take(index.into(), &place)?;
            let rights = CapRights::read_write();
            let mapped = frame.frame_map(vspace, window_at(index), rights, VmAttributes::DEFAULT);
            if let Err(error) = mapped {
                Self::bundle().put(index.into(), &place)?;
                return Err(error);
            }
            self.taken = index + 1;
        }
        let page = |index| with_exposed_provenance_mut::<u32>(window_at(index));
        for index in 0..self.taken {
            // SAFETY: mapped for writing in the loop above, by this server only.
            unsafe { page(index).write_volatile(!index) }
        }
        // SAFETY: as for the writes.
        let kept = |&index: &u32| unsafe { page(index).read_volatile() } == !index;
        Ok((0..self.taken).filter(kept).count() as Word)
    }

    fn return_memory(&mut self) -> Result<Word> {
        let taken = self.taken;
        while let Some(index) = self.taken.checked_sub(1) {
            let place = FRAME + Word::from(index);
            let frame: cap::Granule = Cap::from_bits(place);
            frame.frame_unmap()?;
            Self::bundle().put(index.into(), &own(place))?;
            self.taken = index;
        }
        Ok(taken.into())
    }
}

impl Service for Server {
    #[inline]
    fn dispatch(&mut self, badge: Badge, call: Message) -> (Message, Option<CPtr>) {
        self.calls += 1;
        let known = badge == CLIENT || badge == IN_SESSION;
        if known && call.label == sel4_direct::messages::ECHO {
            return (Message::new(DONE, call.length, call.words), None);
        }
        let answer = match badge {
            CLIENT => self.control(&call),
            _ => Err(Error::IllegalOperation),
        };
        match answer {
            Ok((word, given)) => (Message::new(DONE, 1, [word, 0, 0, 0]), given),
            Err(_) => (Message::new(REFUSED, 0, [0; 4]), None),
        }
    }

    fn refused(&mut self, _: Badge) {
        self.calls += 1;
    }
}

/// Serves for ever.
pub extern "C" fn serve() -> ! {
    let endpoint = Cap::from_bits(SERVICE);
    let transport =
        Sel4DirectTransport::receiving(endpoint, own(ARRIVED)).replying_through(own_reply());
    let mut server = Server {
        sessions: SessionCaps::at(own(ROOT), SESSIONS as u32),
        open: [const { None }; SESSIONS],
        queues: [const { None }; QUEUES],
        granted: 0,
        taken: 0,
        calls: 0,
    };
    ready();
    let mut call = transport.receive();
    loop {
        call = transport.serve_once(&mut server, call);
    }
}
