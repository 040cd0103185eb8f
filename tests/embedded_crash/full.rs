//! A disk without room: publishing is refused for now (503) and told what, where and what next; nothing more is
//! acknowledged. With room again and after a restart just what was acknowledged is there, and the documents are its fold.
//! A small file system of its own is mounted where that is allowed (in a mount namespace, as root or as anybody); a
//! limit on the size of files takes the same way through the code, and works everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use khala::log::{FetchLimits, Log, Role};
use khala::pure::entity::Entity;
use khala::pure::place::{NextOffset, PartitionId};
use khala::store::Store;
use serde_json::{Value, json};

use super::{PARTITIONS, open_log, open_store};
use crate::reference::Rec;
use crate::reference::decode::Rules;
use crate::reference::fold::fold;
use crate::reference::messy::dice::Dice;
use crate::support::guarded::temp_dir;
use crate::support::khala::{Cluster, Khala, run};
use crate::support::wait::{eventually, seconds};

/// Where the child in a mount namespace finds its file system, and how many MiB of it somebody else has taken.
const MOUNTED: &str = "KHALA_TEST_FULL_DISK";
const TAKEN: &str = "KHALA_TEST_FULL_DISK_TAKEN";
const RUNS: u64 = 7;
const EVENTS: u64 = 40;
const MIB: u64 = 1 << 20;
/// More requests than any of the two disks has room for.
const REQUESTS_MAX: u64 = 2000;

/// How room is taken away, and given back.
enum Disk {
    /// A small file system, some of it taken by a file of somebody else.
    Small { others: PathBuf },
    /// No file may be larger than this, from when the server is ready.
    Limited { file_bytes_max: u64 },
}

impl Disk {
    fn small(dir: &Path, taken: u64) -> Self {
        let others = dir.join("others");
        std::fs::write(&others, vec![1; (taken * MIB) as usize]).unwrap();
        Self::Small { others }
    }

    fn fill_up(&self, khala: &Khala) {
        if let Self::Limited { file_bytes_max } = self {
            limit_files(khala, &file_bytes_max.to_string());
        }
    }

    fn make_room(&self, khala: &Khala) {
        match self {
            Self::Small { others } => std::fs::remove_file(others).unwrap(),
            Self::Limited { .. } => limit_files(khala, "unlimited"),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Small { .. } => "No space left on device",
            Self::Limited { .. } => "File too large",
        }
    }
}

fn limit_files(khala: &Khala, soft: &str) {
    let limit = [format!("--pid={}", khala.pid()), format!("--fsize={soft}:")];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
}

/// An answer that refuses.
#[derive(Debug)]
struct Refusal {
    status: u16,
    retry_after: Option<String>,
    text: String,
}

impl Refusal {
    /// For now; by what, where, and what helps.
    fn is_of(&self, disk: &Disk, log: &Path) {
        let Self { status, text, .. } = self;
        assert_eq!(*status, 503, "{text}");
        let seconds: u64 = self.retry_after.as_deref().expect("Retry-After").parse().unwrap();
        assert!(seconds > 1, "a person is needed: {seconds} s");
        let said: Value = serde_json::from_str(text).unwrap();
        assert_eq!(said["error"]["code"], "disk_full", "{text}");
        let message = said["error"]["message"].as_str().unwrap();
        let log = log.display().to_string();
        for part in [
            disk.reason(),
            &log,
            "nothing is acknowledged",
            "Make room",
            "restart Khala",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}

/// A producer that knows what was acknowledged.
struct Producer {
    dice: Dice,
    requests: u64,
    /// Id, partition, offset.
    acknowledged: Vec<(String, u64, u64)>,
}

impl Producer {
    /// Events of all runs; their data do not compress.
    fn request(&mut self) -> String {
        let event = |i: u64| {
            let text: String = (0..4096)
                .map(|_| char::from(b'a' + self.dice.below(26) as u8))
                .collect();
            json!({
                "specversion": "1.0", "id": format!("{}-{i}", self.requests), "source": "full", "type": "run.delta",
                "subject": format!("run/r{}", i % RUNS), "sequence": self.requests * EVENTS + i + 1,
                "data": {"delta": text},
            })
        };
        Value::Array((0..EVENTS).map(event).collect()).to_string()
    }

    fn publish(&mut self, khala: &Khala, body: &str) -> Result<(), Refusal> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(format!("http://{}/v1/events", khala.http()));
        let answer = request
            .header("content-type", "application/cloudevents-batch+json")
            .send(body);
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        if answer.status() != 202 {
            let retry_after = answer.headers().get("retry-after");
            return Err(Refusal {
                status: answer.status().as_u16(),
                retry_after: retry_after.map(|seconds| seconds.to_str().unwrap().to_owned()),
                text,
            });
        }
        let told: Value = serde_json::from_str(&text).unwrap();
        for event in told["events"].as_array().unwrap() {
            let number = |name: &str| event[name].as_u64().unwrap();
            let id = event["id"].as_str().unwrap().to_owned();
            self.acknowledged.push((id, number("partition"), number("offset")));
        }
        self.requests += 1;
        Ok(())
    }
}

fn serve(logs: &Path, cluster: &Cluster, name: &str) -> Khala {
    let khala = Khala::start_with(
        logs,
        cluster,
        name,
        &[],
        &[("KHALA_PARTITIONS", &PARTITIONS.to_string())],
    );
    khala.wait_ready();
    khala
}

/// Publishes until there is no room, makes room, restarts.
fn story(disk: &Disk, dir: &Path) {
    let (data, logs) = (dir.join("data"), temp_dir("full-logs"));
    let place = format!("embedded:{}", data.display());
    let cluster = Cluster {
        log: place.clone(),
        store: place,
        topic: "khala.events".to_owned(),
        namespace: "khala".to_owned(),
    };
    let khala = serve(logs.path(), &cluster, "one");
    disk.fill_up(&khala);
    let mut producer = Producer {
        dice: Dice::new(1),
        requests: 0,
        acknowledged: Vec::new(),
    };
    let (refused, said) = loop {
        assert!(producer.requests < REQUESTS_MAX, "there is room for everything");
        let body = producer.request();
        if let Err(said) = producer.publish(&khala, &body) {
            break (body, said);
        }
    };
    assert!(producer.requests > 3, "refused at once: {}", said.text);
    let log = data.join("log");
    said.is_of(disk, &log);
    for _ in 0..5 {
        let said = producer.publish(&khala, &refused).expect_err("without room");
        said.is_of(disk, &log);
    }
    disk.make_room(&khala);
    let (status, text) = khala.get("/readyz").unwrap();
    let told = ["\"why\":\"disk_full\"", disk.reason(), "restart Khala"].map(|part| text.contains(part));
    assert_eq!((status, told), (503, [true; 3]), "{text}");
    let said = producer
        .publish(&khala, &refused)
        .expect_err("not before a restart has read what the disk has");
    said.is_of(disk, &log);
    assert!(khala.stderr().contains("stopped until a restart"));
    khala.term();
    just_what_was_acknowledged(&read_back(&data), &producer, &refused);
    let khala = serve(logs.path(), &cluster, "two");
    producer.publish(&khala, &refused).unwrap();
    for _ in 0..3 {
        let body = producer.request();
        producer.publish(&khala, &body).unwrap();
    }
    settle(&khala);
    let audit = run(&cluster, &["audit"], "");
    assert_eq!(
        audit.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&audit.stderr)
    );
    assert_eq!(khala.term(), Some(0));
    documents_are_the_fold(&data, &producer);
}

fn settle(khala: &Khala) {
    eventually("everything is applied", seconds(60), || {
        let (_, status) = khala.get("/v1/status")?;
        let lag = serde_json::from_str::<Value>(&status).unwrap()["totals"]["lag_events"].clone();
        if lag == 0 { Ok(()) } else { Err(lag.to_string()) }
    });
}

/// All records of the log, with nobody else there.
fn read_back(dir: &Path) -> Vec<Rec> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = open_log(dir).unwrap();
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            let mut reader = log
                .reader(Role::Events, PartitionId(partition), NextOffset(0))
                .await
                .unwrap();
            let limits = FetchLimits {
                records: 5000,
                bytes: 4 << 20,
                wait: Duration::ZERO,
            };
            loop {
                let batch = reader.fetch(limits).await.unwrap();
                if batch.is_empty() {
                    break;
                }
                records.extend(batch.iter().map(|record| Rec {
                    partition,
                    offset: record.offset.0,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: Vec::new(),
                }));
            }
        }
        records
    })
}

fn id(record: &Rec) -> String {
    let event: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
    event["id"].as_str().unwrap().to_owned()
}

/// Each acknowledged event in its place; beside them at most those of the one request whose write failed.
fn just_what_was_acknowledged(records: &[Rec], producer: &Producer, refused: &str) {
    for (event, partition, offset) in &producer.acknowledged {
        let found = records
            .iter()
            .find(|record| (u64::from(record.partition), record.offset) == (*partition, *offset));
        assert_eq!(
            found.map(id).as_ref(),
            Some(event),
            "partition {partition}, offset {offset}"
        );
    }
    let more = records.len() - producer.acknowledged.len();
    assert!(
        more == 0 || more == EVENTS as usize,
        "{more} events more than were acknowledged"
    );
    let unknown = records
        .iter()
        .map(id)
        .filter(|id| refused.contains(&format!("\"id\":\"{id}\"")));
    assert_eq!(unknown.count(), more);
}

fn documents_are_the_fold(dir: &Path, producer: &Producer) {
    let records = read_back(dir);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open_store(dir).unwrap();
    let mut counted = 0;
    for (partition, folded) in fold(&records, &Rules::of(PARTITIONS)) {
        for (subject, entity) in folded.entities {
            let entity_id = Entity::parse(&subject).unwrap();
            let document = runtime
                .block_on(store.document(PartitionId(partition), &entity_id))
                .unwrap();
            let document = String::from_utf8(document.unwrap()).unwrap();
            let fields: Value = serde_json::from_str(&document).unwrap();
            assert_eq!(document, entity.stored(fields["projected_at"].as_str().unwrap()));
            counted += fields["event_count"].as_u64().unwrap();
        }
    }
    assert_eq!(
        counted,
        producer.acknowledged.len() as u64,
        "each acknowledged event counts once"
    );
}

/// `unshare` with what it needs to mount something here; `None`: nobody lets us.
fn namespace() -> Option<Vec<&'static str>> {
    let dir = temp_dir("mount");
    let may = |flags: &Vec<&str>| {
        let mut command = Command::new("unshare");
        command
            .args(flags)
            .args(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path());
        command.output().is_ok_and(|output| output.status.success())
    };
    [vec!["--mount"], vec!["--mount", "--map-root-user"]]
        .into_iter()
        .find(may)
}

/// Not a test of its own: the story on the file system that the test below has mounted for it.
#[test]
fn child() {
    if let Some(dir) = std::env::var_os(MOUNTED).map(PathBuf::from) {
        let taken = std::env::var(TAKEN).unwrap().parse().unwrap();
        story(&Disk::small(&dir, taken), &dir);
    }
}

#[test]
fn a_full_disk_is_told_and_loses_nothing_acknowledged() {
    on_a_disk_of(64, 48);
}

/// The journal still has room when a table that is written behind it has none: the next commit is told no reason.
#[test]
fn a_disk_that_is_full_for_a_table_is_told_and_loses_nothing_acknowledged() {
    on_a_disk_of(160, 64);
}

/// In MiB: all of it, and what somebody else has taken.
fn on_a_disk_of(size: u64, taken: u64) {
    let dir = temp_dir("full");
    let Some(flags) = namespace() else {
        println!("no file system can be mounted here: files that may not grow are looked at instead");
        return story(
            &Disk::Limited {
                file_bytes_max: 6 * MIB,
            },
            dir.path(),
        );
    };
    let script =
        format!("mount -t tmpfs -o size={size}m tmpfs \"${MOUNTED}\" && exec \"$0\" --exact full::child --nocapture");
    let mut command = Command::new("unshare");
    command
        .args(flags)
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap());
    let output = command
        .env(MOUNTED, dir.path())
        .env(TAKEN, taken.to_string())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(String::from_utf8_lossy(&said).contains("1 passed"), "the child ran");
}

#[test]
fn files_that_may_not_grow_are_told_and_lose_nothing_acknowledged() {
    let dir = temp_dir("limited");
    story(
        &Disk::Limited {
            file_bytes_max: 4 * MIB,
        },
        dir.path(),
    );
}
