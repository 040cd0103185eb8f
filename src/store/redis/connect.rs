//! Connections to Redis: one server, TLS, Sentinel, Cluster, as the client library supports them.
//! Invariant: made when needed, dropped on the first sign of trouble, each call bounded in time; no secret in an
//! error. Calls of one lane share a connection, so that a batch of megabytes does not delay another lane's calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    Arg, AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::Mutex;

use crate::store::StoreError;

/// Lanes for batches; the partition's number chooses.
pub(super) const BATCH_LANES: usize = 4;
/// What a store is believed to take at least, in bytes a second: a large batch gets so much longer to be answered.
/// Without that, one too large for `store_timeout` would be sent again and again.
const SLOWEST: u64 = 256 * 1024;
/// The lane of leases and other small calls.
pub(super) const CONTROL_LANE: usize = BATCH_LANES;
/// The lane of readers.
pub(super) const READ_LANE: usize = BATCH_LANES + 1;

enum Target {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<Mutex<SentinelClient>>),
}

#[derive(Clone)]
enum Link {
    Single(redis::aio::MultiplexedConnection),
    Cluster(ClusterConnection),
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
        Ok(Self {
            target,
            address,
            timeout,
            lanes,
            under_way,
        })
    }

    /// Sends one command; a connection that failed is made anew by the next call.
    pub(super) async fn query(&self, lane: usize, command: &Cmd) -> Result<Value, StoreError> {
        self.in_time(lane, command).await?.map_err(|error| self.explain(&error))
    }

    /// As `query`, and tells a script that the server does not know (any more) apart.
    pub(super) async fn query_script(&self, lane: usize, command: &Cmd) -> Result<Option<Value>, StoreError> {
        match self.in_time(lane, command).await? {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => Ok(None),
            Err(error) => Err(self.explain(&error)),
        }
    }

    async fn in_time(&self, lane: usize, command: &Cmd) -> Result<RedisResult<Value>, StoreError> {
        let waiting = Waiting::behind(&self.under_way[lane], size(command));
        let time = self.timeout + Duration::from_millis(waiting.bytes_ahead * 1_000 / SLOWEST);
        if let Ok(answer) = tokio::time::timeout(time, self.try_query(lane, command)).await {
            return Ok(answer);
        }
        self.lanes[lane].lock().await.link = None;
        Err(self.away(format!("no answer within {time:?}")))
    }

    async fn try_query(&self, lane: usize, command: &Cmd) -> RedisResult<Value> {
        let (link, generation) = self.link(lane).await?;
        let result = match link {
            Link::Single(mut connection) => command.query_async::<Value>(&mut connection).await,
            Link::Cluster(mut connection) => command.query_async::<Value>(&mut connection).await,
        };
        let result = result.and_then(Value::extract_error);
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
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None); // each call is bounded as a whole
        let link = match &self.target {
            Target::Single(client) => Link::Single(client.get_multiplexed_async_connection_with_config(&config).await?),
            Target::Cluster(client) => Link::Cluster(client.get_async_connection().await?),
            Target::Sentinel(client) => {
                let mut client = client.lock().await;
                Link::Single(client.get_async_connection_with_config(&config).await?)
            }
        };
        lane.generation += 1;
        lane.link = Some(link.clone());
        Ok((link, lane.generation))
    }

    fn away(&self, detail: String) -> StoreError {
        StoreError::Unreachable {
            address: self.address.clone(),
            detail,
        }
    }

    fn explain(&self, error: &RedisError) -> StoreError {
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

fn must_reconnect(error: &RedisError) -> bool {
    let moved = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    );
    moved || error.is_io_error() || error.is_unrecoverable_error() || error.is_connection_dropped()
}

/// Scheme, hosts and database; what stands before an `@` is a secret.
pub(super) fn without_secrets(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        _ => url.to_owned(),
    }
}

fn target(url: &str) -> Result<Target, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL; a store is redis://host:port")?;
    if scheme.starts_with("rediss") && cfg!(not(feature = "tls")) {
        return Err("this khala was built without TLS; build it with `--features tls`".to_owned());
    }
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words = |error: RedisError| error.to_string();
    match scheme {
        "redis" | "rediss" | "redis+unix" | "unix" => Client::open(url)
            .map(|client| Target::Single(Box::new(client)))
            .map_err(words),
        "redis+cluster" | "rediss+cluster" => {
            let nodes = each_host(scheme.trim_end_matches("+cluster"), rest)?;
            let builder = ClusterClient::builder(nodes).response_timeout(Duration::from_hours(1));
            builder
                .build()
                .map(|client| Target::Cluster(Box::new(client)))
                .map_err(words)
        }
        "redis+sentinel" | "rediss+sentinel" => sentinel(scheme, rest),
        other => Err(format!(
            "unknown scheme {other:?}; a store is redis://, rediss://, redis+cluster:// or redis+sentinel://host:port/master"
        )),
    }
}

/// `user:password@a:1,b:2` as one URL per host.
fn each_host(scheme: &str, rest: &str) -> Result<Vec<String>, String> {
    let (user, hosts) = rest.rsplit_once('@').map_or(("", rest), |(user, hosts)| (user, hosts));
    let user = if user.is_empty() {
        String::new()
    } else {
        format!("{user}@")
    };
    let hosts: Vec<_> = hosts
        .trim_end_matches('/')
        .split(',')
        .filter(|host| !host.is_empty())
        .collect();
    if hosts.is_empty() {
        return Err("no host; write redis+cluster://host:port,host:port".to_owned());
    }
    Ok(hosts
        .into_iter()
        .map(|host| format!("{scheme}://{user}{host}"))
        .collect())
}

fn sentinel(scheme: &str, rest: &str) -> Result<Target, String> {
    let must = "write redis+sentinel://host:port,host:port/master";
    let (hosts, path) = rest.split_once('/').ok_or(must)?;
    let (master, database) = path
        .split_once('/')
        .map_or((path, "0"), |(master, database)| (master, database));
    let database: i64 = database
        .parse()
        .map_err(|_| format!("database {database:?} is no number; {must}"))?;
    let words = |error: RedisError| error.to_string();
    let mut sentinels = Vec::new();
    let mut credentials = None;
    for url in each_host("redis", hosts)? {
        let info = url.as_str().into_connection_info().map_err(words)?;
        let settings = info.redis_settings();
        credentials = credentials.or_else(|| {
            let password = settings.password()?.to_owned();
            Some((settings.username().map(str::to_owned), password))
        });
        sentinels.push(ConnectionAddr::clone(info.addr()));
    }
    let mut builder = SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)
        .map_err(words)?
        .set_client_to_redis_db(database);
    if scheme.starts_with("rediss") {
        builder = builder.set_client_to_redis_tls_mode(redis::TlsMode::Secure);
    }
    if let Some((user, password)) = credentials {
        builder = builder.set_client_to_redis_password(password);
        if let Some(user) = user {
            builder = builder.set_client_to_redis_username(user);
        }
    }
    builder
        .build()
        .map(|client| Target::Sentinel(Box::new(Mutex::new(client))))
        .map_err(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(without_secrets("redis://ada:pa@ss@h:1/0"), "redis://***@h:1/0");
        assert_eq!(without_secrets("redis://h:1"), "redis://h:1");
    }

    #[test]
    fn a_bad_address_says_what_a_good_one_is() {
        for (url, word) in [
            ("h:1", "URL"),
            ("http://h:1", "scheme"),
            ("redis+sentinel://h:1", "master"),
        ] {
            let error = target(url).err().unwrap_or_default();
            assert!(error.contains(word), "{url}: {error}");
        }
        for url in [
            "redis://h:1",
            "redis+cluster://u:p@h:1,h:2",
            "redis+sentinel://h:1,h:2/mymaster/0",
        ] {
            assert_eq!(target(url).err(), None, "{url}");
        }
    }
}
