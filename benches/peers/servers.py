"""A Kafka and a Redis of our own on free loopback ports, and processes that end when we do, also when we are killed."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

KAFKA_DIR = os.environ.get("KHALA_KAFKA_DIR", "/var/tmp/khala-kafka-4.3.0")
PR_SET_PDEATHSIG = 1
TICKS = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, seconds, ready):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


class Process:
    """One child, its output in a file."""

    def __init__(self, name, args, directory, env=None):
        self.name = name
        self.log = pathlib.Path(directory) / f"{name}.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                args, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )

    def check(self):
        if self.child.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{tail}")

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_megabytes(self):
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def kill(self):
        """SIGKILL, and waits for the end."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_kafka(directory, partitions):
    if not pathlib.Path(KAFKA_DIR).is_dir():
        raise RuntimeError(f"no Kafka in {KAFKA_DIR}: run scripts/install-test-servers")
    port, controller = free_port(), free_port()
    listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
    properties = pathlib.Path(directory) / "server.properties"
    properties.write_text(
        f"process.roles=broker,controller\nnode.id=1\nlisteners={listeners}\nadvertised.listeners={listeners}\n"
        f"controller.quorum.bootstrap.servers=127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n"
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
        f"log.dirs={directory}/kafka-data\nnum.partitions={partitions}\nmessage.max.bytes=2097152\n"
        "offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\n"
        "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
        "transaction.state.log.num.partitions=4\nshare.coordinator.state.topic.replication.factor=1\n"
        "share.coordinator.state.topic.min.isr=1\n"
    )
    java = ["java", "-XX:+UseSerialGC", "-cp", f"{KAFKA_DIR}/*"]
    subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", properties],
        check=True, capture_output=True,
    )
    kafka = Process("kafka", [*java[:1], "-Xmx1g", *java[1:], "kafka.Kafka", str(properties)], directory)
    return kafka, f"127.0.0.1:{port}"


def wait_for_kafka(kafka, address):
    def answers():
        kafka.check()
        asked = subprocess.run(["kcat", "-L", "-b", address, "-m", "2"], capture_output=True, check=False)
        return asked.returncode == 0

    eventually("Kafka answers", 60, answers)


def start_redis(directory):
    port = free_port()
    args = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    redis = Process("redis", args, directory)
    eventually("Redis answers", 10, lambda: redis.check() or listens(port))
    return redis, port


class Redis:
    """As much of a client as is needed: pipelined commands whose replies are text, numbers, lists of those."""

    def __init__(self, port):
        self.file = socket.create_connection(("127.0.0.1", port)).makefile("rwb")

    def pipeline(self, commands):
        for words in commands:
            self.file.write(b"*%d\r\n" % len(words))
            for word in (str(word).encode() for word in words):
                self.file.write(b"$%d\r\n%s\r\n" % (len(word), word))
        self.file.flush()
        return [self.reply() for _ in commands]

    def reply(self):
        line = self.file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(f"Redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return rest.decode()
