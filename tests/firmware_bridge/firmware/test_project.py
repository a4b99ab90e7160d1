"""What edge-gru firmware writes: a schema that compilers read back byte for byte, and projects."""

import subprocess

import pytest

from firmware_bridge import FormatError, Schema, SchemaError
from firmware_bridge.firmware import EXAMPLES, project_files, schema_header
from firmware_bridge.protocol.board_schema import RAW_DTYPES, BoardChannel, BoardSchema

ODD = BoardSchema(
    (
        BoardChannel('say "hi"', "°C"),
        BoardChannel("what??/n", "m/s²"),
        BoardChannel("a-b", "\\"),
        BoardChannel("a b", "", 0.5, -1.0),
        BoardChannel("0", "?"),
    ),
    "<i2",
)
PRINT = r"""
#include <stdio.h>
#include "schema.h"
int main(void) {
    fwrite(EDGE_LINK_SCHEMA, 1, sizeof EDGE_LINK_SCHEMA - 1, stdout);
    return sizeof(edge_link_raw_value) * EDGE_LINK_N_CHANNELS != EDGE_LINK_N_SAMPLE_BYTES;
}
"""


def run_c(need, folder, source, *options):
    (folder / "it.c").write_text(source)
    command = [need("cc"), "-std=c99", "-Wall", "-Wextra", "-Werror", *options, "it.c", "-o", "it"]
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run([str(folder / "it")], check=True, capture_output=True).stdout


def write(folder, header):
    for name, content in project_files("none", header, "it").items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "board", [ODD, *(BoardSchema.of(Schema.unnamed(3), d) for d in RAW_DTYPES)]
)
def test_the_compiler_reads_back_the_schemas_bytes(need, tmp_path, board):
    write(tmp_path, schema_header(board))
    assert run_c(need, tmp_path, PRINT) == board.to_wire()


def test_every_name_becomes_a_distinct_constant(need, tmp_path):
    header = schema_header(ODD, outputs=["y", "Y"], alarms=["bearing worn", "über"])
    write(tmp_path, header)
    source = r"""
    #include <stdio.h>
    #include "schema.h"
    int main(void) {
        printf("%d %d %d %d ", EDGE_LINK_CHANNEL_SAY_HI, EDGE_LINK_CHANNEL_A_B,
               EDGE_LINK_CHANNEL_A_B_3, EDGE_LINK_CHANNEL_0);
        printf("%d %d ", EDGE_LINK_OUTPUT_Y, EDGE_LINK_OUTPUT_Y_1);
        printf("%lu %lu", EDGE_LINK_ALARM_BEARING_WORN, EDGE_LINK_ALARM_BER);
        return 0;
    }
    """
    assert run_c(need, tmp_path, source) == b"0 2 3 4 0 1 1 2"


def test_a_buffer_too_small_for_the_outputs_is_a_compile_error_that_says_so(need, tmp_path):
    write(tmp_path, schema_header(ODD, outputs=[f"y{i}" for i in range(40)]))
    (tmp_path / "it.c").write_text('#include "schema.h"\n')
    command = [need("cc"), "-fsyntax-only", "it.c"]
    failed = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert "EDGE_LINK_RX_BODY_BYTES=174" in failed.stderr
    subprocess.run([*command, "-DEDGE_LINK_RX_BODY_BYTES=174"], cwd=tmp_path, check=True)


def test_the_origin_cannot_end_the_comment(need, tmp_path):
    write(tmp_path, schema_header(ODD, origin="a*/b.toml"))
    assert run_c(need, tmp_path, PRINT) == ODD.to_wire()


def test_a_sample_that_fits_no_frame_is_refused():
    with pytest.raises(SchemaError, match="1012 bytes a sample, 254 channels of <f4 are 1016"):
        schema_header(BoardSchema.of(Schema.unnamed(254)))
    schema_header(BoardSchema.of(Schema.unnamed(253)))


def test_a_schema_that_no_board_can_tell_is_refused():
    long = BoardSchema(tuple(BoardChannel(f"{i}{'n' * 600}") for i in range(120)), "<i1")
    with pytest.raises(SchemaError, match="at most 65535 bytes"):
        schema_header(long)


def test_schemas_are_read_from_toml_as_from_the_wire():
    text = b'dtype = "<i2"\nrate_hz = [100.0]\nchannels = [{ name = "a", unit = "g", scale = 0.5 }]'
    board = BoardSchema.from_toml(text)
    assert board == BoardSchema((BoardChannel("a", "g", 0.5),), "<i2", (100.0,))
    assert BoardSchema.from_wire(board.to_wire()) == board


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"dtype = ", "in TOML"),
        (b"", "channels"),
        (b"channels = []", "at least one channel"),
        (b'dtype = "i2"\nchannels = [{ name = "a" }]', "raw types"),
        (b'channels = [{ name = "a", scale = 0.0 }]', "scale other than 0"),
        (b'channels = [{ name = "a", scale = nan }]', "scale other than 0"),
        (b'channels = [{ name = "a", offset = inf }]', "finite offset"),
        (b'rate_hz = [-1.0]\nchannels = [{ name = "a" }]', "positive rates"),
        (b'rate_hz = nan\nchannels = [{ name = "a" }]', "positive rates"),
        (b'rate_hz = { min = 9.0, max = 1.0 }\nchannels = [{ name = "a" }]', "smaller end"),
    ],
)
def test_toml_that_is_no_schema_is_refused_with_the_reason(text, reason):
    with pytest.raises(SchemaError, match=reason):
        BoardSchema.from_toml(text)


@pytest.mark.parametrize(
    ("example", "names"),
    [
        ("none", {"edge_link.c", "edge_link.h", "schema.h"}),
        ("arduino", {"edge_link.c", "edge_link.h", "schema.h", "pump.ino"}),
        (
            "platformio",
            {
                "lib/edge_link/edge_link.c",
                "lib/edge_link/edge_link.h",
                "include/schema.h",
                "src/main.cpp",
                "platformio.ini",
            },
        ),
        (
            "qemu",
            {
                "edge_link.c",
                "edge_link.h",
                "schema.h",
                "main.c",
                "startup.c",
                "mps2.ld",
                "Makefile",
            },
        ),
    ],
)
def test_a_project_has_what_its_build_looks_for(example, names):
    assert set(project_files(example, "", "pump")) == names
    assert example in EXAMPLES


def test_an_unknown_example_is_refused_with_those_there_are():
    with pytest.raises(FormatError, match="none, arduino, platformio, qemu, got 'mbed'"):
        project_files("mbed", "", "pump")
