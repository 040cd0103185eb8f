//! A chunk: consecutive records of one partition that were written together, as one sealed value.
//! One value per commit and partition, not per record, is what makes the log fast.
//! Key: topic number, partition, first offset, big endian, so that chunks stand in log order.
//! Value: CRC-32C over key and rest, version, timestamp, count, records; numbers little endian.
//! Invariant: a chunk's records have dense offsets and share one timestamp.

use std::ops::Range;

use fjall::Slice;

use crate::disk;
use crate::log::NewRecord;
use crate::pure::place::{Offset, PartitionId};
use crate::pure::record::RecordBatch;

/// A chunk takes no further record from here on; a single record may be larger.
const CHUNK_BYTES: usize = 256 * 1024;
const CHUNK_RECORDS: u32 = 1024;

const VERSION: u8 = 1;
const HEAD: usize = 4 + 1 + 8 + 4;
/// Stands for Kafka's null where a length stands.
const NULL: u32 = u32::MAX;

/// Key of the chunk that begins at `base`.
pub(super) fn key(topic: u32, partition: PartitionId, base: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&topic.to_be_bytes());
    key[4..8].copy_from_slice(&partition.0.to_be_bytes());
    key[8..].copy_from_slice(&base.to_be_bytes());
    key
}

/// Bytes that a record takes in a chunk.
pub(super) fn size(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = record.headers.iter();
    let headers: usize = headers.map(|(name, value)| 8 + name.len() + length(value)).sum();
    12 + length(&record.key) + length(&record.value) + headers
}

/// A chunk being written.
pub(super) struct Builder {
    base: u64,
    count: u32,
    value: Vec<u8>,
}

impl Builder {
    pub(super) fn new(base: u64, timestamp_ms: i64) -> Self {
        let mut value = vec![0; HEAD];
        value[4] = VERSION;
        value[5..13].copy_from_slice(&timestamp_ms.to_le_bytes());
        Self { base, count: 0, value }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= CHUNK_RECORDS || self.value.len() >= CHUNK_BYTES
    }

    /// The offset of the record pushed next.
    pub(super) fn next(&self) -> u64 {
        self.base + u64::from(self.count)
    }

    /// Appends a record, which must be smaller than 4 GiB, and gives its offset.
    pub(super) fn push(&mut self, record: &NewRecord) -> Offset {
        let offset = Offset(self.next());
        self.length(record.key.as_deref());
        self.length(record.value.as_deref());
        self.number(record.headers.len() as u32);
        self.value.extend_from_slice(record.key.as_deref().unwrap_or_default());
        self.value
            .extend_from_slice(record.value.as_deref().unwrap_or_default());
        for (name, value) in &record.headers {
            self.length(Some(name.as_bytes()));
            self.length(value.as_deref());
            self.value.extend_from_slice(name.as_bytes());
            self.value.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        self.count += 1;
        offset
    }

    /// Key and sealed value.
    pub(super) fn finish(mut self, topic: u32, partition: PartitionId) -> ([u8; 16], Vec<u8>) {
        let key = key(topic, partition, self.base);
        self.value[13..HEAD].copy_from_slice(&self.count.to_le_bytes());
        disk::seal_in_place(&key, &mut self.value);
        (key, self.value)
    }

    fn length(&mut self, bytes: Option<&[u8]>) {
        self.number(bytes.map_or(NULL, |bytes| bytes.len() as u32));
    }

    fn number(&mut self, number: u32) {
        self.value.extend_from_slice(&number.to_le_bytes());
    }
}

/// A place within a chunk that is being read.
pub(super) struct Cursor {
    value: Slice,
    at: usize,
    next: u64,
    end: u64,
    timestamp_ms: i64,
}

/// A record's bytes within its chunk.
struct Parsed {
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
}

impl Cursor {
    /// The start of a chunk.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(key: &[u8], value: Slice) -> Result<Self, &'static str> {
        disk::unseal(key, &value).ok_or("its checksum does not fit: bits have flipped")?;
        let base = key.get(8..16).and_then(|bytes| bytes.try_into().ok());
        let base = u64::from_be_bytes(base.ok_or("its key is too short")?);
        let head = value.get(4..HEAD).ok_or("it is too short")?;
        if head[0] != VERSION {
            return Err("a newer Khala wrote it");
        }
        let timestamp_ms = i64::from_le_bytes(head[1..9].try_into().map_err(|_| "no timestamp")?);
        let count = u32::from_le_bytes(head[9..13].try_into().map_err(|_| "no count")?);
        Ok(Self {
            value,
            at: HEAD,
            next: base,
            end: base + u64::from(count),
            timestamp_ms,
        })
    }

    /// The offset of the record read next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// One past its last record.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Of all its records.
    pub(super) fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    /// Passes over records below `offset`.
    pub(super) fn skip_to(&mut self, offset: u64) -> Result<(), &'static str> {
        while self.next < offset.min(self.end) {
            self.parse()?;
        }
        Ok(())
    }

    /// Copies the next record into `batch`; there must be one.
    pub(super) fn copy_into(&mut self, batch: &mut RecordBatch) -> Result<(), &'static str> {
        let offset = Offset(self.next);
        let record = self.parse()?;
        let bytes = |range: &Range<usize>| &self.value[range.clone()];
        let (key, value) = (record.key.as_ref().map(bytes), record.value.as_ref().map(bytes));
        batch.push(offset, self.timestamp_ms, key, value);
        for (name, value) in &record.headers {
            batch.push_header(bytes(name), value.as_ref().map(bytes));
        }
        Ok(())
    }

    fn parse(&mut self) -> Result<Parsed, &'static str> {
        let (key, value, headers) = (self.number()?, self.number()?, self.number()?);
        let key = self.bytes(key)?;
        let value = self.bytes(value)?;
        let mut parsed = Parsed {
            key,
            value,
            headers: Vec::new(),
        };
        for _ in 0..headers {
            let (name, value) = (self.number()?, self.number()?);
            let name = self.bytes(name)?.ok_or("a header without a name")?;
            let value = self.bytes(value)?;
            parsed.headers.push((name, value));
        }
        self.next += 1;
        Ok(parsed)
    }

    fn number(&mut self) -> Result<u32, &'static str> {
        let bytes = self.value.get(self.at..self.at + 4).ok_or("a record is cut")?;
        self.at += 4;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| "a record is cut")?))
    }

    fn bytes(&mut self, length: u32) -> Result<Option<Range<usize>>, &'static str> {
        if length == NULL {
            return Ok(None);
        }
        let end = self.at + length as usize;
        if end > self.value.len() {
            return Err("a record is cut");
        }
        let range = self.at..end;
        self.at = end;
        Ok(Some(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&str>, value: Option<&str>, headers: &[(&str, Option<&str>)]) -> NewRecord {
        let owned = |text: &str| text.as_bytes().to_vec();
        NewRecord {
            partition: None,
            key: key.map(owned),
            value: value.map(owned),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(owned)))
                .collect(),
            timestamp_ms: None,
        }
    }

    #[test]
    fn a_chunk_gives_back_its_records() {
        let records = [
            record(Some("run/a"), Some("{}"), &[("ce_id", Some("1")), ("none", None)]),
            record(None, None, &[]),
            record(Some(""), Some(""), &[("", Some(""))]),
        ];
        let mut builder = Builder::new(40, 1_700_000_000_000);
        let total: usize = records.iter().map(size).sum();
        for record in &records {
            builder.push(record);
        }
        assert_eq!(builder.next(), 43);
        let (key, value) = builder.finish(1, PartitionId(2));
        assert_eq!(value.len(), HEAD + total);
        let mut cursor = Cursor::open(&key, value.into()).unwrap();
        assert_eq!((cursor.next(), cursor.end()), (40, 43));
        let mut batch = RecordBatch::default();
        while cursor.next() < cursor.end() {
            cursor.copy_into(&mut batch).unwrap();
        }
        for (i, expected) in records.iter().enumerate() {
            let got = batch.get(i);
            assert_eq!(got.key, expected.key.as_deref());
            assert_eq!(got.value, expected.value.as_deref());
            assert_eq!(got.timestamp_ms, 1_700_000_000_000);
            let headers: Vec<_> = got.headers().collect();
            let wanted = expected.headers.iter();
            let wanted: Vec<_> = wanted
                .map(|(name, value)| (name.as_bytes(), value.as_deref()))
                .collect();
            assert_eq!(headers, wanted);
        }
    }

    #[test]
    fn no_flipped_bit_of_a_chunk_is_read() {
        let mut builder = Builder::new(7, 1);
        builder.push(&record(Some("run/a"), Some("{}"), &[]));
        let (key, value) = builder.finish(0, PartitionId(0));
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Cursor::open(&key, flipped.into()).is_err(), "bit {bit}");
        }
    }
}
