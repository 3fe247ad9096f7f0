//! The state of a ramp in words, the same in logs, `check` and the status listener.

use crate::envelope::rules::{Ramp, RampHold, SignedDays, Waiting};
use crate::state::time_format::rfc3339;

/// What is done with a domain, and why. `starts_itself`: whether a ramp here begins with the first signed mail.
pub(crate) fn describe(ramp: &Ramp, name: &str, starts_itself: bool) -> String {
    match ramp {
        Ramp::NotStarted if starts_itself => "observed; its ramp begins with the first mail that leaves signed".into(),
        Ramp::NotStarted => format!(
            "observed; nothing here signs, so where it is signed, or here, run: countersign keys ramp-start {name}"
        ),
        Ramp::Observed => format!(
            "observed, as an administrator has decided; the ramp decides again after: countersign ramp auto {name}"
        ),
        Ramp::Paused(until) => format!("observed until {}, as an administrator has decided", rfc3339(*until)),
        Ramp::Enforcing => "enforced".to_owned(),
        Ramp::Waiting(waiting) => waits(waiting),
    }
}

fn waits(waiting: &Waiting) -> String {
    let Waiting { until, days, hold } = waiting;
    let until = until.map(|until| format!("until {} at least", rfc3339(until)));
    let days = days.map(|SignedDays { signed, needed }| {
        format!(
            "signed mail has left on {signed} day{} of {needed} (or 3, if it has little mail, after {} days)",
            if signed == 1 { "" } else { "s" },
            3 * needed
        )
    });
    let hold = hold.as_ref().map(held);
    let parts: Vec<String> = [until, days, hold].into_iter().flatten().collect();
    format!("observed, {}", parts.join("; "))
}

fn held(hold: &RampHold) -> String {
    let RampHold { host, messages, last, others } = hold;
    let bounces = if *messages == 1 { "1 bounce returns".to_owned() } else { format!("{messages} bounces return") };
    let others = match others {
        0 => String::new(),
        1 => " and 1 other host".to_owned(),
        n => format!(" and {n} other hosts"),
    };
    format!("held, because {bounces} mail that {host}{others} sent unsigned (last {})", rfc3339(*last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::time::Timestamp;

    const AT: Timestamp = Timestamp(1_795_382_400);

    #[test]
    fn each_thing_that_is_missing_is_named() {
        let hold = RampHold { host: "web1.our.example".into(), messages: 14, last: AT, others: 2 };
        let waiting = Waiting { until: Some(AT), days: Some(SignedDays { signed: 1, needed: 7 }), hold: Some(hold) };
        assert_eq!(
            describe(&Ramp::Waiting(waiting), "our.example", true),
            "observed, until 2026-11-22T21:20:00Z at least; signed mail has left on 1 day of 7 (or 3, if it has little \
             mail, after 21 days); held, because 14 bounces return mail that web1.our.example and 2 other hosts sent \
             unsigned (last 2026-11-22T21:20:00Z)"
        );
        let waiting = Waiting { until: Some(AT), ..Waiting::default() };
        assert_eq!(
            describe(&Ramp::Waiting(waiting), "our.example", true),
            "observed, until 2026-11-22T21:20:00Z at least"
        );
    }
}
