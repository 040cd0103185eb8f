use std::sync::Mutex;

use opentelemetry::trace::{FutureExt as _, SpanContext, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};

use super::*;

const PRODUCER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> SpanData {
        let all = self.0.lock().unwrap();
        let found = all.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {all:?}")).clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn spans(sampler: Sampler) -> (Messaging, Kept) {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone());
    let provider = provider.with_sampler(Sampler::ParentBased(Box::new(sampler))).build();
    let place = Place {
        system: "kafka",
        destination: "khala.events".to_owned(),
        group: "khala".to_owned(),
        client: "khala-7".to_owned(),
        ids: "khala",
        store: "redis",
        store_operation: "EVALSHA",
        store_address: Some(("redis".to_owned(), 6379)),
    };
    (Messaging::new(Some(provider.tracer("test")), place), kept)
}

fn attribute(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
}

fn event(n: usize, context: Option<SpanContext>) -> Event<'static> {
    const KEYS: [&[u8]; 3] = [b"run/1", b"run/2", b"worker/1"];
    Event {
        key: Some(KEYS[n % 3]),
        offset: n as u64,
        context,
    }
}

#[test]
fn a_traceparent_reads_its_own_text_and_nothing_else() {
    let context = parse(PRODUCER.as_bytes()).unwrap();
    assert!(context.is_sampled() && context.is_remote());
    assert_eq!(text(&context), PRODUCER);
    let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more";
    assert_eq!(text(&parse(later.as_bytes()).unwrap()), PRODUCER);
    for wrong in [
        "",
        "00-",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
    ] {
        assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(parse(b"\xff"), None);
}

#[test]
fn the_header_is_the_last_hop_and_comes_before_the_attribute() {
    let other = "00-11111111111111111111111111111111-2222222222222222-01";
    let value = format!(r#"{{"id":"1","data":{{"traceparent":"no"}},"traceparent":"{PRODUCER}"}}"#);
    let of = |headers: &[(&'static [u8], &str)], value: &str| {
        let headers = headers.iter().map(|(name, text)| (*name, Some(text.as_bytes())));
        producer_context(headers, Some(value.as_bytes())).map(|context| text(&context))
    };
    assert_eq!(of(&[], &value).as_deref(), Some(PRODUCER));
    assert_eq!(of(&[(b"traceparent", other)], &value).as_deref(), Some(other));
    assert_eq!(of(&[(b"traceparent", "garbage")], &value).as_deref(), Some(PRODUCER));
    assert_eq!(of(&[(b"ce_traceparent", other)], "{}").as_deref(), Some(other));
    let inside = format!(r#"{{"data":{{"traceparent":"{PRODUCER}"}}}}"#);
    assert_eq!(of(&[], &inside), None, "an event's data is not its context");
    assert_eq!(of(&[], "garbage \"traceparent\""), None);
}

#[test]
fn an_event_without_a_context_is_given_one() {
    let put = |value: &str| with_traceparent(value.as_bytes(), PRODUCER).map(|text| String::from_utf8(text).unwrap());
    let with = put(r#" {"id":"1"}"#).unwrap();
    assert_eq!(with, format!(r#"{{"traceparent":"{PRODUCER}","id":"1"}}"#));
    assert_eq!(put("{ }").unwrap(), format!(r#"{{"traceparent":"{PRODUCER}" }}"#));
    assert_eq!(put(&with), None, "one is enough");
    assert_eq!(put("[]"), None);
}

#[test]
fn a_batch_goes_on_with_the_trace_of_its_first_sampled_event_and_links_to_all() {
    let (spans, kept) = spans(Sampler::AlwaysOff);
    let context = |n: usize| parse(format!("00-0af7651916cd43dd8448eb211c80319c-{:016x}-0{}", n + 1, n % 2).as_bytes());
    let work = spans
        .received(3, SystemTime::now(), 10, |n| event(n, context(n)))
        .unwrap();
    let call = spans.store_call(work.context(), 4).unwrap();
    call.end(Some("away"));
    work.done();
    let (poll, process, store) = (
        kept.named("poll khala.events"),
        kept.named("process khala.events"),
        kept.named("EVALSHA"),
    );
    assert_eq!(
        (&poll.span_kind, &process.span_kind, &store.span_kind),
        (&SpanKind::Client, &SpanKind::Consumer, &SpanKind::Client)
    );
    assert_eq!(
        process.span_context.trace_id().to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(
        process.parent_span_id.to_string(),
        format!("{:016x}", 2),
        "event 1 is the first that is sampled"
    );
    assert_eq!((process.links.len(), poll.links.len()), (5, 5), "every second is");
    assert_eq!(store.parent_span_id, process.span_context.span_id());
    assert_eq!(store.status, Status::error("away"));
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "khala.events"),
        ("messaging.destination.partition.id", "3"),
        ("messaging.consumer.group.name", "khala"),
        ("messaging.client.id", "khala-7"),
        ("messaging.batch.message_count", "10"),
        ("khala.run.ids", r#"["2","1"]"#),
        ("khala.worker.id", "1"),
    ] {
        assert_eq!(attribute(&process, name), value, "{name}");
    }
    assert_eq!(
        ["db.system.name", "server.port", "db.operation.batch.size"].map(|name| attribute(&store, name)),
        ["redis", "6379", "4"]
    );
    assert_eq!(attribute(&poll, "messaging.operation.type"), "receive");
}

#[test]
fn links_and_ids_are_bounded_however_large_the_batch() {
    let (spans, kept) = spans(Sampler::AlwaysOff);
    let context = parse(PRODUCER.as_bytes());
    spans
        .received(0, SystemTime::now(), 20_000, |n| event(n, context.clone()))
        .unwrap()
        .done();
    let process = kept.named("process khala.events");
    assert_eq!(process.links.len(), LINKS_MAX);
    assert!(process.attributes.len() < 16, "{:?}", process.attributes);
}

#[test]
fn without_a_sampled_event_the_sampler_decides() {
    for (sampler, count) in [(Sampler::AlwaysOff, 0), (Sampler::AlwaysOn, 2)] {
        let (spans, kept) = spans(sampler);
        spans
            .received(0, SystemTime::now(), 1, |n| event(n, None))
            .unwrap()
            .done();
        assert_eq!(kept.count(), count);
    }
    assert!(
        Messaging::off()
            .received(0, SystemTime::now(), 1, |_| panic!("off looks at nothing"))
            .is_none()
    );
}

#[test]
fn one_event_is_named_and_a_batch_given_up_says_so() {
    let (spans, kept) = spans(Sampler::AlwaysOn);
    let work = spans
        .received(0, SystemTime::now(), 1, |_| event(9, parse(PRODUCER.as_bytes())))
        .unwrap();
    work.given_up("abandoned");
    let process = kept.named("process khala.events");
    assert_eq!(attribute(&process, "messaging.kafka.offset"), "9");
    assert_eq!(attribute(&process, "messaging.kafka.message.key"), "run/1");
    assert_eq!(attribute(&process, "khala.run.id"), "1");
    assert_eq!(process.status, Status::error("abandoned"));
}

#[test]
fn sending_goes_on_with_the_request_s_trace_or_the_event_s_own() {
    let (spans, kept) = spans(Sampler::AlwaysOn);
    let own = parse(PRODUCER.as_bytes()).unwrap();
    let sending = spans
        .sending(1, ["run/7"].into_iter(), || [own.clone()].into_iter())
        .unwrap();
    let carried = sending.traceparent().unwrap();
    sending.end(None);
    let span = kept.named("send khala.events");
    assert_eq!(
        (span.span_kind.clone(), span.parent_span_id),
        (SpanKind::Producer, own.span_id())
    );
    assert_eq!(carried, text(&span.span_context));
    assert_eq!(attribute(&span, "khala.run.id"), "7");

    let request = SpanContext::new(
        own.trace_id(),
        opentelemetry::trace::SpanId::from_hex("00000000000000aa").unwrap(),
        own.trace_flags(),
        true,
        opentelemetry::trace::TraceState::default(),
    );
    let work = async {
        spans
            .sending(2, std::iter::empty(), || [own.clone()].into_iter())
            .unwrap()
    };
    let sending = futures_util::FutureExt::now_or_never(
        work.with_context(Context::new().with_remote_span_context(request.clone())),
    )
    .unwrap();
    sending.end(Some("away"));
    let span = kept.0.lock().unwrap().last().unwrap().clone();
    assert_eq!((span.parent_span_id, span.links.len()), (request.span_id(), 1));
    assert_eq!(attribute(&span, "error.type"), "_OTHER");
}
