//! What the figures mean, and what to do about it.

use super::event::Software;
use super::figures::{Attack, CauseOfBounces, Extent, Harvester, HourOfMail, UnsignedHost};
use super::stamp::Wall;
use super::tally::{Cause, Decided};
use super::verdict::{Level, Verdict, grouped};

/// Messages from the null sender in an hour from which it may be part of an attack.
const MANY_IN_AN_HOUR: u64 = 30;
/// Their share of all mail that is an attack anywhere, in thousandths; and one that is an attack if it is so many times the
/// usual share.
const LARGE_SHARE: u64 = 200;
const SOME_SHARE: u64 = 50;
const UNUSUAL: u64 = 5;
/// Hours without an attack that end it.
const END_OF_ATTACK: i64 = 24;
/// The last hours of a log, by which it is judged whether an attack goes on.
const LAST_HOURS: i64 = 6;
/// The last hours in which an attack that calms down has less than a third of its most.
const CALMING: i64 = 3;
/// Bounces to strangers that are a few, however long the log is, and those of a day.
const A_FEW: u64 = 20;
const A_FEW_A_DAY: u64 = 20;

/// The share of the null sender in the middle one of all hours, in thousandths.
fn usual_share(hours: &[HourOfMail]) -> u64 {
    let mut shares: Vec<u64> =
        hours.iter().map(|hour| hour.null_sender.saturating_mul(1000) / hour.mail_in.max(1)).collect();
    shares.sort_unstable();
    shares.get(shares.len() / 2).copied().unwrap_or(0)
}

/// All attacks in a log, in their order. `end`: the hour of its last line.
pub(super) fn attacks(hours: &[HourOfMail], end: i64) -> Vec<Attack> {
    let usual = usual_share(hours);
    let mut found: Vec<Attack> = Vec::new();
    for hour in hours {
        let share = hour.null_sender.saturating_mul(1000) / hour.mail_in.max(1);
        let is_much = share >= LARGE_SHARE || share >= SOME_SHARE.max(usual * UNUSUAL);
        if hour.null_sender < MANY_IN_AN_HOUR || !is_much {
            continue;
        }
        match found.last_mut().filter(|before| hour.hour - before.until <= END_OF_ATTACK) {
            Some(it) => {
                it.until = hour.hour;
                if hour.null_sender > it.most {
                    (it.most_at, it.most) = (hour.hour, hour.null_sender);
                }
            }
            None => found.push(Attack {
                since: hour.hour,
                until: hour.hour,
                most_at: hour.hour,
                most: hour.null_sender,
                goes_on: false,
                calms_down: false,
            }),
        }
    }
    if let Some(last) = found.last_mut() {
        last.goes_on = end - last.until < LAST_HOURS;
        let recent =
            hours.iter().filter(|hour| end - hour.hour < CALMING).map(|hour| hour.null_sender).max().unwrap_or(0);
        last.calms_down = last.goes_on && recent.saturating_mul(3) < last.most;
    }
    found
}

/// Whether nearly all mail without a sender was refused during an attack.
fn is_refused(attack: &Attack, hours: &[HourOfMail]) -> bool {
    let within = hours.iter().filter(|hour| (attack.since..=attack.until).contains(&hour.hour));
    let sum = |(null, refused): (u64, u64), hour: &HourOfMail| {
        (null.saturating_add(hour.null_sender), refused.saturating_add(hour.refused))
    };
    let (null, refused) = within.fold((0, 0), sum);
    // A tenth of it is delivered: some of that is genuine.
    refused / 9 >= null / 10
}

/// The attack that matters most: the last one of those that came through, or else the last one.
pub(super) fn worst(attacks: &[Attack], hours: &[HourOfMail]) -> Option<Attack> {
    let through = attacks.iter().rev().find(|attack| !is_refused(attack, hours));
    through.or(attacks.last()).copied()
}

/// Bounces that come in. `would_refuse`: those that Countersign has only marked.
pub(super) fn backscatter(attack: Option<Attack>, hours: &[HourOfMail], has_ours: bool, would_refuse: u64) -> Verdict {
    let Some(attack) = attack else { return Verdict::new(Level::Calm, "none to speak of") };
    let time = |hour: i64| Wall(hour * 3600).to_text("%a %-d %b %H:%M");
    let words = match (attack.goes_on, attack.calms_down) {
        (true, true) => format!("attack since {}, calming down", time(attack.since)),
        (true, false) => format!("attack since {}", time(attack.since)),
        (false, _) => format!("attack from {} to {}, over", time(attack.since), time(attack.until)),
    };
    let is_refused = is_refused(&attack, hours);
    let level = match (is_refused, attack.goes_on) {
        (true, _) => Level::Calm,
        (false, true) => Level::Today,
        (false, false) => Level::ThisWeek,
    };
    let verdict = Verdict::new(level, words);
    if is_refused {
        verdict
    } else if would_refuse > 0 {
        verdict.advise(format!(
            "Countersign marks {would_refuse} false bounces that it would refuse: `countersign status` says what holds the \
             ramp, and inbound.mode = \"enforce\" ends it"
        ))
    } else if has_ours {
        verdict.advise(
            "much of it passes Countersign: `countersign trace` says why, and `countersign check` what is missing",
        )
    } else {
        verdict.advise(
            "sign your mail and refuse bounces to what you never sent: `countersign init --domain DOMAIN --mta MTA`",
        )
    }
}

/// Bounces that this server sends to strangers.
pub(super) fn reflector(bounces: u64, causes: &[CauseOfBounces], lines: &Extent) -> Verdict {
    if bounces == 0 {
        return Verdict::new(Level::Calm, "no bounces to strangers");
    }
    let of = |cause: Cause| causes.iter().find(|it| it.cause == cause);
    // Those that were not sent may be among them.
    let unknown = of(Cause::UnknownUser).map_or(0, |it| it.count).min(bounces);
    let days = lines.first.zip(lines.last).map_or(1, |(first, last)| (last.0 - first.0).unsigned_abs() / 86_400 + 1);
    let plural = if bounces == 1 { "" } else { "s" };
    let found = format!("{} bounce{plural} to strangers", grouped(bounces));
    let mut verdict = if unknown >= 10 {
        Verdict::new(Level::Today, format!("YES, {found}"))
    } else if unknown > 0 || bounces > A_FEW.max(A_FEW_A_DAY * days) {
        Verdict::new(Level::ThisWeek, format!("yes, {found}"))
    } else {
        return Verdict::new(Level::Calm, format!("{found}, as is usual"));
    };
    if let Some(it) = of(Cause::UnknownUser) {
        let place = it.places.first().map_or("", |place| place.name.as_str());
        let domain = place.split(' ').next().unwrap_or("DOMAIN");
        if lines.software.contains(&Software::Postfix) {
            verdict = verdict.advise(format!(
                "Postfix: list the users of {domain} in local_recipient_maps, virtual_mailbox_maps or relay_recipient_maps, and \
                 remove a catch-all"
            ));
        }
        if lines.software.contains(&Software::Exim) {
            verdict = verdict.advise(format!("Exim: `require verify = recipient` for {domain} in acl_smtp_rcpt"));
        }
        verdict = verdict.advise(format!(
            "or let Countersign ask who the users are: [inbound] recipients = {{ \"{domain}\" = \"ask:HOST:25\" }}"
        ));
    }
    if of(Cause::Forward).is_some_and(|it| it.count > A_FEW) {
        verdict =
            verdict.advise("forwards: filter spam before it is forwarded, and limit what is bounced: [outbound.ndr]");
    }
    verdict.advise("docs/reverse-ndr.md describes the attack and each setting")
}

/// Networks that try names.
pub(super) fn harvest(networks: &[Harvester], limit: u32) -> Verdict {
    if networks.is_empty() {
        return Verdict::new(Level::Calm, "none");
    }
    let names: u64 = networks.iter().map(|it| it.names).sum();
    let count = if networks.len() == 1 { "one network".to_owned() } else { format!("{} networks", networks.len()) };
    Verdict::new(Level::ThisWeek, format!("{count}, {} unknown names asked for", grouped(names)))
        .advise(format!("limits.unknown_recipients_per_hour = {limit} answers each network so many times an hour"))
}

/// Hosts whose mail is not signed.
pub(super) fn unsigned(hosts: &[UnsignedHost], has_ours: bool) -> Verdict {
    match hosts.len() {
        0 if has_ours => Verdict::new(Level::Calm, "none seen"),
        0 => Verdict::new(Level::Unknown, "not known: there is no log of Countersign"),
        n => {
            let plural = if n == 1 { "host" } else { "hosts" };
            Verdict::new(Level::ThisWeek, format!("{n} {plural} of yours"))
                .advise("send their mail through Countersign, or add their senders to outbound.exempt_senders")
        }
    }
}

/// What Countersign has found, in words: its own reasons are for logs.
pub(super) fn reason(decided: Decided, reason: &str) -> String {
    let words = match reason {
        "untagged-ndr" | "daemon-ndr" | "text-ndr" | "doubtful-ndr" => "no tag of ours",
        "forged" => "forged tag",
        "expired" => "expired tag",
        "future" => "tag from the future",
        "unknown-key" => "tag of an unknown key",
        "valid" => "good tag",
        "evidence" => "known by evidence",
        "no-bounce" | "not-a-bounce" => "reply, receipt and the like",
        "guessing" => "network guesses tags",
        "replayed" => "tag used too often",
        "surge" => "surge, at RCPT",
        other => other,
    };
    match decided {
        Decided::Refused | Decided::Delivered => words.to_owned(),
        Decided::Deferred => format!("{words}, deferred"),
        Decided::WouldRefuse => format!("{words}, only marked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(null: &[u64]) -> Vec<HourOfMail> {
        let of = |(hour, null): (usize, &u64)| HourOfMail {
            hour: i64::try_from(hour).unwrap(),
            mail_in: null + 100,
            null_sender: *null,
            refused: *null,
        };
        null.iter().enumerate().map(of).collect()
    }

    #[test]
    fn an_attack_begins_and_ends() {
        assert!(attacks(&hours(&[2, 3, 24, 2]), 3).is_empty(), "few");
        let found = attacks(&hours(&[2, 50, 400, 300, 90, 90]), 5)[0];
        assert_eq!((found.since, found.until, found.most_at, found.most), (1, 5, 2, 400));
        assert!(found.goes_on && !found.calms_down);
        let mut calming = vec![2, 5000, 5000, 4000];
        calming.extend([40; 7]);
        let found = attacks(&hours(&calming), 10)[0];
        assert!(found.goes_on && found.calms_down, "{found:?}");
        let mut two = vec![400];
        two.extend([1; 30]);
        two.extend([50, 60]);
        two.extend([1; 10]);
        let all = attacks(&hours(&two), 42);
        let found = all[1];
        assert_eq!((all.len(), all[0].since, all[0].most), (2, 0, 400));
        assert_eq!((found.since, found.until, found.goes_on), (31, 32, false));
    }

    #[test]
    fn bounces_that_are_refused_need_no_action() {
        let all = hours(&[2, 50, 400]);
        let of = |all: &[HourOfMail], ours, marked| backscatter(worst(&attacks(all, 2), all), all, ours, marked);
        assert_eq!(of(&all, true, 0).level, Level::Calm);
        let delivered: Vec<HourOfMail> = all.iter().map(|hour| HourOfMail { refused: 0, ..*hour }).collect();
        assert_eq!(of(&delivered, false, 0).level, Level::Today);
        assert!(of(&delivered, false, 0).advice[0].contains("countersign init"));
        assert!(of(&delivered, true, 9).advice[0].contains("marks 9 false bounces"));
    }

    #[test]
    fn an_attack_that_came_through_is_not_hidden_by_a_later_one() {
        let mut all = hours(&[400]);
        all[0].refused = 0;
        all.push(HourOfMail { hour: 40, mail_in: 30, null_sender: 30, refused: 30 });
        let attacks = attacks(&all, 40);
        assert_eq!(attacks.len(), 2);
        let verdict = backscatter(worst(&attacks, &all), &all, false, 0);
        assert_eq!(verdict.level, Level::ThisWeek);
        // A log that goes on without mail ends an attack, too.
        assert!(!super::attacks(&all[..1], 10)[0].goes_on);
    }
}
