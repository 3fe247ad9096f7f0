//! The dialogue of a probe, printed and not sent.

use std::collections::HashSet;

use super::arguments::{Probe, Proof};
use super::real_server::MAX_SESSIONS;
use crate::cli::colours::{BOLD, DIM};
use crate::drive::client_dialogue::host_name;
use crate::envelope::time::Day;
use crate::probe;
use crate::probe::dry_run::{DryRun, Spoken};
use crate::probe::messages::Messages;
use crate::probe::server::{Expected, Host, Server as _, Trouble, transaction};
use crate::probe::site::{OtherHost, Site};
use crate::probe::tags::Tags;

/// What would be said, to a server that has no hole.
///
/// # Errors
/// None: the server of a plan has no trouble.
pub(super) fn lines(args: &Probe, host: &str, site: &mut Site) -> Result<Vec<String>, Trouble> {
    let machine = host_name();
    let hello = if machine.contains('.') { machine } else { "[the address of this machine]".to_owned() };
    let mut server = DryRun::new(host, &hello);
    begins(args, site, &mut server)?;
    // Return addresses and other hosts are known when the probe has begun. Examples take their place.
    if args.config.is_some() || args.signed.is_some() || args.submit.is_some() {
        let example = format!("prvs=1234abcdef={}", site.user);
        site.tags = Tags::captured(&example, Day(20_000), "postmaster").ok_or_else(String::new);
    }
    site.other_hosts = Ok(vec![OtherHost { name: "another MX host".to_owned(), address: [192, 0, 2, 26].into() }]);
    let tests = probe::run(&mut server, site).len();
    let sessions = server.spoken.iter().filter(|line| matches!(line, Spoken::Opens(_))).count();
    let mut lines = vec![format!(
        "{BOLD}What would be said to {host}, in {sessions} of at most {MAX_SESSIONS} sessions, for {tests} results; nothing was sent.{BOLD:#}\n\
         The replies are those of a server without holes. 192.0.2.25, 192.0.2.26, prvs=… and names that nobody has are\n\
         examples. If the server accepts what it should refuse, more is said: a session for each line end that ends a\n\
         message, and with --bounces one message to an unknown user, whose bounce is awaited."
    )];
    lines.extend(dialogue(&server.spoken));
    Ok(lines)
}

/// What precedes the tests: the proof, the question whether the server takes mail of the user, and a message of the user.
fn begins(args: &Probe, site: &Site, server: &mut DryRun) -> Result<(), Trouble> {
    let by_code = match args.prove {
        Some(proof) => proof == Proof::Code,
        None => args.token.is_none(),
    };
    if by_code {
        let code = Messages::of(site).code("4F-91-C2");
        purpose(server, "Proof, unless the server has an address of this machine");
        let mut session = server.open(Host::Probed)?;
        transaction(session.as_mut(), &site.sender, &site.user, Some(&code), Expected::Accepted)?;
    }
    purpose(server, "Does the server take mail for the user?");
    let mut session = server.open(Host::Probed)?;
    transaction(session.as_mut(), &site.sender, &site.user, None, Expected::Accepted)?;
    drop(session);
    if let Some(through) = &args.submit {
        let mut submission = DryRun::new(through, "this machine");
        let message = Messages::of(site).of_user();
        let mut session = submission.open(Host::Probed)?;
        transaction(session.as_mut(), &site.user, &site.sender, Some(&message), Expected::Accepted)?;
        drop(session);
        purpose(server, "A message of the user, whose return address is read where it arrives");
        server.spoken.append(&mut submission.spoken);
    }
    Ok(())
}

fn purpose(server: &mut DryRun, text: &str) {
    server.spoken.push(Spoken::Purpose(text.to_owned()));
}

fn dialogue(spoken: &[Spoken]) -> Vec<String> {
    let (mut lines, mut number, mut shown) = (Vec::new(), 0, HashSet::new());
    for line in spoken {
        match line {
            Spoken::Purpose(purpose) if purpose.is_empty() => {}
            Spoken::Purpose(purpose) => lines.push(format!("\n{BOLD}{purpose}{BOLD:#}")),
            Spoken::Opens(host) => {
                number += 1;
                lines.push(format!("\n  {BOLD}Session {number}, {host}{BOLD:#}"));
            }
            Spoken::Client(text) => lines.extend(sent(text, &mut shown)),
            Spoken::Server(text) => lines.push(format!("    {DIM}S: {text}{DIM:#}")),
        }
    }
    lines
}

/// What is sent. A message is shown once.
fn sent<'a>(text: &'a str, shown: &mut HashSet<&'a str>) -> Vec<String> {
    let subject = text.split('\n').find_map(|line| line.strip_prefix("Subject: "));
    match subject {
        Some(subject) if !shown.insert(subject) => {
            vec![format!("    C: (a message as above, \"{subject}\", and its end)")]
        }
        _ => text.split('\n').map(|line| format!("    C: {line}")).collect(),
    }
}
