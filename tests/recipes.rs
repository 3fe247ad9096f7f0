//! The recipes of `docs/mta`, run verbatim except for the ports, with real mail servers and real recipient lists; each
//! must meet the expectations in `common/site.rs`.

use std::path::Path;

use crate::common::delivery::{self, Agent};
use crate::common::postfix::{Postfix, Role};
use crate::common::site::{Can, Site, Srs, Strangers};
use crate::common::skip::skip_for_good;
use crate::common::tls::certificate;
use crate::common::{
    Client, Daemon, PROGRAM, Sink, can_run, countersign, folder, folder_of_group, mtas, reserved_port, run, run_ok,
};
use countersign::recipes::Mta;

/// A recipe with ports of this run in place of the documented ones.
struct Recipe {
    mta: Mta,
    method: &'static str,
    srs: bool,
    ports: Vec<(&'static str, u16)>,
    folder: tempfile::TempDir,
}

/// The ports that recipes name.
const PORTS: [&str; 8] = ["10225", "10226", "10227", "10228", "10229", "25", "587", "9025"];
/// The folders of the sockets in recipes, and their paths in the folder of a test.
const SOCKETS: [(&str, &str); 2] =
    [("/var/spool/postfix/countersign", "ours/queue/countersign"), ("/run/countersign", "run")];

impl Recipe {
    fn new(mta: Mta, method: &'static str, srs: bool) -> Self {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        certificate(folder.path());
        Self { mta, method, srs, ports: PORTS.map(|port| (port, reserved_port())).to_vec(), folder }
    }

    fn port(&self, documented: &str) -> u16 {
        self.ports.iter().find(|(port, _)| *port == documented).unwrap().1
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The documented content of a file.
    fn text(&self, file: &str) -> String {
        let pieces = self.mta.recipe(self.method, self.srs);
        let mut text = pieces.into_iter().find(|piece| piece.file == file).map(|piece| piece.text).unwrap_or_default();
        for (documented, port) in &self.ports {
            text = with_port(&text, documented, *port);
        }
        for (documented, folder) in SOCKETS {
            text = text.replace(documented, self.path().join(folder).to_str().unwrap());
        }
        // The group of Debian's Sendmail does not exist, because the package is only unpacked.
        text.replace("\"smmsp\"", "\"mail\"")
    }

    /// Checks that only the mail server's user can use the sockets of the running daemon.
    fn is_closed_to_other_users(&self) {
        for (_, folder) in SOCKETS {
            for socket in std::fs::read_dir(self.path().join(folder)).into_iter().flatten() {
                let path = socket.unwrap().path();
                assert_eq!(connect_as("nobody", &path), "Permission denied", "{}", path.display());
            }
        }
    }

    fn daemon(&self) -> Daemon {
        self.daemon_with("")
    }

    /// A daemon with more settings of the last listener.
    fn daemon_with(&self, more: &str) -> Daemon {
        let config = self.config();
        let group = config.lines().find_map(|line| line.strip_prefix("group = \"")?.split('"').next());
        for (_, folder) in SOCKETS {
            folder_of_group(&self.path().join(folder), group.unwrap_or_default());
        }
        let daemon = Daemon::start(self.path(), &(self.config() + more));
        self.is_closed_to_other_users();
        daemon
    }

    fn config(&self) -> String {
        let text = self.text("countersign.toml").replace("0.0.0.0:", "127.0.0.1:");
        format!(
            "inbound.mode = \"enforce\"\noutbound.ndr.policy = \"drop\"\n{}",
            text.replace("/etc/ssl/mail", self.path().to_str().unwrap())
        )
    }

    /// Writes the config, for a recipe without a daemon.
    fn write_config(&self) {
        std::fs::write(self.path().join("countersign.toml"), self.config()).unwrap();
    }
}

/// The system's error when a user connects to a socket; empty if there is none. Needs root.
fn connect_as(user: &str, path: &Path) -> String {
    let script = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or print $!";
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups", "perl", "-e", script]).arg(path);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Replaces the documented port by another one, where it stands by itself.
fn with_port(text: &str, documented: &str, port: u16) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(documented) {
        let (head, tail) = (&rest[..at], &rest[at + documented.len()..]);
        let part = |c: char| c.is_ascii_alphanumeric();
        let alone = !head.ends_with(part) && !tail.starts_with(part);
        replaced += head;
        replaced += &if alone { port.to_string() } else { documented.to_owned() };
        rest = tail;
    }
    replaced + rest
}

/// Postfix with the lines of a recipe, and the services of its second instance if there is one.
fn postfix(method: &'static str, srs: bool, can: Can) {
    if !can_run(&["postfix"], &format!("the recipe for Postfix, {method}")) {
        return;
    }
    let recipe = Recipe::new(Mta::Postfix, method, srs);
    let daemon = recipe.daemon();
    let world = Sink::start();
    let (submit, smtp) = (reserved_port(), reserved_port());
    let forwards = "{fwd@our.example = carol@third.example}, {fwd2@our.example = refused@third.example}";
    let mut main_cf = recipe.text("main.cf");
    if main_cf.contains("virtual_alias_maps = inline:{ ") {
        main_cf =
            main_cf.replace("virtual_alias_maps = inline:{ ", &format!("virtual_alias_maps = inline:{{ {forwards}, "));
    } else {
        main_cf += &format!("virtual_alias_maps = inline:{{ {forwards} }}\n");
    }
    let out_cf = recipe.text("postfix-out/main.cf");
    if out_cf.is_empty() {
        main_cf += &format!("relayhost = [127.0.0.1]:{}\n", world.port);
    }
    // The delimiters also occur in tags.
    let agent = Agent::new(recipe.path(), submit);
    let transports: Vec<String> = delivery::USERS.iter().map(|user| format!("{user}@our.example=agent:")).collect();
    main_cf +=
        &format!("transport_maps = inline:{{ {} }}\nagent_destination_recipient_limit = 1\n", transports.join(", "));
    main_cf += "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nrecipient_delimiter = +=-\n\
        smtpd_authorized_xclient_hosts = 127.0.0.0/8\n";
    if can.bounces_sent == 0 && method == "milter" {
        main_cf += "internal_mail_filter_classes = bounce\n";
    }
    let master_cf = recipe.text("master.cf");
    let at = |name: &str, port: u16, text: &str| {
        let lines =
            text.lines().map(|line| match line.strip_prefix(name).filter(|rest| rest.trim().starts_with("inet")) {
                Some(rest) => format!("127.0.0.1:{port}{rest}\n"),
                None => format!("{line}\n"),
            });
        lines.collect::<String>()
    };
    let services = at("smtp", smtp, &at("submission", submit, &master_cf))
        + &format!(
            "agent unix - n n - - pipe flags= user=nobody null_sender= argv={} ${{sender}}\n",
            agent.program("${user}").display()
        );
    // Port 25 itself is Countersign's.
    let edge = method == "edge";
    let ports = [(submit, ""), (smtp, "")];
    let ours = Postfix::start(
        recipe.path(),
        &Role {
            name: "ours",
            domain: "our.example",
            mailboxes: &[&["ann", "postmaster"][..], &delivery::USERS].concat(),
            ports: if edge { &ports[..1] } else { &ports },
            extra: &main_cf,
            services: &services,
            ..Role::default()
        },
    );
    let out = (!out_cf.is_empty()).then(|| {
        Postfix::start(
            recipe.path(),
            &Role {
                name: "out",
                domain: "out.example",
                ports: &[(recipe.port("10226"), "")],
                relayhost: world.port,
                extra: &out_cf,
                services: &recipe.text("postfix-out/master.cf"),
                ..Role::default()
            },
        )
    });
    let log = || {
        let out = out.as_ref().map(Postfix::log).unwrap_or_default();
        format!("{}\n{out}\n{}", ours.log(), daemon.log.all().join("\n"))
    };
    for instance in std::iter::once(&ours).chain(&out) {
        // Here, the milter does not see the server's own bounces, and the config wants them dropped.
        let verdict = if can.bounces_sent == 2 && method == "milter" {
            "internal_mail_filter_classes = bounce"
        } else if !srs && std::ptr::eq(instance, &raw const ours) {
            "fwd@our.example is forwarded to carol@third.example"
        } else {
            " fits."
        };
        is_told(&recipe, &instance.folder().join("etc"), &[], verdict);
    }
    let site = Site {
        submit,
        mx: if edge { recipe.port("25") } else { smtp },
        strangers: if edge { Strangers::All } else { Strangers::Xclient },
        world: &world,
        mailbox: &|| ours.mailbox("ann"),
        log: &log,
        agent,
        can,
    };
    site.holds();
    assert!(!log().contains("warning: /"), "{}", log());
}

/// A Postfix that knows nothing of Countersign, and is changed by `init --from --apply` while it runs.
#[test]
fn postfix_changed_by_init() {
    if !can_run(&["postfix"], "init --from, with mail through it") {
        return;
    }
    let folder = folder();
    let world = Sink::start();
    let (submit, smtp) = (reserved_port(), reserved_port());
    let agent = Agent::new(folder.path(), submit);
    let transports: Vec<String> = delivery::USERS.iter().map(|user| format!("{user}@our.example=agent:")).collect();
    let main_cf = format!(
        "relayhost = [127.0.0.1]:{}\nvirtual_alias_maps = inline:{{ {{fwd@our.example = carol@third.example}}, {{fwd2@our.example = refused@third.example}} }}\n\
         transport_maps = inline:{{ {} }}\nagent_destination_recipient_limit = 1\nmilter_default_action = accept\n\
         smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nrecipient_delimiter = +=-\n\
         smtpd_authorized_xclient_hosts = 127.0.0.0/8\nsender_bcc_maps = inline:{{ {{ann@our.example = copies@our.example}} }}\n",
        world.port,
        transports.join(", ")
    );
    let ours = Postfix::start(
        folder.path(),
        &Role {
            name: "ours",
            domain: "our.example",
            mailboxes: &[&["ann", "postmaster", "copies"][..], &delivery::USERS].concat(),
            ports: &[(submit, ""), (smtp, "")],
            extra: &main_cf,
            services: &format!(
                "agent unix - n n - - pipe flags= user=nobody null_sender= argv={} ${{sender}}\n",
                agent.program("${user}").display()
            ),
            ..Role::default()
        },
    );
    let place = ours.folder().join("etc");
    let init = |more: &[&str]| {
        let fixed = ["init", "--from", place.to_str().unwrap(), "--user", "root"];
        run(folder.path(), &[&fixed, more].concat())
    };
    let files = || ["main.cf", "master.cf"].map(|name| std::fs::read(place.join(name)).unwrap());
    let before = files();
    assert_eq!(init(&["--apply"]).status.code(), Some(1), "no daemon runs yet");
    let text = std::fs::read_to_string(folder.path().join("countersign.toml")).unwrap();
    let kept: String = text.lines().filter(|it| !it.starts_with("status.listen")).map(|it| format!("{it}\n")).collect();
    let daemon =
        Daemon::start(folder.path(), &format!("inbound.mode = \"enforce\"\noutbound.ndr.policy = \"drop\"\n{kept}"));
    let applied = init(&["--apply"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&[applied.stdout, applied.stderr].concat()));
    let site = Site {
        submit,
        mx: smtp,
        strangers: Strangers::Xclient,
        world: &world,
        mailbox: &|| ours.mailbox("ann"),
        log: &|| format!("{}\n{}", ours.log(), daemon.log.all().join("\n")),
        agent,
        can: Can { evidence: true, untagged: true, srs: Srs::No, bounces_sent: 2 },
    };
    site.holds();
    // A daemon that has ended is noticed.
    drop(daemon);
    let check = run(folder.path(), &["check", "--mta-config", place.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
    assert!(
        check.status.code() == Some(1) && said.contains("and nobody answers there, so all mail is put off"),
        "{said}"
    );
    // Copies are made for the plain sender, before the milter signs.
    assert!(!ours.mailbox("copies").is_empty(), "{}", ours.log());
    let undone = run(folder.path(), &["init", "--undo"]);
    assert!(undone.status.success(), "{}", String::from_utf8_lossy(&[undone.stdout, undone.stderr].concat()));
    assert_eq!(files(), before);
}

#[test]
fn postfix_with_the_milter() {
    postfix("milter", false, Can { evidence: true, untagged: true, srs: Srs::No, bounces_sent: 2 });
}

#[test]
fn postfix_with_the_milter_and_an_srs_domain() {
    postfix("milter", true, Can { evidence: true, untagged: true, srs: Srs::Sent, bounces_sent: 0 });
}

#[test]
fn postfix_between_the_proxies() {
    // The instance behind the outbound listener sends its own bounces itself.
    postfix("proxy", false, Can { evidence: true, untagged: true, srs: Srs::No, bounces_sent: 1 });
}

#[test]
fn postfix_between_the_proxies_as_a_forwarder() {
    postfix("proxy", true, Can { evidence: true, untagged: true, srs: Srs::Forwarded, bounces_sent: 0 });
}

#[test]
fn postfix_behind_port_25() {
    postfix("edge", true, Can { evidence: true, untagged: true, srs: Srs::Forwarded, bounces_sent: 0 });
}

#[test]
fn postfix_with_maps_and_policy() {
    postfix("maps", false, Can { evidence: false, untagged: false, srs: Srs::No, bounces_sent: 2 });
}

#[test]
fn postfix_with_maps_as_a_forwarder() {
    postfix("maps", true, Can { evidence: false, untagged: false, srs: Srs::Forwarded, bounces_sent: 2 });
}

#[test]
fn sendmail_with_the_milter() {
    for srs in [Srs::No, Srs::Sent] {
        if !mtas::can_run_sendmail("the recipe for Sendmail") {
            return;
        }
        let recipe = Recipe::new(Mta::Sendmail, "milter", srs != Srs::No);
        // Mail from the internet also comes from this machine.
        let daemon = recipe.daemon_with("outbound_clients = [\"127.0.0.1/32\"]\n");
        let world = Sink::start();
        let (submit, mx) = (reserved_port(), reserved_port());
        let agent = Agent::new(recipe.path(), submit);
        let sendmail = mtas::sendmail(recipe.path(), mx, submit, world.port, &recipe.text("sendmail.mc"), &agent);
        let site = Site {
            submit,
            mx,
            strangers: Strangers::OtherAddress,
            world: &world,
            mailbox: &|| mtas::mbox(&sendmail.folder.join("mail/ann")),
            log: &|| format!("{}\n{}", sendmail.log(), daemon.log.all().join("\n")),
            agent,
            can: Can { evidence: true, untagged: true, srs, bounces_sent: 2 },
        };
        site.holds();
        // IPv6, for which Sendmail writes client addresses in a special form.
        if !mtas::has_ipv6() {
            skip_for_good("Sendmail over IPv6", "this machine has no ::1");
            continue;
        }
        let mut client = Client::over(std::net::TcpStream::connect(("::1", mx)).unwrap());
        client.read_reply().unwrap();
        client.say("EHLO mail.third.example");
        let ordinary = client.send("bob@third.example", "ann@our.example", "Subject: six\r\n\r\nx").unwrap();
        assert!(ordinary.starts_with("250"), "{ordinary}");
        let refused = client.send("", "ann@our.example", crate::common::dsn("failed").trim_end()).unwrap();
        assert!(refused.starts_with("550 5.7.1"), "{refused}");
    }
}

/// Exim with the pieces of a recipe.
fn exim(method: &'static str, can: Can) {
    if !mtas::can_run_all(&format!("the recipe for Exim, {method}")) {
        return;
    }
    let recipe = Recipe::new(Mta::Exim, method, can.srs != Srs::No);
    let daemon = (method != "run").then(|| recipe.daemon());
    let world = Sink::start();
    // Exim runs the program as its own user, who cannot enter every checkout.
    let program = mtas::copied(Path::new(PROGRAM), recipe.path()).display().to_string();
    let text = |piece: &str| {
        let text = recipe.text(&format!("exim.conf/{piece}")).replace("0.0.0.0.", "127.0.0.1.");
        text.replace("/usr/local/bin/countersign", &program)
            .replace("/etc/countersign", recipe.path().to_str().unwrap())
    };
    if daemon.is_none() {
        recipe.write_config();
        mtas::give_to_exim(&recipe.path().join("keys"));
    }
    let (submit, mx) = (recipe.port("587"), if method == "proxy" { recipe.port("25") } else { reserved_port() });
    let agent = Agent::new(recipe.path(), submit);
    let exim = mtas::exim_site(recipe.path(), mx, submit, world.port, &text, &agent);
    let log = || {
        let ours = daemon.as_ref().map(|daemon| daemon.log.all().join("\n")).unwrap_or_default();
        format!("{}\n{ours}", exim.log())
    };
    let site = Site {
        submit,
        mx,
        strangers: Strangers::OtherAddress,
        world: &world,
        mailbox: &|| mtas::maildir(&exim.folder.join("mail/ann")),
        log: &log,
        agent,
        can,
    };
    site.holds();
    let programs = mtas::unpacked("exim4-daemon-heavy").join("usr/sbin");
    is_told(&recipe, &exim.folder.join("exim.conf"), &[&programs], " fits.");
}

/// Checks that `check --mta-config` finds nothing wrong, and says this.
fn is_told(recipe: &Recipe, place: &Path, programs: &[&Path], verdict: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(programs.iter().map(|p| p.to_path_buf()).chain(std::env::split_paths(&path))).unwrap();
    let mut check = countersign();
    check.current_dir(recipe.path()).env("PATH", path).arg("check").arg("--mta-config").arg(place);
    let output = check.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains(verdict), "{} {}: {said}", recipe.mta, recipe.method);
}

/// An Exim that knows nothing of Countersign, and is changed by `init --from --apply` while it runs.
#[test]
fn exim_changed_by_init() {
    if !mtas::can_run_all("init --from Exim, with mail through it") {
        return;
    }
    let folder = folder();
    let world = Sink::start();
    let (submit, mx) = (reserved_port(), reserved_port());
    let agent = Agent::new(folder.path(), submit);
    let exim = mtas::exim_site(folder.path(), mx, submit, world.port, &|_| String::new(), &agent);
    let file = exim.folder.join("exim.conf");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(exim.folder.clone()).chain(std::env::split_paths(&path))).unwrap();
    let ran = |arguments: &[&str]| {
        let output = countersign().current_dir(folder.path()).env("PATH", &path).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let from = ["init", "--from", file.to_str().unwrap(), "--user", "root"];
    let before = std::fs::read(&file).unwrap();
    let (status, said) = ran(&from);
    assert!(status == Some(0) && said.contains("before `verify = recipient`:"), "{said}");
    let config = std::fs::read_to_string(folder.path().join("countersign.toml")).unwrap();
    assert!(config.contains("\"our.example\",") && config.contains("unix:/run/countersign/map"), "{config}");
    // The unit would make /run/countersign.
    let run = folder.path().join("run");
    folder_of_group(&run, "Debian-exim");
    let config: String =
        config.lines().filter(|it| !it.starts_with("status.listen")).map(|it| format!("{it}\n")).collect();
    let config = config.replace("/run/countersign", run.to_str().unwrap());
    std::fs::write(folder.path().join("countersign.toml"), &config).unwrap();
    let (status, said) = ran(&[&from, ["--apply"].as_slice()].concat());
    assert!(status == Some(1) && said.contains("does not run yet"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let daemon =
        Daemon::start(folder.path(), &format!("inbound.mode = \"enforce\"\noutbound.ndr.policy = \"drop\"\n{config}"));
    let (status, said) = ran(&[&from, ["--apply"].as_slice()].concat());
    assert!(status == Some(0) && said.contains(" fits."), "{said}");
    let site = Site {
        submit,
        mx,
        strangers: Strangers::OtherAddress,
        world: &world,
        mailbox: &|| mtas::maildir(&exim.folder.join("mail/ann")),
        log: &|| format!("{}\n{}", exim.log(), daemon.log.all().join("\n")),
        agent,
        can: Can { evidence: false, untagged: false, srs: Srs::No, bounces_sent: 2 },
    };
    site.holds();
    // A file that somebody has changed since keeps that.
    let now = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, now + "# own\n").unwrap();
    let (status, said) = ran(&["init", "--undo"]);
    assert!(status == Some(0) && said.contains("each step is taken back by itself"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), [before.as_slice(), b"# own\n"].concat());
    std::fs::write(&file, &before).unwrap();
    let (status, said) = ran(&[&from, ["--apply"].as_slice()].concat());
    assert!(status == Some(0), "{said}");
    let (status, said) = ran(&["init", "--undo"]);
    assert!(status == Some(0) && said.contains("is as it was"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn exim_between_the_proxies() {
    exim("proxy", Can { evidence: true, untagged: true, srs: Srs::No, bounces_sent: 0 });
}

#[test]
fn exim_between_the_proxies_as_a_forwarder() {
    exim("proxy", Can { evidence: true, untagged: true, srs: Srs::Forwarded, bounces_sent: 0 });
}

#[test]
fn exim_with_the_map() {
    exim("map", Can { evidence: false, untagged: true, srs: Srs::No, bounces_sent: 2 });
}

#[test]
fn exim_with_the_map_as_a_forwarder() {
    exim("map", Can { evidence: false, untagged: true, srs: Srs::Forwarded, bounces_sent: 2 });
}

#[test]
fn exim_that_runs_the_program() {
    exim("run", Can { evidence: false, untagged: true, srs: Srs::No, bounces_sent: 2 });
}

#[test]
fn exim_that_runs_the_program_as_a_forwarder() {
    exim("run", Can { evidence: false, untagged: true, srs: Srs::Forwarded, bounces_sent: 2 });
}

#[test]
fn opensmtpd_between_the_proxies() {
    for srs in [Srs::No, Srs::Forwarded] {
        if !mtas::can_run_all("the recipe for OpenSMTPD") {
            return;
        }
        let recipe = Recipe::new(Mta::Opensmtpd, "proxy", srs != Srs::No);
        let daemon = recipe.daemon();
        let world = Sink::start();
        let submit = recipe.port("587");
        let agent = Agent::new(recipe.path(), submit);
        let smtpd = mtas::opensmtpd_site(recipe.path(), submit, world.port, &recipe.text("smtpd.conf"), &agent);
        let site = Site {
            submit,
            mx: recipe.port("25"),
            strangers: Strangers::OtherAddress,
            world: &world,
            mailbox: &|| {
                let folders = ["mail/ann", "mail/ann+lists"].map(|folder| mtas::maildir(&smtpd.folder.join(folder)));
                folders.concat()
            },
            log: &|| format!("{}\n{}", smtpd.log(), daemon.log.all().join("\n")),
            agent,
            can: Can { evidence: true, untagged: true, srs, bounces_sent: 0 },
        };
        site.holds();
    }
}
