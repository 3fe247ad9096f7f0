//! Which program listens on a port of this machine, for the error of another one that cannot.

/// A program that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder {
    /// Its name and process, in words: `master (process 812)`.
    pub name: String,
    /// Whether it is this process itself.
    pub is_this_process: bool,
}

/// Finds who listens on a TCP port. Only root sees the sockets of other users: it may be empty.
#[cfg(target_os = "linux")]
pub(super) fn of(port: u16) -> Vec<Holder> {
    use std::collections::BTreeSet;

    use procfs::net::TcpState;
    use procfs::process::FDTarget;

    use crate::envelope::printable::printable;

    let entries = procfs::net::tcp().unwrap_or_default().into_iter().chain(procfs::net::tcp6().unwrap_or_default());
    let listening = entries.filter(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port);
    let sockets: BTreeSet<u64> = listening.map(|entry| entry.inode).collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let own = std::process::id();
    let holds = |process: &procfs::process::Process| {
        let mut files = process.fd().into_iter().flatten().flatten();
        files.any(|file| matches!(file.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
    };
    let holders = procfs::process::all_processes().into_iter().flatten().flatten().filter(holds);
    let named = holders.filter_map(|process| {
        // A process names itself.
        let name = printable(&process.stat().ok()?.comm).to_string();
        let is_this_process = u32::try_from(process.pid()).is_ok_and(|pid| pid == own);
        Some(Holder { name: format!("{name} (process {})", process.pid()), is_this_process })
    });
    let mut found: Vec<Holder> = named.collect();
    found.sort();
    found.dedup();
    // Children may share a socket with the program that opened it: the first ones are enough.
    found.truncate(3);
    found
}

/// Nothing is known about ports of other systems.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_port: u16) -> Vec<Holder> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_program_on_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = of(listener.local_addr().unwrap().port());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].is_this_process && found[0].name.ends_with(&format!("(process {})", std::process::id())));
        assert_eq!(of(0), []);
    }
}
