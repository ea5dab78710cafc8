//! The objects behind capabilities, and the epochs that revoke them.
//!
//! A capability table refers to both by index. Every hold, and every prepared
//! transfer, counts as one reference to its object and one to its epoch cell.

use capos_config::KernelCapSource;

use crate::ids::Pid;
use crate::pool::Pool;

/// Index of an object in [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub(crate) u32);

/// Index of an epoch cell in [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpochId(pub(crate) u32);

/// What a capability names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// The system console: `Console`.
    Console,
    /// The terminal: `TerminalSession`.
    TerminalSession,
    /// The monotonic clock: `Timer`.
    Timer,
    /// Process-local parking authority: `ParkSpace`.
    ParkSpace,
    /// Starting processes: `ProcessSpawner`.
    ProcessSpawner,
    /// The boot manifest: `BootPackage`.
    BootPackage,
    /// Time of day: `WallClock`.
    WallClock,
    /// Random bytes: `EntropySource`.
    EntropySource,
    /// Where the bytes of a pipe come out: `Pipe`.
    PipeRead(u32),
    /// Where the bytes of a pipe go in: `Pipe`.
    PipeWrite(u32),
    /// A word of bits to wait for: `Notification`, or `Signaller` for those
    /// who can only set them.
    Notification(u32),
    /// One process's end: `ProcessHandle`.
    ProcessHandle(u32),
    /// Management of one process's capabilities: `CapabilityManager`.
    CapabilityManager(Pid),
    /// The calling thread: `ThreadControl`.
    ThreadControl,
    /// Starting threads in the calling process: `ThreadSpawner`.
    ThreadSpawner,
    /// One thread's end: `ThreadHandle`.
    ThreadHandle(u32),
    /// The receiving side of a call queue: raw `Endpoint`.
    EndpointOwner(u32),
    /// The calling side of the same queue.
    EndpointClient(u32),
    /// The holder's own anonymous memory: `VirtualMemory`.
    VirtualMemory,
    /// Making memory objects: `FrameAllocator`.
    FrameAllocator,
    /// Memory that processes can share: `MemoryObject`.
    MemoryObject(u32),
    /// Parking on words of that memory: `SharedParkSpace`.
    SharedParkSpace(u32),
    /// Opening sessions and starting programs in them: `SessionMint`.
    SessionMint,
    /// One session, for its holder: `UserSession`.
    UserSession(u32),
    /// Starting some programs in one session: `RestrictedLauncher`.
    RestrictedLauncher(u32),
}

/// A manifest names a source that this server does not provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedSource(
    /// The source as the manifest names it.
    pub KernelCapSource,
);

impl Object {
    /// The stateless kernel object behind a manifest source.
    ///
    /// # Errors
    /// [`UnsupportedSource`] if the source has no such object; endpoints are
    /// created instead, with [`crate::Server::create_endpoint`].
    pub const fn from_source(source: KernelCapSource) -> Result<Self, UnsupportedSource> {
        match source {
            KernelCapSource::Console => Ok(Self::Console),
            KernelCapSource::TerminalSession => Ok(Self::TerminalSession),
            KernelCapSource::Timer => Ok(Self::Timer),
            KernelCapSource::ParkSpace => Ok(Self::ParkSpace),
            KernelCapSource::ProcessSpawner => Ok(Self::ProcessSpawner),
            KernelCapSource::BootPackage => Ok(Self::BootPackage),
            KernelCapSource::VirtualMemory => Ok(Self::VirtualMemory),
            KernelCapSource::FrameAllocator => Ok(Self::FrameAllocator),
            KernelCapSource::ThreadControl => Ok(Self::ThreadControl),
            KernelCapSource::ThreadSpawner => Ok(Self::ThreadSpawner),
            KernelCapSource::WallClock => Ok(Self::WallClock),
            KernelCapSource::EntropySource => Ok(Self::EntropySource),
            KernelCapSource::SessionManager => Ok(Self::SessionMint),
            other => Err(UnsupportedSource(other)),
        }
    }

    /// The interface id of a hold on this object that nobody relabelled.
    pub const fn interface_id(self) -> u64 {
        match self {
            Self::Console => capos_config::CONSOLE_INTERFACE_ID,
            Self::TerminalSession => capos_config::TERMINAL_SESSION_INTERFACE_ID,
            Self::Timer => capos_config::TIMER_INTERFACE_ID,
            Self::ParkSpace => capos_config::PARK_SPACE_INTERFACE_ID,
            Self::ProcessSpawner => capos_config::PROCESS_SPAWNER_INTERFACE_ID,
            Self::BootPackage => capos_config::BOOT_PACKAGE_INTERFACE_ID,
            Self::WallClock => capos_config::WALL_CLOCK_INTERFACE_ID,
            Self::EntropySource => capos_config::ENTROPY_SOURCE_INTERFACE_ID,
            Self::PipeRead(_) | Self::PipeWrite(_) => capos_config::PIPE_INTERFACE_ID,
            Self::Notification(_) => sel4_capos_schema::NOTIFICATION_INTERFACE_ID,
            Self::ProcessHandle(_) => capos_config::PROCESS_HANDLE_INTERFACE_ID,
            Self::CapabilityManager(_) => capos_config::CAPABILITY_MANAGER_INTERFACE_ID,
            Self::ThreadControl => capos_config::THREAD_CONTROL_INTERFACE_ID,
            Self::ThreadSpawner => capos_config::THREAD_SPAWNER_INTERFACE_ID,
            Self::ThreadHandle(_) => capos_config::THREAD_HANDLE_INTERFACE_ID,
            Self::EndpointOwner(_) | Self::EndpointClient(_) => capos_config::ENDPOINT_INTERFACE_ID,
            Self::VirtualMemory => capos_config::VIRTUAL_MEMORY_INTERFACE_ID,
            Self::FrameAllocator => capos_config::FRAME_ALLOCATOR_INTERFACE_ID,
            Self::MemoryObject(_) => capos_config::MEMORY_OBJECT_INTERFACE_ID,
            Self::SharedParkSpace(_) => capos_config::SHARED_PARK_SPACE_INTERFACE_ID,
            Self::SessionMint => sel4_capos_schema::SESSION_MINT_INTERFACE_ID,
            Self::UserSession(_) => capos_config::USER_SESSION_INTERFACE_ID,
            Self::RestrictedLauncher(_) => capos_config::RESTRICTED_LAUNCHER_INTERFACE_ID,
        }
    }

    /// Name used in `CapabilityManager.list`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::TerminalSession => "terminal_session",
            Self::Timer => "timer",
            Self::ParkSpace => "park_space",
            Self::ProcessSpawner => "process_spawner",
            Self::BootPackage => "boot_package",
            Self::WallClock => "wall_clock",
            Self::EntropySource => "entropy_source",
            Self::PipeRead(_) => "pipe_read",
            Self::PipeWrite(_) => "pipe_write",
            Self::Notification(_) => "notification",
            Self::ProcessHandle(_) => "process_handle",
            Self::CapabilityManager(_) => "capability_manager",
            Self::ThreadControl => "thread_control",
            Self::ThreadSpawner => "thread_spawner",
            Self::ThreadHandle(_) => "thread_handle",
            Self::EndpointOwner(_) => "endpoint",
            Self::EndpointClient(_) => "client_endpoint",
            Self::VirtualMemory => "virtual_memory",
            Self::FrameAllocator => "frame_allocator",
            Self::MemoryObject(_) => "memory_object",
            Self::SharedParkSpace(_) => "shared_park_space",
            Self::SessionMint => "session_mint",
            Self::UserSession(_) => "user_session",
            Self::RestrictedLauncher(_) => "restricted_launcher",
        }
    }

    /// Whether only processes of live sessions may call it: what starts
    /// programs, or decides who somebody is. Endpoints have this rule as well.
    pub const fn needs_live_session(self) -> bool {
        matches!(
            self,
            Self::ProcessSpawner | Self::SessionMint | Self::RestrictedLauncher(_)
        )
    }

    /// Whether CALL descriptors may accompany a call to it.
    pub const fn is_endpoint(self) -> bool {
        matches!(self, Self::EndpointOwner(_) | Self::EndpointClient(_))
    }
}

#[derive(Clone, Copy, Debug)]
struct ObjectEntry {
    object: Object,
    references: u32,
}

/// A revocation switch. A grant made at spawn hangs its own cell below the
/// granter's, so that revoking reaches everything derived and nothing else.
#[derive(Clone, Copy, Debug)]
struct EpochCell {
    value: u64,
    references: u32,
    /// The cell above, and its value when this one was made.
    parent: Option<(EpochId, u64)>,
    /// Number of cells above.
    depth: u32,
}

/// Longest chain of grants from grants; a lookup walks at most this far.
const EPOCH_DEPTH_MAX: u32 = 16;

/// All live objects and epoch cells.
///
/// # Invariants
/// - **O1** An entry's count is the number of holds, prepared transfers and
///   (for cells) cells below that name it; an entry with none is removed.
/// - **O2** A chain of cells ends after at most `EPOCH_DEPTH_MAX` steps.
#[derive(Clone, Debug)]
pub struct Objects {
    objects: Pool<ObjectEntry>,
    epochs: Pool<EpochCell>,
}

impl Objects {
    /// Storage for so many objects and epoch cells; each hold in the system
    /// takes at most one cell.
    pub fn with_capacity(objects: u32, epochs: u32) -> Self {
        Self {
            objects: Pool::with_capacity(objects),
            epochs: Pool::with_capacity(epochs),
        }
    }

    /// Registers an object with one reference.
    pub fn insert(&mut self, object: Object) -> Option<ObjectId> {
        let references = 1;
        self.objects
            .insert(ObjectEntry { object, references })
            .map(ObjectId)
            .ok()
    }

    /// Makes a fresh epoch cell with one reference.
    pub fn insert_epoch(&mut self) -> Option<EpochId> {
        self.insert_cell(None, 0)
    }

    /// Makes a cell that is revoked with `parent`, with one reference.
    pub fn insert_epoch_below(&mut self, parent: EpochId, observed: u64) -> Option<EpochId> {
        let depth = self.epochs.get(parent.0)?.depth + 1;
        if depth > EPOCH_DEPTH_MAX {
            return None;
        }
        let cell = self.insert_cell(Some((parent, observed)), depth)?;
        if let Some(above) = self.epochs.get_mut(parent.0) {
            above.references += 1;
        }
        Some(cell)
    }

    fn insert_cell(&mut self, parent: Option<(EpochId, u64)>, depth: u32) -> Option<EpochId> {
        let cell = EpochCell {
            value: 0,
            references: 1,
            parent,
            depth,
        };
        self.epochs.insert(cell).map(EpochId).ok()
    }

    /// The object, if it is live.
    #[inline]
    pub fn get(&self, id: ObjectId) -> Option<Object> {
        self.objects.get(id.0).map(|entry| entry.object)
    }

    /// Whether a hold that observed `value` is not revoked.
    #[inline]
    pub fn is_current(&self, id: EpochId, value: u64) -> bool {
        let mut link = Some((id, value));
        while let Some((id, observed)) = link {
            match self.epochs.get(id.0) {
                Some(cell) if cell.value == observed => link = cell.parent,
                _ => return false,
            }
        }
        true
    }

    /// The present value of a cell.
    pub fn epoch(&self, id: EpochId) -> Option<u64> {
        self.epochs.get(id.0).map(|cell| cell.value)
    }

    /// Revokes every hold that observed this cell's present value.
    pub fn bump_epoch(&mut self, id: EpochId) -> Option<u64> {
        let cell = self.epochs.get_mut(id.0)?;
        cell.value = match cell.value.wrapping_add(1) {
            0 => 1,
            next => next,
        };
        Some(cell.value)
    }

    /// Adds a reference to an object.
    pub fn retain_object(&mut self, object: ObjectId) {
        if let Some(entry) = self.objects.get_mut(object.0) {
            entry.references += 1;
        }
    }

    /// Adds a reference to both.
    pub fn retain(&mut self, object: ObjectId, epoch: EpochId) {
        self.retain_object(object);
        if let Some(cell) = self.epochs.get_mut(epoch.0) {
            cell.references += 1;
        }
    }

    /// Drops a reference to both; returns the object if that was its last.
    pub fn release(&mut self, object: ObjectId, epoch: EpochId) -> Option<Object> {
        self.release_epoch(epoch);
        self.release_object(object)
    }

    /// Drops a reference to a cell, and to those above that this frees.
    pub(crate) fn release_epoch(&mut self, epoch: EpochId) {
        let mut link = Some(epoch);
        while let Some(id) = link.take() {
            let Some(cell) = self.epochs.get_mut(id.0) else {
                return;
            };
            cell.references -= 1;
            if cell.references == 0 {
                link = cell.parent.map(|(above, _)| above);
                self.epochs.remove(id.0);
            }
        }
    }

    /// Drops a reference to an object; returns it if that was its last.
    pub(crate) fn release_object(&mut self, object: ObjectId) -> Option<Object> {
        let entry = self.objects.get_mut(object.0)?;
        entry.references -= 1;
        if entry.references > 0 {
            return None;
        }
        self.objects.remove(object.0).map(|entry| entry.object)
    }

    /// All live objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Object> {
        self.objects.iter().map(|(_, entry)| entry.object)
    }

    /// Number of objects and of cells.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.objects.used(), self.epochs.used())
    }

    /// Total references from outside the store to objects and to cells, for
    /// conservation checks.
    pub fn total_references(&self) -> (u64, u64) {
        let objects = self.objects.iter().map(|(_, e)| u64::from(e.references));
        let epochs = self.epochs.iter().map(|(_, c)| u64::from(c.references));
        let below = self.epochs.iter().filter(|(_, c)| c.parent.is_some());
        (objects.sum(), epochs.sum::<u64>() - below.count() as u64)
    }

    /// Asserts the local part of O1: no entry without references.
    pub fn check(&self) {
        self.objects.check();
        self.epochs.check();
        assert!(
            self.objects.iter().all(|(_, entry)| entry.references > 0),
            "O1: unreferenced object"
        );
        assert!(
            self.epochs.iter().all(|(_, cell)| cell.references > 0),
            "O1: unreferenced epoch cell"
        );
        for (_, cell) in self.epochs.iter() {
            assert!(cell.depth <= EPOCH_DEPTH_MAX, "O2: chain too long");
            if let Some((above, _)) = cell.parent {
                let depth = self.epochs.get(above.0).map(|above| above.depth);
                assert_eq!(depth, Some(cell.depth - 1), "O2: depth of a chain");
            }
        }
    }
}
