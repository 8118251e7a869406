"""``python -m kldiv_fast``, and ``kldiv_fast``."""

import signal
import sys

from kldiv_fast._cli import main


def command() -> int:
    # An exception, as Ctrl-C is: nothing half-written is left.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return main()


if __name__ == "__main__":
    raise SystemExit(command())
