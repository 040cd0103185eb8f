"""The events that every peer gets, in the shape of `khala bench`'s: made from a seed, with what the documents must say."""

import random

MASK = (1 << 64) - 1
EVENTS_PER_RUN = 40
AT_ONCE = 100
DUPLICATED_ONE_IN = 200
DUPLICATE_AFTER_MAX = 500
RIGHT = ("succeeded", EVENTS_PER_RUN, EVENTS_PER_RUN)


def noise(seed):
    """Bits that do not compress (the finalizer of SplitMix64)."""
    z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def subject(seed, run):
    return f"run/bench_{seed & 0xffff:04x}_{run:07}"


def value(seed, run, index):
    base = seed ^ (run << 24) ^ (index << 4)
    event_id, trace, span = noise(base ^ 1), noise(base ^ 2), noise(base ^ 3)
    if index == 0:
        kind, data = "run.created", f'{{"thread_id":"thread_{run % 100}","owner_user_id":"user_{run % 100}"}}'
    elif index == 1:
        kind, data = "run.started", "{}"
    elif index == EVENTS_PER_RUN - 1:
        kind, data = "run.finished", '{"status":"succeeded","reason_class":"done","reason":"all steps done"}'
    else:
        kind, data = "run.delta", f'{{"delta":"token {noise(run ^ (index << 32)):016x} of step {index}"}}'
    return (
        f'{{"specversion":"1.0","id":"01K0XW3V9G{event_id:016X}","source":"executor/eu-1/{run % 64:04x}",'
        f'"type":"{kind}","subject":"{subject(seed, run)}","time":"2026-02-19T12:{index:02}:{run % 60:02}.000Z",'
        f'"sequence":"{index + 1}","traceparent":"00-{trace:016x}{noise(trace):016x}-{span:016x}-01","data":{data}}}'
    )


def write(path, seed, events):
    """Writes `key|value` lines; returns the runs in the order of their last events, and the number of records."""
    rng = random.Random(seed)
    runs = max(events // EVENTS_PER_RUN, 1)
    under_way = [[run, 0] for run in range(min(AT_ONCE, runs))]
    next_run, place, again, finished = len(under_way), 0, [], []
    with open(path, "w", encoding="ascii") as file:
        while under_way or again:
            place += 1
            if again and (again[0][0] <= place or not under_way):
                file.write(again.pop(0)[1])
                continue
            lane = rng.randrange(len(under_way))
            run, index = under_way[lane]
            line = f"{subject(seed, run)}|{value(seed, run, index)}\n"
            file.write(line)
            if index + 1 < EVENTS_PER_RUN:
                under_way[lane][1] += 1
            else:
                finished.append(run)
                if next_run < runs:
                    under_way[lane] = [next_run, 0]
                    next_run += 1
                else:
                    under_way.pop(lane)
            if rng.randrange(DUPLICATED_ONE_IN) == 0:
                again.append((place + rng.randint(1, DUPLICATE_AFTER_MAX), line))
    return finished, place


def murmur2(data):
    """Kafka's, as its Java client places keys."""
    m, h = 0x5BD1E995, 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = h * m & 0xFFFFFFFF ^ k
    if len(data) > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


def partition(key, partitions):
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
