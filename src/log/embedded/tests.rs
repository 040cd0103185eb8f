use super::*;
use crate::log::Assignment;

const LIMITS: FetchLimits = FetchLimits {
    records: 10_000,
    bytes: 1 << 20,
    wait: Duration::from_secs(10),
};
const NO_WAIT: FetchLimits = FetchLimits {
    wait: Duration::ZERO,
    ..LIMITS
};
const P0: PartitionId = PartitionId(0);

fn open(dir: &Path, partitions: u32) -> EmbeddedLog {
    try_open(dir, partitions).unwrap()
}

fn try_open(dir: &Path, partitions: u32) -> Result<EmbeddedLog, LogError> {
    let settings = EmbeddedSettings {
        topic: "khala.events".to_owned(),
        group: "khala".to_owned(),
        partitions,
        partitioner: Partitioner::Murmur2,
    };
    EmbeddedLog::open(dir, settings)
}

fn record(partition: Option<u32>, key: &str, value: &str) -> NewRecord {
    NewRecord {
        partition: partition.map(PartitionId),
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: vec![("h".to_owned(), None)],
        timestamp_ms: None,
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<NewRecord> {
    range.map(|i| record(Some(0), "run/a", &i.to_string())).collect()
}

async fn append(log: &EmbeddedLog, records: Vec<NewRecord>) -> Vec<(PartitionId, Offset)> {
    let appended = log.append(Role::Events, records).await;
    appended.into_iter().map(|done| done.unwrap()).collect()
}

async fn values(reader: &mut Box<dyn Reader>, limits: FetchLimits) -> Vec<String> {
    let batch = reader.fetch(limits).await.unwrap();
    let text = |record: crate::pure::record::Record<'_>| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
    batch.iter().map(text).collect()
}

#[tokio::test]
async fn records_come_back_in_order_with_dense_offsets_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 4);
    let id = log.topic().await.unwrap().id;
    append(&log, numbered(0..3000)).await;
    let last = append(&log, numbered(3000..3001)).await;
    assert_eq!(last, [(P0, Offset(3000))]);
    drop(log);

    let log = open(dir.path(), 9);
    let topic = log.topic().await.unwrap();
    assert_eq!((topic.partitions, &topic.id), (4, &id));
    assert_eq!(log.bounds(P0).await.unwrap().end, NextOffset(3001));
    let mut reader = log.reader(Role::Events, P0, NextOffset(0)).await.unwrap();
    let mut all = Vec::new();
    while all.len() < 3001 {
        let some = FetchLimits { records: 700, ..LIMITS };
        all.extend(values(&mut reader, some).await);
    }
    let expected: Vec<_> = (0..3001).map(|i| i.to_string()).collect();
    assert_eq!(all, expected);
    let next = append(&log, numbered(0..1)).await;
    assert_eq!(next, [(P0, Offset(3001))]);
    let warnings = log.prepare().await.unwrap().join("\n");
    assert!(warnings.contains("has 4 partitions, the settings say 9"), "{warnings}");
}

#[tokio::test]
async fn a_reader_starts_anywhere_and_keeps_to_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    for start in (0..60).step_by(20) {
        append(&log, numbered(start..start + 20)).await;
    }
    for from in [0, 7, 19, 20, 21, 59] {
        let mut reader = log.reader(Role::Events, P0, NextOffset(from)).await.unwrap();
        let three = FetchLimits { records: 3, ..LIMITS };
        let wanted: Vec<_> = (from..60.min(from + 3)).map(|i| i.to_string()).collect();
        assert_eq!(values(&mut reader, three).await, wanted, "from {from}");
        let few = FetchLimits { bytes: 1, ..NO_WAIT };
        let then: Vec<_> = (from + 3..60.min(from + 4)).map(|i| i.to_string()).collect();
        assert_eq!(values(&mut reader, few).await, then, "from {from}");
    }
}

#[tokio::test]
async fn a_reader_at_the_end_waits_for_the_next_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    let mut reader = log.reader(Role::Events, P0, NextOffset(0)).await.unwrap();
    assert!(reader.fetch(NO_WAIT).await.unwrap().is_empty());
    let (got, _) = tokio::join!(values(&mut reader, LIMITS), append(&log, numbered(5..6)));
    assert_eq!(got, ["5"]);
}

#[tokio::test]
async fn a_place_outside_the_log_has_moved() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    append(&log, numbered(0..2)).await;
    let mut reader = log.reader(Role::Events, P0, NextOffset(3)).await.unwrap();
    let error = reader.fetch(LIMITS).await.unwrap_err();
    assert!(matches!(error, LogError::Moved { at: NextOffset(3), .. }), "{error}");
    assert!(matches!(
        log.reader(Role::Events, PartitionId(1), NextOffset(0)).await,
        Err(LogError::Refused(_))
    ));
}

#[tokio::test]
async fn a_record_is_identified_by_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    append(&log, numbered(0..10)).await;
    let identity = log.record_at(P0, Offset(7)).await.unwrap().unwrap();
    let mut reader = log.reader(Role::Events, P0, NextOffset(7)).await.unwrap();
    let batch = reader.fetch(LIMITS).await.unwrap();
    assert_eq!(identity, batch.get(0).identity());
    assert_eq!(identity.crc32c, crc32c::crc32c(b"run/a7"));
    assert_eq!(log.record_at(P0, Offset(10)).await.unwrap(), None);
}

#[tokio::test]
async fn timestamps_of_a_partition_never_run_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    let future = i64::MAX / 2;
    let mut builder = chunk::Builder::new(0, future);
    builder.push(&record(Some(0), "run/a", "0"));
    let (key, value) = builder.finish(0, P0);
    let mut batch = log.shared.disk.batch();
    batch.insert(&log.shared.records, key.as_slice(), value);
    log.shared.disk.commit(batch).unwrap();
    drop(log);
    let log = open(dir.path(), 1);
    append(&log, numbered(1..2)).await;
    let identity = log.record_at(P0, Offset(1)).await.unwrap().unwrap();
    assert_eq!(identity.timestamp_ms, future);
}

#[tokio::test]
async fn keys_go_where_the_partitioner_says_and_dead_letters_to_their_own_topic() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 12);
    let keys: Vec<_> = (0..50).map(|i| format!("run/{i}")).collect();
    let records = keys.iter().map(|key| record(None, key, "{}")).collect();
    for (key, (partition, _)) in keys.iter().zip(append(&log, records).await) {
        assert_eq!(partition, Partitioner::Murmur2.place(key.as_bytes(), 12));
    }
    let letters = log.append(Role::DeadLetters, numbered(0..1)).await;
    assert_eq!(*letters[0].as_ref().unwrap(), (P0, Offset(0)));
    let bounds = log.bounds_of(Role::DeadLetters, P0).await.unwrap();
    assert_eq!(bounds.end, NextOffset(1));
}

#[tokio::test]
async fn a_record_that_is_refused_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 2);
    let huge = "x".repeat(writer::RECORD_BYTES_MAX);
    let records = vec![
        record(Some(0), "run/a", "1"),
        record(Some(2), "run/a", "2"),
        record(Some(0), "run/a", &huge),
        record(Some(0), "run/a", "4"),
    ];
    let done = log.append(Role::Events, records).await;
    assert_eq!(*done[0].as_ref().unwrap(), (P0, Offset(0)));
    assert!(done[1].as_ref().unwrap_err().to_string().contains("no partition 2"));
    assert!(done[2].as_ref().unwrap_err().to_string().contains("bytes"));
    assert_eq!(*done[3].as_ref().unwrap(), (P0, Offset(1)));
}

#[tokio::test]
async fn one_member_has_all_partitions_and_the_next_gets_them_when_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 3);
    let has_all = |change: Assignment| matches!(change, Assignment::Assigned(all) if all.len() == 3);
    let mut first = log.join().await.unwrap();
    let mut second = log.join().await.unwrap();
    assert!(has_all(first.next().await.unwrap()));
    tokio::select! {
        biased;
        change = second.next() => panic!("two members have the partitions: {change:?}"),
        change = first.next() => panic!("a second change: {change:?}"),
        () = std::future::ready(()) => {}
    }
    let (change, ()) = tokio::join!(second.next(), first.leave());
    assert!(has_all(change.unwrap()));
}

#[tokio::test]
async fn the_groups_offsets_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 2);
    assert_eq!(log.group_offset(P0).await.unwrap(), None);
    let offset = |partition, next| GroupOffset {
        partition: PartitionId(partition),
        next: NextOffset(next),
        metadata: "digest".to_owned(),
    };
    log.commit_group(vec![offset(0, 5), offset(1, 6)]).await.unwrap();
    log.commit_group(vec![offset(0, 7)]).await.unwrap();
    assert!(log.commit_group(vec![offset(2, 1)]).await.is_err());
    drop(log);
    let log = open(dir.path(), 2);
    assert_eq!(log.group_offset(P0).await.unwrap(), Some(NextOffset(7)));
    assert_eq!(log.group_offset(PartitionId(1)).await.unwrap(), Some(NextOffset(6)));
}

#[tokio::test]
async fn after_a_failed_write_every_append_is_refused_and_readers_see_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    append(&log, numbered(0..1)).await;
    log.shared.disk.stop(&std::io::Error::other("input/output error"));
    for _ in 0..2 {
        let done = log.append(Role::Events, numbered(1..2)).await;
        let error = done[0].as_ref().unwrap_err().to_string();
        assert!(error.contains("restart Khala"), "{error}");
    }
    assert_eq!(log.bounds(P0).await.unwrap().end, NextOffset(1));
    assert!(log.prepare().await.is_err());
}

#[tokio::test]
async fn a_flipped_bit_is_named_by_topic_partition_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 2);
    append(&log, numbered(0..5)).await;
    append(&log, numbered(5..9)).await;
    let key = chunk::key(log.shared.topics[0].number, P0, 5);
    let mut value = log.shared.records.get(key).unwrap().unwrap().to_vec();
    value[40] ^= 1;
    let mut batch = log.shared.disk.batch();
    batch.insert(&log.shared.records, key.as_slice(), value);
    log.shared.disk.commit(batch).unwrap();

    let error = log.record_at(P0, Offset(6)).await.unwrap_err();
    let words = error.to_string();
    for part in ["khala.events", "partition 0", "offset 6", "bits have flipped"] {
        assert!(words.contains(part), "{words}");
    }
    let mut reader = log.reader(Role::Events, P0, NextOffset(0)).await.unwrap();
    let before: Vec<_> = (0..5).map(|i| i.to_string()).collect();
    assert_eq!(values(&mut reader, LIMITS).await, before);
    assert!(reader.fetch(LIMITS).await.unwrap_err().to_string().contains("offset 5"));
    drop((reader, log));
    let error = try_open(dir.path(), 2).err().unwrap().to_string();
    assert!(error.contains("partition 0: the chunk at offset 5"), "{error}");
}

#[tokio::test]
async fn many_appends_at_once_all_get_their_own_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    let appends = (0..200).map(|i| append(&log, numbered(i..i + 1)));
    let done = futures_util::future::join_all(appends).await;
    let mut offsets: Vec<_> = done.into_iter().map(|done| done[0].1.0).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    let error = try_open(dir.path(), 1).err().unwrap().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(log);
    open(dir.path(), 1);
}
