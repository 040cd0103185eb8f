//! A store that can be taken away and given back. Before a Redis at one address stands a relay whose connections are
//! cut and refused; before any other store (embedded, TLS, several nodes) a layer that refuses every write.
//! Invariant: only what is served goes through here; what the gate itself reads does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::exit::Failure;
use super::failed;
use super::valve::Valve;
use crate::access::{Access, open_store};
use crate::config::{Settings, StoreTarget};
use crate::store::Store;

/// What the served store's calls ask before they go on.
#[derive(Default)]
pub(in crate::cli) struct Gatekeeper {
    pub is_cut: AtomicBool,
    /// Whether writes are refused here; else the relay cuts them.
    pub refuses: AtomicBool,
    /// Commits that failed while it was cut.
    pub failed_commits: AtomicU64,
    /// The most records of one commit: when it was sent, so many were not in the documents yet.
    pub behind: AtomicU64,
}

pub(in crate::cli) struct Sink {
    keeper: Arc<Gatekeeper>,
    relay: Option<Relay>,
}

impl Sink {
    /// The store to serve with, and its switch.
    pub(in crate::cli) async fn before(access: &Access) -> Result<(Arc<dyn Store>, Self), Failure> {
        let keeper = Arc::<Gatekeeper>::default();
        let (inner, relay) = match relayed(&access.settings).await? {
            Some((relay, settings)) => (open_store(&settings)?, Some(relay)),
            None => (Arc::clone(&access.store), None),
        };
        keeper.refuses.store(relay.is_none(), Ordering::SeqCst);
        let store = Valve::new(inner, Arc::clone(&keeper));
        Ok((Arc::new(store), Self { keeper, relay }))
    }

    /// How the store is taken away, for the report.
    pub(in crate::cli) fn means(&self) -> &'static str {
        match self.relay {
            Some(_) => "connections to Redis cut and refused",
            None => "every write refused before the store",
        }
    }

    pub(in crate::cli) fn cut(&self) {
        self.keeper.failed_commits.store(0, Ordering::SeqCst);
        self.keeper.is_cut.store(true, Ordering::SeqCst);
        if let Some(relay) = &self.relay {
            relay.cut();
        }
    }

    pub(in crate::cli) fn mend(&self) {
        self.keeper.is_cut.store(false, Ordering::SeqCst);
        if let Some(relay) = &self.relay {
            relay.mend();
        }
    }

    pub(in crate::cli) fn keeper(&self) -> &Arc<Gatekeeper> {
        &self.keeper
    }

    /// Commits that were tried and failed since it was cut last.
    pub(in crate::cli) fn failed_commits(&self) -> u64 {
        self.keeper.failed_commits.load(Ordering::SeqCst)
    }
}

/// A relay to the Redis of these settings, and the settings that lead through it; `None` where one address is not all.
async fn relayed(settings: &Settings) -> Result<Option<(Relay, Settings)>, Failure> {
    let StoreTarget::Redis(url) = &settings.store else {
        return Ok(None);
    };
    let Some((before, address, behind)) = parts(url) else {
        return Ok(None);
    };
    let relay = Relay::to(address).await?;
    let settings = Settings {
        store: StoreTarget::Redis(format!("{before}{}{behind}", relay.address)),
        ..settings.clone()
    };
    Ok(Some((relay, settings)))
}

/// A plain Redis URL around its `host:port`; `None` for TLS (whose certificate names the host) and for several nodes.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let rest = url.strip_prefix("redis://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let start = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let address = &rest[start..end];
    let scheme = url.len() - rest.len();
    let is_one = !address.contains(',')
        && address
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    is_one.then(|| (&url[..scheme + start], address, &rest[end..]))
}

/// Passes connections on to one address, until it is cut.
struct Relay {
    address: String,
    /// Cancelled: all that is open breaks.
    way: watch::Sender<Option<CancellationToken>>,
    _task: JoinSet<()>,
}

impl Relay {
    async fn to(address: &str) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let near = listener.local_addr().map_err(failed)?.to_string();
        let (way, open) = watch::channel(Some(CancellationToken::new()));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, address.to_owned(), open));
        Ok(Self {
            address: near,
            way,
            _task: task,
        })
    }

    fn cut(&self) {
        if let Some(open) = self.way.send_replace(None) {
            open.cancel();
        }
    }

    fn mend(&self) {
        // Not anew: connections that are open would be cut no more.
        self.way.send_if_modified(|way| {
            let was_cut = way.is_none();
            way.get_or_insert_with(CancellationToken::new);
            was_cut
        });
    }
}

async fn accept(listener: TcpListener, far: String, way: watch::Receiver<Option<CancellationToken>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let Some(broken) = way.borrow().clone() else {
                    continue; // dropped: refused
                };
                let _ = near.set_nodelay(true);
                connections.spawn(pass(near, far.clone(), broken));
            }
        }
    }
}

async fn pass(mut near: TcpStream, far: String, broken: CancellationToken) {
    let passing = async {
        let mut far = TcpStream::connect(far).await?;
        far.set_nodelay(true)?;
        copy_bidirectional(&mut near, &mut far).await
    };
    tokio::select! {
        () = broken.cancelled() => {}
        _ = passing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn a_redis_url_is_taken_apart_around_its_one_address() {
        let url = "redis://me:p%40ss@10.0.0.1:6379/2?protocol=resp3";
        assert_eq!(
            parts(url),
            Some(("redis://me:p%40ss@", "10.0.0.1:6379", "/2?protocol=resp3"))
        );
        assert_eq!(parts("redis://localhost:1"), Some(("redis://", "localhost:1", "")));
        for other in [
            "rediss://a:1",
            "redis+cluster://a:1,b:1",
            "redis://a:1,b:2",
            "redis://a",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
