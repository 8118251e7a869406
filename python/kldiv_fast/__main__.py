"""``python -m kldiv_fast``."""

import signal
import sys

from kldiv_fast._cli import main

if __name__ == "__main__":
    # An exception, as Ctrl-C is: nothing half-written is left.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    raise SystemExit(main())
