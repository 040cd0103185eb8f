//! A stream's entries as one value, as RESTORE takes it. In: ids and events, ascending. Out: bytes.
//! Source: Redis' `rdb.c` (`RDB_TYPE_STREAM_LISTPACKS`, since 5.0), `listpack.c` and `t_stream.c`; later servers
//! read it too. Invariant: nodes are no larger than XADD would make them by the server's defaults.

use crc_fast::{CrcAlgorithm, checksum};

const TYPE: u8 = 15;
/// The first version of the format that knows streams.
const VERSION: u16 = 9;
/// `stream-node-max-bytes` and `stream-node-max-entries`.
const NODE_BYTES: usize = 4096;
const NODE_ENTRIES: usize = 100;
/// Bytes of a listpack's head: its size and its number of elements.
const HEAD: usize = 6;
/// Elements of a node's master entry with one field, and of an entry with the same field.
const MASTER_ELEMENTS: usize = 5;
const ENTRY_ELEMENTS: usize = 5;
const SAME_FIELDS: u64 = 2;
/// Four bytes of length follow.
const LONG_LENGTH: u8 = 0x80;
/// More than an entry's flags, differences, count and lengths take.
const ENTRY_OVERHEAD: usize = 32;

/// Entries `<seq>-0` with one field, `event`, of which there is at least one; `seq` ascends from 1 or more.
pub(super) fn stream(entries: &[(u64, &[u8])]) -> Vec<u8> {
    let bytes: usize = entries.iter().map(|(_, event)| event.len() + ENTRY_OVERHEAD).sum();
    let mut payload = Vec::with_capacity(bytes + bytes / 16 + 128);
    payload.push(TYPE);
    let nodes = nodes(entries);
    length(&mut payload, nodes.len());
    for node in nodes {
        let (first, _) = node[0];
        length(&mut payload, 16);
        payload.extend(first.to_be_bytes());
        payload.extend(0u64.to_be_bytes());
        listpack(&mut payload, node);
    }
    length(&mut payload, entries.len());
    let last = entries.last().map_or(0, |(seq, _)| *seq);
    length(&mut payload, last as usize);
    length(&mut payload, 0); // the second half of the last id
    length(&mut payload, 0); // consumer groups
    payload.extend(VERSION.to_le_bytes());
    let crc = checksum(CrcAlgorithm::Crc64Redis, &payload);
    payload.extend(crc.to_le_bytes());
    payload
}

fn nodes<'a, 'b>(mut entries: &'a [(u64, &'b [u8])]) -> Vec<&'a [(u64, &'b [u8])]> {
    let mut nodes = Vec::new();
    while !entries.is_empty() {
        let mut bytes = HEAD + ENTRY_OVERHEAD;
        let fits = |(i, (_, event)): &(usize, &(u64, &[u8]))| {
            bytes += event.len() + ENTRY_OVERHEAD;
            *i == 0 || (bytes < NODE_BYTES && *i < NODE_ENTRIES)
        };
        let count = entries.iter().enumerate().take_while(fits).count();
        let (node, rest) = entries.split_at(count);
        nodes.push(node);
        entries = rest;
    }
    nodes
}

/// A node as a string of the format: a master entry, whose id the others count from, then the entries.
fn listpack(payload: &mut Vec<u8>, node: &[(u64, &[u8])]) {
    payload.push(LONG_LENGTH);
    payload.extend([0; 4]);
    let start = payload.len();
    payload.extend([0; HEAD]);
    integer(payload, node.len() as u64);
    integer(payload, 0); // deleted
    integer(payload, 1); // fields
    string(payload, b"event");
    integer(payload, 0); // the master entry's end
    let first = node[0].0;
    for (seq, event) in node {
        integer(payload, SAME_FIELDS);
        integer(payload, seq - first);
        integer(payload, 0);
        string(payload, event);
        integer(payload, ENTRY_ELEMENTS as u64 - 1);
    }
    payload.push(0xff);
    let size = (payload.len() - start) as u32;
    let elements = (MASTER_ELEMENTS + ENTRY_ELEMENTS * node.len()) as u16;
    payload[start - 4..start].copy_from_slice(&size.to_be_bytes());
    payload[start..start + 4].copy_from_slice(&size.to_le_bytes());
    payload[start + 4..start + HEAD].copy_from_slice(&elements.to_le_bytes());
}

/// A length of the file format.
fn length(payload: &mut Vec<u8>, length: usize) {
    match length {
        0..64 => payload.push(length as u8),
        64..16_384 => payload.extend([0x40 | (length >> 8) as u8, length as u8]),
        _ if u32::try_from(length).is_ok() => {
            payload.push(LONG_LENGTH);
            payload.extend((length as u32).to_be_bytes());
        }
        _ => {
            payload.push(0x81);
            payload.extend((length as u64).to_be_bytes());
        }
    }
}

fn integer(list: &mut Vec<u8>, value: u64) {
    let start = list.len();
    let bytes = value.to_le_bytes();
    match value {
        0..128 => list.push(value as u8),
        128..4096 => list.extend([0xc0 | (value >> 8) as u8, value as u8]),
        _ if i16::try_from(value).is_ok() => element(list, 0xf1, &bytes[..2]),
        _ if value < 1 << 23 => element(list, 0xf2, &bytes[..3]),
        _ if i32::try_from(value).is_ok() => element(list, 0xf3, &bytes[..4]),
        _ => element(list, 0xf4, &bytes),
    }
    close(list, start);
}

fn element(list: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    list.push(kind);
    list.extend(bytes);
}

/// Texts that read as integers have another form: events never do.
fn string(list: &mut Vec<u8>, text: &[u8]) {
    let start = list.len();
    match text.len() {
        0..64 => list.push(0x80 | text.len() as u8),
        64..4096 => list.extend([0xe0 | (text.len() >> 8) as u8, text.len() as u8]),
        _ => element(list, 0xf0, &(text.len() as u32).to_le_bytes()),
    }
    list.extend(text);
    close(list, start);
}

/// How long the element was, to be read from its end.
fn close(list: &mut Vec<u8>, start: usize) {
    let length = list.len() - start;
    let bytes = match length {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    for i in (0..bytes).rev() {
        let group = (length >> (7 * i)) as u8 & 0x7f;
        let more = if i + 1 == bytes { 0 } else { 0x80 };
        list.push(group | more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `DUMP` of Redis 7.0 after `XADD s 1-0 event {}` and `XADD s 200-0 event {"a":1}`: its list, which this makes too.
    #[test]
    fn a_list_is_the_server_s() {
        let mut list = Vec::new();
        listpack(&mut list, &[(1, b"{}"), (200, b"{\"a\":1}")]);
        assert_eq!(&list[5..], LIST);
    }

    const LIST: &[u8] = b"4\x00\x00\x00\x0f\x00\x02\x01\x00\x01\x01\x01\x85event\x06\x00\x01\x02\x01\x00\x01\x00\x01\x82{}\x03\x04\x01\x02\x01\xc0\xc7\x02\x00\x01\x87{\"a\":1}\x08\x04\x01\xff";
}
