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
