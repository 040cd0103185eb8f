//! One test's world: a topic and a namespace of its own, a Redis of its own, and a broker, shared or its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use rdkafka::config::ClientConfig;

use super::topic;
use crate::reference::Rec;
use crate::reference::messy::{Message, Messy, Shape};
use crate::support::broker::Kafka;
use crate::support::guarded::temp_dir;
use crate::support::khala::{Cluster, Khala};
use crate::support::redis_server::{Keeps, Redis};
use crate::support::wait::{eventually, seconds};

enum Broker {
    Shared(&'static Kafka),
    Own(Box<Kafka>),
}

/// A world.
pub struct World {
    broker: Broker,
    pub redis: Redis,
    pub cluster: Cluster,
    pub partitions: u32,
    messy: Messy,
    dir: tempfile::TempDir,
}

fn shared() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(Kafka::start)
}

/// Tells what a failed test shows.
#[expect(
    clippy::print_stdout,
    reason = "the test harness keeps it, and shows it when the test fails"
)]
pub fn note(text: &str) {
    println!("{text}");
}

impl World {
    /// A world on the shared broker, with a topic of so many partitions for about so many events.
    pub fn new(name: &str, partitions: u32, events: usize, keeps: Keeps) -> Self {
        Self::on(Broker::Shared(shared()), name, partitions, events, keeps)
    }

    /// A world with a broker that the test may stop.
    pub fn with_own_broker(name: &str, partitions: u32, events: usize) -> Self {
        let own = Broker::Own(Box::new(Kafka::start()));
        Self::on(own, name, partitions, events, Keeps::AppendOnly)
    }

    /// A world on the first of some brokers, whose topic the test makes.
    pub fn with_brokers(
        first: Kafka,
        name: &str,
        partitions: u32,
        events: usize,
        topic: fn(&Kafka, &str, u32),
    ) -> Self {
        Self::made(
            Broker::Own(Box::new(first)),
            name,
            partitions,
            events,
            Keeps::AppendOnly,
            topic,
        )
    }

    fn on(broker: Broker, name: &str, partitions: u32, events: usize, keeps: Keeps) -> Self {
        Self::made(broker, name, partitions, events, keeps, Kafka::create_topic)
    }

    fn made(
        broker: Broker,
        name: &str,
        partitions: u32,
        events: usize,
        keeps: Keeps,
        topic: fn(&Kafka, &str, u32),
    ) -> Self {
        let redis = Redis::start(keeps);
        let kafka = match &broker {
            Broker::Shared(kafka) => kafka,
            Broker::Own(kafka) => kafka.as_ref(),
        };
        let cluster = Cluster {
            log: format!("kafka://{}", kafka.address()),
            store: redis.url(),
            topic: format!("{name}.events"),
            namespace: name.to_owned(),
        };
        topic(kafka, &cluster.topic, partitions);
        let seed = name.bytes().map(u64::from).sum::<u64>();
        let mut shape = Shape::of(events, partitions);
        shape.huge = true;
        note(&format!(
            "{name}: seed {seed}, {events} events, {partitions} partitions"
        ));
        Self {
            broker,
            redis,
            cluster,
            partitions,
            messy: Messy::new(seed, shape),
            dir: temp_dir(name),
        }
    }

    pub fn kafka(&self) -> &Kafka {
        match &self.broker {
            Broker::Shared(kafka) => kafka,
            Broker::Own(kafka) => kafka,
        }
    }

    /// The broker to stop and start: only a world's own.
    pub fn own_broker(&mut self) -> &mut Kafka {
        match &mut self.broker {
            Broker::Shared(_) => panic!("the shared broker is not to be stopped"),
            Broker::Own(kafka) => kafka,
        }
    }

    pub fn config(&self) -> ClientConfig {
        self.kafka().config()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A serving process, ready.
    pub fn khala(&self, name: &str) -> Khala {
        Khala::start(self.dir(), &self.cluster, name, &[])
    }

    /// A serving process that may never be ready.
    pub fn khala_unready(&self, name: &str) -> Khala {
        Khala::start_unready(self.dir(), &self.cluster, name, &[])
    }

    /// Produces the next `n` messy messages.
    pub fn produce(&mut self, n: usize) {
        let messages = self.messy.take(n);
        self.send(&messages);
    }

    /// The next `n` messy messages, not sent.
    pub fn messages(&mut self, n: usize) -> Vec<Message> {
        self.messy.take(n)
    }

    pub fn send(&self, messages: &[Message]) {
        topic::send(&self.config(), &self.cluster.topic, messages);
    }

    pub fn read_back(&self) -> Vec<Rec> {
        topic::read_back(&self.config(), &self.cluster.topic)
    }

    /// `{<ns>:<p>}:<rest>`.
    pub fn key(&self, partition: u32, rest: &str) -> String {
        format!("{{{}:{partition}}}:{rest}", self.cluster.namespace)
    }

    /// The fields of a partition's checkpoint; empty if there is none.
    pub fn checkpoint(&self, partition: u32) -> BTreeMap<String, String> {
        self.redis.ask(&["HGETALL", &self.key(partition, "checkpoint")])
    }

    /// The checkpoints' offsets; 0 where there is none.
    pub fn offsets(&self) -> Vec<u64> {
        let offset = |p| self.checkpoint(p).get("offset").and_then(|text| text.parse().ok());
        (0..self.partitions).map(|p| offset(p).unwrap_or(0)).collect()
    }

    /// Records covered by the checkpoints of all partitions.
    pub fn applied(&self) -> u64 {
        self.offsets().iter().sum()
    }

    /// Waits until at least so many records are covered: a test's "in the middle".
    pub fn wait_applied(&self, at_least: u64) {
        eventually("records are applied", seconds(60), || {
            let applied = self.applied();
            if applied >= at_least { Ok(()) } else { Err(applied) }
        });
    }

    /// Waits until every checkpoint is at its partition's end.
    pub fn settle(&self) {
        let ends: Vec<u64> = topic::bounds(&self.config(), &self.cluster.topic)
            .into_iter()
            .map(|(_, end)| end)
            .collect();
        eventually(&format!("checkpoints at {ends:?}"), seconds(60), || {
            let offsets = self.offsets();
            if offsets[..] == ends[..offsets.len()] {
                Ok(())
            } else {
                Err(offsets)
            }
        });
    }
}
