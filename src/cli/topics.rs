//! `khala topics apply` and `khala topics migrate`.

use serde_json::json;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::{AccessError, migrate as copy, open_log};
use crate::config::LogTarget;

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

pub(super) async fn migrate(to: &str, context: &Context) -> Result<Exit, Failure> {
    let settings = &context.settings;
    if matches!(settings.log, LogTarget::Embedded(_)) {
        return Err(
            Failure::usage("only topics in Kafka are migrated: more partitions are for more processes")
                .hint("--log kafka://host:port names it"),
        );
    }
    if to == settings.topic {
        return Err(Failure::usage(format!("--to {to} is the topic itself")).hint("name a new topic"));
    }
    let mut target = (**settings).clone();
    to.clone_into(&mut target.topic);
    let setup = |error: AccessError| Failure {
        exit: super::door::setup_exit(&error),
        ..Failure::from(error)
    };
    let (from, into) = (open_log(settings).map_err(setup)?, open_log(&target).map_err(setup)?);
    let old = from.topic().await.map_err(AccessError::from).map_err(setup)?;
    if settings.partitions <= old.partitions {
        let (name, there) = (&old.name, old.partitions);
        return Err(
            Failure::usage(format!("topic {name} has {there} partitions already")).hint(format!(
                "--partitions N, more than {there}, says how many {to} shall have"
            )),
        );
    }
    into.prepare().await.map_err(AccessError::from).map_err(setup)?;
    let bar = context.out.progress(None, "records copied");
    let done = copy(&*from, &*into, settings.partitioner, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let done = done?;
    if context.out.json {
        context.out.value(&done);
    } else {
        context.out.line(format!(
            "{} records of {} are in {} ({} partitions), {} of them from before",
            done.copied + done.there_before,
            done.from,
            done.to,
            done.partitions,
            done.there_before
        ));
    }
    Ok(Exit::Done)
}
