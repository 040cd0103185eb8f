//! Scripts by hash. In: keys and arguments. Invariant: a script that the server does not know (restart, failover,
//! SCRIPT FLUSH) is loaded and called again; it has written nothing before.

use std::borrow::Cow;
use std::sync::LazyLock;

use redis::{Cmd, Script, Value};

use super::connect::Connections;
use crate::store::StoreError;

struct Text {
    text: &'static str,
    hash: String,
}

impl Text {
    fn new(text: &'static str) -> Self {
        let hash = Script::new(text).get_hash().to_owned();
        Self { text, hash }
    }
}

static AHEAD: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("ahead.lua")));
static COMMIT: LazyLock<Text> =
    LazyLock::new(|| Text::new(concat!(include_str!("guard.lua"), include_str!("commit.lua"))));
static EXPIRE: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("expire.lua")));
static HEAL: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("heal.lua")));
static LOAD: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("load.lua")));
static OPEN: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("open.lua")));
static PEEK: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("peek.lua")));
static RENEW: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("renew.lua")));
static RELEASE: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("release.lua")));
static SWAP: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("swap.lua")));
static WATCH: LazyLock<Text> =
    LazyLock::new(|| Text::new(concat!(include_str!("guard.lua"), include_str!("watch.lua"))));

/// One call of a script, being put together; documents and events are borrowed until they are sent.
pub(super) struct Call<'a> {
    script: &'static Text,
    keys: Vec<String>,
    arguments: Vec<Cow<'a, [u8]>>,
}

impl<'a> Call<'a> {
    fn new(script: &'static Text) -> Self {
        Self {
            script,
            keys: Vec::new(),
            arguments: Vec::new(),
        }
    }

    pub(super) fn ahead() -> Self {
        Self::new(&AHEAD)
    }

    pub(super) fn commit() -> Self {
        Self::new(&COMMIT)
    }

    pub(super) fn expire() -> Self {
        Self::new(&EXPIRE)
    }

    pub(super) fn heal() -> Self {
        Self::new(&HEAL)
    }

    pub(super) fn load() -> Self {
        Self::new(&LOAD)
    }

    pub(super) fn peek() -> Self {
        Self::new(&PEEK)
    }

    pub(super) fn open() -> Self {
        Self::new(&OPEN)
    }

    pub(super) fn renew() -> Self {
        Self::new(&RENEW)
    }

    pub(super) fn release() -> Self {
        Self::new(&RELEASE)
    }

    pub(super) fn swap() -> Self {
        Self::new(&SWAP)
    }

    pub(super) fn watch() -> Self {
        Self::new(&WATCH)
    }

    pub(super) fn key(&mut self, key: String) {
        self.keys.push(key);
    }

    pub(super) fn argument(&mut self, text: impl Into<String>) {
        self.arguments.push(Cow::Owned(text.into().into_bytes()));
    }

    pub(super) fn bytes(&mut self, bytes: &'a [u8]) {
        self.arguments.push(Cow::Borrowed(bytes));
    }

    /// The command that calls the script.
    pub(super) fn command(&self) -> Cmd {
        let bytes = self.keys.iter().map(String::len).sum::<usize>();
        let bytes = bytes + self.arguments.iter().map(|argument| argument.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(self.keys.len() + self.arguments.len() + 3, bytes + 64);
        command.arg("EVALSHA").arg(&self.script.hash).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for argument in &self.arguments {
            command.arg(argument.as_ref());
        }
        command
    }

    /// The command that makes the script known.
    pub(super) fn load_script(&self) -> Cmd {
        let mut load = Cmd::new();
        load.arg("SCRIPT").arg("LOAD").arg(self.script.text);
        load
    }

    /// Calls the script.
    pub(super) async fn send(self, connections: &Connections, lane: usize) -> Result<Value, StoreError> {
        let command = self.command();
        if let Some(value) = connections.query_script(lane, &command).await? {
            return Ok(value);
        }
        connections.query(lane, &self.load_script()).await?;
        connections.query(lane, &command).await
    }
}
