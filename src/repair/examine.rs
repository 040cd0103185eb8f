//! Some entities against the log, exactly, on a moving system.
//! In: entities of one partition. Out: what the store has of each, what the log says of it, and the verdict.
//! Invariant: document and checkpoint are read at one instant, and the log is folded up to that very checkpoint: so
//! whatever is committed meanwhile, a document that differs is drift.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::ground::{Ground, Pace, read_log};
use super::site::RepairError;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::document::{Document, Unreadable};
use crate::pure::drift::Reason;
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::refold::{Refold, Refolded, Want};
use crate::store::Stored;

/// Where a fold begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the log's first offset: believes nothing of what is stored.
    AtLogStart,
    /// At the document's first offset, and it ends at its place in the index: reads as little as can be.
    AtFirstOffset,
}

/// One entity, examined.
pub struct Examined {
    /// Whose it is.
    pub entity: Entity,
    /// What the store has.
    pub seen: Stored,
    /// Its place in the index.
    pub index: Option<Offset>,
    /// Its first offset not applied, if it is parked.
    pub parked: Option<Offset>,
    /// The checkpoint of the same instant.
    pub checkpoint: Option<Checkpoint>,
    /// What the log says of it.
    pub refolded: Refolded<()>,
    /// What follows.
    pub verdict: Verdict,
}

/// What an examination found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The document is what the log says.
    Clean,
    /// Neither log nor store know the entity.
    Unknown,
    /// The log has lost the document's beginning; the document is whole in itself.
    Unverifiable,
    /// It is not what the log says.
    Drift {
        /// Why.
        reason: Reason,
        /// In words; may be empty.
        detail: String,
        /// Whether the log still has all that it takes to put it right.
        rebuild: Rebuild,
    },
}

/// Whether a document can be made from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// From its first event on.
    Possible,
    /// Its first events may be gone from the log.
    BeginningLost,
}

/// What a part of the log was read for it.
pub struct Examination {
    /// In the order asked.
    pub entities: Vec<Examined>,
    /// Records read.
    pub records: u64,
}

/// Examines entities of one partition; streams are folded too if `events_kept` is above 0.
///
/// # Errors
/// Log or store do not answer.
pub async fn examine(
    ground: &Ground,
    partition: PartitionId,
    entities: &[Entity],
    (begin, events_kept, pace): (Begin, usize, Pace),
) -> Result<Examination, RepairError> {
    let rules = ground.rules().await?;
    let first = if partition.0 < rules.partitions {
        ground.log.bounds(partition).await?.first
    } else {
        NextOffset::START
    };
    let parked: BTreeMap<Entity, Offset> = ground.store.parked(partition).await?.into_iter().collect();
    let peeked = ground.store.peek(partition, entities).await?;
    let end = match &peeked.checkpoint {
        Some(checkpoint) if partition.0 < rules.partitions => checkpoint.next,
        _ => NextOffset::START,
    };
    let mut refold = Refold::new(partition, rules, events_kept);
    let mut range = (end, NextOffset::START);
    let mut read = Vec::with_capacity(entities.len());
    for (entity, (seen, index)) in entities.iter().zip(peeked.entities) {
        let document = parse(entity, partition, &seen);
        let split = parked.get(entity);
        let mut want = Want {
            until: end,
            split: split.map_or(NextOffset::START, |offset| NextOffset(offset.0)),
        };
        let mut from = first;
        if begin == Begin::AtFirstOffset
            && let (Some(Ok(document)), Some(index), None) = (&document, index, split)
        {
            from = document
                .first_offset()
                .map_or(first, |offset| NextOffset(offset.0).max(first));
            want.until = index.next().min(end);
        }
        range = (range.0.min(from), range.1.max(want.until));
        refold.want(entity.clone(), want, read.len());
        read.push((seen, index, document));
    }
    let (records, mut folded) = fold(ground, partition, range, pace, refold).await?;
    folded.sort_by_key(|one| one.tag);
    let examined = entities
        .iter()
        .zip(read)
        .zip(folded)
        .map(|((entity, (seen, index, document)), one)| {
            let parked = parked.get(entity).copied();
            Examined {
                verdict: judge(&seen, document.as_ref(), index, parked, &one.document, first),
                entity: entity.clone(),
                seen,
                index,
                parked,
                checkpoint: peeked.checkpoint.clone(),
                refolded: untagged(one),
            }
        });
    Ok(Examination {
        entities: examined.collect(),
        records,
    })
}

async fn fold(
    ground: &Ground,
    partition: PartitionId,
    range: (NextOffset, NextOffset),
    pace: Pace,
    mut refold: Refold<usize>,
) -> Result<(u64, Vec<Refolded<usize>>), RepairError> {
    let mut done = Vec::new();
    let mut each = |records: &_| {
        done.extend(refold.feed(records).done);
        if refold.open() == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let records = read_log(&*ground.log, partition, range, pace, &mut each).await?;
    done.extend(refold.finish());
    Ok((records, done))
}

fn untagged(one: Refolded<usize>) -> Refolded<()> {
    Refolded {
        entity: one.entity,
        tag: (),
        document: one.document,
        hash_at_split: one.hash_at_split,
        accepted: one.accepted,
        duplicates: one.duplicates,
        events: one.events,
    }
}

/// The document of what is stored, if there is one.
pub fn parse(entity: &Entity, partition: PartitionId, seen: &Stored) -> Option<Result<Document, Unreadable>> {
    match seen {
        Stored::Document { json, state } => {
            let document = Document::parse(entity, partition, json, state.as_deref());
            Some(document.map(|(document, _)| document))
        }
        Stored::Absent | Stored::Lost | Stored::Unreadable(_) => None,
    }
}

/// What is stored against what the log, which begins at `first`, says.
fn judge(
    seen: &Stored,
    document: Option<&Result<Document, Unreadable>>,
    index: Option<Offset>,
    parked: Option<Offset>,
    folded: &Document,
    first: NextOffset,
) -> Verdict {
    let began = match document {
        Some(Ok(document)) => document.first_offset(),
        _ => None,
    };
    if began.is_some_and(|began| first.is_past(began)) && parked.is_none() {
        return Verdict::Unverifiable;
    }
    if folded.is_empty() && *seen == Stored::Absent && index.is_none() {
        return Verdict::Unknown;
    }
    let whole_log = first == NextOffset::START;
    let known_to_begin = began.is_some_and(|began| !first.is_past(began));
    let rebuild = if whole_log || known_to_begin || (!folded.is_empty() && folded.has_beginning()) {
        Rebuild::Possible
    } else {
        Rebuild::BeginningLost
    };
    let Some((reason, detail)) = difference(seen, document, index, folded, rebuild) else {
        return match parked {
            None => Verdict::Clean,
            Some(offset) => Verdict::Drift {
                reason: Reason::DocumentCorrupt,
                detail: format!("parked: its events from offset {offset} on wait for a repair"),
                rebuild,
            },
        };
    };
    let detail = match parked {
        Some(offset) => format!("{detail}; parked since offset {offset}"),
        None => detail,
    };
    Verdict::Drift {
        reason,
        detail,
        rebuild,
    }
}

fn difference(
    seen: &Stored,
    document: Option<&Result<Document, Unreadable>>,
    index: Option<Offset>,
    folded: &Document,
    rebuild: Rebuild,
) -> Option<(Reason, String)> {
    let nothing_in_log = folded.is_empty() && rebuild == Rebuild::Possible;
    match (seen, document) {
        (Stored::Absent, _) => Some((Reason::MissingDocument, "the log has events of it".to_owned())),
        _ if nothing_in_log => Some((Reason::UnexpectedDocument, "the log has no event of it".to_owned())),
        (Stored::Lost, _) => Some((
            Reason::MissingDocument,
            "the index knows it, its document is not there".to_owned(),
        )),
        (Stored::Unreadable(detail), _) => Some((Reason::DocumentCorrupt, (*detail).to_owned())),
        (_, Some(Err(unreadable @ Unreadable::Altered))) => Some((Reason::SummaryHashMismatch, unreadable.to_string())),
        (_, Some(Err(unreadable))) => Some((Reason::DocumentCorrupt, unreadable.to_string())),
        (_, Some(Ok(document))) if document != folded => Some((Reason::SummaryHashMismatch, told(document, folded))),
        _ if index.is_none() => Some((Reason::MissingDocument, "the index does not know it".to_owned())),
        _ if index != folded.offset() => Some((
            Reason::SummaryHashMismatch,
            format!("its place in the index is {}", index.map_or(0, |index| index.0)),
        )),
        _ => None,
    }
}

fn told(document: &Document, folded: &Document) -> String {
    let place = |document: &Document| {
        document
            .offset()
            .map_or_else(|| "none".to_owned(), |offset| offset.to_string())
    };
    let (stored, log) = (place(document), place(folded));
    if stored == log {
        "it is not the fold of its events".to_owned()
    } else {
        format!("it ends at offset {stored}, its events at {log}")
    }
}

impl Examined {
    /// The checkpoint once this parked entity is right: digest and counts take in what waited.
    pub fn unparked(&self, before: &Checkpoint, hash: u128) -> Checkpoint {
        Checkpoint {
            digest: before.digest.moved(self.refolded.hash_at_split, hash),
            accepted: before.accepted + self.refolded.accepted,
            duplicates: before.duplicates + self.refolded.duplicates,
            ..before.clone()
        }
    }
}
