//! How fast Postfix takes mail during a flood.

use crate::cli::check::mta::finding::Finding;
use crate::cli::mta::postfix::Postfix;

/// Warns if Postfix takes refused bounces for mail that it cannot deliver fast enough.
pub(super) fn flow_delay(postfix: &Postfix) -> Option<Finding> {
    let delay = postfix.get("in_flow_delay");
    (delay != "0" && delay != "0s").then(|| {
        Finding::Careful(format!(
            "in_flow_delay = {delay} delays all mail during a flood, because refused bounces count as mail that is not delivered: in_flow_delay = 0"
        ))
    })
}
