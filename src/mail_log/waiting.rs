//! Messages that wait in the queue of a server, as `postqueue -j` and `exim -bp` list them.

use serde::{Deserialize, Serialize};

use crate::envelope::printable::printable;
use crate::envelope::top::Top;

/// Domains that are told apart.
const MAX_DOMAINS: usize = 10_000;
/// How many domains are listed.
const LISTED: usize = 5;

/// The queue of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    pub messages: u64,
    /// Of those, bounces: they have the null sender.
    pub bounces: u64,
    /// The size of the bounces, in octets.
    pub octets: u64,
    /// The age of the oldest bounce, in seconds.
    pub oldest: i64,
    /// The domains to which most bounces go.
    pub domains: Vec<(String, u64)>,
    /// The names of the bounces in the queue.
    #[serde(skip)]
    pub ids: Vec<String>,
    #[serde(skip)]
    by_domain: Top<MAX_DOMAINS>,
}

impl Waiting {
    /// Adds what `postqueue -j` prints: one object a line.
    ///
    /// # Errors
    /// A line is not such an object.
    pub(crate) fn add_postfix(&mut self, text: &str, now: i64) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Recipient {
            address: String,
        }
        #[derive(Deserialize)]
        struct Message {
            queue_id: String,
            arrival_time: i64,
            message_size: u64,
            sender: String,
            #[serde(default)]
            recipients: Vec<Recipient>,
        }
        for line in text.lines().filter(|line| !line.is_empty()) {
            let message: Message = serde_json::from_str(line)?;
            self.messages += 1;
            // Postfix shows the null sender by this name, or as the empty text.
            if message.sender == "MAILER-DAEMON" || message.sender.is_empty() {
                let to = message.recipients.iter().map(|recipient| recipient.address.as_str());
                self.bounce(&message.queue_id, message.message_size, now - message.arrival_time, to);
            }
        }
        Ok(())
    }

    /// Adds what `exim -bp` prints: `25m  2.9K 0t5C6f-0000c8-00 <sender>`, and recipients on the lines below.
    pub(crate) fn add_exim(&mut self, text: &str) {
        let mut bounce: Option<(String, u64, i64, Vec<String>)> = None;
        let end = |bounce: &mut Option<(String, u64, i64, Vec<String>)>, waiting: &mut Self| {
            if let Some((id, size, age, to)) = bounce.take() {
                waiting.bounce(&id, size, age, to.iter().map(String::as_str));
            }
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Recipients stand further to the right, and may contain anything.
            let is_message = line.len() - line.trim_start().len() < 4;
            match words.as_slice() {
                [age, size, id, sender, ..] if is_message && super::exim::is_message_id(id.as_bytes()) => {
                    end(&mut bounce, self);
                    self.messages += 1;
                    bounce = (*sender == "<>")
                        .then(|| ((*id).to_owned(), with_unit(size, 1024), age_of(age).unwrap_or(0), Vec::new()));
                }
                // Those that have it are marked with D.
                [recipient] => bounce.iter_mut().for_each(|(.., to)| to.push((*recipient).to_owned())),
                _ => {}
            }
        }
        end(&mut bounce, self);
    }

    fn bounce<'a>(&mut self, id: &str, octets: u64, age: i64, to: impl Iterator<Item = &'a str>) {
        self.bounces += 1;
        self.octets = self.octets.saturating_add(octets);
        self.oldest = self.oldest.max(age);
        self.ids.push(id.to_owned());
        for address in to {
            let domain = address.rsplit_once('@').map_or(address, |(_, domain)| domain);
            self.by_domain.count_text(&printable(&domain.to_ascii_lowercase()), 1);
        }
        self.domains = self.by_domain.first(LISTED);
    }
}

/// A size such as `2.9K`.
fn with_unit(text: &str, unit: u64) -> u64 {
    let (number, factor) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "K")) => (number, unit),
        Some((number, "M")) => (number, unit * unit),
        Some((number, "G")) => (number, unit * unit * unit),
        _ => (text, 1),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| text.parse::<u64>().unwrap_or(0);
    let tenths = part.get(..1).map_or(0, digits);
    digits(whole).saturating_mul(factor).saturating_add(tenths * factor / 10)
}

/// An age such as `25m`, `3h` or `4d`, in seconds.
fn age_of(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_of_postfix() {
        let text = "{\"queue_name\": \"deferred\", \"queue_id\": \"4Vx1\", \"arrival_time\": 1000, \"message_size\": 2000, \"sender\": \
            \"MAILER-DAEMON\", \"recipients\": [{\"address\": \"x@QQ.example\", \"delay_reason\": \"no\"}]}\n\
            {\"queue_name\": \"active\", \"queue_id\": \"4Vx2\", \"arrival_time\": 1500, \"message_size\": 10, \"sender\": \"a@b\", \
            \"recipients\": []}\n";
        let mut waiting = Waiting::default();
        waiting.add_postfix(text, 5000).unwrap();
        assert_eq!((waiting.messages, waiting.bounces, waiting.octets, waiting.oldest), (2, 1, 2000, 4000));
        assert_eq!((waiting.domains, waiting.ids), (vec![("qq.example".to_owned(), 1)], vec!["4Vx1".to_owned()]));
        assert!(Waiting::default().add_postfix("no", 0).is_err());
    }

    #[test]
    fn the_queue_of_exim() {
        let text = "25m  2.9K 1xWyMB-0006pn-1V <>\n          x@qq.example\n        D y@qq.example\n\n \
            4d   300 1xWyMC-0006pn-1V <a@b>\n          c@d\n\n 3h   1.5M 1xWyMD-0006pn-1V <> *** frozen ***\n          z@else.example\n";
        let mut waiting = Waiting::default();
        waiting.add_exim(text);
        assert_eq!((waiting.messages, waiting.bounces, waiting.oldest), (3, 2, 10_800));
        assert_eq!(waiting.octets, 2 * 1024 + 921 + 1_572_864);
        assert_eq!(waiting.domains, [("else.example".to_owned(), 1), ("qq.example".to_owned(), 1)]);
    }
}
