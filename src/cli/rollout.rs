//! `khala rollout`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use super::out::Out;
use crate::access::{RolloutOrder, RolloutReport, RolloutStart};
use crate::projector::now_ms;
use crate::rollout::{Plan, RolloutPhase};

/// Steps told; `--json` tells all.
const STEPS: usize = 10;

pub(super) const HELP: &str = "Examples:\n  khala rebuild --into khala-2\n  khala serve --namespace khala-2 --http 127.0.0.1:7601 &\n  \
    khala rollout start --candidate khala-2 --plan config/rollout.toml\n  khala rollout status --json\n  \
    khala rollout rollback\n\n\
    The servers of the namespace lead it: they compare both namespaces, promote after each stage's hold time, and roll\n\
    back by themselves when a gate breaks. Exit 0: done; 2: bad plan or usage; 3: a gate is broken, or it was refused or\n\
    rolled back; 4: there is no rollout.";

#[derive(Subcommand)]
pub(super) enum RolloutCommand {
    /// Begin: the plan's first stage leads readers at once
    #[command(after_help = "Example:\n  khala rollout start --candidate khala-2 --plan config/rollout.toml")]
    Start {
        /// The namespace to lead readers to; somebody must project it
        #[arg(long, value_name = "NS")]
        candidate: String,
        /// Stages, hold times and gates (TOML)
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
    },
    /// Stage, gates, and the record
    #[command(after_help = "Example:\n  khala rollout status --json\n\nExit 3: it was rolled back.")]
    Status,
    /// The next stage now, if no gate is broken
    #[command(after_help = "Example:\n  khala rollout promote")]
    Promote,
    /// Readers back to where they were, now
    #[command(after_help = "Example:\n  khala rollout rollback")]
    Rollback,
    /// No promotion until told; a broken gate rolls back all the same
    #[command(after_help = "Example:\n  khala rollout pause")]
    Pause,
    /// Go on
    #[command(after_help = "Example:\n  khala rollout resume")]
    Resume,
}

pub(super) async fn run(command: RolloutCommand, context: &Context) -> Result<Exit, Failure> {
    let who = format!(
        "operator/{}",
        std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned())
    );
    let order = match command {
        RolloutCommand::Start { candidate, plan } => {
            let path = plan.display().to_string();
            let text = std::fs::read_to_string(&plan)
                .map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
            Plan::read(&path, &text).map_err(Failure::usage)?;
            let start = RolloutStart { candidate, plan: text };
            let report = Door::open_existing(context)?.start_rollout(&start, &who).await?;
            tell(&report, context.out);
            return Ok(Exit::Done);
        }
        RolloutCommand::Status => {
            let report = Door::open_existing(context)?.rollout().await?;
            tell(&report, context.out);
            let is_back = report.rollout.phase == RolloutPhase::RolledBack;
            return Ok(if is_back { Exit::Drift } else { Exit::Done });
        }
        RolloutCommand::Promote => RolloutOrder::Promote,
        RolloutCommand::Rollback => RolloutOrder::Rollback,
        RolloutCommand::Pause => RolloutOrder::Pause,
        RolloutCommand::Resume => RolloutOrder::Resume,
    };
    let report = Door::open_existing(context)?.order_rollout(order, &who).await?;
    tell(&report, context.out);
    Ok(Exit::Done)
}

fn tell(report: &RolloutReport, out: Out) {
    if out.json {
        return out.value(report);
    }
    let rollout = &report.rollout;
    let phase = match rollout.phase {
        RolloutPhase::Rolling => "rolling",
        RolloutPhase::Paused => "paused",
        RolloutPhase::RolledBack => "rolled back",
        RolloutPhase::Done => "done",
    };
    let place = rollout.place();
    out.line(format!(
        "{} → {}: {phase}, stage {} ({} %), for {} s\n{}",
        report.namespace,
        rollout.candidate,
        place.stage,
        place.percent,
        (now_ms() - rollout.since_ms).max(0) / 1000,
        rollout.why
    ));
    match &report.leader {
        Some(beat) => {
            out.line(format!("led by {}; waits for {}\n", beat.who, beat.waits_for));
            let row = |gate: &crate::rollout::Reading| {
                let value = gate.value.map_or("-".to_owned(), |value| format!("{value:.3}"));
                let state = if gate.is_broken() { "BROKEN" } else { "ok" };
                vec![gate.gate.clone(), value, gate.limit.to_string(), state.to_owned()]
            };
            let rows: Vec<_> = beat.gates.iter().map(row).collect();
            out.table(&["gate", "value", "limit", "state"], &rows);
        }
        None if rollout.is_under_way() => out.note("no process leads it: start `khala serve` of the namespace"),
        None => {}
    }
    let row = |step: &crate::rollout::Step| {
        let place = |place: &crate::rollout::Place| format!("{} {} %", place.stage, place.percent);
        let words = [
            &step.at,
            &step.who,
            &step.did,
            &place(&step.from),
            &place(&step.to),
            &step.why,
        ];
        words.map(Clone::clone).to_vec()
    };
    let newest = report.record.len().saturating_sub(STEPS);
    let rows: Vec<_> = report.record[newest..].iter().map(row).collect();
    out.line("");
    out.table(&["when", "who", "did", "from", "to", "why"], &rows);
}
