"""``python -m kldiv_fast``."""

from kldiv_fast._cli import main

raise SystemExit(main())
