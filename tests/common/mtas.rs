//! Mail servers other than Postfix, and one-shot clients: Exim, OpenSMTPD, Dovecot's LMTP, msmtp, Python's smtplib.
//!
//! Exim and OpenSMTPD cannot be installed together with Postfix; `scripts/mtas` unpacks them. Each server is a separate
//! process group with its own folder, and is ended when dropped.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::delivery::{self, Agent};
use super::guard::{Guard, end_group};
use super::skip::skip;
use super::{Client, can_run, poll_for};

/// The domain of the mailboxes.
pub const DOMAIN: &str = "dest.example";
/// The names of the mailboxes.
pub const MAILBOXES: [&str; 2] = ["alice", "bob"];

/// The folder into which `scripts/mtas` has unpacked a package.
pub fn unpacked(package: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("mtas").join(package)
}

/// Whether all packages are unpacked. If not, prints which test is skipped.
pub fn can_run_all(test: &str) -> bool {
    let there = ["exim4-daemon-heavy", "opensmtpd", "sasl2-bin"].iter().all(|package| unpacked(package).is_dir());
    if !there {
        skip(test, "scripts/mtas gets the mail servers that it needs");
    }
    there && can_run(&["postfix", "swaks", "dovecot", "msmtp", "python3", "smtp-source"], test)
}

/// A server with its own folder.
pub struct Server {
    child: Child,
    _guard: Guard,
    pub folder: PathBuf,
    pub port: u16,
}

impl Server {
    fn start(folder: &Path, port: u16, command: &mut Command) -> Self {
        let log = fs::File::create(folder.join("output")).unwrap();
        let child =
            command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let guard = Guard::group(&child);
        let mut server = Self { child, _guard: guard, folder: folder.to_owned(), port };
        poll_for("a greeting", || {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended: {}", server.log());
            Client::try_connect(port).ok().filter(|(_, greeting)| greeting.starts_with("220"))
        });
        server
    }

    /// The server's log and output.
    pub fn log(&self) -> String {
        ["output", "log/mainlog", "log/paniclog", "log/sendmail", "log"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.folder.join(name)).ok())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

fn folder(base: &Path, name: &str, subs: &[&str]) -> PathBuf {
    let folder = base.join(name);
    for sub in subs.iter().chain(&["mail"]) {
        fs::create_dir_all(folder.join(sub)).unwrap();
    }
    folder
}

fn chown(owner: &str, path: &Path) {
    assert!(Command::new("chown").args(["-R", owner]).arg(path).status().unwrap().success());
}

/// The newest message in a mailbox that contains `what`, anywhere in the server's folder.
pub fn find_message(folder: &Path, mailbox: &str, what: &str) -> Option<String> {
    let files = fs::read_dir(folder.join("mail").join(mailbox).join("new")).into_iter().flatten();
    files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok()).find(|text| text.contains(what))
}

const EXIM_COMMON: &str = "exim_user = Debian-exim\nexim_group = Debian-exim\ndeliver_drop_privilege = true\n\
    local_interfaces = 127.0.0.1\ndisable_ipv6 = true\nkeep_environment =\nhost_lookup =\nhelo_lookup_domains =\n\
    rfc1413_hosts =\nrfc1413_query_timeout = 0s\nsmtp_accept_max = 200\nsmtp_accept_queue_per_connection = 0\n\
    log_selector = +smtp_confirmation\n";

fn exim_head(folder: &Path, port: u16) -> String {
    let (d, exim) = (folder.display(), exim(folder).display().to_string());
    format!(
        "{EXIM_COMMON}exim_path = {exim}\nprimary_hostname = exim.example\nspool_directory = {d}/spool\n\
         log_file_path = {d}/log/%slog\npid_file_path = {d}/exim.pid\ndaemon_smtp_ports = {port}\n"
    )
}

/// Exim for a folder. It is copied there, because Exim restarts itself as its own user, who cannot enter every
/// checkout.
fn exim(folder: &Path) -> PathBuf {
    copied(&unpacked("exim4-daemon-heavy").join("usr/sbin/exim4"), folder)
}

/// A copy of a program that every user can run. It is made once.
pub fn copied(program: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join(program.file_name().unwrap());
    if !copy.exists() {
        fs::copy(program, &copy).unwrap();
    }
    copy
}

/// An Exim that receives mail for [`DOMAIN`].
pub fn exim_server(base: &Path, port: u16, tls: bool) -> Server {
    let folder = folder(base, "exim-server", &["spool", "log"]);
    for mailbox in MAILBOXES {
        fs::create_dir_all(folder.join("mail").join(mailbox)).unwrap();
    }
    let d = folder.display();
    let head = exim_head(&folder, port);
    // Exim generates a certificate if none is set.
    let tls = if tls { "tls_advertise_hosts = *" } else { "tls_advertise_hosts =" };
    let config = format!(
        "{head}{tls}\ndomainlist mine = {DOMAIN}\nacl_smtp_rcpt = rcpt\nbegin acl\nrcpt:\n  require domains = +mine\n  \
         require verify = recipient\n  accept\nbegin routers\nbox:\n  driver = accept\n  domains = +mine\n  \
         local_parts = dsearch,filter=subdir;{d}/mail\n  transport = box\n  cannot_route_message = Unknown user\n\
         begin transports\nbox:\n  driver = appendfile\n  directory = {d}/mail/$local_part_data\n  maildir_format\n  \
         user = Debian-exim\n  group = Debian-exim\n  mode = 0644\n  mode_fail_narrower = false\n  return_path_add\n\
         begin retry\n* * F,1h,1m\n"
    );
    fs::write(folder.join("exim.conf"), config).unwrap();
    chown("Debian-exim:", &folder);
    chown("root:", &folder.join("exim.conf"));
    Server::start(&folder, port, Command::new(exim(&folder)).arg("-C").arg(folder.join("exim.conf")).arg("-bdf"))
}

/// An Exim for our.example with Ann's mailbox, and a forward to `refused@third.example`. It believes PROXY headers, refuses
/// unknown users at the port `strict`, and accepts them at `lax`; all other mail is sent to the port `relay`.
pub fn exim_that_reflects(base: &Path, strict: u16, lax: u16, relay: u16) -> Server {
    let folder = folder(base, "exim-reflects", &["spool", "log", "mail/ann"]);
    let d = folder.display();
    let head = exim_head(&folder, strict)
        .replace(&format!("daemon_smtp_ports = {strict}"), &format!("daemon_smtp_ports = {strict} : {lax}"));
    let config = format!(
        "{head}tls_advertise_hosts =\nqualify_domain = our.example\nhosts_proxy = 127.0.0.1\nsmtp_max_unknown_commands = 100\n\
         acl_smtp_rcpt = rcpt\nbegin acl\nrcpt:\n  require domains = our.example\n  \
         accept condition = ${{if eq{{$received_port}}{{{lax}}}}}\n  require verify = recipient\n  accept\n\
         begin routers\nforward:\n  driver = redirect\n  domains = our.example\n  local_parts = fwd\n  \
         data = refused@third.example\nworld:\n  driver = manualroute\n  domains = ! our.example\n  \
         route_list = * 127.0.0.1\n  self = send\n  transport = world\n  no_more\n\
         box:\n  driver = accept\n  local_parts = ann\n  transport = mailbox\n\
         begin transports\nworld:\n  driver = smtp\n  port = {relay}\n  hosts_try_dane =\n\
         mailbox:\n  driver = appendfile\n  directory = {d}/mail/ann\n  maildir_format\n  user = Debian-exim\n  \
         mode = 0644\n  mode_fail_narrower = false\nbegin retry\n"
    );
    fs::write(folder.join("exim.conf"), config).unwrap();
    chown("Debian-exim:", &folder);
    chown("root:", &folder.join("exim.conf"));
    Server::start(
        &folder,
        strict,
        Command::new(exim(&folder)).arg("-C").arg(folder.join("exim.conf")).args(["-bdf", "-q1m"]),
    )
}

/// An Exim for our.example with Ann's mailbox, that refuses unknown users; all other mail is sent to the port `relay`.
/// `main`, `acl` and `routers` are lines at the end of the main section, and before those of the ACL for RCPT and of the
/// routers.
pub fn exim_of_ann(base: &Path, name: &str, [port, relay]: [u16; 2], [main, acl, routers]: [&str; 3]) -> Server {
    let folder = folder(base, name, &["spool", "log", "mail/ann"]);
    let (d, head) = (folder.display(), exim_head(&folder, port));
    // The lines may begin the ACLs themselves.
    let acls = if main.contains("begin acl") { "" } else { "begin acl\n" };
    let config = format!(
        "{head}tls_advertise_hosts =\nqualify_domain = our.example\nacl_smtp_rcpt = rcpt\n{main}{acls}yes:\n  accept\n\
         rcpt:\n{acl}  require domains = our.example\n  require verify = recipient\n  accept\nbegin routers\n{routers}\
         world:\n  driver = manualroute\n  domains = ! our.example\n  route_list = * 127.0.0.1\n  self = send\n  \
         transport = world\n  no_more\nbox:\n  driver = accept\n  local_parts = ann : postmaster\n  \
         transport = mailbox\nbegin transports\nworld:\n  driver = smtp\n  port = {relay}\n  hosts_try_dane =\n\
         mailbox:\n  driver = appendfile\n  directory = {d}/mail/ann\n  maildir_format\n  user = Debian-exim\n  \
         mode = 0644\n  mode_fail_narrower = false\nbegin retry\n"
    );
    fs::write(folder.join("exim.conf"), config).unwrap();
    chown("Debian-exim:", &folder);
    chown("root:", &folder.join("exim.conf"));
    Server::start(
        &folder,
        port,
        Command::new(exim(&folder)).arg("-C").arg(folder.join("exim.conf")).args(["-bdf", "-q1m"]),
    )
}

/// The number of messages in the queue of an Exim.
pub fn exim_queue(server: &Server) -> String {
    let mut command = Command::new(exim(&server.folder));
    let output = command.arg("-C").arg(server.folder.join("exim.conf")).arg("-bpc").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Sends one message with Exim, and waits for the result. `options` are lines of its smtp transport.
pub fn exim_send(base: &Path, port: u16, from: &str, to: &str, message: &Path, options: &[&str]) -> Output {
    let folder = folder(base, &format!("exim-client-{port}"), &["spool", "log"]);
    let options: String = options.iter().map(|line| format!("  {line}\n")).collect();
    let config = format!(
        "{}mua_wrapper = true\nuntrusted_set_sender = *\nno_local_from_check\ntls_advertise_hosts =\nbegin routers\n\
         out:\n  driver = manualroute\n  route_list = * 127.0.0.1\n  self = send\n  transport = out\nbegin transports\n\
         out:\n  driver = smtp\n  port = {port}\n  hosts_try_dane =\n{options}begin retry\n* * F,1h,1m\n",
        exim_head(&folder, 25)
    );
    fs::write(folder.join("exim.conf"), config).unwrap();
    chown("Debian-exim:", &folder);
    chown("root:", &folder.join("exim.conf"));
    let mut command = Command::new(exim(&folder));
    command.arg("-C").arg(folder.join("exim.conf")).args(["-oi", "-f", from, to]);
    command.stdin(fs::File::open(message).unwrap()).output().unwrap()
}

/// OpenSMTPD has fixed folders, so each instance gets them from a mount namespace of its own.
fn opensmtpd(base: &Path, name: &str, port: u16, config: &str) -> Server {
    let folder = folder(base, name, &["spool", "run"]);
    fs::write(folder.join("smtpd.conf"), config.replace("@D@", folder.to_str().unwrap())).unwrap();
    let recipients: String = MAILBOXES.iter().map(|mailbox| format!("{mailbox}@{DOMAIN}\n")).collect();
    fs::write(folder.join("recipients"), recipients).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder.join("spool"), fs::Permissions::from_mode(0o711)).unwrap();
    chown("nobody:nogroup", &folder.join("mail"));
    let script = "mount --bind \"$1/spool\" /var/spool/smtpd && mount --bind \"$1/run\" /run && \
        mount --bind \"$2/usr/libexec/opensmtpd\" /usr/libexec/opensmtpd && \
        exec \"$2/usr/sbin/smtpd\" -d -f \"$1/smtpd.conf\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&folder).arg(unpacked("opensmtpd"));
    Server::start(&folder, port, &mut command)
}

/// An OpenSMTPD that receives mail for [`DOMAIN`].
pub fn opensmtpd_server(base: &Path, port: u16) -> Server {
    let config = format!(
        "table recipients file:@D@/recipients\ntable virtuals {{ \"@\" = vmail }}\n\
         table users {{ vmail = \"65534:65534:@D@/mail\" }}\nlisten on 127.0.0.1 port {port} hostname opensmtpd.example\n\
         action \"box\" maildir \"@D@/mail/%{{dest.user:raw}}\" userbase <users> virtual <virtuals>\n\
         match from any for rcpt-to <recipients> action \"box\"\n"
    );
    opensmtpd(base, "opensmtpd-server", port, &config)
}

/// An OpenSMTPD that relays all mail to a URL such as `smtp+notls://127.0.0.1:25`.
pub fn opensmtpd_relay(base: &Path, port: u16, url: &str, options: &str) -> Server {
    let config = format!(
        "listen on 127.0.0.1 port {port} hostname client.example\n\
         action \"out\" relay host \"{url}\" helo \"client.example\" {options}\nmatch from any for any action \"out\"\n"
    );
    opensmtpd(base, &format!("opensmtpd-relay-{port}"), port, &config)
}

/// Dovecot's LMTP for [`DOMAIN`]. It accepts XCLIENT from this machine.
pub fn dovecot(base: &Path, port: u16) -> Server {
    let folder = folder(base, "dovecot", &[]);
    let users: String = MAILBOXES.iter().map(|mailbox| format!("{mailbox}@{DOMAIN}:::::::\n")).collect();
    fs::write(folder.join("users"), users).unwrap();
    chown("nobody", &folder.join("mail"));
    let d = folder.display();
    let config = format!(
        "base_dir = {d}/run\nstate_dir = {d}/state\ninstance_name = test\nprotocols = lmtp\nlisten = 127.0.0.1\n\
         log_path = {d}/log\nhostname = dovecot.example\nssl = no\ndefault_internal_user = nobody\n\
         default_internal_group = nogroup\ndefault_login_user = nobody\nfirst_valid_uid = 1\nrecipient_delimiter =\n\
         auth_username_format = %Lu\nmail_location = maildir:{d}/mail/%n\nlogin_trusted_networks = 127.0.0.0/8\n\
         passdb {{\n  driver = passwd-file\n  args = {d}/users\n}}\n\
         userdb {{\n  driver = passwd-file\n  args = {d}/users\n  \
         override_fields = uid=nobody gid=nogroup home={d}/mail/%n\n}}\n\
         service lmtp {{\n  inet_listener lmtp {{\n    address = 127.0.0.1\n    port = {port}\n  }}\n}}\n"
    );
    fs::write(folder.join("dovecot.conf"), config).unwrap();
    Server::start(&folder, port, Command::new("dovecot").arg("-c").arg(folder.join("dovecot.conf")).arg("-F"))
}

/// msmtp, with more arguments.
pub fn msmtp(port: u16, from: &str, to: &str, message: &Path, arguments: &[&str]) -> Output {
    Command::new("msmtp")
        .args(["--host=127.0.0.1", &format!("--port={port}"), "--domain=client.example", &format!("--from={from}")])
        .args(arguments)
        .args(["--", to])
        .stdin(fs::File::open(message).unwrap())
        .output()
        .unwrap()
}

/// Python's smtplib; `class` is `SMTP` or `LMTP`.
pub fn smtplib(class: &str, port: u16, from: &str, to: &str, message: &Path) -> Output {
    let script = "import smtplib, sys\nkind, port, sender, to, name = sys.argv[1:]\n\
        server = getattr(smtplib, kind)('127.0.0.1', int(port))\n\
        refused = server.sendmail(sender, [to], open(name, 'rb').read())\nserver.quit()\nsys.exit(bool(refused))\n";
    Command::new("python3").args(["-c", script, class, &port.to_string(), from, to]).arg(message).output().unwrap()
}

/// swaks, with more arguments.
pub fn swaks(port: u16, from: &str, to: &str, message: &Path, arguments: &[&str]) -> Output {
    Command::new("swaks")
        .args(["--silent", "2", "-s", "127.0.0.1", "-p", &port.to_string(), "-f", from, "-t", to, "--data"])
        .arg(format!("@{}", message.display()))
        .args(arguments)
        .output()
        .unwrap()
}

/// Postfix's smtp-source, which generates its message.
pub fn smtp_source(port: u16, from: &str, to: &str, subject: &str) -> Output {
    Command::new(super::which("smtp-source").unwrap())
        .args(["-f", from, "-t", to, "-S", subject, "-l", "500", &format!("127.0.0.1:{port}")])
        .output()
        .unwrap()
}

/// Whether Sendmail is unpacked. If not, prints which test is skipped.
pub fn can_run_sendmail(test: &str) -> bool {
    let there = ["sendmail-bin", "sendmail-base", "sendmail-cf"].iter().all(|package| unpacked(package).is_dir());
    if !there {
        skip(test, "scripts/mtas gets Sendmail");
    }
    there && can_run(&["m4", "unshare"], test)
}

/// Whether this machine can listen on ::1.
pub fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

/// A Sendmail for our.example with Ann's mailbox, an MX port and a submission port; all other mail is sent to a port of
/// this machine. `lines` are added at the end of its .mc file.
pub fn sendmail(base: &Path, mx: u16, submit: u16, relay: u16, lines: &str, agent: &Agent) -> Server {
    let folder = folder(base, "sendmail", &["queue", "log", "run"]);
    let d = folder.display();
    let six = if has_ipv6() {
        format!("DAEMON_OPTIONS(`Name=MTA6, Family=inet6, Addr=::1, Port={mx}')dnl\n")
    } else {
        String::new()
    };
    let mc = format!(
        "OSTYPE(`linux')dnl\nundefine(`confCW_FILE')dnl\ndefine(`confDOMAIN_NAME', `mail.our.example')dnl\n\
         define(`confPID_FILE', `{d}/run/pid')dnl\ndefine(`QUEUE_DIR', `{d}/queue')dnl\n\
         define(`ALIAS_FILE', `{d}/aliases')dnl\ndefine(`confSERVICE_SWITCH_FILE', `{d}/switch')dnl\n\
         define(`confDONT_PROBE_INTERFACES', `True')dnl\ndefine(`confTO_IDENT', `0s')dnl\n\
         define(`confDEF_USER_ID', `mail:mail')dnl\ndefine(`confDONT_BLAME_SENDMAIL', `TrustStickyBit')dnl\n\
         define(`confQUEUE_LA', `1000')dnl\ndefine(`confREFUSE_LA', `1000')dnl\n\
         define(`SMART_HOST', `relay:[127.0.0.1]')dnl\ndefine(`RELAY_MAILER_ARGS', `TCP $h {relay}')dnl\n\
         FEATURE(`no_default_msa')dnl\nFEATURE(`nocanonify')dnl\nFEATURE(`accept_unresolvable_domains')dnl\n\
         DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port={mx}')dnl\n\
         {six}\
         DAEMON_OPTIONS(`Name=MSA, Family=inet, Addr=127.0.0.1, Port={submit}')dnl\n\
         MAILER(`local')dnl\nMAILER(`smtp')dnl\nLOCAL_CONFIG\nCwour.example\n{lines}"
    );
    fs::write(folder.join("sendmail.mc"), mc).unwrap();
    let aliases = format!("ann: {d}/mail/ann\npostmaster: {d}/mail/postmaster\nmailer-daemon: postmaster\n");
    let forwards = "fwd: carol@third.example\nfwd2: refused@third.example\n";
    let program = |user: &str| agent.program(user).display().to_string();
    let agents: String = delivery::USERS.iter().map(|user| format!("{user}: \"|{}\"\n", program(user))).collect();
    fs::write(folder.join("aliases"), aliases + forwards + &agents).unwrap();
    fs::write(folder.join("switch"), "hosts files\naliases files\npasswd files\n").unwrap();
    chown("mail:mail", &folder.join("mail"));
    let cf = unpacked("sendmail-cf").join("usr/share/sendmail/cf");
    let made = Command::new("m4")
        .arg(format!("-D_CF_DIR_={}/", cf.display()))
        .args([cf.join("m4/cf.m4"), folder.join("sendmail.mc")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(folder.join("sendmail.cf"), made.stdout).unwrap();
    // Without a host name that needs no DNS, Sendmail sleeps for a minute, and without a name server, it defers mail of
    // strangers instead of refusing it. So names are looked up in files only.
    fs::write(folder.join("nsswitch"), "hosts: files\n").unwrap();
    let command = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        let alone = "hostname 127.0.0.1 && { [ ! -e /etc/nsswitch.conf ] || mount --bind \"$0\" /etc/nsswitch.conf; } && exec \"$@\"";
        command.args(["--uts", "--mount", "sh", "-c", alone]).arg(folder.join("nsswitch"));
        command.arg(unpacked("sendmail-bin").join("usr/libexec/sendmail/sendmail")).args(arguments);
        command.arg("-C").arg(folder.join("sendmail.cf"));
        command
    };
    let indexed = command(&["-bi"]).output().unwrap();
    assert!(indexed.status.success(), "{}", String::from_utf8_lossy(&indexed.stdout));
    let mut daemon = command(&["-bD", "-q1m"]);
    daemon.arg("-D").arg(folder.join("log/sendmail")).arg("-d89.8");
    Server::start(&folder, mx, &mut daemon)
}

/// The messages of a mailbox in one file.
pub fn mbox(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    format!("\n{text}").split("\nFrom ").skip(1).map(str::to_owned).collect()
}

/// The messages of a maildir.
pub fn maildir(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder.join("new")).into_iter().flatten();
    files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok()).collect()
}

/// Makes Exim the owner of a folder.
pub fn give_to_exim(folder: &Path) {
    chown("Debian-exim:", folder);
}

/// An Exim for our.example with Ann's mailbox, a submission port and, unless the recipe sets where it listens, an MX
/// port; all other mail is sent to a port of this machine. `piece` returns a part of the recipe by its name.
pub fn exim_site(
    base: &Path,
    mx: u16,
    submit: u16,
    relay: u16,
    piece: &dyn Fn(&str) -> String,
    agent: &Agent,
) -> Server {
    let folder = folder(base, "exim-site", &["spool", "log", "mail/ann", "mail/postmaster"]);
    fs::write(folder.join("exim.conf"), exim_site_config(&folder, mx, submit, relay, piece, agent)).unwrap();
    chown("Debian-exim:", &folder);
    chown("root:", &folder.join("exim.conf"));
    Server::start(
        &folder,
        submit,
        Command::new(exim(&folder)).arg("-C").arg(folder.join("exim.conf")).args(["-bdf", "-q1m"]),
    )
}

/// The configuration of [`exim_site`].
pub fn exim_site_config(
    folder: &Path,
    mx: u16,
    submit: u16,
    relay: u16,
    piece: &dyn Fn(&str) -> String,
    agent: &Agent,
) -> String {
    let d = folder.display();
    let main = piece("main");
    let unless = |setting: &str, line: String| if main.contains(setting) { String::new() } else { line };
    let common = EXIM_COMMON.replace("local_interfaces = 127.0.0.1\n", "");
    // Exim does not accept a setting twice.
    let (exim, common) = (exim(folder), common.replace("smtp_accept_max = 200\n", ""));
    let agent = agent.program("$local_part_data").display().to_string();
    let users = delivery::USERS.join(" : ");
    format!(
        "{common}exim_path = {}\nprimary_hostname = mail.our.example\nqualify_domain = our.example\n\
         spool_directory = {d}/spool\nlog_file_path = {d}/log/%slog\npid_file_path = {d}/exim.pid\n\
         tls_advertise_hosts =\n{}{}{}{main}acl_smtp_rcpt = acl_smtp_rcpt\n\
         begin acl\nacl_smtp_rcpt:\n{}  accept condition = ${{if eq{{$received_port}}{{{submit}}}}}\n  \
         hosts = 127.0.0.1\n  require message = relaying denied\n  domains = +local_domains\n{}  \
         require verify = recipient\n  accept\nacl_smtp_data:\n{}  accept\n\
         begin routers\n{}world:\n  driver = manualroute\n  domains = ! +local_domains\n  route_list = * 127.0.0.1\n  \
         self = send\n  transport = remote_smtp\n  no_more\n\
         forwards:\n  driver = redirect\n  domains = our.example\n  local_parts = fwd\n  data = carol@third.example\n\
         refused_forwards:\n  driver = redirect\n  domains = our.example\n  local_parts = fwd2\n  \
         data = refused@third.example\n\
         agent:\n  driver = accept\n  domains = our.example\n  local_parts = {users}\n  transport = agent\n\
         mailbox:\n  driver = accept\n  domains = our.example\n  local_part_suffix = +*\n  local_part_suffix_optional\n  \
         local_parts = dsearch,filter=subdir;{d}/mail\n  transport = mailbox\n  \
         cannot_route_message = no such user\n\
         begin transports\nagent:\n  driver = pipe\n  command = {agent}\n  \
         user = Debian-exim\n  return_fail_output\n  message_prefix =\n\
         {}remote_smtp:\n  driver = smtp\n  port = {relay}\n  hosts_try_dane =\n{}\
         mailbox:\n  driver = appendfile\n  directory = {d}/mail/$local_part_data\n  maildir_format\n  \
         user = Debian-exim\n  group = Debian-exim\n  mode = 0644\n  mode_fail_narrower = false\n  return_path_add\n\
         begin retry\n{}* * F,5d,1m\n",
        exim.display(),
        unless("local_interfaces", format!("local_interfaces = <; 127.0.0.1.{mx} ; 127.0.0.1.{submit}\n")),
        unless("smtp_accept_max", "smtp_accept_max = 200\n".to_owned()),
        unless("domainlist local_domains", "domainlist local_domains = our.example\n".to_owned()),
        piece("acl_smtp_rcpt"),
        piece("acl_smtp_rcpt_mx"),
        piece("acl_smtp_data"),
        piece("routers"),
        piece("transports"),
        piece("remote_smtp"),
        piece("retry"),
    )
}

/// An OpenSMTPD for our.example with Ann's mailbox and the lines of a recipe; mail to other domains is sent to a port
/// of this machine.
pub fn opensmtpd_site(base: &Path, submit: u16, relay: u16, lines: &str, agent: &Agent) -> Server {
    let lines = lines.replace(
        "action \"world\" relay\n",
        &format!("action \"world\" relay host \"smtp+notls://127.0.0.1:{relay}\"\n"),
    );
    let mut recipients = String::new();
    for user in ["ann", "fwd", "fwd2", "postmaster"].iter().chain(&delivery::USERS) {
        recipients += &format!("{user}@our.example\n");
    }
    recipients += "postmaster@srs.our.example\n";
    fs::create_dir_all(base.join("opensmtpd-site")).unwrap();
    fs::write(base.join("opensmtpd-site/sites"), recipients).unwrap();
    let mut agents = String::new();
    let mut virtuals = String::new();
    for user in delivery::USERS {
        virtuals += &format!("\"{user}@our.example\" = vmail, ");
        agents += &format!(
            "action \"{user}\" mda \"{}\" userbase <users> virtual <virtuals>\n\
             match from any for rcpt-to {{ \"{user}@our.example\" }} action \"{user}\"\n",
            agent.program(user).display()
        );
    }
    let config = format!(
        "table recipients file:@D@/sites\n\
         table virtuals {{ \"ann@our.example\" = vmail, \"fwd@our.example\" = \"carol@third.example\", \
         \"fwd2@our.example\" = \"refused@third.example\", {virtuals}\
         \"postmaster@our.example\" = vmail, \"postmaster@srs.our.example\" = vmail }}\n\
         table users {{ vmail = \"65534:65534:@D@/mail\" }}\n\
         action \"box\" maildir \"@D@/mail/%{{dest.user:raw}}\" userbase <users> virtual <virtuals>\n\
         {agents}{lines}"
    );
    opensmtpd(base, "opensmtpd-site", submit, &config)
}
