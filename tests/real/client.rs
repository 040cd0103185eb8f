//! `khala::client`: publish, wait, read, and follow a run over connections that break.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use khala::client::{Client, ClientError, Entity};
use serde_json::{Value, json};

use super::world::World;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn event(sequence: u64, kind: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": sequence.to_string(), "source": "client", "type": kind, "subject": "run/a",
        "sequence": sequence, "data": data})
}

/// A way to a server that can be cut: connections through it break, and new ones are taken.
struct Way {
    url: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(http: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (http, open) = (http.to_owned(), Arc::new(Mutex::new(Vec::new())));
        let streams = Arc::clone(&open);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(&http).expect("the server listens");
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    thread::spawn(move || pass(from, to));
                }
                streams.lock().expect("no panic").extend([near, far]);
            }
        });
        Self { url, open }
    }

    /// Breaks all connections; how many there were.
    fn cut(&self) -> usize {
        let streams = std::mem::take(&mut *self.open.lock().expect("no panic"));
        streams.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
        streams.len() / 2
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_run_is_published_read_and_followed_over_connections_that_break() {
    let world = World::new("client", 2, 100, Keeps::AppendOnly);
    let khala = world.khala("one");
    let client = Client::new(&format!("http://{}", khala.http()));
    assert!(client.document(Entity::Run("a")).expect("an answer").is_none());
    let begin = [event(1, "run.started", &json!({})), event(2, "run.delta", &json!({}))];
    let places = client.publish_and_wait(&begin, seconds(30)).expect("published");
    assert_eq!(
        places.iter().map(|place| place.seq).collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
    let refused = client.publish(&[event(3, "run.delta", &json!({})), json!({"specversion": "1.0"})]);
    let is_told = matches!(&refused, Err(ClientError::Refused { status: 400, code, .. }) if code == "not_cloudevents");
    assert!(is_told, "{refused:?}");

    let way = Way::to(khala.http());
    let mut following = Client::new(&way.url).follow(Entity::Run("a"), 1);
    assert_eq!(following.next().expect("an event").expect("legal").seq, 2);
    let reader = thread::spawn(move || following.collect::<Result<Vec<_>, _>>());
    for sequence in 3..=5 {
        eventually("the reader is back", seconds(60), || match way.cut() {
            0 => Err("no connection"),
            _ => Ok(()),
        });
        let places = client
            .publish(&[event(sequence, "run.delta", &json!({}))])
            .expect("published");
        let document = client.document_at(Entity::Run("a"), places[0].offset, seconds(30));
        assert_eq!(document.expect("in time").expect("a document")["latest_seq"], sequence);
    }
    client
        .publish(&[event(6, "run.finished", &json!({"status": "succeeded"}))])
        .expect("published");
    let received = reader.join().expect("no panic").expect("it came back each time");
    let seqs: Vec<u64> = received.iter().map(|received| received.seq).collect();
    assert_eq!(seqs, [3, 4, 5, 6], "each once, in order");
    assert_eq!(received[3].event["type"], "run.finished");
}
