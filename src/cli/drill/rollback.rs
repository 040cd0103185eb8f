//! A candidate with a defect is rolled out under traffic: its settings change what documents say. The gates must see
//! it and lead readers back. Measured from outside: what readers got, and until when.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::exit::Failure;
use super::super::gate::calls::{Calls, LOOK_EVERY};
use super::super::gate::events::event;
use super::super::gate::failed;
use super::super::gate::place::Place;
use super::super::gate::report::Check;
use super::super::gate::system::System;
use super::DrillArgs;
use super::faults::unnoticed;
use super::traffic::Traffic;
use crate::access::RolloutStart;
use crate::config::Settings;
use crate::pure::redact::Redact;
use crate::rollout::{RolloutPhase, Step};

/// Workers whose documents the defect changes, each read again and again.
const WORKERS: usize = 60;
/// How long readers are watched after the rollback.
const WATCHED_AFTER: Duration = Duration::from_secs(2);
/// From the decision until the last wrong answer.
const BACK_WITHIN_MS: f64 = 1000.0;
/// Half of all entities; only the documents decide.
const PLAN: &str = "[gates]\nread_latency_p95_ms_max = 60000\nlag_p95_events_max = 1000000\n\
    [[stage]]\nname = \"half\"\npercent = 50\nhold = \"1h\"\n[[stage]]\nname = \"all\"\npercent = 100\nhold = \"1h\"\n";

fn worker(number: usize) -> String {
    format!("worker/drill_{number:02}")
}

fn workspace(number: usize) -> String {
    format!("drill-{number}@example.com")
}

/// What readers got.
#[derive(Default)]
struct Answers {
    right: u64,
    wrong: u64,
    last_wrong: Option<Instant>,
}

async fn read(calls: Calls, stop: CancellationToken) -> Result<Answers, Failure> {
    let mut answers = Answers::default();
    for number in (0..WORKERS).cycle() {
        if stop.is_cancelled() {
            break;
        }
        let document = calls.document_at(&worker(number), 0).await?;
        if document["workspace_ref"] == workspace(number) {
            answers.right += 1;
        } else {
            answers.wrong += 1;
            answers.last_wrong = Some(Instant::now());
        }
    }
    Ok(answers)
}

/// Another namespace of the same topic, redacting what the first one keeps.
fn candidate(place: &Place) -> Place {
    let settings = Settings {
        namespace: format!("{}-candidate", place.settings.namespace),
        redact: Redact::SecretsAndEmail,
        ..(*place.settings).clone()
    };
    Place {
        settings: settings.into(),
        dir: place.dir.clone(),
    }
}

pub(super) async fn rollback(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    let settings = Settings {
        redact: Redact::Off,
        ..(*place.settings).clone()
    };
    let live = Place {
        settings: settings.into(),
        dir: place.dir.clone(),
    };
    let defective = candidate(place);
    let done = played(args, &live, &defective).await;
    let removed = defective.remove().await;
    let checks = done?;
    removed.map(|()| checks)
}

async fn played(args: &DrillArgs, live: &Place, defective: &Place) -> Result<Vec<Check>, Failure> {
    let system = System::start(live).await?;
    let other = System::start(defective).await?;
    let started = |number: usize| {
        let data = serde_json::json!({"workspace_ref": workspace(number)});
        event(&worker(number), "drill/workers", 1, "worker.started", &data)
    };
    system
        .calls
        .publish_and_see((0..WORKERS).map(started).collect())
        .await?;
    let traffic = Traffic::start(&system.calls, args);
    let (stop, mut readers) = (CancellationToken::new(), JoinSet::new());
    readers.spawn(read(system.calls.clone(), stop.clone()));
    args.half().await;
    // Under traffic it is never quite at the end: it must have what the defect changes.
    for number in 0..WORKERS {
        other.calls.document_at(&worker(number), 0).await?;
    }

    let start = RolloutStart {
        candidate: defective.settings.namespace.clone(),
        plan: PLAN.to_owned(),
    };
    system.truth.start_rollout(&start, "operator/drill").await?;
    let began = Instant::now();
    let (last_step, decided) = until_back(&system, args.settle).await?;
    tokio::time::sleep(WATCHED_AFTER).await;
    stop.cancel();
    let answers = readers.join_next().await.ok_or_else(|| failed("nobody reads"))?;
    let answers = answers.map_err(failed)??;
    let sent = traffic.stop(&system.calls).await?;
    let late = answers
        .last_wrong
        .map_or(Duration::ZERO, |last| last.saturating_duration_since(decided));
    let mut checks = vec![
        Check::told(
            "the defect",
            "the candidate redacts e-mail addresses, the live namespace does not",
        ),
        Check::told(
            "from the start until the gate broke",
            format!("{} ms", (decided - began).as_millis()),
        ),
        Check::told("why", &last_step.why),
        Check::is(
            "it rolled back by itself",
            last_step.did == "rollback" && last_step.who.starts_with("leader/"),
        ),
        Check::told("answers that were right", answers.right),
        Check::told("wrong answers served before", answers.wrong),
        Check::within(
            "from the decision until the last wrong answer",
            late.as_secs_f64() * 1e3,
            BACK_WITHIN_MS,
        ),
        unnoticed(&sent),
    ];
    checks.extend(sent.verify(&system.calls, args).await?);
    other.stop().await?;
    system.stop().await?;
    Ok(checks)
}

/// Waits until the rollout is rolled back; the step that did it, and when it was seen.
async fn until_back(system: &System, patience: Duration) -> Result<(Step, Instant), Failure> {
    let began = Instant::now();
    while began.elapsed() < patience {
        let report = system.truth.rollout().await?;
        if report.rollout.phase == RolloutPhase::RolledBack {
            let last = report.record.into_iter().next_back();
            return Ok((last.ok_or_else(|| failed("an empty record"))?, Instant::now()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed(format!("not rolled back within {} s", patience.as_secs())))
}
