"""How each peer is built, started, and where its documents are. All get PEER_BROKER, _TOPIC, _REDIS, _GROUP and _STATE."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import servers
import workload

HERE = pathlib.Path(__file__).resolve().parent
GROUP = "peers"
TOPIC = "peers.events"
PARTITIONS = 12


def build_naive(work):
    env = {**os.environ, "CARGO_TARGET_DIR": str(work / "naive")}
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=HERE / "naive", env=env, check=True)


def build_streams(work):
    """A copy is built: Maven writes beside its sources."""
    at = work / "streams"
    shutil.copytree(HERE / "streams", at, dirs_exist_ok=True)
    goals = ["compile", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={at}/jars"]
    subprocess.run(["mvn", "-q", "-B", *goals], cwd=at, check=True, stdout=sys.stderr)


def build_quix(work):
    at, wanted = work / "quix", HERE / "quix" / "requirements.txt"
    there = at / "requirements.txt"
    if not there.exists() or there.read_text() != wanted.read_text():
        subprocess.run(["python3", "-m", "venv", "--clear", str(at)], check=True)
        subprocess.run([f"{at}/bin/pip", "install", "--quiet", "-r", str(wanted)], check=True)
        shutil.copy(wanted, there)


def build_goka(work):
    subprocess.run(["go", "build", "-buildvcs=false", "-o", str(work / "goka-peer"), "."], cwd=HERE / "goka", check=True)


def triple(status, count, sequence):
    return (status, int(count or 0), int(sequence or 0))


def read_hashes(redis, subjects):
    fields = ["status", "event_count", "latest_seq"]
    found = redis.pipeline([["HMGET", subject, *fields] for subject in subjects])
    return [triple(*values) if any(values) else None for values in found]


def read_texts(keys):
    def read(redis, subjects):
        found = redis.pipeline([["GET", key] for key in map(keys, subjects)])
        documents = [json.loads(text) if text else None for text in found]
        names = ["status", "event_count", "latest_seq"]
        return [triple(*map(document.get, names)) if document else None for document in documents]

    return read


def khala_key(subject):
    place = workload.partition(subject, PARTITIONS)
    return f"{{{GROUP}:{place}}}:run_summary:{subject.removeprefix('run/')}"


def khala_args(khala, env):
    where = [f"--log=kafka://{env['PEER_BROKER']}", f"--store=redis://{env['PEER_REDIS']}"]
    return [khala, *where, f"--topic={TOPIC}", f"--namespace={GROUP}"]


class Peer:
    def __init__(self, name, build, args, read, prepare=None):
        self.name, self.build, self.args, self.read, self.prepare = name, build, args, read, prepare


def peers(work, khala):
    """All, by name. Without a path there is no Khala among them."""
    naive = str(work / "naive" / "release" / "naive-peer")
    streams = ["java", "-Xmx1g", "-cp", f"{work}/streams/target/classes:{work}/streams/jars/*", "StreamsPeer"]
    quix = [str(work / "quix" / "bin" / "python"), str(HERE / "quix" / "main.py")]
    plain = read_texts(lambda subject: subject)
    found = [
        Peer("naive", build_naive, lambda env: [naive, "naive"], read_hashes),
        Peer("careful", build_naive, lambda env: [naive, "careful"], read_hashes),
        Peer("streams", build_streams, lambda env: streams, plain),
        Peer("quix", build_quix, lambda env: quix, plain),
        Peer("goka", build_goka, lambda env: [str(work / "goka-peer")], plain),
    ]
    if khala:
        path = str(pathlib.Path(khala).resolve())

        def serve(env):
            # The others keep no events either.
            http = f"--http=127.0.0.1:{servers.free_port()}"
            return [*khala_args(path, env), "serve", "--events-kept=0", http]

        def prepare(env):
            subprocess.run([*khala_args(path, env), "topics", "apply"], env=env, check=True, capture_output=True)

        found.insert(0, Peer("khala", lambda work: None, serve, read_texts(khala_key), prepare))
    return {peer.name: peer for peer in found}
