//! `khala dead-letters list|show|redrive` and `khala resume`.

use clap::Subcommand;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::{AccessError, Chosen, Effort, Fate, RedriveReport, RedriveRequest, ResumeRequest, still_held};
use crate::pure::event::Reason;
use crate::pure::time::Time;

#[derive(Subcommand)]
pub(super) enum DeadLettersCommand {
    /// What was refused, and why; the newest last
    #[command(after_help = "Example:\n  khala dead-letters list --reason key_mismatch --limit 20")]
    List {
        /// Only of this reason
        #[arg(long, value_parser = Reason::ALL.map(Reason::name))]
        reason: Option<String>,
        /// At most this many, the newest
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// One dead letter, whole
    #[command(after_help = "Example:\n  khala dead-letters show 3 17")]
    Show {
        /// Its partition in the dead letters' topic
        partition: u32,
        /// Its offset there
        offset: u64,
    },
    /// Put letters back into the events' topic after a fix, each at most once
    #[command(after_help = "Examples:\n  khala dead-letters redrive 3 17 3 18\n  \
        khala dead-letters redrive --reason too_large --dry-run\n\n\
        A letter that would be dead again stays where it is. Letters of an interrupted redrive that are not in the log\n\
        are named and left; --interrupted redrives them too. Exit codes: 2 a named letter would be dead again;\n\
        1 some were interrupted or not acknowledged; 4 there is no such letter.")]
    Redrive(RedriveArgs),
}

#[derive(clap::Args)]
pub(super) struct RedriveArgs {
    /// Partitions and offsets in the dead letters' topic, in turn
    #[arg(value_name = "PARTITION OFFSET", conflicts_with_all = ["reason", "all"], required_unless_present_any = ["reason", "all"])]
    pub places: Vec<u64>,
    /// All of this reason
    #[arg(long, value_parser = Reason::ALL.map(Reason::name), conflicts_with = "all")]
    pub reason: Option<String>,
    /// All
    #[arg(long)]
    pub all: bool,
    /// Tell what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Also those whose redrive was interrupted and that are not in the log
    #[arg(long, conflicts_with = "dry_run")]
    pub interrupted: bool,
}

pub(super) async fn list(reason: Option<&str>, limit: usize, context: &Context) -> Result<Exit, Failure> {
    let letters = Door::open_existing(context)?.dead_letters(reason, limit).await?;
    let out = context.out;
    if out.json {
        letters.iter().for_each(|letter| out.value(letter));
        return Ok(Exit::Done);
    }
    let time = |ms: i64| Time::from_ms(ms).map_or_else(|| "-".to_owned(), |time| time.to_string());
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            vec![
                letter.partition.to_string(),
                letter.offset.to_string(),
                time(letter.timestamp_ms),
                letter.reason.clone(),
                letter.source.clone(),
                letter.key.clone().unwrap_or_else(|| "-".to_owned()),
                letter.detail.clone(),
            ]
        })
        .collect();
    out.table(
        &["partition", "offset", "when", "reason", "from", "key", "detail"],
        &rows,
    );
    Ok(Exit::Done)
}

pub(super) async fn show(partition: u32, offset: u64, context: &Context) -> Result<Exit, Failure> {
    let letter = Door::open_existing(context)?.dead_letter(partition, offset).await?;
    if context.out.json {
        context.out.value(&letter);
    } else {
        context
            .out
            .line(serde_json::to_string_pretty(&letter).unwrap_or_default());
    }
    Ok(Exit::Done)
}

pub(super) async fn redrive(args: RedriveArgs, context: &Context) -> Result<Exit, Failure> {
    let request = RedriveRequest {
        chosen: chosen(&args)?,
        effort: match (args.dry_run, args.interrupted) {
            (true, _) => Effort::DryRun,
            (false, true) => Effort::RedriveInterrupted,
            (false, false) => Effort::Redrive,
        },
    };
    let report = Door::open_existing(context)?.redrive(&request).await?;
    let out = context.out;
    if out.json {
        out.value(&report);
    } else {
        print(&report, context);
    }
    if report.more {
        out.note("there are more than one run takes: run it again");
    }
    let named = matches!(request.chosen, Chosen::These(_));
    Ok(match &report {
        report if report.failed > 0 || report.interrupted > 0 => Exit::Failed,
        report if named && report.still_dead > 0 => Exit::Usage,
        _ => Exit::Done,
    })
}

fn chosen(args: &RedriveArgs) -> Result<Chosen, Failure> {
    if let Some(reason) = &args.reason {
        return Ok(Chosen::OfReason(reason.clone()));
    }
    if args.all {
        return Ok(Chosen::All);
    }
    let pair = |pair: &[u64]| match pair {
        [partition, offset] => u32::try_from(*partition).ok().map(|partition| (partition, *offset)),
        _ => None,
    };
    let pairs: Option<Vec<_>> = args.places.chunks(2).map(pair).collect();
    pairs.map(Chosen::These).ok_or_else(|| {
        Failure::usage("letters are named by partition and offset, in turn")
            .hint("`khala dead-letters list` shows both: khala dead-letters redrive 3 17 3 18")
    })
}

fn print(report: &RedriveReport, context: &Context) {
    let out = context.out;
    let rows: Vec<Vec<String>> = report
        .letters
        .iter()
        .map(|letter| {
            let outcome = match letter.outcome {
                Fate::Redriven => "redriven",
                Fate::WouldRedrive => "would be redriven",
                Fate::AlreadyRedriven => "already redriven",
                Fate::StillDead => "still dead",
                Fate::Interrupted => "interrupted",
                Fate::Failed => "failed",
            };
            let to = letter
                .to
                .map_or_else(|| "-".to_owned(), |(partition, offset)| format!("{partition}/{offset}"));
            vec![
                letter.partition.to_string(),
                letter.offset.to_string(),
                outcome.to_owned(),
                to,
                letter.detail.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out.table(&["partition", "offset", "outcome", "to", "detail"], &rows);
    }
    let RedriveReport {
        redriven,
        already_redriven,
        still_dead,
        interrupted,
        failed,
        ..
    } = report;
    out.line(format!(
        "{redriven} redriven, {already_redriven} already redriven, {still_dead} still dead, {interrupted} interrupted, {failed} failed"
    ));
}

pub(super) async fn resume(partition: Option<u32>, context: &Context) -> Result<Exit, Failure> {
    let told = Door::open_existing(context)?.resume(ResumeRequest { partition }).await;
    let told = told.map_err(|error| match error {
        AccessError::Refused(words) => Failure::new(Exit::Failed, words),
        other => other.into(),
    })?;
    for told in &told {
        if context.out.json {
            context.out.value(told);
        } else if let Some(below) = told.below {
            let partition = told.partition;
            context.out.line(format!(
                "partition {partition}: dead letters below offset {below} are let through"
            ));
        }
    }
    still_held(&told).map_or(Ok(Exit::Done), |words| Err(Failure::new(Exit::Failed, words)))
}
