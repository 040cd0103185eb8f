//! One entity and those who speak for it: what it says next, with the data in all its forms.
//! A player never breaks a rule; losing, repeating, delaying and breaking is done to what it says.

use super::Message;
use super::dice::Dice;
use super::wire::{self, Event};

/// How events are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbering {
    /// Every event.
    Sequence,
    /// None: ids alone tell, and now and then one comes twice.
    Ids,
    /// Either.
    Mixed,
    /// Gaps on purpose, so many that they overflow, filled in disorder.
    Gaps,
    /// Up to 2^53 − 1.
    Large,
}

/// An entity.
#[derive(Clone, Debug)]
pub struct Player {
    subject: String,
    /// Names, and the next sequence of each.
    sources: Vec<(String, u64)>,
    numbering: Numbering,
    said: u64,
    /// A few say one thing or three, and are never heard of again.
    says_at_most: u64,
    last_id: String,
}

impl Player {
    pub fn new(dice: &mut Dice, subject: &str) -> Self {
        let names = [
            "executor/eu-1",
            "executor/eu-1/7f3a",
            "api",
            "källa/ü",
            "s \"q\" \\",
            "\u{1f600}",
            "\u{ff5e}",
        ];
        let mut sources = vec![((*dice.pick(&names)).to_owned(), 1)];
        if dice.one_in(3) {
            sources.push((format!("second/{}", dice.pick(&names)), 1));
        }
        let numbering = match dice.below(10) {
            0 => Numbering::Ids,
            1 | 2 => Numbering::Mixed,
            _ => Numbering::Sequence,
        };
        let brief = dice.one_in(6);
        Self {
            says_at_most: if brief { 1 + dice.below(3) } else { u64::MAX },
            ..Self::with(subject, sources, numbering)
        }
    }

    /// Whether it will say nothing more.
    pub fn is_done(&self) -> bool {
        self.said >= self.says_at_most
    }

    /// More sources than are kept.
    pub fn many_sources(subject: &str) -> Self {
        let sources = (0..90).map(|i| (format!("source/{i}"), 1)).collect();
        Self::with(subject, sources, Numbering::Sequence)
    }

    /// More missing ranges than are kept.
    pub fn many_gaps(subject: &str) -> Self {
        Self::with(subject, vec![("gappy".to_owned(), 1)], Numbering::Gaps)
    }

    /// Sequences that a 32-bit number or a double with a fraction could not hold.
    pub fn large_sequences(subject: &str) -> Self {
        Self::with(subject, vec![("large".to_owned(), (1 << 53) - 4000)], Numbering::Large)
    }

    fn with(subject: &str, sources: Vec<(String, u64)>, numbering: Numbering) -> Self {
        Self {
            subject: subject.to_owned(),
            sources,
            numbering,
            said: 0,
            says_at_most: u64::MAX,
            last_id: String::new(),
        }
    }

    /// What it says next.
    pub fn message(&mut self, dice: &mut Dice) -> Message {
        self.said += 1;
        let at = dice.below(self.sources.len() as u64) as usize;
        let sequence = self.sequence(dice, at);
        let repeats = sequence.is_none() && dice.one_in(6) && !self.last_id.is_empty();
        if !repeats {
            self.last_id = format!(
                "01K{:013x}{}",
                dice.next() >> 12,
                dice.pick(&["", "é", "\"", "\\u", "\u{1f680}"])
            );
        }
        let (type_, data) = self.content(dice);
        let event = Event {
            id: self.last_id.clone(),
            source: self.sources[at].0.clone(),
            type_,
            subject: self.subject.clone(),
            time: time(dice),
            sequence,
            data,
        };
        wire::write(dice, &event)
    }

    fn sequence(&mut self, dice: &mut Dice, at: usize) -> Option<u64> {
        let next = &mut self.sources[at].1;
        let n = *next;
        match self.numbering {
            Numbering::Ids => return None,
            Numbering::Mixed if dice.one_in(3) => return None,
            Numbering::Gaps if n > 1 && dice.one_in(3) => return Some(1 + dice.below(n - 1)),
            Numbering::Gaps => *next += 1 + dice.below(4),
            Numbering::Large => *next = (n + 1).min((1 << 53) - 1),
            Numbering::Sequence | Numbering::Mixed if dice.one_in(300) => *next += 1 + dice.below(1000),
            Numbering::Sequence | Numbering::Mixed => *next += 1,
        }
        Some(n)
    }

    fn content(&self, dice: &mut Dice) -> (String, Option<String>) {
        if dice.one_in(20) {
            let any = [
                "custom.thing",
                "x",
                "tool_call.v2",
                "runx",
                "workers.list",
                "a..b_0",
                "message",
            ];
            return ((*dice.pick(&any)).to_owned(), anything(dice));
        }
        let early = self.said < 4;
        if self.subject.starts_with("run/") {
            run_content(dice, early)
        } else {
            worker_content(dice, early)
        }
    }
}

fn run_content(dice: &mut Dice, early: bool) -> (String, Option<String>) {
    let type_ = match dice.below(if early { 6 } else { 60 }) {
        0 | 1 => "run.created",
        2 | 3 => "run.started",
        4 if !early => "run.cancel_requested",
        5 if !early => "run.executor_lost",
        6 | 7 => "run.finished",
        8 => "run.unheard_of",
        _ => "run.delta",
    };
    let data = match type_ {
        "run.created" | "run.started" => object(dice, &["thread_id", "owner_user_id", "owner_guest_scope"]),
        "run.finished" => {
            let status = *dice.pick(&["succeeded", "failed", "canceled"]);
            let rest = object(dice, &["reason_class", "reason"]).replacen('{', "", 1);
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            format!("{{\"status\":\"{status}\"{comma}{rest}")
        }
        _ => return (type_.to_owned(), anything(dice)),
    };
    let optional = type_ != "run.finished" && dice.one_in(10);
    (type_.to_owned(), (!optional).then_some(data))
}

fn worker_content(dice: &mut Dice, early: bool) -> (String, Option<String>) {
    match dice.below(if early { 4 } else { 20 }) {
        0 | 1 => {
            let text = object(dice, &["workspace_ref", "adapter"]);
            let metadata = match dice.below(4) {
                0 => "null".to_owned(),
                1 => return ("worker.started".to_owned(), Some(text)),
                _ => metadata(dice),
            };
            let rest = text.replacen('{', "", 1);
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            let data = format!("{{ \"metadata\" : {metadata}{comma}{rest}");
            ("worker.started".to_owned(), Some(data))
        }
        2 => {
            let fatal = *dice.pick(&[
                "{}",
                "{\"fatal\":false}",
                "{\"fatal\":null}",
                "{\"fatal\":true}",
                "null",
            ]);
            ("worker.error".to_owned(), Some(fatal.to_owned()))
        }
        4 => ("worker.stopped".to_owned(), anything(dice)),
        _ => ("worker.heartbeat".to_owned(), anything(dice)),
    }
}

/// Some of the fields, each a string or null, in any order, with strings of all kinds.
fn object(dice: &mut Dice, fields: &[&str]) -> String {
    let texts = [
        "",
        "plain",
        "it's \"quoted\"",
        "zeile\nzwei\t\u{1}",
        "日本語",
        "\u{1f680}\u{2028}",
        "\\ / \u{7f}",
        "null",
    ];
    let mut parts: Vec<String> = Vec::new();
    for field in fields {
        match dice.below(5) {
            0 => {}
            1 => parts.push(format!("\"{field}\":null")),
            2 => {
                // The last of duplicate keys wins.
                parts.push(format!(
                    "\"{field}\":\"first\",\"{field}\":{}",
                    wire::quoted(dice, "last")
                ));
            }
            _ => {
                let text = format!("{}{}", dice.pick(&texts), dice.below(100));
                parts.push(format!("{}:{}", wire::quoted(dice, field), wire::quoted(dice, &text)));
            }
        }
    }
    dice.shuffle(&mut parts);
    format!("{{{}}}", parts.join(*dice.pick(&[",", " , ", ",\n"])))
}

/// An object with keys in any order and numbers as they must not be stored.
fn metadata(dice: &mut Dice) -> String {
    let values = [
        "1",
        "1.0",
        "-0",
        "-0.0",
        "1e3",
        "1E-7",
        "0.000001",
        "1e21",
        "123456789012345678901234567890",
        "9007199254740993",
        "4.35",
        "0.1e1",
        "5e-324",
        "1.7976931348623157e308",
        "333333333.33333329",
        "true",
        "null",
        "[]",
        "[1,[2.50]]",
        "{}",
        "{\"b\":1,\"a\":{\"z\":0,\"y\":\"\\u00e9\"}}",
        "\"\\u20ac\\/\\ud83d\\ude00\"",
        "\"\\u0000\\u001f\"",
        "7.2057594037927933e16",
        "2.2250738585072011e-308",
        "0.3e-6",
        "123456789.987654321",
    ];
    let keys = [
        "b",
        "a",
        "B",
        "é",
        "\u{1f600}",
        "\u{fb33}",
        "",
        "10",
        "9",
        "a b",
        "\\n",
        "€",
        "\\r",
        "\\u0080",
    ];
    let count = dice.below(8);
    let fields: Vec<String> = (0..count)
        .map(|_| format!("\"{}\": {}", dice.pick(&keys), dice.pick(&values)))
        .collect();
    format!("{{{}}}", fields.join(" ,"))
}

/// Data of a type that reads no field of it.
fn anything(dice: &mut Dice) -> Option<String> {
    let texts = [
        "{}",
        "{\"delta\":\"hello\"}",
        "{\"status\":17,\"fatal\":\"no\",\"thread_id\":{}}",
        "null",
        "{ \"deep\" : [[[[[[[[{\"x\":[1,2,3e9]}]]]]]]]] }",
        "{\"metadata\":[],\"text\":\"}{\\\"\\\\\"}",
    ];
    match dice.below(8) {
        0 => None,
        1 => Some(format!(
            "{{\"delta\":{}}}",
            wire::quoted(dice, "größer \u{1f600} \"x\" \\ \u{8}\r")
        )),
        2 => Some(format!("{{\"n\":[{}0{}]}}", "[".repeat(20), "]".repeat(20))),
        _ => Some((*dice.pick(&texts)).to_owned()),
    }
}

/// RFC 3339 in odd forms, or none.
fn time(dice: &mut Dice) -> Option<String> {
    let odd = [
        "2026-02-19T12:00:00Z",
        "2026-02-19T12:00:00.1Z",
        "2026-02-19t12:00:00.123456789z",
        "2024-02-29T23:59:59.9999+00:00",
        "2026-02-19T12:00:00.123-00:00",
        "2026-01-01T00:30:00.5+05:45",
        "2025-12-31T23:30:00-11:30",
        "1969-12-31T23:59:59.9996Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999Z",
        "2000-02-29T00:00:00+14:00",
        "1900-03-01T00:00:00.000001Z",
        "0000-03-01T00:00:00.000Z",
    ];
    match dice.below(4) {
        0 => None,
        1 => Some((*dice.pick(&odd)).to_owned()),
        _ => Some(format!(
            "2026-02-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            1 + dice.below(28),
            dice.below(24),
            dice.below(60),
            dice.below(60),
            dice.below(1000)
        )),
    }
}
