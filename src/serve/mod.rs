//! `khala serve`: the projector, and HTTP beside it (INTERFACE.md §4, as far as it is built).
//! In: settings. Out: documents, `/metrics`, answers. Invariant: publishing waits for the log alone, never for the
//! store; a signal finishes the batch in hand, commits, leaves the group.

mod auditing;
mod auth;
mod changes;
mod envelope;
mod error;
mod events;
mod expiry;
mod extract;
mod feeds;
mod listen;
mod openapi;
mod operations;
mod origin;
mod page;
mod projected;
mod rate;
mod reader;
mod reads;
mod received;
mod repairs;
mod rollout;
mod router;
mod snapshots;
mod streams;
mod tls;
mod unread;

pub(crate) use self::listen::raise_file_limit;
pub use self::received::publications;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::auth::Guard;
use self::feeds::Feeds;
use self::rate::Rate;
use self::tls::Tls;
use crate::access::{Access, Serving, instance, projector_settings};
use crate::config::{LogTarget, Settings, StoreTarget, Token};
use crate::log::LogError;
use crate::log::embedded::{Serves, announce};
use crate::projector;
use crate::store::StoreError;
use crate::telemetry::sum_up;

/// A process that was assigned nothing by then is ready all the same: others have all partitions.
const ASSIGNMENT_PATIENCE: Duration = Duration::from_secs(15);
/// How long open requests may take at the end.
const REQUESTS_PATIENCE: Duration = Duration::from_secs(15);
/// The pause between two looks at a log or store that is away at the start.
const START_PAUSE: Duration = Duration::from_millis(500);

/// How often log lines that were held back are looked at.
const SUM_UP_EVERY: Duration = Duration::from_secs(1);

/// What every request may use.
#[derive(Clone)]
struct App {
    access: Access,
    serving: Serving,
    guard: Arc<Guard>,
    rate: Arc<Rate>,
    feeds: Arc<Feeds>,
    /// Streams end when this is cancelled.
    stop: CancellationToken,
    started: Instant,
}

/// Serves until `stop`.
///
/// # Errors
/// The address cannot be listened on, or log or store refuse for a reason that a person must mend.
pub async fn run(access: Access, serving: Serving, tokens: Vec<Token>, stop: CancellationToken) -> anyhow::Result<()> {
    let http = access.settings.http;
    let listener = TcpListener::bind(http)
        .await
        .with_context(|| format!("cannot listen on {http}; `--http` takes another address"))?;
    run_on(listener, access, serving, tokens, stop).await
}

/// The same, on a listener that is there already.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    listener: TcpListener,
    mut access: Access,
    serving: Serving,
    tokens: Vec<Token>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    access.serving = Some(serving.clone());
    let settings = Arc::clone(&access.settings);
    let address = listener.local_addr()?;
    announce_in_directories(&settings, address);
    let tls = tls(&settings)?;
    listen::raise_file_limit();
    let http_stop = CancellationToken::new();
    let app = App {
        access: access.clone(),
        serving: serving.clone(),
        guard: Arc::new(Guard::new(settings.token_file.clone(), tokens)),
        rate: Arc::new(Rate::new(settings.http_rate)),
        feeds: Feeds::new(),
        stop: http_stop.clone(),
        started: Instant::now(),
    };
    let (feeds, listening) = (Arc::clone(&app.feeds), Arc::clone(&app.feeds));
    serving.board.listen(Box::new(move |partition, batch| {
        listening.committed(partition, batch);
    }));
    let mut tasks = JoinSet::new();
    tasks.spawn(feeds.poll(access.clone(), http_stop.clone()));
    tasks.spawn(reload_on_signal(Arc::clone(&app.guard), tls.clone(), http_stop.clone()));
    tasks.spawn(sum_up_logs(http_stop.clone()));
    let router = router::router(app, &settings);
    tasks.spawn(listen::serve(
        listener,
        router,
        tls,
        settings.http_connections,
        http_stop.clone(),
    ));
    let mut background = JoinSet::new();
    background.spawn(auditing::audit_again_and_again(access.clone(), serving.clone()));
    background.spawn(rollout::lead(access.clone(), serving.clone()));
    background.spawn(rollout::tell_health(access.clone(), serving.clone()));
    background.spawn(expiry::run(access.clone(), serving.clone()));
    info!(%address, namespace = settings.namespace, topic = settings.topic, "serving");
    let projected = tokio::select! {
        projected = project(&access, &serving, &stop) => projected,
        Some(ended) = tasks.join_next() => Err(anyhow::anyhow!("HTTP ended: {ended:?}")),
    };
    background.abort_all();
    http_stop.cancel();
    if tokio::time::timeout(REQUESTS_PATIENCE, async { while tasks.join_next().await.is_some() {} })
        .await
        .is_err()
    {
        warn!("some requests were still open");
    }
    projected
}

fn announce_in_directories(settings: &Settings, address: SocketAddr) {
    let log = if let LogTarget::Embedded(dir) = &settings.log {
        Some(dir)
    } else {
        None
    };
    let store = if let StoreTarget::Embedded(dir) = &settings.store {
        Some(dir)
    } else {
        None
    };
    for dir in log.into_iter().chain(store) {
        let serves = Serves {
            topic: settings.topic.clone(),
            namespace: settings.namespace.clone(),
        };
        if let Err(error) = announce(dir, address, serves) {
            error!(%error, dir = %dir.display(), "other commands will not find this server");
        }
    }
}

/// Makes sure of log and store, then projects until `stop`.
async fn project(access: &Access, serving: &Serving, stop: &CancellationToken) -> anyhow::Result<()> {
    let ready = async {
        prepare_log(access).await?;
        check_store(access).await
    };
    tokio::select! {
        ready = ready => ready?,
        () = stop.cancelled() => return Ok(()),
    }
    let settings = &access.settings;
    let projector = projector_settings(settings, &instance());
    let (log, store) = (Arc::clone(&access.log), Arc::clone(&access.store));
    let (metrics, board) = (Arc::clone(&serving.metrics), Arc::clone(&serving.board));
    let spans = serving.spans.clone();
    let mut beside = JoinSet::new();
    beside.spawn(snapshots::run(access.clone(), serving.clone(), stop.clone()));
    let projected = projector::run_with_spans(log, store, projector, metrics, spans, board, stop.clone()).await;
    beside.shutdown().await;
    projected
}

async fn prepare_log(access: &Access) -> anyhow::Result<()> {
    loop {
        match access.log.prepare().await {
            Ok(lines) => {
                lines.iter().for_each(|line| info!("{line}"));
                return Ok(());
            }
            Err(LogError::Refused(words)) => anyhow::bail!(crate::access::Refusal(words)),
            Err(error) => warn!(%error, "waiting for the log"),
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

async fn check_store(access: &Access) -> anyhow::Result<()> {
    loop {
        match access.store.check().await {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| warn!("{warning}"));
                return Ok(());
            }
            Err(error @ StoreError::Unreachable { .. }) => warn!(%error, "waiting for the store"),
            Err(error) => anyhow::bail!(crate::access::Refusal(error.to_string())),
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

/// Log lines that were held back because they repeat themselves are told as one.
async fn sum_up_logs(stop: CancellationToken) {
    while tokio::time::timeout(SUM_UP_EVERY, stop.cancelled()).await.is_err() {
        sum_up();
    }
}

/// The certificate, if the settings name one.
fn tls(settings: &Settings) -> anyhow::Result<Option<Tls>> {
    match (&settings.http_tls_cert, &settings.http_tls_key) {
        (Some(certificate), Some(key)) => Tls::new(&tls::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        })
        .map(Some),
        _ => Ok(None),
    }
}

/// Reads tokens and certificate again on SIGHUP. What cannot be read leaves what is in force as it is.
async fn reload_on_signal(guard: Arc<Guard>, tls: Option<Tls>, stop: CancellationToken) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        return stop.cancelled().await;
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => {}
        }
        match guard.reload() {
            Ok(None) => info!("SIGHUP: there is no token file to read again"),
            Ok(Some(tokens)) => info!(tokens, "SIGHUP: tokens read again"),
            Err(error) => error!(%error, "SIGHUP: the tokens stay as they were"),
        }
        if let Some(Err(error)) = tls.as_ref().map(Tls::reload) {
            error!(error = format!("{error:#}"), "SIGHUP: the certificate stays as it was");
        }
    }
}
