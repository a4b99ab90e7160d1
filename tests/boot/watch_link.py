"""Runs in the guest: say that a path is watched, then the monotonic time at which it appears."""

import sys
import time
from pathlib import Path

path = Path(sys.argv[1])
print("watching", flush=True)  # noqa: T201 - for the host, which waits for it
while not path.exists():
    time.sleep(0.002)
sys.stdout.write(f"{time.monotonic_ns()}\n")
