//! The log in Kafka. Fetching is apart from the group: one client fetches at exact offsets, one is the group's
//! member and only tells who has which partition, one asks and compares, one appends (idempotent, acks=all).
//! Invariant: nothing decides where to read but the caller; no position is ever taken from the group.

mod append;
mod bare;
mod client;
mod errors;
mod ffi;
mod lookup;
mod member;
mod properties;
mod reader;
mod statistics;
mod topics;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

pub use self::bare::{BareProducer, Drained, drain, forget, remove_group, remove_topics};
pub use self::properties::check as check_properties;

use self::client::{FetchContext, MemberContext, QuietContext, SendContext};
use self::errors::explain;
use self::member::{CHANGES_QUEUE, Current, KafkaMembership};
use self::properties::Client;
use self::reader::{Fetcher, KafkaReader};
use self::statistics::Reports;
use super::{Bounds, GroupOffset, Log, LogError, Membership, NewRecord, Reader, Role, Topic};
use crate::pure::place::{NextOffset, Offset, PartitionId, Partitioner};
use crate::pure::record::RecordIdentity;
use crate::telemetry::KafkaStatistics;

/// How long one question to the brokers may take.
const CALL_PATIENCE: Duration = Duration::from_secs(5);
/// Room for the headers of a dead letter.
const HEADER_BYTES: usize = 64 << 10;
/// How long the number of partitions is believed when keys are placed.
const PARTITIONS_BELIEVED: Duration = Duration::from_secs(10);
/// The pause while the producer's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// What a Kafka log is made with.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port[,host:port]`.
    pub bootstrap: String,
    /// The events' topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Partitions of a topic made by Khala.
    pub partitions: u32,
    /// Replicas of a topic made by Khala; `None`: the broker's default.
    pub replication_factor: Option<u16>,
    /// How keys are placed.
    pub partitioner: Partitioner,
    /// The largest value that is an event.
    pub max_event_bytes: usize,
    /// librdkafka's properties by their own names.
    pub properties: BTreeMap<String, String>,
}

/// The client that only asks.
type Asking = Arc<BaseConsumer<QuietContext>>;

/// A log in Kafka.
pub struct KafkaLog {
    settings: KafkaSettings,
    asking: OnceLock<Asking>,
    fetcher: OnceLock<Arc<Fetcher>>,
    /// Reads single records, once one was asked for.
    looker: tokio::sync::Mutex<Option<Arc<Fetcher>>>,
    producer: OnceLock<FutureProducer<SendContext>>,
    member: Current,
    reports: Arc<Reports>,
    partitions: tokio::sync::Mutex<Option<(u32, Instant)>>,
}

impl KafkaLog {
    /// A log that connects when it is first used.
    ///
    /// # Errors
    /// `Refused`: a property is unknown to librdkafka, or not the user's to set.
    pub fn new(settings: KafkaSettings) -> Result<Self, LogError> {
        properties::check(&settings.properties)?;
        // Before librdkafka does: OpenSSL would else be taken away at the process' end under the threads that still use it,
        // and one in a hundred commands crashed there.
        #[cfg(feature = "tls")]
        openssl_sys::init();
        let log = Self {
            settings,
            asking: OnceLock::new(),
            fetcher: OnceLock::new(),
            looker: tokio::sync::Mutex::default(),
            producer: OnceLock::new(),
            member: Current::default(),
            reports: Arc::default(),
            partitions: tokio::sync::Mutex::default(),
        };
        log.asking()?; // tells of properties that librdkafka does not know
        Ok(log)
    }

    fn client<T>(&self, client: Client, make: impl FnOnce(&ClientConfig) -> KafkaResult<T>) -> Result<T, LogError> {
        make(&properties::config(&self.settings, client)).map_err(|error| {
            explain(
                &self.settings.bootstrap,
                "setting up a client (see [kafka] in the settings)",
                &error,
            )
        })
    }

    fn topic_name(&self, role: Role) -> String {
        role.topic(&self.settings.topic)
    }

    fn asking(&self) -> Result<&Asking, LogError> {
        if let Some(asking) = self.asking.get() {
            return Ok(asking);
        }
        let make = |config: &ClientConfig| config.create_with_context(QuietContext::default());
        let asking = Arc::new(self.client(Client::Ask, make)?);
        serve_events(&asking)?;
        Ok(self.asking.get_or_init(|| asking))
    }

    /// Asks on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        what: String,
        question: impl FnOnce(&Asking) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let asking = Arc::clone(self.asking()?);
        let client = Arc::clone(&asking);
        match tokio::task::spawn_blocking(move || question(&asking)).await {
            Ok(answer) => answer.map_err(|error| {
                let told = client.context().take_trouble();
                let what = if told.is_empty() {
                    what
                } else {
                    format!("{what} ({told})")
                };
                explain(&self.settings.bootstrap, &what, &error)
            }),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    async fn metadata(&self, topic: String) -> Result<Metadata, LogError> {
        let what = format!("topic {topic}");
        self.ask(what, move |asking| asking.fetch_metadata(Some(&topic), CALL_PATIENCE))
            .await
    }

    fn fetcher(&self) -> Result<Arc<Fetcher>, LogError> {
        if let Some(fetcher) = self.fetcher.get() {
            return Ok(Arc::clone(fetcher));
        }
        let fetcher = self.new_fetcher(Client::Fetch)?;
        Ok(Arc::clone(self.fetcher.get_or_init(|| fetcher)))
    }

    fn new_fetcher(&self, client: Client) -> Result<Arc<Fetcher>, LogError> {
        let make = |config: &ClientConfig| config.create_with_context(FetchContext::new(Arc::clone(&self.reports)));
        let fetcher = Fetcher::new(self.client(client, make)?);
        serve_events(&fetcher.consumer)?;
        Ok(fetcher)
    }

    fn producer(&self) -> Result<&FutureProducer<SendContext>, LogError> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer);
        }
        let context = SendContext(Arc::clone(&self.reports));
        let producer = self.client(Client::Produce, |config| config.create_with_context(context))?;
        Ok(self.producer.get_or_init(|| producer))
    }

    /// The number of partitions by which keys are placed.
    /// One asks, the others wait in their order: appends begun one after the other stay so.
    async fn partitions(&self) -> Result<u32, LogError> {
        let mut known = self.partitions.lock().await;
        if let Some((count, _)) = known.filter(|(_, since)| since.elapsed() < PARTITIONS_BELIEVED) {
            return Ok(count);
        }
        let metadata = self.metadata(self.settings.topic.clone()).await?;
        let count = self.count(&metadata, Role::Events)?;
        *known = Some((count, Instant::now()));
        Ok(count)
    }

    fn count(&self, metadata: &Metadata, role: Role) -> Result<u32, LogError> {
        let name = self.topic_name(role);
        topics::partitions_of(metadata, &name)
            .filter(|count| *count > 0)
            .ok_or_else(|| {
                let address = &self.settings.bootstrap;
                LogError::Refused(format!(
                    "{address}: there is no topic {name}; `khala topics apply` makes it"
                ))
            })
    }
}

/// A thread that takes a client's events (errors, logs) for as long as anybody has the client: they would pile up.
fn serve_events<C: ConsumerContext + 'static>(client: &Arc<BaseConsumer<C>>) -> Result<(), LogError> {
    let weak = Arc::downgrade(client);
    let serve = move || {
        while let Some(client) = weak.upgrade() {
            let _ = client.poll(CALL_PATIENCE / 50);
        }
    };
    let started = std::thread::Builder::new().name("khala-kafka".to_owned()).spawn(serve);
    started.map_err(|error| LogError::Refused(format!("no thread can be started: {error}")))?;
    Ok(())
}

#[async_trait]
impl Log for KafkaLog {
    async fn prepare(&self) -> Result<Vec<String>, LogError> {
        topics::prepare(self).await
    }

    async fn topic(&self) -> Result<Topic, LogError> {
        let name = self.settings.topic.clone();
        let metadata = self.metadata(name.clone()).await?;
        let partitions = self.count(&metadata, Role::Events)?;
        let asked = name.clone();
        let id = self.ask(format!("topic {name}"), move |asking| {
            ffi::topic_id(asking.client().native_ptr(), &asked, CALL_PATIENCE)
        });
        Ok(Topic {
            name,
            partitions,
            id: id.await?.unwrap_or_default(),
        })
    }

    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        self.bounds_of(Role::Events, partition).await
    }

    async fn record_at(&self, partition: PartitionId, offset: Offset) -> Result<Option<RecordIdentity>, LogError> {
        self.look_up(partition, offset).await
    }

    async fn reader(&self, role: Role, partition: PartitionId, from: NextOffset) -> Result<Box<dyn Reader>, LogError> {
        let (topic, address) = (self.topic_name(role), &self.settings.bootstrap);
        if role == Role::Events
            && let Some(reader) = KafkaReader::open(&self.fetcher()?, address, &topic, partition, from)?
        {
            return Ok(Box::new(reader));
        }
        let own = self.new_fetcher(Client::Fetch)?;
        match KafkaReader::open(&own, address, &topic, partition, from)? {
            Some(reader) => Ok(Box::new(reader)),
            None => Err(LogError::Refused(format!(
                "{address}: topic {topic}, partition {partition} is read already"
            ))),
        }
    }

    async fn append(&self, role: Role, records: Vec<NewRecord>) -> Vec<Result<(PartitionId, Offset), LogError>> {
        self.append_all(role, records).await
    }

    async fn join(&self) -> Result<Box<dyn Membership>, LogError> {
        let (changes, receiver) = tokio::sync::mpsc::channel(CHANGES_QUEUE);
        let reports = Arc::clone(&self.reports);
        let make = |config: &ClientConfig| config.create_with_context(MemberContext { changes, reports });
        let consumer: BaseConsumer<MemberContext> = self.client(Client::Member, make)?;
        let topic = &self.settings.topic;
        consumer
            .subscribe(&[topic])
            .map_err(|error| explain(&self.settings.bootstrap, &format!("subscribing to {topic}"), &error))?;
        let member = KafkaMembership::start(consumer, receiver, Arc::clone(&self.member));
        let member = member.map_err(|error| LogError::Refused(format!("no thread can be started: {error}")))?;
        Ok(Box::new(member))
    }

    async fn group_offset(&self, partition: PartitionId) -> Result<Option<NextOffset>, LogError> {
        let topic = self.settings.topic.clone();
        let what = format!("offset of group {}, partition {partition}", self.settings.group);
        self.ask(what, move |asking| {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition(&topic, partition.0 as i32);
            let offsets = asking.committed_offsets(list, CALL_PATIENCE)?;
            let found = offsets
                .elements()
                .first()
                .map(|element| (element.error(), element.offset()));
            match found {
                Some((Ok(()), KafkaOffset::Offset(offset))) => Ok(u64::try_from(offset).ok().map(NextOffset)),
                Some((Err(error), _)) => Err(error),
                _ => Ok(None),
            }
        })
        .await
    }

    async fn commit_group(&self, offsets: Vec<GroupOffset>) -> Result<(), LogError> {
        let topic = self.settings.topic.clone();
        let member = self.member.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let what = format!("committing offsets of group {}", self.settings.group);
        self.ask(what, move |asking| {
            let mut list = TopicPartitionList::with_capacity(offsets.len());
            for offset in &offsets {
                let mut element = list.add_partition(&topic, offset.partition.0 as i32);
                element.set_offset(KafkaOffset::Offset(offset.next.0 as i64))?;
                element.set_metadata(&offset.metadata);
            }
            match member {
                Some(member) => member.commit(&list, CommitMode::Sync),
                None => asking.commit(&list, CommitMode::Sync),
            }
        })
        .await
    }

    fn statistics(&self) -> Option<KafkaStatistics> {
        self.reports.sum()
    }

    async fn bounds_of(&self, role: Role, partition: PartitionId) -> Result<Bounds, LogError> {
        let topic = self.topic_name(role);
        let what = format!("bounds of topic {topic}, partition {partition}");
        let (first, end) = self
            .ask(what, move |asking| {
                asking.fetch_watermarks(&topic, partition.0 as i32, CALL_PATIENCE)
            })
            .await?;
        Ok(Bounds {
            first: NextOffset(first.max(0) as u64),
            end: NextOffset(end.max(0) as u64),
        })
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        if let Some(producer) = self.producer.get() {
            let _ = producer.flush(CALL_PATIENCE);
        }
    }
}
