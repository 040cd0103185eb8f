"""One, two and three `khala serve` in one group on the same events: what an event costs, and what a document weighs."""

import json
import subprocess
import time

import servers

EVENTS, RUNS, PARTITIONS = 2_000_000, 50_000, 12
PATIENCE_SECONDS = 300
# All of a run's 40 events.
EVENTS_KEPT = 1000


def offsets(client, namespace, partitions):
    keys = [f"{{{namespace}:{partition}}}:checkpoint" for partition in range(partitions)]
    replies = client.pipeline([["HGET", key, "offset"] for key in keys])
    return sum(int(reply or 0) for reply in replies)


def memory(client):
    text = client.pipeline([["INFO", "memory"]])[0]
    return int(text.split("used_memory:")[1].split()[0])


def fill(khala, env):
    done = subprocess.run(
        [khala, "bench", "--stages", "publish", "--keep", "--repetitions", "1", "--seconds", "0", "--no-embedded", "--json",
         "--events", str(EVENTS), "--runs", str(RUNS)],
        env=env, capture_output=True, text=True, check=True,
    )
    report = json.loads(done.stdout)
    return report["topic"], next(stage["events"] for stage in report["stages"] if stage["name"] == "publish")


def once(khala, env, held, directory, events, count):
    kafka, redis, port = held
    client = servers.Redis(port)
    client.pipeline([["FLUSHALL"]])
    empty = memory(client)
    before = [kafka.cpu_seconds(), redis.cpu_seconds()]
    began = time.monotonic()
    served = [
        servers.Process(f"khala-{count}-{n}", [khala, "serve", "--http", "127.0.0.1:0"], directory, env) for n in range(count)
    ]
    try:
        first = None
        while (reached := offsets(client, env["KHALA_NAMESPACE"], PARTITIONS)) < events:
            first = first or (reached and time.monotonic())
            for process in served:
                process.check()
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise RuntimeError(f"{count} processes: {reached:,} of {events:,} events after {PATIENCE_SECONDS} s")
            time.sleep(0.02)
        ended = time.monotonic()
        cpu = [sum(process.cpu_seconds() for process in served), kafka.cpu_seconds() - before[0], redis.cpu_seconds() - before[1]]
        return {
            "processes": count, "events_per_second": round(events / (ended - first)), "start_seconds": round(first - began, 1),
            "microseconds": dict(zip(["khala", "broker", "redis"], (round(each / events * 1e6, 2) for each in cpu), strict=True)),
            "peak_megabytes": [round(process.peak_megabytes()) for process in served],
            "redis_bytes_per_document": round((memory(client) - empty) / RUNS),
        }
    finally:
        for process in served:
            process.kill()


def measure(khala, env, held, directory):
    topic, events = fill(khala, env)
    rows = []
    for kept in (0, EVENTS_KEPT):
        for count in (1, 2, 3):
            # A namespace of its own each, and so a group: the last one's session must not be waited for.
            settings = {"KHALA_TOPIC": topic, "KHALA_NAMESPACE": f"growth-{kept}-{count}", "KHALA_EVENTS_KEPT": str(kept)}
            rows.append({"events_kept": kept, **once(khala, {**env, **settings}, held, directory, events, count)})
    return rows


def table(rows):
    lines = [
        "| processes | events kept | events/s | CPU µs an event: Khala, broker, Redis | peak MB | Redis: bytes a document |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        cost, peaks = row["microseconds"], ", ".join(map(str, row["peak_megabytes"]))
        costs = f"{cost['khala']:.2f}, {cost['broker']:.2f}, {cost['redis']:.2f}"
        lines.append(
            f"| {row['processes']} | {row['events_kept']} | {row['events_per_second']:,} | {costs} | {peaks} | {row['redis_bytes_per_document']:,} |"
        )
    return "\n".join(lines)
