"""Entry point of ``python -m avslib.cli``."""

import sys

from avslib.cli import main

sys.exit(main())
