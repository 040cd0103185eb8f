//! A reader that takes nothing: it holds nobody up, is let go, and goes on elsewhere from the last event that it has.

use std::io::Read;
use std::net::TcpStream;
use std::thread;

use super::streams::publish;
use super::web::{Events, Frame};
use super::world::World;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// More than the buffers of both sockets hold.
const EVENTS: u64 = 60;
const EVENT_BYTES: usize = 400_000;
const ESTABLISHED: &str = "01";

/// The state of the server's side of a connection, as the kernel has it; `None` when it is gone.
fn state_at_server(client: &TcpStream) -> Option<String> {
    let (ours, theirs) = (
        client.local_addr().expect("a socket"),
        client.peer_addr().expect("a socket"),
    );
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let is_it = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let mut ends_with = |port: u16| fields.next().is_some_and(|end| end.ends_with(&format!(":{port:04X}")));
        ends_with(theirs.port()) && ends_with(ours.port())
    };
    let line = table.lines().find(is_it)?;
    line.split_whitespace().nth(3).map(str::to_owned)
}

/// The frames that came whole, up to the end of what was received.
fn ids(received: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(received);
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let id = |line: &str| line.trim().strip_prefix("id: ")?.parse().ok();
    whole.lines().filter_map(id).collect()
}

#[test]
fn a_reader_that_takes_nothing_is_let_go_and_holds_nobody_up() {
    use std::io::Write;
    let world = World::new("slow-reader", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let http = khala.http().to_owned();
    publish(&http, "run/a", 1, "run.started", "{}");
    let mut slow = TcpStream::connect(&http).expect("it listens");
    slow.write_all(b"GET /v1/runs/a/events HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .expect("a socket");
    let mut received = vec![0; 16];
    slow.read_exact(&mut received).expect("it began");
    let reader = {
        let http = http.clone();
        thread::spawn(move || Events::open(&http, "/v1/runs/a/events", &[]).ids())
    };
    let data = format!(r#"{{"x":"{}"}}"#, "slow ".repeat(EVENT_BYTES / 5));
    for sequence in 2..=EVENTS {
        publish(&http, "run/a", sequence, "run.delta", &data);
    }
    publish(&http, "run/a", EVENTS + 1, "run.finished", r#"{"status":"succeeded"}"#);
    let (seen, done) = reader.join().expect("no panic");
    assert_eq!(
        (seen, done),
        ((1..=EVENTS + 1).collect(), true),
        "the others have it all"
    );

    eventually("the slow one is let go", seconds(120), || {
        match state_at_server(&slow) {
            Some(state) if state == ESTABLISHED => Err(state),
            _ => Ok(()),
        }
    });
    slow.set_read_timeout(Some(seconds(60))).expect("a socket");
    let _ = slow.read_to_end(&mut received);
    let had = ids(&received);
    let last = had.last().copied().unwrap_or_default();
    assert_eq!(
        had,
        (1..=last).collect::<Vec<u64>>(),
        "what it has is whole and in order"
    );
    assert!(last <= EVENTS, "it was too slow: {last}");
    let rest: Vec<Frame> = {
        let mut events = Events::open(&http, "/v1/runs/a/events", &[("last-event-id", &last.to_string())]);
        std::iter::from_fn(|| events.next()).collect()
    };
    let ids: Vec<u64> = rest.iter().filter_map(|frame| frame.id).collect();
    assert_eq!(ids, (last + 1..=EVENTS + 1).collect::<Vec<u64>>());
    assert_eq!(rest.last().map(|frame| frame.data.as_str()), Some("[DONE]"));
    assert_eq!(khala.term(), Some(0));
}
