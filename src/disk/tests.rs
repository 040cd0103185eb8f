use super::*;

const THINGS: [Room; 1] = [("things", KeyspaceCreateOptions::default)];

fn put(disk: &Disk, key: &str, value: &str) {
    let mut batch = disk.batch();
    batch.insert(&disk.keyspace("things").unwrap(), key, value);
    disk.commit(batch).unwrap();
}

fn flip(path: &Path, at: usize) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at as u64).unwrap();
}

fn journal_of(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir.join("log")).unwrap();
    let mut journals = files.map(|file| file.unwrap().path());
    journals
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap()
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), "log", &THINGS).unwrap();
    put(&disk, "a", "1");
    drop(disk);
    let disk = Disk::open(dir.path(), "log", &THINGS).unwrap();
    assert_eq!(
        disk.keyspace("things").unwrap().get("a").unwrap().as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(disk.commits.lock().unwrap().last, 1);
}

#[test]
fn a_half_made_database_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("log.new")).unwrap();
    std::fs::write(dir.path().join("log.new/0.jnl"), "rubbish").unwrap();
    put(&Disk::open(dir.path(), "log", &THINGS).unwrap(), "a", "1");
}

#[test]
fn no_bit_of_a_journal_flips_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), "log", &THINGS).unwrap();
    let journal = journal_of(dir.path());
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        put(&disk, key, value);
    }
    drop(disk);
    let whole = std::fs::read(&journal).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut kept = 0;
    for at in (0..used).step_by(3) {
        flip(&journal, at);
        // In debug builds fjall asserts some lengths instead of returning an error: noticed is noticed.
        let opened = std::panic::catch_unwind(|| Disk::open(dir.path(), "log", &THINGS));
        let Ok(opened) = opened else {
            std::fs::write(&journal, &whole).unwrap();
            continue;
        };
        let there = opened.as_ref().is_ok_and(|disk| {
            let things = disk.keyspace("things").unwrap();
            ["a", "b", "c"].iter().all(|key| things.get(key).unwrap().is_some())
        });
        assert!(opened.is_err() || there, "byte {at} of {used}: lost without a word");
        if let Err(DiskError::Lost { kept: Some(copy), .. }) = &opened {
            kept += 1;
            let name = journal.file_name().unwrap();
            assert!(
                std::fs::read(copy.join(name)).unwrap() != whole,
                "the copy is of the damaged journal"
            );
        }
        drop(opened);
        let _ = std::fs::remove_dir_all(dir.path().join("log.damaged"));
        std::fs::write(&journal, &whole).unwrap();
    }
    assert!(kept > 0, "no flip in the first batch was found after opening");
}

#[test]
fn a_journal_that_lost_its_end_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), "log", &THINGS).unwrap();
    put(&disk, "a", "1");
    put(&disk, "b", "2");
    let journal = journal_of(dir.path());
    drop(disk);
    let text = std::fs::read(&journal).unwrap();
    let second = text.windows(4).rposition(|bytes| bytes == b"FJL\x03").unwrap();
    flip(&journal, second);
    let before = std::fs::read(&journal).unwrap();
    let error = Disk::open(dir.path(), "log", &THINGS).err().unwrap();
    assert!(
        matches!(
            error,
            DiskError::Lost {
                acknowledged: 2,
                found: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        before == std::fs::read(&journal).unwrap(),
        "opening changed the journal"
    );
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), "log", &THINGS).unwrap();
    disk.stop(&std::io::Error::other("input/output error"));
    let error = disk.commit(disk.batch()).unwrap_err();
    assert!(matches!(error, DiskError::Failed(_)), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("input/output error") && error.contains("restart Khala"),
        "{error}"
    );
}

#[test]
fn want_of_room_is_told_from_other_failures() {
    let dir = tempfile::tempdir().unwrap();
    let io = |code| std::io::Error::from_raw_os_error(code);
    #[rustfmt::skip]
    let rows: [(fjall::Error, Option<&str>); 6] = [
        (io(28).into(), Some("No space left on device (os error 28)")),
        (io(122).into(), Some("Disk quota exceeded (os error 122)")),
        (io(27).into(), Some("File too large (os error 27)")),
        (fjall::Error::Storage(io(28).into()), Some("No space left on device (os error 28)")),
        (io(5).into(), None),
        (fjall::Error::Poisoned, None), // there is room
    ];
    for (error, words) in rows {
        assert_eq!(
            full::words(&error, &dir.path().join("log")).as_deref(),
            words,
            "{error}"
        );
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "what was asked for is given back"
    );
}

#[test]
fn a_sealed_value_opens_only_under_its_own_key() {
    let value = seal(b"k", b"payload");
    assert_eq!(unseal(b"k", &value), Some(&b"payload"[..]));
    assert_eq!(unseal(b"l", &value), None);
    assert_eq!(unseal(b"k", &value[..3]), None);
}

#[test]
fn a_database_that_was_removed_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    put(&Disk::open(dir.path(), "log", &THINGS).unwrap(), "a", "1");
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let error = Disk::open(dir.path(), "log", &THINGS).err().unwrap();
    assert!(error.to_string().contains("remove it whole to start empty"), "{error}");
    assert!(!dir.path().join("log").exists());
}

#[test]
fn a_torn_write_that_nobody_was_told_of_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let torn = [1, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]; // a batch of two items begins, then half an item
    drop(Disk::open(dir.path(), "log", &THINGS).unwrap());
    let journal = journal_of(dir.path());
    let write_at_end = || {
        let text = std::fs::read(&journal).unwrap();
        let used = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let file = OpenOptions::new().write(true).open(&journal).unwrap();
        file.write_all_at(&torn, used as u64).unwrap();
    };
    write_at_end();
    let disk = Disk::open(dir.path(), "log", &THINGS).unwrap();
    put(&disk, "a", "1");
    drop(disk);
    write_at_end();
    let disk = Disk::open(dir.path(), "log", &THINGS).unwrap();
    assert!(disk.keyspace("things").unwrap().get("a").unwrap().is_some());
    assert!(!dir.path().join("log.damaged").exists());
}
