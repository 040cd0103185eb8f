//! What an operator and a server's side work begin, at bad moments; each may be a process of either version, once there
//! are two.

use std::sync::Arc;
use std::time::Duration;

use khala::pure::checkpoint::Checkpoint;
use khala::pure::partition::State;
use khala::pure::place::NextOffset;
use khala::repair::snapshot::Snapshots;
use khala::repair::{Expiry, Ground, Site};
use khala::store::Owner;

use super::check::is_good;
use super::log::SimLog;
use super::operator;
use super::plan::Event;
use super::projector::RULES;
use super::sea::{PARTITION, Sea};
use super::store::SimStore;
use super::version::Version;
use super::world::World;

impl World {
    pub(super) fn beside(&mut self, event: Event) -> bool {
        match event {
            Event::Replay if self.operator.is_none() => self.replay(false),
            Event::Audit if self.operator.is_none() => {
                let repairs = self.luck.one_in(2);
                self.audit(repairs);
                true
            }
            Event::Snapshot if self.keeper.is_none() && self.somebody_runs() => {
                let fresh = self.luck.one_in(6); // `khala snapshot` beside a server
                let sea = self.whose();
                let before = std::mem::replace(&mut self.kept_by, sea.version);
                let known = self.snapshots.take().filter(|_| !fresh && before == sea.version);
                let (log, store) = (Arc::new(SimLog(sea.clone())), Arc::new(SimStore(sea)));
                let snapshots = known.unwrap_or_else(|| Box::new(Snapshots::new(log, store, "khala", PARTITION)));
                self.keeper = Some(Box::pin(operator::snapshot(snapshots, self.luck.one_in(4))));
                true
            }
            Event::Expire if self.reaper.is_none() && self.somebody_runs() => {
                self.next_name += 1;
                let healer = operator::healer(self.next_name, self.now_ms);
                let ground = self.ground();
                let version = self.whose().version;
                let before = std::mem::replace(&mut self.reaped_by, version);
                let known = self.expiry.take().filter(|_| before == version);
                let expiry: Expiry = known.unwrap_or_default();
                self.reaper = Some(Box::pin(operator::expire(ground, expiry, healer)));
                true
            }
            _ => false,
        }
    }

    fn somebody_runs(&self) -> bool {
        let mut states = self.projectors.iter().map(|projector| projector.machine.view().state);
        states.any(|state| state == State::Running)
    }

    /// An operator goes back to a mark, at a bad moment.
    pub(super) fn replay(&mut self, to_the_start: bool) -> bool {
        let mark = {
            let state = self.sea.lock();
            let Some(now) = state.part.checkpoint.clone() else {
                return false;
            };
            let first = NextOffset(state.first);
            let marks = state.part.marks.iter().map(|mark| mark.checkpoint.clone());
            let of_now = |mark: &Checkpoint| mark.projection_version == now.projection_version;
            let inside = |mark: &Checkpoint| first <= mark.next && mark.next <= now.next && of_now(mark);
            let good: Vec<Checkpoint> = marks
                .filter(|mark| inside(mark) && is_good(mark, state.readable()))
                .collect();
            if good.is_empty() || to_the_start || self.luck.one_in(4) {
                Checkpoint::first(first, &now.topic_id, now.partitions)
            } else {
                self.whose().version.seen(self.luck.pick(&good).clone())
            }
        };
        let site = self.site();
        self.operator = Some(Box::pin(operator::replay(site, mark)));
        true
    }

    /// Beside the projectors, now and then with repair.
    pub(super) fn audit(&mut self, repairs: bool) {
        self.next_name += 1;
        let healer = operator::healer(self.next_name, self.now_ms);
        let ground = self.ground();
        self.operator = Some(Box::pin(operator::look_through(ground, healer, repairs)));
    }

    pub(super) fn two_versions(&self) -> bool {
        self.history.faults.contains_key(Event::Deploy.name())
    }

    /// As whoever begins something now sees it; when all is calm only the right version is left.
    fn whose(&self) -> Sea {
        if !self.two_versions() || self.step >= self.plan.steps {
            return self.sea.of(self.version);
        }
        let is_other = self.plan.luck(self.step, Event::Deploy).one_in(2);
        self.sea.of(if is_other { Version::Two } else { Version::One })
    }

    fn site(&mut self) -> Site {
        self.next_name += 1;
        let sea = self.whose();
        Site {
            log: Arc::new(SimLog(sea.clone())),
            store: Arc::new(SimStore(sea)),
            partition: PARTITION,
            owner: Owner(format!("operator/{}", self.next_name)),
            lease: Duration::from_hours(1),
            rules: RULES,
        }
    }

    fn ground(&self) -> Ground {
        let sea = self.whose();
        Ground {
            log: Arc::new(SimLog(sea.clone())),
            store: Arc::new(SimStore(sea)),
            partitioner: RULES.partitioner,
            max_event_bytes: RULES.max_event_bytes,
            redact: RULES.redact,
            events_kept: 10_000,
        }
    }
}
