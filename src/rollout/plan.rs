//! The plan of a rollout: its stages, hold times, gates. In: TOML. Out: a plan, or what is wrong, with file and line.

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::gates::Limits;
use crate::config::{nearest_name, read_span};

const KEYS: [&str; 3] = ["allow", "gates", "stage"];
const STAGE_KEYS: [&str; 3] = ["name", "percent", "hold"];
const GATE_KEYS: [&str; 9] = [
    "parity_differing_max",
    "parity_documents_min",
    "parity_sample",
    "drift_max",
    "write_failure_share_max",
    "read_errors_max",
    "lag_p95_events_max",
    "read_latency_p95_ms_max",
    "silent_seconds_max",
];
/// More than a sample is an audit.
const SAMPLE_MAX: f64 = 1000.0;

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whose readers are led over from the first stage on.
    pub allow: Vec<String>,
    /// What breaks it.
    pub gates: Limits,
    /// In this order.
    pub stages: Vec<Stage>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// The share of the entities whose readers are led over.
    pub percent: u32,
    /// How long it lasts at least.
    pub hold_ms: u64,
}

type Value<'a> = Spanned<DeValue<'a>>;

struct Reader<'a> {
    path: &'a str,
    text: &'a str,
}

impl Plan {
    /// Reads a plan; `path` is for messages.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(path: &str, text: &str) -> Result<Self, String> {
        let reader = Reader { path, text };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            reader.wrong(at, error.message().trim())
        })?;
        let mut plan = Self {
            allow: Vec::new(),
            gates: Limits::default(),
            stages: Vec::new(),
        };
        for (key, value) in table.get_ref() {
            let at = key.span().start;
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("allow", DeValue::Array(names)) => {
                    for name in names {
                        plan.allow.push(reader.subject(name)?);
                    }
                }
                ("gates", DeValue::Table(gates)) => reader.gates(gates, &mut plan.gates)?,
                ("stage", DeValue::Array(stages)) => {
                    for stage in stages {
                        plan.stages.push(reader.stage(stage)?);
                    }
                }
                ("allow", _) => return Err(reader.wrong(at, "`allow` takes a list of subjects")),
                ("gates", _) => return Err(reader.wrong(at, "write the gates under `[gates]`")),
                ("stage", _) => return Err(reader.wrong(at, "write each stage under `[[stage]]`")),
                (name, _) => return Err(reader.unknown(at, name, &KEYS)),
            }
        }
        plan.check(&reader)?;
        Ok(plan)
    }

    fn check(&self, reader: &Reader<'_>) -> Result<(), String> {
        let Some(last) = self.stages.last() else {
            return Err(reader.wrong(0, "there is no stage; write some under `[[stage]]`"));
        };
        let mut pairs = self.stages.iter().zip(self.stages.iter().skip(1));
        if let Some((one, other)) = pairs.find(|(one, other)| one.percent >= other.percent) {
            let words = format!(
                "stage `{}` has {} %, the one before it {} %: each stage must lead more readers over",
                other.name, other.percent, one.percent
            );
            return Err(reader.wrong(0, &words));
        }
        if last.percent != 100 {
            return Err(reader.wrong(0, "the last stage must have `percent = 100`"));
        }
        Ok(())
    }
}

impl Reader<'_> {
    fn wrong(&self, byte: usize, problem: &str) -> String {
        let line = 1 + self.text.bytes().take(byte).filter(|byte| *byte == b'\n').count();
        format!("{}:{line}: {problem}", self.path)
    }

    fn unknown(&self, byte: usize, name: &str, legal: &[&str]) -> String {
        let hint = nearest_name(name, legal.iter().map(|&name| name.to_owned()));
        self.wrong(byte, &format!("unknown key `{name}`{hint}"))
    }

    fn subject(&self, value: &Value<'_>) -> Result<String, String> {
        let must = "must be `run/<id>` or `worker/<id>`, or a beginning of it followed by `*`";
        match value.get_ref() {
            DeValue::String(text) if text.starts_with("run/") || text.starts_with("worker/") => Ok(text.to_string()),
            _ => Err(self.wrong(value.span().start, &format!("an entry of `allow` {must}"))),
        }
    }

    fn number(&self, name: &str, value: &Value<'_>, max: f64) -> Result<f64, String> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| number as f64),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (0.0..=max).contains(number))
            .ok_or_else(|| self.wrong(value.span().start, &format!("`{name}` takes a number from 0 to {max}")))
    }

    fn gates(&self, table: &DeTable<'_>, limits: &mut Limits) -> Result<(), String> {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let max = match name {
                "write_failure_share_max" => 1.0,
                "parity_sample" => SAMPLE_MAX,
                _ => 1e12,
            };
            let number = || self.number(name, value, max);
            match name {
                "parity_differing_max" => limits.parity_differing_max = number()?,
                "parity_documents_min" => limits.parity_documents_min = number()? as u64,
                "parity_sample" => limits.parity_sample = number()? as u64,
                "drift_max" => limits.drift_max = number()?,
                "write_failure_share_max" => limits.write_failure_share_max = number()?,
                "read_errors_max" => limits.read_errors_max = number()?,
                "lag_p95_events_max" => limits.lag_p95_events_max = number()?,
                "read_latency_p95_ms_max" => limits.read_latency_p95_ms_max = number()?,
                "silent_seconds_max" => limits.silent_seconds_max = number()?,
                _ => return Err(self.unknown(key.span().start, name, &GATE_KEYS)),
            }
        }
        Ok(())
    }

    fn stage(&self, value: &Value<'_>) -> Result<Stage, String> {
        let at = value.span().start;
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong(at, "write each stage under `[[stage]]`"));
        };
        let (mut name, mut percent, mut hold_ms) = (None, None, None);
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("name", DeValue::String(text)) => name = Some(text.to_string()),
                ("name", _) => return Err(self.wrong(value.span().start, "`name` takes a text")),
                ("percent", _) => percent = Some(self.number("percent", value, 100.0)?),
                ("hold", DeValue::String(text)) => {
                    let span = read_span(text).map_err(|problem| self.wrong(value.span().start, &problem))?;
                    hold_ms = Some(span.as_millis() as u64);
                }
                ("hold", _) => return Err(self.wrong(value.span().start, "`hold` takes a span as in \"10m\"")),
                (other, _) => return Err(self.unknown(key.span().start, other, &STAGE_KEYS)),
            }
        }
        let percent = percent.ok_or_else(|| self.wrong(at, "a stage needs `percent`"))?;
        if percent.fract() != 0.0 {
            return Err(self.wrong(at, "`percent` takes a whole number"));
        }
        Ok(Stage {
            name: name.unwrap_or_else(|| format!("{percent} %")),
            percent: percent as u32,
            hold_ms: hold_ms.ok_or_else(|| self.wrong(at, "a stage needs `hold`, as in \"10m\""))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../config/rollout.toml");

    #[test]
    fn the_shipped_plan_is_read_and_says_what_the_defaults_are() {
        let plan = Plan::read("config/rollout.toml", SHIPPED).expect("legal");
        let percents: Vec<u32> = plan.stages.iter().map(|stage| stage.percent).collect();
        assert_eq!(percents, [0, 5, 25, 50, 100]);
        assert_eq!(plan.gates, Limits::default());
        for key in GATE_KEYS {
            assert!(SHIPPED.contains(&format!("\n{key} = ")), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let stage = "[[stage]]\npercent = 100\nhold = \"1s\"\n";
        for (text, told) in [
            ("alow = []\n", "p:1: unknown key `alow`; did you mean `allow`?"),
            (
                "\n[gates]\ndrift_mx = 1\n",
                "p:3: unknown key `drift_mx`; did you mean `drift_max`?",
            ),
            (
                "[gates]\nwrite_failure_share_max = 2\n",
                "p:2: `write_failure_share_max` takes a number from 0 to 1",
            ),
            (
                "[[stage]]\npercnt = 5\n",
                "p:2: unknown key `percnt`; did you mean `percent`?",
            ),
            ("[[stage]]\npercent = 5\n", "a stage needs `hold`"),
            (
                "[[stage]]\npercent = 5\nhold = \"1s\"\n",
                "the last stage must have `percent = 100`",
            ),
            ("allow = [\"a\"]\n", "p:1: an entry of `allow` must be"),
            ("allow = [\n", "p:"),
            ("", "there is no stage"),
            (&format!("{stage}{stage}"), "each stage must lead more readers over"),
        ] {
            let found = Plan::read("p", text).expect_err(text);
            assert!(found.contains(told), "{text}: {found}");
        }
    }
}
