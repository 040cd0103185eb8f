//! Which documents of one partition there are, and what each of them says of itself.
//! In: the index upwards by offset, so that an entity that moves on meanwhile comes again; and the keys themselves.
//! Out: entities to be folded up to their own offsets, and suspects. Invariant: an entity with an event below the
//! checkpoint that was read before the listing is listed, moved on, or a suspect.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::examine::parse;
use super::ground::{Ground, Pace};
use super::site::RepairError;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::document::Document;
use crate::pure::entity::{Entity, Kind};
use crate::pure::event::Rules;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::refold::{self, Refold, Slice, Want};
use crate::store::{Peeked, Stored};

/// Entities of one page.
const PAGE: usize = 1_000;

/// Entities of a slice told by name.
const NAMED: usize = 1_000;

/// What a stored document is, in a few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    hash: u128,
    state: u32,
    /// Whether the log has all of its events.
    is_whole: bool,
}

impl Fingerprint {
    pub(super) fn of(document: &Document, room: &mut Vec<u8>) -> Self {
        let hash = refold::hash(document, room);
        room.clear();
        let has_state = document.write_state(room);
        Self {
            hash,
            state: checksum(has_state.then_some(room)),
            is_whole: true,
        }
    }

    /// Whether a document of this fingerprint is not what `folded` says it is.
    pub(super) fn differs(self, folded: &Document, room: &mut Vec<u8>) -> bool {
        self.is_whole && self != Self::of(folded, room)
    }
}

/// Of the state as it is kept; 0: there is none.
fn checksum(state: Option<&[u8]>) -> u32 {
    state.map_or(0, |state| crc32c::crc32c(state).max(1))
}

/// One partition as it is audited.
pub(super) struct Scope<'a> {
    pub(super) ground: &'a Ground,
    pub(super) partition: PartitionId,
    pub(super) rules: Rules,
    pub(super) slice: &'a Slice,
    /// The log's first offset.
    pub(super) first: NextOffset,
    /// Only documents whose last event is there or later, and parked ones.
    pub(super) since: NextOffset,
    /// The checkpoint, read before the listing.
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) pace: Pace,
}

/// What was listed.
pub(super) struct Listed {
    pub(super) refold: Refold<Fingerprint>,
    pub(super) suspects: BTreeSet<Entity>,
    /// Past the last offset that any document names.
    pub(super) end: NextOffset,
    /// Where the oldest of them begins.
    pub(super) begin: NextOffset,
    /// How many begin before `since`.
    pub(super) old: u64,
    pub(super) documents: u64,
    pub(super) unverifiable: u64,
    pub(super) expired: u64,
    pub(super) sequence_gaps: u64,
    /// The first of those that are unverifiable.
    pub(super) beginning_lost: Vec<Entity>,
    pub(super) parked: BTreeMap<Entity, Offset>,
    room: Vec<u8>,
}

/// A page of the index.
struct Page {
    lowest: NextOffset,
    highest: NextOffset,
    /// At most so many were asked for.
    limit: usize,
    is_last: bool,
    /// Those of the slice.
    entities: Vec<Entity>,
    peeked: Option<Peeked>,
}

impl Page {
    /// From where on the next one is, and how large. Whole pages of one offset are somebody's invention; they must not
    /// hide what comes behind.
    fn next(&self) -> Option<(NextOffset, usize)> {
        let limit = if self.lowest == self.highest {
            self.limit * 2
        } else {
            PAGE
        };
        (!self.is_last).then_some((self.highest, limit))
    }
}

/// More than fits into the memory given.
pub(super) struct TooLarge;

impl Scope<'_> {
    /// Lists what the index knows.
    pub(super) async fn list(&self, memory_bytes: usize) -> Result<Result<Listed, TooLarge>, RepairError> {
        let store = &self.ground.store;
        let mut listed = Listed {
            refold: Refold::new(self.partition, self.rules, 0),
            suspects: BTreeSet::new(),
            end: self.checkpoint.next,
            begin: self.checkpoint.next,
            old: 0,
            documents: 0,
            unverifiable: 0,
            expired: 0,
            sequence_gaps: 0,
            beginning_lost: Vec::new(),
            parked: store.parked(self.partition).await?.into_iter().collect(),
            room: Vec::new(),
        };
        for kind in Kind::ALL {
            if let Err(TooLarge) = self.list_kind(kind, memory_bytes, &mut listed).await? {
                return Ok(Err(TooLarge));
            }
        }
        for entity in listed.parked.keys().cloned().collect::<Vec<_>>() {
            if self.slice.contains(entity.subject().as_bytes()) {
                listed.suspect(entity);
            }
        }
        Ok(Ok(listed))
    }

    /// The next page is on its way while one is looked at.
    async fn list_kind(
        &self,
        kind: Kind,
        memory_bytes: usize,
        listed: &mut Listed,
    ) -> Result<Result<(), TooLarge>, RepairError> {
        let mut stop = None;
        let mut ahead = self.page(kind, Some((self.since, PAGE))).await?;
        while let Some(page) = ahead.take() {
            let (began, highest) = (Instant::now(), page.highest);
            if stop.is_some_and(|stop| page.lowest >= stop) {
                break; // these moved on past the place where they were looked for last
            }
            if highest >= self.checkpoint.next && stop.is_none() {
                let now = self.ground.store.checkpoint(self.partition).await?;
                stop = Some(now.map_or(highest, |now| now.next));
            }
            let (next, ()) = tokio::join!(self.page(kind, page.next()), async {
                self.take(page, listed);
            });
            ahead = next?;
            if listed.refold.bytes() > memory_bytes {
                return Ok(Err(TooLarge));
            }
            self.pace.rest(began).await;
        }
        Ok(Ok(()))
    }

    /// A page of the index from an offset on, and what the store has of its entities; `None`: there is none.
    async fn page(&self, kind: Kind, from: Option<(NextOffset, usize)>) -> Result<Option<Page>, RepairError> {
        let Some((from, limit)) = from else {
            return Ok(None);
        };
        let store = &self.ground.store;
        let found = store.indexed(self.partition, kind, from, limit).await?;
        let (Some(lowest), Some(highest)) = (found.first(), found.last()) else {
            return Ok(None);
        };
        let (lowest, highest) = (NextOffset(lowest.1.0), NextOffset(highest.1.0));
        let is_last = found.len() < limit;
        let entities = found.into_iter().map(|(entity, _)| entity);
        let chosen = entities.filter(|entity| self.slice.contains(entity.subject().as_bytes()));
        let entities: Vec<Entity> = chosen.collect();
        let peeked = match entities.as_slice() {
            [] => None,
            entities => Some(store.peek(self.partition, entities).await?),
        };
        Ok(Some(Page {
            lowest,
            highest,
            limit,
            is_last,
            entities,
            peeked,
        }))
    }

    fn take(&self, page: Page, listed: &mut Listed) {
        let Some(peeked) = page.peeked else { return };
        let now = peeked
            .checkpoint
            .map_or(NextOffset::START, |checkpoint| checkpoint.next);
        for (entity, (seen, index)) in page.entities.iter().zip(peeked.entities) {
            self.take_one(entity, &seen, (index, now), listed);
        }
    }

    fn take_one(
        &self,
        entity: &Entity,
        seen: &Stored,
        (index, now): (Option<Offset>, NextOffset),
        listed: &mut Listed,
    ) {
        if *seen == Stored::Absent && index.is_none() {
            return; // removed since the page was read
        }
        let is_new = !listed.refold.knows(entity);
        if *seen == Stored::Expired {
            listed.expired += u64::from(is_new);
            return listed.refold.pass_over(entity.clone());
        }
        listed.documents += u64::from(is_new);
        let Some(Ok(document)) = parse(entity, self.partition, seen) else {
            return listed.suspect(entity.clone());
        };
        let (Some(began), Some(offset)) = (document.first_offset(), document.offset()) else {
            return listed.suspect(entity.clone());
        };
        listed.sequence_gaps += u64::from(is_new && document.missing_events() > 0);
        if index != Some(offset) || !now.is_past(offset) || listed.parked.contains_key(entity) {
            return listed.suspect(entity.clone());
        }
        if self.first.is_past(began) {
            // Its events are read all the same: one past its offset tells that it is stale.
            listed.unverifiable += u64::from(is_new);
            if is_new && listed.beginning_lost.len() < NAMED {
                listed.beginning_lost.push(entity.clone());
            }
        }
        let is_whole = !self.first.is_past(began);
        let fingerprint = Fingerprint {
            is_whole,
            state: checksum(seen.state()),
            ..Fingerprint::of(&document, &mut listed.room)
        };
        listed.end = listed.end.max(offset.next());
        listed.begin = listed.begin.min(NextOffset(began.0));
        listed.old += u64::from(is_new && self.since.is_past(began));
        listed
            .refold
            .want(entity.clone(), Want::until(offset.next()), fingerprint);
    }

    /// Looks at documents whose keys are there and that the index did not tell of; keeps those that are suspect.
    pub(super) async fn look_at(&self, strays: &BTreeSet<Entity>, listed: &mut Listed) -> Result<(), RepairError> {
        let strays: Vec<Entity> = strays.iter().cloned().collect();
        for page in strays.chunks(PAGE) {
            let peeked = self.ground.store.peek(self.partition, page).await?;
            for (entity, (seen, index)) in page.iter().zip(peeked.entities) {
                let offset = match parse(entity, self.partition, &seen) {
                    Some(Ok(document)) => document.offset(),
                    _ => None,
                };
                let is_new = offset.is_some_and(|offset| !self.checkpoint.next.is_past(offset)) && offset == index;
                if !is_new && seen != Stored::Absent {
                    listed.documents += 1;
                    listed.suspect(entity.clone());
                }
            }
        }
        Ok(())
    }
}

impl Listed {
    fn suspect(&mut self, entity: Entity) {
        self.refold.pass_over(entity.clone());
        self.suspects.insert(entity);
    }
}
