//! `khala snapshot` and `khala restore`.

use std::path::Path;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::Access;
use crate::repair::snapshot::Source;

/// A running server owns the embedded directory, and writes into no file for others.
fn direct(context: &Context) -> Result<Access, Failure> {
    match Door::open_existing(context)? {
        Door::Direct(access) => Ok(access),
        Door::Remote(_) => Err(Failure::usage("a running server owns the directory")
            .hint("stop it first; the embedded log keeps all events")),
    }
}

pub(super) async fn snapshot(file: Option<&Path>, context: &Context) -> Result<Exit, Failure> {
    let access = direct(context)?;
    let rows = match file {
        Some(path) => access.snapshot_file(path).await?,
        None => access.snapshot().await?,
    };
    let out = context.out;
    if out.json {
        rows.iter().for_each(|row| out.value(row));
        return Ok(Exit::Done);
    }
    let cells = |row: &crate::access::SnapshotRow| {
        let offset = row.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        vec![row.partition.to_string(), row.documents.to_string(), offset]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    out.table(&["partition", "documents", "as of"], &rows);
    Ok(Exit::Done)
}

pub(super) async fn restore(file: Option<&Path>, context: &Context) -> Result<Exit, Failure> {
    let source = file.map_or(Source::Topic, |path| Source::File(path.to_owned()));
    let rows = direct(context)?.restore(&source).await?;
    let out = context.out;
    let (none, parked) = (
        rows.iter().all(|row| row.offset.is_none()),
        rows.iter().map(|row| row.parked.len()).sum::<usize>(),
    );
    if out.json {
        rows.iter().for_each(|row| out.value(row));
    } else {
        let cells = |row: &crate::access::RestoredRow| {
            let offset = row.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            let [documents, records] = [row.documents, row.records].map(|number| number.to_string());
            vec![
                row.partition.to_string(),
                documents,
                records,
                offset,
                row.parked.join(" "),
            ]
        };
        let rows: Vec<_> = rows.iter().map(cells).collect();
        out.table(&["partition", "documents", "records", "redo from", "parked"], &rows);
    }
    if none {
        return Err(Failure::new(
            Exit::NotFound,
            "there is no snapshot that this log vouches for; nothing was changed",
        ));
    }
    if parked > 0 {
        out.note(format!("{parked} entities wait for a repair: `khala audit --repair`"));
    }
    Ok(Exit::Done)
}
