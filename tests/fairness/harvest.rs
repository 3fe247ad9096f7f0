//! Harvesters: what a stranger can find out about users, and how long the answers take.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Site;
use crate::common::{At, Client, Does, NextHop, Sink};

const UNKNOWN: &str = "550 5.1.1 no such user";
const PUT_OFF: &str = "450 4.7.1 too many unknown recipients from your network, try again later";

/// A site whose next hop knows all users but those that begin with `no`.
fn site(hop: &NextHop, settings: &str) -> Site {
    Site::before(hop.port, &Sink::start(), settings)
}

fn next_hop() -> NextHop {
    NextHop::script().when(At::Rcpt, "<no", Does::Says("550 5.1.1 no such user")).keeps_no_messages().start()
}

/// A client in a transaction.
fn begin(site: &Site, address: &str, sender: &str) -> Client {
    let mut client = site.client(address);
    assert!(client.say(&format!("MAIL FROM:<{sender}>")).starts_with("250"));
    client
}

/// Asks for all of these names in one write, and returns the answers.
fn ask_for(client: &mut Client, names: &[String]) -> Vec<String> {
    let commands: String = names.iter().map(|name| format!("RCPT TO:<{name}@our.example>\r\n")).collect();
    client.write(commands.as_bytes()).unwrap();
    names.iter().map_while(|_| client.read_reply().ok()).collect()
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// Asks for made-up names in several sessions at once. Returns the number of each answer: unknown, put off, other.
fn harvest(site: &Site, network: u8, sessions: u8, each: usize) -> [usize; 3] {
    let answers = std::thread::scope(|scope| {
        let ask = |n: u8| {
            let mut client = begin(site, &format!("203.0.{network}.{n}"), "x@else.example");
            ask_for(&mut client, &names(&format!("nobody{n}-"), each))
        };
        let threads: Vec<_> = (1..=sessions).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    answers.iter().fold([0; 3], |mut count, answer| {
        count[match answer.as_str() {
            UNKNOWN => 0,
            PUT_OFF => 1,
            _ => 2,
        }] += 1;
        count
    })
}

#[test]
fn many_sessions_find_out_no_more_than_one() {
    let (hop, tarpit) = (next_hop(), "limits.tarpit = \"0s\"");
    let site = site(&hop, tarpit);
    let tag = site.sends();
    assert_eq!(harvest(&site, 1, 12, 5), [25, 35, 0]);
    site.daemon.log.wait("the warning", 0, |line| {
        line.contains("client network exceeded unknown_recipients_per_hour") && line.contains("203.0.1.0/24")
    });
    // From then on, known users get the same answer; what tells nothing about users does not.
    let mut client = begin(&site, "203.0.1.99", "bob@else.example");
    for (name, answer) in [("ann", "450"), ("nobody", "450"), ("postmaster", "250"), ("abuse", "250")] {
        assert!(client.say(&format!("RCPT TO:<{name}@our.example>")).starts_with(answer), "{name}");
    }
    assert!(client.say("RCPT TO:<x@third.example>").starts_with("550 5.7.1"));
    // Bounces to mail of this site come through.
    let mut client = begin(&site, "203.0.1.99", "");
    assert!(client.say(&format!("RCPT TO:<{tag}>")).starts_with("250"));
    // So does the mail of other networks.
    let mut client = begin(&site, "203.0.2.1", "bob@else.example");
    assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"));
    assert!(client.say("RCPT TO:<nobody@our.example>").starts_with("550 5.1.1"));
    // What is learned from many networks is the limit times their number.
    let learned: usize = (10..20).map(|network| harvest(&site, network, 4, 20)[0]).sum();
    assert_eq!(learned, 10 * 25);
    // A network that sends much mail may err more often.
    for n in 0..20 {
        let mut client = begin(&site, "203.0.30.1", "bob@else.example");
        for line in ["RCPT TO:<ann@our.example>", "DATA"] {
            assert!(client.say(line).starts_with(['2', '3']), "{n}: {line}");
        }
        assert!(client.say("Subject: x\r\n\r\nx\r\n.").starts_with("250"), "{n}");
    }
    assert_eq!(harvest(&site, 30, 4, 20), [27, 53, 0]);
    let metrics = site.get("/metrics");
    assert!(metrics.contains("countersign_unknown_users_total 303"), "{metrics}");
}

#[test]
fn many_known_users_are_asked_for_at_once() {
    let hop = next_hop();
    let site = site(&hop, "");
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let site = &site;
            scope.spawn(move || {
                let mut client = begin(site, &format!("203.0.1.{n}"), "bob@else.example");
                let answers = ask_for(&mut client, &names("ann", 100));
                assert!(answers.len() == 100 && answers.iter().all(|answer| answer.starts_with("250")), "{answers:?}");
            });
        }
    });
    // 24 that are unknown are still answered, in whatever order.
    let mut client = begin(&site, "203.0.1.9", "bob@else.example");
    let mixed: Vec<String> = names("no", 24).into_iter().zip(names("ann", 24)).flat_map(|(a, b)| [a, b]).collect();
    let answers = ask_for(&mut client, &mixed);
    for (name, answer) in mixed.iter().zip(&answers) {
        assert!(answer.starts_with(if name.starts_with("no") { "550" } else { "250" }), "{name}: {answer}");
    }
}

#[test]
fn a_next_hop_that_is_silent_holds_up_one_network_and_not_for_ever() {
    let hop = NextHop::script().when(At::Rcpt, "<slow", Does::Silent).keeps_no_messages().start();
    let site = site(&hop, "timeouts.next_hop = \"3s\"");
    // All that may be asked at once waits for a next hop that is silent.
    let mut client = begin(&site, "203.0.1.1", "bob@else.example");
    let commands: String = (0..25).map(|n| format!("RCPT TO:<slow{n}@our.example>\r\n")).collect();
    client.write(commands.as_bytes()).unwrap();
    hop.wait_at(At::Rcpt);
    drop(client);
    for network in [2, 1] {
        let mut client = begin(&site, &format!("203.0.{network}.2"), "bob@else.example");
        assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"), "{network}");
    }
}

#[test]
fn clients_that_are_known_are_not_limited() {
    let hop = NextHop::script()
        .when(At::Rcpt, "<no", Does::Says("550 5.1.1 no such user"))
        .when(At::Other, "AUTH", Does::Says("235 2.7.0 welcome"))
        .offers(&["PIPELINING", "AUTH PLAIN"])
        .keeps_no_messages()
        .start();
    let settings = "inbound.trusted_relays = [\"203.0.1.0/24\"]\n[limits]\nrefused_recipients = 0\ntarpit = \"0s\"";
    let site = site(&hop, settings);
    assert_eq!(harvest(&site, 1, 2, 40), [80, 0, 0]);
    let mut client = site.client("203.0.2.1");
    assert!(client.say("AUTH PLAIN AGEAYg==").starts_with("235"));
    assert!(client.say("MAIL FROM:<bob@else.example>").starts_with("250"));
    assert!(ask_for(&mut client, &names("no", 40)).iter().all(|answer| answer == UNKNOWN));
    assert_eq!(harvest(&site, 2, 1, 40)[0], 25, "others of its network are");
}

#[test]
fn a_limited_network_waits_for_its_answers_and_is_let_go() {
    let hop = next_hop();
    let site = site(&hop, "[limits]\nunknown_recipients_per_hour = 1\ntarpit = \"1s\"");
    assert_eq!(harvest(&site, 1, 1, 1), [1, 0, 0]);
    let mut client = begin(&site, "203.0.1.1", "bob@else.example");
    let begun = Instant::now();
    assert_eq!(client.say("RCPT TO:<ann@our.example>"), PUT_OFF);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // Sessions wait side by side.
    let waits = |n: u8| {
        let mut client = begin(&site, &format!("203.0.1.{n}"), "bob@else.example");
        let begun = Instant::now();
        assert_eq!(client.say("RCPT TO:<ann@our.example>"), PUT_OFF);
        begun.elapsed()
    };
    let begun = Instant::now();
    let waited: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=15).map(|n| scope.spawn(move || waits(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(waited.iter().all(|it| *it >= Duration::from_secs(1)), "{waited:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "not one after the other");
}

/// Neither text nor time of 2,000 answers tells known from unknown users, once the limit is reached.
#[test]
fn the_answers_of_a_limited_network_tell_nothing() {
    let hop = next_hop();
    let site = site(&hop, "[limits]\nunknown_recipients_per_hour = 1\ntarpit = \"0s\"");
    assert_eq!(harvest(&site, 1, 1, 1), [1, 0, 0]);
    let (mut texts, mut times) = (BTreeSet::new(), [Vec::new(), Vec::new()]);
    for session in 0..100 {
        let mut client = begin(&site, "203.0.1.1", "bob@else.example");
        for n in 0..20 {
            let is_known = (session + n) % 2;
            let name = if is_known == 1 { "ann" } else { "nob" };
            let begun = Instant::now();
            texts.insert(client.say(&format!("RCPT TO:<{name}@our.example>")));
            times[is_known].push(begun.elapsed());
        }
    }
    assert_eq!(texts.into_iter().collect::<Vec<_>>(), [PUT_OFF]);
    // The chance that an answer about a known user takes longer than one about an unknown user.
    let [unknown, known] = times.map(|mut times| {
        times.sort();
        times
    });
    let below: usize = known.iter().map(|time| unknown.partition_point(|other| other < time)).sum();
    let chance = below as f64 / (known.len() * unknown.len()) as f64;
    // With 1,000 of each, its standard deviation is 0.013.
    assert!((0.43..0.57).contains(&chance), "{chance}");
}

/// Sends a message from each of 200 genuine clients of as many networks. All are accepted. Returns the time that each took.
fn genuine(site: &Site) -> Vec<Duration> {
    let send = |n: usize| {
        let begun = Instant::now();
        let mut client = begin(site, &format!("198.18.{n}.1"), "bob@else.example");
        for line in ["RCPT TO:<ann@our.example>", "DATA"] {
            assert!(client.say(line).starts_with(['2', '3']), "{n}: {line}");
        }
        assert!(client.say("Subject: hello\r\n\r\nx\r\n.").starts_with("250"), "{n}");
        begun.elapsed()
    };
    let mut times = std::thread::scope(|scope| {
        let worker = |first: usize| move || (first..200).step_by(4).map(send).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|first| scope.spawn(worker(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    times.sort();
    times
}

/// Sessions of 20 recipients each, `sessions` of them from each of four threads, while 200 genuine clients send mail. Returns
/// how many names were answered as unknown, and the times of the genuine clients.
fn beside(
    site: &Site,
    sessions: Range<usize>,
    client: impl Fn(usize) -> String + Sync,
    name: &str,
) -> (usize, Vec<Duration>) {
    let ask = |n: usize| {
        let mut client = begin(site, &client(n), "x@else.example");
        let answers = ask_for(&mut client, &names(&format!("{name}{n}-"), 20));
        assert_eq!(answers.len(), 20);
        answers.iter().filter(|answer| *answer == UNKNOWN).count()
    };
    std::thread::scope(|scope| {
        let worker = |worker: usize| {
            let (sessions, ask) = (sessions.clone(), &ask);
            move || {
                // They have machines of their own; here, they must not take the processors from the genuine clients.
                rustix::process::setpriority_process(None, 19).unwrap();
                sessions.skip(worker).step_by(4).map(ask).sum::<usize>()
            }
        };
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(worker(n))).collect();
        let times = genuine(site);
        (threads.into_iter().map(|thread| thread.join().unwrap()).sum(), times)
    })
}

/// `COUNTERSIGN_HARVEST` sets the number of names; `scripts/harvest` asks for 100,000. The genuine mail beside it is
/// compared with genuine mail beside as many sessions that ask for users who exist, which no rule holds back.
#[test]
fn a_large_harvest_learns_no_more_than_the_limit() {
    let names = std::env::var("COUNTERSIGN_HARVEST").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    let rounds = if names < 50_000 { 1 } else { 10 };
    let hop = next_hop();
    let site = site(&hop, "[limits]\ntarpit = \"0s\"\nconnections_per_client = 0");
    let _ = genuine(&site);
    for (networks, first) in [(1, 0), (50, 100)] {
        let (mut learned, mut medians) = (0, [Vec::new(), Vec::new(), Vec::new()]);
        let each = names / 20 / rounds;
        for round in 0..rounds {
            let sessions = round * each..(round + 1) * each;
            let harmless = |n: usize| format!("198.51.{}.{}", n % 200, n % 250 + 1);
            let stranger = |n: usize| format!("203.0.{}.{}", first + n % networks, n % 250 + 1);
            let (refused, harmless) = beside(&site, sessions.clone(), harmless, "ann");
            assert_eq!(refused, 0);
            let (unknown, harvest) = beside(&site, sessions, stranger, "no");
            learned += unknown;
            for (all, times) in medians.iter_mut().zip([genuine(&site), harmless, harvest]) {
                all.push(times[100].as_secs_f64() * 1e3);
            }
        }
        assert_eq!(learned, 25 * networks, "{names} names from {networks} networks");
        let [alone, harmless, harvest] = medians.map(|mut medians| {
            medians.sort_by(f64::total_cmp);
            medians[medians.len() / 2]
        });
        eprintln!(
            "{names} names from {networks} networks: {learned} learned; genuine mail takes {harvest:.2} ms, {:.2} times as \
             long as beside harmless sessions ({harmless:.2} ms), {:.2} times as long as alone ({alone:.2} ms)",
            harvest / harmless,
            harvest / alone
        );
    }
}
