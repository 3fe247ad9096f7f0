//! The pure core: addresses, tags, keys, and every rule. No I/O, no clock, no globals; time and randomness are
//! arguments.

pub mod abuse;
pub mod address;
pub mod auth_results;
pub mod bounce;
pub mod evidence;
pub mod keyring;
pub mod match_lists;
pub(crate) mod printable;
pub mod ramp_record;
pub mod recipient_list;
pub mod rules;
pub mod site_policy;
pub mod tag;
pub mod time;
pub(crate) mod top;
