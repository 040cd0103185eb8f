//! A binary-mode event as one structured object, for streams and readers, who see one form only.
//! Source: `CloudEvents` 1.0.2, JSON format §2 and Kafka protocol binding §3.2.

use crate::pure::canonical::write_string;
use crate::pure::record::Record;

/// Appends the event of `record`: attributes from its `ce_` headers in their order, `data` from its value.
pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for (i, (name, value)) in record.headers().enumerate() {
        let (Some(name), Some(value)) = (attribute_name(name), value) else {
            continue;
        };
        let repeated = record
            .headers()
            .skip(i + 1)
            .any(|(later, value)| attribute_name(later) == Some(name) && value.is_some());
        if repeated {
            continue; // the last one counts
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_string(&String::from_utf8_lossy(name), out);
        out.push(b':');
        write_string(&String::from_utf8_lossy(value), out);
    }
    if let Some(data) = record.value.filter(|value| !value.is_empty()) {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
    }
    out.push(b'}');
}

fn attribute_name(header: &[u8]) -> Option<&[u8]> {
    if header.eq_ignore_ascii_case(b"content-type") {
        return Some(b"datacontenttype");
    }
    header
        .strip_prefix(b"ce_")
        .filter(|name| !name.is_empty() && *name != b"data")
}
