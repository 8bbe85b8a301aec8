"""``schema study|space``: the JSON Schema of a file, for editors."""

import argparse
import json

from coatnet_search.config import FILES
from coatnet_search.schema import json_schema
from coatnet_search.screen import plain


def main(given: argparse.Namespace) -> int:
    given.results.write(json.dumps(plain(json_schema(FILES[given.kind])), indent=2, ensure_ascii=False) + "\n")
    return 0
