//! The command from end to end: a prefix, a root task and an application that
//! only have the right shape, and a shell script in place of QEMU that speaks
//! the guest's protocol: console on descriptor 3, log on descriptor 4, terminal on
//! descriptor 5.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use capos_config::manifest::{KernelBootstrapManifest, KernelCapSource};
use nix::sys::signal::{self, Signal};
use nix::sys::termios::{self, LocalFlags};
use nix::unistd::Pid;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Object, ObjectSymbol, elf};
use sel4_compose::{gate, image};
use tempfile::TempDir;

const CONFIG: &str = r#"{"SEL4_ARCH": "x86_64", "SYSENTER": false, "MAX_NUM_NODES": "1"}"#;
const CONFIG_SYSENTER: &str = r#"{"SEL4_ARCH": "x86_64", "SYSENTER": true}"#;
/// Prints a greeting and exits with 0.
const GREETS: &str = "printf 'hi\\n' >&3; printf 'verdict: exit 0\\n' >&4";

struct Stage {
    directory: TempDir,
}

impl Stage {
    fn new(config: &str) -> Self {
        let stage = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        stage.write("prefix/libsel4/include/kernel/gen_config.json", config);
        for name in ["object-api", "object-api-arch", "object-api-sel4-arch"] {
            stage.write(&format!("prefix/libsel4/include/interfaces/{name}.xml"), "");
        }
        stage.write("prefix/libsel4/include/api/syscall.xml", "");
        fs::create_dir_all(stage.path("prefix/bin")).unwrap();
        stage.link("app", "prefix/bin/kernel.elf");
        stage.link("root-task", "root-task.elf");
        stage.link("app", "sample.elf");
        // Domains would be built against the prefix, which has no kernel in it.
        stage.write("system.xml", "<system></system>\n");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn link(&self, fixture: &str, output: &str) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let script = fixtures.join(format!("{fixture}.ld"));
        let status = Command::new("cc")
            .args([
                "-g",
                "-O1",
                "-ffreestanding",
                "-fno-pic",
                "-no-pie",
                "-static",
            ])
            .args([
                "-nostdlib",
                "-Wl,--build-id=none",
                "-Wl,-z,max-page-size=4096",
            ])
            .arg(format!("-Wl,-T,{}", script.display()))
            .arg(fixtures.join(format!("{fixture}.c")))
            .arg("-o")
            .arg(self.path(output))
            .status()
            .unwrap();
        assert!(status.success(), "the fixture {fixture} must link");
    }

    /// A stand-in for QEMU that runs `script`.
    fn machine(&self, script: &str) -> PathBuf {
        let path = self.write("machine", &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn command(&self, verb: &str, app: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sel4-compose"));
        command
            .arg("--prefix")
            .arg(self.path("prefix"))
            .arg("--root-task")
            .arg(self.path("root-task.elf"))
            .arg("--domains")
            .arg(self.path("system.xml"))
            .arg("--qemu")
            .arg(self.path("machine"))
            .arg(verb)
            .arg(app);
        command
    }

    /// Runs the sample application on a machine that does as `script` says.
    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        self.machine(script);
        let mut command = self.command("app", &self.path("sample.elf"));
        command.args(arguments).output().unwrap()
    }

    /// Packs `app`; returns the image.
    fn pack(&self, app: &Path, caps: &str) -> Result<Vec<u8>, String> {
        let mut command = self.command("pack", app);
        let output = self.path("packed");
        command.args(["--caps", caps, "--output"]).arg(&output);
        let result = command.output().unwrap();
        if result.status.success() {
            return Ok(fs::read(output.join("image.elf")).unwrap());
        }
        Err(text(&result.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until the process whose number `file` holds is gone.
fn wait_until_gone(file: &Path) {
    let process = fs::read_to_string(file).unwrap();
    let entry = Path::new("/proc").join(process.trim());
    let deadline = Instant::now() + Duration::from_secs(5);
    while entry.exists() {
        assert!(Instant::now() < deadline, "the machine outlived its runner");
        sleep(Duration::from_millis(20));
    }
}

// ---- Running ----

#[test]
fn output_and_exit_code_zero_are_passed_on() {
    let result = Stage::new(CONFIG).run(GREETS, &[]);
    assert_eq!(text(&result.stdout), "hi\napp: exit 0\n");
    assert_eq!(result.status.code(), Some(0), "{}", text(&result.stderr));
}

#[test]
fn an_exit_code_becomes_the_status() {
    let result = Stage::new(CONFIG).run("printf 'verdict: exit 7\\n' >&4", &[]);
    assert_eq!(text(&result.stdout), "app: exit 7\n");
    assert_eq!(result.status.code(), Some(7));
}

#[test]
fn the_closing_line_stands_on_its_own() {
    let script = "printf 'no end' >&3; printf 'verdict: exit 0\\n' >&4";
    let result = Stage::new(CONFIG).run(script, &[]);
    assert_eq!(text(&result.stdout), "no end\napp: exit 0\n");
}

#[test]
fn an_application_cannot_print_itself_a_verdict() {
    let script = "printf 'verdict: exit 0\\n' >&3; printf 'verdict: exit 5\\n' >&4";
    let result = Stage::new(CONFIG).run(script, &[]);
    assert_eq!(result.status.code(), Some(5));
}

#[test]
fn the_log_is_shown_on_request_only() {
    let script = format!("printf 'root-task: up\\n' >&4; {GREETS}");
    let stage = Stage::new(CONFIG);
    assert!(!text(&stage.run(&script, &[]).stderr).contains("root-task: up"));
    assert!(text(&stage.run(&script, &["--log"]).stderr).contains("root-task: up"));
}

#[test]
fn a_fault_is_shown_with_function_file_and_line() {
    let stage = Stage::new(CONFIG);
    let program = fs::read(stage.path("sample.elf")).unwrap();
    let file = object::File::parse(&*program).unwrap();
    let crash = file.symbols().find(|s| s.name() == Ok("crash")).unwrap();
    let script = format!(
        "printf 'fault: pid=1 program=sample type=page-fault access=write addr=0x8 ip=0x%x\\n\
         verdict: killed page-fault\\n' {} >&4",
        crash.address()
    );
    let result = stage.run(&script, &[]);
    let shown = text(&result.stdout);
    assert!(shown.contains("fault: pid=1 program=sample"), "{shown}");
    assert!(
        shown.contains("in crash at ") && shown.contains("app.c:"),
        "{shown}"
    );
    assert!(shown.ends_with("app: killed (page fault)\n"), "{shown}");
    assert_eq!(result.status.code(), Some(137));
}

#[test]
fn a_guest_that_hangs_is_ended_with_its_last_lines() {
    let stage = Stage::new(CONFIG);
    let process = stage.path("process");
    let script = format!(
        "echo $$ > {}; printf 'still here' >&3; exec sleep 1000",
        process.display()
    );
    let result = stage.run(&script, &["--timeout", "1"]);
    assert_eq!(
        text(&result.stdout),
        "still here\napp: no exit within 1 s\n"
    );
    assert!(text(&result.stderr).contains("console| still here"));
    assert_eq!(result.status.code(), Some(124));
    wait_until_gone(&process);
}

#[test]
fn a_guest_that_prints_without_end_is_ended_too() {
    let script = "while :; do printf 'yyyyyyyyyyyyyyyy\\n' >&3; done";
    let result = Stage::new(CONFIG).run(script, &["--timeout", "1"]);
    assert_eq!(result.status.code(), Some(124));
}

#[test]
fn a_machine_that_stops_without_a_verdict_is_a_failure() {
    let result = Stage::new(CONFIG).run("printf 'hi\\n' >&3; echo boom >&2; exit 0", &[]);
    assert_eq!(result.status.code(), Some(125));
    assert!(text(&result.stderr).contains("qemu| boom"));
    assert!(text(&result.stdout).contains("stopped without a verdict"));
}

#[test]
fn a_panic_of_the_root_task_is_a_failure() {
    let result = Stage::new(CONFIG).run("printf 'verdict: panic main.rs:3\\n' >&4", &[]);
    assert_eq!(result.status.code(), Some(125));
    assert!(text(&result.stdout).contains("root task panicked at main.rs:3"));
}

#[test]
fn a_machine_that_does_not_leave_is_ended_after_the_verdict() {
    let stage = Stage::new(CONFIG);
    let process = stage.path("process");
    let script = format!("echo $$ > {}; {GREETS}; exec sleep 1000", process.display());
    let result = stage.run(&script, &[]);
    assert_eq!(result.status.code(), Some(0));
    wait_until_gone(&process);
}

#[test]
fn the_machine_dies_with_its_runner() {
    let stage = Stage::new(CONFIG);
    let process = stage.path("process");
    stage.machine(&format!("echo $$ > {}; exec sleep 1000", process.display()));
    let mut runner = stage
        .command("app", &stage.path("sample.elf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&process).is_ok_and(|text| text.ends_with('\n')) {
        assert!(Instant::now() < deadline, "the machine did not start");
        sleep(Duration::from_millis(20));
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
    wait_until_gone(&process);
}

#[test]
fn a_missing_emulator_is_named() {
    let stage = Stage::new(CONFIG);
    let result = stage
        .command("app", &stage.path("sample.elf"))
        .output()
        .unwrap();
    let complaint = text(&result.stderr);
    assert!(complaint.contains("machine not found"), "{complaint}");
    assert!(!result.status.success());
}

// ---- Packing ----

/// Program headers of `image` as (type, flags, address, file bytes, memory bytes).
fn headers(image: &[u8]) -> Vec<(u32, u32, u64, u64, u64)> {
    let file = ElfFile64::<object::Endianness>::parse(image).unwrap();
    let e = file.endian();
    let headers = file.elf_program_headers().iter();
    headers
        .map(|h| {
            (
                h.p_type(e).0,
                h.p_flags(e).0,
                h.p_vaddr(e),
                h.p_filesz(e),
                h.p_memsz(e),
            )
        })
        .collect()
}

#[test]
fn the_archive_becomes_the_last_segment_at_its_symbol() {
    let stage = Stage::new(CONFIG);
    let packed = stage.pack(&stage.path("sample.elf"), "console").unwrap();
    let root_task = fs::read(stage.path("root-task.elf")).unwrap();
    let file = object::File::parse(&*root_task).unwrap();
    let address = |name| {
        let symbol = file.symbols().find(|s| s.name() == Ok(name)).unwrap();
        symbol.address()
    };
    let (kind, flags, at, file_bytes, memory_bytes) = *headers(&packed).last().unwrap();
    assert_eq!((kind, flags), (elf::PT_LOAD.0, elf::PF_R.0));
    assert_eq!(at, address("__boot_archive"));
    assert_eq!(file_bytes, memory_bytes);
    assert_eq!(file_bytes % 8, 0);
    let data = headers(&packed)[1].2;
    let stored = {
        let file = ElfFile64::<object::Endianness>::parse(&*packed).unwrap();
        let header = &file.elf_program_headers()[1];
        let bytes = header.data(file.endian(), &*packed).unwrap();
        let offset = (address("__boot_archive_len") - data) as usize;
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    };
    assert_eq!(stored.next_multiple_of(8), file_bytes);
}

#[test]
fn the_manifest_names_program_and_capabilities() {
    let stage = Stage::new(CONFIG);
    let packed = stage
        .pack(&stage.path("sample.elf"), "console clock=timer")
        .unwrap();
    // A message is read in words, so it is copied to where words may be.
    let bytes = image::find_entry(&packed, image::MANIFEST_ENTRY).unwrap();
    let bytes = bytes.to_vec();
    let manifest = KernelBootstrapManifest::from_capnp_bytes(&bytes).unwrap();
    assert_eq!(manifest.init.binary, "sample");
    let caps = manifest.init.caps.iter();
    let caps: Vec<_> = caps.map(|cap| (cap.name.as_str(), cap.source)).collect();
    let expected = [
        ("console", KernelCapSource::Console),
        ("clock", KernelCapSource::Timer),
    ];
    assert_eq!(caps, expected);
}

#[test]
fn system_calls_are_rewritten_and_nothing_else() {
    let stage = Stage::new(CONFIG);
    let built = fs::read(stage.path("sample.elf")).unwrap();
    let report = gate::inspect(&built).unwrap();
    assert_eq!((report.sites.len(), report.kept.len()), (2, 1));
    let packed = stage.pack(&stage.path("sample.elf"), "").unwrap();
    let program = image::find_entry(&packed, "bins/sample").unwrap();
    let stripped = image::strip(&built).unwrap();
    assert_eq!(program.len(), stripped.len());
    let changed = program.iter().zip(&stripped).filter(|(a, b)| a != b);
    assert_eq!(changed.count(), 4, "two bytes for each of two sites");
    assert_eq!(gate::inspect(program).unwrap().sites, [0u64; 0]);
}

/// A generator of numbers that look random and are the same every time.
fn numbers(seed: u64) -> impl Iterator<Item = usize> {
    let step = |state: &u64| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        )
    };
    std::iter::successors(step(&seed), step).map(|state| (state >> 33) as usize)
}

#[test]
fn a_damaged_file_is_refused_or_packed_but_never_a_panic() {
    let stage = Stage::new(CONFIG);
    for file in ["sample.elf", "root-task.elf"] {
        damage(&fs::read(stage.path(file)).unwrap());
    }
}

fn damage(built: &[u8]) {
    // Most damage goes to the headers: the rest is mostly debug information.
    let span = [64, 256, built.len()];
    for seed in 0..3000 {
        let mut damaged = built.to_vec();
        let mut number = numbers(seed);
        for _ in 0..1 + seed % 4 {
            let at = number.next().unwrap() % span[seed as usize % span.len()];
            damaged[at] = number.next().unwrap() as u8;
        }
        let length = damaged.len() - number.next().unwrap() % 64;
        damaged.truncate(length);
        let _ = gate::rewrite(&mut damaged);
        if image::check_program("damaged", &damaged).is_ok() {
            let _ = image::strip(&damaged);
        }
        let _ = image::append(&damaged, &[], 100);
        let _ = image::find_entry(&damaged, "bins/sample");
    }
}

#[test]
fn a_kernel_that_needs_no_gate_gets_the_program_as_built() {
    let stage = Stage::new(CONFIG_SYSENTER);
    let packed = stage.pack(&stage.path("sample.elf"), "").unwrap();
    let program = image::find_entry(&packed, "bins/sample").unwrap();
    assert_eq!(program, fs::read(stage.path("sample.elf")).unwrap());
}

#[test]
fn the_same_input_gives_the_same_image() {
    let stage = Stage::new(CONFIG);
    let first = stage.pack(&stage.path("sample.elf"), "console").unwrap();
    let second = stage.pack(&stage.path("sample.elf"), "console").unwrap();
    assert!(first == second);
}

#[test]
fn a_program_with_the_reserved_name_is_packed_under_another() {
    let stage = Stage::new(CONFIG);
    fs::copy(stage.path("sample.elf"), stage.path("init")).unwrap();
    let packed = stage.pack(&stage.path("init"), "").unwrap();
    assert!(image::find_entry(&packed, "bins/init-program").is_some());
}

// ---- Described systems ----

const SYSTEM: &str = r#"
[system]
name = "sample system"

[init]
binary = "sample"
caps = ["console", "timer"]

[programs]
sample = "sample.elf"

[[services]]
name = "first"
binary = "sample"
caps = { console = "console", calls = "endpoint" }
exports = ["calls"]

[[services]]
name = "second"
binary = "sample"
caps = { up = { service = "first", export = "calls", badge = 7 } }
"#;

impl Stage {
    /// Runs a system whose first program has the terminal.
    fn simulate(&self, arguments: &[&str]) -> Output {
        self.simulation().args(arguments).output().unwrap()
    }

    fn simulation(&self) -> Command {
        let file = self.write("system.toml", &system_with_terminal());
        let mut command = self.command("run", &file);
        command.arg("--output").arg(self.path("simulate"));
        command
    }

    /// Runs `verb` on a description that says `system`.
    fn describe(&self, verb: &str, system: &str, arguments: &[&str]) -> Output {
        let file = self.write("system.toml", system);
        let mut command = self.command(verb, &file);
        command.args(arguments).output().unwrap()
    }
}

#[test]
fn a_described_system_is_checked_without_building() {
    let stage = Stage::new(CONFIG);
    let checked = stage.describe("check", SYSTEM, &[]);
    let shown = text(&checked.stdout);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(
        shown.contains("ok: sample starts first; programs 1, services 2, capabilities 5"),
        "{shown}"
    );
}

#[test]
fn a_wrong_key_fails_the_check_with_its_place() {
    let stage = Stage::new(CONFIG);
    let checked = stage.describe("check", &SYSTEM.replace("exports", "exprots"), &[]);
    let shown = text(&checked.stderr);
    assert!(!checked.status.success());
    assert!(
        shown.contains("system.toml:16:1: a service has no key `exprots`"),
        "{shown}"
    );
    assert!(shown.contains("advice: did you mean `exports`?"), "{shown}");
}

#[test]
fn a_described_system_runs_under_its_name() {
    let stage = Stage::new(CONFIG);
    stage.machine(GREETS);
    let run = stage.describe("run", SYSTEM, &[]);
    assert_eq!(
        text(&run.stdout),
        "hi\nsample system: exit 0\n",
        "{}",
        text(&run.stderr)
    );
}

// ---- The terminal ----

/// The system, whose first program has the terminal.
fn system_with_terminal() -> String {
    let console = r#"console = "console","#;
    assert!(SYSTEM.contains(console));
    SYSTEM.replace(console, r#"console = "console", tty = "terminal_session","#)
}

/// Asks for a name of two letters on the terminal, and repeats it.
const ASKS: &str = "printf 'elsewhere\\n' >&3; printf 'login: ' >&5; name=$(head -c 2 <&5); \
                    printf '%s\\r\\nhello %s\\r\\n' \"$name\" \"$name\" >&5; \
                    printf 'root-task: up\\nverdict: exit 0\\n' >&4";

#[test]
fn a_script_is_typed_at_the_terminal_and_recorded() {
    let stage = Stage::new(CONFIG);
    stage.machine(ASKS);
    let script = stage.write("script", "me\n").display().to_string();
    let record = stage.path("record");
    let arguments = ["--script", &script, "--record", record.to_str().unwrap()];
    let run = stage.simulate(&arguments);
    let messages = text(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{messages}");
    assert_eq!(text(&run.stdout), "login: me\r\nhello me\r\n", "{messages}");
    assert!(messages.contains("sample system: exit 0\n"), "{messages}");
    for (label, name, contents) in [
        ("console", "console.log", "elsewhere\n"),
        (
            "root task's log",
            "root-task.log",
            "root-task: up\nverdict: exit 0\n",
        ),
    ] {
        let file = stage.path("simulate").join(name);
        assert_eq!(fs::read_to_string(&file).unwrap(), contents);
        let told = format!("{label}: {}\n", file.display());
        assert!(messages.contains(&told), "{messages}");
    }
    let shown = fs::read_to_string(stage.path("record.txt")).unwrap();
    assert_eq!(shown, "login: me\nhello me\n");
    let picture = fs::read_to_string(stage.path("record.svg")).unwrap();
    assert!(picture.contains(">hello me</text>"), "{picture}");
}

#[test]
fn a_line_that_was_not_typed_is_a_failure() {
    let stage = Stage::new(CONFIG);
    stage.machine(ASKS);
    let script = stage.write("script", "me\nls\n").display().to_string();
    let run = stage.simulate(&["--script", &script]);
    assert_eq!(run.status.code(), Some(1));
    let messages = text(&run.stderr);
    assert!(messages.contains("line 2 of the script"), "{messages}");
}

#[test]
fn without_a_terminal_to_type_at_nothing_is_run() {
    let stage = Stage::new(CONFIG);
    stage.machine(ASKS);
    let run = stage.simulate(&[]);
    assert!(!run.status.success());
    let messages = text(&run.stderr);
    assert!(messages.contains("HEADLESS=1"), "{messages}");
}

/// Runs a system on a terminal until it asks, does `end` to it, and returns the
/// exit code. The terminal must be raw meanwhile and as before afterwards.
fn run_on_a_terminal(end: fn(&mut fs::File, u32)) -> Option<i32> {
    let stage = Stage::new(CONFIG);
    stage.machine("printf 'login: ' >&5; exec sleep 1000");
    let pty = nix::pty::openpty(None, None).unwrap();
    let mode = || termios::tcgetattr(&pty.slave).unwrap().local_flags;
    let before = mode();
    let side = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = stage.simulation();
    let mut child = command
        .stdin(side())
        .stdout(side())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut person = fs::File::from(pty.master.try_clone().unwrap());
    let mut shown = Vec::new();
    while !shown.ends_with(b"login: ") {
        let mut byte = [0];
        person.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    assert!(!mode().contains(LocalFlags::ICANON) && !mode().contains(LocalFlags::ISIG));
    end(&mut person, child.id());
    let status = child.wait().unwrap();
    assert_eq!(mode(), before, "the terminal is as it was");
    status.code()
}

#[test]
fn ctrl_a_x_leaves_the_terminal_as_it_was() {
    let code = run_on_a_terminal(|person, _| person.write_all(b"\x03x\x01?\x01x").unwrap());
    assert_eq!(code, Some(0));
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let code = run_on_a_terminal(|_, process| {
        let process = Pid::from_raw(process.try_into().unwrap());
        signal::kill(process, Signal::SIGTERM).unwrap();
    });
    assert_eq!(code, Some(0));
}

// ---- Images ----

#[test]
fn building_twice_gives_the_same_image_with_a_digest_of_everything() {
    let stage = Stage::new(CONFIG);
    let build = |name: &str| {
        let output = stage.path(name);
        let output = output.to_str().unwrap();
        let built = stage.describe("build", SYSTEM, &["--output", output]);
        assert!(built.status.success(), "{}", text(&built.stderr));
        assert!(
            text(&built.stdout).contains("3 processes, "),
            "{}",
            text(&built.stdout)
        );
        fs::read(stage.path(name).join("image.elf")).unwrap()
    };
    let (first, second) = (build("one"), build("two"));
    assert!(first == second);
    let entries = image::entries(&first).unwrap();
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            image::HASHES_ENTRY,
            image::MANIFEST_ENTRY,
            "bins/sample",
            "domains.bin"
        ]
    );
    let rest: Vec<(String, &[u8])> = entries[1..].to_vec();
    assert_eq!(text(entries[0].1), image::hashes(&rest));
}

#[test]
fn an_inspected_image_tells_who_holds_what() {
    let stage = Stage::new(CONFIG);
    let output = stage.path("built");
    let built = stage.describe("build", SYSTEM, &["--output", output.to_str().unwrap()]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let shown = stage.command("inspect", &output).output().unwrap();
    let shown = text(&shown.stdout);
    for line in [
        "process init: program sample, restart never",
        "calls                Endpoint           kernel:endpoint -> second",
        "up                   Endpoint           service:first.calls badge 0x7",
        "I/O ports        0x3e8-0x3ef  a port",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let json = stage
        .command("inspect", &output)
        .arg("--json")
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["processes"][2]["capabilities"][0]["badge"], 7);
    assert_eq!(json["root_task"]["hardware"][0]["first"], 0x3e8);
    let promised = json["processes"][0]["memory"]["promised_pages"]
        .as_u64()
        .unwrap();
    assert!(promised > 16, "{promised}");
}

#[test]
fn what_is_no_image_cannot_be_inspected() {
    let stage = Stage::new(CONFIG);
    let refused = stage
        .command("inspect", &stage.path("sample.elf"))
        .output()
        .unwrap();
    let shown = text(&refused.stderr);
    assert!(!refused.status.success());
    assert!(shown.contains("this is no packed image"), "{shown}");
}

// ---- Bad input ----

/// What a test run of `scenario` on `kernels` prints, and its status.
fn test_run(scenario: &str, kernels: &[&Path]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sel4-compose"));
    command.arg("test").arg(scenario);
    for kernel in kernels {
        command.arg("--on").arg(kernel);
    }
    let output = command.output().unwrap();
    (text(&output.stdout), output.status.code())
}

#[test]
fn an_absent_kernel_is_skipped_and_not_counted_as_passed() {
    let (printed, status) = test_run("hello", &[Path::new("/nowhere/sel4")]);
    assert_eq!(
        printed,
        "/nowhere/sel4: skipped, there is no such prefix\n0 passed, 0 failed\n"
    );
    assert_eq!(status, Some(1));
}

#[test]
fn what_says_nothing_about_a_kernel_is_skipped_with_the_reason() {
    let with_mcs = r#"{"SEL4_ARCH": "x86_64", "KERNEL_MCS": true, "VERSION": "16.0.0"}"#;
    for (config, scenario, reason) in [
        (
            with_mcs,
            "forge-poll",
            "(not with MCS: a program holds no endpoint",
        ),
        (with_mcs, "hello-smp", "(bundled kernels only: "),
        (with_mcs, "hello-unchanged", "(needs KERNEL=sysenter)"),
        (CONFIG, "forge-mcs", "(needs a kernel with MCS)"),
    ] {
        let stage = Stage::new(config);
        let (printed, status) = test_run(scenario, &[&stage.path("prefix")]);
        let skipped = format!("proof {scenario} skipped {reason}");
        assert!(printed.contains(&skipped), "{printed}");
        assert!(
            printed.ends_with("0 passed, 0 failed, 1 skipped\n"),
            "{printed}"
        );
        assert_eq!(status, Some(1));
    }
}

#[test]
fn a_scenario_that_was_only_skipped_is_no_success() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sel4-compose"));
    let output = command.args(["test", "forge-mcs"]).output().unwrap();
    assert_eq!(
        text(&output.stdout),
        "proof forge-mcs skipped (needs a kernel with MCS)\n0 passed, 0 failed, 1 skipped\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

fn refusal(config: &str, app: &str, caps: &str) -> String {
    let stage = Stage::new(config);
    let app = stage.path(app);
    stage.pack(&app, caps).unwrap_err()
}

#[test]
fn an_unknown_capability_source_is_named_with_the_known_ones() {
    let refusal = refusal(CONFIG, "sample.elf", "console tty=konsole");
    assert!(refusal.contains("`konsole`"), "{refusal}");
    assert!(refusal.contains("`terminal_session`"), "{refusal}");
}

#[test]
fn a_capability_granted_twice_is_refused() {
    let refusal = refusal(CONFIG, "sample.elf", "console console");
    assert!(refusal.contains("`console` twice"), "{refusal}");
}

#[test]
fn a_capability_name_that_is_too_long_is_refused() {
    let caps = format!("{}=console", "x".repeat(33));
    let refusal = refusal(CONFIG, "sample.elf", &caps);
    assert!(refusal.contains("longer than 32 bytes"), "{refusal}");
}

#[test]
fn an_image_that_does_not_fit_is_refused_with_figures() {
    let config = r#"{"SEL4_ARCH": "x86_64", "ROOT_CNODE_SIZE_BITS": "4"}"#;
    let refusal = refusal(config, "sample.elf", "");
    assert!(
        refusal.contains("image too large: root task 26 pages"),
        "{refusal}"
    );
    assert!(refusal.contains("leaves room for 8"), "{refusal}");
}

#[test]
fn a_prefix_for_another_architecture_is_refused() {
    let refusal = refusal(r#"{"SEL4_ARCH": "aarch64"}"#, "sample.elf", "");
    assert!(refusal.contains("is for aarch64"), "{refusal}");
}

#[test]
fn a_prefix_without_a_file_is_refused_by_its_name() {
    let stage = Stage::new(CONFIG);
    fs::remove_file(stage.path("prefix/libsel4/include/api/syscall.xml")).unwrap();
    let refusal = stage.pack(&stage.path("sample.elf"), "").unwrap_err();
    assert!(
        refusal.contains("has no libsel4/include/api/syscall.xml"),
        "{refusal}"
    );
}

#[test]
fn a_program_the_loader_refuses_is_refused_with_its_reason() {
    // A program of this machine is dynamic: not a capOS executable.
    let stage = Stage::new(CONFIG);
    let refusal = stage.pack(Path::new("/bin/true"), "").unwrap_err();
    assert!(
        refusal.contains("program `true` would be refused at boot"),
        "{refusal}"
    );
}

#[test]
fn a_root_task_without_its_layout_is_refused() {
    let stage = Stage::new(CONFIG);
    fs::copy(stage.path("sample.elf"), stage.path("root-task.elf")).unwrap();
    let refusal = stage.pack(&stage.path("sample.elf"), "").unwrap_err();
    assert!(refusal.contains("root task has no spare"), "{refusal}");
}

#[test]
fn something_that_is_no_application_is_refused() {
    let refusal = refusal(CONFIG, "nothing-here", "");
    assert!(
        refusal.contains("neither an ELF file nor a directory"),
        "{refusal}"
    );
}
