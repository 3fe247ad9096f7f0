//! Authentication-Results (RFC 8601): what a mail server has found out about the sender of a message.

use super::address::canonical_domain;

/// Maximum number of results that are read from one header.
const MAX_RESULTS: usize = 50;

/// One Authentication-Results header.
///
/// ```
/// use countersign::envelope::auth_results::AuthResults;
///
/// let value = "mx.our.example; spf=pass smtp.mailfrom=bob@third.example; dkim=none";
/// let results = AuthResults::parse(value);
/// assert_eq!(results.server, "mx.our.example");
/// assert!(results.passes_spf("third.example") && !results.passes_spf("else.example"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthResults {
    /// The server that says so (`authserv-id`).
    pub server: String,
    /// The results, by method.
    results: Vec<AuthResult>,
}

/// The result of one method.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct AuthResult {
    /// In lower case, without its version.
    method: String,
    /// In lower case.
    result: String,
    /// Properties such as `smtp.mailfrom`, in lower case, with their values.
    properties: Vec<(String, String)>,
}

impl AuthResults {
    /// Reads the value of a header, as far as it is well-formed. Folded lines are joined.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        let mut segments = segments(value).into_iter();
        // A version may follow the server.
        let server = segments.next().and_then(|words| words.into_iter().next()).unwrap_or_default();
        let results = segments.filter_map(|words| AuthResult::of(&words)).take(MAX_RESULTS).collect();
        Self { server, results }
    }

    /// Whether this is from a server of this name, in any spelling.
    #[must_use]
    pub fn is_from(&self, server: &str) -> bool {
        !self.server.is_empty() && canonical_domain(&self.server) == canonical_domain(server)
    }

    /// Combines the headers of one server, from the top: its filters may write one each. What the topmost says about a
    /// method counts.
    #[must_use]
    pub fn combined(headers: impl IntoIterator<Item = Self>) -> Self {
        headers.into_iter().fold(Self::default(), |mut all, below| {
            let known = all.results.clone();
            let is_new = |result: &AuthResult| known.iter().all(|it| it.method != result.method);
            all.results.extend(below.results.into_iter().filter(is_new));
            Self { server: below.server, ..all }
        })
    }

    /// Whether SPF (RFC 7208) passed for an envelope sender in this domain. If there are several results, for which a
    /// client may have found a way, all have to pass.
    #[must_use]
    pub fn passes_spf(&self, domain: &str) -> bool {
        let domain = canonical_domain(domain);
        let about = |it: &AuthResult| it.value("smtp.mailfrom").is_some_and(|sender| domain_of(sender) == domain);
        self.spf().any(about) && self.spf().all(|it| it.result == "pass")
    }

    /// Whether SPF says `fail`: the domain of the envelope sender disowns the client.
    #[must_use]
    pub fn fails_spf(&self) -> bool {
        self.spf().any(|it| it.result == "fail")
    }

    /// The results of SPF for the envelope sender, not for the client's name.
    fn spf(&self) -> impl Iterator<Item = &AuthResult> {
        let is_of_name = |it: &AuthResult| it.value("smtp.helo").is_some() && it.value("smtp.mailfrom").is_none();
        self.results.iter().filter(move |it| it.method == "spf" && !is_of_name(it))
    }

    /// Whether a signature of this domain or of a parent domain is valid (DKIM, RFC 6376).
    #[must_use]
    pub fn is_signed_by(&self, domain: &str) -> bool {
        let domain = canonical_domain(domain);
        let mut valid = self.results.iter().filter(|it| it.method == "dkim" && it.result == "pass");
        valid.any(|it| {
            let signer = it.value("header.d").or_else(|| it.value("header.i")).map(domain_of);
            signer.is_some_and(|signer| is_aligned(&domain, &signer))
        })
    }
}

impl AuthResult {
    /// The result in the words of one segment: `method=result`, then `ptype.property=value` and reasons.
    fn of(words: &[String]) -> Option<Self> {
        let (method, result) = words.first()?.split_once('=')?;
        let method = method.split('/').next().unwrap_or_default().to_ascii_lowercase();
        let property = |word: &String| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        let properties = words.iter().skip(1).filter_map(property).collect();
        Some(Self { method, result: result.to_ascii_lowercase(), properties })
    }

    /// The value of a property; `None` also if there are several, which a server does not write.
    fn value(&self, property: &str) -> Option<&str> {
        let mut values = self.properties.iter().filter(|(name, _)| name == property).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    }
}

/// The domain of an address, or of what is a domain already.
fn domain_of(text: &str) -> String {
    let domain = text.rsplit_once('@').map_or(text, |(_, domain)| domain);
    canonical_domain(domain).into_owned()
}

/// Whether a signature of `signer` speaks for `domain`: it is the domain itself, or a parent that is more than one
/// label.
fn is_aligned(domain: &str, signer: &str) -> bool {
    domain == signer || (signer.contains('.') && domain.strip_suffix(signer).is_some_and(|rest| rest.ends_with('.')))
}

/// The words of the segments that semicolons separate, without comments and quotes. `a = b` is one word.
fn segments(value: &str) -> Vec<Vec<String>> {
    let mut segments = vec![Vec::new()];
    let (mut word, mut joins, mut characters) = (String::new(), false, value.chars());
    let end_of_word = |word: &mut String, segments: &mut Vec<Vec<String>>, joins: &mut bool| {
        let Some(segment) = segments.last_mut() else { return };
        if word.is_empty() {
            return;
        }
        let text = std::mem::take(word);
        let begins = text.starts_with(['=', '.']);
        let ends = text.ends_with(['=', '.']);
        match segment.last_mut() {
            Some(last) if *joins || begins => last.push_str(&text),
            _ => segment.push(text),
        }
        *joins = ends;
    };
    while let Some(c) = characters.next() {
        match c {
            '(' => {
                end_of_word(&mut word, &mut segments, &mut joins);
                skip_comment(&mut characters);
            }
            '"' => quoted(&mut characters, &mut word),
            ';' => {
                end_of_word(&mut word, &mut segments, &mut joins);
                joins = false;
                segments.push(Vec::new());
            }
            c if c.is_whitespace() => end_of_word(&mut word, &mut segments, &mut joins),
            c => word.push(c),
        }
    }
    end_of_word(&mut word, &mut segments, &mut joins);
    segments
}

/// Skips a comment, which may have others inside (RFC 5322 section 3.2.2). One without an end hides the rest.
fn skip_comment(characters: &mut core::str::Chars<'_>) {
    let mut depth = 1_u32;
    while let Some(c) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Appends a quoted string. What would separate words or segments elsewhere does not here.
fn quoted(characters: &mut core::str::Chars<'_>, word: &mut String) {
    while let Some(c) = characters.next() {
        match c {
            '"' => return,
            '\\' => word.extend(characters.next()),
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authenticates(results: &AuthResults, domain: &str) -> bool {
        results.passes_spf(domain) || results.is_signed_by(domain)
    }

    #[test]
    fn results_are_read_as_servers_write_them() {
        for value in [
            "mx.our.example; spf=pass smtp.mailfrom=third.example",
            "MX.our.Example; SPF=PASS smtp.mailfrom=bob@Third.Example",
            "mx.our.example 1; spf=pass (sender IP is 192.0.2.1; a=b) smtp.mailfrom=bob@third.example; dkim=none",
            "mx.our.example; spf = pass smtp.mailfrom = third.example",
            "mx.our.example; spf=pass smtp . mailfrom=third.example",
            "mx.our.example (a (nested) comment);\tspf=pass reason=\"ok; dkim=fail\" smtp.mailfrom=\"bob b\"@third.example",
            "mx.our.example; dkim=fail header.d=third.example; dkim=pass header.d=third.example header.s=s1",
            "mx.our.example; dkim=pass (2048-bit key) header.i=@third.example",
            "mx.our.example; dkim/1=pass header.d=third.example",
            "mx.our.example; spf=fail smtp.helo=x; spf=pass smtp.mailfrom=third.example",
        ] {
            let results = AuthResults::parse(value);
            assert!(results.is_from("mx.our.example"), "{results:?}");
            assert!(authenticates(&results, "third.example"), "{results:?}");
            assert!(!authenticates(&results, "else.example"), "{results:?}");
        }
        let signed = AuthResults::parse("mx.our.example; dkim=pass header.d=third.example");
        assert!(signed.is_signed_by("mail.third.example") && !signed.is_signed_by("notthird.example"));
        assert!(!AuthResults::parse("mx; dkim=pass header.d=example").is_signed_by("third.example"));
    }

    #[test]
    fn what_does_not_say_so_proves_nothing() {
        for value in [
            "",
            "mx.our.example",
            "mx.our.example; none",
            "mx.our.example; spf=fail smtp.mailfrom=third.example",
            "mx.our.example; spf=softfail smtp.mailfrom=third.example",
            "mx.our.example; spf=pass smtp.helo=third.example",
            "mx.our.example; spf=pass smtp.mailfrom=third.example.else.example",
            "mx.our.example; spf=pass smtp.mailfrom=third.example@else.example",
            "mx.our.example; spf=pass (smtp.mailfrom=third.example)",
            "mx.our.example; (spf=pass smtp.mailfrom=third.example",
            "mx.our.example; spf=fail (helo=x); spf=pass smtp.mailfrom=third.example ( ) smtp.mailfrom=v@third.example",
            "mx.our.example; spf=fail (helo=x); spf=pass smtp.mailfrom=third.example",
            "mx.our.example; spf=none reason=\"x; spf=pass smtp.mailfrom=third.example\"",
            "mx.our.example; spf=pass smtp.mailfrom=else.example smtp.mailfrom=third.example",
            "mx.our.example; dkim=pass header.d=else.example header.i=@third.example",
            "mx.our.example; dmarc=pass header.from=third.example",
            "mx.our.example; iprev=pass policy.iprev=192.0.2.1",
            "mx.our.example spf=pass smtp.mailfrom=third.example",
        ] {
            assert!(!authenticates(&AuthResults::parse(value), "third.example"), "{value}");
        }
    }

    #[test]
    fn the_topmost_result_of_a_method_counts() {
        let combined = |values: &[&str]| AuthResults::combined(values.iter().map(|value| AuthResults::parse(value)));
        let (pass, fail) = ("mx; spf=pass smtp.mailfrom=third.example", "mx; spf=fail smtp.mailfrom=third.example");
        for (values, passes) in [
            (&[pass][..], true),
            (&["mx; dkim=none", pass][..], true),
            (&[pass, fail][..], true),
            (&[fail, pass][..], false),
            (&["mx; dkim=fail; spf=none", pass][..], false),
            (&[][..], false),
        ] {
            assert_eq!(combined(values).passes_spf("third.example"), passes, "{values:?}");
        }
        let two = "mx; dkim=fail header.d=else.example; dkim=pass header.d=third.example";
        assert!(combined(&[two, pass]).is_signed_by("third.example"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(value in "\\PC{0,200}|[a-z=;.()\"\\\\ @]{0,100}") {
            let _ = authenticates(&AuthResults::parse(&value), "third.example");
        }
    }
}
