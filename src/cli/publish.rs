//! `khala publish`: events as NDJSON into the log. In: a file or stdin. Out: where each went.
//! Invariant: a bad line stops no other; a line is published when it is there, not when the input ends.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::time::Instant;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::{AccessError, Publication, prepare_event};

/// Events on their way at once.
const CHUNK: usize = 2000;
/// How long a line waits for company.
const LINGER: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Tally {
    published: u64,
    bad: u64,
    failed: u64,
    unreachable: bool,
}

/// What one read of a line gave.
enum Line {
    Text(Vec<u8>),
    TooLong,
    End,
}

pub(super) async fn run(file: Option<&Path>, context: &Context) -> Result<Exit, Failure> {
    let input: Box<dyn AsyncRead + Unpin> = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let opened = tokio::fs::File::open(file).await;
            Box::new(opened.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?)
        }
        None => Box::new(tokio::io::stdin()),
    };
    let door = Door::open(context)?;
    if let Door::Direct(access) = &door {
        access.log.prepare().await.map_err(AccessError::from)?;
    }
    let tally = publish_all(BufReader::with_capacity(1 << 16, input), &door, context).await?;
    context.out.note(format!(
        "{} published, {} bad lines{}",
        tally.published,
        tally.bad,
        if tally.failed > 0 {
            format!(", {} not taken by the log", tally.failed)
        } else {
            String::new()
        }
    ));
    Ok(match (tally.failed, tally.unreachable, tally.bad) {
        (1.., true, _) => Exit::Unreachable,
        (1.., false, _) => Exit::Failed,
        (0, _, 1..) => Exit::Usage,
        (0, _, 0) => Exit::Done,
    })
}

async fn publish_all(
    mut input: BufReader<Box<dyn AsyncRead + Unpin>>,
    door: &Door,
    context: &Context,
) -> Result<Tally, Failure> {
    let max_bytes = context.settings.max_event_bytes;
    let bar = context.out.progress(None, "events published");
    let (mut tally, mut number) = (Tally::default(), 0_u64);
    let mut waiting: Vec<(u64, Publication)> = Vec::new();
    let mut line = Vec::new();
    let mut due = Instant::now();
    loop {
        let read = read_line(&mut input, &mut line, max_bytes);
        let read = if waiting.is_empty() {
            read.await
        } else if let Ok(read) = tokio::time::timeout_at(due, read).await {
            read
        } else {
            send(&mut waiting, door, context, &mut tally).await;
            bar.set_position(tally.published);
            continue; // what was read of the next line is kept
        };
        let read = read.map_err(|error| Failure::usage(format!("reading the input: {error}")))?;
        number += 1;
        match read {
            Line::End => break,
            Line::TooLong => bad(
                number,
                &format!("too_large: at most {max_bytes} bytes (max_event_bytes)"),
                context,
                &mut tally,
            ),
            Line::Text(text) if text.trim_ascii().is_empty() => {}
            Line::Text(text) => match prepare_event(text.trim_ascii(), &context.settings) {
                Ok(publication) => {
                    if waiting.is_empty() {
                        due = Instant::now() + LINGER;
                    }
                    waiting.push((number, publication));
                }
                Err(rejection) => bad(number, &rejection.to_string(), context, &mut tally),
            },
        }
        if waiting.len() >= CHUNK {
            send(&mut waiting, door, context, &mut tally).await;
            bar.set_position(tally.published);
        }
    }
    send(&mut waiting, door, context, &mut tally).await;
    bar.finish_and_clear();
    Ok(tally)
}

fn bad(number: u64, why: &str, context: &Context, tally: &mut Tally) {
    tally.bad += 1;
    context.out.note(format!("line {number}: {why}"));
}

async fn send(waiting: &mut Vec<(u64, Publication)>, door: &Door, context: &Context, tally: &mut Tally) {
    let (numbers, publications): (Vec<u64>, Vec<Publication>) = waiting.drain(..).unzip();
    if numbers.is_empty() {
        return;
    }
    let mut refused = Refused::default();
    for (number, result) in numbers.into_iter().zip(door.publish(publications).await) {
        match result {
            Ok(published) => {
                tally.published += 1;
                if context.out.json {
                    context.out.value(&published);
                }
            }
            Err(error) => {
                tally.failed += 1;
                tally.unreachable |= matches!(error, AccessError::Unreachable(_));
                refused.tell_unless_same(number, error.to_string(), context);
            }
        }
    }
    refused.tell(context);
}

/// Lines that the log did not take for one reason: told together.
#[derive(Default)]
struct Refused {
    lines: Option<(u64, u64)>,
    why: String,
}

impl Refused {
    fn tell_unless_same(&mut self, number: u64, why: String, context: &Context) {
        if self.why != why {
            self.tell(context);
        }
        let first = self.lines.map_or(number, |(first, _)| first);
        (self.lines, self.why) = (Some((first, number)), why);
    }

    fn tell(&mut self, context: &Context) {
        let Some((first, last)) = self.lines.take() else {
            return;
        };
        let lines = if first == last {
            format!("line {first}")
        } else {
            format!("lines {first} to {last}")
        };
        context.out.note(format!("{lines}: not published: {}", self.why));
    }
}

/// Reads up to the next line end, at most `max_bytes`; the rest of a longer line is dropped. Cancelled, it goes on
/// where it was: what was read is in `line`.
async fn read_line(
    input: &mut BufReader<Box<dyn AsyncRead + Unpin>>,
    line: &mut Vec<u8>,
    max_bytes: usize,
) -> std::io::Result<Line> {
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            let rest = std::mem::take(line);
            return Ok(match rest.len() {
                0 => Line::End,
                length if length > max_bytes => Line::TooLong,
                _ => Line::Text(rest),
            });
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let (taken, done) = end.map_or((available.len(), false), |end| (end + 1, true));
        // One byte more than allowed tells that it is too long; no more is kept.
        let room = (max_bytes + 2).saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        input.consume(taken);
        if done {
            let mut text = std::mem::take(line);
            if text.last() == Some(&b'\n') {
                text.pop();
            }
            return Ok(if text.len() > max_bytes {
                Line::TooLong
            } else {
                Line::Text(text)
            });
        }
    }
}
