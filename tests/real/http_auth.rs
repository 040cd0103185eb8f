//! Tokens: roles, scopes, reload; what is logged of an operator.

use serde_json::json;

use super::web::{ONE, event, get, post};
use super::world::World;
use crate::support::khala::Khala;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_token_reaches_as_far_as_its_roles_and_scope() {
    let world = World::new("tokens", 3, 100, Keeps::Dumps);
    let file = world.dir().join("tokens");
    std::fs::write(
        &file,
        "read r3ad\npublish pub1ish\noperate 0perate\nread,publish acme run/acme.\n",
    )
    .expect("a file");
    let path = file.display().to_string();
    let khala = Khala::start_unready(world.dir(), &world.cluster, "one", &["--token-file", &path]);
    khala.wait_ready();
    let http = khala.http();
    let read = |token: &str, path: &str| get(http, path, &[("authorization", &bearer(token))]);
    let write = |token: &str, subject: &str| {
        let body = event(subject, 1, "run.started", "{}");
        post(
            http,
            "/v1/events?wait=projected&timeout=30s",
            &[ONE, ("authorization", &bearer(token))],
            body.as_bytes(),
        )
    };
    let none = get(http, "/v1/runs", &[]);
    assert_eq!(
        (none.status, none.code().as_str(), none.header("www-authenticate")),
        (401, "no_token", "Bearer")
    );
    assert_eq!(
        (
            read("wr0ng", "/v1/runs").status,
            read("wr0ng", "/v1/runs").code().as_str()
        ),
        (401, "bad_token")
    );
    assert_eq!(get(http, "/healthz", &[]).status, 200, "health needs no token");

    assert_eq!(write("r3ad", "run/x").code(), "wrong_role");
    assert_eq!(write("pub1ish", "run/other.1").status, 200);
    assert_eq!(read("pub1ish", "/v1/runs").code(), "wrong_role");
    assert_eq!(read("0perate", "/v1/runs").status, 200, "nobody operates blindfold");

    assert_eq!(write("acme", "run/acme.1").status, 200);
    assert_eq!(
        (
            write("acme", "run/other.2").status,
            write("acme", "run/other.2").code().as_str()
        ),
        (403, "out_of_scope")
    );
    for path in ["/v1/runs/other.1", "/v1/runs/other.1/events", "/v1/dead-letters"] {
        assert_eq!(read("acme", path).code(), "out_of_scope", "{path}");
    }
    let seen = read("acme", "/v1/runs").json();
    let ids: Vec<_> = seen["documents"]
        .as_array()
        .expect("documents")
        .iter()
        .map(|run| run["run_id"].clone())
        .collect();
    assert_eq!(ids, ["acme.1"]);
    assert_eq!(
        read("r3ad", "/v1/runs").json()["documents"].as_array().map(Vec::len),
        Some(2)
    );
}

#[test]
fn a_token_with_a_scope_is_told_no_names_of_others() {
    let world = World::new("scoped", 1, 100, Keeps::Dumps);
    let file = world.dir().join("tokens");
    std::fs::write(&file, "read,publish all\nread acme run/acme.\n").expect("a file");
    let path = file.display().to_string();
    let serve = |name| Khala::start(world.dir(), &world.cluster, name, &["--token-file", &path]);
    let write = |khala: &Khala, sequence| {
        let body = event("run/other.1", sequence, "run.delta", "{}");
        let to = "/v1/events?wait=projected&timeout=1s";
        let headers = [ONE, ("authorization", "Bearer all")];
        post(khala.http(), to, &headers, body.as_bytes()).status
    };
    let khala = serve("one");
    eventually("the run has a document", seconds(60), || match write(&khala, 1) {
        200 => Ok(()),
        status => Err(status),
    });
    assert_eq!(khala.term(), Some(0));
    let document = world.key(0, "run_summary:other.1");
    let _: String = world.redis.ask(&["SET", &document, "not JSON"]);
    let khala = serve("two"); // it has no copy, reads what is there, and parks the run
    write(&khala, 2);
    let read = |token: &str, path: &str| get(khala.http(), path, &[("authorization", &bearer(token))]);
    let parked = |token: &str| {
        let row = read(token, "/v1/status").json()["partitions"][0].clone();
        (row["parked"].clone(), row["parked_entities"].clone())
    };
    eventually(
        "the run is parked, and who may see it is told its name",
        seconds(60),
        || {
            let told = parked("all");
            if told == (json!(1), json!(["run/other.1"])) {
                Ok(())
            } else {
                Err(told)
            }
        },
    );
    assert_eq!(parked("acme"), (json!(1), json!([])));
    // A rollout's plan names entities too.
    assert_eq!(read("all", "/v1/rollout").status, 404);
    assert_eq!(read("acme", "/v1/rollout").code(), "out_of_scope");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn what_an_operator_does_is_in_the_audit_log_and_his_token_is_not() {
    const ACTIONS: usize = 15; // more than a line that repeats itself is told
    let world = World::new("audited", 2, 100, Keeps::Dumps);
    let file = world.dir().join("tokens");
    std::fs::write(&file, "operate 0perate\n").expect("a file");
    let path = file.display().to_string();
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--token-file", &path]);
    let http = khala.http();
    let operator = ("authorization", "Bearer 0perate");
    let id = ("x-request-id", "why-1");
    for _ in 0..ACTIONS {
        assert_eq!(post(http, "/v1/audits", &[operator, id, JSON], b"{}").status, 200);
    }
    eventually("all actions are in the audit log", seconds(60), || {
        let log = khala.stderr();
        let words = ["operator action", "/v1/audits", "why-1", "token"];
        match log
            .lines()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
        {
            ACTIONS => Ok(()),
            count => Err(count),
        }
    });
    assert!(!khala.stderr().contains("0perate"), "the token itself is in no log");
}

#[test]
fn the_file_is_read_again_on_sighup_and_a_bad_one_changes_nothing() {
    let world = World::new("hangup", 2, 100, Keeps::Dumps);
    let file = world.dir().join("tokens");
    std::fs::write(&file, "read r3ad\n").expect("a file");
    let path = file.display().to_string();
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--token-file", &path]);
    let http = khala.http();
    let read = |token: &str, path: &str| get(http, path, &[("authorization", &bearer(token))]);
    assert_eq!(read("r3ad", "/v1/runs").status, 200);
    std::fs::write(&file, "read n3w\n").expect("a file");
    khala.hangup();
    eventually("the new token counts", seconds(60), || {
        match read("n3w", "/v1/runs").status {
            200 => Ok(()),
            status => Err(status),
        }
    });
    assert_eq!(read("r3ad", "/v1/runs").status, 401);
    std::fs::write(&file, "# nobody\n").expect("a file");
    khala.hangup();
    eventually("the refusal is logged", seconds(60), || {
        let log = khala.stderr();
        if log.contains("the tokens stay as they were") {
            Ok(())
        } else {
            Err(log.len())
        }
    });
    assert_eq!(
        read("n3w", "/v1/runs").status,
        200,
        "an empty file opens nothing and closes nothing"
    );
    let post = post(http, "/v1/no-such-action", &[("authorization", &bearer("n3w"))], b"");
    assert_eq!(post.status, 404);
    assert!(!khala.stderr().contains("n3w"), "no token is logged");
}

#[test]
fn only_allowed_origins_may_call_from_a_browser() {
    let world = World::new("cors", 2, 100, Keeps::Dumps);
    let khala = Khala::start(
        world.dir(),
        &world.cluster,
        "one",
        &["--http-cors", "https://app.example"],
    );
    let allowed = get(khala.http(), "/v1/runs", &[("origin", "https://app.example")]);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    let readable = allowed.header("access-control-expose-headers");
    assert!(
        readable.contains("retry-after"),
        "when to try again is a header: {readable}"
    );
    let other = get(khala.http(), "/v1/runs", &[("origin", "https://evil.example")]);
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, ""));
    let rebound = get(khala.http(), "/v1/runs", &[("host", "evil.example")]);
    assert_eq!(
        (rebound.status, rebound.code().as_str()),
        (403, "wrong_host"),
        "a name of elsewhere that leads here"
    );
    let unasked = post(khala.http(), "/v1/audits", &[("content-type", "text/plain")], b"{}");
    assert_eq!(unasked.status, 415, "what a page may send without asking does nothing");
}

/// A page may send a body without a type to wherever it likes, without being asked first whether it may.
#[test]
fn no_page_of_elsewhere_changes_anything() {
    let world = World::new("csrf", 2, 100, Keeps::Dumps);
    let cors = ["--http-cors", "https://app.example"];
    let khala = Khala::start(world.dir(), &world.cluster, "one", &cors);
    let own = format!("http://{}", khala.http());
    let body = event("run/a", 1, "run.started", "{}");
    let publish = |headers: &[(&str, &str)]| post(khala.http(), "/v1/events", headers, body.as_bytes());
    for evil in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for answer in [
            publish(&[evil]),
            publish(&[evil, ONE]),
            post(khala.http(), "/v1/audits", &[evil, JSON], b"{}"),
        ] {
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (403, "wrong_origin"),
                "{evil:?}"
            );
        }
        assert_eq!(get(khala.http(), "/v1/runs", &[evil]).status, 200, "{evil:?}");
    }
    assert_eq!(world.read_back().len(), 0);
    for good in ["https://app.example", own.as_str()] {
        assert_eq!(publish(&[("origin", good), ONE]).status, 202, "{good}");
    }
    assert_eq!(publish(&[ONE]).status, 202, "a program is no page");
    assert_eq!(khala.term(), Some(0));
}
