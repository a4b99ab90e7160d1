"""Writes vectors.txt, the frames that both ends of the protocol must agree upon, byte for byte.

Run it as ``python tests/firmware_bridge/firmware/make_vectors.py`` after a change of the protocol.
A line is: kind, epoch, seq, t_us, payload, wire; payload and wire in hexadecimal, - for none.
"""

import random
from pathlib import Path

from firmware_bridge.framing import encode_frame
from firmware_bridge.protocol.messages import Kind

SCHEMA = b'{"channels":[{"name":"x","unit":"\xc2\xb0C"},{"name":"y"}],"dtype":"<i2"}'
VECTORS = Path(__file__).with_name("vectors.txt")
_LENGTHS = (0, 1, 8, 20, 36)
_FULL_RUNS = (242, 243, 244, 245, 246)  # about the 254 bytes that a COBS block holds
_LONGEST = {Kind.LOG: 1014, Kind.SCHEMA: 1012, Kind.BATCH: 1012}


def rows():
    """Yield kind, epoch, seq, t_us and payload of every vector."""
    rng = random.Random(7)
    for kind in Kind:
        lengths = [*_LENGTHS, *(_FULL_RUNS if kind in (Kind.LOG, Kind.BATCH) else ())]
        payloads = [rng.randbytes(n) for n in lengths] + [bytes(9), b"\xff" * 9]
        payloads += [b"\x55" * n for n in lengths if n in _FULL_RUNS]
        if kind in _LONGEST:
            payloads.append(rng.randbytes(_LONGEST[kind]))
        for payload in payloads:
            yield kind, rng.randrange(256), rng.randrange(65536), rng.getrandbits(32), payload
        yield kind, 0, 0, 0, b""
        yield kind, 255, 65535, 2**32 - 1, b"\xff" * 4


def text():
    """Return the content of the file."""
    lines = [f"schema {SCHEMA.hex()}"]
    for kind, epoch, seq, t_us, payload in rows():
        wire = encode_frame(kind, payload, epoch=epoch, seq=seq, t_us=t_us, schema=SCHEMA)
        lines.append(f"{int(kind)} {epoch} {seq} {t_us} {payload.hex() or '-'} {wire.hex()}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(text())
