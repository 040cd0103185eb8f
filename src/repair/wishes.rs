//! What a rewind wishes of one pass over the log. In: entities. Out: wishes for the fold that puts them back, and those
//! that were not there at the target; those whose beginning the log has lost go on from their snapshots, or are left.
//! Invariant: what the digest counts for a document that cannot be read is folded too, so that it is taken out again.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Plan, plan};
use super::rewind::{CHUNK_ENTITIES, GUESSED, ONTO, Work, refused};
use super::site::{RepairError, read_through};
use super::snapshot;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::document::Document;
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, Offset};
use crate::pure::refold::{self, Refold, Want};

/// An entity that is to be folded.
struct Wish {
    entity: Entity,
    /// From a snapshot; `None`: from its first event.
    onto: Option<Document>,
    /// Where what is folded begins.
    from: NextOffset,
    /// The first offset not applied, where it is parked.
    parked: Option<Offset>,
    /// Up to where the digest counts it.
    counted_until: NextOffset,
    /// What the digest counts for it; 0: what is stored does not tell.
    counted: u128,
}

/// What is to be done with some entities.
#[derive(Default)]
pub(super) struct Wishes {
    to_fold: Vec<Wish>,
    /// Beginnings that the log has lost.
    lost: Vec<Wish>,
    /// Those that go, and what the digest counts for them.
    pub(super) gone: Vec<(Entity, u128)>,
}

impl Work<'_> {
    /// Plans for entities that are read under the intent.
    pub(super) async fn wishes(
        &mut self,
        entities: &[Entity],
        parked: &BTreeMap<Entity, Offset>,
    ) -> Result<Wishes, RepairError> {
        let (site, target) = (self.site, self.target.next);
        let mut all = Wishes::default();
        for chunk in entities.chunks(CHUNK_ENTITIES) {
            self.lease.keep().await?;
            let peeked = site.store.peek(site.partition, chunk).await?;
            if peeked.checkpoint.as_ref().map(Checkpoint::identity) != Some(self.current.identity()) {
                return Err(refused(site, peeked.checkpoint).into());
            }
            for (entity, (stored, index)) in chunk.iter().zip(peeked.entities) {
                let parked = parked.get(entity).copied();
                let last = index.map_or(NextOffset::START, Offset::next).max(self.current.next);
                let wish = |from, counted| Wish {
                    entity: entity.clone(),
                    onto: None,
                    from,
                    parked,
                    counted_until: parked.map_or(last, |at| {
                        NextOffset(at.0).max(index.map_or(NextOffset::START, Offset::next))
                    }),
                    counted,
                };
                match plan(site.partition, entity, &stored, self.bounds.first, target) {
                    Plan::Leave { counted } => all.lost.push(wish(target, counted)),
                    Plan::Remove { counted } if parked.is_none() => all.gone.push((entity.clone(), counted)),
                    Plan::Remove { counted } => all.to_fold.push(wish(target, counted)),
                    Plan::Fold { first, counted } => all.to_fold.push(wish(first, counted)),
                }
            }
        }
        self.go_on_from_snapshots(&mut all).await?;
        Ok(all)
    }

    /// The log has all that follows a snapshot.
    async fn go_on_from_snapshots(&mut self, all: &mut Wishes) -> Result<(), RepairError> {
        if all.lost.is_empty() {
            return Ok(());
        }
        self.lease.keep().await?;
        let entities: BTreeSet<Entity> = all.lost.iter().map(|wish| wish.entity.clone()).collect();
        let mut found = snapshot::lookup(self.site, &entities, self.target.next).await?;
        for wish in std::mem::take(&mut all.lost) {
            let is_before_parking = |included: &Offset| wish.parked.is_none_or(|at| *included < at);
            let document = found.remove(&wish.entity);
            let included = document.as_ref().and_then(Document::offset).filter(is_before_parking);
            let Some(included) = included else {
                self.left.insert(wish.entity);
                continue;
            };
            self.say(ONTO);
            if wish.counted == 0 {
                self.say(GUESSED);
            }
            all.to_fold.push(Wish {
                onto: document,
                from: included.next().max(self.bounds.first),
                ..wish
            });
        }
        Ok(())
    }

    /// Hands the wishes to the fold; returns where to read from.
    pub(super) async fn want(
        &mut self,
        all: &mut Wishes,
        refold: &mut Refold<u128>,
    ) -> Result<NextOffset, RepairError> {
        let known = self.counted(&all.to_fold).await?;
        let (mut from, until) = (self.target.next, self.target.next);
        for wish in all.to_fold.drain(..) {
            from = from.min(wish.from);
            let split = wish.parked.map_or(NextOffset::START, |at| NextOffset(at.0)).min(until);
            let counted = known.get(&wish.entity).copied().unwrap_or(wish.counted);
            match wish.onto {
                Some(document) => refold.want_onto(document, Vec::new(), Want { until, split }, counted),
                None => refold.want(wish.entity, Want { until, split }, counted),
            }
        }
        Ok(from)
    }

    /// What the digest counts for documents that cannot be read: they were the folds of their events up to where they
    /// were parked, or to the checkpoint. What a cut log has of them past the target is not what they were made of.
    async fn counted(&mut self, wishes: &[Wish]) -> Result<BTreeMap<Entity, u128>, RepairError> {
        let mut refold: Refold<()> = Refold::new(self.site.partition, self.rules, 0);
        let (mut from, mut to) = (self.bounds.end, NextOffset::START);
        let unread = wishes.iter().filter(|wish| wish.counted == 0);
        let (sure, unsure): (Vec<&Wish>, _) = unread.partition(|wish| wish.counted_until <= self.target.next);
        let unsure = if unsure.is_empty() || self.was_cut().await? {
            Vec::new()
        } else {
            unsure
        };
        for wish in sure.into_iter().chain(unsure) {
            let until = wish.counted_until.min(self.bounds.end);
            (from, to) = (from.min(wish.from), to.max(until));
            match &wish.onto {
                Some(document) => refold.want_onto(document.clone(), Vec::new(), Want::until(until), ()),
                None => refold.want(wish.entity.clone(), Want::until(until), ()),
            }
        }
        if refold.open() == 0 {
            return Ok(BTreeMap::new());
        }
        let mut folded = Vec::new();
        let take = |records: &_| folded.extend(refold.feed(records).done);
        self.progress.records += read_through(self.site, (from, to), &mut self.lease, take).await?;
        folded.extend(refold.finish());
        let mut room = Vec::new();
        let hashed = folded.into_iter().map(|one| {
            let hash = refold::hash(&one.document, &mut room);
            (one.entity, hash)
        });
        Ok(hashed.collect())
    }
}
