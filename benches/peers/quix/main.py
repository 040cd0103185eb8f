"""Quix Streams: state in RocksDB with a changelog topic, exactly-once, documents by its own Redis sink."""

import os

from quixstreams import Application
from quixstreams.sinks.community.redis import RedisSink

STATUS = {"run.created": "queued", "run.started": "running"}


def fold(event, state):
    document = state.get("document") or {"status": None, "event_count": 0, "latest_seq": 0}
    sequence = int(event["sequence"])
    if sequence > document["latest_seq"]:
        document["latest_seq"] = sequence
        document["event_count"] += 1
        kind = event["type"]
        if kind == "run.finished":
            document["status"] = event["data"]["status"]
        else:
            document["status"] = STATUS.get(kind, document["status"])
        state.set("document", document)
    return document


app = Application(
    broker_address=os.environ["PEER_BROKER"],
    consumer_group=os.environ["PEER_GROUP"],
    state_dir=os.environ["PEER_STATE"],
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    consumer_extra_config={"session.timeout.ms": 6000},
)
host, port = os.environ["PEER_REDIS"].split(":")
events = app.dataframe(app.topic(os.environ["PEER_TOPIC"], value_deserializer="json"))
events.apply(fold, stateful=True).sink(RedisSink(host=host, port=int(port), db=0))
app.run()
