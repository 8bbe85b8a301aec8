"""``schema study|space``: the JSON Schema of a file, for editors."""

import argparse

from coatnet_search.core.schema import json_schema
from coatnet_search.core.screen import print_json
from coatnet_search.study.file import FILES


def main(given: argparse.Namespace) -> int:
    print_json(json_schema(FILES[given.kind]), given.results)
    return 0
