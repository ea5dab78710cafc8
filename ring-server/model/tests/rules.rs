//! One test for each rule that no `check` can see, named by its label.

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use capos_config::KernelCapSource;
use capos_config::ring::*;
use ring_server_core::cap_table::CapError;
use ring_server_core::{
    AccessFault, CAPSET_PAGE_BYTES, CapId, CapTable, Entry, Grant, Hold, HoldOrigin, Limits,
    Machine, Object, Objects, PROCESS_SLOTS, Pid, ProcessSpec, RingPage, RingWord, Server,
    SessionInfo, ThreadRef, Tid, TransferMode, TransferScope, WAIT_FOREVER,
};
use ring_server_model::{Client, Model, ModelRing, System, call, sqe};

/// What a server did to a ring page.
#[derive(Debug, Default)]
struct Seen {
    reads: Vec<u32>,
    stores: Vec<(RingWord, u32)>,
}

/// A page that records accesses, and whose client rewrites everything it can
/// behind the server's back: a submission once it was read, and the server's
/// own words.
#[derive(Clone, Debug)]
struct HostileRing {
    page: ModelRing,
    seen: Rc<RefCell<Seen>>,
}

impl RingPage for HostileRing {
    fn load(&self, word: RingWord) -> u32 {
        self.page.load(word)
    }

    fn store(&self, word: RingWord, value: u32) {
        self.seen.borrow_mut().stores.push((word, value));
        // The client overwrites what the server publishes, at once.
        self.page.store(word, 0x5555_5555);
    }

    fn read_sqe(&self, slot: u32) -> CapSqe {
        self.seen.borrow_mut().reads.push(slot);
        let entry = self.page.read_sqe(slot);
        self.page.write_sqe(slot, &sqe(0xee, 0xdead));
        entry
    }

    fn write_cqe(&self, slot: u32, cqe: &CapCqe) {
        self.page.write_cqe(slot, cqe);
    }
}

/// The model machine on hostile pages.
#[derive(Debug, Default)]
struct Hostile(Model);

impl Machine for Hostile {
    type Ring = HostileRing;

    fn now_ns(&mut self) -> u64 {
        self.0.now_ns
    }

    fn console_write(&mut self, bytes: &[u8]) {
        self.0.console_write(bytes);
    }

    fn read(&mut self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        self.0.read(pid, addr, out)
    }

    fn write(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        self.0.write(pid, addr, bytes)
    }

    fn resume(&mut self, thread: ThreadRef, rax: u64) {
        self.0.resume(thread, rax);
    }
}

/// R1, R2 and M1: the server keeps its own indices, reads each submission
/// once, and posts one completion for it, whatever the page says afterwards.
#[test]
fn indices_are_private_and_submissions_are_read_once() {
    let mut server = Server::<Hostile>::new();
    let mut machine = Hostile::default();
    let ring = HostileRing {
        page: ModelRing::new(),
        seen: Rc::default(),
    };
    let mut capset = Box::new([0; CAPSET_PAGE_BYTES]);
    let space = ring_server_core::AddressMap::new(0);
    let spec = ProcessSpec::new(ring.clone(), space);
    let pid = server.create_process(spec, &mut capset).unwrap();
    for slot in 0..16 {
        ring.page.write_sqe(slot, &sqe(CAP_OP_NOP, u64::from(slot)));
    }
    ring.page.store(RingWord::SqTail, 16);
    let entry = server.cap_enter(&mut machine, pid, Tid::MAIN, 0, 0);
    server.check();
    assert!(matches!(entry, Entry::Resume(_)));
    let seen = std::mem::take(&mut *ring.seen.borrow_mut());
    assert_eq!(seen.reads, (0..16).collect::<Vec<_>>(), "M1: read once");
    let stored = |wanted: RingWord| -> Vec<u32> {
        let words = seen.stores.iter().filter(|(word, _)| *word == wanted);
        words.map(|&(_, value)| value).collect()
    };
    assert_eq!(stored(RingWord::SqHead), [16], "R1");
    assert_eq!(stored(RingWord::CqTail), [16], "R1");
    for slot in 0..16 {
        let cqe = ring.page.read_cqe(slot);
        assert_eq!((cqe.user_data, cqe.result), (slot.into(), 0), "R2");
    }
    // The page now shows indices of the client's invention.
    // What ends a run of NOPs was read to see that, and is taken as it was.
    for (slot, opcode) in [CAP_OP_NOP, CAP_OP_NOP, CAP_OP_RELEASE, CAP_OP_NOP]
        .into_iter()
        .enumerate()
    {
        let entry = sqe(opcode, 16 + slot as u64);
        ring.page.write_sqe(slot as u32, &entry);
    }
    ring.page.store(RingWord::SqTail, 20);
    ring.page.store(RingWord::CqHead, 16);
    server.cap_enter(&mut machine, pid, Tid::MAIN, 0, 0);
    server.check();
    let seen = std::mem::take(&mut *ring.seen.borrow_mut());
    assert_eq!(seen.reads, [0, 1, 2, 3], "R1: its own head goes on");
    assert_eq!(ring.page.read_cqe(18).user_data, 18, "R2");
    assert_eq!(ring.page.read_cqe(18).result, CAP_ERR_INVALID_REQUEST, "R2");
    assert_eq!(ring.page.read_cqe(19).user_data, 19, "R1: so does its tail");
}

/// R3: completions that were not read are not overwritten.
#[test]
fn unread_completions_stay() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for user_data in 0..40 {
        if user_data % 16 == 0 {
            system.enter(&client, 0, 0);
        }
        client.submit_unchecked(&sqe(CAP_OP_NOP, user_data));
    }
    system.enter(&client, 0, 0);
    let kept: Vec<u64> = (0..CQ_ENTRIES)
        .map(|slot| client.ring.read_cqe(slot).user_data)
        .collect();
    assert_eq!(kept, (0..32).collect::<Vec<_>>(), "R3: the oldest 32");
    assert_eq!(client.ring.load(RingWord::CqOverflow), 0, "nothing is lost");
}

/// R5: what was deferred is posted first, before later completions and before
/// any submission is taken.
#[test]
fn deferred_completions_come_first() {
    let mut system = System::new();
    let mut client = system.spawn(&[Grant::kernel("timer", KernelCapSource::Timer)]);
    for (user_data, duration_ns) in [(100, 1000), (101, 2000)] {
        let params = support::sleep_params(duration_ns);
        system.poke(&client, Client::DATA, &params);
        let sleep = CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            ..call(user_data, client.cap("timer"), 1)
        };
        assert!(system.run(&mut client, &sleep).is_none());
    }
    for user_data in 0..32 {
        client.submit_unchecked(&sqe(CAP_OP_NOP, user_data));
        system.enter(&client, 0, 0);
    }
    system.pass(1500);
    // The first sleep found no room. There is room for one when the second
    // ends, but it is not the second's.
    client.completion();
    system.pass(1500);
    client.submit_unchecked(&sqe(CAP_OP_NOP, 200));
    system.enter(&client, 0, 0);
    let mut order: Vec<u64> = client.completions().iter().map(|c| c.user_data).collect();
    system.enter(&client, 0, 0);
    order.extend(client.completions().iter().map(|c| c.user_data));
    assert_eq!(order[30..], [31, 100, 101, 200], "R5: oldest first");
}

/// S1: one resume for one block, whatever comes together.
#[test]
fn a_blocked_thread_is_resumed_once() {
    let mut system = System::new();
    let mut client = system.spawn(&[Grant::kernel("timer", KernelCapSource::Timer)]);
    let params = support::sleep_params(1000);
    system.poke(&client, Client::DATA, &params);
    for user_data in 1..=3 {
        client.submit(&CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            ..call(user_data, client.cap("timer"), 1)
        });
    }
    assert_eq!(system.enter(&client, 1, 1000), Entry::Block);
    system.pass(1000);
    system.pass(1000);
    assert_eq!(
        system.machine.resumed.len(),
        1,
        "S1: three sleeps and a timeout end at once, one resume"
    );
    assert_eq!(client.completions().len(), 3);
}

/// P1: the numbers of processes that ended are not issued again.
#[test]
fn process_numbers_are_not_reused() {
    let mut system = System::new();
    let mut last = 0;
    for _ in 0..3 * PROCESS_SLOTS {
        let client = system.spawn(&[]);
        assert!(client.pid.raw() > last, "P1: {:?}", client.pid);
        last = client.pid.raw();
        let stale = client.pid;
        system.kill(client);
        assert!(!system.server.is_live(stale));
        let entry = system
            .server
            .cap_enter(&mut system.machine, stale, Tid::MAIN, 0, 0);
        assert_eq!(entry, Entry::Resume(ring_server_core::ENTER_REJECTED));
    }
}

fn a_hold(objects: &mut Objects) -> Hold {
    Hold {
        pages: 0,
        object: objects.insert(Object::Console).unwrap(),
        epoch: objects.insert_epoch().unwrap(),
        observed_epoch: 0,
        interface_id: 1,
        badge: 0,
        disclosure_scope: 0,
        transfer_mode: TransferMode::Copy,
        transfer_scope: TransferScope::SameSession,
        origin: HoldOrigin::Kernel,
    }
}

/// T1 and T2: no two of a slot's capabilities have one number.
#[test]
fn a_slot_never_issues_a_number_twice() {
    let mut objects = Objects::with_capacity(1, 1);
    let hold = a_hold(&mut objects);
    let mut table = CapTable::new(2);
    let mut issued = std::collections::BTreeSet::new();
    for _ in 0..300 {
        let id = table.insert(hold).unwrap();
        assert!(issued.insert(id), "T1: {id:?} was issued before");
        for &stale in issued.iter().filter(|&&stale| stale != id) {
            assert!(table.peek(stale).is_err(), "T1: {stale:?} is stale");
        }
        table.remove(id).unwrap();
        table.check();
        assert_eq!(table.remove(id), Err(table.peek(id).unwrap_err()));
    }
    assert_eq!(table.retired(), 1, "T2: 256 generations were used up");
    assert_eq!(
        table.peek(CapId::from_raw(0xffff_ffff)),
        Err(CapError::NotFound)
    );
}

/// An owner, a client of its endpoint, and a second owner of another one.
struct Triangle {
    system: System,
    owner: Client,
    client: Client,
    bystander: Client,
}

impl Triangle {
    fn new() -> Self {
        let mut system = System::new();
        let own = [
            Grant::kernel("own", KernelCapSource::Endpoint),
            Grant::kernel("console", KernelCapSource::Console),
        ];
        let owner = system.spawn(&own);
        let bystander = system.spawn(&own);
        let facet = Grant::client("peer", owner.pid, owner.cap_id("own"));
        let client = system.spawn(&[facet, Grant::kernel("console", KernelCapSource::Console)]);
        Self {
            system,
            owner,
            client,
            bystander,
        }
    }

    fn call(&self, user_data: u64) -> CapSqe {
        CapSqe {
            addr: Client::DATA,
            len: 8,
            result_addr: Client::DATA + 0x1000,
            result_len: 256,
            ..call(user_data, self.client.cap("peer"), 1)
        }
    }

    /// One call, delivered; its id.
    fn deliver(&mut self, user_data: u64) -> u32 {
        let call = self.call(user_data);
        assert!(self.system.run(&mut self.client, &call).is_none());
        let recv = System::recv_sqe(self.owner.cap("own"), user_data);
        let cqe = self.system.run(&mut self.owner, &recv).expect("it waits");
        assert!(cqe.result >= 56);
        cqe.call_id
    }

    fn answer(&mut self, user_data: u64, call_id: u32) -> i32 {
        let ret = System::return_sqe(self.owner.cap("own"), user_data, call_id, 0);
        self.system.result(&mut self.owner, &ret)
    }
}

/// E4: the id of a finished call does not answer the next one in its place.
#[test]
fn a_call_id_names_one_delivery() {
    let mut triangle = Triangle::new();
    let mut old = Vec::new();
    for user_data in 1..20 {
        let id = triangle.deliver(user_data);
        for &stale in &old {
            assert_ne!(stale, id, "E4: reissued");
            assert_eq!(
                triangle.answer(900, stale),
                CAP_ERR_INVOKE_FAILED,
                "E4: {stale:#x} is over"
            );
        }
        assert_eq!(triangle.answer(901, id), 0);
        assert_eq!(triangle.client.completion().unwrap().user_data, user_data);
        old.push(id);
    }
}

#[test]
fn a_call_is_returned_only_by_its_receiver_through_its_endpoint() {
    let mut triangle = Triangle::new();
    let id = triangle.deliver(1);
    let other = System::return_sqe(triangle.bystander.cap("own"), 1, id, 0);
    let result = triangle.system.result(&mut triangle.bystander, &other);
    assert_eq!(
        result, CAP_ERR_INVOKE_FAILED,
        "neither endpoint nor receiver"
    );
    // A second owner of the same endpoint did not receive this call.
    let own = triangle.owner.cap_id("own");
    let share = Grant::held(
        "own",
        triangle.owner.pid,
        own,
        ring_server_core::Passing::Raw,
    );
    let second_endpoint = Grant::kernel("second", KernelCapSource::Endpoint);
    let mut heir = triangle.system.spawn(&[share, second_endpoint]);
    let stolen = System::return_sqe(heir.cap("own"), 2, id, 0);
    let result = triangle.system.result(&mut heir, &stolen);
    assert_eq!(result, CAP_ERR_INVOKE_FAILED, "not its receiver");
    // The receiver must name the endpoint the call came through.
    let recv = System::recv_sqe(heir.cap("own"), 3);
    let call = triangle.call(2);
    assert!(triangle.system.run(&mut triangle.client, &call).is_none());
    let received = triangle.system.run(&mut heir, &recv).unwrap().call_id;
    let wrong = System::return_sqe(heir.cap("second"), 4, received, 0);
    let result = triangle.system.result(&mut heir, &wrong);
    assert_eq!(result, CAP_ERR_INVOKE_FAILED, "another endpoint of its own");
    let right = System::return_sqe(heir.cap("own"), 5, received, 0);
    assert_eq!(triangle.system.result(&mut heir, &right), 0);
    assert_eq!(triangle.answer(6, id), 0);
}

/// M2: params and descriptors are copied when the call is dispatched.
#[test]
fn what_a_client_rewrites_after_its_call_does_not_arrive() {
    let mut triangle = Triangle::new();
    triangle
        .system
        .poke(&triangle.client, Client::DATA, b"original");
    let console = triangle.client.cap("console");
    triangle
        .system
        .put_descriptors(&triangle.client, 8, &[(console, CAP_TRANSFER_MODE_COPY)]);
    let call = CapSqe {
        xfer_cap_count: 1,
        ..triangle.call(1)
    };
    assert!(triangle.system.run(&mut triangle.client, &call).is_none());
    triangle
        .system
        .poke(&triangle.client, Client::DATA, &[0xff; 64]);
    let recv = System::recv_sqe(triangle.owner.cap("own"), 1);
    let cqe = triangle.system.run(&mut triangle.owner, &recv).unwrap();
    let message = triangle.system.message(&triangle.owner, &recv, &cqe);
    assert_eq!(message.params, b"original", "M2");
    assert_eq!(message.caps.len(), 1, "M2");
}

/// M3: a machine is called with nothing to call back with; `Server` methods
/// take it and the server apart, so this is a matter of types.
#[test]
fn machines_get_no_server() {
    fn takes_both(server: &mut Server<Model>, machine: &mut Model) {
        server.advance(machine, 0);
    }
    let mut system = System::new();
    takes_both(&mut system.server, &mut system.machine);
}

#[test]
fn a_pending_move_can_neither_be_released_nor_sent_again() {
    let mut triangle = Triangle::new();
    let console = triangle.client.cap("console");
    triangle
        .system
        .put_descriptors(&triangle.client, 8, &[(console, CAP_TRANSFER_MODE_MOVE)]);
    let moving = CapSqe {
        xfer_cap_count: 1,
        ..triangle.call(1)
    };
    assert!(triangle.system.run(&mut triangle.client, &moving).is_none());
    let release = System::release_sqe(console, 2);
    let result = triangle.system.result(&mut triangle.client, &release);
    assert_eq!(result, CAP_ERR_INVALID_REQUEST, "it is on its way");
    let again = CapSqe {
        user_data: 3,
        ..moving
    };
    let result = triangle.system.result(&mut triangle.client, &again);
    assert_eq!(result, CAP_ERR_TRANSFER_ABORTED);
    // Its endpoint closes: the move comes back.
    let owner = triangle.owner;
    triangle.system.kill(owner);
    triangle.client.completions();
    assert_eq!(triangle.system.result(&mut triangle.client, &release), 0);
}

#[test]
fn sessions_are_bounded_and_end_with_their_last_process() {
    let mut system = System::new();
    assert!(SessionInfo::new(b"").is_none());
    assert!(SessionInfo::new(&[1; 33]).is_none());
    let info = SessionInfo::new(b"somebody").unwrap();
    let mut open = Vec::new();
    while let Some(session) = system.server.open_session(info) {
        open.push(session);
    }
    assert_eq!(
        open.len() as u32,
        ring_server_core::Capacity::DEFAULT.sessions - 1
    );
    let session = open.pop().unwrap();
    let client = system.spawn_in(session, &[]);
    system.end_session(session);
    let refused = system.try_spawn(&[], Limits::CEILING, Some(session));
    assert_eq!(
        refused.map(|_| ()),
        Err(ring_server_core::CreateError::NoSuchSession)
    );
    assert!(system.server.open_session(info).is_none(), "still in use");
    system.kill(client);
    assert!(system.server.open_session(info).is_some());
}

#[test]
fn a_wait_that_never_ends_is_armed_for_nothing() {
    let mut system = System::new();
    let client = system.spawn(&[]);
    assert_eq!(system.enter(&client, 1, WAIT_FOREVER), Entry::Block);
    assert_eq!(system.server.next_deadline(), None);
    let entry = system.enter_as(&client, Tid::from_raw(9), 0, 0);
    assert_eq!(entry, Entry::Resume(ring_server_core::ENTER_REJECTED));
}

#[test]
fn a_call_that_is_not_admitted_gives_its_capabilities_back() {
    let mut triangle = Triangle::new();
    let console = triangle.client.cap("console");
    // Params at the end of one page, descriptors at the start of the next.
    triangle.system.put_descriptors(
        &triangle.client,
        0x1000,
        &[(console, CAP_TRANSFER_MODE_MOVE)],
    );
    let pid = triangle.client.pid;
    let memory = triangle.system.machine.memory.get_mut(&pid).unwrap();
    memory.unmap(Client::DATA, 0x1000);
    let call = CapSqe {
        addr: Client::DATA + 0xff8,
        xfer_cap_count: 1,
        ..triangle.call(1)
    };
    let result = triangle.system.result(&mut triangle.client, &call);
    assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER);
    let release = System::release_sqe(console, 2);
    let result = triangle.system.result(&mut triangle.client, &release);
    assert_eq!(result, 0, "it is not reserved any more");
}

#[test]
fn a_message_that_cannot_be_written_leaves_no_capability() {
    let mut triangle = Triangle::new();
    let console = triangle.client.cap("console");
    triangle
        .system
        .put_descriptors(&triangle.client, 8, &[(console, CAP_TRANSFER_MODE_MOVE)]);
    let call = CapSqe {
        xfer_cap_count: 1,
        ..triangle.call(1)
    };
    assert!(triangle.system.run(&mut triangle.client, &call).is_none());
    let recv = System::recv_sqe(triangle.owner.cap("own"), 1);
    let pid = triangle.owner.pid;
    let held = triangle.system.server.holds(pid).count();
    let memory = triangle.system.machine.memory.get_mut(&pid).unwrap();
    memory.unmap(recv.result_addr, 0x1000);
    let result = triangle.system.result(&mut triangle.owner, &recv);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
    assert_eq!(triangle.system.server.holds(pid).count(), held);
    let elsewhere = CapSqe {
        result_addr: Client::DATA + 0x4000,
        user_data: 2,
        ..recv
    };
    let cqe = triangle
        .system
        .run(&mut triangle.owner, &elsewhere)
        .unwrap();
    assert_eq!(
        cqe.cap_count, 1,
        "the call still waited, capability and all"
    );
    assert_eq!(triangle.system.server.holds(pid).count(), held + 1);
}

#[test]
fn a_record_of_a_result_is_written_only_where_the_caller_still_has_memory() {
    let mut triangle = Triangle::new();
    // The last bytes of the result buffer lie on the next page.
    let result_addr = Client::DATA + 0x2000 - 16;
    let call = CapSqe {
        result_addr,
        result_len: 64,
        ..triangle.call(1)
    };
    assert!(triangle.system.run(&mut triangle.client, &call).is_none());
    let recv = System::recv_sqe(triangle.owner.cap("own"), 1);
    let id = triangle
        .system
        .run(&mut triangle.owner, &recv)
        .unwrap()
        .call_id;
    let pid = triangle.client.pid;
    let gone = Client::DATA + 0x2000..Client::DATA + 0x2000 + 0x1000;
    let removed = triangle
        .system
        .server
        .change_address_space(pid, |space| space.remove(gone.start, gone.end, |_| ()));
    assert_eq!(removed, Some(Ok(())));
    let console = triangle.owner.cap("console");
    triangle
        .system
        .put_descriptors(&triangle.owner, 8, &[(console, CAP_TRANSFER_MODE_COPY)]);
    let ret = CapSqe {
        xfer_cap_count: 1,
        ..System::return_sqe(triangle.owner.cap("own"), 2, id, 8)
    };
    let beyond = triangle
        .system
        .peek(&triangle.client, Client::DATA + 0x2000, 16);
    triangle.system.result(&mut triangle.owner, &ret);
    let cqe = triangle.client.completion().expect("the call is over");
    assert_eq!(cqe.result, CAP_ERR_INVALID_RESULT_BUFFER);
    assert_eq!(
        triangle
            .system
            .peek(&triangle.client, Client::DATA + 0x2000, 16),
        beyond,
        "the server's own map decides"
    );
}
