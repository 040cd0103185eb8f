//! A commit as it goes to Redis: its bytes, read as the server reads them and as the head of `commit.lua` lays them
//! out, say what the batch says. The bytes choose the batch: see `batch`.

use std::fmt::Display;
use std::sync::LazyLock;

use khala::pure::batch::{Batch, DocumentWrite, EventWrite};
use khala::pure::checkpoint::{Checkpoint, Digest, FIELDS, Identity};
use khala::pure::entity::{Entity, Kind};
use khala::pure::place::{NextOffset, Offset, PartitionId};
use khala::pure::record::RecordIdentity;
use khala::store::Owner;
use khala::store::redis::{RedisSettings, RedisStore};

use super::Bytes;

/// Events kept per stream.
pub const EVENTS_KEPT: u64 = 3;
const HISTORY_KEPT: usize = 5;
/// The largest offset: scores of a sorted set are doubles.
const OFFSET_MAX: u64 = 1 << 53;

static STORE: LazyLock<RedisStore> = LazyLock::new(|| {
    RedisStore::new(RedisSettings {
        url: "redis://127.0.0.1:1".to_owned(),
        namespace: "fuzz".to_owned(),
        timeout: std::time::Duration::from_secs(1),
        events_kept: EVENTS_KEPT,
        history_kept: HISTORY_KEPT,
        allow_eviction: false,
        large: RedisSettings::LARGE,
    })
    .expect("an address")
});

/// The commit that these bytes are.
pub fn run(bytes: &[u8]) {
    let (owner, batch) = batch(bytes);
    let sent = STORE.commit_bytes(PartitionId(3), &owner, &batch);
    let parts = resp(&sent);
    assert_eq!(parts[0], b"EVALSHA");
    assert_eq!(parts[1].len(), 40);
    let keys: usize = text(parts[2]).parse().expect("the number of keys");
    let (keys, arguments) = parts[3..].split_at(keys);
    let mut script = Script { keys, arguments };
    script.check(&owner, &batch);
}

/// Owner and batch that these bytes choose: any texts in documents, events and intent; entities, numbers and
/// ranges as a projector makes them.
pub fn batch(bytes: &[u8]) -> (Owner, Batch) {
    let mut bytes = Bytes(bytes);
    let owner = Owner(String::from_utf8_lossy(bytes.part()).into_owned());
    let expected = (bytes.byte() % 2 == 1).then(|| checkpoint(&mut bytes).identity());
    let mut batch = Batch::new(expected, checkpoint(&mut bytes));
    batch.mark = bytes.byte() % 2 == 1;
    let mut seen: Vec<Entity> = Vec::new();
    for _ in 0..bytes.byte() % 8 {
        let entity = entity(&mut bytes);
        if !seen.contains(&entity) {
            seen.push(entity.clone());
            touch(&mut batch, entity, &mut bytes);
        }
    }
    (owner, batch)
}

fn checkpoint(bytes: &mut Bytes<'_>) -> Checkpoint {
    let last = RecordIdentity {
        offset: Offset(bytes.number()),
        timestamp_ms: bytes.number() as i64,
        crc32c: bytes.number() as u32,
    };
    Checkpoint {
        last_record: (bytes.byte() % 2 == 1).then_some(last),
        records: bytes.number(),
        accepted: bytes.number(),
        duplicates: bytes.number(),
        dead_letters: bytes.number(),
        digest: Digest(u128::from(bytes.number()) << 64 | u128::from(bytes.number())),
        intent: String::from_utf8_lossy(bytes.part()).into_owned(),
        written_at_ms: (bytes.number() % 253_402_300_800_000) as i64,
        ..Checkpoint::first(NextOffset(bytes.number()), &String::from_utf8_lossy(bytes.part()), 12)
    }
}

fn entity(bytes: &mut Bytes<'_>) -> Entity {
    let kind = Kind::ALL[usize::from(bytes.byte() % 2)];
    let id = String::from_utf8_lossy(bytes.part()).into_owned();
    Entity::new(kind, &id).unwrap_or_else(|| Entity::new(kind, &format!("e{}", id.len())).expect("a legal id"))
}

/// What one batch does with one entity.
fn touch(batch: &mut Batch, entity: Entity, bytes: &mut Bytes<'_>) {
    match bytes.byte() % 6 {
        0 => batch.parked.push((entity, Offset(bytes.number() % OFFSET_MAX))),
        1 => batch.removed.push(entity),
        2 => batch.cut.push((entity, bytes.number() % OFFSET_MAX)),
        3 => batch.unparked.push(entity),
        has_state => {
            let json = put(batch, bytes.part());
            let state = (has_state == 4).then(|| put(batch, bytes.part()));
            let offset = Offset(bytes.number() % OFFSET_MAX);
            for seq in 1..=u64::from(bytes.byte() % 6) {
                let json = put(batch, bytes.part());
                batch.events.push(EventWrite {
                    entity: entity.clone(),
                    seq,
                    json,
                });
            }
            batch.documents.push(DocumentWrite {
                entity,
                offset,
                json,
                state,
            });
        }
    }
}

fn put(batch: &mut Batch, text: &[u8]) -> std::ops::Range<u32> {
    let start = batch.buffer.len() as u32;
    batch.buffer.extend_from_slice(text);
    start..batch.buffer.len() as u32
}

/// The parts of a command, as a server reads them; nothing may be left over.
fn resp(mut sent: &[u8]) -> Vec<&[u8]> {
    let count = number_line(&mut sent, b'*');
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number_line(&mut sent, b'$');
        let (part, rest) = sent.split_at(length);
        parts.push(part);
        sent = rest.strip_prefix(b"\r\n").expect("the end of a part");
    }
    assert_eq!(sent, b"");
    parts
}

fn number_line(sent: &mut &[u8], mark: u8) -> usize {
    let rest = sent.strip_prefix(&[mark]).expect("a count");
    let end = rest.windows(2).position(|two| two == b"\r\n").expect("a line's end");
    *sent = &rest[end + 2..];
    text(&rest[..end]).parse().expect("a number")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Keys and arguments, taken in the order in which `commit.lua` takes them.
struct Script<'a> {
    keys: &'a [&'a [u8]],
    arguments: &'a [&'a [u8]],
}

impl<'a> Script<'a> {
    fn key(&mut self, wanted: &str) {
        let (key, rest) = self.keys.split_first().expect("a key more");
        assert_eq!(text(key), format!("{{fuzz:3}}:{wanted}"));
        self.keys = rest;
    }

    fn argument(&mut self) -> &'a [u8] {
        let (argument, rest) = self.arguments.split_first().expect("an argument more");
        self.arguments = rest;
        argument
    }

    fn number(&mut self) -> u64 {
        text(self.argument()).parse().expect("a number")
    }

    fn is(&mut self, wanted: impl Display) {
        assert_eq!(text(self.argument()), format!("{wanted}"));
    }

    fn check(&mut self, owner: &Owner, batch: &Batch) {
        for key in [
            "owner",
            "checkpoint",
            "checkpoints",
            "parked",
            "index:run_summary",
            "index:worker_summary",
        ] {
            self.key(key);
        }
        self.is(&owner.0);
        self.expected(batch.expected.as_ref());
        self.is(EVENTS_KEPT);
        self.is(HISTORY_KEPT);
        self.is(if batch.mark { "1" } else { "" });
        let counts: [u64; 7] = std::array::from_fn(|_| self.number());
        let fields: Vec<(&str, &str)> = (0..FIELDS.len())
            .map(|_| (text(self.argument()), text(self.argument())))
            .collect();
        let get = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        assert_eq!(Checkpoint::from_fields(get), Ok(batch.checkpoint.clone()));
        self.documents(batch, counts[0], counts[1]);
        self.streams(batch, counts[2]);
        self.rest(batch, [counts[3], counts[4], counts[5], counts[6]]);
        assert!(
            self.keys.is_empty() && self.arguments.is_empty(),
            "nothing is left over"
        );
    }

    fn expected(&mut self, expected: Option<&Identity>) {
        self.is(if expected.is_some() { "1" } else { "" });
        let fields = expected.map_or_else(Default::default, Identity::fields);
        fields.into_iter().for_each(|field| self.is(field));
    }

    fn index(&mut self, entity: &Entity) {
        self.is(if entity.kind() == Kind::Run { 5 } else { 6 });
        self.is(entity.id());
    }

    fn documents(&mut self, batch: &Batch, documents: u64, states: u64) {
        assert_eq!(documents, batch.documents.len() as u64);
        for document in &batch.documents {
            self.key(&format!(
                "{}:{}",
                document.entity.kind().document(),
                document.entity.id()
            ));
            self.index(&document.entity);
            self.is(document.offset);
            assert_eq!(self.argument(), batch.text(&document.json));
        }
        let with_state = batch
            .documents
            .iter()
            .filter_map(|document| Some((&document.entity, document.state.as_ref()?)));
        assert_eq!(states, with_state.clone().count() as u64);
        for (entity, state) in with_state {
            self.key(&format!("state:{}:{}", entity.kind().document(), entity.id()));
            assert_eq!(self.argument(), batch.text(state));
        }
    }

    /// Of each stream the last events that it keeps.
    fn streams(&mut self, batch: &Batch, streams: u64) {
        let mut left = streams;
        for document in &batch.documents {
            let entity = &document.entity;
            let events: Vec<&EventWrite> = batch.events.iter().filter(|event| event.entity == *entity).collect();
            let kept = &events[events.len().saturating_sub(EVENTS_KEPT as usize)..];
            if kept.is_empty() {
                continue;
            }
            left = left.checked_sub(1).expect("a stream more");
            self.key(&format!("events:{}:{}", entity.kind().document(), entity.id()));
            self.is(kept.len());
            for event in kept {
                self.is(event.seq);
                assert_eq!(self.argument(), batch.text(&event.json));
            }
        }
        assert_eq!(left, 0);
    }

    fn rest(&mut self, batch: &Batch, [parked, cuts, removed, unparked]: [u64; 4]) {
        let counted = [
            batch.parked.len(),
            batch.cut.len(),
            batch.removed.len(),
            batch.unparked.len(),
        ];
        assert_eq!([parked, cuts, removed, unparked], counted.map(|count| count as u64));
        for (entity, offset) in &batch.parked {
            self.is(entity);
            self.is(offset);
        }
        for (entity, seq) in &batch.cut {
            self.key(&format!("events:{}:{}", entity.kind().document(), entity.id()));
            self.is(seq);
        }
        for entity in &batch.removed {
            let name = format!("{}:{}", entity.kind().document(), entity.id());
            self.key(&name);
            self.key(&format!("state:{name}"));
            self.key(&format!("events:{name}"));
            self.index(entity);
        }
        for entity in &batch.unparked {
            self.is(entity);
        }
    }
}
