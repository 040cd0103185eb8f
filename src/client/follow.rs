//! An entity's events over reconnects. Invariant: each seq is given once, in order; a cursor below what the server keeps
//! is an error, for the caller must load the document first.

use std::io::{BufRead, BufReader, Read};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::{Client, ClientError, answered};

/// Attempts to come back in a row.
const TRIES: u32 = 20;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One event of the entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Its place; resume behind it.
    pub seq: u64,
    /// The event.
    pub event: Value,
}

/// An entity's events, as they come.
pub struct Follow {
    client: Client,
    path: String,
    after: u64,
    lines: Option<BufReader<Box<dyn Read + Send + Sync>>>,
    is_over: bool,
}

/// What a stream gave.
enum Frame {
    Event(Received),
    Done,
    Cut,
}

impl Follow {
    pub(super) fn new(client: Client, path: String, after: u64) -> Self {
        Self {
            client,
            path,
            after,
            lines: None,
            is_over: false,
        }
    }

    fn open(&self) -> Result<BufReader<Box<dyn Read + Send + Sync>>, ClientError> {
        let path = format!("{}?after={}&wait=30s", self.path, self.after);
        let answer = answered(self.client.request(&path, "text/event-stream").call())?;
        Ok(BufReader::new(Box::new(answer.into_body().into_reader())))
    }

    /// The stream, opened again if it has ended.
    fn reopen(&mut self) -> Result<(), ClientError> {
        let mut pause = PAUSE_MIN;
        for attempt in 1.. {
            match self.open() {
                Ok(lines) => {
                    self.lines = Some(lines);
                    return Ok(());
                }
                Err(error) if attempt < TRIES && error.is_transient() => sleep(pause),
                Err(error) => return Err(error),
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
        unreachable!("the last attempt returns")
    }

    fn frame(&mut self) -> Frame {
        let (mut seq, mut data) = (None, String::new());
        let Some(lines) = &mut self.lines else {
            return Frame::Cut;
        };
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                return Frame::Cut;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => seq = id.parse().ok(),
                Some(("data", text)) => data.push_str(text),
                _ if !line.trim_end().is_empty() => {}
                _ if data == "[DONE]" => return Frame::Done,
                _ => {
                    if let (Some(seq), Ok(event)) = (seq.take(), serde_json::from_str(&data)) {
                        return Frame::Event(Received { seq, event });
                    }
                    data.clear();
                }
            }
        }
    }
}

impl Iterator for Follow {
    type Item = Result<Received, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            if self.lines.is_none()
                && let Err(error) = self.reopen()
            {
                self.is_over = true;
                return Some(Err(error));
            }
            match self.frame() {
                Frame::Event(received) => {
                    self.after = received.seq;
                    return Some(Ok(received));
                }
                Frame::Done => self.is_over = true,
                Frame::Cut => self.lines = None,
            }
        }
        None
    }
}
