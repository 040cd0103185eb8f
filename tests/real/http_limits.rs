//! What a client may not do to others: dawdle, flood, hold on. And what thousands of idle readers cost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use super::openapi::must_pass;
use super::web::{MANY, ONE, event, get, post};
use super::world::{World, note};
use crate::support::khala::Khala;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Idle readers; two of our own descriptors each would be too many for most machines, so one each.
const READERS: usize = 5_000;
/// What one may cost the server, in resident memory.
const BYTES_PER_READER_MAX: u64 = 40 << 10;

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// What came until the other side closed the connection.
fn rest(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(seconds(180))).expect("a socket");
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A connection that is let in: a request over it is answered. Before that one that has ended may count still.
fn let_in(http: &str) -> TcpStream {
    eventually("a connection is let in", seconds(60), || {
        let mut stream = TcpStream::connect(http).expect("it listens");
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let mut status = [0; "HTTP/1.1 200".len()];
        match asked.and_then(|()| stream.read_exact(&mut status)) {
            Ok(()) if status.ends_with(b" 200") => Ok(stream),
            other => Err((other, String::from_utf8_lossy(&status).into_owned())),
        }
    })
}

#[test]
fn who_sends_nothing_or_half_a_head_is_let_go() {
    let world = World::new("dawdlers", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let silent = TcpStream::connect(khala.http()).expect("it listens");
    let mut slow = TcpStream::connect(khala.http()).expect("it listens");
    slow.write_all(b"GET /v1/runs HTTP/1.1\r\nhost: x\r\nx-slow: ")
        .expect("a socket");
    let started = Instant::now();
    assert_eq!(rest(silent), "");
    assert!(rest(slow).len() < 200);
    assert!(started.elapsed() < seconds(60), "{:?}", started.elapsed());
    assert_eq!(get(khala.http(), "/healthz", &[]).status, 200);
}

#[test]
fn a_body_that_stops_half_way_is_given_up() {
    let world = World::new("half-way", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let mut slow = TcpStream::connect(khala.http()).expect("it listens");
    slow.write_all(b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n[{")
        .expect("a socket");
    let told = rest(slow);
    assert!(
        told.starts_with("HTTP/1.1 408") && told.contains("\"timeout\""),
        "{told}"
    );
    assert_eq!(get(khala.http(), "/healthz", &[]).status, 200);
}

#[test]
fn an_event_and_a_body_may_be_as_large_as_the_limit_and_not_a_byte_larger() {
    const EVENT_MAX: usize = 64 << 10;
    /// `batch_bytes`, and the room beside its events.
    const BODY_MAX: usize = (256 << 10) + (64 << 10);
    let world = World::new("limits", 2, 100, Keeps::Dumps);
    let flags = ["--max-event-bytes", "64KiB", "--batch-bytes", "256KiB"];
    let khala = Khala::start(world.dir(), &world.cluster, "one", &flags);
    let small = event("run/a", 1, "run.delta", r#"{"x":""}"#);
    let sized = |bytes: usize| {
        small.replace(
            r#""x":"""#,
            &format!(r#""x":"{}""#, "y ".repeat(EVENT_MAX)[..bytes - small.len()].to_owned()),
        )
    };
    let ask = |form, body: &str| {
        let answer = post(
            khala.http(),
            "/v1/events?wait=projected&timeout=30s",
            &[form],
            body.as_bytes(),
        );
        (
            answer.status,
            if answer.status == 200 {
                String::new()
            } else {
                answer.code()
            },
        )
    };
    let (fits, too_large) = ((200, String::new()), (413, "too_large".to_owned()));
    assert_eq!(sized(EVENT_MAX).len(), EVENT_MAX);
    assert_eq!(
        (ask(ONE, &sized(EVENT_MAX)), ask(ONE, &sized(EVENT_MAX + 1))),
        (fits.clone(), too_large.clone())
    );
    let batch = |bytes: usize| format!("[{small}{}]", " ".repeat(bytes - small.len() - 2));
    assert_eq!(
        (ask(MANY, &batch(BODY_MAX)), ask(MANY, &batch(BODY_MAX + 1))),
        (fits, too_large)
    );
    assert_eq!(world.read_back().len(), 2);
}

#[test]
fn a_connection_too_many_is_told_so_and_one_that_ends_makes_room() {
    let world = World::new("crowded", 2, 100, Keeps::Dumps);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--http-connections", "3"]);
    let held: Vec<TcpStream> = (0..3).map(|_| let_in(khala.http())).collect();
    let refused = rest(TcpStream::connect(khala.http()).expect("it listens"));
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("too_many_connections"),
        "{refused}"
    );
    drop(held);
    eventually("there is room again", seconds(60), || {
        match get(khala.http(), "/healthz", &[]).status {
            200 => Ok(()),
            status => Err(status),
        }
    });
}

#[test]
fn thousands_of_idle_readers_cost_little_and_all_of_them_hear_of_the_next_event() {
    let world = World::new("idle", 4, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let http = khala.http();
    for run in 0..100 {
        let body = event(&format!("run/r{run}"), 1, "run.started", "{}");
        assert_eq!(
            post(http, "/v1/events?wait=projected&timeout=30s", &[ONE], body.as_bytes()).status,
            200
        );
    }
    let before = resident_bytes(khala.pid());
    let mut readers: Vec<TcpStream> = Vec::with_capacity(READERS);
    for n in 0..READERS {
        let mut stream = TcpStream::connect(http).expect("it listens");
        let head = format!("GET /v1/runs/r{}/events HTTP/1.1\r\nhost: localhost\r\n\r\n", n % 100);
        stream.write_all(head.as_bytes()).expect("a socket");
        readers.push(stream);
    }
    for stream in &mut readers {
        wait_for(stream, "\"sequence\":1,");
    }
    let per_reader = resident_bytes(khala.pid()).saturating_sub(before) / READERS as u64;
    note(&format!("{READERS} idle readers: {per_reader} bytes each"));
    assert!(per_reader < BYTES_PER_READER_MAX, "{per_reader} bytes an idle reader");
    let started = Instant::now();
    for run in 0..100 {
        let body = event(&format!("run/r{run}"), 2, "run.delta", "{}");
        assert_eq!(post(http, "/v1/events", &[ONE], body.as_bytes()).status, 202);
    }
    for stream in &mut readers {
        wait_for(stream, "\"sequence\":2,");
    }
    note(&format!(
        "all {READERS} heard of the next event within {:?}",
        started.elapsed()
    ));
    drop(readers);
    assert_eq!(khala.term(), Some(0));
}

fn wait_for(stream: &mut TcpStream, words: &str) {
    stream.set_read_timeout(Some(seconds(60))).expect("a socket");
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains(words) {
        let bytes = stream
            .read(&mut buffer)
            .unwrap_or_else(|e| panic!("no {words} ({e}) in {text}"));
        assert!(bytes > 0, "closed before {words}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
    }
}

#[test]
fn a_token_over_its_rate_is_told_so_and_no_other_is() {
    let world = World::new("hasty", 2, 100, Keeps::Dumps);
    let tokens = world.dir().join("tokens");
    std::fs::write(&tokens, "read hasty\nread calm\n").expect("a file");
    let token_file = tokens.display().to_string();
    let flags = ["--token-file", &token_file, "--http-rate", "1"];
    let khala = Khala::start(world.dir(), &world.cluster, "one", &flags);
    let ask = |token: &str| {
        get(
            khala.http(),
            "/v1/workers",
            &[("authorization", &format!("Bearer {token}"))],
        )
    };
    let refused = eventually("the haste is noticed", seconds(60), || {
        let answer = ask("hasty");
        if answer.status == 429 {
            Ok(answer)
        } else {
            Err(answer.status)
        }
    });
    assert_eq!(
        (refused.code().as_str(), refused.header("retry-after")),
        ("rate_limited", "1")
    );
    assert_eq!(ask("calm").status, 200);
    eventually("it goes on later", seconds(60), || match ask("hasty").status {
        200 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn a_head_over_the_limit_is_told_so() {
    let world = World::new("large-heads", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let value = |bytes: usize| format!("x-large: {}", "y".repeat(bytes));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let ask = |header: &str| {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--include", version, "--header", header]);
            must_pass(curl.arg(format!("http://{}/healthz", khala.http())))
        };
        let fits = ask(&value(31 << 10));
        assert!(fits.contains(" 200"), "{version}: {fits}");
        let refused = ask(&value(40 << 10));
        let says = |words: &str| refused.contains(words);
        assert!(
            says(" 431") && says("\"head_too_large\"") && says("32768"),
            "{version}: {refused}"
        );
        assert!(says("x-request-id"), "{version}: {refused}");
    }
    assert_eq!(khala.term(), Some(0));
}
