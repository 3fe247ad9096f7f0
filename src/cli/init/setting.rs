//! A parameter of Postfix that is set, and how that is taken back.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::argv::Argv;
use crate::cli::mta::lists::tables_of;
use crate::cli::mta::tools::{ask, program};

/// A parameter in main.cf, or of one service in master.cf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// The folder of the instance; `None`: the one that Postfix's commands mean by themselves.
    pub place: Option<String>,
    /// The service, as `smtp/inet`; `None`: main.cf.
    pub service: Option<String>,
    pub name: String,
    /// What is set.
    pub value: String,
    /// What it was; `None`: it was not set.
    pub old: Option<String>,
    /// Our entry of a list.
    pub entry: Option<String>,
}

impl Setting {
    fn postconf(&self, option: &str, what: &str) -> Argv {
        let place = self.place.as_deref().map(|place| ["-c", place]);
        Argv::of(["postconf"].into_iter().chain(place.into_iter().flatten()).chain([option, what]))
    }

    fn key(&self) -> String {
        match &self.service {
            Some(service) => format!("{service}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// The command that sets a value.
    fn to(&self, value: &str) -> Argv {
        match &self.service {
            Some(_) => self.postconf("-P", &format!("{}={value}", self.key())),
            None => self.postconf("-e", &format!("{} = {value}", self.name)),
        }
    }

    fn unset(&self) -> Argv {
        self.postconf(if self.service.is_some() { "-PX" } else { "-X" }, &self.key())
    }

    /// The command that sets it.
    pub(super) fn command(&self) -> Argv {
        self.to(&self.value)
    }

    /// Whether another setting can be made by the same command.
    fn is_beside(&self, other: &Self) -> bool {
        self.place == other.place && self.service.is_some() == other.service.is_some()
    }

    /// The command that sets several: Postfix's tools wait until a file that was changed is a second old.
    pub(super) fn together(settings: &[&Self]) -> Option<Argv> {
        let (first, others) = settings.split_first()?;
        if !others.iter().all(|other| first.is_beside(other)) {
            return None;
        }
        let pairs: Vec<String> = settings.iter().map(|it| format!("{}={}", it.key(), it.value)).collect();
        let option = if first.service.is_some() { "-P" } else { "-e" };
        let place = first.place.as_deref().map(|place| ["-c", place]);
        let words = ["postconf"].into_iter().chain(place.into_iter().flatten()).chain([option]);
        Some(Argv::of(words.chain(pairs.iter().map(String::as_str))))
    }

    /// The command that takes it back, if nobody has changed it since.
    pub(super) fn undo(&self) -> Argv {
        self.old.as_ref().map_or_else(|| self.unset(), |old| self.to(old))
    }

    /// What it is now; `None`: it is not set.
    fn now(&self) -> Result<Option<String>> {
        let Some(postconf) = program(&["postconf"]) else { bail!("postconf is not here") };
        let option = if self.service.is_some() { "-P" } else { "-n" };
        let place = self.place.as_deref().map(|place| ["-c", place]);
        let all = ask(&postconf, place.into_iter().flatten().chain([option]))?;
        let value = all.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == self.key()).then(|| value.trim().to_owned())
        });
        Ok(value)
    }

    /// Takes it back; of a list that somebody has changed since, only our entry.
    ///
    /// # Errors
    /// It has another value now, in which there is nothing of ours: it is left as it is.
    pub(super) fn take_back(&self) -> Result<()> {
        let now = self.now()?;
        // A service that is gone has no setting of ours.
        if now == self.old || (now.is_none() && self.service.is_some()) {
            return Ok(());
        }
        if now.as_deref() == Some(self.value.as_str()) {
            return self.undo().run();
        }
        let (Some(now), Some(entry)) = (&now, &self.entry) else {
            bail!("{} was changed since, and is left as it is: {}", self.key(), now.unwrap_or_default());
        };
        let rest = without(now, entry);
        match rest.is_empty() && self.old.is_none() {
            true => self.unset().run(),
            false => self.to(&rest).run(),
        }
    }
}

/// A list as master.cf takes it behind `-o NAME=`: without white space, which would end the value.
pub(super) fn in_master_cf(list: &str) -> String {
    let (mut text, mut is_space) = (String::new(), false);
    for c in list.trim().chars() {
        if c.is_whitespace() {
            is_space = true;
            continue;
        }
        let joins = text.ends_with(['{', ',', '=']) || matches!(c, '}' | ',' | '=');
        if is_space && !joins {
            text.push(',');
        }
        is_space = false;
        text.push(c);
    }
    text
}

/// A list without an entry.
fn without(list: &str, entry: &str) -> String {
    let bare = |text: &str| text.replace([' ', '\t'], "");
    let kept: Vec<&str> = tables_of(list).into_iter().filter(|it| bare(it) != bare(entry)).collect();
    // In master.cf, white space would need another form.
    kept.join(if list.contains(' ') { ", " } else { "," })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_entry_is_taken_out_of_a_list() {
        let entry = "{ unix:countersign/milter, default_action=tempfail }";
        let list = format!("inet:localhost:8891, {entry}, inet:localhost:9");
        assert_eq!(without(&list, entry), "inet:localhost:8891, inet:localhost:9");
        assert_eq!(without("a,{unix:countersign/milter,default_action=tempfail},b", entry), "a,b");
        assert_eq!(without("unix:countersign/milter", "unix:countersign/milter"), "");
        assert_eq!(without("a b", "c"), "a, b");
    }

    #[test]
    fn lists_have_no_white_space_in_master_cf() {
        for (list, want) in [
            ("a, b  c", "a,b,c"),
            (
                "{ inet:a:1, { connect_timeout = 5s }, default_action=accept } ",
                "{inet:a:1,{connect_timeout=5s},default_action=accept}",
            ),
            ("{ inet:a:1 default_action=accept }, b", "{inet:a:1,default_action=accept},b"),
            ("", ""),
        ] {
            assert_eq!(in_master_cf(list), want);
        }
    }

    #[test]
    fn commands_name_instance_and_service() {
        let setting = Setting {
            place: Some("/etc/postfix-in".into()),
            service: Some("smtp/inet".into()),
            name: "smtpd_milters".into(),
            value: "a,b".into(),
            old: None,
            entry: None,
        };
        assert_eq!(setting.command().to_string(), "postconf -c /etc/postfix-in -P smtp/inet/smtpd_milters=a,b");
        assert_eq!(setting.undo().to_string(), "postconf -c /etc/postfix-in -PX smtp/inet/smtpd_milters");
        let other = Setting { name: "content_filter".into(), value: String::new(), ..setting.clone() };
        let both = Setting::together(&[&setting, &other]).unwrap().to_string();
        assert_eq!(both, "postconf -c /etc/postfix-in -P smtp/inet/smtpd_milters=a,b smtp/inet/content_filter=");
        let main = Setting { place: None, service: None, old: Some("x y".into()), ..setting };
        assert_eq!(Setting::together(&[&other, &main]), None);
        assert_eq!(main.command().to_string(), "postconf -e 'smtpd_milters = a,b'");
        assert_eq!(main.undo().to_string(), "postconf -e 'smtpd_milters = x y'");
    }
}
