//! What a gate or a drill found: each scenario with its evidence, what was wanted, and the decision.
//! Out: a table, one JSON value, a page of Markdown. Invariant: PASS only if every check of every scenario holds.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::super::bench::usage;
use super::super::exit::{Exit, Failure};
use super::super::out::Out;
use super::failed;
use crate::config::Settings;
use crate::projector::now_ms;
use crate::pure::time::Time;

/// One thing that was measured, and what it must be.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Check {
    what: String,
    found: String,
    /// Empty: evidence alone.
    wanted: String,
    holds: bool,
}

#[expect(clippy::needless_pass_by_value, reason = "what was found is made on the spot")]
impl Check {
    /// Evidence without a threshold.
    pub(in crate::cli) fn told(what: impl Into<String>, found: impl ToString) -> Self {
        Self {
            what: what.into(),
            found: found.to_string(),
            wanted: String::new(),
            holds: true,
        }
    }

    pub(in crate::cli) fn equal<T: PartialEq + ToString>(what: impl Into<String>, found: T, wanted: T) -> Self {
        Self {
            what: what.into(),
            found: found.to_string(),
            wanted: wanted.to_string(),
            holds: found == wanted,
        }
    }

    pub(in crate::cli) fn at_most(what: impl Into<String>, found: u64, limit: u64) -> Self {
        Self {
            what: what.into(),
            found: found.to_string(),
            wanted: format!("at most {limit}"),
            holds: found <= limit,
        }
    }

    pub(in crate::cli) fn at_least(what: impl Into<String>, found: u64, limit: u64) -> Self {
        Self {
            what: what.into(),
            found: found.to_string(),
            wanted: format!("at least {limit}"),
            holds: found >= limit,
        }
    }

    /// Milliseconds.
    pub(in crate::cli) fn within(what: impl Into<String>, found_ms: f64, limit_ms: f64) -> Self {
        Self {
            what: what.into(),
            found: format!("{found_ms:.1} ms"),
            wanted: format!("at most {limit_ms:.0} ms"),
            holds: found_ms <= limit_ms,
        }
    }

    pub(in crate::cli) fn is(what: impl Into<String>, holds: bool) -> Self {
        Self::equal(what, if holds { "yes" } else { "no" }, "yes")
    }
}

/// What one scenario is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(in crate::cli) struct Scenario {
    /// Of the gate's four; 0: of none.
    pub criterion: u8,
    pub name: &'static str,
    /// What it does and must show.
    pub about: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    scenario: Scenario,
    decision: &'static str,
    seconds: f64,
    checks: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Report {
    /// `gate`, or the drill's name.
    what: String,
    khala: &'static str,
    at: String,
    machine: String,
    log: String,
    store: String,
    topic: String,
    namespace: String,
    /// What was asked for, and the limits.
    terms: Vec<(&'static str, String)>,
    decision: &'static str,
    seconds: f64,
    scenarios: Vec<Outcome>,
    #[serde(skip)]
    started: Instant,
}

impl Report {
    /// `settings`: those in force, without the gate's own topic and namespace.
    pub(in crate::cli) fn new(
        what: &str,
        settings: &Settings,
        own: &Settings,
        terms: Vec<(&'static str, String)>,
    ) -> Self {
        let shown = |name: &str| crate::config::key(name).map_or_else(String::new, |key| key.show(settings));
        Self {
            what: what.to_owned(),
            khala: env!("CARGO_PKG_VERSION"),
            at: Time::from_ms(now_ms()).map_or_else(String::new, |now| now.to_string()),
            machine: usage::machine(),
            log: shown("log"),
            store: crate::config::hide_url(&shown("store")),
            topic: own.topic.clone(),
            namespace: own.namespace.clone(),
            terms,
            decision: "FAIL",
            seconds: 0.0,
            scenarios: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Takes in what came of a scenario. An error is a check that does not hold: the others go on.
    pub(in crate::cli) fn add(
        &mut self,
        scenario: Scenario,
        began: Instant,
        found: Result<Vec<Check>, Failure>,
        out: Out,
    ) {
        let checks = found.unwrap_or_else(|failure| {
            vec![Check {
                what: "it ran to its end".to_owned(),
                found: failure.message,
                wanted: "yes".to_owned(),
                holds: false,
            }]
        });
        let decision = if checks.iter().all(|check| check.holds) && !checks.is_empty() {
            "PASS"
        } else {
            "FAIL"
        };
        let seconds = began.elapsed().as_secs_f64();
        out.note(format!("{decision}  {} ({seconds:.1} s)", scenario.name));
        for check in checks.iter().filter(|check| !check.holds) {
            out.note(format!(
                "      {}: {}, wanted: {}",
                check.what, check.found, check.wanted
            ));
        }
        self.scenarios.push(Outcome {
            scenario,
            decision,
            seconds,
            checks,
        });
    }

    /// Prints it, writes it into the directory if there is one, and says how the process ends.
    pub(in crate::cli) fn end(mut self, dir: Option<&Path>, out: Out) -> Result<Exit, Failure> {
        self.seconds = self.started.elapsed().as_secs_f64();
        let passed = !self.scenarios.is_empty() && self.scenarios.iter().all(|scenario| scenario.decision == "PASS");
        self.decision = if passed { "PASS" } else { "FAIL" };
        if let Some(dir) = dir {
            let path = self.write(dir)?;
            out.note(format!("report: {path}.md and .json"));
        }
        if out.json {
            out.value(&self);
        } else {
            out.table(&["scenario", "evidence", "found", "wanted", "holds"], &self.rows());
            out.line(format!("{}: {}", self.what, self.decision));
        }
        Ok(if passed { Exit::Done } else { Exit::Drift })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for scenario in &self.scenarios {
            for (i, check) in scenario.checks.iter().enumerate() {
                let name = if i == 0 { scenario.scenario.name } else { "" };
                let holds = if check.wanted.is_empty() {
                    ""
                } else if check.holds {
                    "yes"
                } else {
                    "NO"
                };
                let cells = [name, &check.what, &check.found, &check.wanted, holds];
                rows.push(cells.map(str::to_owned).to_vec());
            }
        }
        rows
    }

    /// The files' common path, without what tells them apart.
    fn write(&self, dir: &Path) -> Result<String, Failure> {
        std::fs::create_dir_all(dir).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
        let at: String = self.at.chars().filter(char::is_ascii_alphanumeric).take(15).collect();
        let stem = dir.join(format!("{}-{at}", self.what.replace(' ', "-")));
        let json = serde_json::to_string_pretty(self).map_err(failed)?;
        for (extension, text) in [("md", self.markdown()), ("json", json)] {
            let path = stem.with_extension(extension);
            std::fs::write(&path, text + "\n").map_err(|error| failed(format!("{}: {error}", path.display())))?;
        }
        Ok(stem.display().to_string())
    }

    fn markdown(&self) -> String {
        let mut page = format!("# khala {}: {}\n\n", self.what, self.decision);
        let about = [
            ("date", self.at.as_str()),
            ("khala", self.khala),
            ("machine", &self.machine),
            ("log", &self.log),
            ("store", &self.store),
            ("topic", &self.topic),
            ("namespace", &self.namespace),
        ];
        page.push_str("| | |\n|---|---|\n");
        let terms = self.terms.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in about.into_iter().chain(terms) {
            let _ = writeln!(page, "| {name} | {value} |");
        }
        let _ = writeln!(page, "| took | {:.0} s |", self.seconds);
        page.push_str("\n| scenario | decision | took |\n|---|---|---|\n");
        for Outcome {
            scenario,
            decision,
            seconds,
            ..
        } in &self.scenarios
        {
            let _ = writeln!(page, "| {} | {decision} | {seconds:.1} s |", scenario.name);
        }
        for scenario in &self.scenarios {
            let Scenario { criterion, name, about } = scenario.scenario;
            let of = match criterion {
                0 => String::new(),
                criterion => format!(" (criterion {criterion})"),
            };
            let _ = writeln!(
                page,
                "\n## {}: {name}{of}\n\n{about} {:.1} s.\n",
                scenario.decision, scenario.seconds
            );
            page.push_str("| evidence | found | wanted | |\n|---|---|---|---|\n");
            for check in &scenario.checks {
                let verdict = match (check.wanted.is_empty(), check.holds) {
                    (true, _) => "",
                    (false, true) => "holds",
                    (false, false) => "**broken**",
                };
                let found = check.found.replace('|', "\\|").replace('\n', " ");
                let _ = writeln!(page, "| {} | {found} | {} | {verdict} |", check.what, check.wanted);
            }
        }
        page
    }
}
