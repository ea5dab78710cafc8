//! The capability table against upstream's own, operation by operation.
//!
//! Random sequences over three tables: same results, same errors, same charges,
//! and the references counted here stay equal to the holds there are. Two
//! deliberate differences are checked for what they are:
//! - a claim on an *empty* slot whose former hold was revoked is `Revoked`
//!   upstream and `NotFound` here;
//! - an epoch cell without holds is freed here.
//!
//! `RING_SEED` (decimal) replays a run; `RING_CASES` changes its length. An
//! unoptimised build runs a short version unless told otherwise.

use std::pin::Pin;
use std::sync::Arc;

use capos_lib::cap_table as upstream;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use ring_server_core::cap_table::{CapError, Prepared, TransferKind};
use ring_server_core::{
    CapId, CapTable, EpochId, Hold, HoldOrigin, Object, ObjectId, Objects, Pid, TransferMode,
    TransferScope,
};

const TABLES: usize = 3;
const KINDS: usize = 4;
const OPERATIONS_PER_CASE: usize = 200;
/// Cases of an optimised run: more than a million operations.
const WHOLE_RUN_CASES: u64 = 6_000;
const SEED: u64 = 0x5eed_ca70_5000_0001;

struct Dummy;

impl upstream::CapObject for Dummy {
    fn interface_id(&self) -> u64 {
        7
    }

    fn label(&self) -> &str {
        "dummy"
    }

    fn call(
        &self,
        _: u16,
        _: &[u8],
        _: &mut [u8],
        _: &mut dyn upstream::ReplyScratch,
    ) -> capnp::Result<upstream::CapInvokeResult> {
        Err(capnp::Error::from_kind(capnp::ErrorKind::Unimplemented))
    }
}

/// One step; numbers are taken modulo what is there.
#[derive(Clone, Debug)]
enum Op {
    Insert {
        table: usize,
        kind: usize,
        mode: u8,
        shared: bool,
    },
    Copy {
        from: usize,
        to: usize,
        cap: usize,
        origin: u8,
    },
    SpawnCopy {
        from: usize,
        to: usize,
        cap: usize,
        raw: bool,
    },
    PrepareMove {
        from: usize,
        cap: usize,
        spawn: bool,
    },
    InsertMove {
        pending: usize,
        to: usize,
    },
    CommitMove {
        pending: usize,
    },
    RollbackMove {
        pending: usize,
    },
    Release {
        table: usize,
        cap: usize,
    },
    Churn {
        table: usize,
        times: u8,
    },
    Revoke {
        table: usize,
        cap: usize,
    },
    Lookup {
        table: usize,
        cap: usize,
    },
    Forge {
        table: usize,
        raw: u32,
    },
    Clear {
        table: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let table = || 0..TABLES;
    let cap = || 0..400_usize;
    prop_oneof![
        20 => (table(), 0..KINDS, 0..3_u8, any::<bool>())
            .prop_map(|(table, kind, mode, shared)| Op::Insert { table, kind, mode, shared }),
        10 => (table(), table(), cap(), 0..5_u8)
            .prop_map(|(from, to, cap, origin)| Op::Copy { from, to, cap, origin }),
        5 => (table(), table(), cap(), any::<bool>())
            .prop_map(|(from, to, cap, raw)| Op::SpawnCopy { from, to, cap, raw }),
        8 => (table(), cap(), any::<bool>())
            .prop_map(|(from, cap, spawn)| Op::PrepareMove { from, cap, spawn }),
        8 => (0..8_usize, table()).prop_map(|(pending, to)| Op::InsertMove { pending, to }),
        6 => (0..8_usize).prop_map(|pending| Op::CommitMove { pending }),
        4 => (0..8_usize).prop_map(|pending| Op::RollbackMove { pending }),
        12 => (table(), cap()).prop_map(|(table, cap)| Op::Release { table, cap }),
        1 => (table(), any::<u8>()).prop_map(|(table, times)| Op::Churn { table, times }),
        2 => (table(), cap()).prop_map(|(table, cap)| Op::Revoke { table, cap }),
        8 => (table(), cap()).prop_map(|(table, cap)| Op::Lookup { table, cap }),
        4 => (table(), any::<u32>()).prop_map(|(table, raw)| Op::Forge { table, raw }),
        1 => table().prop_map(|table| Op::Clear { table }),
    ]
}

/// A move that is prepared on both sides, and inserted if `to` says where.
struct Pending {
    from: usize,
    ours: Prepared,
    theirs: upstream::PreparedCapTransfer,
    to: Option<(usize, CapId, upstream::ProvisionalCap)>,
}

struct Pair {
    objects: Objects,
    ours: Vec<CapTable>,
    theirs: Vec<Pin<Box<upstream::CapTable>>>,
    kinds: Vec<(ObjectId, Arc<dyn upstream::CapObject>)>,
    /// The last epoch cell made per object, for grants that share one.
    shared: Vec<Option<(EpochId, upstream::CapEpoch)>>,
    issued: Vec<Vec<CapId>>,
    pending: Vec<Pending>,
    operations: u64,
}

impl Pair {
    fn new() -> Self {
        let mut objects = Objects::with_capacity(KINDS as u32, 800);
        let kinds = (0..KINDS)
            .map(|kind| {
                let object = Object::CapabilityManager(Pid::from_raw(kind as u32));
                let id = objects.insert(object).expect("fits");
                (id, Arc::new(Dummy) as Arc<dyn upstream::CapObject>)
            })
            .collect();
        Self {
            objects,
            ours: (0..TABLES).map(|_| CapTable::new(256)).collect(),
            theirs: (0..TABLES)
                .map(|_| Box::pin(upstream::CapTable::new()))
                .collect(),
            kinds,
            shared: vec![None; KINDS],
            issued: vec![Vec::new(); TABLES],
            pending: Vec::new(),
            operations: 0,
        }
    }

    fn theirs(&mut self, table: usize) -> &mut upstream::CapTable {
        // SAFETY: the reference is used to call methods that change the table
        // in place; it is never moved out of its box, so the address that
        // provisional tokens record stays its own.
        unsafe { self.theirs[table].as_mut().get_unchecked_mut() }
    }

    fn claim(&self, table: usize, cap: usize) -> CapId {
        let issued = &self.issued[table];
        match issued.len() {
            0 => CapId::from_raw(0),
            len => issued[cap % len],
        }
    }

    fn remember(&mut self, table: usize, id: CapId) {
        self.issued[table].push(id);
        if self.issued[table].len() > 400 {
            self.issued[table].remove(0);
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Insert {
                table,
                kind,
                mode,
                shared,
            } => self.insert(table, kind, mode, shared),
            Op::Copy {
                from,
                to,
                cap,
                origin,
            } => self.copy(from, to, cap, origin),
            Op::SpawnCopy { from, to, cap, raw } => self.spawn_copy(from, to, cap, raw),
            Op::PrepareMove { from, cap, spawn } => self.prepare_move(from, cap, spawn),
            Op::InsertMove { pending, to } => self.insert_move(pending, to),
            Op::CommitMove { pending } => self.commit_move(pending),
            Op::RollbackMove { pending } => self.rollback_move(pending),
            Op::Release { table, cap } => {
                let id = self.claim(table, cap);
                self.release(table, id);
            }
            Op::Churn { table, times } => self.churn(table, times),
            Op::Revoke { table, cap } => self.revoke(table, cap),
            Op::Lookup { table, cap } => {
                let id = self.claim(table, cap);
                self.lookup(table, id);
            }
            Op::Forge { table, raw } => {
                // Near misses are the interesting forgeries.
                let id = CapId::from_raw(raw & 0x0300_00ff);
                self.lookup(table, id);
                self.release(table, id);
            }
            Op::Clear { table } => self.clear(table),
        }
        self.operations += 1;
        for (ours, theirs) in self.ours.iter().zip(&self.theirs) {
            let used = theirs.resource_usage().cap_slots_used;
            assert_eq!(ours.used() as usize, used, "same charge");
        }
        if self.operations.is_multiple_of(10) {
            self.check_references();
        }
    }

    fn insert(&mut self, table: usize, kind: usize, mode: u8, shared: bool) {
        let (object, theirs) = self.kinds[kind].clone();
        let reuse = self.shared[kind].clone().filter(|_| shared);
        let (epoch, their_epoch) = match reuse {
            Some((epoch, theirs)) => {
                self.objects.retain(object, epoch);
                (epoch, theirs)
            }
            None => {
                let Some(epoch) = self.objects.insert_epoch() else {
                    return;
                };
                self.objects.retain_object(object);
                (epoch, upstream::CapTable::new_cap_epoch())
            }
        };
        // The cell is kept alive while it is remembered: a freed one could
        // come back as another.
        self.objects.retain(object, epoch);
        let replaced = self.shared[kind].replace((epoch, their_epoch.clone()));
        if let Some((old, _)) = replaced {
            self.objects.release(object, old);
        }
        let (transfer_mode, their_mode) = mode_of(mode);
        let hold = Hold {
            pages: 0,
            object,
            epoch,
            observed_epoch: self.objects.epoch(epoch).expect("live"),
            interface_id: 7,
            badge: kind as u64,
            disclosure_scope: 0,
            transfer_mode,
            transfer_scope: TransferScope::SameSession,
            origin: HoldOrigin::Kernel,
        };
        let their_hold = upstream::CapHold {
            transfer_mode: their_mode,
            badge: kind as u64,
            ..upstream::CapHold::kernel_cap(7)
        };
        let ours = self.ours[table].insert(hold);
        let theirs = self
            .theirs(table)
            .insert_with_shared_epoch(theirs, their_hold, their_epoch);
        self.settle_insert(table, ours, theirs, hold);
    }

    fn settle_insert(
        &mut self,
        table: usize,
        ours: Result<CapId, CapError>,
        theirs: Result<u32, upstream::CapError>,
        hold: Hold,
    ) {
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours.raw(), theirs, "same capability number");
                self.remember(table, ours);
            }
            (Err(error), Err(theirs)) => {
                assert_same(error, &theirs);
                self.objects.release(hold.object, hold.epoch);
            }
            (ours, theirs) => panic!("insert: {ours:?} but upstream {:?}", theirs.is_ok()),
        }
    }

    fn copy(&mut self, from: usize, to: usize, cap: usize, origin: u8) {
        let id = self.claim(from, cap);
        let (origin, their_origin) = origin_of(origin);
        let ours = self.ours[from].prepare(id, TransferKind::Copy, origin, &mut self.objects);
        let theirs = self
            .theirs(from)
            .prepare_copy_transfer(id.raw(), their_origin);
        self.settle_copy(from, to, id, ours, theirs);
    }

    fn spawn_copy(&mut self, from: usize, to: usize, cap: usize, raw: bool) {
        let id = self.claim(from, cap);
        let kind = TransferKind::Copy;
        let ours = self.ours[from].prepare_spawn_grant(id, kind, raw, &mut self.objects);
        let theirs = if raw {
            self.theirs(from).prepare_raw_spawn_grant(id.raw())
        } else {
            self.theirs(from).prepare_spawn_grant(id.raw())
        };
        self.settle_copy(from, to, id, ours, theirs);
    }

    fn settle_copy(
        &mut self,
        from: usize,
        to: usize,
        id: CapId,
        ours: Result<Prepared, CapError>,
        theirs: Result<upstream::PreparedCapTransfer, upstream::CapError>,
    ) {
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_same_hold(&ours.hold, &theirs.hold());
                assert_eq!(theirs.source_id(), None);
                let inserted = self.ours[to].insert(ours.hold);
                let their_table = self.theirs[to].as_mut();
                let their_inserted = their_table.insert_provisional_transfer_ref(&theirs);
                match (inserted, their_inserted) {
                    (Ok(ours), Ok(theirs)) => {
                        assert_eq!(ours.raw(), theirs.id());
                        self.remember(to, ours);
                    }
                    (Err(error), Err(theirs)) => {
                        assert_same(error, &theirs);
                        self.objects.release(ours.hold.object, ours.hold.epoch);
                    }
                    _ => panic!("copy is inserted on one side only"),
                }
            }
            (Err(error), Err(theirs)) => self.assert_same_at(from, id, error, &theirs),
            (ours, theirs) => panic!("copy: {ours:?} but upstream {:?}", theirs.is_ok()),
        }
    }

    fn prepare_move(&mut self, from: usize, cap: usize, spawn: bool) {
        let id = self.claim(from, cap);
        let kind = TransferKind::Move;
        let (ours, theirs) = if spawn {
            (
                self.ours[from].prepare_spawn_grant(id, kind, false, &mut self.objects),
                self.theirs(from).prepare_move_spawn_grant(id.raw()),
            )
        } else {
            let origin = upstream::CapHoldOrigin::IpcTransfer;
            (
                self.ours[from].prepare(id, kind, HoldOrigin::IpcTransfer, &mut self.objects),
                self.theirs(from).prepare_move_transfer(id.raw(), origin),
            )
        };
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours.source.map(CapId::raw), theirs.source_id());
                assert_same_hold(&ours.hold, &theirs.hold());
                self.pending.push(Pending {
                    from,
                    ours,
                    theirs,
                    to: None,
                });
            }
            (Err(error), Err(theirs)) => self.assert_same_at(from, id, error, &theirs),
            (ours, theirs) => panic!("move: {ours:?} but upstream {:?}", theirs.is_ok()),
        }
    }

    fn insert_move(&mut self, pending: usize, to: usize) {
        let len = self.pending.len();
        let Some(at) = pending.checked_rem(len) else {
            return;
        };
        if self.pending[at].to.is_some() {
            return;
        }
        let ours = self.ours[to].insert(self.pending[at].ours.hold);
        let theirs = self.theirs[to]
            .as_mut()
            .insert_provisional_transfer_ref(&self.pending[at].theirs);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours.raw(), theirs.id());
                let hold = self.pending[at].ours.hold;
                // One reference for the hold, one for the pin: the test keeps
                // both so that either can go first.
                self.objects.retain(hold.object, hold.epoch);
                self.pending[at].to = Some((to, ours, theirs));
                self.remember(to, ours);
            }
            (Err(error), Err(theirs)) => assert_same(error, &theirs),
            (ours, theirs) => panic!("insert: {ours:?} but upstream {:?}", theirs.is_ok()),
        }
    }

    /// Commits: the destination's token first, then the source goes.
    fn commit_move(&mut self, pending: usize) {
        let Some(at) = pending.checked_rem(self.pending.len()) else {
            return;
        };
        let Pending { from, ours, to, .. } = self.pending.swap_remove(at);
        let source = ours.source.expect("a move has a source");
        let Some((to, inserted, token)) = to else {
            let given_back = self.ours[from].rollback_move(source);
            let theirs = self
                .theirs(from)
                .rollback_prepared_move_transfer(source.raw());
            self.assert_same_result(from, source, given_back, theirs);
            self.objects.release(ours.hold.object, ours.hold.epoch);
            return;
        };
        let live = self.ours[to].lookup(inserted, &self.objects).map(|_| ());
        let committed = self.theirs[to].as_mut().commit_provisional_transfer(token);
        self.assert_same_result(to, inserted, live, committed.map(|_| ()));
        let removed = self.ours[from].commit_move(source);
        let theirs = self
            .theirs(from)
            .commit_prepared_move_transfer(source.raw());
        if let Ok(hold) = removed {
            self.objects.release(hold.object, hold.epoch);
        }
        self.assert_same_result(from, source, removed.map(|_| ()), theirs.map(|_| ()));
        self.objects.release(ours.hold.object, ours.hold.epoch);
    }

    /// Rolls back: the destination's hold goes, the source is given back.
    fn rollback_move(&mut self, pending: usize) {
        let Some(at) = pending.checked_rem(self.pending.len()) else {
            return;
        };
        let Pending { from, ours, to, .. } = self.pending.swap_remove(at);
        if let Some((to, inserted, token)) = to {
            let withdrawn = self.ours[to].remove(inserted);
            let theirs = self.theirs[to]
                .as_mut()
                .rollback_provisional_transfer(token);
            if let Ok(hold) = withdrawn {
                self.objects.release(hold.object, hold.epoch);
            }
            self.assert_same_result(to, inserted, withdrawn.map(|_| ()), theirs.map(|_| ()));
        }
        let source = ours.source.expect("a move has a source");
        let given_back = self.ours[from].rollback_move(source);
        let theirs = self
            .theirs(from)
            .rollback_prepared_move_transfer(source.raw());
        self.assert_same_result(from, source, given_back, theirs);
        self.objects.release(ours.hold.object, ours.hold.epoch);
    }

    fn release(&mut self, table: usize, id: CapId) {
        let ours = self.ours[table].remove(id);
        let theirs = self.theirs(table).remove(id.raw());
        if let Ok(hold) = ours {
            self.objects.release(hold.object, hold.epoch);
        }
        self.assert_same_result(table, id, ours.map(|_| ()), theirs.map(|_| ()));
    }

    /// Inserts and releases in turn: reaches the last generation of a slot.
    fn churn(&mut self, table: usize, times: u8) {
        for _ in 0..times {
            let used = self.ours[table].used();
            self.insert(table, 0, 1, true);
            if self.ours[table].used() == used {
                return;
            }
            if let Some(&id) = self.issued[table].last() {
                self.release(table, id);
            }
        }
    }

    fn revoke(&mut self, table: usize, cap: usize) {
        let id = self.claim(table, cap);
        let Ok(&hold) = self.ours[table].lookup(id, &self.objects) else {
            return;
        };
        let object = self
            .theirs(table)
            .cap_hold(id.raw())
            .expect("same")
            .object_id;
        let mut cells: Vec<EpochId> = self.ours[table]
            .iter()
            .filter(|(_, other)| other.object == hold.object)
            .map(|(_, other)| other.epoch)
            .collect();
        cells.sort_unstable();
        cells.dedup();
        for cell in cells {
            self.objects.bump_epoch(cell);
        }
        self.theirs(table)
            .revoke_object_caps(object)
            .expect("the object is held");
    }

    fn lookup(&mut self, table: usize, id: CapId) {
        let ours = self.ours[table].lookup(id, &self.objects).copied();
        let theirs = self.theirs(table).cap_hold(id.raw());
        // Upstream answers the remains of an empty slot here; what matters is
        // whether an object can be had.
        let usable = self.theirs(table).get(id.raw()).map(|_| ());
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            assert_same_hold(&ours, &theirs);
        }
        self.assert_same_result(table, id, ours.map(|_| ()), usable);
    }

    fn clear(&mut self, table: usize) {
        let objects = &mut self.objects;
        self.ours[table].clear(|hold| {
            objects.release(hold.object, hold.epoch);
        });
        self.theirs(table).clear();
        // Transfers out of or into this table have lost a side: end them.
        while let Some(at) = self
            .pending
            .iter()
            .position(|p| p.from == table || p.to.as_ref().is_some_and(|(to, ..)| *to == table))
        {
            self.rollback_move(at);
        }
    }

    fn assert_same_result(
        &self,
        table: usize,
        id: CapId,
        ours: Result<(), CapError>,
        theirs: Result<(), upstream::CapError>,
    ) {
        match (ours, theirs) {
            (Ok(()), Ok(())) => {}
            (Err(ours), Err(theirs)) => self.assert_same_at(table, id, ours, &theirs),
            (ours, theirs) => panic!("{ours:?} but upstream {theirs:?} for {id:?}"),
        }
    }

    fn assert_same_at(&self, table: usize, id: CapId, ours: CapError, theirs: &upstream::CapError) {
        let empty = self.theirs[table].get_arc_allow_revoked(id.raw()).is_err();
        let remains = matches!(theirs, upstream::CapError::Revoked);
        if empty && remains && ours == CapError::NotFound {
            return;
        }
        assert_same(ours, theirs);
    }

    fn check_references(&self) {
        let mut holds = 0;
        for table in &self.ours {
            table.check();
            holds += u64::from(table.used());
        }
        self.objects.check();
        let pins = self.pending.len() as u64;
        let (objects, epochs) = self.objects.total_references();
        let shared = self.shared.iter().flatten().count() as u64;
        let expected = holds + pins + shared;
        assert_eq!(objects, expected + KINDS as u64, "object references");
        assert_eq!(epochs, expected, "epoch references");
    }
}

fn mode_of(mode: u8) -> (TransferMode, upstream::CapTransferMode) {
    match mode {
        0 => (
            TransferMode::NonTransferable,
            upstream::CapTransferMode::NonTransferable,
        ),
        1 => (TransferMode::Copy, upstream::CapTransferMode::Copy),
        _ => (TransferMode::Move, upstream::CapTransferMode::Move),
    }
}

fn origin_of(origin: u8) -> (HoldOrigin, upstream::CapHoldOrigin) {
    match origin {
        0 => (HoldOrigin::Kernel, upstream::CapHoldOrigin::Kernel),
        1 => (HoldOrigin::SpawnGrant, upstream::CapHoldOrigin::SpawnGrant),
        2 => (HoldOrigin::ResultCap, upstream::CapHoldOrigin::ResultCap),
        _ => (
            HoldOrigin::IpcTransfer,
            upstream::CapHoldOrigin::IpcTransfer,
        ),
    }
}

fn assert_same(ours: CapError, theirs: &upstream::CapError) {
    use upstream::CapError as Upstream;
    let same = matches!(
        (ours, theirs),
        (CapError::NotFound, Upstream::NotFound)
            | (CapError::StaleGeneration, Upstream::StaleGeneration)
            | (CapError::Revoked, Upstream::Revoked)
            | (CapError::TransferNotAllowed, Upstream::TransferNotAllowed)
            | (CapError::TransferPending, Upstream::TransferPending)
            | (
                CapError::InvalidTransferOrigin,
                Upstream::InvalidTransferOrigin
            )
            | (
                CapError::SlotsExhausted,
                Upstream::ResourceExhausted("cap slots") | Upstream::TableFull
            )
    );
    assert!(same, "{ours:?} but upstream {theirs:?}");
}

fn assert_same_hold(ours: &Hold, theirs: &upstream::CapHold) {
    assert_eq!(ours.badge, theirs.badge);
    assert_eq!(ours.interface_id, theirs.interface_id);
    assert_eq!(ours.observed_epoch, theirs.object_epoch);
    assert_eq!(ours.transfer_mode as u16, theirs.transfer_mode as u16);
    assert_eq!(ours.origin as u8, theirs.origin as u8);
}

#[test]
fn agrees_with_upstream_over_a_million_operations() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a decimal number"))
    };
    let seed = number("RING_SEED", SEED);
    let cases = number("RING_CASES", WHOLE_RUN_CASES) as u32;
    println!("seed RING_SEED={seed}, {cases} cases of {OPERATIONS_PER_CASE} operations");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let operations = std::cell::Cell::new(0);
    let sequences = prop::collection::vec(op(), OPERATIONS_PER_CASE);
    TestRunner::new_with_rng(config, random)
        .run(&sequences, |sequence| {
            let mut pair = Pair::new();
            for op in &sequence {
                pair.apply(op);
            }
            operations.set(operations.get() + pair.operations);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("seed RING_SEED={seed}: {error}"));
    println!("{} operations agree", operations.get());
    assert!(u64::from(cases) < WHOLE_RUN_CASES || operations.get() >= 1_000_000);
}

#[test]
fn slots_retire_at_the_last_generation_as_upstream() {
    let mut pair = Pair::new();
    for _ in 0..300 {
        pair.apply(&Op::Churn {
            table: 0,
            times: 255,
        });
    }
    assert_eq!(pair.ours[0].retired(), 256, "every slot was used up");
    pair.apply(&Op::Insert {
        table: 0,
        kind: 0,
        mode: 1,
        shared: false,
    });
    assert_eq!(pair.ours[0].used(), 0);
}

#[test]
fn constants_agree_with_upstream() {
    assert_eq!(ring_server_core::CAP_SLOTS_MAX, upstream::MAX_CAP_SLOTS);
    assert_eq!(
        ring_server_core::OUTSTANDING_CALLS_MAX as usize,
        upstream::MAX_OUTSTANDING_CALLS
    );
    assert_eq!(
        ring_server_core::CALL_SCRATCH_BYTES_MAX as usize,
        upstream::MAX_SCRATCH_BYTES
    );
    assert_eq!(ring_server_core::TICK_NS, capos_lib::clockevent::TICK_NS);
}
