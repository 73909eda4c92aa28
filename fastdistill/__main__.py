"""python -m fastdistill: the command line."""

import sys

from fastdistill.cli import main

sys.exit(main())
