//! The newest commit that fjall will find in a directory's journals, read before fjall opens them.
//! Why: where a journal stops making sense, fjall 3.1 takes the rest for a torn write and cuts it off
//! (`journal/reader.rs`), so that one flipped bit in a tag or a length would lose, for good and
//! without a word, all that was acknowledged after it. Reading first leaves the journal as it is.
//! Source of the layout: fjall 3.1 `journal/entry.rs`. Anything newer that differs reads as "nothing found".

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{COMMIT_KEY, unseal};

const TRAILER: [u8; 4] = *b"FJL\x03";

/// What a directory's journals hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The highest commit number in whole batches; `None` if there is none.
    pub newest: Option<u64>,
    /// Journals with something after the last whole batch: a torn write, or damage.
    pub cut: Vec<PathBuf>,
}

/// Reads all journals of `dir`.
pub(super) fn read(dir: &Path) -> std::io::Result<Found> {
    let mut found = Found::default();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let mut reader = BufReader::with_capacity(1 << 18, File::open(&path)?);
            let (newest, whole) = newest_in(&mut reader);
            found.newest = found.newest.max(newest);
            if !whole {
                found.cut.push(path);
            }
        }
    }
    Ok(found)
}

/// Reads entries until one makes no sense, as fjall does. Also tells whether only zeros follow.
fn newest_in(reader: &mut impl BufRead) -> (Option<u64>, bool) {
    let mut newest = None;
    let mut open = None;
    let mut in_batch = false;
    loop {
        if !in_batch && only_zeros_follow(reader) {
            return (newest, true);
        }
        match next_entry(reader) {
            Some(Entry::Start) if !in_batch => {
                in_batch = true;
                open = None;
            }
            Some(Entry::Commit(number)) if in_batch => open = Some(number),
            Some(Entry::Other) if in_batch => {}
            Some(Entry::End) if in_batch => {
                in_batch = false;
                newest = newest.max(open.take());
            }
            _ => return (newest, false),
        }
    }
}

/// Journals are made long and filled from the front. Reads on only while it is so.
fn only_zeros_follow(reader: &mut impl BufRead) -> bool {
    loop {
        match reader.fill_buf() {
            Ok([]) => return true,
            Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => {
                let length = bytes.len();
                reader.consume(length);
            }
            Ok(_) | Err(_) => return false,
        }
    }
}

enum Entry {
    Start,
    Commit(u64),
    Other,
    End,
}

fn next_entry(reader: &mut impl Read) -> Option<Entry> {
    match take::<1>(reader)?[0] {
        1 => take::<12>(reader).map(|_| Entry::Start),
        2 => item(reader),
        3 => {
            take::<8>(reader)?;
            (take::<4>(reader)? == TRAILER).then_some(Entry::End)
        }
        4 => take::<8>(reader).map(|_| Entry::Other),
        _ => None,
    }
}

/// Value type, compression (0: none), keyspace (8), key length (2), value length (4), its length on disk (4), key, value.
fn item(reader: &mut impl Read) -> Option<Entry> {
    let head = take::<20>(reader)?;
    if head[1] == 0 && head[12..16] != head[16..20] {
        return None; // not compressed, yet of two lengths
    }
    let key_length = u16::from_le_bytes([head[10], head[11]]);
    let value_length = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    if usize::from(key_length) != COMMIT_KEY.len() {
        return skip(reader, u64::from(key_length) + u64::from(value_length)).then_some(Entry::Other);
    }
    let key: [u8; COMMIT_KEY.len()] = take(reader)?;
    if &key != COMMIT_KEY || value_length != 12 {
        return skip(reader, u64::from(value_length)).then_some(Entry::Other);
    }
    let value = take::<12>(reader)?;
    let number = unseal(COMMIT_KEY, &value)?.try_into().ok()?;
    Some(Entry::Commit(u64::from_le_bytes(number)))
}

fn take<const N: usize>(reader: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn skip(reader: &mut impl Read, bytes: u64) -> bool {
    std::io::copy(&mut reader.take(bytes), &mut std::io::sink()).is_ok_and(|copied| copied == bytes)
}
