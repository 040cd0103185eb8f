//! What README and guides tell people to type, typed: each page in one shell, its blocks in order, beside a real Kafka,
//! a real Redis and a serving khala. (The tutorial has a test of its own, and runbooks have one: `observe::runbooks`.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::web::event;
use super::world::{World, note};
use crate::support::guarded::free_port;
use crate::support::redis_server::Keeps;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Page, beginning of a command, and why no test of this file runs it.
const NOT_RUN: [(&str, &str, &str); 13] = [
    (
        "README.md",
        "cargo run --release -- demo",
        "a build of minutes; CI's demo",
    ),
    ("README.md", "scripts/test", "it runs this test"),
    (
        "README.md",
        "cargo install",
        "a build of minutes; the binary is on the PATH",
    ),
    ("README.md", "printf 'operate", "for the containers that follow"),
    (
        "README.md",
        "docker compose",
        "no container engine in tests; tests/compose.rs reads the file",
    ),
    (
        "README.md",
        "khala gate",
        "minutes; tests/real/gate.rs runs it with less",
    ),
    (
        "README.md",
        "OTEL_EXPORTER",
        "needs a receiver; tests/real/observe/otlp.rs has one",
    ),
    (
        "docs/oncall.md",
        "khala handoff",
        "needs Prometheus and Grafana; tests/real/handoff.rs has them",
    ),
    (
        "docs/performance.md",
        "benches/growth/run",
        "twenty minutes with a release build; run by hand",
    ),
    (
        "docs/performance.md",
        "benches/peers/run",
        "brings five other programs; run by hand",
    ),
    (
        "docs/performance.md",
        "scripts/flamegraph",
        "needs perf, which few machines allow; run by hand",
    ),
    ("docs/tutorial.md", "", "tests/tutorial.rs"),
    ("docs/reference.md", "", "made from the code: it has no block to paste"),
];
/// Page, part of a command, and what is typed in its place: less to do, and addresses of this test.
const INSTEAD: [(&str, &str, &str); 7] = [
    // Documents come a moment after the events.
    (
        "README.md",
        "khala get run run_1",
        "until khala get run run_1; do sleep 0.1; done",
    ),
    ("README.md", "--seconds 60", "--seconds 1"),
    // README's event by kcat has sequence 2, and nobody sent the first one: that is to be mended.
    (
        "docs/contract.md",
        "--earliest",
        "--earliest --seconds 1 || test $? = 3",
    ),
    (
        "docs/performance.md",
        "redis://localhost:6379 --seconds 10",
        "redis://localhost:6379 --events 2000 --runs 50 --repetitions 1 --seconds 1",
    ),
    (
        "docs/performance.md",
        "khala bench --over-http",
        "khala bench --over-http --seconds 1 --repetitions 1",
    ),
    (
        "docs/telemetry.md",
        "--events 1000000 --repetitions 5",
        "--events 2000 --repetitions 1",
    ),
    (
        "docs/telemetry.md",
        "scripts/telemetry-cost target/release/khala",
        "$ROOT/scripts/telemetry-cost $KHALA",
    ),
];
/// HTTP that fails is a command that failed; a server is waited for.
const BEFORE: &str = r#"
set -u -o pipefail
curl() { command curl --silent --show-error --fail-with-body "$@"; }
ready() { until command curl --silent --fail --output /dev/null "http://$KHALA_HTTP/readyz"; do sleep 0.1; done; }
ended() { kill $(jobs -p) 2>/dev/null; wait; }
trap ended EXIT
"#;

/// Commands of the `sh` blocks by page; a `\` at the end joins the next line.
fn pages() -> BTreeMap<String, Vec<String>> {
    let guides = std::fs::read_dir(Path::new(ROOT).join("docs")).expect("docs");
    let guides = guides.map(|entry| entry.expect("readable").path());
    let guides = guides.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let guides = guides.map(|path| format!("docs/{}", path.file_name().expect("a file").display()));
    let names = guides.chain(["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(str::to_owned));
    names
        .map(|name| {
            let text = std::fs::read_to_string(Path::new(ROOT).join(&name)).expect("UTF-8");
            let commands = commands(&text);
            (name, commands)
        })
        .collect()
}

fn commands(page: &str) -> Vec<String> {
    let (mut is_sh, mut goes_on, mut found) = (false, false, Vec::<String>::new());
    for line in page.lines().map(str::trim) {
        if let Some(language) = line.strip_prefix("```") {
            is_sh = language == "sh";
        } else if is_sh {
            match found.last_mut().filter(|_| goes_on) {
                Some(before) => _ = write!(before, "\n{line}"),
                None => found.push(line.to_owned()),
            }
            goes_on = line.ends_with('\\');
        }
    }
    found
}

fn is_run(page: &str, command: &str) -> bool {
    !NOT_RUN
        .iter()
        .any(|(of, begin, _)| *of == page && command.starts_with(begin))
}

/// What is typed for a command: a server that would hold the terminal goes on behind it.
fn typed(world: &World, page: &str, command: &str, http: &str) -> String {
    let mut text = command.to_owned();
    for (_, part, instead) in INSTEAD.iter().filter(|(of, ..)| *of == page) {
        text = text.replace(part, instead);
    }
    let text = text
        .replace("localhost:9092", world.cluster.log.trim_start_matches("kafka://"))
        .replace("localhost:6379", &world.redis.address())
        .replace("localhost:7600", http)
        .replace("khala.events", &world.cluster.topic);
    match text.strip_prefix("khala serve") {
        Some(" &") => format!("{text}\nready"),
        Some(_) => format!("ended; {text} &\nready"),
        None => text,
    }
}

/// Types a page; what failed.
fn paste(world: &World, page: &str, commands: &[String], (http, variables): (&str, &[(&str, &str)])) -> Vec<String> {
    let run: Vec<&String> = commands.iter().filter(|command| is_run(page, command)).collect();
    if run.is_empty() {
        return Vec::new();
    }
    let dir = world.dir().join(page.replace('/', "-"));
    std::fs::create_dir(&dir).expect("a directory");
    let events: Vec<String> = (1..=3).map(|n| event("run/run_123", n, "run.delta", "{}")).collect();
    std::fs::write(dir.join("events.ndjson"), events.join("\n")).expect("a file");
    let mut script = BEFORE.to_owned();
    for (i, command) in run.iter().enumerate() {
        let typed = typed(world, page, command, http);
        let _ = writeln!(
            script,
            "echo '@@ {i}' >&2\n{{ {typed}\n}} || echo \"@@ failed: {i}: exit $?\""
        );
    }
    let khala = Path::new(env!("CARGO_BIN_EXE_khala"));
    let path = khala.parent().expect("a directory").display();
    let mut command = Command::new("timeout");
    command
        .args(["180", "bash", "-c", &script])
        .current_dir(&dir)
        .stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KHALA_")) {
        command.env_remove(name);
    }
    let output = command
        .env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap_or_default()))
        .env("ROOT", ROOT)
        .env("KHALA", khala)
        .env("KHALA_HTTP", http)
        .env("KHALA_TOPIC", &world.cluster.topic)
        .env("KHALA_NAMESPACE", &world.cluster.namespace)
        .envs(variables.iter().copied())
        .output()
        .expect("timeout and bash run");
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    let mut failed: Vec<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("@@ failed: "))
        .map(|line| {
            let number: usize = line
                .split(':')
                .next()
                .and_then(|text| text.parse().ok())
                .expect("a number");
            let told = errors.split(&format!("@@ {number}\n")).nth(1).unwrap_or_default();
            let told = told.split("@@ ").next().unwrap_or_default();
            format!("{page}: `{}`: {line}\n{told}", run[number])
        })
        .collect();
    if !output.status.success() {
        failed.push(format!("{page}: {}\n{said}\n{errors}", output.status));
    }
    note(&format!(
        "{page}: {} commands, {} of them typed",
        commands.len(),
        run.len()
    ));
    failed
}

#[test]
fn what_readme_and_guides_tell_to_type_works() {
    let world = World::new("pasted", 2, 100, Keeps::AppendOnly);
    let mut pages = pages();
    let total: usize = pages.values().map(Vec::len).sum();
    assert!(total > 50, "{total} commands");
    for (page, begin, why) in NOT_RUN {
        let is_there = pages
            .get(page)
            .is_some_and(|commands| begin.is_empty() || commands.iter().any(|one| one.starts_with(begin)));
        assert!(is_there, "{page} has no `{begin}` any more ({why})");
    }
    for (page, part, _) in INSTEAD {
        let is_there = pages[page].iter().any(|one| one.contains(part));
        assert!(is_there, "{page} has no `{part}` any more");
    }
    // README begins with nothing, and says itself where log and store are.
    let readme = pages.remove("README.md").expect("README.md");
    let mut failed = paste(
        &world,
        "README.md",
        &readme,
        (&format!("127.0.0.1:{}", free_port()), &[]),
    );
    let khala = world.khala("khala");
    let (own, log, store) = (
        format!("127.0.0.1:{}", free_port()),
        world.cluster.log.clone(),
        world.cluster.store.clone(),
    );
    let variables = [("KHALA_LOG", &*log), ("KHALA_STORE", &*store), ("KHALA_HTTP", &*own)];
    for (page, commands) in &pages {
        failed.extend(paste(&world, page, commands, (khala.http(), &variables)));
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    assert_eq!(khala.term(), Some(0));
}
