//! One process's ring as the server sees it.
//!
//! The page belongs to the client: it may write anything there at any time.
//! The server therefore keeps its own indices, uses the ABI's constants for
//! every mask and offset, and takes each entry out once.
//!
//! # Invariants
//! - **R1** `sq_head` and `cq_tail` are private; the page only receives them.
//! - **R2** At most one completion is posted per submission taken.
//! - **R3** A slot of the completion queue is written only when the client's
//!   `cq_head`, or its recovery, says that it is free.
//! - **R4** `credits` completion slots are kept free for parked threads.
//! - **R5** A completion that finds no slot waits in `backlog`; no submission
//!   is taken until the backlog is posted.

use alloc::vec::Vec;
use capos_config::ring::{
    CAP_OP_NOP, CQ_ENTRIES, CapCqe, CapSqe, SQ_ENTRIES, cq_pending_or_recovery_head,
    nop_sqe_has_unsupported_fields, sq_pending_or_recovery_head,
};

use crate::limits::{OUTSTANDING_CALLS_MAX, RECEIVES_MAX, THREADS_MAX};
use crate::machine::{RingPage, RingWord};

const SQ_MASK: u32 = SQ_ENTRIES - 1;
const CQ_MASK: u32 = CQ_ENTRIES - 1;
const _: () = assert!(SQ_ENTRIES.is_power_of_two() && CQ_ENTRIES.is_power_of_two());

/// Deferred completions a process can have: one per operation that waits, and
/// one for the submission being dispatched, whose slot in the queue the client
/// can take back by changing `cq_head` meanwhile.
const BACKLOG_MAX: usize = (OUTSTANDING_CALLS_MAX + RECEIVES_MAX) as usize + THREADS_MAX + 1;

/// A completion without payload metadata.
#[inline]
pub(crate) const fn completion(user_data: u64, result: i32) -> CapCqe {
    CapCqe {
        user_data,
        result,
        flags: 0,
        cap_count: 0,
        badge: 0,
        call_id: 0,
        _reserved: 0,
    }
}

/// Whether this is a NOP as the wire rules want it.
#[inline]
pub(crate) fn is_nop(sqe: &CapSqe) -> bool {
    sqe.opcode == CAP_OP_NOP && !nop_sqe_has_unsupported_fields(sqe)
}

/// Server-side state of a ring.
#[derive(Clone, Debug)]
pub(crate) struct Ring<R> {
    page: R,
    sq_head: u32,
    cq_tail: u32,
    credits: u32,
    overflow: u32,
    backlog: Vec<CapCqeRecord>,
}

/// `CapCqe` has no `Debug`; this wrapper gives the backlog one.
#[derive(Clone, Copy)]
struct CapCqeRecord(CapCqe);

impl core::fmt::Debug for CapCqeRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CapCqe")
            .field("user_data", &self.0.user_data)
            .field("result", &self.0.result)
            .finish()
    }
}

impl<R: RingPage> Ring<R> {
    /// Takes over a page that `init_ring_header` prepared.
    pub(crate) fn new(page: R) -> Self {
        Self {
            page,
            sq_head: 0,
            cq_tail: 0,
            credits: 0,
            overflow: 0,
            backlog: Vec::with_capacity(BACKLOG_MAX),
        }
    }

    /// Submissions that are ready, at most one queue's worth. An index that
    /// cannot be right discards everything up to it.
    #[inline]
    pub(crate) fn pending(&mut self) -> u32 {
        let tail = self.page.load(RingWord::SqTail);
        match sq_pending_or_recovery_head(self.sq_head, tail) {
            Ok(pending) => pending,
            Err(recovery_head) => self.discard_submissions(recovery_head),
        }
    }

    #[cold]
    fn discard_submissions(&mut self, recovery_head: u32) -> u32 {
        self.sq_head = recovery_head;
        self.page.store(RingWord::SqHead, recovery_head);
        0
    }

    /// Copies the submission at the head without taking it.
    #[inline]
    pub(crate) fn peek(&self) -> CapSqe {
        self.page.read_sqe(self.sq_head & SQ_MASK)
    }

    /// Takes the submission at the head.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.sq_head = self.sq_head.wrapping_add(1);
        self.page.store(RingWord::SqHead, self.sq_head);
    }

    /// Completions the client has not read.
    #[inline]
    pub(crate) fn available(&mut self) -> u32 {
        let head = self.page.load(RingWord::CqHead);
        match cq_pending_or_recovery_head(head, self.cq_tail) {
            Ok(pending) => pending,
            Err(recovery_head) => self.discard_completions(recovery_head),
        }
    }

    #[cold]
    fn discard_completions(&mut self, recovery_head: u32) -> u32 {
        self.page.store(RingWord::CqHead, recovery_head);
        0
    }

    /// How many ordinary completions could be posted now (R4, R5).
    #[inline]
    pub(crate) fn room(&mut self) -> u32 {
        if self.backlog.is_empty() {
            CQ_ENTRIES.saturating_sub(self.available() + self.credits)
        } else {
            0
        }
    }

    /// Whether an ordinary completion could be posted now.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        self.room() > 0
    }

    /// Posts a completion for which [`Ring::has_room`] was just true.
    #[inline]
    pub(crate) fn post(&mut self, cqe: &CapCqe) {
        self.page.write_cqe(self.cq_tail & CQ_MASK, cqe);
        self.cq_tail = self.cq_tail.wrapping_add(1);
        self.page.store(RingWord::CqTail, self.cq_tail);
    }

    /// Takes and answers the NOP `first`, which was just peeked, and those right
    /// behind it, at most `limit` of them, for which [`Ring::room`] was just
    /// enough. The client sees them done together. Returns how many, and the
    /// submission that ended the run: it is at the head, and need not be read
    /// again.
    #[inline]
    pub(crate) fn answer_nops(&mut self, first: &CapSqe, limit: u32) -> (u32, Option<CapSqe>) {
        let mut user_data = first.user_data;
        let mut count = 0;
        let behind = loop {
            let slot = self.cq_tail.wrapping_add(count) & CQ_MASK;
            self.page.write_cqe(slot, &completion(user_data, 0));
            count += 1;
            if count >= limit {
                break None;
            }
            let next = self.sq_head.wrapping_add(count) & SQ_MASK;
            let sqe = self.page.read_sqe(next);
            if !is_nop(&sqe) {
                break Some(sqe);
            }
            user_data = sqe.user_data;
        };
        self.sq_head = self.sq_head.wrapping_add(count);
        self.page.store(RingWord::SqHead, self.sq_head);
        self.cq_tail = self.cq_tail.wrapping_add(count);
        self.page.store(RingWord::CqTail, self.cq_tail);
        (count, behind)
    }

    /// Posts a completion, or keeps it until there is room.
    pub(crate) fn complete(&mut self, cqe: &CapCqe) {
        self.flush_backlog();
        if self.has_room() {
            self.post(cqe);
        } else {
            self.defer(cqe);
        }
    }

    /// Posts a parked thread's completion on the credit it holds.
    pub(crate) fn complete_on_credit(&mut self, cqe: &CapCqe) {
        self.release_credit();
        if self.available() < CQ_ENTRIES {
            self.post(cqe);
        } else {
            self.defer(cqe);
        }
    }

    fn defer(&mut self, cqe: &CapCqe) {
        if self.backlog.len() < BACKLOG_MAX {
            self.backlog.push(CapCqeRecord(*cqe));
        } else {
            self.overflow = self.overflow.wrapping_add(1);
            self.page.store(RingWord::CqOverflow, self.overflow);
        }
    }

    /// Posts what was deferred, oldest first, as far as there is room.
    #[inline]
    pub(crate) fn flush_backlog(&mut self) {
        if !self.backlog.is_empty() {
            self.flush_backlog_slowly();
        }
    }

    #[cold]
    fn flush_backlog_slowly(&mut self) {
        let room = CQ_ENTRIES.saturating_sub(self.available() + self.credits) as usize;
        let count = room.min(self.backlog.len());
        for index in 0..count {
            let CapCqeRecord(cqe) = self.backlog[index];
            self.post(&cqe);
        }
        self.backlog.drain(..count);
    }

    /// Keeps one completion slot free for a thread about to park.
    pub(crate) fn reserve_credit(&mut self) -> bool {
        let reserved = self.has_room();
        self.credits += u32::from(reserved);
        reserved
    }

    /// Gives a parked thread's slot back.
    pub(crate) fn release_credit(&mut self) {
        self.credits -= 1;
    }

    /// Completion slots reserved for parked threads.
    pub(crate) fn credits(&self) -> u32 {
        self.credits
    }
}
