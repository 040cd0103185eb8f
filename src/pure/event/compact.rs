//! The form in which nearly all producers write an event: on one line, at most one blank behind a comma or colon, every
//! attribute a text in which nothing is escaped. In: a value. Out: what the general reader makes of it, for a third of
//! the work; `None`: it is of another form, or no event, and the general reader says which.
//! Invariant: never another answer than the general reader's.

use super::attributes::{Attribute, Data, Found};
use super::json::{Scan, Text};

/// Reads the members into `found`.
#[inline]
pub(super) fn read<'a>(text: &'a str, found: &mut Found<'_, 'a>) -> Option<()> {
    let bytes = text.as_bytes();
    let mut scan = Scan::of(text);
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut at = 1;
    loop {
        let rest = bytes.get(at..)?;
        if let Some((attribute, length)) = named(found, rest) {
            let start = blank(bytes, at + length);
            let end = scan.plain_end(start)?;
            *attribute = Attribute::Text(Text::of_plain(&text[start + 1..end]));
            at = end + 1;
        } else if rest.starts_with(b"\"data\":") {
            let start = blank(bytes, at + 7);
            if bytes.get(start) != Some(&b'{') {
                return None;
            }
            at = scan.value_end(start)?;
            found.data(Data::Object(&text[start..at]));
        } else {
            let end = scan.plain_end(at)?;
            found.other(&text[at + 1..end]);
            if bytes.get(end + 1) != Some(&b':') {
                return None;
            }
            at = scan.plain_end(blank(bytes, end + 2))? + 1;
        }
        match bytes.get(at)? {
            b',' => at = blank(bytes, at + 1),
            b'}' => return (at + 1 == bytes.len()).then_some(()),
            _ => return None,
        }
    }
}

/// The attribute whose name begins here, and the length of the name with its quotes and colon.
#[inline]
fn named<'f, 'a>(found: &'f mut Found<'_, 'a>, rest: &[u8]) -> Option<(&'f mut Attribute<'a>, usize)> {
    let attributes = &mut *found.attributes;
    let is = |name: &[u8]| rest.starts_with(name);
    match rest.get(1..3)? {
        b"id" if is(b"\"id\":") => Some((&mut attributes.id, 5)),
        b"ty" if is(b"\"type\":") => Some((&mut attributes.type_name, 7)),
        b"ti" if is(b"\"time\":") => Some((&mut attributes.time, 7)),
        b"so" if is(b"\"source\":") => Some((&mut attributes.source, 9)),
        b"su" if is(b"\"subject\":") => Some((&mut attributes.subject, 10)),
        b"se" if is(b"\"sequence\":") => Some((&mut attributes.sequence, 11)),
        b"sp" if is(b"\"specversion\":") => Some((&mut attributes.specversion, 14)),
        _ => None,
    }
}

#[inline]
fn blank(bytes: &[u8], at: usize) -> usize {
    at + usize::from(bytes.get(at) == Some(&b' '))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attributes::{Attributes, Mode};
    use super::super::json;
    use super::*;

    /// Whether a text is read here, and then as the general reader reads it.
    fn is_compact(text: &str) -> bool {
        let mut here = Attributes::none(Mode::Structured);
        let mut found = Found::nothing(&mut here);
        if read(text, &mut found).is_none() {
            return false;
        }
        found.end(text.as_bytes());
        let mut there = Attributes::none(Mode::Structured);
        let mut found = Found::nothing(&mut there);
        let general = json::read_object(text, |name, value| found.member(name, value));
        assert_eq!(general, Ok(()), "{text}");
        found.end(text.as_bytes());
        assert_eq!(format!("{here:?}"), format!("{there:?}"), "{text}");
        true
    }

    #[test]
    fn what_producers_write_is_compact() {
        for text in [
            r#"{"specversion":"1.0","id":"1","source":"s","type":"run.delta","subject":"run/a","time":"2026-02-19T12:00:00.123Z","sequence":"1","data":{"a":[1,{"b":"\"}"}]}}"#,
            r#"{"specversion": "1.0", "id": "1", "source": "s", "type": "run.started", "subject": "run/a"}"#,
            r#"{"data":{},"datacontenttype":"application/json","traceparent":"00-1","id":"1","own":"x","id":"2"}"#,
        ] {
            assert!(is_compact(text), "{text}");
        }
        for text in [
            r#"{"id":1}"#,
            r#"{"id":null}"#,
            r#"{"id":"a\n"}"#,
            r#"{"i\u0064":"a"}"#,
            r#"{"data":"text"}"#,
            r#"{ "id":"1"}"#,
            r#"{"id":"1"} "#,
            r#"{"id":"1"}}"#,
            r#"{"id":"1","data":{}"#,
            r"{}",
            "",
        ] {
            assert!(!is_compact(text), "{text}");
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        let names = [
            "specversion",
            "id",
            "source",
            "type",
            "time",
            "subject",
            "sequence",
            "data",
            "datas",
            "traceparent",
            "x",
        ];
        let names = prop::sample::select(names.to_vec());
        let values = prop::sample::select(vec![
            r#""1.0""#,
            r#""""#,
            r#""a\"b""#,
            r#""\u00e4""#,
            r#""é{},:""#,
            "{}",
            r#"{"a":"}"}"#,
            r#"{"a":{"b":[]}}"#,
            r#"{"a":}"#,
            "1",
            "null",
            "true",
            "[]",
        ]);
        let (colons, commas) = (["", " ", "  "], [",", ", ", ",,", " ,", ""]);
        let (colons, commas) = (
            prop::sample::select(colons.to_vec()),
            prop::sample::select(commas.to_vec()),
        );
        (names, colons, values, commas)
            .prop_map(|(name, blank, value, comma)| format!("\"{name}\":{blank}{value}{comma}"))
    }

    fn strange() -> impl Strategy<Value = char> {
        let marks = prop::sample::select(r#"{}[]",:\ x1"#.chars().collect::<Vec<_>>());
        prop_oneof![4 => marks, 1 => any::<char>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

        #[test]
        fn it_never_reads_anything_else_than_the_general_reader(
            pieces in prop::collection::vec(piece(), 0..8),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
            strange in prop::option::weighted(0.4, (any::<prop::sample::Index>(), strange())),
        ) {
            let mut text = format!("{{{}}}", pieces.concat().trim_end_matches([',', ' ']));
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if let Some((at, strange)) = strange {
                text.insert(at.index(places.len() + 1).checked_sub(1).map_or(text.len(), |at| places[at]), strange);
            }
            if let Some(cut) = cut {
                let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                text.truncate(*cut.get(&places));
            }
            is_compact(&text);
        }
    }
}
