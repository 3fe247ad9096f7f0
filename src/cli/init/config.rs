//! The config for a mail server, from a recipe and from what the mail server says about the site.

use super::server::Server;
use crate::cli::mta::WIDEST;

/// A config in which the recipe's example is replaced by what is known of the server.
pub(super) struct Draft<'a> {
    pub server: &'a Server,
    /// Domains that were named on the command line.
    pub named: &'a [String],
    /// Where the facts come from, in words.
    pub from: &'a str,
}

impl Draft<'_> {
    /// All local domains, those of the command line first.
    pub(super) fn domains(&self) -> Vec<String> {
        let mut all: Vec<String> = self.named.to_vec();
        let found = self.server.local.iter().map(|(name, _)| name.clone());
        all.extend(found.filter(|name| !self.named.iter().any(|known| known.eq_ignore_ascii_case(name))));
        all
    }

    /// The config's text. `recipe` has the domain `our.example`, and no folder or group of another server.
    pub(super) fn text(&self, recipe: &str) -> String {
        let mut head = format!("# Written from {}. All settings: docs/config.md.\n", self.from);
        head += &self.local();
        head += &self.relay();
        head += &self.lifetimes();
        let recipe = recipe.replace("127.0.0.1:9025", &format!("127.0.0.1:{}", self.server.free_port(9025)));
        let rest: String =
            recipe.lines().filter(|line| !line.starts_with("domains.local")).map(|it| format!("{it}\n")).collect();
        let mut text = head + &rest;
        if let Some(at) = text.find("role = \"auto\"\n") {
            text.insert_str(at + "role = \"auto\"\n".len(), &self.clients());
        }
        text
    }

    fn local(&self) -> String {
        let entry = |name: &String| {
            let source = self.server.local.iter().find(|(known, _)| known == name).map(|(_, source)| source.as_str());
            let quoted = format!("\"{name}\",");
            format!("  {quoted:<38} # {}\n", source.unwrap_or("named by you"))
        };
        let entries: String = self.domains().iter().map(entry).collect();
        format!("domains.local = [\n{entries}]\n")
    }

    fn relay(&self) -> String {
        let is_local = |name: &&String| self.domains().iter().any(|known| known.eq_ignore_ascii_case(name));
        let relay: Vec<String> =
            self.server.relay.iter().filter(|name| !is_local(name)).map(|it| format!("\"{it}\"")).collect();
        if relay.is_empty() {
            return String::new();
        }
        format!(
            "# TODO: mail of these domains is taken, and their senders are not signed. Move those to domains.local whose mail leaves only\n\
             # through hosts that sign.\ndomains.relay = [{}]\n",
            relay.join(", ")
        )
    }

    fn lifetimes(&self) -> String {
        let days = self.server.queue_days;
        let mut text = String::new();
        // A server behind this one may keep mail for the usual five days, even if this one does not.
        if days > 5 {
            text += &format!("batv.queue_lifetime = {days}                 # as long as mail may wait in the queue\n");
        }
        // A tag has to outlive the queue by two days.
        for (name, default) in [("batv", 7), ("srs", 21)] {
            if days + 2 > default {
                text += &format!("{name}.lifetime = {}\n", days + 2);
            }
        }
        text
    }

    /// The networks whose mail leaves through the milter.
    fn clients(&self) -> String {
        let is_wide = |net: &&ipnet::IpNet| net.prefix_len() < if net.addr().is_ipv4() { WIDEST.0 } else { WIDEST.1 };
        let (wide, good): (Vec<&ipnet::IpNet>, Vec<&ipnet::IpNet>) = self.server.networks.iter().partition(is_wide);
        let good: Vec<String> = good.iter().map(|net| format!("\"{net}\"")).collect();
        let mut text = format!("outbound_clients = [{}]   # mail of these leaves, and is signed\n", good.join(", "));
        let left: Vec<String> =
            wide.iter().map(ToString::to_string).chain(self.server.other_networks.iter().cloned()).collect();
        if !left.is_empty() {
            text += &format!(
                "# TODO: Postfix takes mail of these for yours, too. Add to outbound_clients what is: {}\n",
                left.join(", ")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(feature = "milter")]
    fn a_config_holds_what_the_server_says() {
        use std::path::Path;

        use super::*;
        use crate::config::Config;
        use crate::recipes::Mta;

        let mut server = Server { queue_days: 7, ..Server::default() };
        for (name, source) in
            [("Our.Example", "mydestination"), ("localhost.our.example", "mydestination"), ("b.example", "x")]
        {
            server.add_local(name, source);
        }
        server.relay = vec!["branch.example".into(), "b.example".into()];
        server.networks =
            vec!["127.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap(), "0.0.0.0/1".parse().unwrap()];
        server.other_networks = vec!["cidr:/etc/nets".into()];
        let named = ["c.example".to_owned()];
        let draft = Draft { server: &server, named: &named, from: "/etc/postfix" };
        let recipe = Mta::Postfix.recipe("milter", true);
        let text = draft.text(&recipe.iter().find(|piece| piece.file == "countersign.toml").unwrap().text);
        let config = Config::parse(Path::new("/etc/countersign/countersign.toml"), &text)
            .unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(
            config.policy.domains.local.names(),
            ["our.example", "b.example", "c.example"]
                .map(str::to_owned)
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert!(
            config.policy.domains.relay.contains("branch.example")
                && !config.policy.domains.relay.contains("b.example")
        );
        assert_eq!(
            (config.policy.inbound.queue_lifetime, config.policy.batv.lifetime, config.policy.srs.lifetime),
            (7, 9, 21)
        );
        let clients = &config.mta_services[0].outbound_clients;
        assert!(clients.contains([10, 1, 2, 3].into()) && !clients.contains([9, 9, 9, 9].into()));
        assert!(
            text.contains(
                "# TODO: Postfix takes mail of these for yours, too. Add to outbound_clients what is: 0.0.0.0/1, cidr:/etc/nets"
            ),
            "{text}"
        );
        assert!(text.contains("\"our.example\",                         # mydestination"), "{text}");
    }
}
