//! `khala config check`: the settings in force, and with `--connect` whether log and store can be used.

use serde_json::json;

use super::Context;
use super::door::{Door, setup_exit};
use super::exit::{Exit, Failure};
use crate::access::AccessError;
use crate::config::read_tokens;
use crate::log::kafka::check_properties;

pub(super) async fn check(connect: bool, context: &Context) -> Result<Exit, Failure> {
    if let Some(path) = &context.settings.token_file {
        read_tokens(path).map_err(Failure::usage)?;
    }
    check_properties(&context.settings.kafka).map_err(|error| Failure::usage(error.to_string()))?;
    let rows = context.loaded.rows();
    let lines = if connect { try_out(context).await? } else { Vec::new() };
    let out = context.out;
    if out.json {
        let settings: Vec<_> = rows
            .iter()
            .map(|row| json!({"key": row.key, "value": row.value, "origin": row.origin}))
            .collect();
        out.value(&json!({"settings": settings, "connected": connect, "notes": lines}));
        return Ok(Exit::Done);
    }
    let cells: Vec<_> = rows
        .into_iter()
        .map(|row| vec![row.key, row.value, row.origin])
        .collect();
    out.table(&["setting", "value", "from"], &cells);
    for line in lines {
        out.line(line);
    }
    Ok(Exit::Done)
}

/// Asks log and store; what is wrong with them ends the command.
async fn try_out(context: &Context) -> Result<Vec<String>, Failure> {
    let failed = |error: AccessError| Failure {
        exit: setup_exit(&error),
        ..Failure::from(error)
    };
    let access = match Door::open(context)? {
        Door::Direct(access) => access,
        Door::Remote(remote) => {
            remote.status().await?;
            return Ok(vec!["a running server owns the directory, and answers".to_owned()]);
        }
    };
    let mut lines = Vec::new();
    match access.log.topic().await {
        Ok(topic) => lines.push(format!("log: topic {} has {} partitions", topic.name, topic.partitions)),
        Err(error) => return Err(failed(error.into())),
    }
    let warnings = access.store.check().await.map_err(AccessError::from).map_err(failed)?;
    lines.push("store: usable".to_owned());
    lines.extend(warnings);
    Ok(lines)
}
