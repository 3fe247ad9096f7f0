//! The dialogue of a probe, printed and not sent.

use super::real_server::MAX_SESSIONS;
use crate::cli::colours::{BOLD, DIM};
use crate::drive::client_dialogue::host_name;
use crate::envelope::time::Day;
use crate::probe;
use crate::probe::dry_run::{DryRun, Spoken};
use crate::probe::site::{OtherHost, Site};
use crate::probe::tags::Tags;

/// What would be said, to a server that has no hole.
pub(super) fn lines(host: &str, site: &mut Site) -> Vec<String> {
    // Tags, other hosts and bounces are known when the probe has begun. Examples take their place.
    let example = format!("prvs=1234abcdef={}", site.user);
    site.tags = Tags::captured(&example, Day(20_000), "postmaster").ok_or_else(String::new);
    site.other_hosts = Ok(vec![OtherHost { name: "another MX host".to_owned(), address: [192, 0, 2, 26].into() }]);
    let mut server = DryRun::new(host, &host_name());
    let tests = probe::run(&mut server, site).len();
    let sessions = server.spoken.iter().filter(|line| matches!(line, Spoken::Opens(_))).count();
    let mut lines = vec![format!(
        "{BOLD}What would be said to {host} in {sessions} of at most {MAX_SESSIONS} sessions, for {tests} tests; nothing was sent.{BOLD:#}\n\
         The replies are those of a server without holes. 192.0.2.25, 192.0.2.26 and prvs=… are examples."
    )];
    let mut number = 0;
    for line in &server.spoken {
        match line {
            Spoken::Opens(host) => {
                number += 1;
                lines.push(format!("\n{BOLD}Session {number}, {host}{BOLD:#}"));
            }
            Spoken::Client(text) => lines.extend(text.split('\n').map(|line| format!("  C: {line}"))),
            Spoken::Server(text) => lines.push(format!("  {DIM}S: {text}{DIM:#}")),
        }
    }
    lines
}
