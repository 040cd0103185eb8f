//! Records as they come from a log: one buffer a batch, with ranges into it, so that a batch
//! crosses the seam in one allocation and decoding borrows from it.

use std::ops::Range;

use super::place::{NextOffset, Offset};

/// Who a record is: its offset, the log's timestamp, and a checksum over key and value.
/// Two logs that agree on the identity of the record before a place agree up to that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordIdentity {
    /// Where the record stands.
    pub offset: Offset,
    /// The record's timestamp in milliseconds since 1970, as the log has it; -1 if it has none.
    pub timestamp_ms: i64,
    /// CRC-32C over the key's bytes, then the value's.
    pub crc32c: u32,
}

impl RecordIdentity {
    /// The text form of checkpoints: `<offset>:<timestamp>:<crc32c as 8 hex digits>`.
    pub fn text(&self) -> String {
        format!("{}:{}:{:08x}", self.offset, self.timestamp_ms, self.crc32c)
    }

    /// Reads [`Self::text`]; `None` if it is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let offset = Offset(parts.next()?.parse().ok()?);
        let timestamp_ms = parts.next()?.parse().ok()?;
        let crc32c = u32::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self {
            offset,
            timestamp_ms,
            crc32c,
        })
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it stands in its partition.
    pub offset: Offset,
    /// Milliseconds since 1970 as the log has it; -1 if it has none.
    pub timestamp_ms: i64,
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is Kafka's null (a tombstone).
    pub value: Option<&'a [u8]>,
    headers: &'a [(Range<u32>, Option<Range<u32>>)],
    buffer: &'a [u8],
}

impl<'a> Record<'a> {
    /// The headers in their order: name and value (`None` is Kafka's null).
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let buffer = self.buffer;
        self.headers
            .iter()
            .map(move |(name, value)| (slice(buffer, name), value.as_ref().map(|value| slice(buffer, value))))
    }

    /// The same record with another value.
    #[must_use]
    pub fn with_value(&self, value: &'a [u8]) -> Self {
        Self {
            value: Some(value),
            ..*self
        }
    }

    /// Whether it has any header.
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Its identity. Walks key and value once.
    pub fn identity(&self) -> RecordIdentity {
        let crc = crc32c::crc32c(self.key.unwrap_or_default());
        let crc32c = crc32c::crc32c_append(crc, self.value.unwrap_or_default());
        RecordIdentity {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            crc32c,
        }
    }
}

#[derive(Clone, Debug)]
struct Place {
    offset: Offset,
    timestamp_ms: i64,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

/// Consecutive records of one partition, offsets ascending (holes are legal), and where to read on.
#[derive(Clone, Debug, Default)]
pub struct RecordBatch {
    buffer: Vec<u8>,
    records: Vec<Place>,
    headers: Vec<(Range<u32>, Option<Range<u32>>)>,
    end: Option<NextOffset>,
}

/// The most bytes one batch may hold: ranges are 32 bit.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

impl RecordBatch {
    /// An empty batch with room for `records` records in `bytes` bytes.
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            records: Vec::with_capacity(records),
            headers: Vec::new(),
            end: None,
        }
    }

    /// Makes room for so many more records of so many bytes.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.records.reserve(records);
        self.buffer.reserve(bytes);
    }

    /// Appends a record; its headers follow with [`Self::push_header`].
    ///
    /// # Panics
    /// If offsets do not ascend, or the batch would grow past [`BATCH_BYTES_MAX`].
    pub fn push(&mut self, offset: Offset, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        if let Some(last) = self.records.last() {
            assert!(
                last.offset < offset,
                "offsets do not ascend: {} then {offset}",
                last.offset
            );
        }
        let key = key.map(|key| self.store(key));
        let value = value.map(|value| self.store(value));
        let headers = self.headers.len() as u32..self.headers.len() as u32;
        self.records.push(Place {
            offset,
            timestamp_ms,
            key,
            value,
            headers,
        });
    }

    /// Adds a header to the record pushed last; nothing if there is none.
    pub fn push_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        if self.records.is_empty() {
            return;
        }
        let name = self.store(name);
        let value = value.map(|value| self.store(value));
        self.headers.push((name, value));
        if let Some(last) = self.records.last_mut() {
            last.headers.end = self.headers.len() as u32;
        }
    }

    /// Says that the log was read up to `end` without finding more records (a transaction's marker,
    /// a compacted hole): the place to go on from is at least there.
    pub fn read_up_to(&mut self, end: NextOffset) {
        self.end = self.end.max(Some(end));
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Where to read on; `None` if the batch is empty and says nothing.
    pub fn next(&self) -> Option<NextOffset> {
        self.records.last().map(|last| last.offset.next()).max(self.end)
    }

    /// The `i`-th record.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn get(&self, i: usize) -> Record<'_> {
        let place = &self.records[i];
        Record {
            offset: place.offset,
            timestamp_ms: place.timestamp_ms,
            key: place.key.as_ref().map(|range| slice(&self.buffer, range)),
            value: place.value.as_ref().map(|range| slice(&self.buffer, range)),
            headers: &self.headers[place.headers.start as usize..place.headers.end as usize],
            buffer: &self.buffer,
        }
    }

    /// The records in log order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Drops the records below `next`.
    pub fn skip_below(&mut self, next: NextOffset) {
        let keep = self.records.partition_point(|record| next.is_past(record.offset));
        self.records.drain(..keep);
    }

    fn store(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.buffer.len();
        assert!(
            start + bytes.len() <= BATCH_BYTES_MAX,
            "a batch over {BATCH_BYTES_MAX} bytes"
        );
        self.buffer.extend_from_slice(bytes);
        start as u32..self.buffer.len() as u32
    }
}

fn slice<'a>(buffer: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    &buffer[range.start as usize..range.end as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_was_put_in() {
        let mut batch = RecordBatch::default();
        batch.push(Offset(4), 7, Some(b"k"), None);
        batch.push_header(b"a", Some(b"1"));
        batch.push_header(b"b", None);
        batch.push(Offset(9), -1, None, Some(b""));
        let first = batch.get(0);
        assert_eq!(
            (first.offset, first.timestamp_ms, first.key, first.value),
            (Offset(4), 7, Some(&b"k"[..]), None)
        );
        let headers: Vec<_> = first.headers().collect();
        assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (&b"b"[..], None)]);
        assert!(!batch.get(1).has_headers());
        assert_eq!(batch.next(), Some(NextOffset(10)));
        batch.read_up_to(NextOffset(12));
        assert_eq!(batch.next(), Some(NextOffset(12)));
        batch.skip_below(NextOffset(5));
        assert_eq!((batch.len(), batch.get(0).value), (1, Some(&b""[..])));
    }

    #[test]
    fn an_identity_reads_its_own_text() {
        let mut batch = RecordBatch::default();
        batch.push(Offset(3), -1, Some(b"1234"), Some(b"56789"));
        let identity = batch.get(0).identity();
        assert_eq!(identity.text(), "3:-1:e3069283"); // CRC-32C's check value (RFC 3720)
        assert_eq!(RecordIdentity::parse(&identity.text()), Some(identity));
        assert_eq!(RecordIdentity::parse("3:x:00"), None);
    }
}
