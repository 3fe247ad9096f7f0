//! The state of the daemon in one line, for monitoring systems.

use clap::ValueEnum;

use crate::service::report::Report;

/// A form that monitoring systems read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    // Ordinary comments: clap would print documentation at length.
    // A plugin of Nagios, Icinga or Naemon: text, and figures behind a bar.
    Nagios,
    // A local check of Checkmk.
    Checkmk,
    // The health check of a container: it fails if mail is deferred or no daemon answers, and only then.
    Container,
}

/// How well the daemon does. The numbers are the exit status of a plugin, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing needs attention.
    Well = 0,
    /// Something needs attention.
    Attention = 1,
    /// No daemon answers, or a next hop cannot be reached: mail waits.
    Down = 2,
}

/// The line, and how well the daemon does. `report` is an error in words if no daemon answers.
pub(super) fn line(form: Form, report: &Result<Report, String>) -> (String, Health) {
    let (health, text, figures) = match report {
        Err(error) => (Health::Down, error.clone(), Vec::new()),
        Ok(report) => {
            let down: Vec<&str> = report.listeners.iter().filter(|it| !it.3).map(|it| it.2.as_str()).collect();
            let health = match (down.is_empty(), report.attention.is_empty()) {
                (false, _) => Health::Down,
                (true, false) => Health::Attention,
                (true, true) => Health::Well,
            };
            let text = match report.attention.first() {
                Some(first) => first.clone(),
                None if down.is_empty() => format!(
                    "{}, {} signed and {} bounces refused in 24 hours",
                    report.mode,
                    report.signed,
                    refused(report)
                ),
                None => format!("next hop down: {}", down.join(", ")),
            };
            (health, text, figures(report))
        }
    };
    // A bar or a line break would end the text.
    let text: String = text.chars().map(|c| if c == '|' || c.is_control() { ' ' } else { c }).collect();
    let figures: Vec<String> = figures.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let line = match form {
        Form::Container => text,
        Form::Nagios => {
            let word = match health {
                Health::Well => "OK",
                Health::Attention => "WARNING",
                Health::Down => "CRITICAL",
            };
            format!("COUNTERSIGN {word} - {text} | {}", figures.join(" "))
        }
        Form::Checkmk => {
            let figures = if figures.is_empty() { "-".to_owned() } else { figures.join("|") };
            format!("{} Countersign {figures} {text}", health as u8)
        }
    };
    (line.trim_end_matches([' ', '|']).to_owned(), health)
}

fn refused(report: &Report) -> u64 {
    report.refused.iter().map(|(_, count)| count).sum()
}

/// Figures of the last 24 hours, but for the sessions and the time since the start.
fn figures(report: &Report) -> Vec<(&'static str, String)> {
    vec![
        ("uptime", report.uptime.to_string()),
        ("sessions", report.sessions.to_string()),
        ("signed", report.signed.to_string()),
        ("rewritten", report.rewritten.to_string()),
        ("genuine", report.genuine.to_string()),
        ("rescued", report.rescued.to_string()),
        ("refused", refused(report).to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(more: &str) -> Result<Report, String> {
        let text = format!(
            "{{\"version\": \"0\", \"pid\": 1, \"since\": \"x\", \"uptime\": 60, \"config\": \"c\", \"config_changes\": [[], []], \
             \"mode\": \"ramp\", \"ramps\": [], \"listeners\": [[\"inbound\", \"a\", \"127.0.0.1:25\", true]], \"sessions\": 2, \
             \"signing_key\": \"1\", \"signed\": 5, \"rescued\": 0, \"refused\": [[\"forged\", 3], [\"expired\", 4]], \
             \"refused_networks\": [], \"refused_domains\": [], \"refused_by_hour\": [], \"would_refuse\": [], \"forgery_chance\": 0.0, \
             \"attention\": []{more}}}"
        );
        Ok(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_line_says_how_it_is() {
        let figures = "uptime=60 sessions=2 signed=5 rewritten=0 genuine=0 rescued=0 refused=7";
        let well = line(Form::Nagios, &report(""));
        assert_eq!(well.0, format!("COUNTERSIGN OK - ramp, 5 signed and 7 bounces refused in 24 hours | {figures}"));
        assert_eq!(well.1, Health::Well);
        let mut attention = report("").unwrap();
        attention.attention = vec!["the key|is\nold".to_owned()];
        let attention = line(Form::Checkmk, &Ok(attention));
        assert_eq!(attention.0, format!("1 Countersign {} the key is old", figures.replace(' ', "|")));
        let mut down = report("").unwrap();
        down.listeners[0].3 = false;
        let down = line(Form::Nagios, &Ok(down));
        assert!(down.0.starts_with("COUNTERSIGN CRITICAL - next hop down: 127.0.0.1:25 | ") && down.1 == Health::Down);
        let none = line(Form::Nagios, &Err("no running daemon answers".to_owned()));
        assert_eq!(none, ("COUNTERSIGN CRITICAL - no running daemon answers".to_owned(), Health::Down));
        assert_eq!(line(Form::Checkmk, &Err("no".to_owned())).0, "2 Countersign - no");
    }
}
