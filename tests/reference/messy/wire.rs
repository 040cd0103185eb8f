//! One event as a message: structured or binary, attributes in any order, escapes where none are needed.

use super::Message;
use super::dice::Dice;

/// An event before it is written; `data` is JSON text.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: String,
    pub source: String,
    pub type_: String,
    pub subject: String,
    pub time: Option<String>,
    pub sequence: Option<u64>,
    pub data: Option<String>,
}

/// Writes it in a form that the dice choose.
pub fn write(dice: &mut Dice, event: &Event) -> Message {
    let key = Some(event.subject.clone().into_bytes());
    let (value, headers) = match dice.below(5) {
        0 => (binary_value(event), binary_headers(dice, event)),
        1 => (
            Some(structured(dice, event)),
            vec![content_type(dice), header("ce_id", "another")],
        ),
        2 => (
            Some(structured(dice, event)),
            vec![header("x-other", "1"), content_type(dice)],
        ),
        3 => (
            Some(structured(dice, event)),
            vec![header("traceparent", "00-1-2-01"), ("empty".to_owned(), None)],
        ),
        _ => (Some(structured(dice, event)), Vec::new()),
    };
    Message {
        partition: None,
        key,
        value,
        headers,
    }
}

/// A JSON string, now and then with characters escaped that need not be.
pub fn quoted(dice: &mut Dice, text: &str) -> String {
    let mut out = String::from("\"");
    let escape_all = dice.one_in(12);
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '/' if escape_all => out.push_str("\\/"),
            c if c < ' ' || escape_all => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend(["\\u".to_owned(), format!("{unit:04X}")]);
                }
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn structured(dice: &mut Dice, event: &Event) -> Vec<u8> {
    let mut parts = vec![
        "\"specversion\":\"1.0\"".to_owned(),
        format!("\"id\":{}", quoted(dice, &event.id)),
        format!("\"source\":{}", quoted(dice, &event.source)),
        format!("{}:{}", quoted(dice, "type"), quoted(dice, &event.type_)),
        format!("\"subject\":{}", quoted(dice, &event.subject)),
    ];
    match (&event.time, dice.one_in(3)) {
        (Some(time), _) => parts.push(format!("\"time\":\"{time}\"")),
        (None, true) => parts.push("\"time\":null".to_owned()),
        (None, false) => {}
    }
    match (event.sequence, dice.one_in(2)) {
        (Some(n), true) => parts.push(format!("\"sequence\":{n}")),
        (Some(n), false) => parts.push(format!("\"sequence\":\"{n}\"")),
        (None, true) => parts.push("\"sequence\":null".to_owned()),
        (None, false) => {}
    }
    match (&event.data, dice.one_in(3)) {
        (Some(data), _) => parts.push(format!("\"data\":{data}")),
        (None, true) => parts.push("\"data\" : null".to_owned()),
        (None, false) => {}
    }
    if dice.one_in(4) {
        parts.push("\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"".to_owned());
        parts.push("\"datacontenttype\":\"application/json\",\"priority\":5".to_owned());
    }
    if dice.one_in(3) {
        dice.shuffle(&mut parts);
    }
    let (open, comma) = *dice.pick(&[("{", ","), ("{", ","), (" \n{ ", " ,\t")]);
    format!("{open}{}}}", parts.join(comma)).into_bytes()
}

fn binary_value(event: &Event) -> Option<Vec<u8>> {
    // In binary mode the value is `data`; JSON null is no object, so no data is no value.
    let data = event.data.clone().filter(|data| data.trim() != "null");
    data.map(String::into_bytes)
}

fn binary_headers(dice: &mut Dice, event: &Event) -> Vec<(String, Option<Vec<u8>>)> {
    let mut headers = vec![
        header("ce_specversion", "1.0"),
        header("ce_id", &event.id),
        header("ce_source", &event.source),
        header("ce_type", &event.type_),
        header("ce_subject", &event.subject),
    ];
    if let Some(time) = &event.time {
        headers.push(header("ce_time", time));
    }
    if let Some(n) = event.sequence {
        headers.push(header("ce_sequence", &n.to_string()));
    }
    if dice.one_in(2) {
        headers.push(header("content-type", "application/json"));
    }
    if dice.one_in(4) {
        headers.push(header(
            "ce_traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ));
    }
    dice.shuffle(&mut headers);
    headers
}

fn content_type(dice: &mut Dice) -> (String, Option<Vec<u8>>) {
    let forms = [
        "application/cloudevents+json",
        "application/cloudevents+json; charset=UTF-8",
        "Application/CloudEvents+JSON;charset=utf-8",
    ];
    header("content-type", dice.pick::<&str>(&forms))
}

/// One header.
pub fn header(name: &str, value: &str) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.as_bytes().to_vec()))
}
