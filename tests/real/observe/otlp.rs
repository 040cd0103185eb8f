//! What goes out by OTLP, on real servers: one trace from the request over the log to the store, after the messaging
//! conventions; metrics under OpenTelemetry's names; logs that name the trace. And the trace's context in Kafka.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::support::collector::{Collector, Received, attributes, hex, text};
use crate::support::khala::Khala;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};
use crate::world::World;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const REQUEST: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn khala(world: &World, collector: &Collector, sampler: &str) -> Khala {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER", sampler),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let khala = Khala::start_with(
        world.dir(),
        &world.cluster,
        "traced",
        &["--backoff-max", "500ms"],
        &variables,
    );
    khala.wait_ready();
    khala
}

fn event(id: &str, run: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"run.started","subject":"run/{run}"}}"#)
}

fn publish(khala: &Khala, event: &str, traceparent: &str) {
    let request = ureq::post(format!("http://{}/v1/events", khala.http()));
    let request = request.header("content-type", "application/cloudevents+json");
    let answer = request.header("traceparent", traceparent).send(event).expect("202");
    assert_eq!(answer.status(), 202);
}

/// Waits for the spans of a trace with these names (operations, without the topic).
fn spans_of(collector: &Collector, trace: &str, names: &[&str]) -> BTreeMap<String, Span> {
    eventually(&format!("the trace has {names:?}"), seconds(60), || {
        let spans = collector.received().spans;
        let of_trace = spans.into_iter().filter(|span| hex(&span.trace_id) == trace);
        let found: BTreeMap<String, Span> = of_trace
            .map(|span| (span.name.split(' ').next().unwrap_or_default().to_owned(), span))
            .collect();
        if names.iter().all(|name| found.contains_key(*name)) {
            Ok(found)
        } else {
            Err(found.into_keys().collect::<Vec<_>>())
        }
    })
}

#[test]
fn a_trace_leads_from_the_request_over_the_log_to_the_store() {
    let world = World::new("otlp-trace", 1, 10, Keeps::Dumps);
    let collector = Collector::start();
    let khala = khala(&world, &collector, "parentbased_always_off");
    publish(&khala, &event("1", "traced"), REQUEST);
    let spans = spans_of(&collector, TRACE, &["send", "poll", "process", "EVALSHA"]);
    let (send, poll, process, store) = (&spans["send"], &spans["poll"], &spans["process"], &spans["EVALSHA"]);

    assert_eq!(hex(&send.parent_span_id), "b7ad6b7169203331", "the request's span");
    assert_eq!(
        (&poll.parent_span_id, &process.parent_span_id),
        (&send.span_id, &send.span_id)
    );
    assert_eq!(store.parent_span_id, process.span_id);
    let kinds = [send, poll, process, store].map(Span::kind);
    assert_eq!(
        kinds,
        [
            SpanKind::Producer,
            SpanKind::Client,
            SpanKind::Consumer,
            SpanKind::Client
        ]
    );
    assert_eq!(process.links.len(), 1);
    assert_eq!(process.links[0].span_id, send.span_id);
    let topic = world.cluster.topic.as_str();
    assert_eq!(process.name, format!("process {topic}"));
    let (of_send, of_process, of_store) = (
        attributes(&send.attributes),
        attributes(&process.attributes),
        attributes(&store.attributes),
    );
    for (found, name, value) in [
        (&of_send, "messaging.operation.type", "send"),
        (&of_send, "khala.run.id", "traced"),
        (&of_process, "messaging.system", "kafka"),
        (&of_process, "messaging.operation.name", "process"),
        (&of_process, "messaging.operation.type", "process"),
        (&of_process, "messaging.destination.name", topic),
        (&of_process, "messaging.destination.partition.id", "0"),
        (&of_process, "messaging.consumer.group.name", &world.cluster.namespace),
        (&of_process, "messaging.batch.message_count", "1"),
        (&of_process, "messaging.kafka.message.key", "run/traced"),
        (&of_process, "messaging.kafka.offset", "0"),
        (&of_process, "khala.run.id", "traced"),
        (&of_store, "db.system.name", "redis"),
        (&of_store, "db.operation.name", "EVALSHA"),
        (&of_store, "server.address", "127.0.0.1"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name} in {found:?}");
    }
    assert!(of_process.contains_key("messaging.client.id"), "{of_process:?}");
    assert!(!of_store.contains_key("db.operation.batch.size"), "one is no batch");

    let carried = format!("00-{TRACE}-{}-01", hex(&send.span_id));
    let record = world.read_back().pop().expect("one record");
    let header = record.headers.iter().find(|(name, _)| name.as_str() == "traceparent");
    assert_eq!(
        header.and_then(|(_, text)| text.clone()),
        Some(carried.clone().into_bytes())
    );
    let value: Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
    assert_eq!(value["traceparent"], carried);
    let untraced = format!("00-{}-b7ad6b7169203331-00", "ab".repeat(16));
    publish(&khala, &event("2", "untraced"), &untraced);
    world.settle();
    assert_eq!(khala.term(), Some(0), "what is left is sent at the end");
    let all = collector.received().spans;
    assert!(
        all.iter().all(|span| hex(&span.trace_id) == TRACE),
        "nobody asked for other traces: {all:?}"
    );
}

/// One event as somebody else's producer sends it: headers as given, a `traceparent` inside if there is one.
fn foreign(world: &World, run: &str, headers: &[(&str, &str)], value: &str) {
    let producer: BaseProducer = world.config().create().expect("a legal configuration");
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header {
            key,
            value: Some(*value),
        })
    });
    let key = format!("run/{run}");
    let record = BaseRecord::to(&world.cluster.topic).key(&key).payload(value);
    producer
        .send(record.headers(headers))
        .map_err(|(error, _)| error)
        .expect("room in the queue");
    producer.flush(seconds(60)).expect("the broker takes it");
}

#[test]
fn a_foreign_producer_s_context_is_taken_from_header_event_or_binary_attribute() {
    let world = World::new("otlp-foreign", 1, 10, Keeps::Dumps);
    let collector = Collector::start();
    let khala = khala(&world, &collector, "parentbased_always_off");
    let parent = |digit: char| {
        let (trace, span) = (digit.to_string().repeat(32), digit.to_string().repeat(16));
        (format!("00-{trace}-{span}-01"), trace, span)
    };
    let [header, attribute, binary] = ['1', '2', '3'].map(parent);
    foreign(
        &world,
        "by-header",
        &[("traceparent", &header.0)],
        &event("1", "by-header"),
    );
    let inside = event("2", "by-event").replacen('{', &format!("{{\"traceparent\":\"{}\",", attribute.0), 1);
    foreign(&world, "by-event", &[], &inside);
    let of_binary = [
        ("ce_specversion", "1.0"),
        ("ce_id", "3"),
        ("ce_source", "s"),
        ("ce_type", "run.started"),
        ("ce_subject", "run/by-attribute"),
        ("ce_traceparent", &binary.0),
    ];
    foreign(&world, "by-attribute", &of_binary, "{}");
    for ((_, trace, span), run) in [
        (&header, "by-header"),
        (&attribute, "by-event"),
        (&binary, "by-attribute"),
    ] {
        let spans = spans_of(&collector, trace, &["poll", "process", "EVALSHA"]);
        let process = &spans["process"];
        assert_eq!(hex(&process.parent_span_id), *span, "{run}");
        assert!(
            process.links.iter().any(|link| hex(&link.span_id) == *span),
            "{run}: {process:?}"
        );
        let attributes = attributes(&process.attributes);
        let named = attributes.get("khala.run.id").or(attributes.get("khala.run.ids"));
        assert!(named.is_some_and(|named| named.contains(run)), "{run}: {attributes:?}");
    }
    assert_eq!(khala.term(), Some(0));
}

/// Metrics in OpenTelemetry's names, and their units.
const METRICS: &[(&str, &str)] = &[
    ("khala.projection.lag_events", "{event}"),
    ("khala.projection.latency", "s"),
    ("khala.projection.writes", ""),
    ("khala.projection.drift", ""),
    ("khala.publish.duration", "s"),
    ("messaging.process.duration", "s"),
    ("messaging.client.operation.duration", "s"),
    ("messaging.client.consumed.messages", "{message}"),
    ("messaging.client.sent.messages", "{message}"),
];

#[test]
fn metrics_and_logs_go_out_too_and_a_log_line_names_its_trace() {
    let mut world = World::new("otlp-logs", 1, 10, Keeps::AppendOnly);
    let collector = Collector::start();
    let khala = khala(&world, &collector, "parentbased_always_on");
    publish(&khala, &event("1", "calm"), REQUEST);
    world.settle();
    world.redis.stop();
    publish(&khala, &event("2", "calm"), REQUEST);
    let ours = |received: Received| {
        let of_trace = received.logs.into_iter().find(|log| hex(&log.trace_id) == TRACE);
        of_trace.ok_or("no log line of the trace")
    };
    let log = eventually("a log line of the trace", seconds(60), || ours(collector.received()));
    assert_eq!(text(log.body.as_ref()), "trying again");
    assert_eq!(
        attributes(&log.attributes).get("effect").map(String::as_str),
        Some("commit")
    );
    let lines = khala.stderr();
    let mut lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert!(
        lines.any(|line| line["trace_id"] == TRACE && line["span_id"].is_string()),
        "{}",
        khala.stderr()
    );

    let metrics = eventually("all metrics", seconds(60), || {
        let metrics = collector.received().metrics;
        let missing: Vec<_> = METRICS
            .iter()
            .filter(|(name, _)| !metrics.contains_key(*name))
            .collect();
        if missing.is_empty() { Ok(metrics) } else { Err(missing) }
    });
    for (name, unit) in METRICS {
        assert_eq!(metrics[*name], *unit, "{name}");
    }
    world.redis.start_again();
    world.settle();
    for signal in ["traces", "metrics", "logs"] {
        let resource = &collector.received().resources[signal];
        let told =
            ["service.name", "service.namespace", "deployment.environment.name"].map(|name| resource[name].as_str());
        assert_eq!(told, ["khala", "otlp-logs", "test"], "{signal}");
        assert!(
            resource.contains_key("service.instance.id") && resource.contains_key("service.version"),
            "{signal}"
        );
    }
}

#[test]
fn a_collector_that_is_away_costs_no_event_and_is_told_of() {
    let mut world = World::new("otlp-away", 1, 400, Keeps::Dumps);
    let collector = Collector::start();
    let khala = khala(&world, &collector, "parentbased_always_on");
    drop(collector);
    world.produce(200);
    world.settle();
    eventually("it is told", seconds(60), || {
        let log = khala.stderr();
        if log.contains("telemetry was not sent") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert_eq!(khala.term(), Some(0));
}
