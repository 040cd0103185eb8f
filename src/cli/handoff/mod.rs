//! `khala handoff`: what must be true before somebody takes over, asked of the deployment itself.
//! In: where server, Prometheus, Grafana and reports are. Out: a signed report, PASS or FAIL. Invariant: what was not
//! asked is not passed over: it was waived by name, or it fails.

mod record;
mod server;
mod watching;
mod web;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use self::web::Web;
use super::Context;
use super::exit::{Exit, Failure};
use super::gate::calls::blocking;
use super::gate::report::{Check, Report, Scenario};
use crate::config::{Role, Settings, read_span, read_tokens};

/// Behind the command's help.
pub(super) const HELP: &str = "Examples:\n  \
        khala handoff --by ada --prometheus http://localhost:9090 --grafana http://localhost:3000 --reports reports --report reports\n  \
        khala handoff --by ada --without prometheus,runbooks,grafana,reports\n\n\
        It changes nothing. What your deployment does not have is waived by name, and the report says so. Exit code 3:\n\
        something does not hold. docs/oncall.md is what to read before.";

/// What is looked at, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// It answers, is of this version, nothing is held, lag is low
    Server,
    /// The background audit: when, and what it found
    Audit,
    /// How far back the log reaches
    Horizon,
    /// Snapshots have all documents, not long ago
    Snapshots,
    /// The age of the token file
    Tokens,
    /// Alerts are loaded, the server is scraped, nothing fires
    Prometheus,
    /// Each alert has a page that can be reached
    Runbooks,
    /// The dashboards are there
    Grafana,
    /// The last gate and drills passed, not long ago
    Reports,
}

impl Part {
    fn scenario(self) -> Scenario {
        let (name, about) = match self {
            Self::Server => (
                "server",
                "It answers, is of this version, nothing is held or parked, and lag is low.",
            ),
            Self::Audit => (
                "audit",
                "All documents were compared with the log, not long ago, and were what it says.",
            ),
            Self::Horizon => (
                "horizon",
                "The log alone reaches back far enough for a replay after a long weekend.",
            ),
            Self::Snapshots => (
                "snapshots",
                "What the log forgets, a snapshot has: all documents were in it not long ago.",
            ),
            Self::Tokens => ("tokens", "Tokens are changed from time to time."),
            Self::Prometheus => (
                "prometheus",
                "The alerts are loaded, the server is scraped, nothing fires.",
            ),
            Self::Runbooks => ("runbooks", "Each alert has a page, where who is paged can read it."),
            Self::Grafana => ("grafana", "The dashboards are there."),
            Self::Reports => ("reports", "The gate and the drills were run not long ago, and passed."),
        };
        Scenario {
            criterion: 0,
            name,
            about,
        }
    }
}

#[derive(clap::Args)]
pub(super) struct HandoffArgs {
    /// Who takes over; stands in the report
    #[arg(long, value_name = "NAME")]
    pub by: String,
    /// The server [default: http:// and the setting `http`]; its token comes from --token-file
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Prometheus
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<String>,
    /// Grafana
    #[arg(long, value_name = "URL")]
    pub grafana: Option<String>,
    /// A file with a token for Grafana, where it needs one
    #[arg(long, value_name = "FILE")]
    pub grafana_token_file: Option<PathBuf>,
    /// A directory with the runbooks [default: each alert's `runbook_url` is asked]
    #[arg(long, value_name = "DIR")]
    pub runbooks: Option<PathBuf>,
    /// The directory that `khala gate --report` and `khala drill --report` wrote into
    #[arg(long, value_name = "DIR")]
    pub reports: Option<PathBuf>,
    /// What is waived: the deployment does not have it
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub without: Vec<Part>,
    /// Write the report into this directory, as Markdown and JSON
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Limit: lag
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = read_span)]
    pub lag: Duration,
    /// Limit: age of the last audit
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = read_span)]
    pub audit_age: Duration,
    /// Limit: how far back the log must reach
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = read_span)]
    pub horizon: Duration,
    /// Limit: age of the oldest snapshot that had all documents
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = read_span)]
    pub snapshot_age: Duration,
    /// Limit: age of the token file
    #[arg(long, value_name = "TIME", default_value = "2160h", value_parser = read_span)]
    pub token_age: Duration,
    /// Limit: age of the last gate and of the last drill of each kind
    #[arg(long, value_name = "TIME", default_value = "720h", value_parser = read_span)]
    pub report_age: Duration,
}

impl HandoffArgs {
    fn terms(&self) -> Vec<(&'static str, String)> {
        let hours = |span: Duration| format!("{:.1} h", span.as_secs_f64() / 3600.0);
        let waived = self.without.iter().map(|part| part.scenario().name);
        vec![
            ("taken over by", self.by.clone()),
            ("waived", waived.collect::<Vec<_>>().join(", ")),
            ("limit of lag", format!("{} s", self.lag.as_secs())),
            ("limit of an audit's age", hours(self.audit_age)),
            ("limit of the horizon", hours(self.horizon)),
            (
                "limit of a snapshot's age",
                format!("{} s", self.snapshot_age.as_secs()),
            ),
            ("limit of the token file's age", hours(self.token_age)),
            ("limit of a report's age", hours(self.report_age)),
        ]
    }

    fn server(&self, settings: &Settings) -> Result<Web, Failure> {
        let url = self
            .server
            .clone()
            .unwrap_or_else(|| format!("http://{}", settings.http));
        let tokens = match &settings.token_file {
            Some(path) => read_tokens(path).map_err(Failure::usage)?,
            None => Vec::new(),
        };
        let read = tokens.iter().find(|token| token.allows(Role::Read));
        Ok(Web::new(&url, read.and_then(|token| token.secret.as_deref())))
    }
}

pub(super) async fn run(args: HandoffArgs, context: &Context) -> Result<Exit, Failure> {
    if args.by.trim().is_empty() {
        return Err(Failure::usage("--by: who takes over?").hint("--by NAME"));
    }
    let settings = &context.settings;
    let mut report = Report::new("handoff", settings, settings, args.terms());
    for part in Part::value_variants() {
        if args.without.contains(part) {
            continue;
        }
        let began = Instant::now();
        let found = look(*part, &args, context).await;
        report.add(part.scenario(), began, found, context.out);
    }
    report.end(args.report.as_deref(), context.out)
}

async fn look(part: Part, args: &HandoffArgs, context: &Context) -> Result<Vec<Check>, Failure> {
    let given = |url: &Option<String>, flag: &str| {
        let hint = || Failure::usage(format!("not asked: {flag} was not given, nor was it waived"));
        url.clone().ok_or_else(hint)
    };
    match part {
        Part::Server => {
            let (server, lag) = (args.server(&context.settings)?, args.lag);
            blocking(move || Ok(server::stands(&server, lag))).await
        }
        Part::Audit => {
            let (server, age) = (args.server(&context.settings)?, args.audit_age);
            blocking(move || server::audited(&server, age)).await
        }
        Part::Horizon => {
            let (server, horizon) = (args.server(&context.settings)?, args.horizon);
            blocking(move || server::reaches(&server, horizon)).await
        }
        Part::Snapshots => {
            let (server, age) = (args.server(&context.settings)?, args.snapshot_age);
            blocking(move || server::kept(&server, age)).await
        }
        Part::Tokens => record::tokens(context.settings.token_file.as_deref(), args.token_age),
        Part::Prometheus => {
            let prometheus = Web::new(&given(&args.prometheus, "--prometheus")?, None);
            blocking(move || watching::alerts(&prometheus)).await
        }
        Part::Runbooks => match &args.runbooks {
            Some(dir) => Ok(watching::pages_in(dir)),
            None => blocking(|| Ok(watching::pages())).await,
        },
        Part::Grafana => {
            let url = given(&args.grafana, "--grafana")?;
            let token = args.grafana_token_file.as_deref().map(record::line).transpose()?;
            blocking(move || Ok(watching::dashboards(&Web::new(&url, token.as_deref())))).await
        }
        Part::Reports => {
            let dir = args.reports.as_ref().map(|dir| dir.display().to_string());
            record::reports(given(&dir, "--reports")?.as_ref(), args.report_age)
        }
    }
}
