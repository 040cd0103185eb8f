//! Documents of a kind by pages, the most recently updated first. In: what to list, and where the page before ended.
//! Out: a page, and where the next one begins.
//! Invariant: each partition is listed in its own order, by offset, and these are merged by the log's clock. So a page ends
//! at one place of each, wherever clocks run back and however many documents are of one millisecond: pages have each document
//! once, and look at none again. One that changes meanwhile moves to the front, where pages behind do not look.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::documents::{add_heartbeat_state, parse};
use super::{Access, AccessError, Led};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{Offset, PartitionId};
use crate::pure::time::Time;
use crate::store::{ListQuery, Store};

/// Documents read from a partition at once, at least and at most.
const CHUNK_MIN: usize = 16;
const CHUNK_MAX: usize = 200;

/// Which documents to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Runs or workers.
    pub kind: Kind,
    /// Only those of this status.
    pub status: Option<String>,
    /// Only those updated at or after this, by the log's clock.
    pub since: Option<Time>,
    /// At most this many.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// Only those whose subject begins so; empty: all.
    pub scope: Vec<String>,
}

/// Some documents, the most recently updated first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Value>,
    /// Where the next page begins; null if this is the last.
    pub cursor: Option<String>,
}

/// Where a document stands among all: when it was updated, and its id.
type Place = (String, String);

/// Where a page ended: `<updated_at>|<document_id>|<offset>.<offset>…`.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    /// Of the last document that was shown: where the next begins if there are other sources now.
    last: Place,
    /// By source: from these offsets on all was shown, or is not asked for.
    below: Vec<Offset>,
}

impl Cursor {
    fn text(&self) -> String {
        let (updated_at, id) = &self.last;
        let below: Vec<String> = self.below.iter().map(Offset::to_string).collect();
        format!("{updated_at}|{id}|{}", below.join("."))
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '|');
        let last = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let below = parts.next().filter(|below| !below.is_empty());
        let below = below.into_iter().flat_map(|below| below.split('.'));
        let below: Option<_> = below.map(|offset| offset.parse().ok().map(Offset)).collect();
        let below = below?;
        (!last.1.is_empty()).then_some(Self { last, below })
    }
}

/// What is looked at of a document.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    updated_at: Cow<'a, str>,
    #[serde(borrow, default)]
    document_id: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Cow<'a, str>,
}

struct Found {
    place: Place,
    offset: Offset,
    json: Vec<u8>,
}

/// A partition of one of the namespaces that a list is made of.
struct Source<'a> {
    partition: PartitionId,
    /// Whether it is where readers of a rollout are led.
    is_other: bool,
    store: &'a dyn Store,
    /// What fits of what was read, by descending offset.
    found: VecDeque<Found>,
    /// From here on all was read; `None`: nothing yet.
    read: Option<Offset>,
    is_done: bool,
    /// How much is read next.
    chunk: usize,
}

impl Source<'_> {
    fn newest(&self) -> Option<&Place> {
        self.found.front().map(|one| &one.place)
    }

    /// Where the next page goes on; at the start there is nothing more.
    fn below(&self) -> Offset {
        self.found.front().map_or(Offset(0), |first| Offset(first.offset.0 + 1))
    }
}

impl Access {
    /// Documents of a kind, the most recently updated first.
    ///
    /// # Errors
    /// The cursor is none; log or store do not answer.
    pub async fn list(&self, request: &ListRequest, now_ms: i64) -> Result<Page, AccessError> {
        let none = |text: &str| AccessError::BadRequest(format!("cursor {text:?} is none of ours"));
        let read = |text: &str| Cursor::read(text).ok_or_else(|| none(text));
        let cursor = request.cursor.as_deref().map(read).transpose()?;
        let led = self.led().await?;
        let stores: Vec<_> = led.stores().collect();
        let partitions = self.partitions().await?;
        let share = 2 * request.limit / (partitions.len() * stores.len()).max(1);
        let mut sources = Vec::new();
        for partition in partitions {
            sources.extend(stores.iter().map(|(is_other, store)| Source {
                partition,
                is_other: *is_other,
                store: &***store,
                found: VecDeque::new(),
                read: None,
                is_done: false,
                chunk: share.clamp(CHUNK_MIN, CHUNK_MAX),
            }));
        }
        let known = cursor.as_ref().filter(|cursor| cursor.below.len() == sources.len());
        let wanted = Wanted {
            led: &led,
            request,
            since: request.since.map(|since| since.to_string()).unwrap_or_default(),
            before: cursor.as_ref().filter(|_| known.is_none()).map(|cursor| &cursor.last),
        };
        for (i, source) in sources.iter_mut().enumerate() {
            source.read = known.map(|cursor| cursor.below[i]);
            wanted.fill(source).await?;
        }
        let mut page = wanted.merge(&mut sources).await?;
        let is_last = sources.iter().all(|source| source.found.is_empty());
        let next = page.last().filter(|_| !is_last).map(|last| Cursor {
            last: last.place.clone(),
            below: sources.iter().map(Source::below).collect(),
        });
        page.sort_by(|a, b| b.place.cmp(&a.place));
        let mut documents = Vec::with_capacity(page.len());
        for one in page {
            let mut document = parse(&one.json)?;
            add_heartbeat_state(&mut document, now_ms);
            documents.push(document);
        }
        Ok(Page {
            documents,
            cursor: next.map(|next| next.text()),
        })
    }
}

struct Wanted<'a> {
    led: &'a Led,
    request: &'a ListRequest,
    since: String,
    /// Only those behind.
    before: Option<&'a Place>,
}

impl Wanted<'_> {
    /// Takes the newest of all sources first, until a page is full.
    async fn merge(&self, sources: &mut [Source<'_>]) -> Result<Vec<Found>, AccessError> {
        let mut page = Vec::new();
        while page.len() < self.request.limit {
            let newest = sources.iter_mut().max_by(|a, b| a.newest().cmp(&b.newest()));
            let Some(source) = newest.filter(|source| source.newest().is_some()) else {
                break;
            };
            page.extend(source.found.pop_front());
            self.fill(source).await?;
        }
        Ok(page)
    }

    /// Reads on in a source until something of it fits.
    async fn fill(&self, source: &mut Source<'_>) -> Result<(), AccessError> {
        while source.found.is_empty() && !source.is_done {
            let query = ListQuery {
                kind: self.request.kind,
                below: source.read,
                limit: source.chunk,
            };
            let chunk = source.store.list(source.partition, &query).await?;
            source.is_done = chunk.len() < source.chunk;
            source.chunk = (2 * source.chunk).min(CHUNK_MAX);
            for (offset, json) in chunk {
                source.read = Some(offset);
                let place = self.place(&json, source.is_other);
                source.found.extend(place.map(|place| Found { place, offset, json }));
            }
        }
        Ok(())
    }

    /// A document's place, if it is asked for and readers get it from here. One bad document hides no other; reading it by
    /// its id tells what is wrong.
    fn place(&self, json: &[u8], is_other: bool) -> Option<Place> {
        let head: Head<'_> = serde_json::from_slice(json).ok()?;
        let request = self.request;
        if *head.updated_at < *self.since || request.status.as_ref().is_some_and(|status| head.status != **status) {
            return None;
        }
        let (_, id) = head.document_id.split_once(':')?;
        if !request.scope.is_empty() {
            let subject = format!("{}/{id}", request.kind.name());
            request.scope.iter().find(|begin| subject.starts_with(*begin))?;
        }
        if !self.led.is_own() && self.led.is_away(&Entity::new(request.kind, id)?) != is_other {
            return None;
        }
        let place = (head.updated_at.into_owned(), head.document_id.into_owned());
        self.before.is_none_or(|before| place < *before).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_its_own_text() {
        let last = || ("2026-11-29T18:00:00.000Z".to_owned(), "run_summary:a".to_owned());
        for below in [vec![], vec![Offset(7)], vec![Offset(0), Offset(u64::MAX), Offset(12)]] {
            let cursor = Cursor { last: last(), below };
            assert_eq!(Cursor::read(&cursor.text()), Some(cursor));
        }
        let of_before = Cursor::read("2026-11-29T18:00:00.000Z|run_summary:a").expect("a cursor of an earlier version");
        assert_eq!((of_before.last, of_before.below), (last(), Vec::new()));
        for bad in ["", "x", "x|", "x|y|z", "x|y|1.", "x|y|-1", "x|y|1|2"] {
            assert_eq!(Cursor::read(bad), None, "{bad}");
        }
    }
}
