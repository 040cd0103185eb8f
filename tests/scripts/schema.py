"""Which events of stdin (one a line) keep to a JSON Schema: schema.py SCHEMA; prints true or false for each."""

import json
import sys

from jsonschema import Draft202012Validator

schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for line in sys.stdin:
    print(json.dumps(validator.is_valid(json.loads(line))))
