//! Makes the topics that Khala needs, and checks the settings of those there are.

use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use super::client::QuietContext;
use super::errors::explain;
use super::{HEADER_BYTES, KafkaLog, KafkaSettings};
use crate::log::{LogError, Role};

const LEADERS_PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The largest record of a topic made by Khala, in bytes.
fn record_bytes_max(settings: &KafkaSettings, role: Role) -> usize {
    let events = (2 * settings.max_event_bytes).max(2 << 20);
    match role {
        Role::Events => events,
        // A document is bounded by what 64 sources and their ranges take, far below two events.
        Role::DeadLetters | Role::Documents => events + HEADER_BYTES,
    }
}

/// Makes what is missing, checks what is there; a line for each thing done or doubtful.
pub(super) async fn prepare(log: &KafkaLog) -> Result<Vec<String>, LogError> {
    let admin: AdminClient<QuietContext> = log.client(super::properties::Client::Produce, |config| {
        config.create_with_context(QuietContext::default())
    })?;
    let mut lines = Vec::new();
    let events = existing(log, Role::Events).await?;
    let partitions = events.unwrap_or(log.settings.partitions);
    if let Some(found) = events.filter(|found| *found != log.settings.partitions) {
        let set = log.settings.partitions;
        lines.push(format!(
            "topic {} has {found} partitions (setting: {set}); it stays so",
            log.settings.topic
        ));
    }
    for role in Role::ALL {
        let name = log.topic_name(role);
        match if role == Role::Events {
            events
        } else {
            existing(log, role).await?
        } {
            None => {
                create(log, &admin, role, partitions).await?;
                lines.push(format!("topic {name} made with {partitions} partitions"));
            }
            Some(found) => {
                if found < partitions {
                    grow(log, &admin, &name, partitions).await?;
                    lines.push(format!(
                        "topic {name} grown from {found} to {partitions} partitions, as many as {} has",
                        log.settings.topic
                    ));
                }
                check(log, &admin, role, &mut lines).await?;
            }
        }
    }
    wait_for_leaders(log).await?;
    Ok(lines)
}

/// Number of partitions; `None` if there is no such topic.
async fn existing(log: &KafkaLog, role: Role) -> Result<Option<u32>, LogError> {
    let name = log.topic_name(role);
    let metadata = log.metadata(name.clone()).await?;
    Ok(partitions_of(&metadata, &name).filter(|count| *count > 0))
}

/// Number of a topic's partitions; `None` where the broker says that there is none.
pub(super) fn partitions_of(metadata: &Metadata, topic: &str) -> Option<u32> {
    let found = metadata
        .topics()
        .iter()
        .find(|found| found.name() == topic && found.error().is_none())?;
    Some(found.partitions().len() as u32)
}

async fn create(
    log: &KafkaLog,
    admin: &AdminClient<QuietContext>,
    role: Role,
    partitions: u32,
) -> Result<(), LogError> {
    let name = log.topic_name(role);
    let replicas = log.settings.replication_factor.map_or(-1, i32::from);
    let bytes = record_bytes_max(&log.settings, role).to_string();
    let topic = NewTopic::new(&name, partitions as i32, TopicReplication::Fixed(replicas))
        .set("max.message.bytes", &bytes)
        .set("cleanup.policy", role.cleanup());
    let options = AdminOptions::new()
        .operation_timeout(Some(LEADERS_PATIENCE))
        .request_timeout(Some(LEADERS_PATIENCE));
    let results = admin.create_topics([&topic], &options).await;
    let results = results.map_err(|error| explain(&log.settings.bootstrap, &format!("making topic {name}"), &error))?;
    match results.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(LogError::Refused(format!(
            "{}: topic {name} cannot be made: {code}",
            log.settings.bootstrap
        ))),
    }
}

/// A dead letter stays in its event's partition: there must be as many.
async fn grow(log: &KafkaLog, admin: &AdminClient<QuietContext>, name: &str, partitions: u32) -> Result<(), LogError> {
    let options = AdminOptions::new().request_timeout(Some(LEADERS_PATIENCE));
    let results = admin
        .create_partitions([&NewPartitions::new(name, partitions as usize)], &options)
        .await;
    let address = &log.settings.bootstrap;
    let results = results.map_err(|error| explain(address, &format!("growing topic {name}"), &error))?;
    match results.into_iter().next() {
        None | Some(Ok(_)) => Ok(()),
        // Another process grew it meanwhile.
        Some(Err(_))
            if existing(log, Role::DeadLetters)
                .await?
                .is_some_and(|found| found >= partitions) =>
        {
            Ok(())
        }
        Some(Err((_, code))) => Err(LogError::Refused(format!(
            "{address}: topic {name} needs {partitions} partitions and cannot be grown ({code}); run \
             `kafka-topics.sh --alter --topic {name} --partitions {partitions}`"
        ))),
    }
}

async fn check(
    log: &KafkaLog,
    admin: &AdminClient<QuietContext>,
    role: Role,
    lines: &mut Vec<String>,
) -> Result<(), LogError> {
    let name = log.topic_name(role);
    let address = &log.settings.bootstrap;
    let options = AdminOptions::new().request_timeout(Some(super::CALL_PATIENCE));
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(&name)], &options)
        .await;
    let described = described.map_err(|error| explain(address, &format!("settings of topic {name}"), &error))?;
    let resource = match described.into_iter().next() {
        Some(Ok(resource)) => resource,
        Some(Err(code)) => {
            lines.push(format!(
                "topic {name}: its settings cannot be read ({code}); make sure that cleanup.policy is {}",
                role.cleanup()
            ));
            return Ok(());
        }
        None => return Ok(()),
    };
    let policy = value(&resource, "cleanup.policy");
    if policy.contains("compact") != (role == Role::Documents) {
        let change = "kafka-configs.sh --alter --entity-type topics --entity-name";
        let (wanted, why) = match role {
            Role::Documents => ("compact", "snapshots would be deleted by age"),
            _ => ("delete", "compaction takes events away"),
        };
        return Err(LogError::Refused(format!(
            "{address}: topic {name} has cleanup.policy={policy}: {why}; run \
             `{change} {name} --add-config cleanup.policy={wanted}`"
        )));
    }
    let bytes: usize = value(&resource, "max.message.bytes").parse().unwrap_or(usize::MAX);
    let needed = log.settings.max_event_bytes + HEADER_BYTES;
    if bytes < needed {
        let what = match role {
            Role::Events => "larger events cannot be published",
            Role::DeadLetters => "larger dead letters cannot be kept, and would hold their partition up",
            Role::Documents => "larger documents have no snapshot",
        };
        lines.push(format!(
            "topic {name} has max.message.bytes={bytes}, less than {needed}: {what}"
        ));
    }
    Ok(())
}

fn value<'a>(resource: &'a ConfigResource, name: &str) -> &'a str {
    resource
        .get(name)
        .and_then(|entry| entry.value.as_deref())
        .unwrap_or_default()
}

async fn wait_for_leaders(log: &KafkaLog) -> Result<(), LogError> {
    let until = Instant::now() + LEADERS_PATIENCE;
    loop {
        let mut missing = None;
        for role in Role::ALL {
            let name = log.topic_name(role);
            let metadata = log.metadata(name.clone()).await?;
            let led = metadata
                .topics()
                .iter()
                .find(|topic| topic.name() == name)
                .is_some_and(|topic| {
                    !topic.partitions().is_empty() && topic.partitions().iter().all(|partition| partition.leader() >= 0)
                });
            if !led {
                missing = Some(name);
            }
        }
        let Some(name) = missing else { return Ok(()) };
        if Instant::now() >= until {
            let detail = format!("topic {name} has partitions without a leader");
            return Err(LogError::Unreachable {
                address: log.settings.bootstrap.clone(),
                detail,
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
