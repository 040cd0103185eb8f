//! Events from outside into the log. In: structured events. Out: where each went, once the log has it for good.

use std::time::Instant;

use opentelemetry::trace::FutureExt;
use serde::{Deserialize, Serialize};

use super::{Access, AccessError, Serving};
use crate::config::Settings;
use crate::log::{LogError, NewRecord, Role};
use crate::pure::event::{Rejection, decode_structured};
use crate::pure::place::{Offset, PartitionId};
use crate::pure::redact::Part;
use crate::telemetry::messaging::{Messaging, Sending, TRACEPARENT, producer_context, with_traceparent};

/// A legal event on its way.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Its id.
    pub id: String,
    /// Who wrote it.
    pub source: String,
    /// Secrets that were taken out of it.
    pub redactions: u64,
    /// What goes into the log.
    pub record: NewRecord,
}

/// Where an event went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its id.
    pub id: String,
    /// The partition.
    pub partition: u32,
    /// Its place there.
    pub offset: u64,
}

/// Checks one structured event, without its secrets; the record key is its subject.
///
/// # Errors
/// The first rule of INTERFACE.md §1 that it breaks.
pub fn prepare_event(value: &[u8], settings: &Settings) -> Result<Publication, Rejection> {
    let redacted = settings.redact.json(value, Part::Event);
    let (value, redactions) = match &redacted {
        Some(redacted) => (redacted.json.as_slice(), redacted.count),
        None => (value, 0),
    };
    let event = decode_structured(value, settings.max_event_bytes)?;
    Ok(Publication {
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        redactions,
        record: NewRecord {
            partition: None,
            key: Some(event.subject().as_bytes().to_vec()),
            value: Some(value.to_vec()),
            headers: vec![(
                "content-type".to_owned(),
                Some(b"application/cloudevents+json".to_vec()),
            )],
            timestamp_ms: None,
        },
    })
}

fn sending(spans: &Messaging, records: &[NewRecord]) -> Option<Sending> {
    let contexts = || {
        let headers = std::iter::empty();
        records
            .iter()
            .filter_map(move |record| producer_context(headers.clone(), record.value.as_deref()))
    };
    let keys = records
        .iter()
        .filter_map(|record| std::str::from_utf8(record.key.as_deref()?).ok());
    spans.sending(records.len(), keys, contexts)
}

impl Access {
    /// Appends events; returns when the log has each for good or has refused it, in the order given.
    pub async fn publish(&self, publications: Vec<Publication>) -> Vec<Result<Published, AccessError>> {
        let started = Instant::now();
        let redactions = publications.iter().map(|publication| publication.redactions).sum();
        if let Some(serving) = &self.serving {
            serving.metrics.redacted("publish", redactions);
        }
        let (ids, records): (Vec<_>, Vec<_>) = publications.into_iter().map(|p| (p.id, p.record)).unzip();
        let results = self.append(records).await;
        self.count(&results, started.elapsed().as_secs_f64());
        let place = |(id, result): (String, Result<_, LogError>)| {
            result
                .map_err(AccessError::from)
                .map(|(partition, offset): (PartitionId, Offset)| Published {
                    id,
                    partition: partition.0,
                    offset: offset.0,
                })
        };
        ids.into_iter().zip(results).map(place).collect()
    }

    /// The call to the log, inside its span.
    async fn append(&self, mut records: Vec<NewRecord>) -> Vec<Result<(PartitionId, Offset), LogError>> {
        let spans = self.serving.as_ref().map(|serving| &serving.spans);
        let Some(sending) = spans.and_then(|spans| sending(spans, &records)) else {
            return self.log.append(Role::Events, records).await;
        };
        if let Some(traceparent) = sending.traceparent() {
            records.iter_mut().for_each(|record| self.carry(&traceparent, record));
        }
        let appended = self.log.append(Role::Events, records);
        let results = appended.with_context(sending.context().clone()).await;
        let error = results.iter().find_map(|result| result.as_ref().err());
        sending.end(error.map(ToString::to_string).as_deref());
        results
    }

    /// The context of the span goes along: in a header, and in the event itself if it names none and has room for it.
    fn carry(&self, traceparent: &str, record: &mut NewRecord) {
        record
            .headers
            .push((TRACEPARENT.to_owned(), Some(traceparent.as_bytes().to_vec())));
        let with = record
            .value
            .as_deref()
            .and_then(|value| with_traceparent(value, traceparent));
        if let Some(with) = with.filter(|with| with.len() <= self.settings.max_event_bytes) {
            record.value = Some(with);
        }
    }

    fn count(&self, results: &[Result<(PartitionId, Offset), LogError>], seconds: f64) {
        let Some(Serving { metrics, .. }) = &self.serving else {
            return;
        };
        let done = results.iter().filter(|result| result.is_ok()).count();
        for (result, count) in [("ok", done), ("error", results.len() - done)] {
            if count > 0 {
                metrics.published(result, seconds, count as u64);
            }
        }
        metrics.sent(done as u64);
        if let Some(failed) = results.iter().find(|result| result.is_err()).or(results.first()) {
            metrics.operation("send", seconds, failed);
        }
    }
}
