//! `khala key run|worker ID`: where Redis has the document.

use serde_json::json;

use super::Context;
use super::args::EntityKind;
use super::documents::entity;
use super::exit::{Exit, Failure};
use crate::config::Origin;
use crate::store::redis::document_key;

pub(super) async fn run(kind: EntityKind, id: &str, context: &Context) -> Result<Exit, Failure> {
    let entity = entity(kind, id)?;
    let settings = &context.settings;
    // A number that was given spares the question.
    let partitions = if *context.loaded.origin("partitions") == Origin::Default {
        match super::door::Door::open_existing(context)? {
            super::door::Door::Direct(access) => access.partitions().await?.len() as u32,
            super::door::Door::Remote(remote) => remote.status().await?.partitions.len() as u32,
        }
    } else {
        settings.partitions
    };
    let partition = settings.partitioner.place(entity.subject().as_bytes(), partitions);
    let key = document_key(&settings.namespace, partition, &entity);
    if context.out.json {
        context
            .out
            .value(&json!({"key": key, "partition": partition.0, "partitions": partitions}));
    } else {
        context.out.line(key);
    }
    Ok(Exit::Done)
}
