//! How the tools of mail servers are run, and how their settings name an endpoint.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::config::Endpoint;

/// The path of the first of these programs that is found in PATH, /usr/sbin or /sbin.
pub(in crate::cli) fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name))).find(|file| file.is_file())
}

/// Runs a program, and returns its standard output. An exit status other than 0 is an error.
pub(in crate::cli) fn ask<I: IntoIterator<Item: AsRef<OsStr>>>(program: &Path, arguments: I) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{} cannot be run", program.display()))?;
    if !output.status.success() {
        bail!("{} says: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a setting names an endpoint of Countersign: `inet:127.0.0.1:10030`, `[127.0.0.1]:10025`, `unix:/path`,
/// `inet:10030@localhost`.
pub(in crate::cli) fn names(setting: &str, endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let port = port.to_string();
            let mut words = setting.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')));
            // A host name of this machine counts like its address.
            words.any(|word| word == port) && (setting.contains(host.as_str()) || endpoint.is_loopback())
        }
        // In a chroot, the beginning of the path is missing.
        Endpoint::Unix(path) => {
            let path = path.to_string_lossy();
            setting.split([' ', ',', '\t']).any(|word| {
                let bare = word.rsplit_once("unix:").map_or(word, |(_, bare)| bare);
                // In a socketmap setting, the name of the map follows the path.
                let bare = bare.split_once(':').map_or(bare, |(path, _)| path);
                bare.len() > 1 && path.ends_with(bare.trim_start_matches('/'))
            })
        }
        Endpoint::Systemd(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_recognised_in_settings() {
        let tcp: Endpoint = "127.0.0.1:10030".parse().unwrap();
        for good in [
            "inet:127.0.0.1:10030",
            "inet:localhost:10030, inet:127.0.0.1:8891",
            "[127.0.0.1]:10030",
            "smtp:[127.0.0.1]:10030",
            "socketmap:inet:127.0.0.1:10030:verify",
            "inet:10030@localhost",
        ] {
            assert!(names(good, &tcp), "{good}");
        }
        for bad in ["", "inet:127.0.0.1:1003", "inet:127.0.0.1:100301", "127.0.0.1"] {
            assert!(!names(bad, &tcp), "{bad}");
        }
        let unix: Endpoint = "unix:/var/spool/postfix/countersign/milter".parse().unwrap();
        assert!(names("unix:/countersign/milter", &unix) && names("unix:/var/spool/postfix/countersign/milter", &unix));
        for map in ["sign", "forward", "verify", "reverse", "strip"] {
            assert!(names(&format!("socketmap:unix:countersign/milter:{map}"), &unix), "{map}");
        }
        assert!(!names("unix:/opendkim/milter", &unix) && !names("", &unix));
    }
}
