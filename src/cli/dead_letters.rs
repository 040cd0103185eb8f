//! `khala dead-letters list|show`.

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::pure::time::Time;

pub(super) async fn list(reason: Option<&str>, limit: usize, context: &Context) -> Result<Exit, Failure> {
    let letters = Door::open_existing(context)?.dead_letters(reason, limit).await?;
    let out = context.out;
    if out.json {
        letters.iter().for_each(|letter| out.value(letter));
        return Ok(Exit::Done);
    }
    let time = |ms: i64| Time::from_ms(ms).map_or_else(|| "-".to_owned(), |time| time.to_string());
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            vec![
                letter.partition.to_string(),
                letter.offset.to_string(),
                time(letter.timestamp_ms),
                letter.reason.clone(),
                letter.source.clone(),
                letter.key.clone().unwrap_or_else(|| "-".to_owned()),
                letter.detail.clone(),
            ]
        })
        .collect();
    out.table(
        &["partition", "offset", "when", "reason", "from", "key", "detail"],
        &rows,
    );
    Ok(Exit::Done)
}

pub(super) async fn show(partition: u32, offset: u64, context: &Context) -> Result<Exit, Failure> {
    let letter = Door::open_existing(context)?.dead_letter(partition, offset).await?;
    if context.out.json {
        context.out.value(&letter);
    } else {
        context
            .out
            .line(serde_json::to_string_pretty(&letter).unwrap_or_default());
    }
    Ok(Exit::Done)
}
