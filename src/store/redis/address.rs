//! Addresses of Redis. In: a URL. Out: a client for it, by its scheme, or what is wrong with it.

use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisError};
use tokio::sync::Mutex;

pub(super) enum Target {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<Mutex<SentinelClient>>),
}

/// Scheme, hosts and database; what stands before an `@` is a secret.
pub(super) fn without_secrets(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        _ => url.to_owned(),
    }
}

pub(super) fn target(url: &str) -> Result<Target, String> {
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
