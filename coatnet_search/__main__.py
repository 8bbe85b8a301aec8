"""``python -m coatnet_search`` is ``coatnet-search``."""

import sys

from coatnet_search.cli.main import main

sys.exit(main())
