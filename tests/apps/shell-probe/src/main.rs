//! Stands in for `capos-shell`: looks at what it was started with, and ends
//! with 0 if that is what a shell in a session gets, and nothing else.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{
    ENDPOINT_INTERFACE_ID, ProcessHandleClient, RESTRICTED_LAUNCHER_INTERFACE_ID,
    RestrictedLauncherClient, SYSTEM_INFO_INTERFACE_ID, SystemInfoClient,
    TERMINAL_SESSION_INTERFACE_ID, TIMER_INTERFACE_ID, USER_SESSION_INTERFACE_ID,
    UserSessionClient,
};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;

const CENTURY_NS: u64 = 3_155_760_000 * 1_000_000_000;
const EXIT_RESTLESS: i64 = 50;

/// What it is to hold. `clock` was passed through by whoever launched it.
const EXPECTED: [(&[u8], u64); 6] = [
    (b"terminal", TERMINAL_SESSION_INTERFACE_ID),
    (b"session", USER_SESSION_INTERFACE_ID),
    (b"launcher", RESTRICTED_LAUNCHER_INTERFACE_ID),
    (b"system_info", SYSTEM_INFO_INTERFACE_ID),
    (b"stdio", ENDPOINT_INTERFACE_ID),
    (b"clock", TIMER_INTERFACE_ID),
];

fn probe(runtime: &mut Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    for (place, (name, interface_id)) in EXPECTED.into_iter().enumerate() {
        let held = capset.get(name).map_err(|_| 10 + place as i64)?;
        if held.interface_id() != interface_id {
            return Err(20 + place as i64);
        }
    }
    if capset.len() != EXPECTED.len() {
        return Err(30);
    }
    let mut session: UserSessionClient = capset.get_client(b"session").map_err(|_| 31)?;
    let mut launcher: RestrictedLauncherClient = capset.get_client(b"launcher").map_err(|_| 32)?;
    let mut info: SystemInfoClient = capset.get_client(b"system_info").map_err(|_| 33)?;
    let mut timer: TimerClient = capset.get_client(b"clock").map_err(|_| 34)?;
    let mut ring = runtime.ring_client().map_err(|_| 35)?;
    let session = session.info_wait(&mut ring, FOREVER).map_err(|_| 36)?;
    if session.profile != "operator" {
        return Err(37);
    }
    let binaries = launcher.list_binaries_wait(&mut ring, FOREVER);
    if binaries.map_err(|_| 38)? != ["exit-seven"] {
        return Err(39);
    }
    if info.hostname_wait(&mut ring, FOREVER).map_err(|_| 40)? != "proof" {
        return Err(41);
    }
    timer.now_wait(&mut ring, FOREVER).map_err(|_| 42)?;
    let spawned = launcher.spawn_wait(&mut ring, "child", "exit-seven", &[], FOREVER);
    let spawned = spawned.map_err(|_| 43)?;
    let mut child = ProcessHandleClient::from_capability(spawned.capability());
    let code = child.wait_wait(&mut ring, FOREVER).map_err(|_| 44)?;
    if code == 7 { Ok(()) } else { Err(45) }
}

/// As long as nobody ends it: what is passed as `rest` is a timer for that.
fn rest(runtime: &mut Runtime) -> Option<()> {
    let mut timer: TimerClient = runtime.capset().get_client(b"rest").ok()?;
    let mut ring = runtime.ring_client().ok()?;
    timer.sleep_wait(&mut *ring, CENTURY_NS, FOREVER).ok()
}

fn main(mut runtime: Runtime) -> i64 {
    if runtime.capset().get(b"rest").is_ok() {
        return rest(&mut runtime).map_or(EXIT_RESTLESS, |()| 0);
    }
    probe(&mut runtime).err().unwrap_or(0)
}

entry_point!(main);
