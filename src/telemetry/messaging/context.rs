//! Where a message's trace context is: a Kafka header, or the `traceparent` of its `CloudEvent`.
//! Source: W3C Trace Context, level 1; `CloudEvents`' extension for distributed tracing.

use std::borrow::Cow;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use serde::Deserialize;

/// The header, and the `CloudEvent`'s attribute.
pub const TRACEPARENT: &str = "traceparent";
/// The attribute in a `CloudEvent`'s binary mode on Kafka.
const BINARY: &[u8] = b"ce_traceparent";

/// A context by its text, `00-<trace id>-<span id>-<flags>`; `None` if it is not one.
pub fn parse(text: &[u8]) -> Option<SpanContext> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    // A later version may have more parts; ff is none.
    let is_version = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    if !is_version || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// The text of [`parse`].
pub fn text(context: &SpanContext) -> String {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), flags)
}

/// Trace and span of what is done now on this thread; `None` outside of any.
pub fn current_ids() -> Option<(TraceId, SpanId)> {
    Context::map_current(|context| {
        let span = context
            .has_active_span()
            .then(|| context.span().span_context().clone())?;
        span.is_valid().then(|| (span.trace_id(), span.span_id()))
    })
}

/// Only this of a `CloudEvent`: what it has under the same name deeper inside is not it.
#[derive(Deserialize)]
struct Attribute<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
}

/// Where a message says it comes from: its header (the last hop), else its `CloudEvent`'s attribute.
pub fn producer_context<'a>(
    headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    value: Option<&[u8]>,
) -> Option<SpanContext> {
    let mut in_attribute = None;
    for (name, text) in headers {
        if name == TRACEPARENT.as_bytes() {
            if let Some(context) = text.and_then(parse) {
                return Some(context);
            }
        } else if name == BINARY {
            in_attribute = text.and_then(parse);
        }
    }
    in_attribute.or_else(|| of_structured(value?))
}

fn of_structured(value: &[u8]) -> Option<SpanContext> {
    memchr::memmem::find(value, b"\"traceparent\"")?;
    let attribute: Attribute<'_> = serde_json::from_slice(value).ok()?;
    parse(attribute.traceparent?.as_bytes())
}

/// A structured `CloudEvent` with this `traceparent`; `None` if it names one already, or is no JSON object.
pub fn with_traceparent(value: &[u8], traceparent: &str) -> Option<Vec<u8>> {
    let start = value.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let names_one = memchr::memmem::find(value, b"\"traceparent\"").is_some();
    if value.get(start) != Some(&b'{') || names_one {
        return None;
    }
    let inside = &value[start + 1..];
    let is_empty = inside.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let comma = if is_empty { "" } else { "," };
    Some([format!("{{\"traceparent\":\"{traceparent}\"{comma}").as_bytes(), inside].concat())
}
