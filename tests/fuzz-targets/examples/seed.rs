//! Writes the hand-made part of the fuzz corpus: well-formed inputs that the
//! fuzzers start from.
//!
//! `cargo run -p fuzz-targets --example seed`

use std::fs;
use std::path::Path;

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::capos_capnp::{
    self, boot_package, capability_manager, console, process_spawner, timer,
};

fn main() -> std::io::Result<()> {
    for (target, name, bytes) in seeds() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}

fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let code = [0xb8, 2, 0, 0, 0, 0x0f, 0x05, 0xc3];
    let constant = [0xb8, 0x0f, 0x05, 0, 0, 0xc3];
    let manifest = manifest();
    let archive = sel4_compose::image::archive(&[
        ("manifest.bin".into(), &manifest[..]),
        ("bins/hello".into(), &elf(&code, false)[..]),
    ]);
    vec![
        ("elf", "seed-code", elf(&code, false)),
        ("elf", "seed-tls", elf(&code, true)),
        ("gate", "seed-code", elf(&code, false)),
        ("gate", "seed-constant", elf(&constant, true)),
        ("manifest", "seed-manifest", manifest),
        ("manifest", "seed-archive", archive),
        ("params", "seed-calls", params()),
        ("ring", "seed-steps", steps()),
        ("transfer", "seed-rounds", vec![0x5a; 400]),
    ]
}

/// A static program: one executable segment, one writable, perhaps TLS.
fn elf(code: &[u8], tls: bool) -> Vec<u8> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    let base: u64 = 0x20_0000;
    let mut headers = vec![(
        1_u32,
        5_u32,
        0x1000_u64,
        base,
        code.len() as u64,
        0x1000_u64,
    )];
    headers.push((1, 6, 0x1100, base + 0x2100, 16, 0x3000));
    if tls {
        headers.push((7, 4, 0x1100, base + 0x2100, 8, 24));
    }
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    out.resize(16, 0);
    out.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    out.extend(base.to_le_bytes());
    out.extend(HEADER.to_le_bytes());
    out.extend([0; 12]);
    out.extend([
        HEADER as u8,
        0,
        PROGRAM_HEADER as u8,
        0,
        headers.len() as u8,
        0,
    ]);
    out.extend([64, 0, 0, 0, 0, 0]);
    for (kind, flags, offset, address, file, memory) in headers {
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        for word in [offset, address, address, file, memory] {
            out.extend(word.to_le_bytes());
        }
        let align: u64 = if kind == 1 { 0x1000 } else { 8 };
        out.extend(align.to_le_bytes());
    }
    out.resize(0x1000, 0);
    out.extend(code);
    out.resize(0x1110, 0x5a);
    out
}

fn manifest() -> Vec<u8> {
    let grants = sel4_compose::image::parse_grants("console timer endpoint")
        .expect("sources of the manifest format");
    sel4_compose::image::manifest("hello", &["hello", "other"], &grants, false)
        .expect("a valid manifest")
}

/// One call per object and method: object, method, result choice, length,
/// params.
fn params() -> Vec<u8> {
    let mut out = Vec::new();
    let mut call = |object: u8, method: u8, result: u8, params: &[u8]| {
        out.extend([object, method, result]);
        out.extend((params.len() as u16).to_le_bytes());
        out.extend(params);
    };
    let mut message = Builder::new_default();
    let mut write: console::write_params::Builder<'_> = message.init_root();
    write.set_data(b"bytes");
    call(0, 0, 0, &write_message_to_words(&message));
    let mut message = Builder::new_default();
    let mut line: console::write_line_params::Builder<'_> = message.init_root();
    line.set_text("line");
    call(0, 1, 0, &write_message_to_words(&message));
    call(1, 0, 0, &[]);
    let mut message = Builder::new_default();
    let mut sleep: timer::sleep_params::Builder<'_> = message.init_root();
    sleep.set_duration_ns(1_000_000);
    call(1, 1, 0, &write_message_to_words(&message));
    call(3, 0, 4, &spawn());
    call(4, 0, 0, &[]);
    call(2, 0, 4, &[]);
    let mut message = Builder::new_default();
    let mut revoke: capability_manager::revoke_params::Builder<'_> = message.init_root();
    revoke.set_cap_id(1);
    call(2, 1, 0, &write_message_to_words(&message));
    call(4, 1, 0, &[]);
    call(5, 0, 0, &[]);
    let mut message = Builder::new_default();
    let mut read: boot_package::read_manifest_params::Builder<'_> = message.init_root();
    read.set_offset(4096);
    read.set_max_bytes(4096);
    call(5, 1, 4, &write_message_to_words(&message));
    out
}

fn spawn() -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut spawn: process_spawner::spawn_params::Builder<'_> = message.init_root();
    spawn.set_name("child");
    spawn.set_binary_name("prog");
    let mut grants = spawn.init_grants(3);
    let mut kernel = |index, name: &str, source| {
        let mut grant = grants.reborrow().get(index);
        grant.set_name(name);
        grant.set_mode(capos_capnp::CapGrantMode::Raw);
        grant.init_source().set_kernel(source);
    };
    kernel(0, "console", capos_capnp::KernelCapSource::Console);
    kernel(1, "endpoint", capos_capnp::KernelCapSource::Endpoint);
    let mut held = grants.get(2);
    held.set_name("timer");
    held.set_cap_id(1);
    held.set_interface_id(capos_config::TIMER_INTERFACE_ID);
    held.init_source().set_capability(());
    write_message_to_words(&message)
}

/// A receive, a call to it, entries, time.
fn steps() -> Vec<u8> {
    let mut out = Vec::new();
    for who in [0_u8, 1, 0, 2, 1, 0] {
        let client = who << 4;
        out.extend([client | 4, 3, 4, 0, 8, 0, 10, 5, 5, 9, 0, 1, 1, 1, 2, 3]);
        out.extend([client, 0, 0, 0]);
        out.extend([client | 13, 20]);
        out.extend([client | 10, 1]);
    }
    out
}
