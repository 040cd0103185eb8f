//! The fold against the reference fold: same records, same reasons, same documents, byte for byte.
//! In: seeded messy records. Invariant: neither side has seen the other's code.

#[path = "reference/mod.rs"]
mod reference;

use std::collections::BTreeMap;

use khala::pure::document::{Applied, Document};
use khala::pure::entity::Entity;
use khala::pure::event::{Rules, decode};
use khala::pure::place::{Offset, PartitionId, Partitioner};
use khala::pure::record::RecordBatch;
use khala::pure::time::Time;
use proptest::prelude::*;
use reference::Rec;
use reference::fold::{Outcome, Partition};
use reference::messy::{Messy, Shape};

const PROJECTED_AT: &str = "2026-03-01T00:00:00.000Z";

/// Khala's side of one partition.
#[derive(Default)]
struct Ours {
    documents: BTreeMap<String, Document>,
}

impl Ours {
    fn apply(&mut self, rec: &Rec, rules: &Rules) -> Outcome {
        let mut batch = RecordBatch::default();
        let offset = Offset(rec.offset);
        batch.push(offset, rec.timestamp_ms, rec.key.as_deref(), rec.value.as_deref());
        for (name, value) in &rec.headers {
            batch.push_header(name.as_bytes(), value.as_deref());
        }
        let record = batch.get(0);
        let event = match decode(&record, PartitionId(rec.partition), rules) {
            Ok(event) => event,
            Err(rejection) => {
                assert!(
                    !rejection.detail.is_empty() && rejection.detail.len() <= 256,
                    "{rejection:?}"
                );
                return Outcome::DeadLetter(rejection.reason.name());
            }
        };
        let subject = event.subject().to_owned();
        let document = self.documents.entry(subject.clone()).or_insert_with(|| {
            let entity = Entity::parse(&subject).expect("an event's subject is legal");
            Document::new(entity, PartitionId(rec.partition))
        });
        match document.apply(&event, offset, rec.timestamp_ms) {
            Applied::Accepted { seq } => Outcome::Accepted { subject, seq },
            Applied::Duplicate => Outcome::Duplicate,
        }
    }
}

/// Applies all records on both sides and compares after each; at the end compares every document.
fn both_agree(records: &[Rec], partitions: u32, max_event_bytes: usize) {
    let theirs_rules = reference::decode::Rules {
        partitions,
        max_event_bytes,
    };
    let rules = Rules {
        partitioner: Partitioner::Murmur2,
        partitions,
        max_event_bytes,
        redact: khala::pure::redact::Redact::Secrets,
    };
    let mut both: BTreeMap<u32, (Ours, Partition)> = BTreeMap::new();
    for rec in records {
        let (ours, theirs) = both.entry(rec.partition).or_default();
        let expected = theirs.apply(rec, &theirs_rules);
        let got = ours.apply(rec, &rules);
        assert_eq!(
            got,
            expected,
            "partition {} offset {}: {}",
            rec.partition,
            rec.offset,
            shown(rec)
        );
    }
    for (ours, theirs) in both.values() {
        let mut digest: u128 = 0;
        for (subject, entity) in &theirs.entities {
            let document = ours.documents.get(subject).expect("the reference has it, so ours must");
            let mut out = Vec::new();
            let hash = document.render(Time::parse(PROJECTED_AT).expect("RFC 3339"), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), entity.stored(PROJECTED_AT), "{subject}");
            assert_eq!(hash, entity.digest(), "{subject}");
            digest = digest.wrapping_add(hash);
        }
        assert_eq!(format!("{digest:032x}"), theirs.digest());
    }
}

fn shown(rec: &Rec) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|b| String::from_utf8_lossy(b).into_owned());
    let headers: Vec<_> = rec.headers.iter().map(|(name, value)| (name, text(value))).collect();
    let value: String = text(&rec.value).unwrap_or_default().chars().take(2000).collect();
    format!("key {:?}, headers {headers:?}, value {value}", text(&rec.key))
}

#[test]
fn a_hundred_thousand_messy_events_fold_alike() {
    let mut shape = Shape::of(100_000, 12);
    shape.huge = true;
    let records = Messy::new(2026, shape).records(100_000, &mut [0; 12]);
    both_agree(&records, 12, 1 << 20);
}

/// Found by damage at random: the JSON readers' own limits are no part of the interface.
#[test]
fn numbers_that_no_double_holds_are_judged_alike() {
    let mut records = Messy::new(7, Shape::of(60, 2)).records(60, &mut [0; 2]);
    let mut changed = 0;
    for rec in &mut records {
        let text = rec
            .value
            .take()
            .map(|value| String::from_utf8_lossy(&value).into_owned());
        let text = text.unwrap_or_default();
        let huge = text.replacen("\"sequence\":", "\"sequence\":1e999,\"was\":", 1);
        let huge = huge.replacen("\"data\":{", "\"data\":{\"n\":[-4E4444],", 1);
        changed += u32::from(huge != text);
        rec.value = Some(huge.into_bytes());
    }
    assert!(changed > 20, "{changed}");
    both_agree(&records, 2, 1 << 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_seed_and_shape_folds_alike(
        seed: u64, partitions in 2_u32..7, runs in 0_usize..30, workers in 0_usize..10, garbage in 1_u64..40,
    ) {
        let shape = Shape { runs, workers, partitions, garbage_one_in: garbage, huge: false };
        let mut next: Vec<u64> = (0..u64::from(partitions)).map(|p| p * 1000).collect();
        let records = Messy::new(seed, shape).records(1500, &mut next);
        both_agree(&records, partitions, 1 << 20);
    }

    #[test]
    fn redelivery_of_any_suffix_folds_alike(seed: u64, from in 0_usize..400) {
        let mut records = Messy::new(seed, Shape::of(400, 2)).records(400, &mut [0; 2]);
        let again: Vec<Rec> = records[from..].to_vec();
        // The same events again, at new offsets: what a producer's blind retry does.
        for (i, mut rec) in again.into_iter().enumerate() {
            rec.offset = 10_000 + i as u64;
            records.push(rec);
        }
        both_agree(&records, 2, 1 << 20);
    }

    #[test]
    fn a_damaged_value_is_judged_alike(seed: u64, at in any::<prop::sample::Index>(), byte: u8) {
        let mut records = Messy::new(seed, Shape::of(60, 2)).records(60, &mut [0; 2]);
        for rec in &mut records {
            if let Some(value) = rec.value.as_mut().filter(|value| !value.is_empty()) {
                let at = at.index(value.len());
                value[at] = byte;
            }
        }
        both_agree(&records, 2, 300);
    }
}
