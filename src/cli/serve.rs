//! `khala serve`.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Context;
use super::door::setup_exit;
use super::exit::{Exit, Failure};
use crate::access::{Opened, Serving, open, place, topics};
use crate::config::{Settings, read_tokens};
use crate::projector::StatusBoard;
use crate::telemetry::messaging::Messaging;
use crate::telemetry::{Export, Metrics};

pub(super) async fn run(context: &Context) -> Result<Exit, Failure> {
    serve(&context.settings, &context.export).await
}

/// Serves until a signal.
pub(super) async fn serve(settings: &Arc<Settings>, export: &Export) -> Result<Exit, Failure> {
    let tokens = match &settings.token_file {
        Some(path) => read_tokens(path).map_err(Failure::usage)?,
        None => Vec::new(),
    };
    // Heard, it ends nothing: a file at its limit is an error like a disk that is full, and told.
    _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
    let access = match open(settings).map_err(|error| Failure {
        exit: setup_exit(&error),
        ..Failure::from(error)
    })? {
        Opened::Direct(access) => access,
        Opened::Running(server) => {
            let http = server
                .http
                .map_or_else(String::new, |http| format!(", and serves http://{http}"));
            return Err(Failure::new(
                Exit::Failed,
                format!("process {} owns the directory already{http}", server.pid),
            )
            .hint("stop it, or name another directory with --log and --store"));
        }
    };
    let place = place(settings);
    let serving = Serving {
        board: Arc::new(StatusBoard::default()),
        audit: Arc::default(),
        snapshots: Arc::default(),
        metrics: Metrics::exported(&settings.namespace, &topics(settings), export)?,
        spans: Messaging::new(export.tracer(), place),
    };
    let stop = CancellationToken::new();
    let mut signals = JoinSet::new();
    signals.spawn(stop_on_signal(stop.clone()));
    crate::serve::run(access, serving, tokens, stop).await?;
    info!("stopped");
    Ok(Exit::Done)
}

/// The first signal ends the work in hand, the second the process.
async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    for seen in 0.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if seen > 0 {
            std::process::exit(Exit::Failed as i32);
        }
        info!("stopping: finishing the batches in hand");
        stop.cancel();
    }
}
