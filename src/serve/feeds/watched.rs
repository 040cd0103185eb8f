//! What somebody waits for in one partition, and up to where its news were told.
//! In: commits of ours, looks at the store. Out: from where on a look has to tell.
//! Invariant: what nobody told is below `told`'s gap, or at `told` and later: a look finds it there.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::Feed;
use crate::pure::entity::Entity;
use crate::pure::place::NextOffset;

/// The namespace that a feed is of; `None`: this server's.
pub(super) type Source = Option<String>;

/// What a look has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Everything may be news.
    All,
    /// What came from here on.
    Since(NextOffset),
}

pub(super) struct Watched {
    /// Of each namespace that readers are or were led to.
    pub(super) feeds: HashMap<Source, HashMap<Entity, Arc<Feed>>>,
    /// Readers and waiters.
    pub(super) guests: usize,
    pub(super) position: watch::Sender<Option<NextOffset>>,
    /// Up to where news were told, but for the gap; `None`: not known, so everything may be news.
    told: Option<NextOffset>,
    /// Where the first news is that nobody told: a commit whose answer was lost, or one of the owner before.
    gap: Option<NextOffset>,
    /// Where the store was at the last look.
    seen: Option<NextOffset>,
}

impl Watched {
    pub(super) fn new() -> Self {
        Self {
            feeds: HashMap::new(),
            guests: 0,
            position: watch::channel(None).0,
            told: None,
            gap: None,
            seen: None,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.told.is_some()
    }

    /// What comes from here on is news, if that is not known yet.
    pub(super) fn begin(&mut self, now: NextOffset) {
        self.told.get_or_insert(now);
    }

    /// A commit of ours is told: from `before`, which the store had, up to `next`.
    pub(super) fn committed(&mut self, before: Option<NextOffset>, next: NextOffset) {
        if let Some(told) = self.told {
            if before > Some(told) {
                self.gap.get_or_insert(told);
            }
            self.told = Some(next);
        }
        self.position.send_replace(Some(next));
    }

    /// A look found the store at `now`; `None`: it has nothing to tell. Of a partition of ours, what the store has since the
    /// last look may be on its way to be told.
    pub(super) fn look(&mut self, now: NextOffset, ours: bool) -> Option<News> {
        let seen = self.seen.replace(now);
        let news = match self.told {
            None => News::All,
            Some(told) => {
                let since = self.gap.map_or(told, |gap| gap.min(told));
                let is_told = if ours {
                    self.gap.is_none() && seen.is_none_or(|seen| since >= seen)
                } else {
                    since == now
                };
                if is_told {
                    return None;
                }
                News::Since(since)
            }
        };
        self.gap = None;
        self.told = if ours { self.told.max(Some(now)) } else { Some(now) };
        Some(news)
    }

    /// The look did not come to its end: another one has to tell the same.
    pub(super) fn failed(&mut self, news: News) {
        match news {
            News::All => self.forget(),
            News::Since(since) => self.gap = Some(self.gap.map_or(since, |gap| gap.min(since))),
        }
    }

    /// Everything may be news.
    pub(super) fn forget(&mut self) {
        (self.told, self.gap) = (None, None);
    }

    /// A look told everything up to `now`.
    pub(super) fn looked(&self, now: NextOffset, ours: bool) {
        self.position.send_if_modified(|position| {
            let news = position.is_none_or(|position| position < now || !ours);
            if news {
                *position = Some(now);
            }
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: bool = true;

    fn at(offset: u64) -> NextOffset {
        NextOffset(offset)
    }

    /// Told up to 10.
    fn watched(ours: bool) -> Watched {
        let mut watched = Watched::new();
        assert_eq!(
            watched.look(at(10), ours),
            Some(News::All),
            "at first everything may be news"
        );
        watched
    }

    #[test]
    fn of_others_a_look_tells_what_came_since_the_last_one() {
        let mut watched = watched(!OURS);
        assert_eq!(watched.look(at(10), !OURS), None);
        assert_eq!(watched.look(at(15), !OURS), Some(News::Since(at(10))));
        assert_eq!(
            watched.look(at(12), !OURS),
            Some(News::Since(at(15))),
            "the store went back"
        );
        assert_eq!(watched.look(at(12), !OURS), None);
    }

    #[test]
    fn from_its_beginning_on_everything_is_told() {
        let mut watched = Watched::new();
        watched.begin(at(10));
        watched.begin(at(12)); // another listener came
        assert_eq!(watched.look(at(15), OURS), None, "its answer may be on its way");
        assert_eq!(watched.look(at(15), OURS), Some(News::Since(at(10))));
    }

    #[test]
    fn what_a_commit_of_ours_tells_no_look_tells() {
        let mut watched = watched(OURS);
        assert_eq!(watched.look(at(15), OURS), None, "its answer is on its way");
        watched.committed(Some(at(10)), at(15));
        assert_eq!(watched.look(at(15), OURS), None);
        watched.committed(Some(at(15)), at(18));
        watched.committed(Some(at(12)), at(16)); // after a rollback
        assert_eq!(watched.look(at(16), OURS), None);
    }

    #[test]
    fn a_commit_whose_answer_was_lost_is_told_by_a_look() {
        let mut watched = watched(OURS);
        assert_eq!(watched.look(at(15), OURS), None, "its answer may be on its way");
        assert_eq!(watched.look(at(15), OURS), Some(News::Since(at(10))));
        assert_eq!(watched.look(at(15), OURS), None, "once");
        watched.committed(Some(at(20)), at(25));
        assert_eq!(
            watched.look(at(25), OURS),
            Some(News::Since(at(15))),
            "the next commit shows it"
        );
        assert_eq!(watched.look(at(25), OURS), None);
    }

    #[test]
    fn what_the_owner_before_committed_last_is_told_by_a_look() {
        let mut watched = watched(!OURS);
        watched.committed(Some(at(14)), at(20));
        assert_eq!(watched.look(at(20), OURS), Some(News::Since(at(10))));
        assert_eq!(watched.look(at(20), OURS), None);
    }

    #[test]
    fn a_look_that_failed_is_made_up_for() {
        let mut watched = watched(!OURS);
        assert_eq!(watched.look(at(15), !OURS), Some(News::Since(at(10))));
        watched.failed(News::Since(at(10)));
        assert_eq!(
            watched.look(at(15), !OURS),
            Some(News::Since(at(10))),
            "also where nothing came since"
        );
        watched.forget();
        watched.failed(News::Since(at(10)));
        assert_eq!(
            watched.look(at(15), !OURS),
            Some(News::All),
            "under another view everything may be news"
        );
    }
}
