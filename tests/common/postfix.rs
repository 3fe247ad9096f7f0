//! A private Postfix with its own config and queue folders, on loopback. It is ended when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guard::Guard;
use super::{poll_for, which};

/// One instance of Postfix.
pub struct Postfix {
    folder: PathBuf,
    _guard: Guard,
}

/// The configuration of an instance.
#[derive(Default)]
pub struct Role<'a> {
    pub name: &'a str,
    /// The instance's domain, and its mailboxes.
    pub domain: &'a str,
    pub mailboxes: &'a [&'a str],
    /// Ports, each with options of its smtpd.
    pub ports: &'a [(u16, &'a str)],
    /// The port of this machine to which all other mail is sent; 0: none.
    pub relayhost: u16,
    /// More lines of main.cf.
    pub extra: &'a str,
    /// More services in master.cf.
    pub services: &'a str,
}

impl Postfix {
    pub fn start(base: &Path, role: &Role<'_>) -> Self {
        let folder = base.join(role.name);
        let etc = folder.join("etc");
        for sub in ["etc", "queue", "data", "mail"] {
            fs::create_dir_all(folder.join(sub)).unwrap();
        }
        run("chown", &["postfix", folder.join("data").to_str().unwrap()]);
        run("chown", &["nobody", folder.join("mail").to_str().unwrap()]);
        fs::write(etc.join("main.cf"), main_cf(&folder, role)).unwrap();
        fs::write(etc.join("master.cf"), master_cf(role)).unwrap();
        fs::write(etc.join("dynamicmaps.cf"), "").unwrap();
        let guard = Guard::pid_file(folder.join("queue/pid/master.pid").to_str().unwrap());
        run("postfix", &["-c", etc.to_str().unwrap(), "start"]);
        let postfix = Self { folder, _guard: guard };
        for (port, _) in role.ports {
            poll_for(&format!("Postfix {} on port {port}", role.name), || {
                assert!(!postfix.log().contains("fatal: bind"), "{}", postfix.log());
                std::net::TcpStream::connect(("127.0.0.1", *port)).ok()
            });
        }
        postfix
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("maillog")).unwrap_or_default()
    }

    /// The messages in a mailbox.
    pub fn mailbox(&self, name: &str) -> Vec<String> {
        let files = fs::read_dir(self.folder.join("mail").join(name).join("new")).into_iter().flatten();
        files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok()).collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let etc = self.folder.join("etc");
        let _ = Command::new(which("postfix").unwrap()).args(["-c", etc.to_str().unwrap(), "stop"]).output();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let program = which(program).unwrap_or_else(|| program.into());
    let output = Command::new(&program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn main_cf(folder: &Path, role: &Role<'_>) -> String {
    let folder = folder.display();
    let (domain, extra) = (role.domain, role.extra);
    let relayhost = match role.relayhost {
        0 => String::new(),
        port => format!("relayhost = [127.0.0.1]:{port}\n"),
    };
    let mailboxes: Vec<String> = role.mailboxes.iter().map(|m| format!("{{ {m}@{domain} = {m}/ }}")).collect();
    let mailboxes = if mailboxes.is_empty() { format!("{{ none@{domain} = none/ }}") } else { mailboxes.join(", ") };
    let base = format!(
        "compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n\
         command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\n\
         setgid_group = postdrop\nmyhostname = mail.{domain}\nmydestination =\nmyorigin = {domain}\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n\
         {relayhost}smtp_dns_support_level = disabled\nsmtp_host_lookup = native\n\
         smtpd_peername_lookup = no\nalias_maps =\nalias_database =\nvirtual_mailbox_domains = {domain}\n\
         virtual_mailbox_maps = inline:{{ {mailboxes} }}\nvirtual_mailbox_base = {folder}/mail\n\
         virtual_minimum_uid = 100\nvirtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\nmaillog_file_prefixes = {folder}\n\
         maillog_file = {folder}/maillog\n"
    );
    // Settings in `extra` replace earlier ones, because Postfix warns about duplicates.
    let key = |line: &str| line.split_once(" =").map(|(key, _)| key.to_owned());
    let again: Vec<String> = extra.lines().filter_map(key).collect();
    let kept = base.split_inclusive('\n').filter(|line| key(line).is_none_or(|key| !again.contains(&key)));
    kept.collect::<String>() + extra + "\n"
}

fn master_cf(role: &Role<'_>) -> String {
    let service = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    let theirs: Vec<_> = role.services.lines().filter(|line| !line.starts_with(' ')).filter_map(service).collect();
    let mut text = String::new();
    for (port, options) in role.ports {
        let line = format!("127.0.0.1:{port} inet n - n - - smtpd\n");
        if service(&line).is_none_or(|name| !theirs.contains(&name)) {
            text += &line;
            text.extend(options.split_whitespace().map(|option| format!("  -o {option}\n")));
        }
    }
    text.push_str(role.services);
    let others = STOCK.lines().filter(|line| service(line).is_none_or(|name| !theirs.contains(&name)));
    text.extend(others.map(|line| format!("{line}\n")));
    text
}

/// The services of every instance.
const STOCK: &str = "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
    rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
    trace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\n\
    tlsmgr unix - - n 1000? 1 tlsmgr\nproxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\n\
    relay unix - - n - - smtp\nlmtp unix - - n - - lmtp\nerror unix - - n - - error\nretry unix - - n - - error\n\
    discard unix - - n - - discard\nlocal unix - n n - - local\nvirtual unix - n n - - virtual\n\
    anvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd";
