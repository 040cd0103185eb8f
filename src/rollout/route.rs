//! Who is led to the candidate: those of a list first, then a share by a hash of the entity that never changes.
//! In: the route as the store has it. Invariant: a text that is only a name, as `rebuild --swap` writes it, leads all.

use serde::{Deserialize, Serialize};

use crate::pure::entity::Entity;

/// Shares are told to a hundredth of a percent.
const BUCKETS: u64 = 10_000;

/// Where readers of a namespace get documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortRoute {
    /// The other namespace.
    pub candidate: String,
    /// Subjects, or beginnings of subjects followed by `*`, whose readers are led there whatever the share is.
    #[serde(default)]
    pub allow: Vec<String>,
    /// How many percent of the others are.
    pub percent: u32,
}

impl CohortRoute {
    /// All readers to `candidate`.
    #[must_use]
    pub fn all(candidate: &str) -> Self {
        Self {
            candidate: candidate.to_owned(),
            allow: Vec::new(),
            percent: 100,
        }
    }

    /// Reads what the store has.
    ///
    /// # Errors
    /// It is neither a name nor a route.
    pub fn read(text: &str) -> Result<Self, String> {
        if !text.starts_with('{') {
            return Ok(Self::all(text));
        }
        serde_json::from_str(text).map_err(|error| format!("the route is not understood: {error}"))
    }

    /// As the store has it: only a name where all are led there.
    #[must_use]
    pub fn text(&self) -> String {
        if self.percent >= 100 {
            return self.candidate.clone();
        }
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether readers of this entity are led to the candidate.
    #[must_use]
    pub fn leads(&self, entity: &Entity) -> bool {
        let subject = entity.subject();
        let is_named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(begin) => subject.starts_with(begin),
            None => pattern == subject,
        };
        self.percent >= 100 || bucket(subject) < u64::from(self.percent) * 100 || self.allow.iter().any(is_named)
    }
}

/// FNV-1a, and the finish of murmur3 so that its low digits depend on all of the subject. It is not the hash that
/// chooses partitions: a share of the entities is a share of each partition.
fn bucket(subject: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = subject.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    (hash ^ (hash >> 33)) % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: usize) -> Entity {
        Entity::parse(&format!("run/run_{number}")).expect("legal")
    }

    fn share(percent: u32, allow: &[&str]) -> CohortRoute {
        CohortRoute {
            candidate: "khala-2".to_owned(),
            allow: allow.iter().map(|&text| text.to_owned()).collect(),
            percent,
        }
    }

    #[test]
    fn a_name_alone_leads_all_and_each_route_reads_back() {
        let route = CohortRoute::read("khala-2").expect("a name");
        assert_eq!(route, share(100, &[]));
        assert_eq!(route.text(), "khala-2");
        for route in [share(0, &["run/a"]), share(5, &[]), share(100, &[])] {
            assert_eq!(CohortRoute::read(&route.text()), Ok(route));
        }
        assert!(CohortRoute::read("{\"candidate\":3}").is_err());
    }

    #[test]
    fn a_share_is_about_that_large_and_who_is_in_stays_in() {
        let all: Vec<Entity> = (0..20_000).map(run).collect();
        let mut before = 0;
        for percent in [0, 5, 25, 50, 100] {
            let led: Vec<bool> = all.iter().map(|one| share(percent, &[]).leads(one)).collect();
            let count = led.iter().filter(|led| **led).count();
            assert!(count.abs_diff(200 * percent as usize) < 300, "{percent} %: {count}");
            let earlier = share(before, &[]);
            let left = all.iter().zip(&led).filter(|(one, led)| earlier.leads(one) && !**led);
            assert_eq!(left.count(), 0, "{before} → {percent} %");
            before = percent;
        }
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(["run/run_123", "worker/w1", "run/a"].map(bucket), [1245, 8688, 965]);
    }

    #[test]
    fn those_of_the_list_come_first() {
        let route = share(0, &["run/run_7", "run/run_1*", "worker/w1"]);
        for (subject, led) in [
            ("run/run_7", true),
            ("run/run_70", false),
            ("run/run_1", true),
            ("run/run_19", true),
            ("worker/w1", true),
            ("worker/w2", false),
        ] {
            assert_eq!(route.leads(&Entity::parse(subject).expect("legal")), led, "{subject}");
        }
    }
}
