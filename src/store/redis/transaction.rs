//! A batch as one transaction, for those that are large: a script's arguments cost the server more than what it does
//! with them. In: a batch that only adds. Out: whether it was written; if not, the script says why, or writes it.
//! Invariant: what the guard found is watched, so that it is so still when EXEC writes. All that can fail then is a stream
//! in whose place something stands: the script goes on with it.

use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::commit::{Events, by_entity, guarded_keys};
use super::connect::{Held, executed, must_reconnect};
use super::keys::Keys;
use super::reply::{self, Reply};
use super::script::Call;
use super::{RedisStore, lane, payload, push_identity};
use crate::pure::checkpoint::FIELDS;
use crate::pure::entity::Kind;
use crate::pure::place::PartitionId;
use crate::store::{Batch, Owner, StoreError};

/// How long a transaction may take: a lease that is renewed or ends meanwhile makes it void, and over a connection so slow
/// Redis' time is not what counts.
const LONGEST: Duration = Duration::from_secs(2);
/// A lease that is renewed voids a transaction; two in its time are rare, and the script costs three of them.
const ATTEMPTS: usize = 2;
/// New events of one entity from which on its new stream goes as one value.
const MANY: usize = 2;

/// Events of one entity, as places in a batch.
struct Stream {
    places: Vec<usize>,
    key: String,
    /// One command for all of them: the first of the entity's events is among them.
    as_value: bool,
}

impl Stream {
    fn commands(&self) -> usize {
        if self.as_value { 1 } else { self.places.len() }
    }
}

impl RedisStore {
    /// Writes a batch by a transaction; `false`: nothing was written, a script has to.
    pub(super) async fn transact(
        &self,
        partition: PartitionId,
        owner: &Owner,
        batch: &Batch,
    ) -> Result<bool, StoreError> {
        if batch.documents.len() + batch.events.len() < self.settings.large || !only_adds(batch) {
            return Ok(false);
        }
        let work = async {
            let held = self.connections.hold(lane(partition)).await;
            let Some(mut held) = held.map_err(|error| self.connections.explain(&error))? else {
                return Ok(false);
            };
            match self.guarded(&mut held, partition, owner, batch).await {
                Ok(written) => {
                    held.give_back();
                    self.connections.in_good_time();
                    Ok(written)
                }
                Err(Failed::Transaction(error)) if must_reconnect(&error) => Err(self.connections.explain(&error)),
                // The server refused, and has written nothing: the script is told so too, and has words for it.
                Err(Failed::Transaction(error)) => {
                    self.connections.denied(&error);
                    Ok(false)
                }
                Err(Failed::Told(error)) => Err(error),
            }
        };
        // Given up, the connection is closed, and with it what was queued: the same commit comes again, by a script.
        let longest = LONGEST.min(self.settings.timeout);
        match tokio::time::timeout(longest, work).await {
            Ok(written) => written,
            Err(_) => Err(self.connections.too_slow(longest)),
        }
    }

    async fn guarded(
        &self,
        held: &mut Held<'_>,
        partition: PartitionId,
        owner: &Owner,
        batch: &Batch,
    ) -> Result<bool, Failed> {
        let keys = self.keys(partition);
        let streams = self.streams(held, &keys, batch).await?;
        let before = before_streams(batch);
        for _ in 0..ATTEMPTS {
            if !watch(held, &keys, partition, owner, batch).await? {
                return Ok(false);
            }
            let commands = self.transaction(&keys, batch, &streams);
            let Some(answers) = executed(held.send_in_parts(commands).await?)? else {
                continue; // what was watched changed in between
            };
            let displaced = displaced(answers, before, &streams)
                .map_err(|detail| Failed::Told(reply::corrupt(partition, "a batch's part that cannot fail", detail)))?;
            if !displaced.is_empty() {
                self.append_in_place(partition, owner, batch, &displaced).await;
            }
            return Ok(true);
        }
        Ok(false)
    }

    async fn streams(&self, held: &mut Held<'_>, keys: &Keys, batch: &Batch) -> RedisResult<Vec<Stream>> {
        let streams = by_entity(batch, self.settings.events_kept as usize);
        let is_new = |events: &Events| events.first_seq == 1 && events.places.len() >= MANY;
        let as_values = streams.iter().any(is_new) && self.restores(held, keys).await?;
        let made = streams.into_iter().map(|events| Stream {
            as_value: as_values && is_new(&events),
            key: keys.events(&batch.events[events.places[0]].entity),
            places: events.places,
        });
        Ok(made.collect())
    }

    /// Streams in whose place something stands, of a batch that is written: the script replaces what is no stream, and
    /// leaves what is there already. Should it not come to that, the entity's next event, or a repair, does it.
    async fn append_in_place(&self, partition: PartitionId, owner: &Owner, batch: &Batch, displaced: &[&Stream]) {
        let mut rest = Batch::new(Some(batch.checkpoint.identity()), batch.checkpoint.clone());
        let places = displaced.iter().flat_map(|stream| &stream.places);
        rest.events = places.map(|place| batch.events[*place].clone()).collect();
        rest.buffer.clone_from(&batch.buffer);
        if let Err(error) = self.commit_by_script(partition, owner, &rest).await {
            let streams = displaced.len();
            tracing::warn!(%partition, streams, %error, "something else stands in the place of event streams, and stays for now");
        }
    }

    /// The commands, made one by one as they are sent.
    fn transaction<'a>(
        &'a self,
        keys: &'a Keys,
        batch: &'a Batch,
        streams: &'a [Stream],
    ) -> impl Iterator<Item = Cmd> + Send + 'a {
        let documents = (!batch.documents.is_empty()).then(|| documents(keys, batch));
        let indexes = Kind::ALL.into_iter().filter_map(|kind| index(keys, batch, kind));
        let streams = streams.iter().flat_map(|stream| self.stream(batch, stream));
        let parked = batch.parked.iter().map(|(entity, offset)| {
            let mut park = cmd("HSET");
            park.arg(keys.parked()).arg(entity.subject()).arg(offset.to_string());
            park
        });
        let begin = [cmd("MULTI")].into_iter().chain(documents).chain(indexes);
        let end = self.checkpoint_moves(keys, batch).chain([cmd("EXEC")]);
        begin.chain(streams).chain(parked).chain(end)
    }

    fn checkpoint_moves(&self, keys: &Keys, batch: &Batch) -> impl Iterator<Item = Cmd> + use<> {
        let fields = FIELDS.iter().zip(batch.checkpoint.fields());
        let mut hash = cmd("HSET");
        hash.arg(keys.checkpoint());
        let mut mark = cmd("XADD");
        mark.arg(keys.checkpoints());
        mark.arg("MAXLEN").arg("~").arg(self.settings.history_kept).arg("*");
        for (name, value) in fields {
            hash.arg(*name).arg(&value);
            mark.arg(*name).arg(&value);
        }
        [hash].into_iter().chain(batch.mark.then_some(mark))
    }

    /// Whether the server takes our form of a stream, and lets us: tried once, with a key that is gone at once.
    async fn restores(&self, held: &mut Held<'_>, keys: &Keys) -> RedisResult<bool> {
        let attempt = async || {
            let key = keys.probe();
            let mut commands = Pipeline::with_capacity(3);
            let value = payload::stream(&[(1, b"{}"), (300, b"{}")]);
            commands.cmd("RESTORE").arg(&key).arg(1000).arg(value).arg("REPLACE");
            commands.cmd("XRANGE").arg(&key).arg("-").arg("+");
            commands.cmd("DEL").arg(&key);
            let answers = held.send(&commands).await?;
            let read = answers.into_iter().nth(1).map(Value::extract_error);
            let entries: Vec<(String, Vec<String>)> = match read {
                Some(Ok(value)) => redis::from_redis_value(value).unwrap_or_default(),
                _ => Vec::new(),
            };
            let ids: Vec<_> = entries.iter().map(|(id, _)| id.as_str()).collect();
            let restores = ids == ["1-0", "300-0"];
            if !restores {
                tracing::info!(
                    "new event streams are made event by event; docs/redis.md names the right that spares it"
                );
            }
            Ok(restores)
        };
        self.restores.get_or_try_init(attempt).await.copied()
    }

    /// A stream's commands; the last append trims.
    fn stream(&self, batch: &Batch, stream: &Stream) -> Vec<Cmd> {
        if stream.as_value {
            return vec![restore(batch, stream)];
        }
        let last = stream.places.len() - 1;
        let append = |(i, place): (usize, &usize)| {
            let event = &batch.events[*place];
            let json = batch.text(&event.json);
            let mut append = Cmd::with_capacity(8, stream.key.len() + json.len() + 64);
            append.arg("XADD").arg(&stream.key);
            if i == last {
                append.arg("MAXLEN").arg("=").arg(self.settings.events_kept);
            }
            append.arg(format!("{}-0", event.seq)).arg("event").arg(json);
            append
        };
        stream.places.iter().enumerate().map(append).collect()
    }
}

/// How many commands write something before those of the streams do.
fn before_streams(batch: &Batch) -> usize {
    let has = |kind: &Kind| batch.documents.iter().any(|document| document.entity.kind() == *kind);
    usize::from(!batch.documents.is_empty()) + Kind::ALL.iter().filter(|kind| has(kind)).count()
}

fn only_adds(batch: &Batch) -> bool {
    batch.removed.is_empty() && batch.cut.is_empty() && batch.unparked.is_empty()
}

/// Streams that were not written to, for something stands in their place. An append below a stream's last id fails too: a
/// redo after a rollback finds entries that are there already.
///
/// # Errors
/// What else the server said no to.
fn displaced(answers: Vec<Value>, before: usize, streams: &[Stream]) -> Result<Vec<&Stream>, String> {
    let mut of_answers = streams
        .iter()
        .flat_map(|stream| std::iter::repeat_n(stream, stream.commands()));
    let mut displaced: Vec<&Stream> = Vec::new();
    for (i, answer) in answers.into_iter().enumerate() {
        let stream = if i < before { None } else { of_answers.next() };
        let Err(error) = answer.extract_error() else { continue };
        match (stream, error.code()) {
            (Some(stream), Some("WRONGTYPE" | "BUSYKEY")) => {
                if displaced.last().is_none_or(|last| last.key != stream.key) {
                    displaced.push(stream);
                }
            }
            (Some(stream), _) if !stream.as_value => {}
            _ => return Err(error.to_string()),
        }
    }
    Ok(displaced)
}

/// Watches what the guard looks at, and lets it look; `false`: it says no.
async fn watch(
    held: &mut Held<'_>,
    keys: &Keys,
    partition: PartitionId,
    owner: &Owner,
    batch: &Batch,
) -> Result<bool, Failed> {
    let mut guard = Call::watch();
    let mut watched = cmd("WATCH");
    for key in guarded_keys(keys) {
        watched.arg(&key);
        guard.key(key);
    }
    guard.argument(owner.0.as_str());
    push_identity(&mut guard, batch.expected.as_ref());
    let call = guard.command();
    let mut commands = Pipeline::with_capacity(3);
    commands.cmd("UNWATCH"); // whatever a transaction that was given up watched
    commands.add_command(watched).add_command(call.clone());
    let mut answers = held.send(&commands).await?;
    let mut answer = answers.pop().map(Value::extract_error);
    for answer in answers {
        answer.extract_error()?;
    }
    if matches!(&answer, Some(Err(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
        let mut commands = Pipeline::with_capacity(2);
        commands.add_command(guard.load_script()).add_command(call);
        answer = held.send(&commands).await?.pop().map(Value::extract_error);
    }
    let Some(answer) = answer else { return Ok(false) };
    let reply = Reply::read(partition, answer?).map_err(Failed::Told)?;
    Ok(matches!(reply, Reply::Ok(_)))
}

/// A new stream with all its events.
fn restore(batch: &Batch, stream: &Stream) -> Cmd {
    let events = stream.places.iter().map(|place| &batch.events[*place]);
    let entries: Vec<_> = events.map(|event| (event.seq, batch.text(&event.json))).collect();
    let value = payload::stream(&entries);
    let mut restore = Cmd::with_capacity(4, stream.key.len() + value.len() + 16);
    restore.arg("RESTORE").arg(&stream.key).arg("0").arg(value.as_slice());
    restore
}

fn documents(keys: &Keys, batch: &Batch) -> Cmd {
    let mut set = Cmd::with_capacity(4 * batch.documents.len() + 1, batch.buffer.len());
    set.arg("MSET");
    for document in &batch.documents {
        set.arg(keys.document(&document.entity)).arg(batch.text(&document.json));
        if let Some(state) = &document.state {
            set.arg(keys.state(&document.entity)).arg(batch.text(state));
        }
    }
    set
}

fn index(keys: &Keys, batch: &Batch, kind: Kind) -> Option<Cmd> {
    let mut add = cmd("ZADD");
    add.arg(keys.index(kind));
    let mut is_empty = true;
    for document in batch.documents.iter().filter(|document| document.entity.kind() == kind) {
        add.arg(document.offset.0).arg(document.entity.id());
        is_empty = false;
    }
    (!is_empty).then_some(add)
}

enum Failed {
    /// Nothing was written, or it is not known.
    Transaction(RedisError),
    Told(StoreError),
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Self::Transaction(error)
    }
}
