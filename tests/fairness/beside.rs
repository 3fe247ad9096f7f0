//! For each limit, a continuous attack reaches it, and a genuine client of another network takes at most twice as long
//! as without the attack.

use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::{INBOUND, MAP, Site, with_processes};
use crate::common::map::Map;
use crate::common::{Client, PATIENCE, PROGRAM, Sink, dsn, pace, poll_for, tcp};

/// The number of measurements with and without the attack, in turns, and the number of mails in each.
const TURNS: usize = 25;
const MAILS: usize = 4;

/// Other load on the machine may disturb one comparison. An unfair server fails all of them.
const TRIES: usize = 3;

/// A continuous attack, until its end is announced. It pauses while the genuine client is measured alone.
struct Attack<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    over: Arc<AtomicBool>,
    goes_on: Arc<RwLock<()>>,
}

impl<'scope> Attack<'scope, '_> {
    /// Repeats an action in a separate thread, with a pause between.
    fn repeats(&self, pause: Duration, mut each: impl FnMut() + Send + 'scope) {
        let (over, goes_on) = (Arc::clone(&self.over), Arc::clone(&self.goes_on));
        self.scope.spawn(move || {
            // An attacker has a machine of its own; here, it must not take the processors from the genuine client.
            rustix::process::setpriority_process(None, 19).unwrap();
            while !over.load(Ordering::Relaxed) {
                let turn = goes_on.read();
                each();
                drop(turn);
                pace(pause);
            }
        });
    }
}

/// Ends the attack, even if an assertion fails.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn times(mail: impl Fn()) -> impl Iterator<Item = Duration> {
    (0..MAILS).map(move |_| {
        let started = Instant::now();
        mail();
        started.elapsed()
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Compares the genuine client of a site under attack with the client of its twin, which is not attacked. The
/// measurements alternate, so that other load on the machine delays both. What the attack has allocated is kept until
/// the end.
fn holds_under<'env, Held>(
    what: &str,
    [site, twin]: &[Site; 2],
    genuine: impl Fn(&Site),
    attack: impl for<'scope> FnOnce(&Attack<'scope, 'env>) -> Held,
) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    genuine(site);
    genuine(twin);
    let (held, ratio) = std::thread::scope(|scope| {
        let (over, goes_on) = (Over(Arc::default()), Arc::default());
        let held = attack(&Attack { scope, over: Arc::clone(&over.0), goes_on: Arc::clone(&goes_on) });
        let mut ratio = f64::INFINITY;
        for _ in 0..TRIES {
            let (mut alone, mut beside) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                let rest = goes_on.write();
                alone.extend(times(|| genuine(twin)));
                drop(rest);
                beside.extend(times(|| genuine(site)));
            }
            let (alone, beside) = (median(alone), median(beside));
            ratio = beside.as_secs_f64() / alone.as_secs_f64();
            eprintln!("{what}: {beside:?} beside it, {alone:?} alone: {ratio:.2} times");
            if ratio <= 2.0 {
                break;
            }
        }
        (held, ratio)
    });
    drop(held);
    assert!(ratio <= 2.0, "{what}: {ratio:.2} times as long beside it, {TRIES} times in a row");
}

/// The scale of attacks on the CPU. Each step takes several times as long in a debug build as in a release build.
const HEAVY: usize = if cfg!(debug_assertions) { 2 } else { 4 };

/// A site to attack, and its twin. If permitted, this thread and its children get priority over other processes on the
/// machine.
fn twins(start: impl Fn() -> Site) -> [Site; 2] {
    let _ = rustix::process::setpriority_process(None, -10);
    [start(), start()]
}

const BRIEFLY: Duration = Duration::from_millis(1);

/// A client of one network that reconnects as soon as it is refused.
fn knocks(site: &Site, address: &str) {
    let _ = site.come_from(address).read_reply();
}

#[test]
fn cpu_by_dot_lines_in_chunks() {
    let sites = twins(|| Site::start(""));
    let site = &sites[0];
    let lines = ".\r\n".repeat((2 * HEAVY) << 10);
    let chunk = format!("BDAT {}\r\n{lines}", lines.len());
    let chunk = chunk.as_bytes();
    holds_under("sessions with chunks of dot lines", &sites, Site::genuine, |attack| {
        for n in 0..HEAVY {
            let begin = move || {
                let mut client = site.client(&format!("203.0.{n}.9"));
                client.say("MAIL FROM:<b@else.example>");
                client.say("RCPT TO:<ann@our.example>");
                client.say("BDAT 8\r\nA: b\r\n");
                client
            };
            let mut client = begin();
            attack.repeats(Duration::ZERO, move || {
                client.write(chunk).unwrap();
                if !client.read_reply().unwrap().starts_with("250") {
                    client = begin();
                }
            });
        }
    });
}

#[test]
fn cpu_by_questions_of_a_map() {
    let sites = twins(|| Site::start(""));
    let site = &sites[0];
    let questions = (100..150).map(|n| format!("verify prvs=1786a1b{n}=ann@our.example"));
    let questions: String = questions.map(|question| format!("{}:{question},", question.len())).collect();
    let questions = questions.as_bytes();
    holds_under("questions without end", &sites, Site::genuine, |attack| {
        for _ in 0..HEAVY {
            let mut map = Map::connect(site.daemon.ports[MAP]);
            attack.repeats(Duration::ZERO, move || {
                map.write(questions).unwrap();
                (0..50).for_each(|_| drop(map.answer().unwrap()));
            });
        }
    });
}

#[test]
fn sessions_of_one_network() {
    let sites = twins(|| Site::start(""));
    let site = &sites[0];
    holds_under("a network that has its twenty sessions and wants more", &sites, Site::genuine, |attack| {
        let held: Vec<Client> = (0..20).map(|n| site.client(&format!("203.0.113.{n}"))).collect();
        attack.repeats(BRIEFLY, || knocks(site, "203.0.113.77"));
        held
    });
}

#[test]
fn next_hops_by_one_network() {
    // The number of processes that Postfix has. A network in a transaction keeps its own.
    let sites = twins(|| Site::before(with_processes(100), &Sink::start(), ""));
    let site = &sites[0];
    holds_under("a network that keeps its next hops", &sites, Site::genuine, |attack| {
        let held: Vec<Client> = (0..20).map(|n| site.client(&format!("203.0.113.{n}"))).collect();
        let held = held.into_iter().map(|mut client| {
            client.say("MAIL FROM:<bob@else.example>");
            client
        });
        let held: Vec<Client> = held.collect();
        attack.repeats(BRIEFLY, || knocks(site, "203.0.113.77"));
        held
    });
}

#[test]
fn descriptors_of_a_full_port_25() {
    let enough = 2 * 20 + 2 * 20 + 20 + 20 + 4 * 50 + 64;
    let limited = format!("ulimit -n {enough}; exec \"$0\" \"$@\"");
    let sites = twins(|| {
        let mut command = Command::new("bash");
        command.args(["-c", &limited, PROGRAM]);
        let sink = Sink::start();
        Site::by(command, sink.port, &sink, "limits.connections = 20")
    });
    let site = &sites[0];

    // Twenty networks can fill port 25 for others, but not the listeners for outbound mail and queries.
    let genuine = |site: &Site| {
        site.sends();
        assert!(Map::connect(site.daemon.ports[MAP]).ask("sign", "ann@our.example").starts_with("OK prvs="));
        assert_eq!(site.ready(), "200");
    };
    holds_under("more strangers than there are descriptors for", &sites, genuine, |attack| {
        let held: Vec<TcpStream> = (0..400).map(|_| tcp(site.daemon.ports[INBOUND]).unwrap()).collect();
        attack.repeats(BRIEFLY, || drop(tcp(site.daemon.ports[INBOUND])));
        held
    });
}

pub const AWAY: &str = "Subject: away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away";

/// Begins a message to be inspected, and sends no more of it.
pub fn begins(site: &Site, address: &str) -> Option<Client> {
    let mut client = site.client(address);
    client.say("MAIL FROM:<>");
    client.say("RCPT TO:<ann@our.example>");
    client.say("DATA").starts_with("354").then_some(client)
}

#[test]
fn room_for_held_messages_by_one_network() {
    let sites = twins(|| Site::start("inbound.hold = \"32 KiB\"\nlimits.held = \"128 KiB\""));
    let site = &sites[0];
    let genuine = |site: &Site| {
        site.sends();
        site.receives("", "ann@our.example", AWAY);
    };
    holds_under("a network that holds its quarter", &sites, genuine, |attack| {
        let held: Vec<Client> = (0..4).map_while(|n| begins(site, &format!("203.0.113.{n}"))).collect();
        assert_eq!(held.len(), 4);
        attack.repeats(BRIEFLY, || assert!(begins(site, "203.0.113.77").is_none()));
        held
    });
}

#[test]
fn room_for_held_messages_by_many_networks() {
    let sites = twins(|| Site::start("inbound.hold = \"32 KiB\"\nlimits.held = \"128 KiB\""));
    let site = &sites[0];
    let genuine = |site: &Site| {
        site.sends();
        site.receives("", "ann@our.example", AWAY);
    };
    holds_under("slow messages of many networks", &sites, genuine, |_| {
        let held: Vec<Client> = (0..16).map_while(|n| begins(site, &format!("203.0.{n}.9"))).collect();
        assert_eq!(held.len(), 16);
        // As long as these messages may still be arriving, they keep all the memory.
        let full = || site.client("198.51.100.8").send("", "ann@our.example", AWAY).unwrap();
        assert!(full().starts_with("451 4.3.1 "));
        poll_for("the end of their grace", || full().starts_with("250").then_some(()));
        held
    });
}

#[test]
fn log_lines() {
    const SOME: usize = 31;
    let sites = twins(|| Site::start(""));
    let site = &sites[0];
    let ((ask, asked), begun) = (mpsc::channel(), Instant::now());
    holds_under("what makes log lines", &sites, Site::genuine, |attack| {
        let held: Vec<Client> = (0..20).map(|n| site.client(&format!("203.0.113.{n}"))).collect();
        let repeats = |each: fn(&Site)| {
            let ask = ask.clone();
            attack.repeats(BRIEFLY, move || {
                each(site);
                let _ = ask.send(());
            });
        };
        repeats(|site| knocks(site, "203.0.113.77"));
        repeats(|site| drop(site.client("203.0.114.1").try_say("POST / HTTP/1.1")));
        repeats(|site| drop(site.come_from("203.0.114.2").try_say("EHLO early.example")));
        // A trusted proxy without its header.
        repeats(|site| drop(Client::over(tcp(site.daemon.ports[INBOUND]).unwrap()).try_say("EHLO direct.example")));
        (0..SOME).for_each(|n| asked.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("only {n} attempts")));
        held
    });
    let (asked, seconds) = (SOME + asked.try_iter().count(), begun.elapsed().as_secs() as usize);
    let lines = site.daemon.log.all();
    let lines: Vec<&String> = lines.iter().filter(|line| line.contains("\"left_out\"")).collect();
    let others = site.daemon.log.all().iter().filter(|line| line.contains("203.0.11") && !lines.contains(line)).count();
    assert!(lines.len() <= 4 * (seconds + 2) && others == 0, "{asked} attempts in {seconds} s: {others} {lines:?}");
}

/// A tag for today that was not made by any key.
fn guessed(tagged: &str) -> String {
    let (tag, address) = tagged.rsplit_once('=').unwrap();
    let last = if tag.ends_with('0') { '1' } else { '0' };
    format!("{}{last}={address}", &tag[..tag.len() - 1])
}

#[test]
fn guesses_at_one_recipient() {
    let sites = twins(|| Site::start(""));
    let site = &sites[0];
    let tagged = site.sends();
    let guessed = &guessed(&tagged);
    let genuine = |site: &Site| {
        let tagged = site.sends();
        site.receives("", &tagged, &dsn("failed"));
    };
    holds_under("a network that guesses", &sites, genuine, |attack| {
        let guesses = move || {
            let mut client = site.client("203.0.113.9");
            client.say("MAIL FROM:<>");
            (0..40).map(|_| client.say(&format!("RCPT TO:<{guessed}>"))).collect::<Vec<_>>()
        };
        // The replies to guesses before and after the allowance is used up.
        assert!(guesses().iter().all(|reply| reply.starts_with("550")));
        assert!(guesses().last().unwrap().starts_with("250"), "it may have evidence");
        attack.repeats(BRIEFLY, move || drop(guesses()));
    });
}

#[test]
fn accounts_of_guesses() {
    let sites = twins(|| Site::start(""));
    let site = &sites[0];
    let tagged = site.sends();
    let guessed = &guessed(&tagged);
    let genuine = |site: &Site| {
        let tagged = site.sends();
        site.receives("", &tagged, &dsn("failed"));
    };
    holds_under("so many accounts of guesses that some are forgotten", &sites, genuine, |attack| {
        // Each network guesses at as many recipients as it may: more accounts than are kept.
        let mut session = 0;
        let mut guesses = move || {
            let network = format!("100.64.{}.9", session / 30 % 256);
            let mut client = site.client(&network);
            let names = (0..20).map(|n| format!("x{}@", session % 30 * 20 + n));
            let commands: String =
                names.map(|name| format!("RCPT TO:<{}>\r\n", guessed.replace("ann@", &name))).collect();
            client.write(format!("MAIL FROM:<>\r\n{commands}").as_bytes()).unwrap();
            for n in 0..=20 {
                let reply = client.read_reply().unwrap();
                assert!(reply.starts_with(if n == 0 { "250" } else { "550" }), "{network}: {reply}");
            }
            session += 1;
        };
        (0..2050).for_each(|_| guesses());
        attack.repeats(BRIEFLY, guesses);
    });
}

#[test]
fn names_of_harvesters() {
    let sites = twins(|| Site::start("limits.tarpit = \"0s\""));
    let site = &sites[0];
    holds_under("harvesters of 50 networks", &sites, Site::genuine, |attack| {
        for first in 0..HEAVY {
            let mut session = first;
            attack.repeats(BRIEFLY, move || {
                let mut client = site.client(&format!("100.64.{}.{}", session % 50, session / 50 % 250));
                client.write("MAIL FROM:<x@else.example>\r\n".as_bytes()).unwrap();
                client.write("RCPT TO:<refused@our.example>\r\n".repeat(20).as_bytes()).unwrap();
                for n in 0..=20 {
                    let reply = client.read_reply().unwrap();
                    assert!(reply.starts_with(if n == 0 { "250" } else { "550 5.1.1" }) || reply.starts_with("450"));
                }
                session += HEAVY;
            });
        }
    });
}

#[test]
fn connections_of_the_status_listener() {
    let sites = twins(|| Site::start(""));
    let site = &sites[0];
    let genuine = |site: &Site| {
        site.genuine();
        assert_eq!(site.ready(), "200");
    };
    // From another address of this machine.
    let stranger = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let at = |host: [u8; 4], port| std::net::SocketAddr::from((host, port)).into();
        socket.bind(&at([127, 0, 0, 2], 0)).unwrap();
        socket.connect(&at([127, 0, 0, 1], site.status)).unwrap();
        socket
    };
    let stranger = &stranger;
    holds_under("silent connections of the status listener", &sites, genuine, |attack| {
        let held: Vec<socket2::Socket> = (0..100).map(|_| stranger()).collect();
        let mut newest = std::collections::VecDeque::from(held);
        attack.repeats(BRIEFLY, move || {
            newest.pop_front();
            newest.push_back(stranger());
        });
    });
}

#[test]
fn connections_of_maps_and_milters() {
    let sites = twins(|| Site::start("limits.connections = 30"));
    let site = &sites[0];
    let genuine = |site: &Site| {
        site.genuine();
        assert!(Map::connect(site.daemon.ports[MAP]).ask("sign", "ann@our.example").starts_with("OK prvs="));
        assert!(site.negotiate().is_some());
    };
    holds_under("idle connections of a local user", &sites, genuine, |attack| {
        let maps: Vec<Map> = (0..30).map(|_| Map::connect(site.daemon.ports[MAP])).collect();
        let milters: Vec<TcpStream> = (0..30).map(|_| site.negotiate().unwrap()).collect();
        let (mut maps, mut milters) =
            (std::collections::VecDeque::from(maps), std::collections::VecDeque::from(milters));
        attack.repeats(BRIEFLY, move || {
            // Each connection has begun a query.
            let mut map = Map::connect(site.daemon.ports[MAP]);
            let _ = map.write(b"2");
            maps.push_back(map);
            milters.extend(site.negotiate());
            maps.drain(..maps.len() - 30);
            milters.drain(..milters.len() - 30);
        });
    });
}
