//! A server as a gate or a drill uses it: over HTTP, as anybody would. In: its address. Out: answers, or a failure.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::exit::{Exit, Failure};
use super::super::remote::Remote;
use super::failed;
use crate::access::{AccessError, AuditOrder, ReplayProgress, ReplayReport, ReplayRequest};
use crate::client::{Client, Entity, Published, Received};
use crate::config::Settings;
use crate::repair::{AuditProgress, AuditReport};

/// How often a condition is looked at.
pub(in crate::cli) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a server may take until it serves.
const READY_PATIENCE: Duration = Duration::from_mins(1);
/// How long a document may take to have an event.
pub(in crate::cli) const SEEN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a replay is asked for again while the server's connections to the store are made anew.
const STORE_BACK_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(in crate::cli) struct Calls {
    base: String,
    remote: Remote,
}

/// The samples of `/metrics`: name, labels as text, value.
pub(in crate::cli) struct Samples(Vec<(String, String, f64)>);

impl Samples {
    fn read(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_owned(), labels.to_owned(), value.parse().ok()?))
        };
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    /// Sum over the samples of a name whose labels have this text.
    pub(in crate::cli) fn sum(&self, name: &str, label: &str) -> f64 {
        let those = self
            .0
            .iter()
            .filter(|(known, labels, _)| known == name && labels.contains(label));
        those.map(|(.., value)| value).sum()
    }

    pub(in crate::cli) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, ..)| known == name)
    }
}

impl Calls {
    pub(in crate::cli) fn to(address: SocketAddr, settings: &Settings) -> Result<Self, Failure> {
        Ok(Self {
            base: format!("http://{address}"),
            remote: Remote::new(address, settings)?,
        })
    }

    pub(in crate::cli) fn client(&self) -> Client {
        Client::new(&self.base)
    }

    pub(in crate::cli) async fn publish(&self, events: Vec<Value>) -> Result<Vec<Published>, Failure> {
        let client = self.client();
        blocking(move || client.publish(&events).map_err(failed)).await
    }

    /// Publishes, and waits until the documents have it.
    pub(in crate::cli) async fn publish_and_see(&self, events: Vec<Value>) -> Result<Vec<Published>, Failure> {
        let client = self.client();
        let published = blocking(move || client.publish_and_wait(&events, SEEN_PATIENCE).map_err(failed)).await?;
        if published.iter().any(|published| published.seq.is_none()) {
            return Err(failed(format!("not projected within {} s", SEEN_PATIENCE.as_secs())));
        }
        Ok(published)
    }

    /// The document of `run/<id>` or `worker/<id>`, once it covers `offset`.
    pub(in crate::cli) async fn document_at(&self, subject: &str, offset: u64) -> Result<Value, Failure> {
        let (client, subject) = (self.client(), subject.to_owned());
        blocking(move || {
            let found = client
                .document_at(entity(&subject)?, offset, SEEN_PATIENCE)
                .map_err(failed)?;
            found.ok_or_else(|| failed(format!("{subject} has no document")))
        })
        .await
    }

    /// The events behind `after` up to the last one, or `at_most` of them.
    pub(in crate::cli) async fn follow(
        &self,
        subject: &str,
        after: u64,
        at_most: usize,
    ) -> Result<Vec<Received>, Failure> {
        let (client, subject) = (self.client(), subject.to_owned());
        blocking(move || {
            let events = client.follow(entity(&subject)?, after).take(at_most);
            events.map(|event| event.map_err(failed)).collect()
        })
        .await
    }

    pub(in crate::cli) async fn metrics(&self) -> Result<Samples, Failure> {
        let url = format!("{}/metrics", self.base);
        blocking(move || {
            let mut answer = ureq::get(&url).call().map_err(failed)?;
            Ok(Samples::read(&answer.body_mut().read_to_string().map_err(failed)?))
        })
        .await
    }

    /// Waits until `/readyz` says so.
    pub(in crate::cli) async fn ready(&self) -> Result<(), Failure> {
        let url = format!("{}/readyz", self.base);
        let asked = move || {
            let url = url.clone();
            blocking(move || ureq::get(&url).call().map(drop).map_err(failed))
        };
        let until = Instant::now() + READY_PATIENCE;
        while let Err(failure) = asked().await {
            if Instant::now() > until {
                let message = format!("not ready within {} s: {}", READY_PATIENCE.as_secs(), failure.message);
                return Err(Failure::new(Exit::Unreachable, message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until the checkpoints are at the log's end; how long that took.
    pub(in crate::cli) async fn settle(&self, patience: Duration) -> Result<Duration, Failure> {
        let began = Instant::now();
        let mut seen = String::new();
        while began.elapsed() < patience {
            match self.remote.status().await {
                Ok(status) if status.totals.lag_events == 0 => return Ok(began.elapsed()),
                Ok(status) => seen = format!("lag {}", status.totals.lag_events),
                Err(error) => seen = error.to_string(),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(failed(format!(
            "the checkpoints are not at the log's end after {} s: {seen}",
            patience.as_secs()
        )))
    }

    /// Who owns each partition; empty: nobody.
    pub(in crate::cli) async fn owners(&self) -> Result<Vec<String>, Failure> {
        let status = self.remote.status().await?;
        Ok(status
            .partitions
            .into_iter()
            .map(|row| row.owner.unwrap_or_default())
            .collect())
    }

    pub(in crate::cli) async fn replay(&self, from: &str) -> Result<ReplayReport, Failure> {
        let request = ReplayRequest {
            partition: None,
            from: from.to_owned(),
            dry_run: false,
        };
        let waits_until = Instant::now() + STORE_BACK_WITHIN;
        loop {
            let told = &mut |_: ReplayProgress| {};
            match self.remote.follow("/v1/replays", &request, told).await {
                // A connection that was cut while the store was away is found out by its next call.
                Err(AccessError::Unreachable(_)) if Instant::now() < waits_until => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                other => return Ok(other?),
            }
        }
    }

    pub(in crate::cli) async fn audit(&self) -> Result<AuditReport, Failure> {
        let order = AuditOrder::default();
        let told = &mut |_: AuditProgress| {};
        Ok(self.remote.follow("/v1/audits", &order, told).await?)
    }
}

fn entity(subject: &str) -> Result<Entity<'_>, Failure> {
    match subject.split_once('/') {
        Some(("run", id)) => Ok(Entity::Run(id)),
        Some(("worker", id)) => Ok(Entity::Worker(id)),
        _ => Err(failed(format!("no subject: {subject}"))),
    }
}

pub(in crate::cli) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}
