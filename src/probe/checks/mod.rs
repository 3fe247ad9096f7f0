//! The checks: each sends its part of the dialogue, and says what the replies mean.

mod content;
mod harvest;
mod other_hosts;
mod relaying;
mod smuggling;
mod tags;
mod trust;
mod unknown_users;

use super::run::Check;

/// All checks, in the order in which they are made. What a server limits by client comes last, so that nothing else meets
/// the limit.
pub(super) const ALL: &[Check] = &[
    unknown_users::RECIPIENTS,
    unknown_users::QUERIES,
    tags::BAD,
    tags::GOOD,
    content::BOUNCES,
    content::WANTED,
    relaying::FORMS,
    relaying::SRS,
    smuggling::LINE_ENDS,
    smuggling::STARTTLS,
    trust::CLAIMS,
    trust::PROXY,
    other_hosts::HOSTS,
    harvest::HARVEST,
];
