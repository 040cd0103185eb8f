//! What an event means: its type, with the fields of `data` that its type reads.
//! Invariant: a field that is read has its type or is null; what is not read is not looked at.

use std::borrow::Cow;

use super::attributes::Data;
use super::json::{self, Text, Value};
use super::{Reason, Rejection};
use crate::pure::canonical;
use crate::pure::entity::Kind;

/// The largest `metadata` of a worker, as canonical JSON.
const METADATA_BYTES_MAX: usize = 4096;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Succeeded,
    /// Not as it should.
    Failed,
    /// Because somebody asked for it.
    Canceled,
}

/// What an event means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// `run.created` and `run.started`: whose run it is.
    RunBegan {
        /// `run.started`, not `run.created`.
        started: bool,
        /// As in `data`.
        thread_id: Option<Cow<'a, str>>,
        /// As in `data`.
        owner_user_id: Option<Cow<'a, str>>,
        /// As in `data`.
        owner_guest_scope: Option<Cow<'a, str>>,
    },
    /// `run.cancel_requested`.
    RunCancelRequested,
    /// `run.executor_lost`.
    RunExecutorLost,
    /// `run.finished`.
    RunFinished {
        /// `status`.
        outcome: Outcome,
        /// As in `data`.
        reason_class: Option<Cow<'a, str>>,
        /// As in `data`.
        reason: Option<Cow<'a, str>>,
    },
    /// `worker.started`.
    WorkerStarted {
        /// As in `data`.
        workspace_ref: Option<Cow<'a, str>>,
        /// As in `data`.
        adapter: Option<Cow<'a, str>>,
        /// As canonical JSON.
        metadata: Option<String>,
    },
    /// `worker.heartbeat`.
    WorkerHeartbeat,
    /// `worker.error`.
    WorkerError {
        /// The worker will not go on.
        fatal: bool,
    },
    /// `worker.stopped`.
    WorkerStopped,
    /// Any other legal type.
    Other,
}

/// Reads the fields that the type asks for.
pub(super) fn read<'a>(kind: Kind, type_name: &str, data: &Data<'a>) -> Result<What<'a>, Rejection> {
    let object = match data {
        Data::Absent => None,
        Data::Object(text) => Some(*text),
        Data::Other(kind) => return Err(wrong(format!("data is {kind}: must be an object"))),
    };
    Ok(match (kind, type_name) {
        (Kind::Run, "run.created" | "run.started") => {
            let [thread_id, owner_user_id, owner_guest_scope] =
                fields(object, ["thread_id", "owner_user_id", "owner_guest_scope"])?;
            What::RunBegan {
                started: type_name == "run.started",
                thread_id: string("thread_id", thread_id)?,
                owner_user_id: string("owner_user_id", owner_user_id)?,
                owner_guest_scope: string("owner_guest_scope", owner_guest_scope)?,
            }
        }
        (Kind::Run, "run.cancel_requested") => What::RunCancelRequested,
        (Kind::Run, "run.executor_lost") => What::RunExecutorLost,
        (Kind::Run, "run.finished") => finished(object)?,
        (Kind::Worker, "worker.started") => started(object)?,
        (Kind::Worker, "worker.heartbeat") => What::WorkerHeartbeat,
        (Kind::Worker, "worker.error") => match fields(object, ["fatal"])? {
            [None | Some(Value::Null)] => What::WorkerError { fatal: false },
            [Some(Value::Bool(fatal))] => What::WorkerError { fatal },
            [Some(other)] => return Err(wrong(format!("data.fatal is {}: must be a boolean", other.kind()))),
        },
        (Kind::Worker, "worker.stopped") => What::WorkerStopped,
        _ => What::Other,
    })
}

fn finished(object: Option<&str>) -> Result<What<'_>, Rejection> {
    let [status, reason_class, reason] = fields(object, ["status", "reason_class", "reason"])?;
    let status = string("status", status)?;
    let outcome = match status.as_deref() {
        Some("succeeded") => Outcome::Succeeded,
        Some("failed") => Outcome::Failed,
        Some("canceled") => Outcome::Canceled,
        Some(other) => {
            return Err(wrong(format!(
                "data.status {other:?}: must be succeeded, failed or canceled"
            )));
        }
        None => {
            return Err(wrong(
                "data.status is missing: must be succeeded, failed or canceled".to_owned(),
            ));
        }
    };
    Ok(What::RunFinished {
        outcome,
        reason_class: string("reason_class", reason_class)?,
        reason: string("reason", reason)?,
    })
}

fn started(object: Option<&str>) -> Result<What<'_>, Rejection> {
    let [workspace_ref, adapter, metadata] = fields(object, ["workspace_ref", "adapter", "metadata"])?;
    let metadata = match metadata {
        None | Some(Value::Null) => None,
        Some(Value::Object(text)) => {
            let canonical = canonical::canonical(text.as_bytes());
            let canonical =
                canonical.ok_or_else(|| wrong("data.metadata has no canonical form (RFC 8785)".to_owned()))?;
            if canonical.len() > METADATA_BYTES_MAX {
                let bytes = canonical.len();
                return Err(wrong(format!(
                    "data.metadata of {bytes} bytes: at most {METADATA_BYTES_MAX}"
                )));
            }
            Some(canonical)
        }
        Some(other) => return Err(wrong(format!("data.metadata is {}: must be an object", other.kind()))),
    };
    Ok(What::WorkerStarted {
        workspace_ref: string("workspace_ref", workspace_ref)?,
        adapter: string("adapter", adapter)?,
        metadata,
    })
}

/// The values of some members; the last of equal names wins.
fn fields<'a, const N: usize>(object: Option<&'a str>, names: [&str; N]) -> Result<[Option<Value<'a>>; N], Rejection> {
    let mut values = [None; N];
    let Some(object) = object else { return Ok(values) };
    let read = json::read_object(object, |name: Text<'a>, value| {
        if let Some(i) = names.iter().position(|wanted| name.is(wanted)) {
            values[i] = Some(value);
        }
    });
    read.map_err(|at| wrong(format!("data, byte {}: {}", at.at, at.what)))?;
    Ok(values)
}

fn string<'a>(name: &str, value: Option<Value<'a>>) -> Result<Option<Cow<'a, str>>, Rejection> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(text.read()),
        Some(other) => Err(wrong(format!("data.{name} is {}: must be a string", other.kind()))),
    }
}

fn wrong(detail: String) -> Rejection {
    Rejection::new(Reason::BadData, detail)
}
