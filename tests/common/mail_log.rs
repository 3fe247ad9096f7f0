//! A made-up log of a Postfix over two months, with an attack of backscatter, a time as a reflector, and a harvest. What a
//! report has to find in it is known.

use std::io::{self, Write};

/// The first second: 20 November 2026. New Year is within the log.
const BEGIN: i64 = 1_795_132_800;
pub const DAYS: i64 = 60;
/// The hours of the attack.
const ATTACK: std::ops::Range<i64> = 600..660;
const HARVEST_HOUR: i64 = 1000;

/// What is in a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content {
    pub lines: u64,
    /// Messages accepted and recipients refused.
    pub mail_in: u64,
    pub null_sender: u64,
    pub refused_unknown: u64,
    /// Null-sender mail for `sales@our.example` that was refused.
    pub forged_as_sales: u64,
    pub unknown_names: u64,
    pub bounces: u64,
    pub undeliverable: u64,
    pub bounce_domains: u64,
    pub harvested: u64,
}

struct Log<'a> {
    out: &'a mut dyn Write,
    at: i64,
    id: u64,
    content: Content,
}

/// Writes a log with so many ordinary messages an hour.
pub fn write(out: &mut dyn Write, messages_an_hour: u64) -> io::Result<Content> {
    let mut log = Log { out, at: BEGIN, id: 0, content: Content::default() };
    for hour in 0..DAYS * 24 {
        log.at = BEGIN + hour * 3600;
        let step = (3600 / messages_an_hour.max(1)).max(1);
        for n in 0..messages_an_hour {
            log.at = BEGIN + hour * 3600 + i64::try_from(n * step).unwrap().min(3599);
            log.message(&format!("bob{}@else{}.example", n % 97, n % 31))?;
            // A few have no sender, as everywhere.
            if n % 50 == 7 {
                log.message("")?;
            }
        }
        log.at = BEGIN + hour * 3600 + 3599;
        if ATTACK.contains(&hour) {
            for n in 0..200 {
                match n % 10 {
                    0 => log.message("")?,
                    1 => log.unknown("", &format!("name{hour}-{n}"), n)?,
                    2 => log.unknown("", "info", n)?,
                    _ => log.unknown("", "sales", n)?,
                }
            }
        }
        if hour % 24 == 12 {
            log.reflected(hour)?;
        }
        if hour == HARVEST_HOUR {
            for n in 0..500 {
                log.unknown("x@spam.example", &format!("try{n}"), 77)?;
                log.content.harvested += 1;
            }
        }
    }
    log.content.unknown_names = 2 + u64::try_from(ATTACK.end - ATTACK.start).unwrap() * 20;
    Ok(log.content)
}

/// The time of the last line, in seconds since 1970.
pub fn end() -> i64 {
    BEGIN + DAYS * 86_400
}

impl Log<'_> {
    fn line(&mut self, program: &str, text: &str) -> io::Result<()> {
        let at = jiff::Timestamp::from_second(self.at).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        self.content.lines += 1;
        writeln!(self.out, "{} mx1 postfix/{program}[{}]: {text}", at.strftime("%b %e %H:%M:%S"), 1000 + self.id % 500)
    }

    fn id(&mut self) -> String {
        self.id += 1;
        format!("4V{:09X}", self.id)
    }

    fn message(&mut self, sender: &str) -> io::Result<()> {
        let (id, n) = (self.id(), self.id % 200);
        self.line("smtpd", &format!("connect from mx{n}.else.example[192.0.2.{n}]"))?;
        self.line("smtpd", &format!("{id}: client=mx{n}.else.example[192.0.2.{n}]"))?;
        self.line("cleanup", &format!("{id}: message-id=<{id}@else.example>"))?;
        self.line("qmgr", &format!("{id}: from=<{sender}>, size=3241, nrcpt=1 (queue active)"))?;
        self.line(
            "virtual",
            &format!(
                "{id}: to=<ann@our.example>, relay=virtual, delay=0.08, delays=0.06/0/0/0.02, dsn=2.0.0, status=sent (delivered to maildir)"
            ),
        )?;
        self.line("qmgr", &format!("{id}: removed"))?;
        self.line(
            "smtpd",
            &format!("disconnect from mx{n}.else.example[192.0.2.{n}] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"),
        )?;
        self.content.mail_in += 1;
        self.content.null_sender += u64::from(sender.is_empty());
        Ok(())
    }

    fn unknown(&mut self, sender: &str, name: &str, network: u64) -> io::Result<()> {
        self.line(
            "smtpd",
            &format!(
                "NOQUEUE: reject: RCPT from mx.isp{network}.example[203.0.{network}.9]: 550 5.1.1 <{name}@our.example>: Recipient address \
                 rejected: User unknown in virtual mailbox table; from=<{sender}> to=<{name}@our.example> proto=ESMTP helo=<mx>"
            ),
        )?;
        let content = &mut self.content;
        content.mail_in += 1;
        if sender.is_empty() {
            content.null_sender += 1;
            content.refused_unknown += 1;
            content.forged_as_sales += u64::from(name == "sales");
        }
        Ok(())
    }

    /// Messages to a user who does not exist at the domain behind this server; every third bounce is refused.
    fn reflected(&mut self, hour: i64) -> io::Result<()> {
        for n in 0..9 {
            let (id, notice) = (self.id(), self.id());
            let victim = format!("victim@v{hour}-{n}.example");
            self.line("smtpd", &format!("{id}: client=unknown[198.51.100.{n}]"))?;
            self.line("qmgr", &format!("{id}: from=<{victim}>, size=3241, nrcpt=1 (queue active)"))?;
            self.line(
                "smtp",
                &format!(
                    "{id}: to=<nobody@branch.example>, relay=10.0.4.7[10.0.4.7]:25, delay=0.3, delays=0.1/0/0.1/0.1, dsn=5.1.1, \
                     status=bounced (host 10.0.4.7[10.0.4.7] said: 550 5.1.1 User unknown (in reply to RCPT TO command))"
                ),
            )?;
            self.line("bounce", &format!("{id}: sender non-delivery notification: {notice}"))?;
            self.line("qmgr", &format!("{notice}: from=<>, size=5200, nrcpt=1 (queue active)"))?;
            self.line("qmgr", &format!("{id}: removed"))?;
            let (dsn, status) = if n % 3 == 0 { ("5.1.1", "bounced (no)") } else { ("2.0.0", "sent (250 ok)") };
            self.line(
                "smtp",
                &format!("{notice}: to=<{victim}>, relay=mx.v.example[192.0.2.250]:25, delay=0.3, delays=0/0/0/0, dsn={dsn}, status={status}"),
            )?;
            self.line("qmgr", &format!("{notice}: removed"))?;
            self.content.mail_in += 1;
            self.content.bounces += 1;
            self.content.bounce_domains += 1;
            self.content.undeliverable += u64::from(n % 3 == 0);
        }
        Ok(())
    }
}
