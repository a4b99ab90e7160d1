"""Runs in the guest: print the monotonic time at which a path appears."""

import sys
import time
from pathlib import Path

path = Path(sys.argv[1])
while not path.exists():
    time.sleep(0.002)
sys.stdout.write(f"{time.monotonic_ns()}\n")
