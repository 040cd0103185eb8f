//! Canonical JSON (RFC 8785), written a second time: keys by UTF-16, numbers as ECMAScript prints them.
//! In: a `Value`, or JSON text whose numbers must be read exactly. Out: text.
//! `serde_json` checks the grammar; it rounds some decimals by one unit, so numbers go through `str::parse`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Number, Value};

/// The text's value with every number correctly rounded; `None` if it is no JSON.
pub fn exact(text: &str) -> Option<Value> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    let text = raw.get();
    let value = match text.as_bytes().first()? {
        b'{' => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            let fields: Option<_> = fields.into_iter().map(|(k, v)| Some((k, exact(v.get())?))).collect();
            Value::Object(fields?)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Value::Array(items.into_iter().map(|v| exact(v.get())).collect::<Option<_>>()?)
        }
        b'-' | b'0'..=b'9' => Value::Number(Number::from_f64(text.parse().ok()?)?),
        _ => serde_json::from_str(text).ok()?,
    };
    Some(value)
}

/// The text's value; `None` if it is no JSON. A number that no double holds is JSON all the same: it becomes one half,
/// which is as illegal wherever a number has a meaning.
pub fn value(text: &str) -> Option<Value> {
    match serde_json::from_str(text) {
        Ok(value) => return Some(value),
        Err(error) if error.to_string().starts_with("number out of range") => {}
        Err(_) => return None,
    }
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    match raw.get().as_bytes().first()? {
        b'{' => {
            let fields = fields(raw.get())?.into_iter();
            let fields: Option<_> = fields.map(|(name, raw)| Some((name, value(raw.get())?))).collect();
            Some(Value::Object(fields?))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
            Some(Value::Array(
                items.into_iter().map(|raw| value(raw.get())).collect::<Option<_>>()?,
            ))
        }
        _ => Some(Value::from(0.5)),
    }
}

/// The fields of an object's text, each as its own text; the last of equal names wins.
pub fn fields(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

/// RFC 8785.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) => es_number(number.as_f64().expect("a double")),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.encode_utf16().collect::<Vec<_>>());
            let fields: Vec<_> = fields
                .iter()
                .map(|(k, v)| format!("{}:{}", quoted(k), canonical(v)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

/// A string with the escapes that RFC 8785 asks for, and no others.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => out.extend(["\\u".to_owned(), format!("{:04x}", c as u32)]),
            c => out.push(c),
        }
    }
    out + "\""
}

/// `Number::toString` of ECMAScript (section 6.1.6.1.20), over Rust's shortest digits.
pub fn es_number(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let text = format!("{:e}", number.abs());
    let (mantissa, exponent) = text.split_once('e').expect("LowerExp has an e");
    let digits = mantissa.replace('.', "");
    let n = exponent.parse::<i32>().expect("a decimal exponent") + 1;
    let k = digits.len() as i32;
    let zeros = |count: i32| "0".repeat(count as usize);
    let body = if k <= n && n <= 21 {
        format!("{digits}{}", zeros(n - k))
    } else if 0 < n && n <= 21 {
        format!("{}.{}", &digits[..n as usize], &digits[n as usize..])
    } else if -6 < n && n <= 0 {
        format!("0.{}{digits}", zeros(-n))
    } else {
        let point = if k == 1 { "" } else { "." };
        format!("{}{point}{}e{:+}", &digits[..1], &digits[1..], n - 1)
    };
    format!("{sign}{body}")
}
