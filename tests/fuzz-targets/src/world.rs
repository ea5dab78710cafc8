//! A small system of hostile clients.

use capos_config::KernelCapSource;
use ring_server_core::{
    BootSecret, CapId, Capacity, Grant, Hold, Limits, Passing, Pid, Protection, Server, SessionId,
    SessionInfo,
};
use ring_server_model::{Client, Model, System, anonymous};

use crate::input::Input;

/// Small stores, so that running out of each is a few steps away.
const CAPACITY: Capacity = Capacity {
    objects: 48,
    epochs: 96,
    sessions: 4,
    launchers: 0,
    launcher_kib: 0,
    endpoints: 8,
    calls: 12,
    recvs: 8,
    pins: 10,
    params_kib: 72,
    pipes: 5,
    pipe_kib: 24,
    notifications: 4,
    notification_waits: 6,
};

/// Most processes that act.
const CLIENTS_MAX: usize = 6;
const PAGE: u64 = 4096;

/// The server, its machine, and the clients that still live.
pub(crate) struct World {
    pub(crate) system: System,
    pub(crate) clients: Vec<Client>,
    guests: SessionId,
}

impl World {
    /// Three processes: one owns an endpoint, a spawner and everything else
    /// the server makes; one may call it; one may call it from another session.
    pub(crate) fn new() -> Self {
        let server = Server::with_capacity(&CAPACITY, Some(BootSecret::new([9; 32])));
        let mut system = System {
            server,
            machine: Model::default(),
        };
        system.machine.generator = Some(0);
        system.machine.manifest = (0..=255).cycle().take(5000).collect();
        system.machine.programs.names = vec!["prog".into(), "bad".into()];
        let info = SessionInfo::new(b"guests").expect("a short identity");
        let guests = system.server.open_session(info).expect("there is room");
        let mut world = Self {
            system,
            clients: Vec::new(),
            guests,
        };
        for _ in 0..3 {
            world.spawn(0);
        }
        world
    }

    /// Creates the next process, with facets of what others own.
    pub(crate) fn spawn(&mut self, choice: u8) {
        if self.clients.len() == CLIENTS_MAX {
            return;
        }
        let mut grants = vec![
            Grant::kernel("console", KernelCapSource::Console),
            Grant::kernel("timer", KernelCapSource::Timer),
            Grant::kernel("park", KernelCapSource::ParkSpace),
            Grant::kernel("boot", KernelCapSource::BootPackage),
            Grant::kernel("own", KernelCapSource::Endpoint),
            Grant::kernel("clock", KernelCapSource::WallClock),
            Grant::kernel("entropy", KernelCapSource::EntropySource),
        ];
        if self.clients.is_empty() {
            grants.push(Grant::kernel("spawner", KernelCapSource::ProcessSpawner));
        }
        for client in &self.clients {
            grants.push(Grant::manager("manager", client.pid));
            for (cap, passing) in facets(&self.system, client.pid, choice) {
                grants.push(Grant::held("peer", client.pid, cap, passing));
            }
        }
        let session = (self.clients.len() == 2).then_some(self.guests);
        let limits = Limits {
            cap_slots: 24,
            endpoint_queue: 3,
            in_flight_calls: 2,
            threads: 3,
            ..Limits::CEILING
        };
        if let Ok(client) = self.system.try_spawn(&grants, limits, session) {
            self.clients.push(client);
        }
    }

    /// The acting client for a choice.
    pub(crate) fn who(&self, choice: u8) -> Option<usize> {
        (!self.clients.is_empty()).then(|| usize::from(choice) % self.clients.len())
    }

    /// A capability number: mostly one the client holds.
    pub(crate) fn cap(&self, who: usize, input: &mut Input<'_>) -> u32 {
        let held: Vec<u32> = self.holds(who).map(|(id, _)| id.raw()).collect();
        match input.u8() {
            0xff => input.u32(),
            choice if held.is_empty() => choice.into(),
            choice => held[usize::from(choice) % held.len()],
        }
    }

    pub(crate) fn holds(&self, who: usize) -> impl Iterator<Item = (CapId, &Hold)> {
        self.system.server.holds(self.clients[who].pid)
    }

    /// Writes client memory, as far as it is there.
    pub(crate) fn poke(&mut self, who: usize, addr: u64, bytes: &[u8]) {
        if let Some(memory) = self.system.machine.memory.get_mut(&self.clients[who].pid) {
            // A client that writes where it may not only hurts itself.
            let _ = memory.write(addr, bytes);
        }
    }

    /// Unmaps or maps a page of a client for both the machine and the server.
    pub(crate) fn remap(&mut self, who: usize, page: u8, access: Option<Protection>) {
        let pid = self.clients[who].pid;
        let start = Client::DATA + u64::from(page % 48) * PAGE;
        let changed = self.system.server.change_address_space(pid, |space| {
            // Nothing is there if it was unmapped before.
            let _ = space.remove(start, start + PAGE, |_| ());
            if let Some(access) = access {
                let region = anonymous(start, PAGE, access);
                space.insert(region).expect("the page is free");
            }
        });
        let memory = self.system.machine.memory.get_mut(&pid);
        if let (Some(()), Some(memory)) = (changed, memory) {
            memory.unmap(start, PAGE);
            if let Some(access) = access {
                memory.map(start, PAGE, access);
            }
        }
    }

    /// After a step: all invariants, children join, the dead leave.
    pub(crate) fn settle(&mut self) {
        self.system.server.check();
        // The server's map and the machine's agree here, and the server asks
        // its map first.
        let faults = self.system.machine.faults;
        assert_eq!(faults, 0, "memory was touched that is not the client's");
        self.system.machine.resumed.clear();
        self.system.machine.handed_over.clear();
        self.system.machine.console.clear();
        self.system.machine.diagnostics.clear();
        let launched = std::mem::take(&mut self.system.machine.programs.launched);
        for child in launched {
            if self.clients.len() < CLIENTS_MAX {
                self.clients.push(child);
            } else {
                self.system.kill(child);
            }
        }
        let server = &self.system.server;
        self.clients.retain(|client| server.is_live(client.pid));
    }

    /// Ends everything: nothing may be left.
    pub(crate) fn finish(mut self) {
        for client in std::mem::take(&mut self.clients) {
            self.system.kill(client);
        }
        self.system.end_session(self.guests);
        self.system.server.check();
        assert!(self.system.server.is_idle(), "something was left behind");
    }
}

/// What of `pid` is passed on: a facet of each endpoint it owns.
fn facets(system: &System, pid: Pid, choice: u8) -> Vec<(CapId, Passing)> {
    let passing = match choice % 4 {
        0 => Passing::Client {
            interface_id: Some(0x1234_5678_9abc_def0),
            badge: Some(u64::from(choice) + 7),
            disclosure_scope: 7,
        },
        1 => Passing::Raw,
        2 => Passing::Move,
        _ => Passing::Copy,
    };
    system
        .server
        .holds(pid)
        .filter(|(_, hold)| hold.interface_id == capos_config::ENDPOINT_INTERFACE_ID)
        .map(|(id, _)| (id, passing))
        .take(2)
        .collect()
}
