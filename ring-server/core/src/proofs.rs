//! Proof harnesses for Kani, which are random tests where Kani is not there.
//!
//! `cargo kani -p ring-server-core` proves each harness for all values that
//! `kani::any` can take, up to its loop bound. Under `cargo test` a small
//! stand-in draws the values at random, so that the harnesses keep compiling
//! and meaning what they say.

use capos_config::ResourceProfile;
use capos_config::ring::{CQ_ENTRIES, CapCqe, CapSqe, SQ_ENTRIES};
use capos_loader::layout::{PAGE_BYTES, USER_LIMIT};
use capos_loader::{AddressMap, Backing, Protection, Region, RegionKind};

use crate::cap_table::{
    CapError, CapId, CapTable, Hold, HoldOrigin, TransferKind, TransferMode, TransferScope,
};
use crate::decode;
use crate::limits::Limits;
use crate::machine::{RingPage, RingWord};
use crate::objects::{Object, Objects};
use crate::ring::{Ring, completion};
use crate::session::{SessionInfo, describe};

/// What Kani provides, drawn at random.
#[cfg(not(kani))]
mod kani {
    extern crate std;

    use alloc::boxed::Box;
    use core::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    /// Samples of one harness.
    const SAMPLES: u32 = 4000;

    std::thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) };
    }

    /// A sample that does not meet its assumptions.
    struct Discarded;

    pub(super) trait Arbitrary {
        fn from_word(word: u64) -> Self;
    }

    macro_rules! arbitrary {
        ($($type:ty),*) => {$(
            impl Arbitrary for $type {
                fn from_word(word: u64) -> Self {
                    // Small and extreme values are where the edges are.
                    match word >> 61 {
                        0 => (word & 7) as Self,
                        1 => Self::MAX - (word & 7) as Self,
                        _ => word as Self,
                    }
                }
            }
        )*};
    }
    arbitrary!(u8, u16, u32, u64);

    impl Arbitrary for bool {
        fn from_word(word: u64) -> Self {
            word & 1 == 1
        }
    }

    pub(super) fn any<T: Arbitrary>() -> T {
        let word = STATE.with(|state| {
            let mut word = state.get();
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            state.set(word);
            word
        });
        // The upper half is the better one.
        T::from_word(word.rotate_left(29))
    }

    pub(super) fn assume(condition: bool) {
        if !condition {
            resume_unwind(Box::new(Discarded));
        }
    }

    pub(super) fn sample(harness: fn()) {
        let mut kept = 0;
        for _ in 0..SAMPLES {
            match catch_unwind(AssertUnwindSafe(harness)) {
                Ok(()) => kept += 1,
                Err(reason) if reason.is::<Discarded>() => {}
                Err(reason) => resume_unwind(reason),
            }
        }
        assert!(kept > SAMPLES / 100, "assumptions discard nearly all");
    }
}

/// Declares a harness: a proof under Kani, a random test otherwise.
macro_rules! harness {
    ($(#[$doc:meta])* fn $name:ident() unwind($bound:literal) $body:block) => {
        $(#[$doc])*
        #[cfg(kani)]
        #[kani::proof]
        #[kani::unwind($bound)]
        fn $name() $body

        $(#[$doc])*
        #[cfg(not(kani))]
        #[test]
        fn $name() {
            fn harness() $body
            kani::sample(harness);
        }
    };
}

fn any_mode() -> TransferMode {
    match kani::any::<u8>() % 3 {
        0 => TransferMode::NonTransferable,
        1 => TransferMode::Copy,
        _ => TransferMode::Move,
    }
}

/// A hold on a new object, with any transfer mode and badge.
fn any_hold(objects: &mut Objects) -> Hold {
    let (Some(object), Some(epoch)) = (objects.insert(Object::Console), objects.insert_epoch())
    else {
        unreachable!("the stores are large enough")
    };
    Hold {
        pages: 0,
        object,
        epoch,
        observed_epoch: 0,
        interface_id: kani::any(),
        badge: kani::any(),
        disclosure_scope: 0,
        transfer_mode: any_mode(),
        transfer_scope: TransferScope::SameSession,
        origin: HoldOrigin::Kernel,
    }
}

harness! {
    /// T2 to T5 after any operations, on any claims.
    fn table_invariants_hold_after_any_operations() unwind(6) {
        let mut objects = Objects::with_capacity(4, 4);
        let mut table = CapTable::new(2);
        for _ in 0..4 {
            let claim = CapId::from_raw(kani::any::<u32>() & 0x0300_0003);
            match kani::any::<u8>() % 5 {
                0 => {
                    let hold = any_hold(&mut objects);
                    let _ = table.insert(hold);
                }
                1 => {
                    let _ = table.remove(claim);
                }
                2 => {
                    let kind = if kani::any() { TransferKind::Move } else { TransferKind::Copy };
                    let _ = table.prepare(claim, kind, HoldOrigin::IpcTransfer, &mut objects);
                }
                3 => {
                    let _ = table.rollback_move(claim);
                }
                _ => {
                    let _ = table.commit_move(claim);
                }
            }
            table.check();
        }
    }
}

harness! {
    /// T1: what was removed is not found again under its number, whatever
    /// takes its slot.
    fn removed_claims_stay_stale() unwind(6) {
        let mut objects = Objects::with_capacity(4, 4);
        let mut table = CapTable::new(2);
        let hold = any_hold(&mut objects);
        let Ok(first) = table.insert(hold) else { unreachable!("it is empty") };
        assert_eq!(table.remove(first), Ok(hold));
        let Ok(second) = table.insert(hold) else { unreachable!("it is empty") };
        assert_ne!(first, second);
        assert_eq!(table.peek(first), Err(CapError::StaleGeneration));
        let claim = CapId::from_raw(kani::any());
        kani::assume(claim != second);
        assert!(table.peek(claim).is_err(), "one claim names it");
    }
}

harness! {
    /// A transfer between two tables, ended by commit or by rollback, keeps
    /// every reference: those counted are those held.
    fn transfers_conserve_references() unwind(6) {
        let mut objects = Objects::with_capacity(2, 2);
        let (mut sender, mut receiver) = (CapTable::new(1), CapTable::new(u32::from(kani::any::<bool>())));
        let hold = any_hold(&mut objects);
        let Ok(source) = sender.insert(hold) else { unreachable!("it is empty") };
        let kind = if kani::any() { TransferKind::Move } else { TransferKind::Copy };
        let prepared = sender.prepare(source, kind, HoldOrigin::ResultCap, &mut objects);
        if let Ok(prepared) = prepared {
            assert_ne!(hold.transfer_mode, TransferMode::NonTransferable);
            match receiver.insert(prepared.hold) {
                Ok(_) => {
                    if let Some(source) = prepared.source {
                        let Ok(gone) = sender.commit_move(source) else {
                            unreachable!("it is reserved")
                        };
                        objects.release(gone.object, gone.epoch);
                    }
                }
                Err(_) => {
                    if let Some(source) = prepared.source {
                        assert_eq!(sender.rollback_move(source), Ok(()));
                    }
                    objects.release(prepared.hold.object, prepared.hold.epoch);
                }
            }
        }
        let held = u64::from(sender.used() + receiver.used());
        assert_eq!(objects.total_references(), (held, held));
        assert_eq!(sender.reserved() + receiver.reserved(), 0, "nothing stays reserved");
        assert!(held >= 1, "no authority is lost");
        objects.check();
    }
}

harness! {
    /// Revocation reaches every derived hold and only those.
    fn revocation_reaches_what_is_below() unwind(6) {
        let mut objects = Objects::with_capacity(1, 3);
        let (Some(above), Some(beside)) = (objects.insert_epoch(), objects.insert_epoch()) else {
            unreachable!("there is room")
        };
        let Some(below) = objects.insert_epoch_below(above, 0) else {
            unreachable!("there is room")
        };
        let upper: bool = kani::any();
        objects.bump_epoch(if upper { above } else { below });
        assert_eq!(objects.is_current(above, 0), !upper);
        assert!(!objects.is_current(below, 0));
        assert!(objects.is_current(beside, 0));
        objects.check();
    }
}

/// A page whose every word is whatever its client wants at that moment.
struct AnyPage;

impl RingPage for AnyPage {
    fn load(&self, _: RingWord) -> u32 {
        kani::any()
    }

    fn store(&self, _: RingWord, _: u32) {}

    fn read_sqe(&self, slot: u32) -> CapSqe {
        assert!(slot < SQ_ENTRIES, "the slot is masked");
        CapSqe {
            opcode: kani::any(),
            flags: 0,
            method_id: 0,
            cap_id: 0,
            user_data: 0,
            addr: 0,
            len: 0,
            result_len: 0,
            result_addr: 0,
            pipeline_dep: 0,
            pipeline_field: 0,
            xfer_cap_count: 0,
            call_id: 0,
            session_disclosure: 0,
        }
    }

    fn write_cqe(&self, slot: u32, _: &CapCqe) {
        assert!(slot < CQ_ENTRIES, "the slot is masked");
    }
}

harness! {
    /// R1 to R5 against a page that answers anything: counts stay bounded and
    /// slots inside the queues.
    fn rings_stay_bounded_on_any_page() unwind(40) {
        let mut ring = Ring::new(AnyPage);
        for _ in 0..4 {
            assert!(ring.pending() <= SQ_ENTRIES);
            assert!(ring.available() <= CQ_ENTRIES);
            match kani::any::<u8>() % 6 {
                0 => {
                    ring.peek();
                    ring.advance();
                }
                5 => {
                    let room = ring.room();
                    if room > 0 {
                        let first = ring.peek();
                        let (taken, behind) = ring.answer_nops(&first, room);
                        assert!((1..=room).contains(&taken));
                        assert!(behind.is_none() || taken < room);
                    }
                }
                1 => ring.complete(&completion(1, 0)),
                2 => ring.flush_backlog(),
                3 => {
                    let before = ring.credits();
                    let reserved = ring.reserve_credit();
                    assert_eq!(ring.credits(), before + u32::from(reserved));
                }
                _ if ring.credits() > 0 => ring.complete_on_credit(&completion(2, 0)),
                _ => {}
            }
            assert!(ring.credits() <= CQ_ENTRIES);
        }
    }
}

harness! {
    /// A profile narrows the ceilings and never widens them.
    fn profiles_never_widen() unwind(2) {
        let profile = ResourceProfile {
            cap_limit: kani::any(),
            thread_limit: kani::any(),
            timer_waiter_limit: kani::any(),
            endpoint_queue_limit: kani::any(),
            in_flight_call_limit: kani::any(),
            ring_scratch_limit_bytes: kani::any(),
            reply_scratch_limit_bytes: kani::any(),
            frame_grant_limit_pages: kani::any(),
            ..ResourceProfile::default()
        };
        let (limits, ceiling) = (Limits::from_profile(&profile), Limits::CEILING);
        assert!(limits.cap_slots <= ceiling.cap_slots);
        assert!(limits.threads <= ceiling.threads);
        assert!(limits.sleeps <= ceiling.sleeps);
        assert!(limits.outstanding_calls <= ceiling.outstanding_calls);
        assert!(limits.ring_scratch_bytes <= ceiling.ring_scratch_bytes);
        assert!(limits.reply_scratch_bytes <= ceiling.reply_scratch_bytes);
        assert!(limits.endpoint_queue <= ceiling.endpoint_queue);
        assert!(limits.in_flight_calls <= ceiling.in_flight_calls);
        assert!(limits.frame_grant_pages <= ceiling.frame_grant_pages);
    }
}

harness! {
    /// Nothing is disclosed that request and scope do not both name.
    fn disclosure_is_the_agreed_part() unwind(40) {
        let Some(mut info) = SessionInfo::new(b"s") else { unreachable!("a short identity") };
        info.principal_kind = kani::any();
        info.auth_strength = kani::any();
        info.profile_class = kani::any();
        let reference = crate::SessionReference { scoped_ref: 1, scoped_ref_hi: 1, epoch: 1 };
        let (request, scope): (u64, u64) = (kani::any(), kani::any());
        let told = describe(&info, reference, request, scope);
        let agreed = request & scope;
        assert_eq!(u64::from(told.disclosed_fields) & !agreed, 0);
        let fields = [told.principal_kind, told.auth_strength, told.profile_class];
        for (bit, field) in fields.into_iter().enumerate() {
            assert!(field == 0 || agreed & 1 << bit != 0, "field {bit}");
        }
    }
}

harness! {
    /// L4: a range is accessible exactly if it lies in what was mapped; no
    /// length wraps around.
    fn ranges_do_not_wrap() unwind(6) {
        let (first, pages): (u64, u32) = (kani::any(), kani::any());
        let start = (first >> 16) * PAGE_BYTES;
        let end = start + u64::from(pages) * PAGE_BYTES;
        let mut space = AddressMap::new(2);
        let region = Region {
            start,
            end,
            protection: Protection::READ_WRITE,
            backing: Backing::DemandZero,
            kind: RegionKind::Anonymous,
        };
        let good = start < end && end <= USER_LIMIT;
        assert_eq!(space.insert(region).is_ok(), good);
        let (near, len): (u32, u64) = (kani::any(), kani::any());
        let addr = start.wrapping_add(near.into());
        let inside = good
            && start <= addr
            && addr.checked_add(len).is_some_and(|last| last <= end);
        assert_eq!(space.is_writable(addr, len), len == 0 || inside);
        space.check();
    }
}

harness! {
    /// The short decoder gives bytes of its message, for any four words.
    fn decoded_bytes_lie_in_the_message() unwind(34) {
        let mut message = [0_u8; 32];
        for word in message.chunks_exact_mut(8) {
            word.copy_from_slice(&kani::any::<u64>().to_le_bytes());
        }
        if kani::any() {
            message[..4].fill(0);
            message[4..8].copy_from_slice(&3_u32.to_le_bytes());
            message[8..12].fill(0);
        }
        let len = usize::from(kani::any::<u8>() % 33);
        let message = &message[..len];
        let _ = decode::root_u64(message);
        let data = decode::root_data(message).map_or(0, <[u8]>::len);
        let text = decode::root_text(message).map_or(0, <[u8]>::len);
        assert!(data <= len && text <= len);
    }
}

/// References of a session differ between scopes and are never zero; not a
/// proof, because digests are out of reach of one.
#[cfg(not(kani))]
#[test]
fn references_differ_between_scopes() {
    let secret = crate::BootSecret::new([1; 32]);
    let mut seen = alloc::collections::BTreeSet::new();
    for scope in 1..50 {
        for id in [b"a", b"b"] {
            let reference = crate::session::derive_reference(&secret, scope, id);
            assert!(reference.scoped_ref != 0 && reference.scoped_ref_hi != 0);
            assert!(seen.insert(reference.scoped_ref), "scope {scope}");
        }
    }
}
