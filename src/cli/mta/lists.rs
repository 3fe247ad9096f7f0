//! Lists in Postfix's settings: tables, milters, networks, times.

use std::net::IpAddr;

/// The tables in a setting. White space and commas within braces belong to a table.
pub(in crate::cli) fn tables_of(setting: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = setting.split(move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(c, ' ' | ',' | '\t')
    });
    parts.filter(|table| !table.is_empty()).collect()
}

/// A milter in `smtpd_milters` or `non_smtpd_milters`, with the settings that Postfix 3.0 and later take in braces.
pub(in crate::cli) struct MilterEntry<'a> {
    /// Where it listens, as Postfix writes it.
    pub endpoint: &'a str,
    settings: Vec<(&'a str, &'a str)>,
}

impl MilterEntry<'_> {
    /// A setting of its own, such as `default_action`.
    pub(in crate::cli) fn own(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The milters in a setting.
pub(in crate::cli) fn milters(setting: &str) -> Vec<MilterEntry<'_>> {
    let one = |word| {
        let bare: &str = word;
        let inner = bare.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(bare);
        let mut words = inner.split([' ', ',', '\t']).filter(|word| !word.is_empty());
        let endpoint = words.next().unwrap_or_default();
        MilterEntry { endpoint, settings: words.filter_map(|word| word.split_once('=')).collect() }
    };
    tables_of(setting).into_iter().map(one).collect()
}

/// Whether a setting contains a domain as a whole word.
pub(in crate::cli) fn has_domain(setting: &str, domain: &str) -> bool {
    setting
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_')))
        .any(|word| word.eq_ignore_ascii_case(domain))
}

/// The networks and addresses in a list. Entries of other forms, such as tables, are skipped.
pub(in crate::cli) fn networks(list: &str) -> impl Iterator<Item = ipnet::IpNet> {
    list.split([' ', ',', '\t']).filter_map(|word| {
        let bare = word.replace(['[', ']'], "");
        bare.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(Into::into))
    })
}

/// Parses a time such as `5d` or `120h` into whole days, rounded up. Without a unit, it is in days.
pub(in crate::cli) fn days(text: &str) -> Option<u16> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "" | "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    u16::try_from(number.parse::<u64>().ok()?.checked_mul(seconds)?.div_ceil(86_400)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milters_have_settings_of_their_own() {
        let all =
            milters("inet:localhost:8891, {unix:countersign/milter,default_action=tempfail} { inet:a:1, protocol=6 }");
        let named: Vec<(&str, Option<&str>)> = all.iter().map(|it| (it.endpoint, it.own("default_action"))).collect();
        assert_eq!(
            named,
            [("inet:localhost:8891", None), ("unix:countersign/milter", Some("tempfail")), ("inet:a:1", None)]
        );
        assert_eq!(all[2].own("protocol"), Some("6"));
        assert!(milters("").is_empty());
    }

    #[test]
    fn tables_are_told_apart() {
        assert_eq!(
            tables_of("inline:{ {a@b = c}, {d = e} }, hash:/etc/x  static:all"),
            ["inline:{ {a@b = c}, {d = e} }", "hash:/etc/x", "static:all"]
        );
        assert!(tables_of("").is_empty());
    }

    #[test]
    fn times_are_days() {
        for (text, want) in
            [("5d", Some(5)), ("1w", Some(7)), ("25h", Some(2)), ("0", Some(0)), ("x", None), ("", None)]
        {
            assert_eq!(days(text), want, "{text}");
        }
    }

    #[test]
    fn networks_are_read_as_postfix_writes_them() {
        let found: Vec<String> =
            networks("127.0.0.0/8 [::1]/128, 192.0.2.1 hash:/etc/x !10.0.0.1").map(|net| net.to_string()).collect();
        assert_eq!(found, ["127.0.0.0/8", "::1/128", "192.0.2.1/32"]);
    }
}
