//! Quotas: hard ceilings of the ABI, narrowed by a resource profile.

use capos_config::ResourceProfile;
use capos_config::ring::SQ_ENTRIES;
use capos_loader::layout::PAGE_BYTES;

use crate::ids::PROCESS_SLOTS;
use crate::server::ROOT_OBJECTS;

/// Longest params message accepted, in bytes.
pub const PARAMS_BYTES_MAX: u32 = 64 * 1024;
/// Longest result buffer accepted, in bytes.
pub const RESULT_BYTES_MAX: u32 = 64 * 1024;
/// Operations of one process that may wait for completion at one time.
pub const OUTSTANDING_CALLS_MAX: u32 = 64;
/// Receives of one process that may wait at one time. They have a quota of
/// their own, so that a process whose calls fill its own endpoint can still
/// receive them.
pub const RECEIVES_MAX: u32 = 64;
/// Concurrent `Timer.sleep` calls of one process.
pub const SLEEPS_MAX: usize = capos_abi::PROCESS_TIMER_SLEEP_WAITER_LIMIT;
/// Threads of one process.
pub const THREADS_MAX: usize = capos_abi::PROCESS_THREAD_LIMIT;
/// Capability slots of one process.
pub const CAP_SLOTS_MAX: usize = capos_abi::PROCESS_CAP_SLOT_LIMIT;
/// Bytes of params that one process's calls may have waiting at endpoints.
pub const CALL_SCRATCH_BYTES_MAX: u32 = 256 * 1024;
/// Pages of anonymous memory that one process may commit: 64 MiB.
pub const COMMIT_PAGES_MAX: u32 = 16_384;
/// Pages of address space that one process may reserve: 1 GiB.
pub const RESERVED_PAGES_MAX: u64 = capos_abi::PROCESS_VIRTUAL_RESERVATION_PAGE_LIMIT as u64;
/// Lowest-level page tables that the memory of one process may be spread over:
/// each maps 2 MiB.
pub const LEAF_TABLES_MAX: u64 = 256;
/// Pages of one memory object.
pub const OBJECT_PAGES_MAX: u32 = 256;
/// Memory objects that can exist at one time.
pub const MEMORY_OBJECTS_MAX: u32 = 1024;
/// Calls that may wait at one endpoint.
pub const ENDPOINT_QUEUE_MAX: u32 = 128;

/// Longest buffer of a pipe, in bytes.
pub const PIPE_BYTES_MAX: u32 = 16 * 1024;
/// KiB of pipe buffers that one process may have made.
pub const PIPE_KIB_MAX: u32 = 128;
/// Notifications that one process may have made.
pub const NOTIFICATIONS_MAX: u32 = 16;
/// Endpoints that one process may have made for others to serve.
pub const ENDPOINTS_MAX: u32 = 64;
/// Sessions that one process may have opened.
pub const SESSIONS_MAX: u32 = 64;
/// Launchers that one process may have made.
pub const LAUNCHERS_MAX: u32 = 64;
/// Programs that one launcher may start.
pub const LAUNCHER_PROGRAMS_MAX: u32 = 64;
/// Calls of one process that may wait at notifications.
pub const NOTIFICATION_WAITS_MAX: u32 = 16;
/// Most bytes of one `EntropySource.fill`.
pub const ENTROPY_BYTES_MAX: u32 = 256;

/// Capabilities on their way, in queued calls of all processes.
const PINS_MAX: u32 = 1024;
/// Holds of all processes, and of nobody yet.
const HOLDS_MAX: u32 = (PROCESS_SLOTS * CAP_SLOTS_MAX) as u32 + PINS_MAX + ROOT_OBJECTS;

/// Storage a server takes when it is made: how many of each record can exist
/// at one time. Running out is an `overloaded` exception or an aborted
/// transfer for whoever asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Objects that capabilities name. As each is in somebody's table or on its
    /// way, as many as there can be holds are never spent.
    pub objects: u32,
    /// Epoch cells: one per grant.
    pub epochs: u32,
    /// Open sessions, the system session included.
    pub sessions: u32,
    /// Launchers.
    pub launchers: u32,
    /// KiB of the names of programs they start.
    pub launcher_kib: u32,
    /// Endpoints.
    pub endpoints: u32,
    /// Calls to endpoints, queued and in flight; at most 1024.
    pub calls: u32,
    /// Receives that wait.
    pub recvs: u32,
    /// Capabilities in queued calls.
    pub pins: u32,
    /// KiB of params in queued calls.
    pub params_kib: u32,
    /// Pipes.
    pub pipes: u32,
    /// KiB of what is in pipes.
    pub pipe_kib: u32,
    /// Notifications.
    pub notifications: u32,
    /// Calls that wait at notifications.
    pub notification_waits: u32,
}

impl Capacity {
    /// For a system of [`PROCESS_SLOTS`](crate::PROCESS_SLOTS) processes:
    /// about 9 MiB, 2 MiB of it params and 1 MiB pipe storage.
    pub const DEFAULT: Self = Self {
        objects: HOLDS_MAX,
        epochs: HOLDS_MAX,
        sessions: 128,
        launchers: 128,
        launcher_kib: 256,
        endpoints: 256,
        calls: 1024,
        recvs: 1024,
        pins: PINS_MAX,
        params_kib: 2048,
        pipes: 256,
        pipe_kib: 1024,
        notifications: 1024,
        notification_waits: 1024,
    };
}

/// Effective quotas of one process: `min(ceiling, profile)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Capability slots.
    pub cap_slots: u32,
    /// Live processes it answers for: those it started, and those they did.
    pub processes: u32,
    /// Threads.
    pub threads: u32,
    /// Concurrent `Timer.sleep` calls.
    pub sleeps: u32,
    /// Operations waiting for completion.
    pub outstanding_calls: u32,
    /// Receives waiting at endpoints.
    pub receives: u32,
    /// Longest params or result buffer in bytes.
    pub ring_scratch_bytes: u32,
    /// Longest serialised exception in bytes.
    pub reply_scratch_bytes: u32,
    /// Calls queued at an endpoint this process owns.
    pub endpoint_queue: u32,
    /// Calls delivered and not returned at an endpoint this process owns.
    pub in_flight_calls: u32,
    /// Pages of memory objects, held and mapped: each hold and each mapping
    /// counts.
    pub frame_grant_pages: u32,
    /// Pages of anonymous memory, committed.
    pub commit_pages: u32,
    /// KiB of buffers of pipes it made, counted in whole blocks of 1 KiB.
    pub pipe_kib: u32,
    /// Notifications it made.
    pub notifications: u32,
    /// Its calls that wait at notifications.
    pub notification_waits: u32,
    /// Endpoints it made for others to serve.
    pub endpoints: u32,
    /// Sessions it opened.
    pub sessions: u32,
    /// Launchers it made.
    pub launchers: u32,
}

impl Limits {
    /// The ceilings alone, for processes without a profile.
    pub const CEILING: Self = Self {
        cap_slots: CAP_SLOTS_MAX as u32,
        processes: PROCESS_SLOTS as u32,
        threads: THREADS_MAX as u32,
        sleeps: SLEEPS_MAX as u32,
        outstanding_calls: OUTSTANDING_CALLS_MAX,
        receives: RECEIVES_MAX,
        ring_scratch_bytes: PARAMS_BYTES_MAX,
        reply_scratch_bytes: RESULT_BYTES_MAX,
        endpoint_queue: ENDPOINT_QUEUE_MAX,
        in_flight_calls: OUTSTANDING_CALLS_MAX,
        frame_grant_pages: capos_abi::PROCESS_FRAME_GRANT_PAGE_LIMIT as u32,
        commit_pages: COMMIT_PAGES_MAX,
        pipe_kib: PIPE_KIB_MAX,
        notifications: NOTIFICATIONS_MAX,
        notification_waits: NOTIFICATION_WAITS_MAX,
        endpoints: ENDPOINTS_MAX,
        sessions: SESSIONS_MAX,
        launchers: LAUNCHERS_MAX,
    };

    /// The ceilings narrowed by a profile.
    pub fn from_profile(profile: &ResourceProfile) -> Self {
        let ceiling = Self::CEILING;
        Self {
            cap_slots: ceiling.cap_slots.min(profile.cap_limit),
            processes: ceiling.processes.min(profile.process_limit),
            threads: ceiling.threads.min(profile.thread_limit),
            sleeps: ceiling.sleeps.min(profile.timer_waiter_limit),
            outstanding_calls: ceiling.outstanding_calls,
            receives: ceiling.receives,
            ring_scratch_bytes: narrow(
                ceiling.ring_scratch_bytes,
                profile.ring_scratch_limit_bytes,
            ),
            reply_scratch_bytes: narrow(
                ceiling.reply_scratch_bytes,
                profile.reply_scratch_limit_bytes,
            ),
            endpoint_queue: ceiling.endpoint_queue.min(profile.endpoint_queue_limit),
            in_flight_calls: ceiling.in_flight_calls.min(profile.in_flight_call_limit),
            frame_grant_pages: narrow(ceiling.frame_grant_pages, profile.frame_grant_limit_pages),
            commit_pages: narrow(
                ceiling.commit_pages,
                profile.memory_commit_limit_bytes / PAGE_BYTES,
            ),
            pipe_kib: ceiling.pipe_kib,
            notifications: ceiling.notifications,
            notification_waits: ceiling.notification_waits,
            endpoints: ceiling.endpoints,
            sessions: ceiling.sessions,
            launchers: ceiling.launchers,
        }
    }
}

fn narrow(ceiling: u32, limit: u64) -> u32 {
    u32::try_from(limit).map_or(ceiling, |limit| limit.min(ceiling))
}

const _: () = assert!(
    SQ_ENTRIES <= OUTSTANDING_CALLS_MAX && SQ_ENTRIES <= RECEIVES_MAX,
    "one full queue can be outstanding"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_narrows_and_never_widens() {
        let mut profile = ResourceProfile::default();
        let limits = Limits::from_profile(&profile);
        assert_eq!(limits.cap_slots, 64);
        assert_eq!(limits.in_flight_calls, 16);
        profile.cap_limit = 100_000;
        profile.timer_waiter_limit = 100_000;
        profile.ring_scratch_limit_bytes = u64::MAX;
        profile.frame_grant_limit_pages = u64::MAX;
        let limits = Limits::from_profile(&profile);
        assert_eq!(limits.cap_slots, Limits::CEILING.cap_slots);
        assert_eq!(limits.sleeps, Limits::CEILING.sleeps);
        assert_eq!(limits.ring_scratch_bytes, PARAMS_BYTES_MAX);
        assert_eq!(limits.frame_grant_pages, Limits::CEILING.frame_grant_pages);
    }
}
