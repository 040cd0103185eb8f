//! The producer's side: `send` (PRODUCER), whose context goes with each message.
//! Its parent is what is done now (a request's context), else the one context that all messages of the call bring.

use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

use super::{LINKS_MAX, Messaging, end, text};

/// Messages on their way into the log.
pub struct Sending(Context);

impl Messaging {
    /// `count` messages with these keys are about to be sent; `contexts`: those they bring, of which some are linked.
    pub fn sending<'a, C: Iterator<Item = SpanContext>>(
        &self,
        count: usize,
        keys: impl Iterator<Item = &'a str>,
        contexts: impl FnOnce() -> C,
    ) -> Option<Sending> {
        let inner = self.0.as_ref()?;
        let now = Context::current();
        let contexts: Vec<SpanContext> = contexts().take(LINKS_MAX).collect();
        let parent = match &contexts[..] {
            _ if now.has_active_span() => now,
            [only] => Context::new().with_remote_span_context(only.clone()),
            _ => Context::new(),
        };
        let mut attributes: Vec<KeyValue> = inner.attributes("send", "send").collect();
        attributes.push(KeyValue::new("messaging.batch.message_count", count as i64));
        attributes.extend(inner.subjects(keys));
        let links = contexts.into_iter().map(|context| Link::new(context, Vec::new(), 0));
        let span = inner
            .tracer
            .span_builder(inner.name("send"))
            .with_kind(SpanKind::Producer)
            .with_links(links.collect())
            .with_attributes(attributes)
            .start_with_context(&inner.tracer, &parent);
        Some(Sending(parent.with_span(span)))
    }
}

impl Sending {
    /// For what is done meanwhile.
    pub fn context(&self) -> &Context {
        &self.0
    }

    /// What goes with each message; `None` if nobody would find a span by it.
    pub fn traceparent(&self) -> Option<String> {
        let span = self.0.span();
        let context = span.span_context();
        context.is_sampled().then(|| text(context))
    }

    /// The log has them, or `error` says why not.
    pub fn end(self, error: Option<&str>) {
        end(&self.0, error);
    }
}
