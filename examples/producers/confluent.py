"""A run's life into Kafka with confluent-kafka: python confluent.py BROKERS TOPIC RUN

`partitioner` is not librdkafka's default, and without it most events are dead letters (wrong_partition).
"""

import json
import sys
import uuid
from datetime import datetime, timezone

from confluent_kafka import Producer

brokers, topic, run = sys.argv[1:4]
producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "enable.idempotence": True})
subject = f"run/{run}"
source = f"example/confluent/{uuid.uuid4()}"  # a new source for each process: sequences begin at 1
failed = []


def publish(sequence, kind, data):
    event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": source, "type": kind, "subject": subject,
             "time": datetime.now(timezone.utc).isoformat(), "sequence": str(sequence), "data": data}
    producer.produce(topic, key=subject, value=json.dumps(event), headers={"content-type": "application/cloudevents+json"},
                     on_delivery=lambda error, _: error and failed.append(error))
    producer.poll(0)


publish(1, "run.started", {"owner_user_id": "ada"})
for sequence, word in enumerate(["all ", "of ", "it"], 2):
    publish(sequence, "run.delta", {"delta": word})
publish(5, "run.finished", {"status": "succeeded"})
producer.flush()  # the events are safe once their deliveries are reported
if failed:
    sys.exit(f"not delivered: {failed}")
