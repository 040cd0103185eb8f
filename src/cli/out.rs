//! The only file that prints. stdout is data, stderr the rest. Where nobody reads any more, a command that only reads ends
//! quietly, and one that does something does it to its end.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::exit::{Exit, Failure};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    pub json: bool,
    only_reads: bool,
}

impl Out {
    /// Of a command that only reads, or one whose work and exit code count also where nobody reads what it prints.
    pub(super) fn new(json: bool, only_reads: bool) -> Self {
        Self { json, only_reads }
    }

    /// One line of data.
    pub(super) fn line(self, text: impl AsRef<str>) {
        let mut stdout = std::io::stdout().lock();
        let written = stdout
            .write_all(text.as_ref().as_bytes())
            .and_then(|()| stdout.write_all(b"\n"));
        if let Err(error) = written.and_then(|()| stdout.flush()) {
            if error.kind() == ErrorKind::BrokenPipe {
                if self.only_reads {
                    std::process::exit(Exit::Done as i32); // `| head` has seen enough
                }
                return;
            }
            self.note(format!("stdout: {error}"));
            std::process::exit(Exit::Failed as i32);
        }
    }

    /// One JSON value on one line.
    pub(super) fn value(self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(text),
            Err(error) => self.note(format!("no JSON: {error}")),
        }
    }

    /// Rows under their headings, aligned. Numbers stand to the right.
    pub(super) fn table(self, headings: &[&str], rows: &[Vec<String>]) {
        let width = |column: usize| {
            let cells = rows
                .iter()
                .map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
            cells.max().unwrap_or(0).max(headings[column].chars().count())
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let number = |column: usize| {
            let mut cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .filter(|cell| !cell.is_empty())
                .peekable();
            cells.peek().is_some()
                && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains([':', '/', 'T']))
        };
        let right: Vec<bool> = (0..headings.len()).map(number).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (i, cell) in cells.enumerate() {
                let pad = " ".repeat(widths[i].saturating_sub(cell.chars().count()));
                let (before, after) = if right[i] {
                    (pad.as_str(), "")
                } else {
                    ("", pad.as_str())
                };
                text.extend([before, cell, after, "  "]);
            }
            self.line(text.trim_end());
        };
        line(&mut headings.iter().copied());
        for row in rows {
            line(&mut row.iter().map(String::as_str));
        }
    }

    /// Something for people, on stderr.
    pub(super) fn note(self, text: impl AsRef<str>) {
        to_people(text.as_ref());
    }

    /// Why the command failed, and what helps.
    pub(super) fn failure(self, failure: &Failure) {
        to_people(&format!("khala: {}", failure.message));
        if let Some(hint) = &failure.hint {
            to_people(&format!("hint: {hint}"));
        }
    }

    /// Progress of long work: a bar on a terminal, nothing elsewhere (the summary tells).
    pub(super) fn progress(self, total: Option<u64>, what: &'static str) -> ProgressBar {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
            None => "{msg} {human_pos} {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// A line on stderr; where that cannot be written, the exit code has to do.
fn to_people(line: &str) {
    _ = writeln!(std::io::stderr().lock(), "{line}");
}
