//! The rollout in a server: what operators ask, and the tasks that lead it and tell of the candidate's health.

use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::sleep;
use tracing::warn;

use super::App;
use super::auth::Caller;
use super::error::HttpError;
use super::extract::Sent;
use crate::access::{Access, HealthRow, Leading, RolloutOrder, RolloutStart, Serving, instance};
use crate::projector::now_ms;
use crate::telemetry::RolloutGauges;

/// How often the gates are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often somebody looks whether there is a rollout.
const IDLE_EVERY: Duration = Duration::from_secs(1);

/// A request that says nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Its plan names entities that are led first.
pub(super) async fn status(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, HttpError> {
    caller.sees_all()?;
    Ok(Json(app.access.rollout().await?).into_response())
}

pub(super) async fn start(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Sent(order): Sent<RolloutStart>,
) -> Result<Response, HttpError> {
    let report = app.access.start_rollout(&order, &who(&caller)).await?;
    app.serving.metrics.rollout_step("start");
    Ok(Json(report).into_response())
}

pub(super) async fn promote(
    app: State<App>,
    caller: Extension<Caller>,
    _: Sent<Nothing>,
) -> Result<Response, HttpError> {
    order(app, caller, RolloutOrder::Promote).await
}

pub(super) async fn rollback(
    app: State<App>,
    caller: Extension<Caller>,
    _: Sent<Nothing>,
) -> Result<Response, HttpError> {
    order(app, caller, RolloutOrder::Rollback).await
}

pub(super) async fn pause(app: State<App>, caller: Extension<Caller>, _: Sent<Nothing>) -> Result<Response, HttpError> {
    order(app, caller, RolloutOrder::Pause).await
}

pub(super) async fn resume(
    app: State<App>,
    caller: Extension<Caller>,
    _: Sent<Nothing>,
) -> Result<Response, HttpError> {
    order(app, caller, RolloutOrder::Resume).await
}

async fn order(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    order: RolloutOrder,
) -> Result<Response, HttpError> {
    let report = app.access.order_rollout(order, &who(&caller)).await?;
    app.serving.metrics.rollout_step(order.name());
    Ok(Json(report).into_response())
}

fn who(caller: &Caller) -> String {
    format!("token/{}", caller.name)
}

/// Leads the rollout, if there is one and nobody else does, until it is dropped.
pub(super) async fn lead(access: Access, serving: Serving) {
    let mut leading = Leading::new(&instance());
    loop {
        let mut pause = IDLE_EVERY;
        match access.lead_rollout(&mut leading).await {
            Err(error) => warn!(%error, "the rollout can't be looked at"),
            Ok(heard) => {
                let leads = heard.rollout.as_ref().zip(heard.gates.as_ref());
                serving.metrics.rollout(leads.map(|(rollout, gates)| {
                    RolloutGauges {
                        percent: rollout.place().percent,
                        overdue_seconds: rollout.overdue_ms(now_ms()).max(0) as f64 / 1000.0,
                        gates: gates
                            .iter()
                            .map(|gate| (gate.gate.clone(), gate.value, gate.limit))
                            .collect(),
                    }
                }));
                if let Some(did) = heard.did {
                    serving.metrics.rollout_step(did);
                }
                if heard.rollout.is_some() {
                    pause = LOOK_EVERY;
                }
            }
        }
        sleep(pause).await;
    }
}

/// Tells how this process' projectors fare, while they are a candidate's, until it is dropped.
pub(super) async fn tell_health(access: Access, serving: Serving) {
    let instance = instance();
    loop {
        sleep(IDLE_EVERY).await;
        let (written, failed, drift) = serving.metrics.health();
        let at_ms = now_ms();
        let row = HealthRow {
            at_ms,
            written,
            failed,
            drift,
        };
        if let Err(error) = access.tell_health(&instance, row).await {
            tracing::debug!(%error, "the rollout can't be told of this projector");
        }
    }
}
