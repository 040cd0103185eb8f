//! Connections to Redis: one server, TLS, Sentinel, Cluster, as the client library supports them.
//! Invariant: made when needed, dropped on the first sign of trouble, each call bounded in time; no secret in an
//! error. Calls of one lane share a connection, so that a batch of megabytes does not delay another lane's calls;
//! a transaction has one to itself, for what it watches belongs to the connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::maybe_done;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Arg, AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::unconstrained;

use super::address::{Target, target, without_secrets};
use super::slow::Slow;
use crate::store::StoreError;

/// Lanes for batches; the partition's number chooses.
pub(super) const BATCH_LANES: usize = 4;
/// What a store is believed to take at least, in bytes a second: a large batch gets so much longer to be answered.
/// Without that, one too large for `store_timeout` would be sent again and again.
const SLOWEST: u64 = 256 * 1024;
/// A part of what is sent in parts: it stays in a core's cache while it is copied on its way out.
const PART_BYTES: u64 = 256 * 1024;
/// Parts under way at once.
const PARTS: usize = 8;
/// The lane of leases and other small calls.
pub(super) const CONTROL_LANE: usize = BATCH_LANES;
/// The lane of readers.
pub(super) const READ_LANE: usize = BATCH_LANES + 1;

#[derive(Clone)]
enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    fn single(self) -> Option<MultiplexedConnection> {
        match self {
            Self::Single(connection) => Some(connection),
            Self::Cluster(_) => None,
        }
    }
}

#[derive(Default)]
struct Lane {
    link: Option<Link>,
    /// Counts links, so that a late failure drops only the link it belongs to.
    generation: u64,
}

pub(super) struct Connections {
    target: Target,
    /// Address without secrets.
    pub(super) address: String,
    timeout: Duration,
    lanes: Vec<Mutex<Lane>>,
    /// Bytes of each lane's calls that wait for their answers.
    under_way: Vec<AtomicU64>,
    /// Connections for one transaction at a time, by lane.
    held: Vec<Mutex<Option<MultiplexedConnection>>>,
    /// Whether transactions were found not to be had.
    only_scripts: AtomicBool,
    /// Those that took too long.
    slow: std::sync::Mutex<Slow>,
}

/// A connection that is its holder's alone. Dropped before it is given back, it is closed.
pub(super) struct Held<'a> {
    place: MutexGuard<'a, Option<MultiplexedConnection>>,
    connection: MultiplexedConnection,
}

impl Held<'_> {
    /// Sends commands at once and returns each one's answer; errors of single commands are among them.
    pub(super) async fn send(&mut self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        self.connection.req_packed_commands(commands, 0, commands.len()).await
    }

    /// Sends any number of commands, a part of them at a time, the next one while the last one is on its way: never are all
    /// of them in memory. Returns each one's answer, as above; one that was queued in a transaction has none.
    pub(super) async fn send_in_parts(&mut self, commands: impl Iterator<Item = Cmd>) -> RedisResult<Vec<Value>> {
        let mut commands = commands.peekable();
        let (mut under_way, mut told) = (VecDeque::new(), Vec::new());
        loop {
            while under_way.len() < PARTS && commands.peek().is_some() {
                let (part, mut connection) = (part_of(&mut commands), self.connection.clone());
                let send = async move { connection.req_packed_commands(&part, 0, part.len()).await };
                let mut send = Box::pin(maybe_done(unconstrained(send)));
                // The first look puts it into the connection's queue, which has room for more parts than these: so they
                // go in this order.
                poll_fn(|context| Poll::Ready(_ = send.as_mut().poll(context))).await;
                under_way.push_back(send);
            }
            let Some(mut first) = under_way.pop_front() else {
                return Ok(told);
            };
            first.as_mut().await;
            let answers = first.as_mut().take_output().unwrap_or_else(|| Ok(Vec::new()))?;
            told.extend(answers.into_iter().filter(|answer| !is_queued(answer)));
        }
    }

    /// Leaves the connection to the next.
    pub(super) fn give_back(mut self) {
        *self.place = Some(self.connection);
    }
}

/// So many of the next commands as are sent at once.
fn part_of(commands: &mut impl Iterator<Item = Cmd>) -> Pipeline {
    let (mut part, mut bytes) = (Pipeline::new(), 0);
    while bytes < PART_BYTES
        && let Some(command) = commands.next()
    {
        bytes += size(&command);
        part.add_command(command);
    }
    part
}

fn is_queued(answer: &Value) -> bool {
    matches!(answer, Value::SimpleString(text) if text == "QUEUED")
}

/// A call among those of its lane.
struct Waiting<'a> {
    under_way: &'a AtomicU64,
    bytes: u64,
    /// Its own and those of the calls before it.
    bytes_ahead: u64,
}

impl<'a> Waiting<'a> {
    fn behind(under_way: &'a AtomicU64, bytes: u64) -> Self {
        let bytes_ahead = under_way.fetch_add(bytes, Ordering::Relaxed) + bytes;
        Self {
            under_way,
            bytes,
            bytes_ahead,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.under_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn size(command: &Cmd) -> u64 {
    let of = |argument: Arg<&[u8]>| match argument {
        Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    };
    command.args_iter().map(of).sum::<usize>() as u64
}

impl Connections {
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, StoreError> {
        let address = without_secrets(url);
        let target = target(url).map_err(|detail| StoreError::Rejected(format!("store {address}: {detail}")))?;
        let lanes = (0..=READ_LANE).map(|_| Mutex::default()).collect();
        let under_way = (0..=READ_LANE).map(|_| AtomicU64::default()).collect();
        let held = (0..BATCH_LANES).map(|_| Mutex::default()).collect();
        Ok(Self {
            target,
            address,
            timeout,
            lanes,
            under_way,
            held,
            only_scripts: AtomicBool::new(false),
            slow: std::sync::Mutex::default(),
        })
    }

    /// Sends one command; a connection that failed is made anew by the next call.
    pub(super) async fn query(&self, lane: usize, command: &Cmd) -> Result<Value, StoreError> {
        self.ask(lane, command).await?.map_err(|error| self.explain(&error))
    }

    /// As `query`, and tells a script that the server does not know (any more) apart.
    pub(super) async fn query_script(&self, lane: usize, command: &Cmd) -> Result<Option<Value>, StoreError> {
        match self.ask(lane, command).await? {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => Ok(None),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// Reads by a transaction; `None`: this server, or this user's rights, know none.
    pub(super) async fn read_at_once(
        &self,
        lane: usize,
        commands: &Pipeline,
    ) -> Result<Option<Vec<Value>>, StoreError> {
        let answer = self.in_time(lane, 0, self.try_transaction(lane, commands)).await;
        match answer {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) if self.denied(&error) => Ok(None),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(error) => {
                self.lanes[lane].lock().await.link = None;
                Err(error)
            }
        }
    }

    async fn ask(&self, lane: usize, command: &Cmd) -> Result<RedisResult<Value>, StoreError> {
        let answer = self.in_time(lane, size(command), self.try_query(lane, command)).await;
        if answer.is_err() {
            self.lanes[lane].lock().await.link = None;
        }
        answer
    }

    /// Bounds calls of one lane that send so many bytes.
    async fn in_time<T>(&self, lane: usize, bytes: u64, calls: impl Future<Output = T>) -> Result<T, StoreError> {
        let waiting = Waiting::behind(&self.under_way[lane], bytes);
        let time = self.timeout + Duration::from_millis(waiting.bytes_ahead * 1_000 / SLOWEST);
        let answer = tokio::time::timeout(time, calls).await;
        answer.map_err(|_| self.away(format!("no answer within {time:?}")))
    }

    fn has_transactions(&self) -> bool {
        !matches!(self.target, Target::Cluster(_))
            && !self.only_scripts.load(Ordering::Relaxed)
            && self.slow().is_over(Instant::now())
    }

    fn slow(&self) -> std::sync::MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction took too long: there are none for a while.
    pub(super) fn too_slow(&self, time: Duration) -> StoreError {
        self.slow().too_slow(Instant::now());
        self.away(format!("no answer to a transaction within {time:?}"))
    }

    /// A transaction went through in time.
    pub(super) fn in_good_time(&self) {
        self.slow().went_through(Instant::now());
    }

    /// Whether this server, or this user's rights, know no transactions; from then on there are none.
    pub(super) fn denied(&self, error: &RedisError) -> bool {
        let no_right = error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm);
        let denied = no_right || error.to_string().contains("unknown command");
        if denied && !self.only_scripts.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "large batches go by a script, which is slower; docs/redis.md lists the rights for transactions");
        }
        denied
    }

    /// A connection of the lane for one transaction; `None`: there is none on a cluster, or here.
    pub(super) async fn hold(&self, lane: usize) -> RedisResult<Option<Held<'_>>> {
        if !self.has_transactions() {
            return Ok(None);
        }
        let mut place = self.held[lane].lock().await;
        let connection = match place.take() {
            Some(connection) => Some(connection),
            None => self.connect().await?.single(),
        };
        Ok(connection.map(|connection| Held { place, connection }))
    }

    async fn try_query(&self, lane: usize, command: &Cmd) -> RedisResult<Value> {
        let (link, generation) = self.link(lane).await?;
        let result = match link {
            Link::Single(mut connection) => command.query_async::<Value>(&mut connection).await,
            Link::Cluster(mut connection) => command.query_async::<Value>(&mut connection).await,
        };
        self.after(lane, generation, result.and_then(Value::extract_error))
            .await
    }

    async fn try_transaction(&self, lane: usize, commands: &Pipeline) -> RedisResult<Option<Vec<Value>>> {
        let (link, generation) = self.link(lane).await?;
        let answers = match link {
            Link::Single(mut connection) => connection.req_packed_commands(commands, 0, commands.len()).await,
            Link::Cluster(mut connection) => connection.req_packed_commands(commands, 0, commands.len()).await,
        };
        self.after(lane, generation, answers.and_then(executed)).await
    }

    /// Drops the link that failed, unless there is a new one.
    async fn after<T>(&self, lane: usize, generation: u64, result: RedisResult<T>) -> RedisResult<T> {
        if result.as_ref().is_err_and(must_reconnect) {
            let mut lane = self.lanes[lane].lock().await;
            if lane.generation == generation {
                lane.link = None;
            }
        }
        result
    }

    async fn link(&self, lane: usize) -> RedisResult<(Link, u64)> {
        let mut lane = self.lanes[lane].lock().await;
        if let Some(link) = &lane.link {
            return Ok((link.clone(), lane.generation));
        }
        let link = self.connect().await?;
        lane.generation += 1;
        lane.link = Some(link.clone());
        Ok((link, lane.generation))
    }

    async fn connect(&self) -> RedisResult<Link> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None); // each call is bounded as a whole
        Ok(match &self.target {
            Target::Single(client) => Link::Single(client.get_multiplexed_async_connection_with_config(&config).await?),
            Target::Cluster(client) => Link::Cluster(client.get_async_connection().await?),
            Target::Sentinel(client) => {
                let mut client = client.lock().await;
                Link::Single(client.get_async_connection_with_config(&config).await?)
            }
        })
    }

    fn away(&self, detail: String) -> StoreError {
        StoreError::Unreachable {
            address: self.address.clone(),
            detail,
        }
    }

    pub(super) fn explain(&self, error: &RedisError) -> StoreError {
        let address = &self.address;
        let code = error.code().unwrap_or_default();
        let denied = error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
            || error.kind() == ErrorKind::AuthenticationFailed
            || matches!(code, "NOAUTH" | "WRONGPASS" | "NOPERM");
        if denied {
            return StoreError::Rejected(format!(
                "the store at {address} refuses this user: {error}; docs/redis.md lists the rights that khala needs"
            ));
        }
        if error.kind() == ErrorKind::InvalidClientConfig {
            return StoreError::Rejected(format!("store {address}: {error}"));
        }
        self.away(error.to_string())
    }
}

/// The answers of a transaction's commands, from those of all that was sent; `None`: what it watched has changed.
/// (The library's own transactions subtract with overflow when the server refuses MULTI.)
///
/// # Errors
/// The first refusal: the server has done nothing.
pub(super) fn executed(mut answers: Vec<Value>) -> RedisResult<Option<Vec<Value>>> {
    let last = answers.pop().unwrap_or(Value::Nil);
    for answer in answers {
        answer.extract_error()?;
    }
    match last {
        Value::Array(answers) => Ok(Some(answers)),
        other => other.extract_error().map(|_| None),
    }
}

pub(super) fn must_reconnect(error: &RedisError) -> bool {
    let moved = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    );
    moved || error.is_io_error() || error.is_unrecoverable_error() || error.is_connection_dropped()
}
