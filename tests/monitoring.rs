//! The dashboard and the alerts in `packaging`: they use the metrics and labels that there are, and each alert fires.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::common::{skip, which};
use crate::status_page::busy_site;
use serde_json::Value;

const PREFIX: &str = "countersign_";
const RULES: &str = include_str!("../packaging/prometheus/countersign.rules.yml");

/// The metrics of docs/config.md: their names without suffixes, and their labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = include_str!("../docs/config.md");
    let (_, table) = page.split_once("| name | labels | meaning |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (quoted(cells[1]).remove(0), quoted(cells[2]).into_iter().collect())
    })
    .collect()
}

/// The metric that a series belongs to.
fn base(series: &str) -> &str {
    let name = series.strip_prefix(PREFIX).unwrap();
    ["_total", "_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The series that an expression names, with the labels that it selects them by.
fn series(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression
        .match_indices(PREFIX)
        .map(|(at, _)| {
            let name: String = expression[at..].chars().take_while(|c| is_name(*c)).collect();
            let rest = &expression[at + name.len()..];
            let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
            // Labels stand before `=`, `=~` or `!=`; the values are quoted.
            let outside: String = inside.split('"').step_by(2).collect::<Vec<_>>().join(" ");
            let labels = outside.split(|c| !is_name(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect();
            (name, labels)
        })
        .collect()
}

/// The labels by which an expression groups.
fn groups(expression: &str) -> Vec<String> {
    let lists = expression.split("by (").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    lists.flat_map(|list| list.split(',').map(|label| label.trim().to_owned())).collect()
}

/// What Prometheus adds.
const OF_PROMETHEUS: [&str; 3] = ["instance", "job", "le"];

fn check(
    expression: &str,
    known: &BTreeMap<String, BTreeSet<String>>,
    kinds: &BTreeMap<String, String>,
    used: &mut BTreeSet<String>,
) {
    let mut possible: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
    for (name, labels) in series(expression) {
        let of = known.get(base(&name)).unwrap_or_else(|| panic!("{name} is not in docs/config.md: {expression}"));
        for label in labels {
            assert!(
                of.contains(&label) || OF_PROMETHEUS.contains(&&*label),
                "{name} has no label {label}: {expression}"
            );
        }
        // Its suffix is that of its kind.
        match kinds.get(base(&name)).map(String::as_str) {
            Some("counter") => assert!(name.ends_with("_total"), "{name} is a counter: {expression}"),
            Some("gauge") => assert!(!name.ends_with("_total"), "{name} is a gauge: {expression}"),
            _ => {}
        }
        possible.extend(of.iter().cloned());
        used.insert(base(&name).to_owned());
    }
    for label in groups(expression) {
        assert!(possible.contains(&label), "nothing has the label {label}: {expression}");
    }
}

/// The expressions of the alerts.
fn alerts() -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in RULES.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("expr: ") {
            found.push(rest.trim_start_matches('|').to_owned());
            inside = rest == "|";
        } else if inside && line.starts_with("          ") {
            found.last_mut().unwrap().push_str(line);
        } else {
            inside = false;
        }
    }
    found
}

#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_exist() {
    let site = busy_site("");
    let metrics = site.get("/metrics");
    let kinds: BTreeMap<String, String> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE countersign_")?.split_once(' '))
        .map(|(name, kind)| (base(&format!("{PREFIX}{name}")).to_owned(), kind.to_owned()))
        .collect();
    let known: BTreeMap<String, BTreeSet<String>> =
        documented().into_iter().map(|(name, labels)| (base(&format!("{PREFIX}{name}")).to_owned(), labels)).collect();
    for (name, kind) in &kinds {
        assert!(known.contains_key(name), "{name} ({kind}) is not in docs/config.md");
    }
    // Series of a busy site have the labels that the page says.
    for line in metrics.lines().filter(|line| line.starts_with(PREFIX)) {
        for (name, labels) in series(line) {
            let said = &known[base(&name)];
            assert!(labels.iter().all(|label| said.contains(label) || label == "le"), "{line}: {said:?}");
        }
    }
    let mut used = BTreeSet::new();
    for expression in alerts() {
        check(&expression, &known, &kinds, &mut used);
    }
    let dashboard: Value = serde_json::from_str(include_str!("../packaging/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    for target in targets {
        check(target["expr"].as_str().unwrap(), &known, &kinds, &mut used);
    }
    let unused: Vec<&String> = known.keys().filter(|name| !used.contains(*name)).collect();
    assert!(unused.is_empty(), "the dashboard shows nothing of {unused:?}");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids of panels");
}

#[test]
fn each_alert_has_a_page_of_the_runbook() {
    let runbook = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let anchor = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    let anchors: BTreeSet<String> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let mut links = 0;
    for line in RULES.lines().filter(|line| line.contains("runbook_url:")) {
        let target = line.split_once("/runbook.md#").unwrap().1.trim_end_matches('"');
        assert!(anchors.contains(target), "{target} is none of {anchors:?}");
        links += 1;
    }
    assert_eq!(links, RULES.matches("- alert:").count());
}

#[test]
fn prometheus_takes_the_alerts_and_each_of_them_fires() {
    const TEST: &str = "monitoring::prometheus_takes_the_alerts_and_each_of_them_fires";
    let Some(promtool) = which("promtool") else { return skip::skip(TEST, "it needs promtool") };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    for arguments in [["check", "rules", "countersign.rules.yml"], ["test", "rules", "countersign.test.yml"]] {
        let output = Command::new(&promtool).args(arguments).current_dir(&folder).output().unwrap();
        let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        assert!(output.status.success(), "{said}");
    }
    // Each alert has a test in which it fires, and one in which it does not.
    let tests = include_str!("../packaging/prometheus/countersign.test.yml");
    for alert in RULES.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert} fires in no test");
        assert!(tests.contains(&format!("alertname: {alert}, exp_alerts: []")), "{alert} is never quiet in a test");
    }
}
