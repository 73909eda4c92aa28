"""python -m fastdistill, and the program `fastdistill`: the command line."""

import _signal  # type: ignore[import-not-found]
import sys

# Importing takes a tenth of a second.  Whoever interrupts that wants the program to be gone, not to read where it was.  (`signal`
# itself has enumerations, which take longer to make than Python takes to start.)
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # an ignored signal stays ignored
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from fastdistill.cli import main

if __name__ == "__main__":
    sys.exit(main())
