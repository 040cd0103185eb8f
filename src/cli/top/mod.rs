//! `khala top`: partitions with rates and lag, and the hottest runs, again and again. In: status and newest runs, twice.
//! Out: a screen at a terminal, else text or a JSON value a look. Source of the form: top(1).

mod screen;
mod terminal;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use self::terminal::{Terminal, Wish};
use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::{ListRequest, StatusReport};
use crate::config::read_span;
use crate::pure::entity::Kind;

/// Runs looked at: those with the newest events are the hot ones.
const RUNS: usize = 500;
/// Hot runs shown.
const HOT: usize = 10;
/// Partitions told as text: those that need a look come first.
const ROWS: usize = 24;

/// One look.
struct Look {
    at: Instant,
    status: StatusReport,
    runs: Vec<Value>,
}

/// What changed between two looks.
#[derive(Debug, Serialize)]
struct Screen {
    namespace: String,
    topic: String,
    events_per_second: f64,
    lag_events: u64,
    duplicates: u64,
    dead_letters: u64,
    new_dead_letters: u64,
    partitions: Vec<PartitionLine>,
    hottest_runs: Vec<RunLine>,
}

#[derive(Debug, Serialize)]
struct PartitionLine {
    partition: u32,
    state: String,
    reason: Option<String>,
    detail: Option<String>,
    events_per_second: f64,
    lag_events: u64,
    lag_seconds: f64,
    parked: usize,
}

#[derive(Debug, PartialEq, Serialize)]
struct RunLine {
    run_id: String,
    status: String,
    events: u64,
    events_per_second: f64,
}

#[derive(clap::Args)]
pub(super) struct TopArgs {
    /// The pause between two looks
    #[arg(long, value_name = "SPAN", default_value = "2s")]
    every: String,
    /// End after so many looks; without it at Ctrl-C
    #[arg(long, value_name = "N")]
    times: Option<u64>,
}

pub(super) async fn run(args: &TopArgs, context: &Context) -> Result<Exit, Failure> {
    let every = read_span(&args.every).map_err(|problem| Failure::usage(format!("--every {problem}")))?;
    let every = every.max(Duration::from_millis(100));
    let door = Door::open_existing(context)?;
    let at_terminal = !context.out.json && std::io::stdout().is_terminal();
    if at_terminal {
        watch(&door, every, args.times).await
    } else {
        tell(&door, every, args.times, context).await
    }
}

/// A look after the other, each told as text or JSON.
async fn tell(door: &Door, every: Duration, times: Option<u64>, context: &Context) -> Result<Exit, Failure> {
    let mut before = look(door).await?;
    let mut left = times;
    while left != Some(0) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
            () = tokio::time::sleep(every) => {}
        }
        let now = look(door).await?;
        show(&screen(&before, &now), context);
        before = now;
        left = left.map(|left| left - 1);
    }
    Ok(Exit::Done)
}

/// The same on a screen of its own, until somebody has seen enough. A server that goes away is waited for.
async fn watch(door: &Door, every: Duration, times: Option<u64>) -> Result<Exit, Failure> {
    let mut before = look(door).await?;
    let mut shown = screen(&before, &before);
    let mut terminal = Terminal::open().map_err(|error| Failure::new(Exit::Failed, format!("terminal: {error}")))?;
    let mut left = times;
    let mut trouble = None;
    let mut due = tokio::time::Instant::now() + every;
    while left != Some(0) {
        let drawn = terminal.draw(&shown, trouble.as_deref(), every);
        drawn.map_err(|error| Failure::new(Exit::Failed, format!("terminal: {error}")))?;
        tokio::select! {
            biased;
            wish = terminal.wish() => match wish {
                Wish::End => return Ok(Exit::Done),
                Wish::Redraw => continue,
            },
            () = tokio::time::sleep_until(due) => {}
        }
        match look(door).await {
            Ok(now) => {
                shown = screen(&before, &now);
                terminal.remember(shown.events_per_second);
                (before, trouble) = (now, None);
                left = left.map(|left| left - 1);
            }
            Err(failure) => trouble = Some(failure.message),
        }
        due = tokio::time::Instant::now() + every;
    }
    Ok(Exit::Done)
}

async fn look(door: &Door) -> Result<Look, Failure> {
    let request = ListRequest {
        kind: Kind::Run,
        status: None,
        since: None,
        limit: RUNS,
        cursor: None,
        scope: Vec::new(),
    };
    let (status, page) = (door.status().await?, door.list(&request).await?);
    Ok(Look {
        at: Instant::now(),
        status,
        runs: page.documents,
    })
}

fn screen(before: &Look, now: &Look) -> Screen {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let (then, totals) = (&before.status.totals, &now.status.totals);
    let offsets: HashMap<u32, u64> = before
        .status
        .partitions
        .iter()
        .map(|row| (row.partition, row.offset))
        .collect();
    let mut partitions: Vec<PartitionLine> = now
        .status
        .partitions
        .iter()
        .map(|row| PartitionLine {
            partition: row.partition,
            state: row.state.clone(),
            reason: row.reason.clone(),
            detail: row.detail.clone(),
            events_per_second: rate(offsets.get(&row.partition).copied().unwrap_or(row.offset), row.offset),
            lag_events: row.lag_events,
            lag_seconds: row.lag_seconds,
            parked: row.parked,
        })
        .collect();
    partitions.sort_by_key(|line| {
        (
            line.state == "running",
            std::cmp::Reverse(line.lag_events),
            line.partition,
        )
    });
    Screen {
        namespace: now.status.namespace.clone(),
        topic: now.status.topic.clone(),
        events_per_second: rate(then.records, totals.records),
        lag_events: totals.lag_events,
        duplicates: totals.duplicates,
        dead_letters: totals.dead_letters,
        new_dead_letters: totals.dead_letters.saturating_sub(then.dead_letters),
        partitions,
        hottest_runs: hottest(&before.runs, &now.runs, seconds),
    }
}

/// Runs with the most events since the look before; a run that was not among the newest then began or woke since.
fn hottest(before: &[Value], now: &[Value], seconds: f64) -> Vec<RunLine> {
    let count = |run: &Value| run["event_count"].as_u64().unwrap_or(0);
    let counts: HashMap<&str, u64> = before
        .iter()
        .filter_map(|run| Some((run["run_id"].as_str()?, count(run))))
        .collect();
    let text = |run: &Value, name: &str| run[name].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<RunLine> = now
        .iter()
        .map(|run| {
            let id = text(run, "run_id");
            let since = count(run).saturating_sub(counts.get(id.as_str()).copied().unwrap_or(0));
            RunLine {
                run_id: id,
                status: text(run, "status"),
                events: count(run),
                events_per_second: since as f64 / seconds,
            }
        })
        .filter(|line| line.events_per_second > 0.0)
        .collect();
    lines.sort_by(|a, b| {
        b.events_per_second
            .total_cmp(&a.events_per_second)
            .then_with(|| a.run_id.cmp(&b.run_id))
    });
    lines.truncate(HOT);
    lines
}

fn show(screen: &Screen, context: &Context) {
    let out = context.out;
    if out.json {
        return out.value(screen);
    }
    out.line(format!(
        "namespace {}   topic {}   {:.1} events/s   lag {}   dead letters {} (+{})   duplicates {}\n",
        screen.namespace,
        screen.topic,
        screen.events_per_second,
        screen.lag_events,
        screen.dead_letters,
        screen.new_dead_letters,
        screen.duplicates
    ));
    let rows: Vec<Vec<String>> = screen
        .partitions
        .iter()
        .take(ROWS)
        .map(|line| {
            vec![
                line.partition.to_string(),
                line.state.clone(),
                line.reason.clone().unwrap_or_else(|| "-".to_owned()),
                format!("{:.1}", line.events_per_second),
                line.lag_events.to_string(),
                format!("{:.1}", line.lag_seconds),
            ]
        })
        .collect();
    out.table(&["partition", "state", "reason", "events/s", "lag", "lag s"], &rows);
    if screen.partitions.len() > ROWS {
        out.line(format!("… and {} more", screen.partitions.len() - ROWS));
    }
    out.line("");
    let runs = screen.hottest_runs.iter();
    let rows: Vec<Vec<String>> = runs
        .map(|line| {
            let (events, rate) = (line.events.to_string(), format!("{:.1}", line.events_per_second));
            vec![line.run_id.clone(), line.status.clone(), events, rate]
        })
        .collect();
    out.table(&["hottest runs", "status", "events", "events/s"], &rows);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hottest_run_is_the_one_with_the_most_events_since() {
        let run = |id: &str, count: u64| json!({"run_id": id, "status": "running", "event_count": count});
        let before = [run("old", 1000), run("warm", 10), run("still", 5)];
        let now = [run("new", 8), run("warm", 40), run("old", 1002), run("still", 5)];
        let lines = hottest(&before, &now, 2.0);
        let told: Vec<(&str, f64)> = lines
            .iter()
            .map(|line| (line.run_id.as_str(), line.events_per_second))
            .collect();
        assert_eq!(told, [("warm", 15.0), ("new", 4.0), ("old", 1.0)]);
    }
}
