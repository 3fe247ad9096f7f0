//! The figures of a report, as they are shown and written as JSON.

use std::collections::BTreeSet;

use serde::Serialize;

use super::event::Software;
use super::line::Read;
use super::published::Published;
use super::stamp::Wall;
use super::tally::Cause;
use super::verdict::Verdict;
use super::waiting::Waiting;

/// What was read.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Extent {
    pub total: u64,
    /// Those of mail servers and of Countersign.
    pub of_mail: u64,
    pub not_understood: u64,
    pub octets: u64,
    pub software: BTreeSet<Software>,
    /// Who has written the line before.
    #[serde(skip)]
    before: Option<Software>,
    /// The time of the first and the last line.
    #[serde(serialize_with = "as_time")]
    pub first: Option<Wall>,
    #[serde(serialize_with = "as_time")]
    pub last: Option<Wall>,
}

impl Extent {
    /// Counts a line. What is older than `since` does not count, if its time is known.
    pub(crate) fn count(&mut self, read: &Read, since: i64) {
        match read {
            Read::Of(software, at) if at.0 >= since => {
                self.total += 1;
                self.of_mail += 1;
                if self.before != Some(*software) {
                    self.software.insert(*software);
                    self.before = Some(*software);
                }
                self.first = Some(self.first.map_or(*at, |first| first.min(*at)));
                self.last = Some(self.last.map_or(*at, |last| last.max(*at)));
            }
            Read::Foreign(at) if at.0 >= since => self.total += 1,
            Read::Of(..) | Read::Foreign(_) => {}
            Read::NotUnderstood => {
                self.total += 1;
                self.not_understood += 1;
            }
        }
    }

    /// Adds what was read elsewhere.
    pub(crate) fn add(&mut self, more: &Self) {
        self.total += more.total;
        self.of_mail += more.of_mail;
        self.not_understood += more.not_understood;
        self.octets += more.octets;
        self.software.extend(&more.software);
        self.first = [self.first, more.first].into_iter().flatten().min();
        self.last = [self.last, more.last].into_iter().flatten().max();
    }
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub lines: Extent,
    pub backscatter: Backscatter,
    pub reflector: Reflector,
    pub harvest: HarvestSummary,
    pub unsigned: Unsigned,
    /// What waits in the queue, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Waiting>,
    /// What the DNS says, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Published>,
}

/// Bounces that come in.
#[derive(Debug, Serialize)]
pub(crate) struct Backscatter {
    pub verdict: Verdict,
    /// Mail that came in: accepted messages and refused recipients.
    pub mail_in: u64,
    /// Of that, from the null sender.
    pub null_sender: u64,
    pub attack: Option<Attack>,
    /// From the null sender, by what became of it.
    pub refused: Vec<Named>,
    pub delivered: Vec<Named>,
    /// Refused names, the most frequent first, and of how many unknown names they are.
    pub forged_as: Vec<Named>,
    pub unknown_names: usize,
    pub sent_by: Vec<Network>,
    pub networks: usize,
    pub hours: Vec<HourOfMail>,
}

/// A time with many bounces.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Attack {
    #[serde(serialize_with = "as_hour")]
    pub since: i64,
    /// The last hour.
    #[serde(serialize_with = "as_hour")]
    pub until: i64,
    #[serde(serialize_with = "as_hour")]
    pub most_at: i64,
    pub most: u64,
    /// Whether it goes on when the log ends.
    pub goes_on: bool,
    pub calms_down: bool,
}

/// Mail that came in within an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct HourOfMail {
    #[serde(serialize_with = "as_hour")]
    pub hour: i64,
    pub mail_in: u64,
    pub null_sender: u64,
    /// From the null sender, refused.
    pub refused: u64,
}

/// A number of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Named {
    pub name: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Network {
    pub network: String,
    /// A client in it.
    pub name: Option<String>,
    pub count: u64,
}

/// Bounces that this server sends.
#[derive(Debug, Serialize)]
pub(crate) struct Reflector {
    pub verdict: Verdict,
    pub bounces: u64,
    pub domains: usize,
    pub delivered: u64,
    pub undeliverable: u64,
    /// Bounces that Countersign has not sent.
    pub held: u64,
    pub causes: Vec<CauseOfBounces>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CauseOfBounces {
    pub cause: Cause,
    pub count: u64,
    pub places: Vec<Named>,
}

/// Networks that try names.
#[derive(Debug, Serialize)]
pub(crate) struct HarvestSummary {
    pub verdict: Verdict,
    pub networks: Vec<Harvester>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Harvester {
    pub network: String,
    pub names: u64,
    pub most_in_an_hour: u32,
    #[serde(serialize_with = "as_time")]
    pub first: Option<Wall>,
    #[serde(serialize_with = "as_time")]
    pub last: Option<Wall>,
}

/// Genuine bounces to mail that was not signed.
#[derive(Debug, Serialize)]
pub(crate) struct Unsigned {
    pub verdict: Verdict,
    pub hosts: Vec<UnsignedHost>,
}

#[derive(Debug, Serialize)]
pub(crate) struct UnsignedHost {
    pub host: String,
    pub bounces: u64,
    #[serde(serialize_with = "as_time")]
    pub last: Option<Wall>,
}

impl Summary {
    /// Whether something is to be done.
    pub(crate) fn wants_action(&self) -> bool {
        [&self.backscatter.verdict, &self.reflector.verdict, &self.harvest.verdict, &self.unsigned.verdict]
            .iter()
            .any(|verdict| verdict.level.wants_action())
            || self.dns.as_ref().is_some_and(Published::is_listed)
    }
}

/// A moment by the clock on the wall, for JSON: `2026-11-27T16:02:50`.
fn as_time<S: serde::Serializer>(at: &Option<Wall>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.to_text("%Y-%m-%dT%H:%M:%S")).serialize(serializer)
}

fn as_hour<S: serde::Serializer>(hour: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    Wall(hour.saturating_mul(3600)).to_text("%Y-%m-%dT%H:%M:%S").serialize(serializer)
}
