//! What `packaging` and `scripts` have for packages, as far as it can be seen without making one: `scripts/package-test` and
//! `scripts/container-test` install and run them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{folder, run_ok};
use countersign::config::Config;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(file: &str) -> String {
    fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn each_script_can_be_read_by_its_shell() {
    let mut checked = 0;
    for folder in ["scripts", "packaging/deb", "packaging/container"] {
        for entry in fs::read_dir(project().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let first = fs::read_to_string(&path).unwrap_or_default();
            let Some(shell) = first.lines().next().and_then(|line| line.strip_prefix("#!")) else { continue };
            let shell = if shell.ends_with("bash") { "bash" } else { "sh" };
            let output = Command::new(shell).arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked}");
}

#[test]
fn the_package_has_what_it_names() {
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let script = text("scripts/package");
    for asset in deb["assets"].as_array().unwrap() {
        let from = asset[0].as_str().unwrap();
        // What the script puts into its tree.
        let made = from.strip_prefix("target/package/tree/usr/").unwrap_or_else(|| panic!("{from}"));
        let folder = made.trim_end_matches("/**/*").trim_end_matches("/*");
        let last = folder.rsplit('/').next().unwrap();
        assert!(script.contains(last) || last.starts_with("man"), "{from}: scripts/package makes no {last}");
    }
    for file in ["packaging/deb/postinst", "packaging/deb/prerm", "packaging/deb/postrm"] {
        assert!(text(file).contains("#DEBHELPER#"), "{file}: nothing would handle the unit");
    }
    let unit = text("packaging/countersign.service");
    assert_eq!(unit.matches("/usr/local/bin/countersign").count(), 2, "scripts/package writes another path there");
    assert!(!unit.replace("/usr/local/bin/countersign", "").contains("/usr/local"));
    // The page says how many alerts there are.
    let alerts = text("packaging/prometheus/countersign.rules.yml").matches("- alert: ").count();
    assert!(text("docs/packages.md").contains(&format!("has {alerts} alerts")));
}

#[test]
fn the_example_for_containers_fits_together() {
    let folder = folder();
    fs::write(folder.path().join("countersign.toml"), text("packaging/container/countersign.toml")).unwrap();
    run_ok(folder.path(), &["keys", "init"]);
    run_ok(folder.path(), &["check"]);
    let config = Config::load(&folder.path().join("countersign.toml")).unwrap();
    let (compose, patches) = (text("packaging/container/compose.yml"), text("packaging/container/user-patches.sh"));
    let address = |service: &str| {
        let (_, rest) = compose.split_once(&format!("\n  {service}:\n")).unwrap();
        rest.split_once("ipv4_address: ").unwrap().1.split(' ').next().unwrap().to_owned()
    };
    let (asker, asked) = (address("mailserver"), address("countersign"));
    for service in &config.mta_services {
        let countersign::config::Endpoint::Tcp { port, .. } = &service.listen else { panic!("{:?}", service.listen) };
        assert!(patches.contains(&format!("inet:{asked}:{port}")), "{port}: {patches}");
        assert!(service.clients.contains(asker.parse().unwrap()) && !service.clients.contains(asked.parse().unwrap()));
    }
    assert_eq!(config.mta_services.len(), 2);
    let file = text("packaging/container/Containerfile");
    assert!(file.contains("USER 10025:10025") && compose.contains("uid=10025,gid=10025"));
}
