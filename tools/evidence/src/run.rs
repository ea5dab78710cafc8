//! Commands with a time limit.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// How a command ended.
pub struct Ended {
    /// Whether it succeeded; `None` if it had to be stopped.
    pub success: Option<bool>,
    /// Standard output and error, as they came.
    pub output: String,
}

/// Runs `command` with its output in the file `log`, for at most `limit`.
pub fn bounded(mut command: Command, log: &Path, limit: Duration) -> Result<Ended, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let wrong = |error: std::io::Error| format!("{name}: {error}");
    let out = File::create(log).map_err(wrong)?;
    command
        .stdin(Stdio::null())
        .stderr(out.try_clone().map_err(wrong)?)
        .stdout(out)
        .process_group(0);
    let mut child = command.spawn().map_err(wrong)?;
    let start = Instant::now();
    let success = loop {
        if let Some(status) = child.try_wait().map_err(wrong)? {
            break Some(status.success());
        }
        if start.elapsed() > limit {
            stop_group(child.id());
            child.wait().map_err(wrong)?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut bytes = Vec::new();
    let mut file = File::open(log).map_err(wrong)?;
    file.read_to_end(&mut bytes).map_err(wrong)?;
    let output = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ended { success, output })
}

/// Ends a process group that this program started.
fn stop_group(leader: u32) {
    let group = format!("-{leader}");
    // A group that ended by itself needs no signal.
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
}
