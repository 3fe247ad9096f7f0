//! Queries of all front ends to the rules, with the current keys and clock. Each decision is logged and counted.
//!
//! What the rules cannot see, the alias of a long sender, is stored or looked up first: a front end begins with
//! [`Evaluator::prepare_sender`] or [`Evaluator::prepare_recipient`], waits if it is told to, and then asks.

mod alarms;
mod alias;
mod evaluator;
mod log;
mod questions;
mod recipient;

pub(super) use self::evaluator::Evaluator;
pub(super) use self::log::shown;
