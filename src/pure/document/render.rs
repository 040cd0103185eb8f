//! A document as canonical JSON, hashed in the same pass.
//! Out: keys sorted, no white space (RFC 8785); `summary_hash` is SHA-256 over the text without itself and
//! without `projected_at`.

use sha2::{Digest as _, Sha256};

use super::{Body, Document, Span};
use crate::pure::accept::Source;
use crate::pure::canonical::{compare_keys, write_number, write_string};
use crate::pure::checkpoint::PROJECTION_VERSION;
use crate::pure::place::Offset;
use crate::pure::run::Run;
use crate::pure::time::Time;
use crate::pure::worker::Worker;

/// The version of the state's layout.
pub(super) const STATE_VERSION: u8 = 1;

/// Writes members of one object, in the order given.
struct Members<'a> {
    out: &'a mut Vec<u8>,
}

impl Members<'_> {
    fn key(&mut self, key: &str) {
        let opening = self.out.last() == Some(&b'{');
        if !opening {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        write_number(number, self.out);
    }

    fn text(&mut self, key: &str, text: Option<&str>) {
        self.key(key);
        match text {
            Some(text) => write_string(text, self.out),
            None => self.out.extend_from_slice(b"null"),
        }
    }

    fn time(&mut self, key: &str, time: Option<Time>) {
        self.key(key);
        match time {
            Some(time) => {
                self.out.push(b'"');
                time.write(self.out);
                self.out.push(b'"');
            }
            None => self.out.extend_from_slice(b"null"),
        }
    }

    fn json(&mut self, key: &str, json: Option<&str>) {
        self.key(key);
        self.out.extend_from_slice(json.unwrap_or("null").as_bytes());
    }
}

/// The places that are not hashed.
struct Holes {
    projected_at: std::ops::Range<usize>,
    summary_hash: std::ops::Range<usize>,
}

impl Document {
    /// Appends the document as it is stored, written at `projected_at`; returns the first 16 bytes of its hash,
    /// big endian, never 0.
    pub fn render(&self, projected_at: Time, out: &mut Vec<u8>) -> u128 {
        let start = out.len();
        let holes = self.write(projected_at, out);
        let mut hasher = Sha256::new();
        hasher.update(&out[start..holes.projected_at.start]);
        hasher.update(&out[holes.projected_at.end..holes.summary_hash.start]);
        hasher.update(&out[holes.summary_hash.end..]);
        let hash = hasher.finalize();
        // The value ends with its closing quote; the 64 hex digits stand before it.
        let digits = holes.summary_hash.end - 65..holes.summary_hash.end - 1;
        for (pair, byte) in out[digits].chunks_exact_mut(2).zip(hash) {
            pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
        }
        hash.iter()
            .take(16)
            .fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte))
            .max(1)
    }

    fn write(&self, projected_at: Time, out: &mut Vec<u8>) -> Holes {
        out.push(b'{');
        let mut members = Members { out };
        match &self.body {
            Body::Run(run) => self.write_run(run, projected_at, &mut members),
            Body::Worker(worker) => self.write_worker(worker, projected_at, &mut members),
        }
    }

    fn write_run(&self, run: &Run, projected_at: Time, to: &mut Members<'_>) -> Holes {
        self.write_document_id(to);
        to.number("event_count", self.seq());
        to.number("executor_lost_count", run.executor_lost_count);
        to.text("kind", Some(self.entity.kind().document()));
        to.number("late_event_count", run.late_event_count);
        self.write_latest(to);
        to.text("owner_guest_scope", run.owner_guest_scope.as_deref());
        to.text("owner_user_id", run.owner_user_id.as_deref());
        let projected_at = write_projected_at(projected_at, to);
        to.number("projection_version", u64::from(PROJECTION_VERSION));
        to.text("run_id", Some(self.entity.id()));
        self.write_runtime_source(to);
        to.time("started_at", run.started_at);
        to.text("status", Some(run.status.name()));
        let summary_hash = write_hash_hole(to);
        to.time("terminal_at", run.terminal_at);
        to.text("terminal_reason", run.terminal_reason.as_deref());
        to.text("terminal_reason_class", run.terminal_reason_class.as_deref());
        to.text("thread_id", run.thread_id.as_deref());
        to.time("updated_at", self.updated_at);
        to.out.push(b'}');
        Holes {
            projected_at,
            summary_hash,
        }
    }

    fn write_worker(&self, worker: &Worker, projected_at: Time, to: &mut Members<'_>) -> Holes {
        to.text("adapter", worker.adapter.as_deref());
        self.write_document_id(to);
        to.number("error_count", worker.error_count);
        to.number("event_count", self.seq());
        to.text("kind", Some(self.entity.kind().document()));
        to.time("last_heartbeat_at", worker.last_heartbeat_at);
        self.write_latest_with_metadata(worker, to);
        to.text("owner_guest_scope", None);
        to.text("owner_user_id", None);
        let projected_at = write_projected_at(projected_at, to);
        to.number("projection_version", u64::from(PROJECTION_VERSION));
        to.number("restart_count", worker.restart_count);
        self.write_runtime_source(to);
        to.time("started_at", worker.started_at);
        to.text("status", Some(worker.status.name()));
        to.time("stopped_at", worker.stopped_at);
        let summary_hash = write_hash_hole(to);
        to.time("updated_at", self.updated_at);
        to.text("worker_id", Some(self.entity.id()));
        to.text("workspace_ref", worker.workspace_ref.as_deref());
        to.out.push(b'}');
        Holes {
            projected_at,
            summary_hash,
        }
    }

    /// Ids have nothing that JSON escapes.
    fn write_document_id(&self, to: &mut Members<'_>) {
        to.key("document_id");
        to.out.push(b'"');
        to.out.extend_from_slice(self.entity.kind().document().as_bytes());
        to.out.push(b':');
        to.out.extend_from_slice(self.entity.id().as_bytes());
        to.out.push(b'"');
    }

    fn write_latest(&self, to: &mut Members<'_>) {
        self.write_latest_event(to);
        to.number("missing_events", self.accepted.missing_events());
    }

    fn write_latest_with_metadata(&self, worker: &Worker, to: &mut Members<'_>) {
        self.write_latest_event(to);
        to.json("metadata", worker.metadata.as_deref());
        to.number("missing_events", self.accepted.missing_events());
    }

    fn write_latest_event(&self, to: &mut Members<'_>) {
        to.time("latest_event_at", self.latest_event_at);
        to.text(
            "latest_event_type",
            Some(&self.latest_event_type)
                .filter(|name| !name.is_empty())
                .map(String::as_str),
        );
        to.number("latest_seq", self.seq());
    }

    fn write_runtime_source(&self, to: &mut Members<'_>) {
        let nothing = Span {
            first_offset: Offset(0),
            offset: Offset(0),
            seq: 0,
        };
        let span = self.span.unwrap_or(nothing);
        to.key("runtime_source");
        to.out.push(b'{');
        to.text("entity", Some(self.entity.subject()));
        to.number("first_offset", span.first_offset.0);
        to.number("offset", span.offset.0);
        to.number("partition", u64::from(self.partition.0));
        to.number("seq", span.seq);
        to.key("sources");
        to.out.push(b'{');
        for source in self.sorted_sources() {
            write_source(source, to);
        }
        to.out.extend_from_slice(b"}}");
    }

    fn sorted_sources(&self) -> Vec<&Source> {
        let mut sources: Vec<_> = self.accepted.sources().iter().collect();
        sources.sort_by(|a, b| compare_keys(&a.name, &b.name));
        sources
    }

    /// Appends the state that is not in the document, if there is any: the order of sources and the recent ids.
    /// Layout: version, offset (8 bytes), number of sources, each source's place among the sorted ones from the
    /// least to the most recently accepted, number of recent hashes, each 16 bytes; big endian.
    pub fn write_state(&self, out: &mut Vec<u8>) -> bool {
        let sources = self.accepted.sources();
        if sources.len() < 2 && self.accepted.recent().is_empty() {
            return false;
        }
        let sorted = self.sorted_sources();
        out.push(STATE_VERSION);
        out.extend_from_slice(&self.offset().unwrap_or(Offset(0)).0.to_be_bytes());
        out.push(sources.len() as u8);
        for source in sources {
            let place = sorted.iter().position(|sorted| sorted.name == source.name).unwrap_or(0);
            out.push(place as u8);
        }
        out.push(self.accepted.recent().len() as u8);
        for hash in self.accepted.recent() {
            out.extend_from_slice(&hash.to_be_bytes());
        }
        true
    }
}

fn write_source(source: &Source, to: &mut Members<'_>) {
    if to.out.last() != Some(&b'{') {
        to.out.push(b',');
    }
    write_string(&source.name, to.out);
    to.out.extend_from_slice(b":{");
    to.number("forgotten", source.forgotten);
    to.number("max", source.max);
    to.key("missing");
    to.out.push(b'[');
    for (i, (first, last)) in source.missing.iter().enumerate() {
        to.out.extend_from_slice(if i > 0 { b",[" } else { b"[" });
        write_number(*first, to.out);
        to.out.push(b',');
        write_number(*last, to.out);
        to.out.push(b']');
    }
    to.out.extend_from_slice(b"]}");
}

fn write_projected_at(projected_at: Time, to: &mut Members<'_>) -> std::ops::Range<usize> {
    let start = to.out.len();
    to.time("projected_at", Some(projected_at));
    start..to.out.len()
}

fn write_hash_hole(to: &mut Members<'_>) -> std::ops::Range<usize> {
    let start = to.out.len();
    to.key("summary_hash");
    to.out.extend_from_slice(b"\"sha256:");
    to.out.extend_from_slice(&[b'0'; 64]);
    to.out.push(b'"');
    start..to.out.len()
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}
