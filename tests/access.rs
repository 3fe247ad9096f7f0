//! Access to Unix sockets: by mode and group, and by the user of the process.

use std::path::Path;

use crate::common::skip::skip_for_good;
use crate::common::{Daemon, can_run, folder, run, run_ok};

/// The result of a query by a user: the system's error, the map's answer, or an empty text.
fn ask_as(user: &str, group: &str, path: &Path) -> String {
    let script = "use Socket; $SIG{PIPE} = 'IGNORE'; socket(S, PF_UNIX, SOCK_STREAM, 0); \
        connect(S, sockaddr_un($ARGV[0])) or do { print $!; exit }; \
        syswrite(S, '20:sign ann@our.example,'); sysread(S, $answer, 9); print $answer";
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", user, "--regid", group, "--clear-groups", "perl", "-e", script]).arg(path);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn start(folder: &Path, access: &str) -> Daemon {
    if !folder.join("keys").exists() {
        run_ok(folder, &["keys", "init"]);
    }
    let config = format!(
        "domains.local = [\"our.example\"]\n[[listener]]\nprotocol = \"socketmap\"\nlisten = \"unix:{}\"\n{access}\n",
        folder.join("map").display()
    );
    Daemon::start(folder, &config)
}

#[test]
fn a_socket_is_for_its_group_and_its_users() {
    if !can_run(&["setpriv", "perl"], "who may connect to a socket") {
        return;
    }
    if std::env::var_os("COUNTERSIGN_UNDER_CALLS").is_some() {
        skip_for_good("who may connect to a socket, under the filter of the unit", "groups are given by folders there");
        return;
    }
    let folder = folder();
    let map = folder.path().join("map");
    let (signed, denied) = ("34:OK prv", "Permission denied");
    for (access, of_mail, of_no_group) in [
        ("", signed, signed),
        ("mode = \"0660\"\ngroup = \"mail\"", signed, denied),
        ("mode = \"0660\"\ngroup = \"8\"", signed, denied),
        ("mode = \"0600\"", denied, denied),
        // A user whom the permissions allow, but the list does not name, gets no answer.
        ("users = [\"daemon\"]", signed, ""),
        ("users = [\"1\"]\nmode = \"0660\"\ngroup = \"mail\"", signed, denied),
        ("users = []", "", ""),
    ] {
        let daemon = start(folder.path(), access);
        assert_eq!(ask_as("daemon", "mail", &map), of_mail, "{access}");
        assert_eq!(ask_as("nobody", "nogroup", &map), of_no_group, "{access}");
        assert_eq!(ask_as("root", "root", &map), signed, "{access}: root may always");
        drop(daemon);
    }
}

#[test]
fn mistakes_about_access_are_named() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let says = |listener: &str| {
        let text = format!("domains.local = [\"our.example\"]\n[[listener]]\nprotocol = \"socketmap\"\n{listener}\n");
        std::fs::write(folder.path().join("countersign.toml"), text).unwrap();
        let output = run(folder.path(), &["serve"]);
        assert_eq!(output.status.code(), Some(2), "{listener}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unix = format!("listen = \"unix:{}\"\n", folder.path().join("map").display());
    for (listener, want) in [
        ("listen = \"127.0.0.1:0\"\nmode = \"0660\"".to_owned(), "mode, group and users are for a socket in the file"),
        (
            "listen = \"127.0.0.1:0\"\nusers = [\"root\"]".to_owned(),
            "mode, group and users are for a socket in the file",
        ),
        (format!("{unix}mode = \"660x\""), "`660x` is no mode of a file"),
        (format!("{unix}mode = \"7777\""), "`7777` is no mode of a file"),
        (format!("{unix}group = \"no-such-group\""), "this machine has no group `no-such-group`"),
        (format!("{unix}users = [\"no-such-user\"]"), "this machine has no user `no-such-user`"),
    ] {
        let error = says(&listener);
        assert!(error.contains(want), "{listener}: {error}");
    }
}
