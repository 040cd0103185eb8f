//! What files tell: tokens' age, reports of gates and drills.

use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use serde_json::Value;

use super::super::drill::Fault;
use super::super::exit::Failure;
use super::super::gate::failed;
use super::super::gate::report::Check;
use crate::projector::now_ms;
use crate::pure::time::Time;

/// The first line of a file.
pub(super) fn line(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

pub(super) fn tokens(path: Option<&Path>, age_max: Duration) -> Result<Vec<Check>, Failure> {
    let Some(path) = path else {
        let wanted = "a token file, or --without tokens".to_owned();
        return Ok(vec![Check::equal("token file", "none".to_owned(), wanted)]);
    };
    let changed = std::fs::metadata(path).and_then(|file| file.modified());
    let changed = changed.map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let age = SystemTime::now().duration_since(changed).unwrap_or_default();
    Ok(vec![Check::at_most(
        "hours since the token file was changed",
        age.as_secs() / 3600,
        age_max.as_secs() / 3600,
    )])
}

struct Past {
    what: String,
    at_ms: i64,
    decision: String,
    khala: String,
}

fn past(path: &Path) -> Option<Past> {
    let text = std::fs::read_to_string(path).ok()?;
    let report: Value = serde_json::from_str(&text).ok()?;
    let word = |name: &str| report[name].as_str().map(str::to_owned);
    Some(Past {
        what: word("what")?,
        at_ms: Time::parse(&word("at")?)?.ms(),
        decision: word("decision")?,
        khala: word("khala")?,
    })
}

/// The newest report of the gate and of each drill.
pub(super) fn reports(dir: &Path, age_max: Duration) -> Result<Vec<Check>, Failure> {
    let files = std::fs::read_dir(dir).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let paths = paths.filter(|path| path.extension().is_some_and(|it| it == "json"));
    let all: Vec<Past> = paths.filter_map(|path| past(&path)).collect();
    let drills = Fault::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let drills = drills.map(|fault| format!("drill {}", fault.get_name()));
    let wanted = std::iter::once("gate".to_owned()).chain(drills);
    let checks = wanted.map(|what| {
        let newest = all
            .iter()
            .filter(|past| past.what == what)
            .max_by_key(|past| past.at_ms);
        let Some(past) = newest else {
            return Check::equal(format!("{what}: last report"), "none".to_owned(), "PASS".to_owned());
        };
        let age_ms = (now_ms() - past.at_ms).max(0) as u64;
        let (days, limit) = (age_ms / 86_400_000, age_max.as_secs() / 86_400);
        let found = match &*past.decision {
            "PASS" if age_ms > age_max.as_millis() as u64 => format!("PASS, {days} days ago (limit {limit})"),
            decision => decision.to_owned(),
        };
        Check::equal(
            format!("{what}: last report (version {})", past.khala),
            found,
            "PASS".to_owned(),
        )
    });
    Ok(checks.collect())
}
