"""Runs in the guest: tell the host which names appear in a folder, as soon as they do."""

import ctypes
import os
import struct
import sys

_EVENT = struct.Struct("iIII")  # of inotify; the last is the size of the name behind it
_CREATED, _MOVED_TO = 0x100, 0x80

libc = ctypes.CDLL(None)
handle = libc.inotify_init()
libc.inotify_add_watch(handle, sys.argv[1].encode(), _CREATED | _MOVED_TO)
port = os.open(sys.argv[2], os.O_WRONLY)
os.write(port, b"watching\n")
while True:
    events = os.read(handle, 65536)
    while events:
        n_bytes = _EVENT.size + _EVENT.unpack_from(events)[3]
        os.write(port, events[_EVENT.size : n_bytes].rstrip(b"\0") + b"\n")
        events = events[n_bytes:]
