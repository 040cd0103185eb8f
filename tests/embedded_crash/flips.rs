//! One flipped bit in any file of the directory is named, or does no harm: it is never read as something else.
//! NATS 2.12 lost acknowledged data to one (Jepsen, 2025).

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use khala::log::{Log, NewRecord, Role};
use khala::pure::place::PartitionId;
use khala::store::Store;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{LEASE, covered, open_log, open_store, owner, read_all, seed, step};

const FLIPS: usize = 40;
const P0: PartitionId = PartitionId(0);
const COMMITS: u64 = 100;

/// Fills log and store: what stands in tables and blob files (more than fits into memory), and what only
/// stands in the journal. Gives the log's values.
async fn fill(dir: &Path, random: &mut StdRng) -> Vec<String> {
    let log = open_log(dir).unwrap();
    let mut values = Vec::new();
    for _ in 0..45 {
        let bytes: Vec<u8> = (0..1 << 20).map(|_| b'0' + (random.next_u32() % 64) as u8).collect();
        let records = bytes.chunks(64 << 10).map(|value| NewRecord {
            partition: Some(P0),
            key: Some(b"run/a".to_vec()),
            value: Some(value.to_vec()),
            headers: Vec::new(),
            timestamp_ms: None,
        });
        values.extend(
            bytes
                .chunks(64 << 10)
                .map(|value| String::from_utf8_lossy(value).into_owned()),
        );
        for done in log.append(Role::Events, records.collect()).await {
            done.unwrap();
        }
    }
    let store = open_store(dir).unwrap();
    Store::open(&store, P0, &owner(), LEASE).await.unwrap();
    for n in 0..COMMITS {
        store.commit(P0, &owner(), &step(n)).await.unwrap();
    }
    values
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_none_or(|extension| extension != "lock") && !path.ends_with("lock") {
            found.push(path);
        }
    }
    found.sort();
}

/// Flips a bit at a random place that is in use: journals are made long and filled from the front.
fn flip(path: &Path, random: &mut StdRng) -> Option<u64> {
    let bytes = std::fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let at = random.random_range(0..used);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let flipped = bytes[at] ^ (1 << random.random_range(0..8));
    file.write_all_at(&[flipped], at as u64).unwrap();
    Some(at as u64)
}

/// What opening and reading all says; asserts that what it gives is right.
async fn read(dir: PathBuf, values: Vec<String>) -> Result<(), String> {
    let log = open_log(&dir).map_err(|error| error.to_string())?;
    let found = read_all(&log, P0).await.map_err(|error| error.to_string())?;
    let same = found == values;
    let store = open_store(&dir).map_err(|error| error.to_string())?;
    let next = covered(&store, P0).await.map_err(|error| error.to_string())?;
    if !same || next != COMMITS {
        return Err(format!(
            "WRONG: {} of {} records, {next} commits",
            found.len(),
            values.len()
        ));
    }
    Ok(())
}

#[tokio::test]
async fn a_flipped_bit_is_named_or_does_no_harm() {
    let mut random = StdRng::seed_from_u64(seed());
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    let values = fill(&whole, &mut random).await;
    let mut all = Vec::new();
    files(&whole, &mut all);
    let blobs = all
        .iter()
        .filter(|path| path.to_string_lossy().contains("blob"))
        .count();
    assert!(blobs > 0, "all of it stands in journals: {all:?}");
    let mut named = 0;
    for _ in 0..FLIPS {
        let copy = home.path().join("copy");
        let copied = Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(&whole)
            .arg(&copy)
            .status();
        assert!(copied.unwrap().success());
        let file = &all[random.random_range(0..all.len())];
        let file = file.strip_prefix(&whole).unwrap();
        let at = flip(&copy.join(file), &mut random);
        let place = format!("{} byte {at:?}", file.display());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(read(copy.clone(), values.clone()));
        match task.join_next().await.unwrap() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                assert!(!error.contains("WRONG"), "{place}: {error}");
                assert!(
                    error.contains(&copy.display().to_string()),
                    "{place}: the error names no place: {error}"
                );
                named += 1;
            }
            // fjall asserts some lengths instead of returning an error; what `covered` asserts is another matter.
            Err(panic) => {
                let panic = panic.into_panic();
                let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                assert!(!words.contains("partition 0"), "{place}: {words}");
                named += 1;
            }
        }
        std::fs::remove_dir_all(&copy).unwrap();
    }
    println!("{named} of {FLIPS} flips were named, the others did no harm");
    assert!(named > 0);
}
