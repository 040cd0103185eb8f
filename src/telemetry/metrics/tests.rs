use super::*;

const OK: Result<(), ()> = Ok(());
const P0: PartitionId = PartitionId(0);

#[test]
fn the_text_is_what_dashboards_hold_on_to() {
    let metrics = Metrics::new("khala").unwrap();
    metrics.committed(P0, 3);
    metrics.backlog(P0, 3, Some(i64::MAX));
    metrics.backlog(PartitionId(1), 0, None);
    metrics.held(PartitionId(1), Some("log_replaced"));
    metrics.latency(0.002, 2);
    metrics.write("ok");
    metrics.events(5, 2, 1);
    metrics.drift("sink_lost");
    metrics.replayed("entity", "error");
    metrics.audited(UNIX_EPOCH + std::time::Duration::from_hours(492_084));
    metrics.audit_progress(0.25);
    metrics.horizon(604_800.0);
    metrics.rollout(Some(RolloutGauges {
        percent: 25,
        overdue_seconds: 2.0,
        gates: vec![("drift".to_owned(), Some(1.0), 3.0)],
    }));
    metrics.published("ok", 0.004, 7);
    metrics.consumed(8);
    metrics.sent(1);
    metrics.processed(0.003);
    metrics.operation("commit", 0.006, &OK);
    metrics.operation("send", 0.2, &Err::<(), _>("away"));
    metrics.kafka(KafkaStatistics {
        fetch_queue_messages: 40,
        fetch_queue_bytes: 4_096,
        send_queue_messages: 2,
        rebalances: 1,
        broker_errors: 3,
        round_trip_seconds: 0.002,
    });
    metrics.store_memory(Some(StoreMemory {
        used_bytes: 900,
        limit_bytes: Some(1_000),
    }));
    insta::assert_snapshot!(but_of_this_process(&metrics));
}

/// What does not change from run to run.
fn but_of_this_process(metrics: &Metrics) -> String {
    let text = metrics.render();
    let changes = |line: &str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        name.starts_with("process_") || line.starts_with("khala_build_info")
    };
    text.split_inclusive('\n').filter(|line| !changes(line)).collect()
}

#[test]
fn counters_stand_at_zero_before_anything_happened() {
    let text = Metrics::new("blue").unwrap().render();
    for reason in DRIFT_REASONS {
        let line = format!("khala_projection_drift_total{{reason=\"{reason}\",namespace=\"blue\"}} 0\n");
        assert!(text.contains(&line), "no {line} in\n{text}");
    }
    for line in [
        "khala_projection_writes_total{result=\"error\",namespace=\"blue\"} 0\n",
        "khala_projection_events_total{result=\"dead_letter\",namespace=\"blue\"} 0\n",
        "khala_replay_total{result=\"error\",scope=\"namespace\",namespace=\"blue\"} 0\n",
        "khala_publish_total{result=\"error\",namespace=\"blue\"} 0\n",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    assert!(!text.contains("_total_total") && !text.contains("otel_scope"), "{text}");
}

#[test]
fn a_partition_given_up_leaves_no_gauge() {
    let metrics = Metrics::new("khala").unwrap();
    metrics.backlog(P0, 3, Some(i64::MAX));
    metrics.held(P0, Some("log_replaced"));
    assert!(
        metrics
            .render()
            .contains("khala_projection_held{partition=\"0\",reason=\"log_replaced\",namespace=\"khala\"} 1")
    );
    metrics.held(P0, None);
    assert!(
        metrics
            .render()
            .contains("khala_projection_held{partition=\"0\",reason=\"log_replaced\",namespace=\"khala\"} 0")
    );
    metrics.forget_partition(P0);
    assert!(!metrics.render().contains("partition=\"0\""), "{}", metrics.render());
}

#[test]
fn a_name_outside_the_set_makes_no_series() {
    let metrics = Metrics::new("khala").unwrap();
    let before = but_of_this_process(&metrics);
    metrics.drift("normal");
    metrics.operation("dance", 1.0, &OK);
    metrics.published("perhaps", 1.0, 1);
    metrics.replayed("entity", "perhaps");
    metrics.replayed("galaxy", "ok");
    assert_eq!(but_of_this_process(&metrics), before);
}
