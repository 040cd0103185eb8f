//! Where a snapshot is read from: the documents' topic, or a file. In: a partition. Out: documents and markers in the
//! order in which they were written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};

use super::super::reading::Steady;
use super::super::site::{RepairError, Site};
use super::super::survey::last_record_of;
use super::tail::newest;
use crate::log::{FetchLimits, Log, LogError, Role};
use crate::pure::document::Document;
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::recovery::LastRecord;
use crate::pure::snapshot::{Marker, Piece, of_other_version};

const FETCH: FetchLimits = FetchLimits {
    records: 1000,
    bytes: 8 << 20,
    wait: Duration::from_secs(1),
};
/// Fetches without a record after which the log is given up: the reader tells of the end, also behind holes.
const QUIET_MAX: u32 = 30;
/// Lines of a file taken at once.
const LINES: usize = 1000;

/// Where a snapshot is.
#[derive(Clone, Debug)]
pub enum Source {
    /// In the documents' topic.
    Topic,
    /// In a file of `khala snapshot --file`.
    File(PathBuf),
}

/// One line of a file.
#[derive(Serialize, Deserialize)]
pub(super) struct Line<'a> {
    pub partition: u32,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub document: Option<&'a RawValue>,
    /// As hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub marker: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub subject: String,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub epoch: String,
}

/// What is read.
pub(super) enum Found {
    Piece(Piece),
    Marker(Marker),
    /// Of a document of another projection version.
    Other(Entity),
}

/// Reads a snapshot of one partition from its beginning.
pub(super) enum Pieces<'a> {
    Topic {
        reader: Option<Steady<'a>>,
        next: NextOffset,
        end: NextOffset,
    },
    File {
        lines: Lines<BufReader<tokio::fs::File>>,
        partition: PartitionId,
        path: PathBuf,
    },
}

impl<'a> Pieces<'a> {
    pub(super) async fn open(log: &'a dyn Log, partition: PartitionId, source: &Source) -> Result<Self, RepairError> {
        match source {
            Source::Topic => {
                let bounds = log.bounds_of(Role::Documents, partition).await?;
                Self::topic(log, partition, bounds.first, bounds.end).await
            }
            Source::File(path) => {
                let file = tokio::fs::File::open(path)
                    .await
                    .map_err(|error| file_error(path, &error))?;
                Ok(Self::File {
                    lines: BufReader::new(file).lines(),
                    partition,
                    path: path.clone(),
                })
            }
        }
    }

    /// Records of the topic from `next` to before `end`.
    pub(super) async fn topic(
        log: &'a dyn Log,
        partition: PartitionId,
        next: NextOffset,
        end: NextOffset,
    ) -> Result<Self, RepairError> {
        let reader = if next < end {
            Some(Steady::open(log, Role::Documents, partition, next).await?)
        } else {
            None
        };
        Ok(Self::Topic { reader, next, end })
    }

    /// The next documents and markers; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Found>>, RepairError> {
        match self {
            Self::Topic { reader, next, end } => {
                let Some(reader) = reader else { return Ok(None) };
                let mut quiet = 0;
                while *next < *end {
                    let records = reader.fetch(FETCH).await?;
                    let Some(read_to) = records.next() else {
                        quiet += 1;
                        if quiet >= QUIET_MAX {
                            // Never half a snapshot: what is missing would be taken for what never was.
                            let detail = format!("the documents' topic gives nothing at offset {next} of {end}");
                            let address = "the documents' topic".to_owned();
                            return Err(LogError::Unreachable { address, detail }.into());
                        }
                        continue;
                    };
                    *next = read_to;
                    let asked = records.iter().filter(|record| end.is_past(record.offset));
                    let found = asked.filter_map(|record| {
                        let marker = Marker::of(&record).map(Found::Marker);
                        let piece = marker.or_else(|| Piece::of(&record).map(Found::Piece));
                        piece.or_else(|| of_other_version(&record).map(Found::Other))
                    });
                    return Ok(Some(found.collect()));
                }
                Ok(None)
            }
            Self::File { lines, partition, path } => {
                let mut found = Vec::new();
                while found.len() < LINES {
                    let line = lines.next_line().await.map_err(|error| file_error(path, &error))?;
                    let Some(line) = line else { break };
                    let (of, read) = read_line(&line).ok_or_else(|| {
                        LogError::Refused(format!("{}: a line is none of a snapshot: {line:.80}", path.display()))
                    })?;
                    if of == *partition {
                        found.push(read);
                    }
                }
                Ok((!found.is_empty()).then_some(found))
            }
        }
    }
}

fn read_line(line: &str) -> Option<(PartitionId, Found)> {
    let line: Line<'_> = serde_json::from_str(line).ok()?;
    let partition = PartitionId(line.partition);
    if let Some(marker) = line.marker {
        return Some((partition, Found::Marker(Marker::parse(marker.get().as_bytes())?)));
    }
    let piece = Piece {
        entity: Entity::parse(&line.subject)?,
        epoch: line.epoch,
        json: line.document?.get().as_bytes().to_vec(),
        state: match line.state {
            Some(state) => Some(unhex(&state)?),
            None => None,
        },
    };
    Some((partition, Found::Piece(piece)))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

pub(super) fn file_error(path: &Path, error: &std::io::Error) -> RepairError {
    LogError::Refused(format!("{}: {error}", path.display())).into()
}

/// All documents as of here are in the topic, whichever namespace wrote them; the log's start if none are.
///
/// # Errors
/// The log does not answer.
pub async fn written_up_to(log: &dyn Log, partition: PartitionId) -> Result<NextOffset, RepairError> {
    let topic = log.topic().await?;
    let fits = |marker: &Marker| marker.checkpoint.topic_id == topic.id;
    let newest = newest(log, partition, &Source::Topic, fits).await?;
    Ok(newest.marker.map_or(NextOffset::START, |marker| marker.next()))
}

/// Snapshots of some entities as they were at `until`, as far as there are any and this log vouches for them: it has all
/// their events that are not in them.
///
/// # Errors
/// The log does not answer.
pub async fn lookup(
    site: &Site,
    entities: &BTreeSet<Entity>,
    until: NextOffset,
) -> Result<BTreeMap<Entity, Document>, RepairError> {
    let (log, partition) = (&*site.log, site.partition);
    let topic = site.log.topic().await?;
    let fits = |marker: &Marker| marker.checkpoint.topic_id == topic.id;
    let Some(newest) = newest(log, partition, &Source::Topic, fits).await?.marker else {
        return Ok(BTreeMap::new());
    };
    let bounds = log.bounds(partition).await?;
    let last = last_record_of(log, partition, &newest.checkpoint, (bounds.first, bounds.end)).await?;
    if newest.next() > bounds.end || last == LastRecord::Differs {
        return Ok(BTreeMap::new()); // of a log that was cut
    }
    let mut pieces = Pieces::open(log, partition, &Source::Topic).await?;
    let (mut read, mut found) = (BTreeMap::new(), BTreeMap::new());
    while let Some(batch) = pieces.next().await? {
        for one in batch {
            match one {
                Found::Piece(piece) if piece.epoch == newest.epoch && entities.contains(&piece.entity) => {
                    let parsed = Document::parse(&piece.entity, partition, &piece.json, piece.state.as_deref());
                    let document = parsed.ok().map(|(document, _)| document);
                    let place = |document: &Option<Document>| document.as_ref().and_then(Document::offset);
                    // One that is older came from a writer that was late; one that cannot be read may be the newest.
                    let there = read.get(&piece.entity).and_then(place);
                    if document.is_none() || place(&document) >= there {
                        read.insert(piece.entity, document);
                    }
                }
                Found::Marker(marker) if marker.epoch == newest.epoch && marker.next() >= bounds.first => {
                    let aside: BTreeSet<&Entity> = marker.aside.iter().map(|(entity, _)| entity).collect();
                    let as_of_marker = read.iter().filter_map(|(entity, document)| {
                        let document = document.as_ref().filter(|_| !aside.contains(entity))?;
                        let last = document.offset()?;
                        let is_below = marker.next().is_past(last) && until.is_past(last);
                        is_below.then(|| (entity.clone(), document.clone()))
                    });
                    found.extend(as_of_marker);
                }
                _ => {}
            }
        }
    }
    Ok(found)
}
