//! Bounces that this site sends: `[outbound.ndr]`.

use super::choices::LocatedError;
use super::raw::RawNdr;
use crate::envelope::address::Address;
use crate::envelope::site_policy::{OwnBouncePolicy, OwnBounces};

pub(super) fn build(raw: RawNdr) -> Result<OwnBounces, LocatedError> {
    let policy = raw.policy.unwrap_or_default();
    let copy_to = raw.copy_to.map(|text| {
        let at = text.span().start;
        Address::parse(text.get_ref()).map_err(|error| (Some(at), format!("outbound.ndr.copy_to: {error}")))
    });
    let authserv_id = raw.authserv_id.unwrap_or_default();
    if policy == OwnBouncePolicy::Verified && authserv_id.is_empty() {
        let why = "outbound.ndr.policy is \"verified\", so outbound.ndr.authserv_id is needed: the first word of the \
                   Authentication-Results headers that your server adds, usually its host name";
        return Err((None, why.to_owned()));
    }
    Ok(OwnBounces {
        policy,
        authserv_id,
        results_below_received: raw.results_below_received,
        per_domain_per_hour: raw.per_domain_per_hour,
        per_hour: raw.per_hour,
        strip_content: raw.strip_content,
        copy_to: copy_to.transpose()?,
    })
}
