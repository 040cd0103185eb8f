//! A receiver of OTLP over HTTP, decoded by the protocol's own protobuf: what a collector would have got.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::guarded::free_port;

/// All that came so far.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    /// Metrics by name, with their unit.
    pub metrics: BTreeMap<String, String>,
    /// Attributes of the last resource of each signal.
    pub resources: BTreeMap<&'static str, BTreeMap<String, String>>,
}

type Shared = Arc<Mutex<Received>>;

/// A receiver; it goes when dropped.
pub struct Collector {
    pub endpoint: String,
    received: Shared,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        let received = Shared::default();
        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/logs", post(logs))
            .route("/v1/metrics", post(metrics))
            .with_state(Arc::clone(&received));
        let address = format!("127.0.0.1:{}", free_port());
        let listener = runtime.block_on(tokio::net::TcpListener::bind(&address));
        let listener = listener.expect("a free port");
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            endpoint: format!("http://{address}"),
            received,
            _runtime: runtime,
        }
    }

    pub fn received(&self) -> Received {
        self.received.lock().expect("no receiver panicked").clone()
    }
}

async fn traces(State(received): State<Shared>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut received = received.lock().expect("no receiver panicked");
    for of_resource in request.resource_spans {
        received.resources.insert("traces", named(of_resource.resource));
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        received.spans.extend(spans);
    }
}

async fn logs(State(received): State<Shared>, body: Bytes) {
    let request = ExportLogsServiceRequest::decode(body).expect("OTLP");
    let mut received = received.lock().expect("no receiver panicked");
    for of_resource in request.resource_logs {
        received.resources.insert("logs", named(of_resource.resource));
        let logs = of_resource.scope_logs.into_iter().flat_map(|scope| scope.log_records);
        received.logs.extend(logs);
    }
}

async fn metrics(State(received): State<Shared>, body: Bytes) {
    let request = ExportMetricsServiceRequest::decode(body).expect("OTLP");
    let mut received = received.lock().expect("no receiver panicked");
    for of_resource in request.resource_metrics {
        received.resources.insert("metrics", named(of_resource.resource));
        let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
        received
            .metrics
            .extend(metrics.map(|metric| (metric.name, metric.unit)));
    }
}

fn named(resource: Option<Resource>) -> BTreeMap<String, String> {
    attributes(&resource.unwrap_or_default().attributes)
}

/// Attributes as texts; lists with commas.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pair = |one: &KeyValue| (one.key.clone(), text(one.value.as_ref()));
    attributes.iter().map(pair).collect()
}

/// A value as text.
pub fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => {
            let texts: Vec<String> = list.values.iter().map(|value| text(Some(value))).collect();
            texts.join(",")
        }
        other => format!("{other:?}"),
    }
}

/// Bytes of an id as hexadecimal digits.
pub fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
