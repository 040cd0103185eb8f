//! The network between Khala and a server: slow, cut in the middle of whatever is under way, or leading elsewhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guarded::free_port;

/// What happens to those who connect. Threads end with their connections, the last with the test process.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    target: Mutex<String>,
    open: Mutex<Vec<TcpStream>>,
    /// Milliseconds that each piece waits, each way.
    delay_ms: AtomicU64,
    /// Bytes after which a connection is cut, whichever way they went; 0: never.
    cut_after: AtomicU64,
    cuts: AtomicU64,
}

impl Proxy {
    /// Leads to `host:port`.
    pub fn to(target: &str) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let shared = Arc::new(Shared {
            target: Mutex::new(target.to_owned()),
            ..Shared::default()
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.join(client);
            }
        });
        Self { port, shared }
    }

    /// `host:port` to connect to.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it leads.
    pub fn target(&self) -> String {
        self.shared.target.lock().expect("not poisoned").clone()
    }

    /// Leads elsewhere from now on; those who are connected are cut.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.shared.target.lock().expect("not poisoned"));
        self.cut();
    }

    /// Each piece waits so long, each way; zero: no more.
    pub fn delay(&self, time: Duration) {
        self.shared.delay_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Each connection is cut once about so many bytes went through it; 0: no more.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::Relaxed);
    }

    /// How many connections were cut for their bytes.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().expect("not poisoned").drain(..) {
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream) {
        let target = self.target.lock().expect("not poisoned").clone();
        let Ok(server) = TcpStream::connect(target) else {
            return; // as if nobody listened
        };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a handle more");
        self.open
            .lock()
            .expect("not poisoned")
            .extend([copy(&client), copy(&server)]);
        let passed = Arc::new(AtomicU64::new(0));
        for (from, to) in [(copy(&client), copy(&server)), (server, client)] {
            let (shared, passed) = (Arc::clone(self), Arc::clone(&passed));
            std::thread::spawn(move || shared.pass(from, to, &passed));
        }
    }

    /// Until one of them ends, or is cut in the middle of a piece.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, passed: &AtomicU64) {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            std::thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::Relaxed)));
            let limit = self.cut_after.load(Ordering::Relaxed);
            let before = passed.fetch_add(read as u64, Ordering::Relaxed);
            let is_cut = limit > 0 && before + read as u64 > limit;
            let told = if is_cut { read / 2 } else { read };
            if to.write_all(&piece[..told]).is_err() || is_cut {
                self.cuts.fetch_add(u64::from(is_cut), Ordering::Relaxed);
                break;
            }
        }
        _ = from.shutdown(Shutdown::Both);
        _ = to.shutdown(Shutdown::Both);
    }
}
