"""Gives the rights that docs/deployment.md names: python acls.py BOOTSTRAP DEPLOYMENT.md

Reads its lines `kafka-acls.sh … --add --allow-principal User:U --operation O … --topic|--group|--cluster NAME`, does
what they say, and prints how many there were.
"""

import re
import sys

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

KINDS = {"--topic": ResourceType.TOPIC, "--group": ResourceType.GROUP}


def constant(operation):
    return re.sub(r"(?<!^)([A-Z])", r"_\1", operation).upper()


def bindings(line):
    words = line.split()
    pairs = list(zip(words, words[1:]))
    (principal,) = [value for flag, value in pairs if flag == "--allow-principal"]
    prefixed = ("--resource-pattern-type", "prefixed") in pairs
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    resources = [(KINDS[flag], value) for flag, value in pairs if flag in KINDS]
    if "--cluster" in words:
        resources.append((ResourceType.BROKER, "kafka-cluster"))
    assert resources, f"no resource: {line}"
    for operation in [value for flag, value in pairs if flag == "--operation"]:
        for kind, name in resources:
            yield AclBinding(
                kind, name, pattern, principal, "*", AclOperation[constant(operation)], AclPermissionType.ALLOW
            )


def main(bootstrap, path):
    lines = [line for line in open(path, encoding="utf-8") if line.startswith("kafka-acls.sh")]
    wanted = [binding for line in lines for binding in bindings(line)]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_acls(wanted, request_timeout=30).values():
        future.result()
    print(len(lines))


main(*sys.argv[1:])
