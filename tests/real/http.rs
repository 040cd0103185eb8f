//! `POST /v1/events` and the documents over HTTP (INTERFACE.md §4), on a real Kafka and a real Redis.

use serde_json::{Value, json};

use super::compare::{Allow, assert_exact};
use super::topic;
use super::web::{Answer, MANY, ONE, event, get, post};
use super::world::World;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn written(world: &World) -> u64 {
    let bounds = topic::bounds(&world.config(), &world.cluster.topic);
    bounds.into_iter().map(|(_, end)| end).sum()
}

fn places(answer: &Answer) -> Vec<(String, u64, u64)> {
    let events = answer.json()["events"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().expect("a number");
    let place = |event: &Value| {
        let id = event["id"].as_str().expect("an id").to_owned();
        (id, number(&event["partition"]), number(&event["offset"]))
    };
    events.iter().map(place).collect()
}

#[test]
fn each_form_of_cloudevents_is_in_the_log_where_the_answer_says() {
    let world = World::new("forms", 3, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let one = event("run/a", 1, "run.started", "{}");
    let mut said = places(&post(khala.http(), "/v1/events", &[ONE], one.as_bytes()));
    let batch = format!(
        "[{},{}]",
        event("run/a", 2, "run.delta", "{}"),
        event("worker/w", 1, "worker.started", "{}")
    );
    let answer = post(khala.http(), "/v1/events", &[MANY], batch.as_bytes());
    assert_eq!(answer.status, 202, "{answer:?}");
    said.extend(places(&answer));
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "3"),
        ("ce-source", "web%20b%C3%A9"),
        ("ce-type", "run.finished"),
        ("ce-subject", "run/a"),
        ("ce-sequence", "1"),
    ];
    let answer = post(khala.http(), "/v1/events", &binary, br#"{"status":"succeeded"}"#);
    assert_eq!(answer.status, 202, "{answer:?}");
    said.extend(places(&answer));
    let empty = post(khala.http(), "/v1/events", &[MANY], b"[]");
    assert_eq!((empty.status, places(&empty).len()), (202, 0));

    let records = world.read_back();
    let mut found: Vec<(String, u64, u64)> = records
        .iter()
        .map(|rec| {
            let value: Value = serde_json::from_slice(rec.value.as_deref().unwrap_or_default()).expect("JSON");
            (
                value["id"].as_str().expect("an id").to_owned(),
                u64::from(rec.partition),
                rec.offset,
            )
        })
        .collect();
    found.sort();
    said.sort();
    assert_eq!(found, said);
    assert_exact(&world, Allow::default());
    let document = get(khala.http(), "/v1/runs/a", &[]).json();
    assert_eq!(
        (&document["status"], &document["latest_seq"]),
        (&json!("succeeded"), &json!(3))
    );
    assert_eq!(document["runtime_source"]["sources"]["web bé"]["max"], 1);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn one_bad_event_refuses_the_whole_request_and_nothing_is_written() {
    let world = World::new("refused", 3, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let good = event("run/a", 1, "run.started", "{}");
    let huge = event(
        "run/a",
        1,
        "run.delta",
        &format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20)),
    );
    #[rustfmt::skip] // a table is read by column
    let rows = [
        ("[]x".to_owned(),                                                          400, "not_json"),
        ("[1]".to_owned(),                                                          400, "not_json"),
        (format!("[{good},{{}}]"),                                                  400, "not_cloudevents"),
        (format!("[{good},{}]", event("job/1", 1, "x", "{}")),                      400, "bad_subject"),
        (format!("[{good},{}]", event("run/a", 2, "Run", "{}")),                    400, "bad_type"),
        (format!("[{good},{}]", event("worker/a", 2, "run.started", "{}")),         400, "bad_type"),
        (format!("[{good},{}]", event("run/a", 0, "run.delta", "{}")),              400, "bad_sequence"),
        (format!("[{good},{}]", event("run/a", 2, "run.delta", "[]")),              400, "bad_data"),
        (format!("[{good},{}]", good.replace("\"data\"", "\"time\":\"noon\",\"data\"")), 400, "bad_time"),
        (format!("[{good},{huge}]"),                                                413, "too_large"),
        (format!("[\"{}\"]", "y".repeat(9 << 20)),                                  413, "too_large"),
    ];
    for (body, status, reason) in rows {
        let answer = post(khala.http(), "/v1/events", &[MANY], body.as_bytes());
        let shown = &answer.text[..answer.text.len().min(300)];
        assert_eq!((answer.status, answer.code().as_str()), (status, reason), "{shown}");
    }
    let empty = post(khala.http(), "/v1/events", &[ONE], b"");
    assert_eq!((empty.status, empty.code().as_str()), (400, "empty_record"));
    let text = post(
        khala.http(),
        "/v1/events",
        &[("content-type", "text/plain")],
        good.as_bytes(),
    );
    assert_eq!((text.status, text.code().as_str()), (415, "unsupported_media_type"));
    let coding = ("content-encoding", "gzip");
    let coded = post(khala.http(), "/v1/events", &[ONE, coding], good.as_bytes());
    assert_eq!((coded.status, coded.code().as_str()), (415, "unsupported_media_type"));
    let query = post(khala.http(), "/v1/events?wait=for-it", &[ONE], good.as_bytes());
    assert_eq!((query.status, query.code().as_str()), (400, "bad_query"));
    assert_eq!(written(&world), 0, "nothing of all that is in the log");
    let detail = post(khala.http(), "/v1/events", &[MANY], format!("[{good},{{}}]").as_bytes()).json();
    assert_eq!(detail["error"]["detail"]["index"], 1);
    assert!(khala.metric("khala_publish_total", &[("result", "rejected")]) >= 12.0);
}

#[test]
fn a_writer_reads_what_it_wrote_and_a_time_out_is_no_failure() {
    let mut world = World::new("waits", 3, 100, Keeps::AppendOnly);
    let khala = world.khala("one");
    let http = khala.http().to_owned();
    let wait = "/v1/events?wait=projected&timeout=30s";
    let answer = post(&http, wait, &[ONE], event("run/a", 1, "run.started", "{}").as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    let batch: Vec<String> = (2..=4).map(|n| event("run/a", n, "run.delta", "{}")).collect();
    let answer = post(&http, wait, &[MANY], format!("[{}]", batch.join(",")).as_bytes());
    let body = answer.json();
    let seqs: Vec<_> = body["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|e| e["seq"].as_u64())
        .collect();
    assert_eq!(seqs, [Some(2), Some(3), Some(4)], "{body}");
    assert_eq!(body["events"][0]["status"], "running");
    assert_eq!(body["documents"]["run_summary:a"], get(&http, "/v1/runs/a", &[]).json());
    let again = post(&http, wait, &[ONE], event("run/a", 2, "run.delta", "{}").as_bytes()).json();
    assert_eq!(
        again["events"][0]["seq"], 2,
        "a retry is the event that it repeats: {again}"
    );

    let offset = |answer: &Answer| answer.json()["events"][0]["offset"].as_u64().expect("an offset");
    let started = std::time::Instant::now();
    let late = get(&http, "/v1/runs/a?min_offset=1000&timeout=300ms", &[]);
    assert_eq!((late.status, late.code().as_str()), (504, "not_projected_in_time"));
    assert!(
        started.elapsed() < seconds(30),
        "the limit is the client's, not the server's"
    );

    world.redis.stop();
    let answer = post(
        &http,
        "/v1/events",
        &[ONE],
        event("run/a", 5, "run.delta", "{}").as_bytes(),
    );
    assert_eq!(answer.status, 202, "publishing does not need the store: {answer:?}");
    let waited = post(
        &http,
        "/v1/events?wait=projected&timeout=500ms",
        &[ONE],
        event("run/a", 6, "run.finished", r#"{"status":"failed"}"#).as_bytes(),
    );
    assert_eq!((waited.status, &waited.json()["projected"]), (202, &json!(false)));
    let away = get(&http, "/v1/runs/a", &[]);
    assert_eq!((away.status, away.code().as_str()), (503, "unreachable"));
    world.redis.start_again();
    let path = format!("/v1/runs/a?min_offset={}&timeout=30s", offset(&waited));
    let document = eventually("the store is back", seconds(60), || {
        let answer = get(&http, &path, &[]);
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(answer.text)
        }
    });
    assert_eq!(
        (&document["status"], &document["latest_seq"]),
        (&json!("failed"), &json!(6))
    );
    assert_exact(&world, Allow::default());
}

#[test]
fn an_event_with_a_number_that_no_double_holds_is_read_as_it_was_written() {
    let world = World::new("as-written", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let http = khala.http();
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let data = format!(r#"{{"x":1e400,"n":0.10,"a":1,"a":2,"deep":{deep}}}"#);
    let body = event("run/a", 1, "run.delta", &data).replace(",\"type\"", ",\r\n\"type\"");
    let wait = "/v1/events?wait=projected&timeout=30s";
    for _ in 0..2 {
        let answer = post(http, wait, &[ONE], body.as_bytes());
        assert_eq!(
            (answer.status, &answer.json()["events"][0]["seq"]),
            (200, &json!(1)),
            "{answer:?}"
        );
    }
    let end = event("run/a", 2, "run.finished", r#"{"status":"failed"}"#);
    assert_eq!(post(http, wait, &[ONE], end.as_bytes()).status, 200);
    let page = get(http, "/v1/runs/a/events", &[("accept", "application/json")]);
    assert!(page.status == 200 && page.text.contains(&data), "{page:?}");
    let tailed = run(&world.cluster, &["tail", "run", "a", "--json"], "");
    let text = String::from_utf8_lossy(&tailed.stdout).into_owned();
    assert_eq!(tailed.status.code(), Some(0), "{tailed:?}");
    assert!(text.lines().count() == 2 && text.contains(&data), "{text}");
    let told = run(&world.cluster, &["tail", "run", "a"], "");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.lines().count() == 2 && text.contains(&data), "{text}");
}

#[test]
fn an_unchanged_document_is_not_sent_again_and_lists_go_on_where_they_ended() {
    let world = World::new("lists", 3, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let http = khala.http();
    for n in 0..25 {
        let kind = if n % 5 == 0 { "run.created" } else { "run.started" };
        let body = event(&format!("run/r{n:02}"), 1, kind, "{}");
        assert_eq!(
            post(http, "/v1/events?wait=projected&timeout=30s", &[ONE], body.as_bytes()).status,
            200
        );
    }
    let first = get(http, "/v1/runs/r07", &[]);
    let tag = first.header("etag").to_owned();
    assert_eq!(
        tag,
        format!("\"{}\"", first.json()["summary_hash"].as_str().expect("a hash"))
    );
    let same = get(http, "/v1/runs/r07", &[("if-none-match", &tag)]);
    assert_eq!((same.status, same.text.as_str()), (304, ""));
    assert_eq!(get(http, "/v1/runs/r07", &[("if-none-match", "\"other\"")]).status, 200);

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(http, &format!("/v1/runs?status=running&limit=7{cursor}"), &[]).json();
        let ids = page["documents"].as_array().expect("documents").iter();
        seen.extend(ids.map(|document| document["run_id"].as_str().expect("an id").to_owned()));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace(':', "%3A").replace('|', "%7C")),
            None => break,
        }
    }
    let mut expected: Vec<String> = (0..25).filter(|n| n % 5 != 0).map(|n| format!("r{n:02}")).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "each once");
    let nothing = get(http, "/v1/runs?since=2999-01-01T00:00:00Z", &[]).json();
    assert_eq!(
        (nothing["documents"].as_array().map(Vec::len), &nothing["cursor"]),
        (Some(0), &Value::Null)
    );
}

#[test]
fn every_refusal_has_the_form_of_an_error_and_a_request_id() {
    let world = World::new("errors", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    #[rustfmt::skip] // a table is read by column
    let rows = [
        ("/nothing",                           404, "no_such_path"),
        ("/v1/runs/nobody",                    404, "not_found"),
        ("/v1/runs/nobody/events",             404, "not_found"),
        ("/v1/runs/no%20id",                   400, "bad_subject"),
        ("/v1/runs/%ff",                       400, "bad_path"),
        ("/v1/events",                         405, "wrong_method"),
        ("/v1/runs?status=sleepy",             400, "bad_query"),
        ("/v1/runs?limit=many",                400, "bad_query"),
        ("/v1/runs?limit=0",                   400, "bad_query"),
        ("/v1/runs/a/events?limit=0",          400, "bad_query"),
        ("/v1/runs?cursor=x",                  400, "bad_request"),
        ("/v1/runs?stauts=running",            400, "bad_query"),
        ("/v1/runs?since=noon",                400, "bad_query"),
        ("/v1/runs/a?min_offset=-1",           400, "bad_query"),
        ("/v1/runs/a?min_offset=1&timeout=2x", 400, "bad_query"),
        ("/v1/stream?kind=job",                400, "bad_query"),
        ("/v1/stream?kind=run&status=stopped", 400, "bad_query"),
        ("/v1/dead-letters?reason=boredom",    400, "bad_request"),
        ("/v1/dead-letters/0/0",               404, "not_found"),
        ("/v1/dead-letters/a/0",               400, "bad_path"),
    ];
    for (path, status, code) in rows {
        let answer = get(khala.http(), path, &[("x-request-id", "mine-1")]);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path}: {answer:?}"
        );
        assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
        assert_eq!(answer.header("x-request-id"), "mine-1", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    let cursor = get(khala.http(), "/v1/runs/a/events", &[("last-event-id", "x")]);
    assert_eq!((cursor.status, cursor.code().as_str()), (400, "bad_cursor"));
    assert!(!get(khala.http(), "/healthz", &[]).header("x-request-id").is_empty());
}

#[test]
fn a_body_with_what_nobody_asked_for_or_knows_does_nothing() {
    let world = World::new("bodies", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    #[rustfmt::skip] // a table is read by column
    let rows = [
        ("/v1/resume",               r#"{"partitoin":1}"#,                                  "bad_body"),
        ("/v1/dead-letters/redrive", r#"{"chosen":"all","effort":"dry_run","x":1}"#,        "bad_body"),
        ("/v1/dead-letters/redrive", r#"{"chosen":{"of_reason":"bogus"},"effort":"redrive"}"#, "bad_request"),
        ("/v1/audits",               r#"{"entity":"run/a","partition":0}"#,                 "bad_request"),
        ("/v1/audits",               r#"{"entity":"run/a","sample":0.5}"#,                  "bad_request"),
        ("/v1/audits",               r#"{"entity":"job/a"}"#,                               "bad_request"),
        ("/v1/audits",               r#"{"sample":0}"#,                                     "bad_request"),
        ("/v1/audits",               r#"{"partition":2}"#,                                  "bad_request"),
        ("/v1/replays",              r#"{"partition":2}"#,                                  "bad_request"),
        ("/v1/replays",              r#"{"partition":2,"dry_run":true}"#,                   "bad_request"),
        ("/v1/resume",               r#"{"partition":2}"#,                                  "bad_request"),
    ];
    for (path, body, code) in rows {
        let json = ("content-type", "application/json");
        let answer = post(khala.http(), path, &[json], body.as_bytes());
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{path} {body}: {answer:?}"
        );
    }
}

#[test]
fn a_replay_of_what_is_not_there_is_no_failed_replay() {
    let world = World::new("mistyped", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let json = ("content-type", "application/json");
    let replay = |entity: &str| {
        let body = json!({"entity": entity}).to_string();
        post(khala.http(), "/v1/replays", &[json], body.as_bytes()).status
    };
    assert_eq!((replay("run/nobody"), replay("nobody")), (404, 400));
    let failed = khala.metric("khala_replay_total", &[("scope", "entity"), ("result", "error")]);
    assert_eq!(failed as u64, 0);
}

#[test]
fn a_log_that_is_away_is_said_so_and_documents_are_still_read() {
    let mut world = World::with_own_broker("no-log", 2, 100);
    let khala = world.khala("one");
    let http = khala.http().to_owned();
    let body = event("run/a", 1, "run.started", "{}");
    assert_eq!(
        post(&http, "/v1/events?wait=projected&timeout=30s", &[ONE], body.as_bytes()).status,
        200
    );
    world.own_broker().stop();
    let answer = post(
        &http,
        "/v1/events",
        &[ONE],
        event("run/a", 2, "run.delta", "{}").as_bytes(),
    );
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "unreachable"),
        "{answer:?}"
    );
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(get(&http, "/v1/runs/a", &[]).json()["status"], "running");
    world.own_broker().start_again();
    eventually("the log takes events again", seconds(60), || {
        let answer = post(
            &http,
            "/v1/events",
            &[ONE],
            event("run/a", 2, "run.delta", "{}").as_bytes(),
        );
        if answer.status == 202 { Ok(()) } else { Err(answer.text) }
    });
    assert_exact(&world, Allow::default());
}
