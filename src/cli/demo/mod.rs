//! `khala demo`: a newcomer's first minute, on the embedded log and store alone. Events with all that goes wrong,
//! a projector killed on purpose in the middle, its recovery; a replay of everything and an audit; then every document
//! compared with a fold of the log.

mod child;
mod events;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Context;
use super::args::DemoArgs;
use super::exit::{Exit, Failure};
use crate::access::{Access, AuditOrder, Opened, ReplayReport, ReplayRequest, open};
use crate::config::{LogTarget, Settings, StoreTarget};
use crate::log::NewRecord;
use crate::projector::now_ms;
use crate::repair::AuditReport;

use self::child::Projector;
use self::events::Mishaps;

/// Records handed over at once.
const CHUNK: usize = 32;
/// The pause between two chunks, so that a person can see them flow.
const PACE: Duration = Duration::from_millis(40);

/// What happened on the way.
struct Story {
    seed: u64,
    sent: usize,
    mishaps: Mishaps,
    killed_after: usize,
    sent_again: usize,
    applied_at_restart: u64,
    recovery: Duration,
    took: Duration,
    replay: ReplayReport,
    audit: AuditReport,
}

pub(super) async fn run(args: DemoArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = Arc::new(Settings {
        log: LogTarget::Embedded(args.dir.clone()),
        store: StoreTarget::Embedded(args.dir.clone()),
        ..(*context.settings).clone()
    });
    if args.projector {
        return child::run(&settings).await;
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    refuse_if_in_use(&settings, &args.dir)?;
    let out = context.out;
    out.note(format!("khala demo in {} (seed {seed})", args.dir.display()));
    let mut story = tell(seed, &args.dir, context).await?;
    let access = match open(&settings)? {
        Opened::Direct(access) => access,
        Opened::Running(server) => {
            return Err(Failure::new(
                Exit::Failed,
                format!("process {} took the directory", server.pid),
            ));
        }
    };
    repair(&access, &mut story).await?;
    report::print(&access, &story, &args.dir, out).await
}

fn refuse_if_in_use(settings: &Arc<Settings>, dir: &Path) -> Result<(), Failure> {
    let access: Access = match open(settings)? {
        Opened::Direct(access) => access,
        Opened::Running(server) => {
            let message = format!("process {} owns {} already", server.pid, dir.display());
            return Err(Failure::usage(message).hint("stop it, or take another directory with --dir"));
        }
    };
    drop(access); // the projector's process takes it
    Ok(())
}

/// Puts all documents back to the log's start, redoes them, and audits what came of it.
async fn repair(access: &Access, story: &mut Story) -> Result<(), Failure> {
    let all = ReplayRequest {
        partition: None,
        from: "earliest".to_owned(),
        dry_run: false,
    };
    story.replay = access.replay(&all, &mut |_| {}).await?;
    story.audit = access.audit(&AuditOrder::default(), &|_| {}).await?;
    Ok(())
}

/// Sends everything, with a crash in the middle.
async fn tell(seed: u64, dir: &Path, context: &Context) -> Result<Story, Failure> {
    let started = Instant::now();
    let (records, mishaps) = events::records(seed, now_ms());
    let bar = context.out.progress(Some(records.len() as u64), "events acknowledged");
    let chunks: Vec<&[NewRecord]> = records.chunks(CHUNK).collect();
    let crash_at = chunks.len() / 2;
    let mut story = Story {
        seed,
        sent: records.len(),
        mishaps,
        killed_after: 0,
        sent_again: 0,
        applied_at_restart: 0,
        recovery: Duration::ZERO,
        took: Duration::ZERO,
        replay: ReplayReport::default(),
        audit: AuditReport::default(),
    };
    let mut projector = Projector::start(dir).await?;
    for (i, chunk) in chunks.iter().enumerate() {
        if i == crash_at {
            // Handed over and not waited for: nobody knows whether it was taken, so it is sent again.
            projector.hand_over(chunk).await?;
            projector.kill().await?;
            story.killed_after = i * CHUNK;
            story.sent_again = chunk.len();
            let restarted = Instant::now();
            projector = Projector::start(dir).await?;
            story.recovery = restarted.elapsed();
            story.applied_at_restart = projector.applied_at_start;
            bar.suspend(|| {
                context.out.note(format!(
                    "kill -9 after {} events; started again in {} ms, at {} records applied",
                    story.killed_after,
                    story.recovery.as_millis(),
                    story.applied_at_restart
                ));
            });
        }
        projector.send(chunk).await?;
        bar.inc(chunk.len() as u64);
        tokio::time::sleep(PACE).await;
    }
    projector.finish().await?;
    bar.finish_and_clear();
    story.took = started.elapsed();
    Ok(story)
}
