//! `khala topics apply`.

use serde_json::json;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::AccessError;

pub(super) async fn apply(context: &Context) -> Result<Exit, Failure> {
    let lines = match Door::open(context)? {
        Door::Direct(access) => access
            .log
            .prepare()
            .await
            .map_err(AccessError::from)
            .map_err(|error| Failure {
                exit: super::door::setup_exit(&error),
                ..Failure::from(error)
            })?,
        Door::Remote(_) => vec!["the running server has made and checked them".to_owned()],
    };
    if context.out.json {
        context
            .out
            .value(&json!({"topic": context.settings.topic, "done": lines}));
    } else if lines.is_empty() {
        context.out.line("the topics are as they should be");
    } else {
        lines.iter().for_each(|line| context.out.line(line));
    }
    Ok(Exit::Done)
}
