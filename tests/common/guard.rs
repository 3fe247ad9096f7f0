//! Ends the servers of a test whose process is killed by Ctrl-C or a signal.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

/// A small shell in a separate process group. It reads from the test process; if that ends without notice, the shell
/// ends the guarded process.
pub struct Guard(Child);

impl Guard {
    /// Guards one process.
    pub fn process(child: &Child) -> Self {
        Self::by("kill -s TERM \"$1\"", &child.id().to_string())
    }

    /// Guards a process group.
    pub fn group(leader: &Child) -> Self {
        Self::by("kill -s TERM -- \"-$1\"", &leader.id().to_string())
    }

    /// Guards a daemon that writes its PID into a file, and may still be starting.
    pub fn pid_file(path: &str) -> Self {
        let wait = "n=0; until [ -s \"$1\" ] || [ $n = 100 ]; do n=$((n+1)); sleep 0.1; done";
        Self::by(&format!("{wait}; read -r pid <\"$1\" && kill -s TERM $pid"), path)
    }

    fn by(end: &str, argument: &str) -> Self {
        let script = format!("trap '' HUP INT TERM; read -r done || {{ {end}; }}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", argument]).process_group(0);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Guard {
    /// The test has ended its server, so the guard does nothing.
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process, without the program `kill`, which is not on every machine.
pub fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

/// Terminates a process group, and waits for its leader.
pub fn end_group(leader: &mut Child) {
    let _ = rustix::process::kill_process_group(Pid::from_child(leader), Signal::TERM);
    let _ = leader.wait();
}
