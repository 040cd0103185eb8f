//! Snapshots as records of the documents' topic: a document under its subject, and a marker per namespace that says
//! "documents as of this checkpoint are in here". In and out: records. Documents count only with the marker of their
//! epoch: a log that was cut, or another namespace that takes the topic over, begins a new one with all documents.

use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, FIELDS, PROJECTION_VERSION};
use super::entity::Entity;
use super::place::{NextOffset, Offset};
use super::record::Record;

/// Keys of markers begin so; no subject does.
const MARKER: &str = "marker/";
/// Headers of both kinds of records.
const NAMESPACE: &str = "khala_namespace";
const VERSION: &str = "khala_version";
const EPOCH: &str = "khala_epoch";
/// The state that is not in the document.
const STATE: &str = "khala_state";

/// Documents as of a checkpoint are in the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whose documents.
    pub namespace: String,
    /// Documents count only if theirs is the same.
    pub epoch: String,
    /// As of here. Some may be further on.
    pub checkpoint: Checkpoint,
    /// Entities whose documents are as of an earlier place: the first offset not applied to each.
    pub aside: Vec<(Entity, Offset)>,
}

#[derive(Serialize, Deserialize)]
struct StoredMarker {
    namespace: String,
    epoch: String,
    checkpoint: Vec<String>,
    aside: Vec<(String, u64)>,
}

/// A document in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whose it is.
    pub entity: Entity,
    /// See [`Marker`].
    pub epoch: String,
    /// The JSON text.
    pub json: Vec<u8>,
    /// The state beside it.
    pub state: Option<Vec<u8>>,
}

/// Key, value and headers of a record.
pub type Parts = (String, Vec<u8>, Vec<(String, Option<Vec<u8>>)>);

impl Marker {
    /// Its JSON.
    pub fn json(&self) -> Vec<u8> {
        let stored = StoredMarker {
            namespace: self.namespace.clone(),
            epoch: self.epoch.clone(),
            checkpoint: self.checkpoint.fields().to_vec(),
            aside: self
                .aside
                .iter()
                .map(|(entity, offset)| (entity.subject().to_owned(), offset.0))
                .collect(),
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads [`Self::json`]; `None` if it is not of that form, or of another projection version.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let stored: StoredMarker = serde_json::from_slice(json).ok()?;
        let get = |name: &str| {
            let at = FIELDS.iter().position(|field| *field == name)?;
            stored.checkpoint.get(at).map(String::as_str)
        };
        let checkpoint = Checkpoint::from_fields(get).ok()?;
        let aside = stored.aside.into_iter();
        Some(Self {
            aside: aside
                .map(|(subject, offset)| Some((Entity::parse(&subject)?, Offset(offset))))
                .collect::<Option<_>>()?,
            namespace: stored.namespace,
            epoch: stored.epoch,
            checkpoint,
        })
        .filter(|marker: &Self| marker.checkpoint.projection_version == PROJECTION_VERSION)
    }

    /// As a record.
    pub fn parts(&self) -> Parts {
        let key = format!("{MARKER}{}", self.namespace);
        (key, self.json(), headers(&self.namespace, &self.epoch))
    }

    /// The marker in a record, if it is one.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        record.key?.starts_with(MARKER.as_bytes()).then_some(())?;
        Self::parse(record.value?)
    }

    /// Where it stands.
    pub fn next(&self) -> NextOffset {
        self.checkpoint.next
    }
}

impl Piece {
    /// As a record of `namespace`.
    pub fn parts(self, namespace: &str) -> Parts {
        let mut headers = headers(namespace, &self.epoch);
        if let Some(state) = self.state {
            headers.push((STATE.to_owned(), Some(state)));
        }
        (self.entity.subject().to_owned(), self.json, headers)
    }

    /// The document in a record, if it is one of this projection version.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        let entity = Entity::parse(std::str::from_utf8(record.key?).ok()?)?;
        let header = |wanted: &str| {
            record
                .headers()
                .filter(|(name, _)| *name == wanted.as_bytes())
                .last()?
                .1
        };
        let text = |wanted: &str| std::str::from_utf8(header(wanted)?).ok();
        (text(VERSION)? == PROJECTION_VERSION.to_string()).then_some(())?;
        Some(Self {
            entity,
            epoch: text(EPOCH)?.to_owned(),
            json: record.value?.to_vec(),
            state: header(STATE).map(<[u8]>::to_vec),
        })
    }
}

/// Whose document it is, of another projection version: under its key there may have been one of ours, which
/// compaction has taken.
pub fn of_other_version(record: &Record<'_>) -> Option<Entity> {
    let entity = Entity::parse(std::str::from_utf8(record.key?).ok()?)?;
    Piece::of(record).is_none().then_some(entity)
}

fn headers(namespace: &str, epoch: &str) -> Vec<(String, Option<Vec<u8>>)> {
    let version = PROJECTION_VERSION.to_string();
    [(NAMESPACE, namespace), (VERSION, &version), (EPOCH, epoch)]
        .map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec())))
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::record::RecordBatch;

    fn record((key, value, headers): Parts) -> RecordBatch {
        let mut batch = RecordBatch::default();
        batch.push(Offset(0), 0, Some(key.as_bytes()), Some(&value));
        for (name, value) in headers {
            batch.push_header(name.as_bytes(), value.as_deref());
        }
        batch
    }

    #[test]
    fn markers_and_documents_read_their_own_records() {
        let run = Entity::parse("run/a").expect("a subject");
        let marker = Marker {
            namespace: "ns".to_owned(),
            epoch: "e".to_owned(),
            checkpoint: Checkpoint::first(NextOffset(7), "id", 3),
            aside: vec![(run.clone(), Offset(5))],
        };
        let batch = record(marker.parts());
        assert_eq!(Marker::of(&batch.get(0)), Some(marker));
        assert_eq!(Piece::of(&batch.get(0)), None);
        let piece = Piece {
            entity: run,
            epoch: "e".to_owned(),
            json: b"{}".to_vec(),
            state: Some(vec![0, 255]),
        };
        let batch = record(piece.clone().parts("ns"));
        assert_eq!(Piece::of(&batch.get(0)), Some(piece.clone()));
        assert_eq!(Marker::of(&batch.get(0)), None);
        assert_eq!(of_other_version(&batch.get(0)), None);
        let (key, json, mut headers) = piece.clone().parts("ns");
        headers[1].1 = Some((PROJECTION_VERSION + 1).to_string().into_bytes());
        let batch = record((key, json, headers));
        assert_eq!(Piece::of(&batch.get(0)), None);
        assert_eq!(of_other_version(&batch.get(0)), Some(piece.entity));
    }
}
