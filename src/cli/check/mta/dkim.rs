//! DKIM signers beside the mail server: whether they sign the evidence header, which is taken off before delivery.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::Finding::{self, Wrong};

/// The header that must stay out of signatures.
const HEADER: &str = "Countersign-Evidence";

/// A signer's configuration.
pub(super) struct Signer {
    file: PathBuf,
    /// Where it listens, as `inet:8891@localhost`; empty if the file does not say it.
    pub socket: String,
    /// Whether it signs the evidence header, or its absence.
    pub covers_evidence: bool,
}

impl Signer {
    /// Whether a mail server's setting names this signer: by the port, or the path.
    pub(super) fn is(&self, endpoint: &str) -> bool {
        let port = |text: &str| text.split(|c: char| !c.is_ascii_digit()).rfind(|it| it.len() > 2).map(str::to_owned);
        match self.socket.split_once(':') {
            Some(("inet" | "inet6", rest)) => {
                rest.split('@').next().map(str::to_owned) == port(endpoint) && endpoint.starts_with("inet")
            }
            Some((_, path)) => endpoint.split_once(':').is_some_and(|(_, at)| at.len() > 1 && path.ends_with(at)),
            None => false,
        }
    }
}

/// The signers whose configuration is beside that of the mail server, in `/etc`.
pub(super) fn signers(etc: &Path) -> Vec<Signer> {
    let mut found = Vec::new();
    let file = etc.join("opendkim.conf");
    if let Ok(text) = fs::read_to_string(&file) {
        let of = |name: &str| option(&text, name).unwrap_or_default();
        let covers_evidence = [of("SignHeaders"), of("OversignHeaders")].iter().any(|list| names_evidence(list));
        found.push(Signer { file, socket: of("Socket"), covers_evidence });
    }
    let rspamd = etc.join("rspamd");
    for file in ["local.d/dkim_signing.conf", "override.d/dkim_signing.conf"].map(|name| rspamd.join(name)) {
        if let Ok(text) = fs::read_to_string(&file) {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            let covers_evidence = lines.clone().any(|line| line.contains("sign_headers") && names_evidence(line));
            found.push(Signer { file, socket: "inet:11332".to_owned(), covers_evidence });
        }
    }
    found
}

/// The value of an option in OpenDKIM's file, whose names are in any case.
fn option(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let pairs = lines.filter_map(|line| line.split_once(char::is_whitespace));
    // The last one counts.
    pairs.rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// Whether a list of headers has the evidence header: the list itself, or the file that it names.
fn names_evidence(list: &str) -> bool {
    let file = list.strip_prefix("file:").unwrap_or(list);
    let text = if file.starts_with('/') { fs::read_to_string(file).unwrap_or_default() } else { list.to_owned() };
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split(|c| !is_part(c)).any(|word| word.trim_matches('-').eq_ignore_ascii_case(HEADER))
}

/// Signers that sign the evidence header.
pub(super) fn over_evidence(signers: &[Signer], found: &mut Vec<Finding>) {
    for signer in signers.iter().filter(|signer| signer.covers_evidence) {
        found.push(Wrong(format!(
            "{} has DKIM sign {HEADER}, which is taken off before delivery, so the signature breaks: remove it from the list of headers",
            signer.file.display()
        )));
    }
}

/// The same in Exim's own configuration.
pub(super) fn over_evidence_in_exim(lines: &[String], found: &mut Vec<Finding>) {
    let is_list = |line: &&String| line.replace(' ', "").starts_with("dkim_sign_headers=") && names_evidence(line);
    if lines.iter().any(|line| is_list(&line)) {
        found.push(Wrong(format!(
            "dkim_sign_headers has {HEADER}, which is taken off before delivery, so the signature breaks: remove it from the list"
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_are_found_and_judged() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path();
        assert!(signers(etc).is_empty());
        let list = etc.join("headers");
        let opendkim = |more: &str| {
            fs::write(
                etc.join("opendkim.conf"),
                format!("# SignHeaders Countersign-Evidence\nsocket inet:8891@localhost\n{more}\n"),
            )
            .unwrap();
            signers(etc).remove(0)
        };
        let plain = opendkim("OversignHeaders From");
        assert!(!plain.covers_evidence && plain.is("inet:127.0.0.1:8891") && plain.is("inet:localhost:8891"));
        assert!(!plain.is("inet:127.0.0.1:8893") && !plain.is("unix:countersign/milter"));
        assert!(opendkim("SignHeaders *,+countersign-evidence").covers_evidence);
        assert!(opendkim("OversignHeaders From,Countersign-Evidence").covers_evidence);
        fs::write(&list, "From\nCountersign-Evidence\n").unwrap();
        assert!(opendkim(&format!("SignHeaders file:{}", list.display())).covers_evidence);
        let local = opendkim("Socket local:/var/spool/postfix/opendkim/opendkim.sock");
        assert!(local.is("unix:opendkim/opendkim.sock") && !local.is("unix:countersign/milter"));
        fs::remove_file(etc.join("opendkim.conf")).unwrap();
        fs::create_dir_all(etc.join("rspamd/local.d")).unwrap();
        let rspamd = etc.join("rspamd/local.d/dkim_signing.conf");
        fs::write(&rspamd, "sign_headers = \"(o)from:(x)countersign-evidence\";\n").unwrap();
        assert!(signers(etc)[0].covers_evidence && signers(etc)[0].is("inet:localhost:11332"));
        fs::write(&rspamd, "# sign_headers = \"countersign-evidence\";\nselector = \"x\";\n").unwrap();
        assert!(!signers(etc)[0].covers_evidence);
    }

    #[test]
    fn exim_signs_what_its_transport_says() {
        let mut found = Vec::new();
        over_evidence_in_exim(&["dkim_sign_headers = From:Subject".to_owned()], &mut found);
        assert!(found.is_empty());
        over_evidence_in_exim(&["dkim_sign_headers = From : +Countersign-Evidence".to_owned()], &mut found);
        assert_eq!(found.len(), 1);
    }
}
