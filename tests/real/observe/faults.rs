//! The faults that alerts are for, one namespace each, made at once and healed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::guarded::free_port;
use crate::support::khala::{Khala, publish_to};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually_true, seconds};
use crate::world::World;

/// Tries fail often enough that a window of five seconds sees it.
const IMPATIENT: &[&str] = &["--backoff-max", "500ms"];

const PUBLISHERS: usize = 2;

struct Site {
    world: World,
    khala: Khala,
}

impl Site {
    fn new(name: &str, partitions: u32, extra: &[&str]) -> Self {
        let world = World::new(name, partitions, 40_000, Keeps::AppendOnly);
        let khala = Khala::start(world.dir(), &world.cluster, "khala", extra);
        Self { world, khala }
    }

    /// One that sends its metrics to where nobody listens, twice a second.
    fn unheard(name: &str, partitions: u32, extra: &[&str]) -> Self {
        let world = World::new(name, partitions, 40_000, Keeps::AppendOnly);
        let nowhere = format!("http://127.0.0.1:{}/v1/metrics", free_port());
        let variables = [
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", nowhere.as_str()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
        ];
        let khala = Khala::start_with(world.dir(), &world.cluster, "khala", extra, &variables);
        khala.wait_ready();
        Self { world, khala }
    }
}

/// All of it.
pub struct Faults {
    calm: Site,
    away: Site,
    held: Site,
    drift: Site,
    replay: Site,
    slow: Site,
    letters: Site,
    publish: Site,
    /// Of the checkpoint that is spoilt.
    offset: String,
    sent: u64,
    publisher: Option<Publisher>,
}

impl Faults {
    pub fn begin() -> Self {
        let mut publish = World::new("alert-publish", 1, 100, Keeps::Dumps);
        let khala = publish.khala("khala");
        publish.produce(10);
        let faults = Self {
            calm: Site::unheard("alert-calm", 2, &["--audit-every", "1s"]),
            away: Site::new("alert-away", 1, IMPATIENT),
            held: Site::new("alert-held", 2, &[]),
            drift: Site::new("alert-drift", 6, &[]),
            replay: Site::new("alert-replay", 1, IMPATIENT),
            slow: Site::new("alert-slow", 1, &["--batch-events", "2"]),
            letters: Site::new("alert-letters", 1, &[]),
            publish: Site { world: publish, khala },
            offset: String::new(),
            sent: 0,
            publisher: None,
        };
        for site in faults.all() {
            send(&site.world, 0, 20, 0);
            site.world.settle();
        }
        faults.audit_letters();
        faults
    }

    fn all(&self) -> [&Site; 8] {
        [
            &self.calm,
            &self.away,
            &self.held,
            &self.drift,
            &self.replay,
            &self.slow,
            &self.letters,
            &self.publish,
        ]
    }

    pub fn calm_log(&self) -> String {
        self.calm.khala.stderr()
    }

    pub fn targets(&self) -> Vec<&str> {
        self.all().map(|site| site.khala.http()).to_vec()
    }

    pub fn make(&mut self) {
        self.drift.world.produce(3_000);
        self.drift.world.settle();
        self.tamper();
        self.lose_documents();
        let _: String = self.drift.world.redis.ask(&["CONFIG", "SET", "maxmemory", "1gb"]);
        self.tighten_memory();
        self.fail_a_replay();

        self.away.world.redis.stop();
        send(&self.away.world, 1_000, 20, -120_000);

        let held = &self.held.world;
        held.kafka().delete_records(&held.cluster.topic, 0, 1);
        let key = held.key(0, "checkpoint");
        self.offset = held.redis.ask(&["HGET", &key, "offset"]);
        let _: i64 = held.redis.ask(&["HSET", &key, "offset", "garbage"]);
        send(held, 1_000, 20, 0);

        let publish = &self.publish.world;
        publish.kafka().set_max_message_bytes(&publish.cluster.topic, 50); // no event is that short
        self.publisher = Some(Publisher::start(self.publish.khala.http()));
        self.go_on();
    }

    /// What must go on for a fault to last: called again and again.
    pub fn go_on(&mut self) {
        self.sent += 1;
        let from = 10_000 + self.sent * 1_000;
        send(&self.slow.world, from, 600, -5_000);
        send(&self.letters.world, from, 20, 0);
        send_garbage(&self.letters.world, 20);
        send(&self.calm.world, from, 5, 0);
    }

    /// The whole store is lost at once, in six partitions.
    fn lose_documents(&self) {
        let world = &self.drift.world;
        let _: String = world.redis.ask(&["FLUSHALL"]);
        world.settle();
    }

    fn tighten_memory(&self) {
        let redis = &self.drift.world.redis;
        let read = || -> u64 {
            let info: String = redis.ask(&["INFO", "memory"]);
            let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
            used.expect("a number").trim().parse().expect("a number")
        };
        // Redis gives the buffers of large batches back after some seconds.
        let (mut used, mut since) = (read(), Instant::now());
        eventually_true("Redis' memory stands still", seconds(60), || {
            let now = read();
            if now.abs_diff(used) > used / 100 {
                (used, since) = (now, Instant::now());
            }
            since.elapsed() >= seconds(6)
        });
        // Nine tenths and a little are in use; nothing more comes.
        let limit = (used * 104 / 100).to_string();
        let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", &limit]);
    }

    /// The store is away when a replay is asked for.
    fn fail_a_replay(&mut self) {
        let Site { world, khala } = &mut self.replay;
        world.redis.stop();
        let answer = khala.post("/v1/replays", r#"{"from":"earliest"}"#);
        assert!(answer.contains("\"error\""), "{answer}");
        world.redis.start_again();
        let failed = khala.metric("khala_replay_total", &[("scope", "namespace"), ("result", "error")]);
        assert!(failed > 0.0, "{answer}");
    }

    /// Somebody writes into a document, and an audit finds it.
    fn tamper(&self) {
        let Site { world, khala } = &self.drift;
        let keys: Vec<String> = (0..world.partitions)
            .flat_map(|p| -> Vec<String> { world.redis.ask(&["KEYS", &world.key(p, "run_summary:*")]) })
            .collect();
        let key = keys.first().expect("a document");
        let document: String = world.redis.ask(&["GET", key]);
        let other = document.replacen("\"event_count\":", "\"event_count\":1", 1);
        assert_ne!(other, document);
        let _: String = world.redis.ask(&["SET", key, &other]);
        let answer = khala.post("/v1/audits", "{}");
        assert!(answer.contains("summary_hash_mismatch"), "{answer}");
    }

    /// The audit that comes too seldom comes.
    pub fn audit_letters(&self) {
        let answer = self.letters.khala.post("/v1/audits", "{}");
        assert!(answer.contains("\"report\""), "{answer}");
    }

    pub fn heal(&mut self) {
        self.away.world.redis.start_again();
        let held = &self.held.world;
        let _: i64 = held
            .redis
            .ask(&["HSET", &held.key(0, "checkpoint"), "offset", &self.offset]);
        let _: String = self.drift.world.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        let publish = &self.publish.world;
        publish.kafka().set_max_message_bytes(&publish.cluster.topic, 2_097_152);
        self.publisher = None;
        for site in [
            &self.away,
            &self.held,
            &self.drift,
            &self.replay,
            &self.letters,
            &self.calm,
        ] {
            site.world.settle();
        }
    }

    /// All processes stand still, as on a machine that is swapping to death.
    pub fn freeze(&self) {
        self.all().iter().for_each(|site| site.khala.sigstop());
    }

    pub fn thaw(&self) {
        self.all().iter().for_each(|site| site.khala.sigcont());
    }
}

/// Some who publish without a pause, until dropped.
struct Publisher {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Publisher {
    fn start(http: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let publish = || {
            let (told, http) = (Arc::clone(&stop), http.to_owned());
            move || {
                while !told.load(Ordering::Relaxed) {
                    // It is refused, which is the point.
                    let _ = publish_to(&http, EVENT);
                }
            }
        };
        let threads = (0..PUBLISHERS).map(|_| std::thread::spawn(publish())).collect();
        Self { stop, threads }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"worker.heartbeat","subject":"worker/w"}"#;

/// Legal events to partition 0, with record timestamps so far from now.
fn send(world: &World, first: u64, count: u64, from_now_ms: i64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64;
    let ids = (0..).map(|n| format!("n{n}"));
    let id = ids
        .into_iter()
        .find(|id| is_at_home(world, id))
        .expect("one of them is");
    let events = (first + 1..=first + count).map(|n| {
        let text = format!(
            r#"{{"specversion":"1.0","id":"{n}","source":"s","type":"run.delta","subject":"run/{id}","sequence":{n}}}"#
        );
        (format!("run/{id}"), text)
    });
    produce(world, events, now + from_now_ms);
}

fn is_at_home(world: &World, id: &str) -> bool {
    crate::reference::place::partition_of(format!("run/{id}").as_bytes(), world.partitions) == 0
}

fn send_garbage(world: &World, count: u64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64;
    produce(
        world,
        (0..count).map(|n| ("run/x".to_owned(), format!("garbage {n}"))),
        now,
    );
}

fn produce(world: &World, records: impl Iterator<Item = (String, String)>, timestamp_ms: i64) {
    let producer: BaseProducer = world.config().create().expect("a legal configuration");
    for (key, value) in records {
        let record = BaseRecord::to(&world.cluster.topic)
            .partition(0)
            .key(&key)
            .payload(&value)
            .timestamp(timestamp_ms);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("room in the queue");
    }
    producer.flush(seconds(60)).expect("the broker takes it");
}
