//! Some entities against the log, exactly, on a moving system.
//! In: entities of one partition. Out: what the store has of each, what the log says of it, and the verdict.
//! Invariant: document, checkpoint and whether it is parked are read at one instant, and the log is folded up to that very
//! checkpoint, or to where a document stands that a rewind or restore has left past it: so whatever is committed meanwhile, a
//! document that differs is drift.

use std::ops::ControlFlow;
use std::time::Duration;

use super::ground::{Ground, Pace, read_log};
use super::site::RepairError;
use super::standing::{check_intent, check_topic, check_version};
use super::verdict::{Verdict, is_cut, judge};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::document::{Document, Unreadable};
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::refold::{KeptEvent, Refold, Refolded, Want};
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
    /// Where the fold began.
    pub begin: Begin,
    /// What the log says of it.
    pub refolded: Refolded<()>,
    /// What follows.
    pub verdict: Verdict,
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
/// Log or store do not answer; a rewind or restore is under way; the topic was made anew.
pub async fn examine(
    ground: &Ground,
    partition: PartitionId,
    entities: &[Entity],
    (begin, events_kept, pace): (Begin, usize, Pace),
) -> Result<Examination, RepairError> {
    let rules = ground.rules().await?;
    let is_there = partition.0 < rules.partitions;
    let (first, log_end) = bounds(ground, partition, is_there).await?;
    let peeked = ground.store.peek(partition, entities).await?;
    if let Some(checkpoint) = &peeked.checkpoint {
        check_intent(partition, checkpoint)?; // one that was begun since may not have come to these yet
        check_version(partition, checkpoint)?;
    }
    let within = peeked.checkpoint.as_ref().filter(|_| is_there);
    let end = within.map_or(NextOffset::START, |checkpoint| checkpoint.next);
    let mut refold = Refold::new(partition, rules, events_kept);
    let mut range = (end, NextOffset::START);
    let mut read = Vec::with_capacity(entities.len());
    for ((entity, (seen, index)), parked) in entities.iter().zip(peeked.entities).zip(&peeked.parked) {
        let document = parse(entity, partition, &seen);
        let split = parked.as_ref();
        // A rewind may have left it further on than where it was parked then: the digest counts it as it is.
        let counted = |offset: &Offset| NextOffset(offset.0).max(index.map_or(NextOffset::START, Offset::next));
        let stands = match split {
            None => stands(document.as_ref(), index),
            // After a rewind that left it, what the digest counts may lie past the checkpoint: it stands there, as others do
            // that were left, and what the redo finds in it counts as duplicates.
            Some(offset) => counted(offset),
        }
        .min(log_end);
        let mut want = Want {
            until: end.max(stands),
            split: split.map_or(NextOffset::START, counted),
        };
        let (mut from, mut start) = (first, Begin::AtLogStart);
        match (&document, index) {
            (Some(Ok(document)), _) if is_cut(document, first) => {
                let events = kept(ground, partition, document, events_kept).await?;
                refold.want_onto(document.clone(), events, want, read.len());
            }
            (Some(Ok(document)), Some(index)) if begin == Begin::AtFirstOffset && split.is_none() => {
                from = document.first_offset().map_or(first, |offset| NextOffset(offset.0));
                want.until = index.next().min(want.until);
                start = Begin::AtFirstOffset;
                refold.want(entity.clone(), want, read.len());
            }
            _ => refold.want(entity.clone(), want, read.len()),
        }
        range = (range.0.min(from), range.1.max(want.until));
        read.push((seen, index, document, start));
    }
    let (records, mut folded) = fold(ground, partition, range, pace, refold).await?;
    if let Some(checkpoint) = &peeked.checkpoint {
        check_topic(ground, partition, checkpoint).await?;
    }
    folded.sort_by_key(|one| one.tag);
    let examined = entities.iter().zip(read).zip(peeked.parked).zip(folded).map(
        |(((entity, (seen, index, document, start)), parked), one)| Examined {
            verdict: judge(&seen, document.as_ref(), index, parked, &one.document, first),
            entity: entity.clone(),
            seen,
            index,
            parked,
            checkpoint: peeked.checkpoint.clone(),
            begin: start,
            refolded: untagged(one),
        },
    );
    Ok(Examination {
        entities: examined.collect(),
        records,
    })
}

/// The log's first offset and its end; of a partition that the topic does not have, none.
async fn bounds(
    ground: &Ground,
    partition: PartitionId,
    is_there: bool,
) -> Result<(NextOffset, NextOffset), RepairError> {
    if !is_there {
        return Ok((NextOffset::START, NextOffset::START));
    }
    let bounds = ground.log.bounds(partition).await?;
    Ok((bounds.first, bounds.end))
}

/// Where an entity stands, by its document, or by the index where that cannot be read. After a restore it may be past the
/// checkpoint: a snapshot's documents lie past its marker, and where the log has a gap there, they wait for the redo.
fn stands(document: Option<&Result<Document, Unreadable>>, index: Option<Offset>) -> NextOffset {
    let index = index.map_or(NextOffset::START, Offset::next);
    match document {
        Some(Ok(document)) if document.offset().map(Offset::next) != Some(index) => NextOffset::START,
        _ => index,
    }
}

/// The last events of a stream that a document includes.
async fn kept(
    ground: &Ground,
    partition: PartitionId,
    document: &Document,
    most: usize,
) -> Result<Vec<KeptEvent>, RepairError> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let (entity, seq) = (document.entity(), document.seq());
    let after = seq.saturating_sub(most as u64);
    let stored = ground
        .store
        .events(partition, entity, after, most, Duration::ZERO)
        .await?;
    let included = stored.into_iter().filter(|event| event.seq <= seq);
    let kept = included.map(|event| KeptEvent {
        seq: event.seq,
        json: event.json,
    });
    Ok(kept.collect())
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
        Stored::Absent | Stored::Lost | Stored::Expired | Stored::Unreadable(_) => None,
    }
}

impl Examined {
    /// The projection version of the checkpoint that it was seen with.
    pub(super) fn version(&self) -> Option<u32> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.projection_version)
    }

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
