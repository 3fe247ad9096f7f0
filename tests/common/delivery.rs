//! Dovecot's delivery agent for some mailboxes of a site: of users who are away (Sieve), and mailboxes that are full
//! (quota).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Local parts at our.example whose mail goes to the agent. `full` is full, and the agent tells the server by its exit
/// code; `full2` is full, and the agent bounces the message itself. The others have an absence notice.
pub const USERS: [&str; 4] = ["full", "full2", "away", "away2"];

const DOVECOT_LDA: &str = "/usr/lib/dovecot/dovecot-lda";
const NOTICE: &str = "require [\"vacation\"];\nvacation :days 1 :subject \"until Monday\" \"I am away.\";\n";

/// A folder with the agent's config and mailboxes, which every user can enter.
pub struct Agent(PathBuf);

impl Agent {
    /// `submit`: the port at which the agent submits what it sends.
    pub fn new(base: &Path, submit: u16) -> Self {
        let folder = base.join("agent");
        fs::create_dir_all(&folder).unwrap();
        let agent = Self(folder);
        for user in USERS {
            agent.add(user, submit);
        }
        agent
    }

    fn add(&self, user: &str, submit: u16) {
        let (d, home) = (self.0.display(), self.0.join(user));
        fs::create_dir_all(&home).unwrap();
        for folder in [&self.0, &home] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let (plugins, how) = if user.starts_with("full") {
            ("quota", "quota = maildir:mailbox\n  quota_rule = *:bytes=10".to_owned())
        } else {
            fs::write(self.0.join("notice.sieve"), NOTICE).unwrap();
            let compiled = Command::new("sievec").arg(self.0.join("notice.sieve")).output().unwrap();
            assert!(compiled.status.success(), "{compiled:?}");
            ("sieve", format!("sieve = file:{d}/notice.sieve\n  sieve_user_email = {user}@our.example"))
        };
        let config = format!(
            "log_path = {d}/{user}.log\nbase_dir = {d}/run\nstate_dir = {d}/state\nssl = no\nfirst_valid_uid = 1\n\
             mail_location = maildir:{d}/{user}/mail\nmail_home = {d}/{user}\nrecipient_delimiter =\n\
             postmaster_address = postmaster@our.example\nhostname = mail.our.example\n\
             submission_host = 127.0.0.1:{submit}\nprotocol lda {{\n  mail_plugins = {plugins}\n}}\n\
             plugin {{\n  {how}\n}}\n"
        );
        fs::write(self.0.join(format!("{user}.conf")), config).unwrap();
        let bounces = if user == "full2" { "" } else { "-e" };
        let script = format!(
            "#!/bin/sh\nexport HOME={d}/{user} USER={user}\n[ -z \"${{SENDER+set}}\" ] || set -- \"$SENDER\"\n\
             [ $# = 0 ] || set -- -f \"$1\"\n\
             exec {DOVECOT_LDA} {bounces} -c {d}/{user}.conf -a {user}@our.example \"$@\"\n"
        );
        fs::write(self.program(user), script).unwrap();
        fs::set_permissions(self.program(user), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The program that delivers to a user. Its argument, or the variable `SENDER`, is the envelope sender.
    pub fn program(&self, user: &str) -> PathBuf {
        self.0.join(user).with_extension("sh")
    }

    /// The number of messages in a mailbox.
    pub fn stored(&self, user: &str) -> usize {
        fs::read_dir(self.0.join(user).join("mail/new")).map_or(0, Iterator::count)
    }

    /// The agent's logs.
    pub fn log(&self) -> String {
        USERS.iter().filter_map(|user| fs::read_to_string(self.0.join(format!("{user}.log"))).ok()).collect()
    }
}
