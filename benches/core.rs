//! Speed of the pure parts on one core: `cargo bench`. Use the figures to compare two versions on one machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use countersign::envelope::address::Address;
use countersign::envelope::bounce;
use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
use countersign::envelope::tag::{batv, srs};
use countersign::envelope::time::Timestamp;
use countersign::machines::DataScanner;

/// Runs `work` repeatedly, and prints the best time per call, the calls per second and, if `octets` is not 0, the
/// throughput.
fn bench(name: &str, octets: usize, mut work: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let (mut calls, started) = (0u32, Instant::now());
        while started.elapsed() < Duration::from_millis(20) {
            work();
            calls += 1;
        }
        best = best.min(started.elapsed() / calls);
    }
    let seconds = best.as_secs_f64();
    let rate = if octets > 0 { format!("{:8.2} GB/s", octets as f64 / seconds / 1e9) } else { String::new() };
    println!("{name:32} {:10.0} ns {:12.0} /s {rate}", seconds * 1e9, 1.0 / seconds);
}

fn main() {
    let now = Timestamp(1_795_382_400);
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec().into());
    let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
    let ring = Keyring::create(key, now).expect("a good key");
    let signer = ring.own_signer().expect("a new ring signs");
    let (batv_params, srs_params) = (batv::BatvParams::default(), srs::SrsParams::default());
    let ann = Address::parse("ann.smith@our.example").expect("an address");
    let signed = batv::sign(signer, &batv_params, now.day(), &ann).expect("short enough");
    bench("batv sign", 0, || drop(black_box(batv::sign(signer, &batv_params, now.day(), &ann))));
    bench("batv verify", 0, || {
        black_box(batv::verify(ring.keys(), &batv_params, now.day(), signed.address()));
    });
    let bob = Address::parse("bob@else.example").expect("an address");
    bench("srs forward", 0, || {
        let _ = black_box(srs::forward(signer, &srs_params, now.day(), &bob, "srs.our.example"));
    });

    let line = b"An ordinary line of an ordinary message, of about seventy octets.\r\n";
    let body: Vec<u8> = line.iter().copied().cycle().take(line.len() * 1000).collect();
    bench("body, clean", body.len(), || {
        let mut octets = 0;
        let mut scanner = DataScanner::default();
        for piece in body.chunks(64 << 10) {
            scanner.push(piece, |part| octets += part.len());
        }
        assert_eq!(black_box(octets), body.len());
    });
    let odd: Vec<u8> = body.iter().copied().filter(|&b| b != b'\r').collect();
    bench("body, bare LF", odd.len(), || {
        let mut octets = 0;
        let mut scanner = DataScanner::default();
        for piece in odd.chunks(64 << 10) {
            scanner.push(piece, |part| octets += part.len());
        }
        assert_eq!(black_box(octets), body.len());
    });
    let head = b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n";
    let report = [head.as_slice(), &body].concat();
    let scan = |name: &str, text: &[u8]| {
        bench(name, text.len(), || {
            let mut scanner = bounce::Scanner::of_text();
            scanner.push(text);
            black_box(scanner.found());
        });
    };
    scan("bounce scanner", &report);
    // Hostile input that is meant to slow the scanner down.
    let many = |line: &str| line.repeat((256 << 10) / line.len()).into_bytes();
    let deep: String = (0..50).map(|n| format!("Content-Type: multipart/x; boundary=b{n}\r\n\r\n--b{n}\r\n")).collect();
    for (name, begin, line) in [
        ("bounce scanner, empty lines", "A: b\r\n\r\n", "\r\n"),
        ("bounce scanner, header lines", "A: b\r\n\r\n", "m:\r\n"),
        ("bounce scanner, head of headers", "", "a:\r\n"),
        ("bounce scanner, boundaries", std::str::from_utf8(head).expect("ASCII"), "--b\r\n"),
        ("bounce scanner, deep boundaries", &deep, "--b49\r\n"),
        ("bounce scanner, deep dashes", &deep, "--\r\n"),
        ("bounce scanner, guessed parts", "A: b\r\n\r\n", "--x\r\nContent-A:\r\n\r\n"),
        ("bounce scanner, base64", "Content-Transfer-Encoding: base64\r\n\r\n", "bToK\r\n"),
        ("bounce scanner, HTML line ends", "Content-Type: text/html\r\n\r\n", "<br>\r\n"),
        ("bounce scanner, HTML tags", "Content-Type: text/html\r\n\r\n", "<a>&lt;"),
        ("bounce scanner, HTML comments", "Content-Type: text/html\r\n\r\n", "<!-->"),
        ("bounce scanner, status", "Content-Type: message/delivery-status\r\n\r\n", "Action: failed\r\n\r\n"),
    ] {
        scan(name, &[begin.as_bytes(), &many(line)].concat());
    }
    let dots = many(".\r\n");
    bench("body, dot lines in chunks", dots.len(), || {
        let mut scanner = DataScanner::of_chunks();
        black_box(scanner.push(&dots, |_| {}));
    });
}
