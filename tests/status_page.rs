//! The status page: what it says, to whom, and how it looks in a real browser.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::abuse_counters::Site;
use crate::common::browser::Browser;
use crate::common::{dsn, folder, poll_for, skip, tcp};
use serde_json::Value;

const ENFORCED: &str = "2026-01-01T00:00:00Z";

/// Sends a request, and returns the whole answer.
fn ask(port: u16, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = tcp(port).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn get(port: u16, path: &str) -> String {
    ask(port, "GET", path, "", "")
}

fn observe(port: u16, headers: &str, body: &str) -> String {
    let headers = format!("Content-Type: application/x-www-form-urlencoded\r\n{headers}");
    ask(port, "POST", "/observe", &headers, body)
}

/// The password of HTTP's basic scheme, as a header.
fn with_token(token: &str) -> String {
    format!("Authorization: Basic {}\r\n", data_encoding::BASE64.encode(format!("admin:{token}").as_bytes()))
}

fn token_of(site: &Site) -> String {
    let path = site.folder.path().join("state/status-token");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// A site where a genuine bounce came, an automatic reply, and false bounces of two networks.
pub(crate) fn busy_site(config: &str) -> Site {
    let site = Site::start(config, Some(ENFORCED));
    site.send();
    let bounce = dsn("failed").replace(
        "--b--\r\n",
        "--b\r\nContent-Type: message/rfc822\r\n\r\nReceived: from pc-17.dyn.example by mx.example\r\n\
         From: \"Pills\" <ann@our.example>\r\nMessage-ID: <spam@dyn.example>\r\n\r\nBuy\r\n--b--\r\n",
    );
    let bounce = bounce.trim_end();
    for n in 1..=5 {
        let reply = site.from(&format!("203.0.113.{n}")).send("", "ann@our.example", bounce).unwrap();
        assert!(reply.starts_with("550"), "{reply}");
    }
    let mut client = site.from("198.51.100.7");
    assert!(site.rcpt(&mut client, "", &site.tag(true)).starts_with("550"));
    let away = "Subject: Away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away";
    assert!(client.send("", "ann@our.example", away).unwrap().starts_with("250"));
    assert!(client.send("", &site.tag(false), bounce).unwrap().starts_with("250"));
    // Decisions are written once a second.
    poll_for("the decisions", || Some(get(site.status, "/")).filter(|page| page.matches("/why/").count() >= 8));
    site
}

#[test]
fn the_page_says_what_was_done_and_why() {
    let site = busy_site("");
    let port = site.status;
    for path in ["/", "/?time=hour", "/?time=week", "/?from=1&to=9999999999", "/?time=nonsense&q="] {
        let page = get(port, path);
        assert!(page.starts_with("HTTP/1.1 200") && page.len() < 60_000, "{path}: {} octets", page.len());
        assert!(page.contains("Working. False bounces are refused."), "{path}: {page}");
        assert!(page.contains("<dt>refused</dt><dd>6</dd>"), "{path}: {page}");
        assert!(page.contains("<dt>genuine bounces</dt><dd>1<small>"), "{path}: {page}");
        assert!(page.contains("<dt>replies, reports</dt><dd>1<small>"), "{path}: {page}");
        for part in ["203.0.113.0/24", "a…n@our.example", "no tag <b>5</b>", "forged tag <b>1</b>", "key 1"] {
            assert!(page.contains(part), "{path}: {part}: {page}");
        }
    }
    let page = get(port, "/");
    for header in [
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "frame-ancestors 'none'",
        "cache-control: no-store",
        "referrer-policy: same-origin",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
    ] {
        assert!(page.contains(header), "{header}: {page}");
    }
    // Nobody's whole address, and nothing from another host.
    assert!(!page.replace("placeholder=\"ann@our.example\"", "").contains("ann@our.example"), "{page}");
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("http://"), "{page}");

    let found = get(port, "/?q=198.51.100.7");
    assert!(found.contains("What is known of 198.51.100.7") && found.contains("3: 2 passed on, 1 refused."), "{found}");
    assert!(get(port, "/?q=ann%40our.example").contains("8: 2 passed on, 6 refused."));
    assert!(get(port, "/?q=zoe@our.example").contains("Nothing about zoe@our.example is kept; the list goes back to"));
    assert!(get(port, "/?q=%3Cscript%3E").contains("Nothing about &lt;script&gt; is kept"));
    assert!(
        get(port, "/?q=nothing").contains("is no client&#39;s address")
            || get(port, "/?q=nothing").contains("no client's address")
    );
    assert!(get(port, &format!("/?q={}", "x".repeat(400))).contains("longer than 320 octets"));
    assert!(get(port, "/why/99999").starts_with("HTTP/1.1 404"));
    assert!(get(port, "/why/none").starts_with("HTTP/1.1 400"));

    // The page of a refused bounce shows why, with the header that proves it.
    let refused = page.split("<tr class=\"today\">").find(|row| row.contains("delivery report")).unwrap();
    let link = refused.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
    let why = get(port, link);
    for part in [
        "refused: a bounce without a tag",
        "Mail of this domain leaves with a signed sender",
        "delivery status, action failed",
        "Content-Type: multipart/report; report-type=delivery-status",
        "Received: from pc-17.dyn.example by mx.example",
        "none: the original has no evidence header",
        "Should it have come?",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(!why.contains("ann@our.example") && !why.contains("Pills"), "{why}");
    let report: Value = serde_json::from_str(get(port, "/status.json").split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(report["parts"]["next_hops"][0]["is_up"], true);
    assert_eq!(report["domains"][0]["state"], "enforced");
}

#[test]
fn the_token_shows_whole_addresses_and_changes_what_is_enforced() {
    let site = busy_site("");
    let (port, token) = (site.status, token_of(&site));
    assert!(get(port, "/full").starts_with("HTTP/1.1 401"));
    assert!(get(port, "/full").contains("www-authenticate: Basic realm=\"Countersign\""));
    assert!(ask(port, "GET", "/full", &with_token(&token), "").contains("location: /"));
    assert!(ask(port, "GET", "/", &with_token("wrong"), "").starts_with("HTTP/1.1 401"));
    let page = ask(port, "GET", "/", &with_token(&token), "");
    assert!(page.contains("<td>ann@our.example</td>") && !page.contains("a…n@our.example"), "{page}");
    assert!(
        ask(port, "GET", "/", &format!("Authorization: Bearer {token}\r\n"), "").contains("<td>ann@our.example</td>")
    );

    for (headers, body, code) in [
        ("", "time=24h".to_owned(), 403),
        ("", "time=24h&token=wrong".to_owned(), 403),
        ("Origin: http://evil.example\r\n", format!("time=24h&token={token}"), 403),
        ("Origin: null\r\n", format!("time=24h&token={token}"), 403),
        ("", format!("time=10y&token={token}"), 400),
        ("", format!("token={token}"), 422),
        ("", format!("time=24h&token={}", "x".repeat(5000)), 413),
    ] {
        let answer = observe(port, headers, &body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{headers} {body}: {answer}");
    }
    assert!(get(port, "/observe").starts_with("HTTP/1.1 405"));
    assert!(!get(port, "/").contains("Stop observing only"), "nothing has changed");
    let origin = format!("Origin: http://127.0.0.1:{port}\r\n");
    assert!(observe(port, &origin, &format!("time=24h&token={token}")).starts_with("HTTP/1.1 303"));
    let page = get(port, "/");
    assert!(page.contains("Stop observing only") && page.contains("all domains are only observed until"), "{page}");
    assert!(site.rcpt(&mut site.inbound(), "", &site.tag(true)).starts_with("250"), "it is only observed");
    assert!(observe(port, &with_token(&token), "time=off").starts_with("HTTP/1.1 303"));
    assert!(site.rcpt(&mut site.inbound(), "", &site.tag(true)).starts_with("550"));

    // The log says so at the start, and not only to those who try it.
    let path = site.folder.path().join("state/status-token");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let (folder, sink) = (site.folder, site.sink);
    drop(site.daemon);
    let daemon = Site::daemon(folder.path(), sink.port, site.status, "");
    daemon
        .log
        .wait("the warning", 0, |line| line.contains("no token for the status page") && line.contains("chmod 600"));
    let site = Site { folder, sink, daemon, status: site.status };
    // A token that others can read is none.
    std::fs::set_permissions(site.folder.path().join("state/status-token"), PermissionsExt::from_mode(0o644)).unwrap();
    let answer = observe(port, "", &format!("time=24h&token={token}"));
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("chmod 600"), "{answer}");
}

#[test]
fn elsewhere_and_where_the_config_says_so_nothing_is_shown_without_the_token() {
    let everybody = Site::start("status.token_for = \"all\"\nstatus.token_file = \"secret/token\"", None);
    assert!(get(everybody.status, "/").starts_with("HTTP/1.1 401"));
    assert!(get(everybody.status, "/why/0").starts_with("HTTP/1.1 401"));
    assert!(get(everybody.status, "/status.json").starts_with("HTTP/1.1 401"));
    assert!(get(everybody.status, "/healthz").starts_with("HTTP/1.1 200"), "load balancers need no token");
    let token = std::fs::read_to_string(everybody.folder.path().join("secret/token")).unwrap();
    let token = token.trim();
    assert!(ask(everybody.status, "GET", "/", &with_token(token), "").starts_with("HTTP/1.1 200"));
    drop(everybody);

    let site = Site::start("", None);
    let passed_on = ask(site.status, "GET", "/", "X-Forwarded-For: 192.0.2.1\r\n", "");
    assert!(passed_on.starts_with("HTTP/1.1 401"), "{passed_on}");
    // As nginx asks, unless it is told otherwise.
    let mut stream = tcp(site.status).unwrap();
    write!(stream, "GET / HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n", site.status).unwrap();
    let mut old = String::new();
    stream.read_to_string(&mut old).unwrap();
    assert!(old.starts_with("HTTP/1.0 401"), "{old}");
    // A picture of another site's page; and a link there, which leads here.
    let other = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    assert!(ask(site.status, "GET", "/?q=x@y.example", other, "").starts_with("HTTP/1.1 403"));
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert!(ask(site.status, "GET", "/", link, "").starts_with("HTTP/1.1 200"));
    // The script of the page is told that it needs the token; the browser does not ask the user for it.
    let renewed = ask(site.status, "GET", "/", &format!("{}X-Countersign-Renews: 1\r\n", with_token("old")), "");
    assert!(renewed.starts_with("HTTP/1.1 401") && !renewed.contains("www-authenticate"), "{renewed}");
    let folder = site.folder.path();
    let text = std::fs::read_to_string(folder.join("countersign.toml")).unwrap();
    let open = text.replace(&format!("127.0.0.1:{}", site.status), &format!("0.0.0.0:{}", site.status));
    let (status, folder) = (site.status, site.folder);
    drop(site.daemon);
    let daemon = crate::common::Daemon::start(folder.path(), open.trim_start_matches("log.format = \"json\"\n"));
    assert!(get(status, "/").starts_with("HTTP/1.1 401"));
    assert!(get(status, "/readyz").starts_with("HTTP/1.1 200"));
    drop(daemon);
}

#[test]
fn the_page_says_what_each_mode_does() {
    for (mode, sentence, marked) in [
        ("observe", "Working. inbound.mode is \"observe\": false bounces are marked, not refused.", 2),
        ("enforce", "Working. False bounces are refused.", 0),
        ("ramp", "Working. Domains are only observed: false bounces are marked, not refused.", 2),
    ] {
        let site = Site::start(&format!("inbound.mode = \"{mode}\""), None);
        for _ in 0..2 {
            let _ = site.inbound().send("", "ann@our.example", dsn("failed").trim_end()).unwrap();
        }
        let page = get(site.status, "/").replace("&quot;", "\"");
        assert!(page.contains(sentence), "{mode}: {page}");
        assert_eq!(
            page.contains(&format!("<dt>would be refused</dt><dd>{marked}<small>")),
            marked > 0,
            "{mode}: {page}"
        );
    }
}

#[test]
fn many_searches_take_one_thread() {
    let site = Site::start(
        "limits.refused_recipients = 0\nlimits.commands = 1000000\ninbound.guesses_per_minute = 0",
        Some(ENFORCED),
    );
    let (mut client, forged) = (site.inbound(), site.tag(true));
    for _ in 0..3000 {
        assert!(site.rcpt(&mut client, "", &forged).starts_with("550"));
    }
    poll_for("the decisions", || Some(()).filter(|()| get(site.status, "/?q=127.0.0.1").contains("newest 50")));
    let status = format!("/proc/{}/status", site.daemon.child.id());
    let threads = || -> usize {
        let text = std::fs::read_to_string(&status).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim().parse().unwrap()
    };
    let before = threads();
    let mut most = before;
    for _ in 0..300 {
        let mut stream = tcp(site.status).unwrap();
        let host = format!("Host: 127.0.0.1:{}", site.status);
        write!(stream, "GET /?q=nobody@our.example HTTP/1.1\r\n{host}\r\n\r\n").unwrap();
        // It does not wait for the answer.
        drop(stream);
        most = most.max(threads());
    }
    assert!(most <= before + 4, "{before} threads became {most}");
    assert!(get(site.status, "/").starts_with("HTTP/1.1 200"));
}

/// The script of axe-core, which finds what keeps people from using a page; from the registry of npm.
fn axe(folder: &Path) -> Option<String> {
    let mut npm = Command::new("npm");
    npm.args(["pack", "axe-core@4", "--silent", "--cache", "npm-cache"]).current_dir(folder).env("HOME", folder);
    let packed = npm.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let file = String::from_utf8(packed.stdout).ok()?;
    let unpacked = Command::new("tar").args(["xzf", file.trim()]).current_dir(folder).status().ok()?;
    unpacked.success().then(|| std::fs::read_to_string(folder.join("package/axe.min.js")).unwrap())
}

/// Where pictures of the page go, for somebody who looks at them.
fn pictures(folder: &Path) -> PathBuf {
    std::env::var_os("COUNTERSIGN_PICTURES").map_or_else(|| folder.to_owned(), PathBuf::from)
}

#[test]
fn people_see_it_in_a_browser() {
    const TEST: &str = "status_page::people_see_it_in_a_browser";
    if !Browser::is_here() {
        return skip::skip(TEST, "it needs chromium and chromedriver");
    }
    let (site, own) = (busy_site(""), folder());
    let axe = axe(own.path());
    if axe.is_none() {
        skip::skip_for_good(TEST, "the part about accessibility needs npm and its registry, for axe-core");
    }
    let browser = Browser::start(own.path());
    let base = format!("http://127.0.0.1:{}", site.status);
    let page = get(site.status, "/");
    let why = page.split("<tr class=\"today\">").nth(1).unwrap().split("href=\"").nth(1).unwrap();
    let why = why.split('"').next().unwrap().to_owned();
    for (name, path) in
        [("page", "/?time=hour"), ("day", "/"), ("week", "/?time=week"), ("search", "/?q=198.51.100.7"), ("why", &why)]
    {
        for (width, dark, scripts) in
            [(360, false, true), (360, true, false), (800, true, true), (1600, false, false), (1600, true, true)]
        {
            browser.scripts(scripts);
            browser.look(width, dark);
            browser.open(&format!("{base}{path}"));
            let at = format!("{path} at {width}, dark: {dark}, scripts: {scripts}");
            let wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]");
            assert_eq!(wide[0], wide[1], "{at}: it has to be moved sideways");
            let file = format!("{name}-{width}{}.png", if dark { "-dark" } else { "" });
            browser.picture(&pictures(own.path()).join(file));
            // axe-core needs scripts.
            if let (Some(axe), true) = (&axe, scripts) {
                let run = format!(
                    "{axe}; const done = arguments[arguments.length - 1]; axe.run().then((found) => done(found.violations.map((one) => [one.id, one.help, one.nodes.map((node) => node.html + node.failureSummary)])))"
                );
                let found = browser.run_until_done(&run);
                assert_eq!(found, serde_json::json!([]), "{at}: {found:#}");
            }
        }
    }
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
    it_renews_itself_and_a_time_can_be_drawn(&site, &browser, &base);
}

fn it_renews_itself_and_a_time_can_be_drawn(site: &Site, browser: &Browser, base: &str) {
    browser.look(1200, false);
    browser.scripts(true);
    browser.open(&format!("{base}/?time=hour"));
    let refused = || browser.run("return document.querySelector('.numbers .strong dd').textContent");
    assert_eq!(refused(), "6");
    browser.run("window.isTheSamePage = true; document.querySelector('details').open = true");
    assert!(site.rcpt(&mut site.from("192.0.2.77"), "", &site.tag(true)).starts_with("550"));
    poll_for("the new number", || {
        browser.run("document.dispatchEvent(new Event('visibilitychange'))");
        (refused() == "7").then_some(())
    });
    assert_eq!(
        browser.run("return [window.isTheSamePage, document.querySelector('details').open]"),
        serde_json::json!([true, true])
    );

    // From the middle of the chart to its right edge.
    let place = browser.run(
        "const box = document.querySelector('svg.chart').getBoundingClientRect(); return [box.left, box.top, box.width, box.height]",
    );
    let place: Vec<f64> = place.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    let y = place[1] + place[3] / 3.0;
    browser.draw((place[0] + place[2] * 0.6, y), (place[0] + place[2] - 2.0, y));
    let shown = poll_for("the chosen time", || {
        let shown = browser.run("return [location.search, document.querySelector('#time-title').textContent, document.querySelectorAll('.head nav [aria-current]').length, document.querySelector('.numbers .strong dd').textContent]");
        shown[0].as_str().unwrap().contains("from=").then_some(shown)
    });
    assert!(shown[1].as_str().unwrap().contains(" to ") && shown[2] == 0 && shown[3] == "7", "{shown}");

    // The search, as somebody types it.
    browser.run("document.querySelector('#q').value = 'ann@our.example'; document.querySelector('#decisions form').requestSubmit()");
    let found = poll_for("what was found", || {
        let title = browser.run("return document.querySelector('#decisions-title').textContent");
        title.as_str().filter(|title| title.contains("ann@our.example")).map(str::to_owned)
    });
    assert_eq!(found, "What is known of ann@our.example");

    // The button, with the token and without another word.
    browser.open(&format!("{base}/"));
    let token = token_of(site);
    browser.run(&format!(
        "document.querySelector('#token').value = '{token}'; document.querySelector('footer button').click()"
    ));
    poll_for("the end of the pause", || {
        let button = browser.run("return document.querySelector('footer button')?.textContent");
        (button == "Stop observing only").then_some(())
    });
    let said = browser.run("return document.querySelector('#state').textContent");
    assert!(said.as_str().unwrap().contains("all domains are only observed until"), "{said}");

    // What cannot be reached is said.
    browser.open(&format!("{base}/"));
    site.daemon.signal(rustix::process::Signal::KILL);
    poll_for("the end of the daemon", || {
        browser.run("document.dispatchEvent(new Event('visibilitychange'))");
        let title = browser.run("return document.title");
        title.as_str().filter(|title| title.contains("No answer")).map(str::to_owned)
    });
}
