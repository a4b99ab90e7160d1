"""The C library built for this machine, as a board that the tests can talk to."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import firmware_bridge.firmware
from firmware_bridge.protocol.board_schema import BoardSchema

HERE = Path(__file__).parent
LIBRARY = Path(firmware_bridge.firmware.__file__).parent / "library"
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]


@pytest.fixture(scope="session")
def need():
    """Return the path of a tool, or skip the test."""

    def find(tool):
        path = shutil.which(tool)
        if path is None:
            pytest.skip(f"{tool} is not installed")
        return path

    return find


@pytest.fixture(scope="session")
def library(need, tmp_path_factory):
    """The shared object, bodies as long as Python's."""
    target = tmp_path_factory.mktemp("library") / "edge_link.so"
    command = [need("cc"), *WARNINGS, "-O2", "-shared", "-fPIC", f"-I{LIBRARY}"]
    command += ["-DEDGE_LINK_RX_BODY_BYTES=1024", str(HERE / "shim.c"), "-o", str(target)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(target))
    for name in ("board_new", "board_accepted", "board_prediction"):
        getattr(loaded, name).restype = ctypes.c_void_p
    for name in ("is_streaming", "host_is_alive", "alarm_is_lit", "reset_is_wanted", "sample"):
        getattr(loaded, f"board_{name}").restype = ctypes.c_bool
    for name in ("boot", "sample_due", "encode", "log"):
        getattr(loaded, f"board_{name}").restype = ctypes.c_bool
    return loaded


class CBoard:
    """One board; every function of the shim without its prefix, board included."""

    def __init__(self, library, schema, n_sample_bytes, n_tx_bytes=4096):
        self._library = library
        self._board = ctypes.c_void_p(
            library.board_new(schema, len(schema), n_sample_bytes, n_tx_bytes)
        )

    def __getattr__(self, name):
        function = getattr(self._library, f"board_{name}")
        return lambda *arguments: function(self._board, *arguments)

    def free(self):
        self._library.board_free(self._board)

    def sent(self, n_most=65536):
        """Take the bytes that the board transmits."""
        room = ctypes.create_string_buffer(n_most)
        n_bytes = self.transmit(room, n_most)
        return room.raw[:n_bytes]

    def decoded(self, stream):
        """Return the bodies that the decoder accepts."""
        bodies = []
        for start in range(0, len(stream), 16_384):
            part = stream[start : start + 16_384]
            self.decode(part, len(part))
            n_bytes = ctypes.c_uint32()
            found = ctypes.string_at(self.accepted(ctypes.byref(n_bytes)), n_bytes.value)
            while found:
                size = int.from_bytes(found[:2], "little")
                bodies.append(found[2 : 2 + size])
                found = found[2 + size :]
        return bodies

    def outputs(self):
        """Return the last prediction's values."""
        n_values = ctypes.c_uint32()
        values = self.prediction(ctypes.byref(n_values))
        return np.frombuffer(ctypes.string_at(values, 4 * n_values.value), np.float32)


class CFirmware:
    """The C library as the program of a simulated board."""

    def __init__(self, library, schema, n_tx_bytes=4096):
        board = BoardSchema.of(schema)
        self._wire = board.to_wire()
        self.board = CBoard(library, self._wire, board.n_sample_bytes, n_tx_bytes)
        self._boot_id = 0
        self.n_acks_to_lose = 0

    @property
    def is_streaming(self):
        return self.board.is_streaming()

    @property
    def period_us(self):
        return self.board.period_us()

    @property
    def epoch(self):
        return self.board.epoch()

    def boot(self, t_us):
        self._boot_id += 1
        assert self.board.boot(self._boot_id, t_us & 0xFFFFFFFF)
        return self.board.sent()

    def greet(self, t_us):
        return b""

    def take(self, chunk, t_us):
        self.board.set_time(t_us & 0xFFFFFFFF)
        self.board.receive(chunk, len(chunk))
        self.board.poll()
        answers = self.board.sent()
        return answers + self.boot(t_us) if self.board.reset_is_wanted() else answers

    def tick(self, t_us):
        self.board.set_time(t_us & 0xFFFFFFFF)
        self.board.poll()
        return self.board.sent()

    def sample(self, values, t_us):
        self.board.set_time(t_us & 0xFFFFFFFF)
        self.board.sample(t_us & 0xFFFFFFFF, values.astype("<f4").tobytes())
        return self.board.sent()


@pytest.fixture
def make_board(library):
    """Make boards that are freed when the test ends."""
    boards = []

    def make(schema=b'{"channels":[{"name":"a"},{"name":"b"}]}', n_sample_bytes=8, **settings):
        board = CBoard(library, schema, n_sample_bytes, **settings)
        boards.append(board)
        return board

    yield make
    for board in boards:
        board.free()


@pytest.fixture
def make_firmware(library, schema):
    """Make programs of boards that are freed when the test ends."""
    made = []

    def make(schema=schema, **settings):
        made.append(CFirmware(library, schema, **settings))
        return made[-1]

    yield make
    for firmware in made:
        firmware.board.free()


@pytest.fixture(scope="session")
def make_one_board(library):
    """Return the same board each time, freshly booted: for tests that hypothesis repeats."""
    boards = {}

    def make(schema, n_sample_bytes):
        if schema not in boards:
            boards[schema] = CBoard(library, schema, n_sample_bytes)
        boards[schema].boot(1, 0)
        boards[schema].sent()
        return boards[schema]

    yield make
    for board in boards.values():
        board.free()
