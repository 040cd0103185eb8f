//! Spans of a log's producer and consumer, after OpenTelemetry's messaging conventions (1.44), for clients without
//! instrumentation of their own. In: what was sent, received, processed, written. Out: spans of any tracer.
//! Invariant: nothing here knows Khala, so that it could be a crate of its own; off is one `None` and costs a branch;
//! ids are attributes, bounded in number, never labels.

mod consume;
mod context;
mod produce;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

pub use self::consume::{Event, Work};
pub use self::context::{TRACEPARENT, current_ids, parse, producer_context, text, with_traceparent};
pub use self::produce::Sending;

/// The most events of one batch that a span links to, and ids that it names.
pub const LINKS_MAX: usize = 32;

/// Where messages go, and where what is made of them is written.
#[derive(Clone, Debug)]
pub struct Place {
    /// `messaging.system`.
    pub system: &'static str,
    /// The topic.
    pub destination: String,
    /// The consumer group.
    pub group: String,
    /// This process.
    pub client: String,
    /// Before the names of ids: a key `run/7` is the attribute `<ids>.run.id`.
    pub ids: &'static str,
    /// `db.system.name` of the store.
    pub store: &'static str,
    /// The command that commits there.
    pub store_operation: &'static str,
    /// Host and port of the store, if it has them.
    pub store_address: Option<(String, u16)>,
}

struct Inner {
    tracer: SdkTracer,
    place: Place,
    base: [KeyValue; 3],
}

/// Makes the spans; or none, when off.
#[derive(Clone, Default)]
pub struct Messaging(Option<Arc<Inner>>);

impl Messaging {
    /// Spans of `tracer`, if there is one.
    pub fn new(tracer: Option<SdkTracer>, place: Place) -> Self {
        let base = |place: &Place| {
            [
                KeyValue::new("messaging.system", place.system),
                KeyValue::new("messaging.destination.name", place.destination.clone()),
                KeyValue::new("messaging.client.id", place.client.clone()),
            ]
        };
        Self(tracer.map(|tracer| {
            Arc::new(Inner {
                base: base(&place),
                tracer,
                place,
            })
        }))
    }

    /// No spans.
    pub fn off() -> Self {
        Self(None)
    }

    /// The group's offsets were committed, or not: `commit <destination>`.
    pub fn settled(&self, started: SystemTime, error: Option<&str>) {
        let Some(inner) = &self.0 else { return };
        let group = KeyValue::new("messaging.consumer.group.name", inner.place.group.clone());
        let attributes = inner.attributes("commit", "settle").chain([group]);
        let span = inner
            .tracer
            .span_builder(inner.name("commit"))
            .with_kind(SpanKind::Client)
            .with_start_time(started)
            .with_attributes(attributes.collect::<Vec<_>>());
        let span = span.start_with_context(&inner.tracer, &Context::new());
        end(&Context::new().with_span(span), error);
    }

    /// A write of `documents` documents begins, for the work of `parent`. The span ends with [`Call::end`].
    pub fn store_call(&self, parent: &Context, documents: usize) -> Option<Call> {
        let inner = self.0.as_ref()?;
        let place = &inner.place;
        let mut attributes = vec![
            KeyValue::new("db.system.name", place.store),
            KeyValue::new("db.operation.name", place.store_operation),
        ];
        // One is no batch, says the convention.
        if documents > 1 {
            attributes.push(KeyValue::new("db.operation.batch.size", documents as i64));
        }
        if let Some((host, port)) = &place.store_address {
            attributes.push(KeyValue::new("server.address", host.clone()));
            attributes.push(KeyValue::new("server.port", i64::from(*port)));
        }
        let span = inner
            .tracer
            .span_builder(place.store_operation)
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(&inner.tracer, parent);
        Some(Call(parent.with_span(span)))
    }
}

impl Inner {
    fn name(&self, operation: &str) -> String {
        format!("{operation} {}", self.place.destination)
    }

    fn attributes(&self, name: &'static str, kind: &'static str) -> impl Iterator<Item = KeyValue> {
        let operation = [
            KeyValue::new("messaging.operation.name", name),
            KeyValue::new("messaging.operation.type", kind),
        ];
        self.base.iter().cloned().chain(operation)
    }
}

/// A call under way.
pub struct Call(Context);

impl Call {
    /// For what runs inside of it.
    pub fn context(&self) -> &Context {
        &self.0
    }

    /// It ended; `error`: what went wrong.
    pub fn end(self, error: Option<&str>) {
        end(&self.0, error);
    }
}

/// The span of `context` ends; `error`: what went wrong.
fn end(context: &Context, error: Option<&str>) {
    let span = context.span();
    if let Some(error) = error {
        // The convention's word for an error of no further kind.
        span.set_attribute(KeyValue::new("error.type", "_OTHER"));
        span.set_status(Status::error(error.to_owned()));
    }
    span.end();
}

impl Inner {
    /// Ids as attributes: `<ids>.<kind>.id` of one, `<ids>.<kind>.ids` of several, from keys `<kind>/<id>`.
    fn subjects<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Vec<KeyValue> {
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (kind, id) in keys.filter_map(|key| key.split_once('/')) {
            if kinds.len() < KINDS_MAX || kinds.contains_key(kind) {
                let ids = kinds.entry(kind).or_default();
                if ids.len() < LINKS_MAX && !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        let prefix = self.place.ids;
        let attribute = |(kind, ids): (&str, Vec<&str>)| match ids[..] {
            [id] => KeyValue::new(format!("{prefix}.{kind}.id"), id.to_owned()),
            _ => KeyValue::new(format!("{prefix}.{kind}.ids"), list(&ids)),
        };
        kinds.into_iter().map(attribute).collect()
    }
}

/// Kinds of entities that one span names.
const KINDS_MAX: usize = 4;

fn list(texts: &[&str]) -> opentelemetry::Value {
    let texts: Vec<opentelemetry::StringValue> = texts.iter().map(|text| (*text).to_owned().into()).collect();
    opentelemetry::Value::Array(texts.into())
}
