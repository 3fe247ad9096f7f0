//! The documentation as a book: each page is in its table of contents, each link leads somewhere, and each command of the
//! pages for administrators runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use crate::common::{Daemon, Sink, countersign, folder, reserved_port, run_ok};
use countersign::config::Config;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the documentation, relative to the project.
fn pages() -> Vec<PathBuf> {
    let mut found =
        vec![PathBuf::from("README.md"), "CHANGELOG.md".into(), "SECURITY.md".into(), "CONTRIBUTING.md".into()];
    for folder in ["docs", "docs/mta", "keys"] {
        let files = fs::read_dir(project().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
        found.extend(pages.map(|path| path.strip_prefix(project()).unwrap().to_owned()));
    }
    found.sort();
    found
}

fn text(page: &Path) -> String {
    fs::read_to_string(project().join(page)).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// What a page consists of.
#[derive(Default)]
struct Page {
    /// The anchors of its headings, as GitHub and mdBook make them.
    anchors: BTreeSet<String>,
    links: Vec<String>,
    /// Code blocks: what stands behind the fence, and the text.
    blocks: Vec<(String, String)>,
}

fn read(page: &Path) -> Page {
    let text = text(page);
    let mut found = Page::default();
    let (mut heading, mut block): (Option<String>, Option<(String, String)>) = (None, None);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&heading.take().unwrap());
                let again = (1..).map(|n| format!("{name}-{n}")).find(|other| !found.anchors.contains(other)).unwrap();
                let name = if found.anchors.contains(&name) { again } else { name };
                found.anchors.insert(name);
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                found.links.push(dest_url.to_string());
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind))) => {
                block = Some((kind.to_string(), String::new()));
            }
            Event::End(TagEnd::CodeBlock) => found.blocks.extend(block.take()),
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
                if let Some((_, text)) = &mut block {
                    text.push_str(&words);
                }
            }
            _ => {}
        }
    }
    found
}

fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[test]
fn each_link_leads_somewhere() {
    let pages: BTreeMap<PathBuf, Page> = pages().into_iter().map(|path| (path.clone(), read(&path))).collect();
    let mut broken = Vec::new();
    let mut checked = 0;
    for (path, page) in &pages {
        for link in page.links.iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            checked += 1;
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { plain(&path.parent().unwrap().join(file)) };
            let exists = project().join(&target).exists();
            let has_anchor =
                anchor.is_none_or(|anchor| pages.get(&target).is_some_and(|page| page.anchors.contains(anchor)));
            if !exists || !has_anchor {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 150, "{checked}");
}

#[test]
fn each_page_is_in_the_table_of_contents_once() {
    let listed: Vec<PathBuf> =
        read(Path::new("docs/SUMMARY.md")).links.iter().map(|link| plain(&Path::new("docs").join(link))).collect();
    let once: BTreeSet<&PathBuf> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "{listed:#?}");
    let missing: Vec<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with("docs") && !page.ends_with("SUMMARY.md") && !once.contains(page))
        .collect();
    assert_eq!(missing, Vec::<PathBuf>::new());
}

/// Pages whose commands administrators copy.
const FOR_ADMINISTRATORS: [&str; 5] =
    ["docs/getting-started.md", "docs/how-it-works.md", "docs/switching-on.md", "docs/runbook.md", "docs/faq.md"];

/// A site as the pages have it: a running daemon, in a folder of its own.
fn site() -> (tempfile::TempDir, Sink, Daemon) {
    let (folder, sink, status) = (folder(), Sink::start(), reserved_port());
    run_ok(folder.path(), &["keys", "init"]);
    let listener = |role: &str| {
        format!("[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n", sink.port)
    };
    let config = format!(
        "[domains]\nlocal = [\"our.example\"]\nsrs_domain = \"srs.our.example\"\n[inbound]\nsrs_next_hop = \"127.0.0.1:{}\"\n\
         [status]\nlisten = \"127.0.0.1:{status}\"\n{}{}",
        sink.port,
        listener("outbound"),
        listener("inbound")
    );
    let daemon = Daemon::start(folder.path(), &config);
    (folder, sink, daemon)
}

#[test]
fn each_command_runs() {
    let mut ran = 0;
    let mut failed = Vec::new();
    for page in FOR_ADMINISTRATORS {
        // Each page begins with a site of its own.
        let (folder, _sink, _daemon) = site();
        for (kind, block) in read(Path::new(page)).blocks {
            if kind != "sh" {
                continue;
            }
            for line in block.lines().filter(|line| line.starts_with("countersign ")) {
                let program = countersign();
                let mut shell = std::process::Command::new("sh");
                let path = Path::new(program.get_program()).parent().unwrap().display().to_string();
                let path = format!("{path}:{}", std::env::var("PATH").unwrap());
                shell.args(["-c", line]).current_dir(folder.path()).env("PATH", path).stdin(Stdio::null());
                let output = crate::common::alone(shell).output().unwrap();
                // 1: it has something to say.
                if !matches!(output.status.code(), Some(0 | 1)) {
                    failed.push(format!(
                        "{page}: {line}: {:?} {}",
                        output.status.code(),
                        String::from_utf8_lossy(&output.stderr)
                    ));
                }
                ran += 1;
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(ran > 40, "{ran}");
}

#[test]
fn each_piece_of_a_config_is_one() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let base = "[domains]\nlocal = [\"our.example\"]\nsrs_domain = \"srs.our.example\"\n";
    let mut checked = 0;
    for page in FOR_ADMINISTRATORS {
        for (kind, block) in read(Path::new(page)).blocks {
            if kind != "toml" {
                continue;
            }
            // A piece that has the table of the base replaces it.
            let base = if block.contains("[domains]") || block.contains("domains.") {
                "domains.local = [\"our.example\"]\n"
            } else {
                base
            };
            let texts = [format!("{base}{block}"), format!("{block}\n{base}"), block.clone()];
            let path = folder.path().join("countersign.toml");
            let loads = texts.iter().map(|text| {
                fs::write(&path, text).unwrap();
                Config::load(&path).map(drop).map_err(|error| error.to_string())
            });
            let results: Vec<Result<(), String>> = loads.collect();
            assert!(results.iter().any(Result::is_ok), "{page}:\n{block}\n{results:#?}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}
