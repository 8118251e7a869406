"""Code in a Python of its own, for what one process can't show twice."""

import os
import subprocess
import sys


def run_python(code, **environment):
    """The ended process, with its output."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def printed(code, **environment):
    """What the code prints; it has to end well."""
    done = run_python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
