//! Measurements into a PostgreSQL server that the test starts, and back.
//!
//! The server is Debian's package `postgresql`, or an `initdb` in PATH with its
//! siblings.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use bench_report::{Run, history};
use tempfile::TempDir;

/// Who runs the server where this test is run by root, which must not.
const UNPRIVILEGED: &str = "postgres";

/// Where the server's programs are: Debian's newest version, or in PATH.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions.flatten().map(|entry| entry.path().join("bin"));
    let has_server = |path: &PathBuf| path.join("initdb").is_file();
    let path = env::var_os("PATH").unwrap_or_default();
    debian
        .filter(has_server)
        .max()
        .or_else(|| env::split_paths(&path).find(has_server))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout == b"0\n"
}

/// A server with its files in a directory of its own, which no network reaches.
struct Server {
    programs: PathBuf,
    directory: TempDir,
}

impl Server {
    fn start(programs: PathBuf) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), open).expect("its mode");
        let server = Self {
            programs,
            directory,
        };
        let data = server.data();
        succeed(
            server
                .run("initdb")
                .args(["--auth=trust", "--username=bench", "-D"])
                .arg(&data),
        );
        let socket = server.directory.path().display();
        let options = format!("-c listen_addresses= -c unix_socket_directories={socket}");
        let log = server.directory.path().join("log");
        succeed(
            server
                .run("pg_ctl")
                .args(["start", "--wait", "-o", &options, "-D"])
                .arg(&data)
                .arg("-l")
                .arg(log),
        );
        server
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// One of the server's programs, run by somebody who may.
    fn run(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", UNPRIVILEGED, "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.directory.path());
        command
    }

    /// A client, which finds the server in its environment.
    fn client(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("PGHOST", self.directory.path())
            .env("PGUSER", "bench")
            .env("PGDATABASE", "postgres");
        command
    }

    fn load(&self, file: &Path) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../telemetry/load.sh");
        self.client("sh")
            .arg(script)
            .arg(file)
            .output()
            .expect("sh")
    }

    fn query(&self, query: &str) -> String {
        let mut command = self.client("psql");
        command.args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--command",
            query,
        ]);
        String::from_utf8(succeed(&mut command).stdout).expect("text")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        let stopped = self
            .run("pg_ctl")
            .args(["stop", "--mode=immediate", "-D"])
            .arg(data)
            .output();
        if !stopped.is_ok_and(|output| output.status.success()) {
            eprintln!("the server was not stopped");
        }
    }
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("it can be run");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    output
}

#[test]
fn what_is_loaded_can_be_queried_and_is_loaded_once() {
    let programs = programs().expect("a PostgreSQL server (Debian package postgresql)");
    let server = Server::start(programs);
    let run = Run::new(
        "5.0.0 \"quoted\", 'too'",
        "bench-suite",
        [
            "bench nop batch=16 median=0 min=0 max=0 samples=4928*100,9990*1",
            "bench endpoint-call median=0 min=0 max=0 samples=7002*101",
        ],
    );
    let history = server.directory.path().join("history.jsonl");
    let lines = [
        history::entry(&run, 1_700_000_000, "r1"),
        history::entry(&run, 1_700_000_001, "r2"),
    ];
    fs::write(&history, lines.join("\n") + "\n").expect("written");

    let first = server.load(&history);
    let complaint = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.stdout, b"2 runs in the file, 2 new\n", "{complaint}");
    let again = server.load(&history);
    assert_eq!(again.stdout, b"2 runs in the file, 0 new\n");

    let medians = server.query(
        "SELECT revision, kernel, name, median, samples FROM bench.result \
         JOIN bench.run ON run = id ORDER BY revision, name",
    );
    let kernel = &run.kernel;
    let expected = ["r1", "r2"].map(|revision| {
        format!("{revision}|{kernel}|endpoint-call|7002|101\n{revision}|{kernel}|nop batch=16|4928|101\n")
    });
    assert_eq!(medians, expected.concat());
    assert_eq!(
        server.query("SELECT DISTINCT name, max FROM bench.outlier"),
        "nop batch=16|9990\n"
    );

    fs::write(
        &history,
        "{\"ts\": 5, \"sha\": \"x\", \"kernel\": \"k\", \"row\": [9,8,7,6,5,4,3,2]}\n",
    )
    .expect("written");
    assert!(
        !server.load(&history).status.success(),
        "nonsense was loaded"
    );
    assert_eq!(server.query("SELECT count(*) FROM bench.run"), "2\n");
}
