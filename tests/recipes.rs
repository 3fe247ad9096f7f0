//! The recipes of `docs/mta`, run as they stand there, but for the ports: real mail servers with a real list of recipients, and what has to
//! hold of each.

mod common;

use std::path::Path;

use common::postfix::{Postfix, Role};
use common::site::{Can, Site, Srs, Strangers};
use common::tls::certificate;
use common::{Daemon, Sink, can_run, folder, lasting_port, mtas, run, run_ok};
use countersign::recipes::Mta;

/// A recipe with ports of this run in place of those in the document.
struct Recipe {
    mta: Mta,
    way: &'static str,
    srs: bool,
    ports: Vec<(&'static str, u16)>,
    folder: tempfile::TempDir,
}

/// The ports that recipes name.
const PORTS: [&str; 9] = ["10025", "10026", "10027", "10028", "10029", "10030", "10031", "10032", "25"];

impl Recipe {
    fn new(mta: Mta, way: &'static str, srs: bool) -> Self {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        certificate(folder.path());
        Self { mta, way, srs, ports: PORTS.map(|port| (port, lasting_port())).to_vec(), folder }
    }

    fn port(&self, documented: &str) -> u16 {
        self.ports.iter().find(|(port, _)| *port == documented).unwrap().1
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What stands in the document for a file.
    fn text(&self, file: &str) -> String {
        let pieces = self.mta.recipe(self.way, self.srs);
        let mut text = pieces.into_iter().find(|piece| piece.file == file).map(|piece| piece.text).unwrap_or_default();
        for (documented, port) in &self.ports {
            text = with_port(&text, documented, *port);
        }
        text
    }

    fn daemon(&self) -> Daemon {
        self.daemon_with("")
    }

    /// With more settings of the last listener.
    fn daemon_with(&self, more: &str) -> Daemon {
        let text = self.text("countersign.toml").replace("0.0.0.0:", "127.0.0.1:") + more;
        let text = text.replace("/etc/ssl/mail", self.path().to_str().unwrap());
        Daemon::start(self.path(), &format!("inbound.mode = \"enforce\"\n{text}"))
    }
}

fn with_port(text: &str, documented: &str, port: u16) -> String {
    let searched = format!(":{documented}");
    let mut parts = text.split(&searched);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // `:25` is not the beginning of `:25170`.
        let longer = part.starts_with(|c: char| c.is_ascii_digit());
        replaced += &if longer { format!(":{documented}{part}") } else { format!(":{port}{part}") };
    }
    replaced
}

/// Postfix with the lines of a recipe, and the services of its second instance where there is one.
fn postfix(way: &'static str, srs: bool, can: Can) {
    if !can_run(&["postfix"], &format!("the recipe for Postfix, {way}")) {
        return;
    }
    let recipe = Recipe::new(Mta::Postfix, way, srs);
    let daemon = recipe.daemon();
    let world = Sink::start();
    let (submit, smtp) = (lasting_port(), lasting_port());
    let forwards = "{fwd@our.example = carol@third.example}";
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
    // The delimiters are those that stand in tags, too.
    main_cf += "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nrecipient_delimiter = +=-\n\
        smtpd_authorized_xclient_hosts = 127.0.0.0/8\n";
    let master_cf = recipe.text("master.cf");
    let at = |name: &str, port: u16, text: &str| {
        let lines =
            text.lines().map(|line| match line.strip_prefix(name).filter(|rest| rest.trim().starts_with("inet")) {
                Some(rest) => format!("127.0.0.1:{port}{rest}\n"),
                None => format!("{line}\n"),
            });
        lines.collect::<String>()
    };
    let services = at("smtp", smtp, &at("submission", submit, &master_cf));
    // On port 25 itself stands Countersign.
    let edge = way == "edge";
    let ports = [(submit, ""), (smtp, "")];
    let ours = Postfix::start(
        recipe.path(),
        &Role {
            name: "ours",
            domain: "our.example",
            mailboxes: &["ann", "postmaster"],
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
                ports: &[(recipe.port("10026"), "")],
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
        let etc = instance.folder().join("etc");
        let output = run(recipe.path(), &["check", "--mta-config", etc.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains(" fits."),
            "{way}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let site = Site {
        submit,
        mx: if edge { recipe.port("25") } else { smtp },
        strangers: if edge { Strangers::All } else { Strangers::Xclient },
        world: &world,
        mailbox: &|| ours.mailbox("ann"),
        log: &log,
        can,
    };
    site.holds();
    assert!(!log().contains("warning: /"), "{}", log());
}

#[test]
fn postfix_with_the_milter() {
    postfix("milter", false, Can { content: true, srs: Srs::No });
}

#[test]
fn postfix_with_the_milter_and_an_srs_domain() {
    postfix("milter", true, Can { content: true, srs: Srs::Sent });
}

#[test]
fn postfix_between_the_proxies() {
    postfix("proxy", false, Can { content: true, srs: Srs::No });
}

#[test]
fn postfix_between_the_proxies_as_a_forwarder() {
    postfix("proxy", true, Can { content: true, srs: Srs::Forwarded });
}

#[test]
fn postfix_behind_port_25() {
    postfix("edge", true, Can { content: true, srs: Srs::Forwarded });
}

#[test]
fn postfix_with_maps_and_policy() {
    postfix("maps", false, Can { content: false, srs: Srs::No });
}

#[test]
fn postfix_with_maps_as_a_forwarder() {
    postfix("maps", true, Can { content: false, srs: Srs::Forwarded });
}

#[test]
fn sendmail_with_the_milter() {
    for srs in [Srs::No, Srs::Sent] {
        if !mtas::can_run_sendmail("the recipe for Sendmail") {
            return;
        }
        let recipe = Recipe::new(Mta::Sendmail, "milter", srs != Srs::No);
        // The world comes from this machine, too.
        let daemon = recipe.daemon_with("outbound_clients = [\"127.0.0.1/32\"]\n");
        let world = Sink::start();
        let (submit, mx) = (lasting_port(), lasting_port());
        let lines = recipe.text("sendmail.mc").replace("inet:10030@", &format!("inet:{}@", recipe.port("10030")));
        let sendmail = mtas::sendmail(recipe.path(), mx, submit, world.port, &lines);
        let site = Site {
            submit,
            mx,
            strangers: Strangers::OtherAddress,
            world: &world,
            mailbox: &|| mtas::mbox(&sendmail.folder.join("mail/ann")),
            log: &|| format!("{}\n{}", sendmail.log(), daemon.log.all().join("\n")),
            can: Can { content: true, srs },
        };
        site.holds();
    }
}
