"""A run's life over HTTP, with Python's standard library alone: python plain_http.py URL RUN [TOKEN]

Sending the same events again after a failure is safe: with the same (source, sequence) each counts once.
"""

import json
import sys
import urllib.request
import uuid

url, run, *token = sys.argv[1:]
source = f"example/python/{uuid.uuid4()}"


def event(sequence, kind, data):
    return {"specversion": "1.0", "id": f"{source}/{sequence}", "source": source, "type": kind, "subject": f"run/{run}",
            "sequence": sequence, "data": data}


events = [event(1, "run.started", {"owner_user_id": "ada"})]
events += [event(n, "run.delta", {"delta": word}) for n, word in enumerate(["all ", "of ", "it"], 2)]
events += [event(5, "run.finished", {"status": "succeeded"})]
headers = {"content-type": "application/cloudevents-batch+json"}
if token:
    headers["authorization"] = f"Bearer {token[0]}"
# 202: the log has all of them for good. With wait=projected 200: their documents have them too.
request = urllib.request.Request(f"{url}/v1/events?wait=projected&timeout=30s", json.dumps(events).encode(), headers)
with urllib.request.urlopen(request, timeout=60) as answer:
    print([event["seq"] for event in json.load(answer)["events"]])
