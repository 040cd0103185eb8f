//! `/openapi.json` is legal and true: a validator reads it, and a fuzzer finds no answer that it does not describe.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::web::{MANY, event, get, post};
use super::world::World;
use crate::support::khala::Khala;
use crate::support::redis_server::Keeps;

/// A program of the Python packages that `scripts/install-test-servers` brings.
pub fn python(program: &str) -> PathBuf {
    let folder = std::env::var("KHALA_PYTHON_DIR").unwrap_or_else(|_| "/var/tmp/khala-python".to_owned());
    let path = PathBuf::from(folder).join("bin").join(program);
    assert!(
        path.exists(),
        "no {}: scripts/install-test-servers brings it",
        path.display()
    );
    path
}

/// Runs a program to its end; what it said, if it failed.
pub fn must_pass(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}\n{errors}",
        output.status
    );
    said
}

/// Without what never ends or waits long: streams have tests of their own.
fn quick(mut document: Value) -> Value {
    let paths = document["paths"].as_object_mut().expect("paths");
    paths.retain(|path, _| !path.ends_with("/events") || path == "/v1/events");
    paths.remove("/v1/stream");
    for operation in paths
        .values_mut()
        .flat_map(|path| path.as_object_mut().expect("methods").values_mut())
    {
        let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) else {
            continue;
        };
        parameters.retain(|parameter| parameter["name"] != "min_offset");
        for parameter in parameters.iter_mut().filter(|parameter| parameter["name"] == "timeout") {
            parameter["schema"] = json!({"enum": ["0ms", "10ms"]});
        }
    }
    document
}

#[test]
fn no_answer_is_another_than_the_document_says() {
    let world = World::new("openapi", 2, 100, Keeps::Dumps);
    let tokens = world.dir().join("tokens");
    std::fs::write(&tokens, "operate 0perate\nread,publish,operate 4ll\n").expect("a file");
    let khala = Khala::start(
        world.dir(),
        &world.cluster,
        "one",
        &["--token-file", &tokens.display().to_string()],
    );
    let token = ("authorization", "Bearer 4ll");
    let events = ["run/run_123", "worker/w1"].map(|subject| event(subject, 1, "any.thing", "{}"));
    let batch = format!("[{}]", events.join(","));
    assert_eq!(
        post(
            khala.http(),
            "/v1/events?wait=projected",
            &[MANY, token],
            batch.as_bytes()
        )
        .status,
        200
    );

    let served = get(khala.http(), "/openapi.json", &[]).text;
    let file = world.dir().join("openapi.json");
    std::fs::write(&file, &served).expect("a file");
    must_pass(Command::new(python("openapi-spec-validator")).arg(&file));
    let document = quick(serde_json::from_str(&served).expect("JSON"));
    std::fs::write(&file, document.to_string()).expect("a file");
    let said = must_pass(
        Command::new(python("schemathesis"))
            .current_dir(world.dir())
            .arg("run")
            .arg(&file)
            .args([
                "--url",
                &format!("http://{}", khala.http()),
                "--header",
                "Authorization: Bearer 4ll",
            ])
            .args([
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                "10",
                "--seed",
                "7",
                "--no-color",
            ])
            // What is legal by the schema may still be refused: it does not know which partitions there are.
            .args([
                "--exclude-checks",
                "positive_data_acceptance",
                "--request-timeout",
                "60",
            ]),
    );
    assert!(said.contains("No issues found") || said.contains("passed"), "{said}");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn the_events_schema_judges_as_khala_does() {
    let base = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "run.delta", "subject": "run/a"});
    let with = |changes: Value| {
        let mut event = base.clone();
        let changes = changes.as_object().expect("an object").clone();
        event.as_object_mut().expect("an object").extend(changes);
        event
    };
    let worker = |changes: Value| {
        let mut event = with(json!({"subject": "worker/w", "type": "worker.started"}));
        event
            .as_object_mut()
            .expect("an object")
            .extend(changes.as_object().expect("an object").clone());
        event
    };
    let events = [
        base.clone(),
        json!({}),
        with(json!({"specversion": "0.3"})),
        with(json!({"id": ""})),
        with(json!({"source": "x".repeat(257)})),
        with(json!({"subject": "job/a"})),
        with(json!({"subject": "run/a b"})),
        with(json!({"type": "Run.delta"})),
        with(json!({"type": "worker.started"})),
        worker(json!({"type": "run.started"})),
        with(json!({"sequence": 1})),
        with(json!({"sequence": "17"})),
        with(json!({"sequence": 0})),
        with(json!({"sequence": "x"})),
        with(json!({"sequence": 9_007_199_254_740_992_u64})),
        with(json!({"data": [1]})),
        with(json!({"data": null, "time": null, "sequence": null, "anything": 1})),
        with(json!({"type": "run.finished"})),
        with(json!({"type": "run.finished", "data": {"status": "done"}})),
        with(json!({"type": "run.finished", "data": {"status": "failed", "reason": null}})),
        with(json!({"type": "run.finished", "data": {"status": "failed", "reason": 1}})),
        with(json!({"type": "run.started", "data": {"owner_user_id": 7}})),
        worker(json!({"data": {"adapter": "x", "metadata": {"a": 1}}})),
        worker(json!({"data": {"metadata": []}})),
        worker(json!({"type": "worker.error", "data": {"fatal": true}})),
        worker(json!({"type": "worker.error", "data": {"fatal": "yes"}})),
    ];
    let ours: Vec<bool> = events
        .iter()
        .map(|event| khala::pure::event::decode_structured(event.to_string().as_bytes(), 1 << 20).is_ok())
        .collect();
    let root = env!("CARGO_MANIFEST_DIR");
    let lines = tempfile::NamedTempFile::new().expect("a file");
    let text = events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    std::fs::write(lines.path(), text).expect("a file");
    let said = must_pass(
        Command::new(python("python"))
            .args([
                format!("{root}/tests/scripts/schema.py"),
                format!("{root}/docs/event.schema.json"),
            ])
            .stdin(std::fs::File::open(lines.path()).expect("a file")),
    );
    let theirs: Vec<bool> = said.lines().map(|line| line == "true").collect();
    assert!(ours.contains(&true) && ours.contains(&false));
    for (event, verdicts) in events.iter().zip(ours.iter().zip(&theirs)) {
        assert_eq!(verdicts.0, verdicts.1, "khala and the schema on {event}");
    }
    assert_eq!(ours.len(), theirs.len());
}
