"""`python -m octvideo` is the `octvideo` command."""

import sys

from octvideo.cli import main

sys.exit(main())
