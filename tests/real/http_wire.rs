//! What goes over the wire, asked by curl: HTTP/2 with and without TLS, compressed answers, a certificate read again, and
//! a request that is under way when the server stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::json;

use super::openapi::must_pass;
use super::web::{MANY, ONE, event, get, post};
use super::world::World;
use crate::support::khala::Khala;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, eventually_true, seconds};

/// What curl says of a URL: by default HTTP version, status and bytes received.
fn curl(url: &str, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--output", "/dev/null"]);
    command.args(["--write-out", "%{http_version} %{http_code} %{size_download}"]);
    let output = command.args(args).arg(url).output().expect("curl runs");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The head of the answer to a GET with these headers.
fn head(url: &str, headers: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--dump-header", "-", "-o", "/dev/null"]);
    must_pass(command.args(headers.iter().flat_map(|header| ["-H", header])).arg(url))
}

fn publish(http: &str, runs: usize) {
    let events: Vec<String> = (0..runs)
        .map(|n| event(&format!("run/r{n}"), 1, "run.started", "{}"))
        .collect();
    let body = format!("[{}]", events.join(","));
    let answer = post(http, "/v1/events?wait=projected&timeout=30s", &[MANY], body.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn long_answers_are_compressed_as_asked_and_streams_are_not() {
    let world = World::new("compressed", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    publish(khala.http(), 50);
    let url = format!("http://{}/v1/runs?limit=50", khala.http());
    let plain = get(khala.http(), "/v1/runs?limit=50", &[]).text;
    for coding in ["gzip", "br"] {
        let accept = format!("accept-encoding: {coding}");
        let coded =
            must_pass(Command::new("curl").args(["--silent", "--show-error", "--compressed", "-H", &accept, &url]));
        assert_eq!(coded, plain, "{coding}");
        let head = head(&url, &[&accept]);
        assert!(head.contains(&format!("content-encoding: {coding}")), "{head}");
        assert!(head.to_ascii_lowercase().contains("vary: accept-encoding"), "{head}");
        let said = curl(&url, &["-H", &accept]).expect("an answer");
        let bytes: usize = said
            .split(' ')
            .nth(2)
            .and_then(|bytes| bytes.parse().ok())
            .expect("a number");
        assert!(bytes * 3 < plain.len(), "{coding}: {bytes} of {}", plain.len());
    }
    let small = get(khala.http(), "/healthz", &[("accept-encoding", "gzip")]);
    assert_eq!(small.header("content-encoding"), "");
    // The first event comes though nothing comes behind it: no compressor holds it back.
    let mut stream = TcpStream::connect(khala.http()).expect("it listens");
    let head = "GET /v1/runs/r1/events HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip, br\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a socket");
    stream.set_read_timeout(Some(seconds(60))).expect("a socket");
    let mut lines = BufReader::new(stream)
        .lines()
        .map(|line| line.expect("the stream goes on"));
    let first = lines.find(|line| line.starts_with("data: "));
    assert!(first.is_some_and(|line| line.contains("run.started")));
}

#[test]
fn a_compressed_document_has_a_weak_tag_which_is_known_again() {
    let world = World::new("tags", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let data = format!("{{\"thread_id\":\"{}\"}}", "t".repeat(2000));
    let started = event("run/a", 1, "run.started", &data);
    let answer = post(
        khala.http(),
        "/v1/events?wait=projected&timeout=30s",
        &[ONE],
        started.as_bytes(),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let url = format!("http://{}/v1/runs/a", khala.http());
    let strong = get(khala.http(), "/v1/runs/a", &[]).header("etag").to_owned();
    assert!(strong.starts_with("\"sha256:"), "{strong}");
    for coding in ["gzip", "br"] {
        let accept = format!("accept-encoding: {coding}");
        let coded = head(&url, &[&accept]);
        assert!(coded.contains(&format!("content-encoding: {coding}\r\n")), "{coded}");
        assert!(coded.contains(&format!("etag: W/{strong}\r\n")), "{coded}");
        for known in [format!("W/{strong}"), strong.clone()] {
            let same = head(&url, &[&accept, &format!("if-none-match: {known}")]);
            assert!(same.starts_with("HTTP/1.1 304 "), "{known}: {same}");
        }
    }
    assert_eq!(khala.term(), Some(0));
}

/// A certificate for 127.0.0.1, made here, and its key: two files that `khala serve` reads.
pub fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", "/CN=khala-test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    must_pass(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
    (certificate, key)
}

#[test]
fn http_2_is_spoken_with_and_without_tls_and_a_certificate_is_read_again() {
    let world = World::new("wire", 2, 100, Keeps::Dumps);
    let (certificate_file, key_file) = certificate(world.dir());
    let (path, key) = (certificate_file.display().to_string(), key_file.display().to_string());
    let flags = ["--http-tls-cert", &path, "--http-tls-key", &key];
    let khala = Khala::start_unready(world.dir(), &world.cluster, "tls", &flags);
    let url = format!("https://{}/healthz", khala.http());
    let first = world.dir().join("first.crt");
    std::fs::copy(&certificate_file, &first).expect("a copy");
    let first = first.display().to_string();
    let trusted = |ca: &str, version: &str| curl(&url, &["--cacert", ca, version]);
    let said = eventually("it answers by TLS", seconds(60), || trusted(&first, "--http2"));
    assert!(said.starts_with("2 200"), "ALPN chose h2: {said}");
    assert!(trusted(&first, "--http1.1").is_ok_and(|said| said.starts_with("1.1 200")));
    assert!(curl(&url, &[]).is_err(), "nobody vouches for it");

    certificate(world.dir());
    khala.hangup();
    eventually("the new certificate is shown", seconds(60), || {
        trusted(&path, "--http2")
    });
    assert!(trusted(&first, "--http2").is_err(), "and the first one no more");
    std::fs::write(&certificate_file, "no certificate").expect("a file");
    khala.hangup();
    eventually("the refusal is logged", seconds(60), || {
        let log = khala.stderr();
        if log.contains("the certificate stays as it was") {
            Ok(())
        } else {
            Err(log.len())
        }
    });
    assert!(curl(&url, &["--insecure"]).is_ok_and(|said| said.contains("200")));
    assert_eq!(khala.term(), Some(0));

    let plain = world.khala("plain");
    let url = format!("http://{}/healthz", plain.http());
    let said = curl(&url, &["--http2-prior-knowledge"]).expect("an answer");
    assert!(said.starts_with("2 200"), "{said}");
    assert_eq!(plain.term(), Some(0));
}

#[test]
fn a_request_that_is_under_way_when_the_server_stops_is_answered() {
    let world = World::new("under-way", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let http = khala.http().to_owned();
    let body = event("run/a", 1, "run.started", "{}");
    let mut stream = TcpStream::connect(&http).expect("it listens");
    stream.set_read_timeout(Some(seconds(60))).expect("a socket");
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cloudevents+json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a socket");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).expect("a first answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "it waits for the body");
    let ending = thread::spawn(move || khala.term());
    eventually(
        "no connection is taken any more",
        seconds(60),
        || match TcpStream::connect(&http) {
            Err(_) => Ok(()),
            Ok(_) => Err("still taken"),
        },
    );
    stream
        .write_all(body.as_bytes())
        .expect("the connection is still there");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(ending.join().expect("no panic"), Some(0));
    assert_eq!(world.read_back().len(), 1);
}

/// Connections that the server at `127.0.0.1:port` has open.
fn connections_to(http: &str) -> usize {
    let port: u16 = http
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let (here, established) = (format!("0100007F:{port:04X}"), "01");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let is_open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&here.as_str()) && fields.get(3) == Some(&established)
    };
    table.lines().filter(is_open).count()
}

#[test]
fn who_waits_when_the_server_stops_is_answered_at_once() {
    let world = World::new("stopping", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    publish(khala.http(), 1);
    // Nothing is projected any more: the store reads, and writes no more.
    let _: String = world.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let http = khala.http().to_owned();
    let ask = |path: &'static str| {
        let http = http.clone();
        thread::spawn(move || get(&http, path, &[("accept", "application/json")]))
    };
    let document = ask("/v1/runs/r0?min_offset=9999&timeout=30s");
    let page = ask("/v1/runs/r0/events?after=1&wait=30s");
    let written = thread::spawn(move || {
        let body = event("run/r0", 2, "run.delta", "{}");
        post(&http, "/v1/events?wait=projected&timeout=30s", &[ONE], body.as_bytes())
    });
    eventually_true("all of them wait", seconds(60), || {
        connections_to(khala.http()) >= 3 && world.read_back().len() == 2
    });
    assert_eq!(khala.term(), Some(0));
    let document = document.join().expect("an answer");
    assert_eq!((document.status, document.code().as_str()), (503, "stopping"));
    assert_eq!(document.header("retry-after"), "1");
    let page = page.join().expect("an answer");
    assert_eq!(
        (page.status, page.json()),
        (200, json!({"events": [], "next_after": 1}))
    );
    let written = written.join().expect("an answer");
    assert_eq!((written.status, &written.json()["projected"]), (202, &json!(false)));
    assert_eq!(written.json()["events"][0]["id"], "2");
}

#[test]
fn who_sends_all_before_reading_comes_to_an_answer_that_did_not_need_it() {
    let world = World::new("unread", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let (file, body) = (world.dir().join("large"), "y".repeat(12 << 20));
    std::fs::write(&file, &body).expect("a file");
    let data = format!("@{}", file.display());
    for (path, status) in [("/v1/events", "413"), ("/nowhere", "404")] {
        let url = format!("http://{}{path}", khala.http());
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let said = curl(&url, &[version, "--header", "expect:", "--data-binary", &data]);
            assert!(
                said.as_ref().is_ok_and(|said| said.contains(&format!(" {status} "))),
                "{path} {version}: {said:?}"
            );
        }
        let mut stream = TcpStream::connect(khala.http()).expect("it listens");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a socket");
        stream.write_all(body.as_bytes()).expect("all is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, then the end");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    // Who asks first whether it may send is not told to.
    let mut stream = TcpStream::connect(khala.http()).expect("it listens");
    let head = "POST /nowhere HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a socket");
    let mut status = [0; "HTTP/1.1 404".len()];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 404");
    assert_eq!(khala.term(), Some(0));
}
