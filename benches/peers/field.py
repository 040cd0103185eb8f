"""One peer in one scenario: servers of its own with the events, a fresh start, what happens to it, what comes of it."""

import contextlib
import os
import subprocess
import tempfile
import time

import peers
import servers
import workload


class Field:
    """A Kafka with the events, an empty Redis, a peer: for one scenario."""

    def __init__(self, peer, lines, finished, stack):
        self.peer = peer
        self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="khala-peers-"))
        self.kafka, broker = servers.start_kafka(self.directory, peers.PARTITIONS)
        stack.callback(self.kafka.kill)
        servers.wait_for_kafka(self.kafka, broker)
        self.redis, port = servers.start_redis(self.directory)
        stack.callback(self.redis.kill)
        self.client = servers.Redis(port)
        state = f"{self.directory}/state"
        self.env = {
            **os.environ, "PEER_BROKER": broker, "PEER_REDIS": f"127.0.0.1:{port}", "PEER_TOPIC": peers.TOPIC,
            "PEER_GROUP": peers.GROUP, "PEER_STATE": state,
        }
        producing = ["kcat", "-P", "-b", broker, "-t", peers.TOPIC, "-K", "|", "-l", lines]
        settings = ["partitioner=murmur2_random", "enable.idempotence=true", "log_level=3"]
        subprocess.run([*producing, *(word for each in settings for word in ("-X", each))], check=True)
        if peer.prepare:
            peer.prepare(self.env)
        self.finished, self.stack, self.process = finished, stack, None

    def start(self):
        self.process = servers.Process(self.peer.name, self.peer.args(self.env), self.directory, self.env)
        self.stack.callback(self.process.kill)

    def cpu_seconds(self):
        return [process.cpu_seconds() for process in (self.process, self.kafka, self.redis)]

    def wait_for(self, runs, share, seconds):
        """Until that share of the runs has ended; says whether it came to that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process.check()
            read = self.peer.read(self.client, runs)
            if sum(document is not None and document[0] == "succeeded" for document in read) >= share * len(runs):
                return True
            time.sleep(0.02)
        return False

    def wrong(self, quiet_seconds):
        """Counts wrong and missing documents, when all are right or nothing has changed for so long."""
        before, since = None, time.monotonic()
        while True:
            self.process.check()
            read = self.peer.read(self.client, self.finished)
            wrong = sum(document is not None and document != workload.RIGHT for document in read)
            missing = read.count(None)
            if read != before:
                before, since = read, time.monotonic()
            if wrong + missing == 0 or time.monotonic() - since > quiet_seconds:
                return {"wrong": wrong, "missing": missing, "documents": len(read)}
            time.sleep(0.2)


def measure(peer, lines, finished, scenario, args):
    """One scenario from a fresh start. The last runs to end stand for all, the middle ones for the middle."""
    with contextlib.ExitStack() as stack:
        field = Field(peer, lines, [workload.subject(args.seed, run) for run in finished], stack)
        middle, last = len(finished) // 2, field.finished[-100:]
        before, began = [0.0, field.kafka.cpu_seconds(), field.redis.cpu_seconds()], time.monotonic()
        field.start()
        if scenario != "clean":
            field.wait_for(field.finished[max(middle - 50, 0) : middle + 50], 0.5, args.timeout)
            done = field.peer.read(field.client, field.finished)
            so_far = sum(document is not None for document in done) / len(done)
        if scenario == "kill":
            field.process.kill()
            field.start()
        if scenario == "flush":
            # What it still does by itself; then a restart, which is what one tries next.
            field.client.pipeline([["FLUSHALL"]])
            field.wrong(args.quiet)
            field.process.kill()
            field.start()
        is_done = scenario == "flush" or field.wait_for(last, 1, args.timeout)
        seconds, after = time.monotonic() - began, field.cpu_seconds()
        peak = field.process.peak_megabytes()
        result = {"is_done": is_done, **field.wrong(args.quiet)}
        if scenario == "clean":
            spent = [late - early for late, early in zip(after, before, strict=True)]
            return {**result, "seconds": seconds, "cpu_seconds": spent, "peak_megabytes": peak}
        return {**result, "documents_when_it_came": round(so_far, 2)}
