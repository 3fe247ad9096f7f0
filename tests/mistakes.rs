//! Mistakes of administrators, each with the words that it must be answered with.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Daemon, PROGRAM, can_run, folder, run, run_ok};

const OURS: &str = "domains.local = [\"our.example\"]\nstate.path = \"none\"\ncontrol.listen = \"none\"\n";

/// A folder with a key ring and this config, in which `{D}` is the folder.
fn site(config: &str) -> tempfile::TempDir {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let config = config.replace("{D}", folder.path().to_str().unwrap());
    fs::write(folder.path().join("countersign.toml"), config).unwrap();
    folder
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Runs the program as a user without rights.
fn run_as_nobody(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", PROGRAM]).args(arguments);
    command.current_dir(folder).env("NO_COLOR", "1").env("COUNTERSIGN_CONFIG_PATH", "countersign.toml");
    command.output().unwrap()
}

/// The config, the arguments, the exit status, and what is said. `{D}` stands for the folder.
type Mistake<'a> = (&'a str, &'a [&'a str], i32, &'a str);

#[test]
fn each_mistake_is_answered_with_what_would_be_right() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let listener = |role: &str, listen: &str| {
        format!("{OURS}[[listener]]\nrole = \"{role}\"\nlisten = \"{listen}\"\nnext_hop = \"127.0.0.1:1\"\n")
    };
    let taken = listener("inbound", &format!("127.0.0.1:{port}"));
    let has_it = format!("the inbound listener cannot listen on 127.0.0.1:{port}: all-",);
    let status = format!("{}[status]\nlisten = \"127.0.0.1:{port}\"\n", listener("inbound", "unix:{D}/in"));
    let of_status = format!("status.listen cannot listen on 127.0.0.1:{port}: ");
    let no_folder = format!("{OURS}[[listener]]\nprotocol = \"socketmap\"\nlisten = \"unix:{{D}}/no/map\"\n");
    let no_address = listener("outbound", "192.0.2.77:0").replace("next_hop", "clients = [\"127.0.0.1\"]\nnext_hop");
    let unknown = listener("inbound", "unix:{D}/in").replace("127.0.0.1:1", "no-such-host.invalid:25");
    let three = format!("{OURS}inbound.mod = 1\nbatv.lifetime = 0\n[inbond]\nmode = \"x\"\n");
    let three_said = "{D}/countersign.toml:4: unknown key `mod`; did you mean `mode`?\n\
         {D}/countersign.toml:5: batv.lifetime must be 1 to 400 days\n\
         {D}/countersign.toml:6: unknown key `inbond`; did you mean `inbound`?\n";
    let check = ["check", "-c", "{D}/countersign.toml"].as_slice();
    let cases: &[Mistake<'_>] = &[
        (&taken, &["serve"], 2, &has_it),
        (&taken, &["serve"], 2, "has the port. Stop it, or give one of them another port"),
        (&status, &["serve"], 2, &of_status),
        (
            &no_folder,
            &["serve"],
            2,
            "the socketmap cannot listen on unix:{D}/no/map: there is no folder {D}/no. Make it: install -d -m 755 -o ",
        ),
        (&no_address, &["serve"], 2, "this machine has no address 192.0.2.77"),
        (&unknown, &["check", "--connect"], 0, "the inbound next hop no-such-host.invalid:25 has no address: "),
        (&three, check, 2, three_said),
        (OURS, &["sign", "ann@our.example "], 1, "the address begins or ends with a blank; remove it"),
        (OURS, &["sign", "an n@our.example"], 1, "a blank is not allowed here in an address; quote the local part"),
        (OURS, &["sign", "ann@our.exa,mple"], 1, "`,` is not allowed here in an address"),
        (OURS, &["keys", "retire", "1"], 2, "1"),
    ];
    for (config, arguments, status, want) in cases {
        let site = site(config);
        let here = site.path().to_str().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|it| it.replace("{D}", here)).collect();
        let output = run(site.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let said = said(&output);
        assert!(said.contains(&want.replace("{D}", here)), "{arguments:?}: `{want}` is not in\n{said}");
        assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {said}");
    }
    drop(held);
}

#[test]
fn mistakes_are_for_scripts_too() {
    let site = site(&format!("{OURS}batv.lifetime = 0\nsrs.hash_length = 1\n"));
    let output = run(site.path(), &["check", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<_> = found["mistakes"].as_array().unwrap().iter().map(|it| it["line"].as_u64()).collect();
    assert_eq!((lines, output.status.code()), (vec![Some(4), Some(5)], Some(2)));
    assert_eq!(found["mistakes"][0]["text"], "batv.lifetime must be 1 to 400 days");
}

/// As `script` gives it a terminal.
#[test]
fn sign_says_on_a_terminal_why_a_sender_is_unchanged() {
    if !can_run(&["script"], "sign on a terminal") {
        return;
    }
    let site = site(OURS);
    let on_a_terminal = |address: &str| {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{PROGRAM} sign {address}"), "/dev/null"]).current_dir(site.path());
        said(&script.env("NO_COLOR", "1").env("COUNTERSIGN_CONFIG_PATH", "countersign.toml").output().unwrap())
    };
    let foreign = on_a_terminal("bob@else.example");
    assert_eq!(
        foreign.lines().collect::<Vec<_>>(),
        [
            "bob@else.example",
            "unchanged: else.example is not in domains.local, and there is no srs_domain for foreign senders"
        ]
    );
    assert_eq!(on_a_terminal("ann@our.example").lines().count(), 1);
    assert_eq!(run_ok(site.path(), &["sign", "bob@else.example"]), "bob@else.example\n");
    assert!(run(site.path(), &["sign", "bob@else.example"]).stderr.is_empty());
}

#[test]
fn who_lacks_rights_is_told_the_owner_and_the_command() {
    if !can_run(&["setpriv"], "errors for users without rights") {
        return;
    }
    let map = "[[listener]]\nprotocol = \"socketmap\"\nlisten = \"unix:{D}/closed/map\"\n";
    let site = site(&format!("{OURS}{map}"));
    let here = site.path().to_str().unwrap();
    fs::create_dir(site.path().join("closed")).unwrap();
    let ring = run_as_nobody(site.path(), &["check"]);
    let belongs = "keys/ring.toml: it belongs to root, and this runs as nobody, who may not read it; run this as root; or if the daemon is to run as nobody, run: chown nobody ";
    assert!(said(&ring).contains(belongs) && ring.status.code() == Some(2), "{}", said(&ring));
    // The ring is its own now, and the folder is not.
    run_chown(&site.path().join("keys/ring.toml"));
    fs::remove_file(site.path().join("keys/ring.toml.lock")).unwrap();
    let rotate = run_as_nobody(site.path(), &["keys", "rotate"]);
    let folder = "keys belongs to root, and this runs as nobody, who may not write in it; run this as root; or if the daemon is to run as nobody, run: chown nobody ";
    assert!(said(&rotate).contains(folder) && rotate.status.code() == Some(2), "{}", said(&rotate));
    let serve = run_as_nobody(site.path(), &["serve"]);
    let want = format!(
        "the socketmap cannot listen on unix:{here}/closed/map: {here}/closed belongs to root, and this runs as nobody, who may not \
         write in it; run this as root; or if the daemon is to run as nobody, run: chown nobody {here}/closed"
    );
    assert!(said(&serve).contains(&want), "{}", said(&serve));
    let warned = "the key ring cannot be changed by this process: ";
    assert!(said(&serve).contains(warned), "{}", said(&serve));
    let config =
        format!("{OURS}[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:1023\"\nnext_hop = \"127.0.0.1:1\"\n");
    fs::write(site.path().join("countersign.toml"), config).unwrap();
    let low = run_as_nobody(site.path(), &["serve"]);
    // Some systems let everybody have every port.
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim() == "1024" {
        let want = "nobody may not open ports below 1024. Let systemd open it: packaging/countersign.socket";
        assert!(said(&low).contains(want) && said(&low).contains("CAP_NET_BIND_SERVICE"), "{}", said(&low));
    }
}

#[test]
fn a_next_hop_without_an_address_is_named_in_the_log() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let config = format!(
        "{OURS}[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"no-such-host.invalid:25\"\n"
    );
    let daemon = Daemon::start(folder.path(), &config);
    let mut client = std::net::TcpStream::connect(("127.0.0.1", daemon.ports[0])).unwrap();
    let mut greeting = String::new();
    std::io::Read::read_to_string(&mut client, &mut greeting).unwrap();
    assert_eq!(greeting, "421 4.4.1 next hop cannot be reached, try again later\r\n");
    daemon.log.wait("the reason", 0, |line| line.contains("the name no-such-host.invalid has no address ("));
}

fn run_chown(path: &Path) {
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(path, Some(nobody.uid.as_raw()), None).unwrap();
}

#[test]
fn check_tries_the_rights_of_the_daemon() {
    if !can_run(&["setpriv"], "check --as-user") {
        return;
    }
    let own = "domains.local = [\"our.example\"]\nstate.path = \"{D}/state/a.db\"\ncontrol.listen = \"unix:{D}/run/control\"\n";
    let map = "[[listener]]\nprotocol = \"socketmap\"\nlisten = \"unix:{D}/sockets/map\"\ngroup = \"mail\"\n";
    let site = site(&format!("{own}{map}"));
    let here = site.path().to_str().unwrap();
    for name in ["state", "run", "sockets"] {
        fs::create_dir(site.path().join(name)).unwrap();
    }
    let output = run(site.path(), &["check", "--as-user", "nobody"]);
    let said_now = said(&output);
    for want in [
        "the key ring keys/ring.toml belongs to root, and nobody may not read it: chown nobody keys/ring.toml"
            .to_owned(),
        "the folder of the key ring, keys belongs to root, and nobody may not write in it: chown nobody keys"
            .to_owned(),
        format!("the folder of the socket, {here}/sockets belongs to root, and nobody may not write in it"),
        format!("the folder of control.listen, {here}/run belongs to root"),
        format!("the folder of state.path, {here}/state belongs to root"),
        format!(
            "the socket unix:{here}/sockets/map would not get the group mail: give it a folder of its own, install -d -m 2710 -o nobody -g mail \
             {here}/sockets"
        ),
    ] {
        assert!(said_now.contains(&format!("danger: {want}")), "`{want}` is not in\n{said_now}");
    }
    assert_eq!(output.status.code(), Some(2));
    // With the rights that these lines name, there is nothing to say.
    for path in ["keys", "keys/ring.toml", "keys/ring.toml.lock", "state", "run", "sockets"] {
        run_chown(&site.path().join(path));
    }
    let mail = nix::unistd::Group::from_name("mail").unwrap().unwrap();
    std::os::unix::fs::chown(site.path().join("sockets"), None, Some(mail.gid.as_raw())).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o2710);
    fs::set_permissions(site.path().join("sockets"), mode).unwrap();
    let good = run(site.path(), &["check", "--as-user", "nobody"]);
    assert!(good.status.success() && !said(&good).contains("danger:"), "{}", said(&good));
    // A folder on the way that is closed.
    fs::set_permissions(site.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let closed = run(site.path(), &["check", "-c", &format!("{here}/countersign.toml"), "--as-user", "nobody"]);
    let want = format!("the config {here}/countersign.toml: nobody may not enter {here}: setfacl -m u:nobody:x {here}");
    assert!(said(&closed).contains(&want) && closed.status.code() == Some(2), "{}", said(&closed));
    let nobody = run(site.path(), &["check", "--as-user", "no-such-user-9"]);
    assert!(said(&nobody).contains("--as-user: there is no user no-such-user-9"), "{}", said(&nobody));
}
