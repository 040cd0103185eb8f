//! Dead letters of every reason, made from a legal event's subject; reasons take turns, so that each occurs.

use super::Message;
use super::dice::Dice;
use super::wire::header;
use crate::reference::decode::REASONS;
use crate::reference::place;

/// A value of more than 1 MiB.
pub fn too_large(base: Message) -> Message {
    let value = format!("{{\"data\":\"{}\"}}", "x".repeat(1 << 20));
    plain(base.key.unwrap_or_default(), Some(value.into_bytes()))
}

/// The `turn`-th dead letter.
pub fn garbage(dice: &mut Dice, base: &Message, turn: u64, partitions: u32) -> Message {
    let key = base.key.clone().unwrap_or_default();
    let subject = String::from_utf8_lossy(&key).into_owned();
    let reason = REASONS[(turn % REASONS.len() as u64) as usize];
    let mut fields = Fields::of(&subject);
    match reason {
        "empty_record" => {
            let value = (*dice.pick(&[None, Some(Vec::new())])).clone();
            return plain(key, value);
        }
        "not_json" => return plain(key, Some(not_json(dice, &fields))),
        "not_cloudevents" if dice.one_in(4) => {
            let mut message = plain(key, Some(b"{}".to_vec()));
            let headers = [header("content-type", "text/plain"), header("ce_id", "a")];
            message.headers = vec![dice.pick(&headers).clone()];
            return message;
        }
        "key_mismatch" => {
            let keys = [
                None,
                Some(b"run/someone-else".to_vec()),
                Some(Vec::new()),
                Some(vec![0xff, 0]),
            ];
            let mut message = plain(key, Some(fields.json()));
            message.key.clone_from(dice.pick(&keys));
            return message;
        }
        "wrong_partition" => {
            let place = place::partition_of(&key, partitions);
            let mut message = plain(key, Some(fields.json()));
            message.partition = Some((place + 1) % partitions);
            return message;
        }
        _ => fields.spoil(dice, reason, &subject),
    }
    // The key goes with the subject where there is one, so that no earlier rule is broken.
    let key = fields.subject().map_or(key, String::into_bytes);
    plain(key, Some(fields.json()))
}

fn plain(key: Vec<u8>, value: Option<Vec<u8>>) -> Message {
    Message {
        key: Some(key),
        value,
        ..Message::default()
    }
}

fn not_json(dice: &mut Dice, fields: &Fields) -> Vec<u8> {
    let whole = fields.json();
    match dice.below(9) {
        0 => whole[..whole.len() - 1].to_vec(),
        1 => [&whole[..], b"x"].concat(),
        2 => b"[1,2]".to_vec(),
        3 => b"\"text\"".to_vec(),
        4 => [&b"{\"a\":\""[..], &[0xc3, 0x28], b"\"}"].concat(),
        5 => b"{\"a\":\"\\ud800\"}".to_vec(),
        6 => format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)).into_bytes(),
        7 => b"{\"a\":01}".to_vec(),
        _ => b" \x00".to_vec(),
    }
}

const BAD_SUBJECTS: &[&str] = &[
    "",
    "7",
    "\"run/\"",
    "\"job/1\"",
    "\"run/ü\"",
    "\"run/a b\"",
    "\"run\"",
    "\"Run/1\"",
];
const BAD_TYPES: &[&str] = &["", "null", "\"\"", "\"Upper\"", "\"1st\"", "\"a-b\"", "\".a\""];
const BAD_TIMES: &[&str] = &[
    "5",
    "\"\"",
    "\"yesterday\"",
    "\"2026-02-30T00:00:00Z\"",
    "\"2026-02-19\"",
    "\"2026-02-19T12:00:00\"",
    "\"2026-02-19T25:00:00Z\"",
    "\"2026-02-19T12:60:00Z\"",
    "\"2026-13-19T12:00:00Z\"",
    "\"2026-02-19T12:00:00.Z\"",
    "\"26-02-19T12:00:00Z\"",
];
const BAD_SEQUENCES: &[&str] = &[
    "0",
    "-1",
    "1.5",
    "\"0\"",
    "\"\"",
    "\"-3\"",
    "\"+3\"",
    "\"0x10\"",
    "9007199254740992",
    "true",
    "\" 7\"",
];
const BAD_ATTRIBUTES: &[&str] = &["", "null", "\"\"", "1", "{}"];

/// The attributes as JSON text each; an empty text leaves one out.
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn of(subject: &str) -> Self {
        Self(vec![
            ("specversion", "\"1.0\"".to_owned()),
            ("id", "\"bad\"".to_owned()),
            ("source", "\"garbage\"".to_owned()),
            ("subject", format!("\"{subject}\"")),
            ("type", "\"custom.thing\"".to_owned()),
            ("time", "\"2026-02-19T12:00:00Z\"".to_owned()),
            ("sequence", "5".to_owned()),
            ("data", "{}".to_owned()),
        ])
    }

    fn set(&mut self, name: &str, text: impl Into<String>) {
        let field = self.0.iter_mut().find(|(known, _)| *known == name);
        field.expect("one of the eight").1 = text.into();
    }

    fn subject(&self) -> Option<String> {
        let text = &self.0[3].1;
        serde_json::from_str(text).ok()
    }

    fn json(&self) -> Vec<u8> {
        let given = self.0.iter().filter(|(_, text)| !text.is_empty());
        let parts: Vec<String> = given.map(|(name, text)| format!("\"{name}\":{text}")).collect();
        format!("{{{}}}", parts.join(",")).into_bytes()
    }

    /// Breaks one rule. (`too_large` takes the turn of a missing attribute: its own are few, see `too_large`.)
    fn spoil(&mut self, dice: &mut Dice, reason: &str, subject: &str) {
        let (name, bad, long) = match reason {
            "bad_subject" => ("subject", BAD_SUBJECTS, format!("\"run/{}\"", "i".repeat(129))),
            "bad_type" => ("type", BAD_TYPES, format!("\"{}\"", "t".repeat(129))),
            "bad_time" => ("time", BAD_TIMES, "\"2026-02-19T12:00:00+0100\"".to_owned()),
            "bad_sequence" => ("sequence", BAD_SEQUENCES, "9".repeat(40)),
            "bad_data" => return self.bad_data(dice, subject.starts_with("run/")),
            _ => {
                let name = *dice.pick(&["specversion", "id", "source"]);
                (name, BAD_ATTRIBUTES, format!("\"{}\"", "x".repeat(257)))
            }
        };
        let of_other_kind = if subject.starts_with("run/") {
            "worker.heartbeat"
        } else {
            "run.delta"
        };
        let text = match dice.below(6) {
            0 => long,
            1 if name == "type" => format!("\"{of_other_kind}\""),
            _ => (*dice.pick(bad)).to_owned(),
        };
        self.set(name, text);
    }

    fn bad_data(&mut self, dice: &mut Dice, of_run: bool) {
        let large = format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "m".repeat(4096));
        let run = [
            ("run.created", "{\"thread_id\":1}"),
            ("run.started", "{\"owner_user_id\":[]}"),
            ("run.finished", "{}"),
            ("run.started", "{\"owner_guest_scope\":false}"),
            ("run.finished", "null"),
            ("run.finished", ""),
            ("run.finished", "{\"status\":\"done\"}"),
            ("run.finished", "{\"status\":null}"),
            ("run.finished", "{\"status\":\"failed\",\"reason\":7}"),
            ("run.delta", "\"text\""),
            ("custom", "[1]"),
            ("run.finished", "{\"status\":\"succeeded\",\"reason_class\":{}}"),
        ];
        let worker = [
            ("worker.started", "{\"adapter\":1}"),
            ("worker.started", "{\"workspace_ref\":{}}"),
            ("custom", "5"),
            ("worker.started", "{\"metadata\":[]}"),
            ("worker.started", "{\"metadata\":\"x\"}"),
            ("worker.started", &large),
            ("worker.error", "{\"fatal\":\"true\"}"),
            ("worker.error", "{\"fatal\":1}"),
            ("worker.stopped", "false"),
        ];
        let (type_, data) = if of_run { *dice.pick(&run) } else { *dice.pick(&worker) };
        self.set("type", format!("\"{type_}\""));
        self.set("data", data);
    }
}
