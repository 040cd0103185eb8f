//! Kafka behind a bad network: cut in the middle of whatever is under way, away for longer than a session, and so slow
//! that heartbeats come too late. Khala reads and publishes through it; the test itself does not.

use std::time::Duration;

use serde_json::{Value, json};

use super::compare::{Allow, assert_exact};
use super::world::World;
use crate::support::broker::Kafka;
use crate::support::khala::Khala;
use crate::support::proxy::Proxy;
use crate::support::wait::{eventually, eventually_true, seconds};

/// Longer than a session of the tests (3 s), so that the group goes on without this member.
const PAST_THE_SESSION: Duration = Duration::from_millis(4500);

/// Less than the time after which Khala answers that it is not known what became of a publication: what was refused
/// does not come into the log later, behind the test's back.
const PUBLISHED_WITHIN: (&str, &str) = ("KHALA_KAFKA__MESSAGE_TIMEOUT_MS", "5000");

fn behind_a_proxy(name: &str) -> (World, Khala, Proxy) {
    let (kafka, proxy) = Kafka::start_behind_a_proxy();
    let mut world = World::with_brokers(kafka, name, 4, 40_000, Kafka::create_topic);
    world.cluster.log = format!("kafka://{}", proxy.address());
    let khala = Khala::start_with(world.dir(), &world.cluster, "one", &[], &[PUBLISHED_WITHIN]);
    khala.wait_ready();
    (world, khala, proxy)
}

fn broker_errors(khala: &Khala) -> f64 {
    khala.metric("khala_kafka_broker_errors_total", &[])
}

/// Publishes one event after the other by HTTP until it is told to stop; those that were acknowledged: id, partition
/// and offset. One that was refused is sent again, as a producer does.
struct Publisher<'a> {
    khala: &'a Khala,
    sent: u64,
    acknowledged: Vec<(String, u64, u64)>,
    refused: u64,
}

impl Publisher<'_> {
    fn publish(&mut self) {
        let sequence = self.sent + 1;
        let event = json!({
            "specversion": "1.0", "id": format!("net-{sequence}"), "source": "net", "type": "run.delta",
            "subject": format!("run/net{}", sequence % 5), "sequence": sequence, "data": {"delta": "x".repeat(300)},
        });
        let answer = self.khala.post("/v1/events", &json!([event]).to_string());
        let told: Value = serde_json::from_str(&answer).unwrap_or_default();
        match told["events"].as_array().map(Vec::as_slice) {
            Some([event]) => {
                let number = |name: &str| event[name].as_u64().expect("a number");
                let place = (number("partition"), number("offset"));
                let id = event["id"].as_str().expect("an id").to_owned();
                self.acknowledged.push((id, place.0, place.1));
                self.sent += 1;
            }
            _ => self.refused += 1,
        }
    }
}

/// What was acknowledged by HTTP stands where it was said to stand.
fn each_in_its_place(world: &World, acknowledged: &[(String, u64, u64)]) {
    let records = world.read_back();
    for (id, partition, offset) in acknowledged {
        let place = (*partition, *offset);
        let found = records
            .iter()
            .find(|record| (u64::from(record.partition), record.offset) == place);
        let value = found.and_then(|record| record.value.as_deref()).unwrap_or_default();
        let event: Value = serde_json::from_slice(value).unwrap_or_default();
        assert_eq!(event["id"], id.as_str(), "at {place:?}");
    }
}

#[test]
fn a_network_to_kafka_that_is_cut_costs_time_and_nothing_else() {
    let (mut world, khala, proxy) = behind_a_proxy("kafka-cut");
    let mut publisher = Publisher {
        khala: &khala,
        sent: 0,
        acknowledged: Vec::new(),
        refused: 0,
    };
    for bytes in [60_000, 9_000, 25_000] {
        let before = proxy.cuts();
        proxy.cut_after(bytes);
        eventually_true("connections are cut", seconds(120), || {
            world.produce(200);
            publisher.publish();
            proxy.cuts() > before + 4
        });
        proxy.cut_after(0);
        world.settle();
    }
    eventually_true("the client tells that connections broke", seconds(60), || {
        broker_errors(&khala) > 0.0
    });
    let acknowledged = std::mem::take(&mut publisher.acknowledged);
    assert!(!acknowledged.is_empty());
    assert_exact(&world, Allow::AFTER_A_FAULT);
    each_in_its_place(&world, &acknowledged);
    khala.wait_ready();
    assert_eq!(khala.drifts(), 0);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_kafka_out_of_reach_past_the_session_and_one_too_slow_cost_time_and_nothing_else() {
    let (mut world, khala, proxy) = behind_a_proxy("kafka-away");
    world.produce(4_000);
    world.settle();
    let nobody = "127.0.0.1:1";
    let behind = proxy.target();
    let before = (world.applied(), broker_errors(&khala));
    proxy.lead_to(nobody);
    world.produce(4_000);
    std::thread::sleep(PAST_THE_SESSION);
    eventually_true("the client tells it", seconds(60), || broker_errors(&khala) > before.1);
    assert_eq!(world.applied(), before.0, "nothing comes through");
    let refused = khala.post(
        "/v1/events",
        &json!([{
            "specversion": "1.0", "id": "away", "source": "net", "type": "run.delta", "subject": "run/away", "data": {},
        }])
        .to_string(),
    );
    assert!(
        refused.contains("unreachable"),
        "a publication is not acknowledged meanwhile: {refused}"
    );
    proxy.lead_to(&behind);
    world.settle();
    proxy.delay(PAST_THE_SESSION);
    world.produce(4_000);
    std::thread::sleep(PAST_THE_SESSION);
    proxy.delay(Duration::ZERO);
    world.produce(2_000);
    world.settle();
    khala.wait_ready();
    eventually("partitions are owned again", seconds(60), || {
        let (_, status) = khala.get("/v1/status")?;
        if status.contains("\"owner\":null") {
            Err(status)
        } else {
            Ok(())
        }
    });
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.drifts(), 0);
    assert_eq!(khala.term(), Some(0));
}
