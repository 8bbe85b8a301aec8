"""``python -m coatnet_search``: the command line."""

import sys

from coatnet_search.cli import main

sys.exit(main())
