//! The command line: subcommands here, a flag per setting from the table of settings.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::contract::ContractCommand;
use super::dead_letters::DeadLettersCommand;
use crate::config::{Flags, KEYS};
use crate::pure::entity::Kind;

/// Settings shown by `-h` too; `--help` shows all.
const COMMON: [&str; 6] = ["log", "store", "topic", "namespace", "http", "token_file"];

#[derive(Parser)]
#[command(
    name = "khala",
    version,
    about = "Folds a log of agent runtime events into documents, exactly once",
    after_help = "Examples:\n  \
        khala demo                                   see it work, on this machine alone\n  \
        khala serve                                  project and serve HTTP, embedded\n  \
        khala serve --log kafka://localhost:9092 --store redis://localhost:6379\n  \
        khala publish events.ndjson\n  \
        khala get run run_123\n\n\
        Exit codes: 0 done; 1 failed; 2 bad usage, input or configuration; 3 drift or a failed gate; 4 not found;\n\
        5 the log or the store can't be reached."
)]
pub(super) struct Cli {
    /// Print JSON on stdout, one value or one per line, and nothing else
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// The whole thing on the embedded log and store: events, a crash, recovery, proof
    #[command(after_help = "Example:\n  khala demo --dir /tmp/khala-data\n  khala demo --json")]
    Demo(DemoArgs),
    /// Project events into documents, and serve HTTP and /metrics
    #[command(after_help = "Examples:\n  khala serve\n  \
        khala serve --log kafka://localhost:9092 --store redis://localhost:6379 --http 127.0.0.1:7600\n  \
        khala serve --config config/khala.toml\n\nSIGTERM or Ctrl-C: finishes the batch in hand, commits, leaves the group. A second one ends at once.")]
    Serve,
    /// Publish events, one JSON object a line
    #[command(
        after_help = "Examples:\n  khala publish events.ndjson\n  khala publish --json < events.ndjson\n\n\
        A bad line is reported with its number and the rest is published; the exit code is then 2."
    )]
    Publish {
        /// A file, or `-` for stdin
        file: Option<PathBuf>,
    },
    /// The document of a run or worker
    #[command(after_help = "Examples:\n  khala get run run_123\n  khala get worker w1 --json")]
    Get {
        /// `run` or `worker`
        kind: EntityKind,
        /// Its id
        id: String,
    },
    /// Runs or workers, the most recently updated first
    #[command(after_help = "Examples:\n  khala list runs --status running\n  khala list workers --since 10m --json")]
    List(ListArgs),
    /// The events of a run or worker, as they come; ends at the terminal event
    #[command(after_help = "Examples:\n  khala tail run run_123\n  khala tail run run_123 --after 40 --json")]
    Tail {
        /// `run` or `worker`
        kind: EntityKind,
        /// Its id
        id: String,
        /// Begin behind this seq
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
    /// Each partition: offset, end, lag, state, owner
    #[command(after_help = "Example:\n  khala status --json")]
    Status,
    /// Rates, lag, what is held, the hottest runs: again and again
    #[command(after_help = "Examples:\n  khala top\n  khala top --every 5s --times 12 --json")]
    Top(super::top::TopArgs),
    /// The history of positions, and which are good
    #[command(after_help = "Example:\n  khala checkpoints --partition 3 --limit 5")]
    Checkpoints {
        /// Only this partition
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
        /// At most this many of each partition
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
    },
    /// Put documents back to a mark and redo them from the log
    #[command(
        after_help = "Examples:\n  khala replay                                 from the last good mark\n  \
        khala replay --from verified --partition 3\n  khala replay --from offset 1200 --partition 3\n  \
        khala replay --from time 2026-02-19T12:00:00Z\n  khala replay run run_123 --dry-run\n\n\
        Events go on being published and, in other partitions, projected. It may be interrupted at any time:\n\
        whoever projects next finishes it. `khala checkpoints` shows the marks."
    )]
    Replay(ReplayArgs),
    /// Everything once more into another namespace, beside the one that serves; compare both, lead readers over
    #[command(after_help = super::rebuild::HELP)]
    Rebuild(super::rebuild::RebuildArgs),
    /// The namespaces of the store
    #[command(subcommand)]
    Namespaces(super::rebuild::NamespacesCommand),
    /// Lead readers to a candidate namespace in stages, under gates
    #[command(subcommand, after_help = super::rollout::HELP)]
    Rollout(super::rollout::RolloutCommand),
    /// Documents against the log: which are not what the log says, and why
    #[command(
        after_help = "Examples:\n  khala audit\n  khala audit run run_123\n  khala audit --sample 0.1 --json\n  khala audit --repair\n\n\
        Nothing is paused. Exit 0: clean; 3: drift. With --repair 0 only if a second look finds all of it right."
    )]
    Audit(AuditArgs),
    /// Are these good events? What a producer's CI runs, and what each producer of a live topic breaks
    #[command(subcommand)]
    Contract(ContractCommand),
    /// Records that were no legal events
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Write what has changed into the documents' topic now, or all documents into a file
    #[command(after_help = "Examples:\n  khala snapshot\n  khala snapshot --file documents.ndjson")]
    Snapshot {
        /// A file instead of the topic
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Fill an empty namespace from a snapshot
    #[command(
        after_help = "Examples:\n  khala restore\n  khala restore --file documents.ndjson\n\n\
        A projector restores by itself when its store was lost. Killed half-way, asked again it goes on. It refuses a\n\
        namespace that has documents. Exit code 4: there is no snapshot."
    )]
    Restore {
        /// A file of `khala snapshot --file` instead of the topic
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Let a partition go on that is held for its dead letters
    #[command(after_help = "Examples:\n  khala resume --partition 3\n  khala resume\n\n\
        All records that the log has now are let through; later ones count anew.\n\
        What is held for anything else is left as it is: exit code 1, and what helps.")]
    Resume {
        /// Only this partition
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
    },
    /// The topics that Khala needs
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// The settings in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The Redis key of a run's or worker's document
    #[command(
        after_help = "Examples:\n  khala key run run_123\n  khala key run run_123 --partitions 12    without asking the log"
    )]
    Key {
        /// `run` or `worker`
        kind: EntityKind,
        /// Its id
        id: String,
    },
    /// Throughput and latency against what the flags point at
    #[command(after_help = super::bench::HELP)]
    Bench(super::bench::BenchArgs),
    /// One fault on purpose, under traffic, and a report of what came of it
    #[command(after_help = super::drill::HELP)]
    Drill(super::drill::DrillArgs),
    /// What must be true before somebody takes over on-call, asked of the deployment; a signed report
    #[command(after_help = super::handoff::HELP)]
    Handoff(super::handoff::HandoffArgs),
    /// The load and chaos report of a release gate: four criteria, PASS or FAIL
    #[command(after_help = super::gate::HELP)]
    Gate(super::gate::GateArgs),
    /// Completions for a shell
    #[command(after_help = "Example:\n  khala completions bash > ~/.local/share/bash-completion/completions/khala")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// Whether it changes nothing, and its exit code tells nothing that its output does not.
    pub(super) fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Get { .. }
                | Self::List(_)
                | Self::Tail { .. }
                | Self::Top(_)
                | Self::Status
                | Self::Checkpoints { .. }
                | Self::DeadLetters(DeadLettersCommand::List { .. } | DeadLettersCommand::Show { .. })
                | Self::Contract(ContractCommand::Watch { .. })
                | Self::Key { .. }
                | Self::Completions { .. }
        )
    }
}

#[derive(clap::Args)]
pub(super) struct DemoArgs {
    /// The directory to run in; it is left behind
    #[arg(long, value_name = "DIR", default_value = "khala-data")]
    pub dir: PathBuf,
    /// Makes the same events again; without it they differ from demo to demo
    #[arg(long, value_name = "N", env = "KHALA_SEED")]
    pub seed: Option<u64>,
    /// The process that is killed on purpose
    #[arg(long, hide = true)]
    pub projector: bool,
}

#[derive(clap::Args)]
pub(super) struct ReplayArgs {
    /// `run` or `worker`: only one document, folded anew from its own events
    #[arg(requires = "id", conflicts_with_all = ["partition", "from"])]
    pub kind: Option<EntityKind>,
    /// Its id
    pub id: Option<String>,
    /// Tell what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only this partition
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// `last-good`, `verified`, `earliest`, `offset N` or `time T`
    #[arg(long, value_name = "MARK", num_args = 1..=2, default_value = "last-good")]
    pub from: Vec<String>,
}

#[derive(clap::Args)]
pub(super) struct AuditArgs {
    /// `run` or `worker`: only one document
    #[arg(requires = "id", conflicts_with_all = ["partition", "sample"])]
    pub kind: Option<EntityKind>,
    /// Its id
    pub id: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// Only about this share of the documents, above 0 up to 1; others each time
    #[arg(long, value_name = "SHARE")]
    pub sample: Option<f64>,
    /// Put right what is found, and look again
    #[arg(long)]
    pub repair: bool,
    /// The most documents that may be changed; above it nothing is [default: 100, or 1 % of the documents]
    #[arg(long, value_name = "N", requires = "repair")]
    pub repair_max: Option<u64>,
}

#[derive(clap::Args)]
pub(super) struct ListArgs {
    /// `runs` or `workers`
    pub what: EntityKinds,
    /// Only those of this status
    #[arg(long)]
    pub status: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Only those updated since then: RFC 3339, or a span as in `10m`
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum TopicsCommand {
    /// Make missing topics, check the settings of those there are
    #[command(after_help = "Example:\n  khala topics apply --log kafka://localhost:9092 --partitions 12")]
    Apply,
    /// Copy the events into a topic with more partitions, the order of each entity kept
    #[command(
        after_help = "Example:\n  khala topics migrate --to khala.events.2 --partitions 24\n\n\
        Stop the producers first (docs/partitions.md has all steps). Asked again it goes on where it was."
    )]
    Migrate {
        /// The new topic; it is made with --partitions partitions
        #[arg(long, value_name = "TOPIC")]
        to: String,
    },
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the settings in force and where each came from; secrets are hidden
    #[command(after_help = "Example:\n  khala config check --config config/khala.toml --connect")]
    Check {
        /// Also try the log and the store
        #[arg(long)]
        connect: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum EntityKind {
    Run,
    Worker,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum EntityKinds {
    Runs,
    Workers,
}

impl From<EntityKind> for Kind {
    fn from(kind: EntityKind) -> Self {
        match kind {
            EntityKind::Run => Self::Run,
            EntityKind::Worker => Self::Worker,
        }
    }
}

impl From<EntityKinds> for Kind {
    fn from(kinds: EntityKinds) -> Self {
        match kinds {
            EntityKinds::Runs => Self::Run,
            EntityKinds::Workers => Self::Worker,
        }
    }
}

/// The whole command line, with a flag for each setting.
pub(super) fn command() -> clap::Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .global(true)
        .help("The settings file (TOML) [env: KHALA_CONFIG]")
        .help_heading("Settings")
        .value_parser(clap::value_parser!(PathBuf));
    let settings = KEYS.iter().map(|key| {
        let default = if key.default.is_empty() { "none" } else { key.default };
        let help = format!("{} [env: {}] [default: {default}]", key.doc, key.variable());
        Arg::new(key.name)
            .long(key.name.replace('_', "-"))
            .value_name(if key.unit.is_empty() { "VALUE" } else { key.unit })
            .global(true)
            .action(ArgAction::Set)
            .help(help)
            .help_heading("Settings")
            .hide_short_help(!COMMON.contains(&key.name))
    });
    Cli::command().arg(config).args(settings)
}

/// The settings among the flags.
pub(super) fn flags(matches: &ArgMatches) -> Flags {
    let mut deepest = matches;
    while let Some((_, inner)) = deepest.subcommand() {
        deepest = inner;
    }
    let given = |name: &'static str| deepest.get_one::<String>(name).map(|value| (name, value.clone()));
    Flags {
        config: deepest.get_one::<PathBuf>("config").cloned(),
        values: KEYS.iter().filter_map(|key| given(key.name)).collect(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_makes_sense() {
        super::command().debug_assert();
    }
}
