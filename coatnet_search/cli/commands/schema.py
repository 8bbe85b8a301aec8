"""``schema study|space``: the JSON Schema of a file, for editors."""

import argparse
import json

from coatnet_search.core.schema import json_schema
from coatnet_search.core.screen import json_values
from coatnet_search.study.file import FILES


def main(given: argparse.Namespace) -> int:
    given.results.write(json.dumps(json_values(json_schema(FILES[given.kind])), indent=2, ensure_ascii=False) + "\n")
    return 0
