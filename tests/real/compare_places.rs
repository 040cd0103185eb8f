//! Checkpoints, dead letters and the group's offsets against the reference.

use std::collections::BTreeMap;

use super::compare::{Allow, Differences};
use super::topic;
use super::world::World;
use crate::reference::Rec;
use crate::reference::fold::Partition;
use crate::support::wait::{eventually, seconds};

/// All fields of a checkpoint that the log decides.
pub fn checkpoint(world: &World, p: u32, expected: &Partition, records: &[Rec], found: &mut Differences) {
    let got = world.checkpoint(p);
    if expected.records == 0 {
        let offset = got.get("offset").map_or("0", String::as_str);
        return found.equal(&format!("checkpoint {p} of an empty partition"), &offset, &"0");
    }
    let last = records
        .iter()
        .filter(|rec| rec.partition == p)
        .map(|rec| rec.offset)
        .max();
    let rows = [
        ("offset", (last.unwrap_or(0) + 1).to_string()),
        ("last_record", expected.last_record.clone()),
        ("records", expected.records.to_string()),
        ("accepted", expected.accepted.to_string()),
        ("duplicates", expected.duplicates.to_string()),
        ("dead_letters", expected.dead_letters.len().to_string()),
        ("digest", expected.digest()),
        ("intent", String::new()),
        ("projection_version", "1".to_owned()),
        ("partitions", world.partitions.to_string()),
    ];
    for (field, value) in rows {
        let what = format!("checkpoint {p}.{field}");
        found.equal(&what, &got.get(field).map(String::as_str), &Some(value.as_str()));
    }
    for field in ["topic_id", "written_at"] {
        if !got.contains_key(field) {
            found.add(format!("checkpoint {p} has no {field}"));
        }
    }
}

/// Each dead letter is there, as it came, with its reason and place, and no other is.
pub fn dead_letters(
    world: &World,
    records: &[Rec],
    expected: &BTreeMap<u32, Partition>,
    allow: Allow,
    found: &mut Differences,
) {
    let name = format!("{}.dead-letters", world.cluster.topic);
    let mut there: BTreeMap<(u32, u64), Vec<Rec>> = BTreeMap::new();
    let originals: BTreeMap<(u32, u64), &Rec> = records.iter().map(|rec| ((rec.partition, rec.offset), rec)).collect();
    for rec in topic::read_back(&world.config(), &name) {
        let number = |header: &str| text(&rec, header).parse::<u64>().unwrap_or(u64::MAX);
        let place = (number("khala_partition") as u32, number("khala_offset"));
        let is_of_the_log = originals
            .get(&place)
            .is_some_and(|original| (&original.key, &original.value) == (&rec.key, &rec.value));
        if is_of_the_log || !allow.was_cut {
            there.entry(place).or_default().push(rec);
        }
    }
    for (p, partition) in expected {
        for (offset, reason) in &partition.dead_letters {
            let what = format!("dead letter {p}:{offset}");
            let copies = there.remove(&(*p, *offset)).unwrap_or_default();
            if copies.is_empty() || (copies.len() > 1 && !allow.repeated_dead_letters) {
                found.add(format!("{what} ({reason}) is there {} times", copies.len()));
            }
            for copy in &copies {
                dead_letter(
                    &what,
                    copy,
                    originals[&(*p, *offset)],
                    reason,
                    &world.cluster.topic,
                    found,
                );
            }
        }
    }
    for (p, offset) in there.keys() {
        found.add(format!("dead letter {p}:{offset} is none"));
    }
}

fn dead_letter(what: &str, copy: &Rec, original: &Rec, reason: &str, topic: &str, found: &mut Differences) {
    found.equal(&format!("{what} key"), &copy.key, &original.key);
    if copy.value != original.value {
        found.add(format!("{what}: another value"));
    }
    let (ours, theirs): (Vec<_>, Vec<_>) = copy.headers.iter().cloned().partition(|(h, _)| h.starts_with("khala_"));
    found.equal(&format!("{what} headers"), &theirs, &original.headers);
    found.equal(&format!("{what} reason"), &text(copy, "khala_reason").as_str(), &reason);
    found.equal(&format!("{what} topic"), &text(copy, "khala_topic").as_str(), &topic);
    if ours.len() != 5 || text(copy, "khala_detail").is_empty() {
        found.add(format!("{what}: khala's headers are {ours:?}"));
    }
}

fn text(rec: &Rec, header: &str) -> String {
    let value = rec.headers.iter().rev().find(|(name, _)| name == header);
    let bytes = value.and_then(|(_, value)| value.clone()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The group's committed offsets come to the ends: they follow the checkpoints.
pub fn group(world: &World, records: &[Rec], found: &mut Differences) {
    let mut expected = vec![None; world.partitions as usize];
    for rec in records {
        expected[rec.partition as usize] = Some(rec.offset + 1);
    }
    let cluster = &world.cluster;
    let committed = || topic::committed(&world.config(), &cluster.topic, &cluster.namespace, world.partitions);
    let seen = eventually("the group's offsets are told", seconds(60), || {
        let seen = committed();
        let there = expected
            .iter()
            .zip(&seen)
            .all(|(want, got)| want.is_none() || want == got);
        if there { Ok(seen) } else { Err(seen) }
    });
    for (p, (want, got)) in expected.iter().zip(&seen).enumerate() {
        if want.is_some() {
            found.equal(&format!("group offset {p}"), got, want);
        }
    }
}
