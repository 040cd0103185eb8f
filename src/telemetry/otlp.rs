//! Where telemetry goes beside `/metrics` and stderr: OTLP over HTTP (protobuf), as the standard `OTEL_*` variables say.
//! In: the environment. Out: a span provider, a log provider, a reader of metrics. Invariant: without an endpoint nothing
//! is made and no thread started; a collector that is away costs telemetry, never an event.

use std::env;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

/// What is still to be sent at the end may take so long.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);
/// The longest request, unless `OTEL_EXPORTER_OTLP_TIMEOUT` (milliseconds) says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which of the three are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    traces: bool,
    metrics: bool,
    logs: bool,
}

/// Reads `OTEL_*`.
///
/// # Errors
/// A variable asks for what this build cannot do.
fn wanted(variable: &dyn Fn(&str) -> Option<String>) -> Result<Wanted, String> {
    let get = |name: String| variable(&name).filter(|text| !text.is_empty()).map(|text| (name, text));
    if is_disabled(variable) {
        return Ok(Wanted::default());
    }
    let signal = |name: &str| -> Result<bool, String> {
        let of = |what: &str| get(format!("OTEL_EXPORTER_OTLP_{name}_{what}"));
        let general = |what: &str| get(format!("OTEL_EXPORTER_OTLP_{what}"));
        let is_none = get(format!("OTEL_{name}_EXPORTER")).is_some_and(|(_, text)| text == "none");
        let Some((by, endpoint)) = of("ENDPOINT").or_else(|| general("ENDPOINT")).filter(|_| !is_none) else {
            return Ok(false);
        };
        if !endpoint.starts_with("http://") {
            return Err(format!(
                "{by}={endpoint}: must be http://host:port, as http://localhost:4318; for TLS put a collector beside Khala"
            ));
        }
        match of("PROTOCOL").or_else(|| general("PROTOCOL")) {
            Some((by, protocol)) if protocol != "http/protobuf" => Err(format!(
                "{by}={protocol}: Khala speaks http/protobuf only (a collector listens for it on port 4318)"
            )),
            _ => Ok(true),
        }
    };
    Ok(Wanted {
        traces: signal("TRACES")?,
        metrics: signal("METRICS")?,
        logs: signal("LOGS")?,
    })
}

/// Whether nothing at all is to be measured, `/metrics` included: so the specification has it.
fn is_disabled(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// What is sent, and to where.
pub struct Export {
    wanted: Wanted,
    is_disabled: bool,
    resource: Resource,
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
}

impl Export {
    /// Nothing is sent.
    pub fn off() -> Self {
        Self {
            wanted: Wanted::default(),
            is_disabled: false,
            resource: Resource::builder_empty().build(),
            traces: None,
            logs: None,
        }
    }

    /// As this process' environment says. `namespace` and `instance` name it, unless the environment does.
    ///
    /// # Errors
    /// A variable cannot be followed: which one, and why.
    pub fn from_environment(namespace: &str, instance: &str) -> anyhow::Result<Self> {
        let variable = |name: &str| env::var(name).ok();
        let wanted = wanted(&variable).map_err(anyhow::Error::msg)?;
        let resource = resource(namespace, instance);
        let mut export = Self {
            wanted,
            is_disabled: is_disabled(&variable),
            resource: resource.clone(),
            ..Self::off()
        };
        if wanted.traces {
            let exporter = SpanExporter::builder().with_http().with_http_client(Client::new());
            let exporter = exporter.build().context("OTLP for traces")?;
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
            export.traces = Some(provider.with_resource(resource.clone()).build());
        }
        if wanted.logs {
            let exporter = LogExporter::builder().with_http().with_http_client(Client::new());
            let exporter = exporter.build().context("OTLP for logs")?;
            let provider = SdkLoggerProvider::builder().with_batch_exporter(exporter);
            export.logs = Some(provider.with_resource(resource).build());
        }
        Ok(export)
    }

    /// Makes spans, if they are sent.
    pub fn tracer(&self) -> Option<SdkTracer> {
        self.traces.as_ref().map(|provider| provider.tracer("khala"))
    }

    pub(super) fn logs(&self) -> Option<&SdkLoggerProvider> {
        self.logs.as_ref()
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    pub(super) fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Pushes metrics every `OTEL_METRIC_EXPORT_INTERVAL` (60 s), if they are sent.
    pub(super) fn metrics(&self) -> anyhow::Result<Option<PeriodicReader<MetricExporter>>> {
        if !self.wanted.metrics {
            return Ok(None);
        }
        let exporter = MetricExporter::builder().with_http().with_http_client(Client::new());
        let exporter = exporter.build().context("OTLP for metrics")?;
        Ok(Some(PeriodicReader::builder(exporter).build()))
    }

    /// Sends what is left of traces and logs.
    pub fn end(&self) {
        let results = [
            self.traces.as_ref().map(|it| it.shutdown_with_timeout(FLUSH_PATIENCE)),
            self.logs.as_ref().map(|it| it.shutdown_with_timeout(FLUSH_PATIENCE)),
        ];
        for error in results.into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "the last telemetry was not sent");
        }
    }
}

/// Source: OpenTelemetry's conventions for services. `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` win.
fn resource(namespace: &str, instance: &str) -> Resource {
    let ours = [
        KeyValue::new("service.name", "khala"),
        KeyValue::new("service.namespace", namespace.to_owned()),
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let environment: [Box<dyn ResourceDetector>; 1] = [Box::new(EnvResourceDetector::new())];
    let named = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    Resource::builder_empty()
        .with_attributes(ours)
        .with_detectors(&environment)
        .with_attributes(named.map(|name| KeyValue::new("service.name", name)))
        .build()
}

/// Blocking, on the exporters' own threads.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let told = env::var("OTEL_EXPORTER_OTLP_TIMEOUT")
            .ok()
            .and_then(|text| text.parse().ok());
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(told.map_or(TIMEOUT, Duration::from_millis)));
        Self(config.build().into())
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = response.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let to = request.uri().to_string();
        let answer = self.send(request);
        // The library drops what it could not send without a word.
        match &answer {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => tracing::warn!(to, status = answer.status().as_u16(), "telemetry was refused"),
            Err(error) => tracing::warn!(to, %error, "telemetry was not sent"),
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Wanted, String> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name);
        wanted(&|name| get(name).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        assert_eq!(of(&[]), Ok(Wanted::default()));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(Wanted::default()));
        let off = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_SDK_DISABLED", "true"),
        ];
        assert_eq!(of(&off), Ok(Wanted::default()));
    }

    #[test]
    fn one_endpoint_is_for_all_and_each_can_be_switched_off() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let every = Wanted {
            traces: true,
            metrics: true,
            logs: true,
        };
        assert_eq!(of(&[all]), Ok(every));
        assert_eq!(
            of(&[all, ("OTEL_LOGS_EXPORTER", "none")]),
            Ok(Wanted { logs: false, ..every })
        );
        let only = of(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/v1/traces")]);
        assert_eq!(
            only,
            Ok(Wanted {
                traces: true,
                ..Wanted::default()
            })
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_the_variable_that_asks_for_it() {
        let grpc = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ]);
        assert!(
            grpc.as_ref()
                .is_err_and(|words| words.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL=grpc")),
            "{grpc:?}"
        );
        let tls = of(&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://c:4318")]);
        assert!(
            tls.as_ref()
                .is_err_and(|words| words.starts_with("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=")),
            "{tls:?}"
        );
    }
}
