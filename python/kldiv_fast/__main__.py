"""``python -m kldiv_fast``."""

from kldiv_fast._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
