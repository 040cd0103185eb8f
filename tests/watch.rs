//! Alerts, runbooks, dashboards and the program's own metrics name each other rightly. What needs a Prometheus is in
//! tests/real/observe.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Parts of a runbook, in order.
const PARTS: [&str; 5] = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Over when"];
/// What histograms append to their names.
const SUFFIXES: [&str; 3] = ["_bucket", "_count", "_sum"];

fn read(name: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

/// Each alert with its lines in the rules.
fn alerts() -> BTreeMap<String, String> {
    let rules = read("config/prometheus/khala.rules.yml");
    let parts = rules.split("- alert: ").skip(1);
    parts
        .map(|part| {
            let (name, rest) = part.split_once('\n').expect("a line");
            let end = rest.find("\n\n").unwrap_or(rest.len());
            (name.to_owned(), rest[..end].to_owned())
        })
        .collect()
}

/// What the rules record.
fn recorded() -> BTreeSet<String> {
    let rules = read("config/prometheus/khala.rules.yml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    names.map(str::to_owned).collect()
}

/// Names of all metrics, as the golden text of `/metrics` has them.
fn metrics() -> BTreeSet<String> {
    let [snapshot] = &files("src/telemetry/metrics/snapshots")[..] else {
        panic!("one golden text");
    };
    let golden = read(snapshot);
    let names = golden.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    names
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect()
}

/// Words of an expression that can only be metrics of ours or recorded ones.
fn named(expression: &str) -> Vec<&str> {
    let words = expression.split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':');
    words
        .filter(|word| {
            ["khala_", "messaging_", "process_", "namespace:"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        })
        .filter(|word| !word.starts_with("messaging_operation_"))
        .collect()
}

fn is_known(name: &str, metrics: &BTreeSet<String>, recorded: &BTreeSet<String>) -> bool {
    let base = SUFFIXES
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    metrics.contains(name) || metrics.contains(base) || recorded.contains(name)
}

/// Every panel but rows, with its dashboard's file name.
fn panels() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for file in files("config/grafana/dashboards") {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let dashboard: Value = serde_json::from_str(&read(&file)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(dashboard["editable"], false, "{name}");
        assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource", "{name}");
        assert_eq!(format!("{}.json", dashboard["uid"].as_str().unwrap_or_default()), name);
        let panels = dashboard["panels"].as_array().expect("panels").clone();
        found.extend(
            panels
                .into_iter()
                .filter(|panel| panel["type"] != "row")
                .map(|panel| (name.clone(), panel)),
        );
    }
    assert!(found.len() > 30, "only {} panels", found.len());
    found
}

#[test]
fn each_alert_has_a_severity_words_and_a_runbook_and_each_runbook_an_alert() {
    let alerts = alerts();
    assert!(alerts.len() > 10, "only {} alerts found", alerts.len());
    for (name, text) in &alerts {
        let severity = ["severity: page\n", "severity: ticket\n"]
            .iter()
            .any(|severity| text.contains(severity));
        assert!(severity, "{name}: page or ticket");
        for part in ["summary: \"", "description: ", &format!("/docs/runbooks/{name}.md")] {
            assert!(text.contains(part), "{name} has no {part}");
        }
    }
    let runbooks: Vec<String> = files("docs/runbooks")
        .iter()
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    let names: Vec<String> = alerts.into_keys().collect();
    assert_eq!(runbooks, names);
}

/// A promtool test: its name, and which alerts it expects to fire or to be silent, in order.
struct Told {
    name: String,
    expected: Vec<(String, bool)>,
}

fn promtool_tests() -> Vec<Told> {
    let text = read("config/prometheus/khala.rules.test.yml");
    let tests = text.split("\n  - name: ").skip(1).map(|test| {
        let (name, rest) = test.split_once('\n').expect("a test has lines");
        let expected = rest.split("alertname: ").skip(1).map(|part| {
            let (alert, rest) = part.split_once('\n').unwrap_or((part, ""));
            let expected = rest.split("exp_alerts:").nth(1).unwrap_or_default();
            (alert.trim().to_owned(), expected.trim_start().starts_with("- "))
        });
        Told {
            name: name.trim_matches('"').to_owned(),
            expected: expected.collect(),
        }
    });
    tests.collect()
}

#[test]
fn each_alert_fires_is_silent_resolves_and_survives_restarts_by_promtool() {
    let tests = promtool_tests();
    for name in alerts().keys() {
        let of_it = |test: &Told| -> Vec<bool> {
            let of_it = test.expected.iter().filter(|(alert, _)| alert == name);
            of_it.map(|(_, fires)| *fires).collect()
        };
        let any = |holds: &dyn Fn(&[bool]) -> bool| tests.iter().any(|test| holds(&of_it(test)));
        assert!(any(&|seen| seen.contains(&true)), "{name}: no test in which it fires");
        let is_silent = |seen: &[bool]| !seen.is_empty() && !seen.contains(&true);
        let is_silent = any(&is_silent) || any(&|seen| seen.first() == Some(&false));
        assert!(is_silent, "{name}: no test in which it is silent");
        let resolves = |seen: &[bool]| seen.windows(2).any(|pair| pair == [true, false]);
        assert!(any(&resolves), "{name}: no test in which it resolves");
        let survives = format!("{name}: restarts, resets and gaps");
        assert!(tests.iter().any(|test| test.name == survives), "no test {survives}");
    }
}

#[test]
fn a_runbook_has_all_its_parts_in_order_and_something_to_paste() {
    for path in files("docs/runbooks") {
        let text = read(&path);
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(text.starts_with(&format!("# {name}\n")), "{name}: its own name first");
        let parts: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(parts, PARTS, "{name}");
        assert!(text.contains("```sh"), "{name}: nothing to paste");
        let titles: Vec<String> = files("config/grafana/dashboards").iter().map(title).collect();
        let names_one = titles
            .iter()
            .any(|title| text.contains(&format!("Dashboard: *{title}*.")));
        assert!(names_one, "{name}: names no dashboard");
    }
}

fn title(path: &PathBuf) -> String {
    let dashboard: Value = serde_json::from_str(&read(path)).expect("JSON");
    dashboard["title"].as_str().expect("a title").to_owned()
}

#[test]
fn rules_and_dashboards_name_metrics_that_exist() {
    let (metrics, recorded) = (metrics(), recorded());
    // These depend on the machine or the build, and so are no part of the golden text.
    let others = [
        "khala_build_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ];
    let known = |name: &str| others.contains(&name) || is_known(name, &metrics, &recorded);
    let mut broken = Vec::new();
    let rules = read("config/prometheus/khala.rules.yml");
    let rules = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    for line in rules.filter(|line| !line.contains("- name: ")) {
        broken.extend(named(line).into_iter().filter(|name| !known(name)).map(str::to_owned));
    }
    for (file, panel) in panels() {
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let strangers = named(query).into_iter().filter(|name| !known(name));
            broken.extend(strangers.map(|name| format!("{file}: {name}")));
            assert!(
                !query.contains("rate(") || query.contains("$__rate_interval"),
                "{file}: {query}"
            );
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    let unused = recorded
        .iter()
        .filter(|name| !read("config/prometheus/khala.rules.yml").contains(&format!("{name} ")));
    let unused: Vec<_> = unused
        .filter(|name| panels().iter().all(|(_, panel)| !panel.to_string().contains(*name)))
        .collect();
    assert!(unused.is_empty(), "recorded for nobody: {unused:?}");
}

#[test]
fn each_panel_says_what_it_shows_in_which_unit_and_from_which_source() {
    for (file, panel) in panels() {
        let name = format!("{file}: {}", panel["title"]);
        for part in ["/title", "/description", "/fieldConfig/defaults/unit"] {
            let text = panel.pointer(part).and_then(Value::as_str).unwrap_or_default();
            assert!(!text.is_empty(), "{name} has no {part}");
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}");
        assert!(!panel["targets"].as_array().expect("targets").is_empty(), "{name}");
    }
}

#[test]
fn spans_of_messaging_know_nothing_of_khala_and_could_be_a_crate_of_their_own() {
    let files = files("src/telemetry/messaging");
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let text = read(&file);
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let strangers: Vec<_> = code.filter(|line| line.contains("crate::")).collect();
        assert!(strangers.is_empty(), "{}: {strangers:?}", file.display());
    }
}

/// This one asks whether there is anybody at all, which is no number to draw a line at.
const WITHOUT_LINE: &str = "KhalaProjectorAbsent";

/// The numbers that an alert's expression compares with, as `> 25`, `== 0` or `> 6 * 0.001`; each once, ascending.
fn thresholds(text: &str) -> Vec<f64> {
    let expression = text
        .lines()
        .take_while(|line| !line.trim().starts_with("labels:"))
        .collect::<Vec<_>>()
        .join(" ")
        .replace("==", ">");
    let behind = expression.split(['<', '>']).skip(1).map(str::trim_start);
    let number = |word: &str| word.trim_end_matches(')').parse::<f64>().ok();
    let compared = |text: &str| {
        let mut words = text.split_whitespace();
        let first = number(words.next()?)?;
        let factor = (words.next() == Some("*")).then(|| number(words.next()?)).flatten();
        Some(factor.map_or(first, |factor| (first * factor * 1e6).round() / 1e6))
    };
    ascending(behind.filter_map(compared))
}

fn ascending(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    numbers
}

#[test]
fn thresholds_are_read_from_expressions() {
    assert_eq!(thresholds("expr: a > 14.4 * 0.001 and b > 6 * 0.001"), [0.006, 0.0144]);
    assert_eq!(thresholds("expr: (a > 0) unless on (n) (b > 0)"), [0.0]);
    assert_eq!(thresholds("expr: up{job=\"khala\"} == 0\nlabels: > 9"), [0.0]);
}

#[test]
fn thresholds_in_panels_are_those_of_the_alerts_and_no_alert_is_without() {
    let alerts = alerts();
    let mut shown = BTreeSet::new();
    for (file, panel) in panels() {
        let name = format!("{file}: {}", panel["title"]);
        let description = panel["description"].as_str().unwrap_or_default();
        let defaults = &panel["fieldConfig"]["defaults"];
        let steps = defaults["thresholds"]["steps"].as_array().cloned().unwrap_or_default();
        let values: Vec<f64> = steps.iter().filter_map(|step| step["value"].as_f64()).collect();
        let named = description.split_once("Alert: ").or(description.split_once("Alerts: "));
        let Some((_, named)) = named else {
            assert!(values.is_empty(), "{name}: a threshold of no alert");
            continue;
        };
        let named: Vec<&str> = named.trim_end_matches('.').split(", ").collect();
        let text = |alert: &&str| {
            let text = alerts.get(*alert);
            text.unwrap_or_else(|| panic!("{name}: there is no alert {alert}"))
        };
        let expected = ascending(named.iter().flat_map(|alert| thresholds(text(alert))));
        assert_eq!(values, expected, "{name}: {named:?}");
        let is_drawn = panel["type"] == "stat" || defaults["custom"]["thresholdsStyle"]["mode"] == "line";
        assert!(is_drawn, "{name}: its threshold is no line");
        shown.extend(named.into_iter().map(str::to_owned));
    }
    let unseen: Vec<_> = alerts
        .keys()
        .filter(|name| *name != WITHOUT_LINE && !shown.contains(*name))
        .collect();
    assert!(unseen.is_empty(), "on no dashboard: {unseen:?}");
}
