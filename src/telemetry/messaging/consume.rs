//! The consumer's side: `poll` (CLIENT) when a batch has come, `process` (CONSUMER) until it is in the store.
//! A batch goes on with the trace of the first of its events that is sampled, and links to all of them, up to a limit;
//! without one the tracer's own sampler decides.

use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

use super::{Inner, LINKS_MAX, Messaging, end};

/// Events of a batch that are looked at for a context: all of a small one, evenly spread ones of a large one.
const LOOKED_AT_MAX: usize = 256;

/// One event of a batch.
pub struct Event<'a> {
    /// The message's key.
    pub key: Option<&'a [u8]>,
    /// Its place.
    pub offset: u64,
    /// Where it comes from.
    pub context: Option<SpanContext>,
}

/// A batch on its way from the log to the store.
pub struct Work(Context);

impl Work {
    /// For what is done about it.
    pub fn context(&self) -> &Context {
        &self.0
    }

    /// It is visible.
    pub fn done(self) {
        end(&self.0, None);
    }

    /// It was given up.
    pub fn given_up(self, why: &str) {
        end(&self.0, Some(why));
    }
}

/// A batch as it came.
#[derive(Clone, Copy)]
struct Came {
    partition: u32,
    count: usize,
}

impl Messaging {
    /// `count` messages of `partition` came, asked for at `started`; `event` tells of the i-th.
    pub fn received<'a>(
        &self,
        partition: u32,
        started: SystemTime,
        count: usize,
        event: impl Fn(usize) -> Event<'a>,
    ) -> Option<Work> {
        let inner = self.0.as_ref()?;
        let step = count.div_ceil(LOOKED_AT_MAX).max(1);
        let mut sampled: Vec<Event<'a>> = Vec::new();
        let mut some = (0..count).step_by(step).map(&event);
        while let (true, Some(event)) = (sampled.len() < LINKS_MAX, some.next()) {
            if event.context.as_ref().is_some_and(SpanContext::is_sampled) {
                sampled.push(event);
            }
        }
        let parent = sampled.first().and_then(|event| event.context.clone());
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let only = (count == 1).then(|| event(0));
        let came = Came { partition, count };
        inner.polled(&parent, started, came, &sampled);
        Some(Work(inner.processing(&parent, came, &sampled, only.as_ref())))
    }
}

impl Inner {
    fn polled(&self, parent: &Context, started: SystemTime, came: Came, sampled: &[Event<'_>]) {
        let span = self.tracer.span_builder(self.name("poll"));
        let attributes = self.attributes("poll", "receive").chain(self.of(came));
        let span = span
            .with_kind(SpanKind::Client)
            .with_start_time(started)
            .with_links(links(sampled))
            .with_attributes(attributes.collect::<Vec<_>>());
        drop(span.start_with_context(&self.tracer, parent)); // it ends here
    }

    fn processing(&self, parent: &Context, came: Came, sampled: &[Event<'_>], only: Option<&Event<'_>>) -> Context {
        let mut attributes: Vec<KeyValue> = self.attributes("process", "process").chain(self.of(came)).collect();
        if let Some(only) = only {
            attributes.push(KeyValue::new("messaging.kafka.offset", only.offset as i64));
            if let Some(key) = key(only) {
                attributes.push(KeyValue::new("messaging.kafka.message.key", key.to_owned()));
            }
        }
        let named = only.into_iter().chain(sampled);
        attributes.extend(self.subjects(named.filter_map(key)));
        let span = self.tracer.span_builder(self.name("process"));
        let span = span
            .with_kind(SpanKind::Consumer)
            .with_links(links(sampled))
            .with_attributes(attributes)
            .start_with_context(&self.tracer, parent);
        parent.with_span(span)
    }

    fn of(&self, came: Came) -> [KeyValue; 3] {
        [
            KeyValue::new("messaging.destination.partition.id", came.partition.to_string()),
            KeyValue::new("messaging.consumer.group.name", self.place.group.clone()),
            KeyValue::new("messaging.batch.message_count", came.count as i64),
        ]
    }
}

fn key<'a>(event: &Event<'a>) -> Option<&'a str> {
    event.key.and_then(|key| std::str::from_utf8(key).ok())
}

fn links(sampled: &[Event<'_>]) -> Vec<Link> {
    let link = |event: &Event<'_>| {
        let offset = KeyValue::new("messaging.kafka.offset", event.offset as i64);
        let key = key(event).map(|key| KeyValue::new("messaging.kafka.message.key", key.to_owned()));
        let attributes = [offset].into_iter().chain(key).collect();
        Some(Link::new(event.context.clone()?, attributes, 0))
    };
    sampled.iter().filter_map(link).collect()
}
