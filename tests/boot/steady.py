"""Runs in the guest: read the board at 1 kHz for some seconds, print what was counted as JSON."""

import json
import sys
import time
from dataclasses import asdict

from firmware_bridge import Link, SampleBlock

with Link(sys.argv[1], baud=921600, rate_hz=1000.0) as link:
    begun_s = None
    n = 0
    while begun_s is None or time.monotonic() < begun_s + float(sys.argv[2]):
        item = link.receive(5.0)
        if isinstance(item, SampleBlock):
            begun_s = begun_s or time.monotonic()
            n += len(item)
    seconds = time.monotonic() - begun_s
    status = link.board_status
    counts = asdict(link.statistics)
json.dump({"measured_hz": n / seconds, "board_rx_bad": status.n_rx_bad, **counts}, sys.stdout)
