"""The library for every kind of core, its size, its examples, and the fuzzer on it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import firmware_bridge.firmware
from firmware_bridge.firmware import project_files, schema_header
from firmware_bridge.protocol.board_schema import BoardSchema

pytestmark = pytest.mark.slow  # all together

HERE = Path(__file__).parent
LIBRARY = Path(firmware_bridge.firmware.__file__).parent / "library"
STRICT = ["-std=c99", "-pedantic", "-ffreestanding", "-Os"]
STRICT += ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]
ARM = "arm-none-eabi-gcc -mthumb -mcpu="
COMPILERS = {
    "cortex-m0": f"{ARM}cortex-m0",
    "cortex-m4": f"{ARM}cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16",
    "riscv32": "riscv64-unknown-elf-gcc -march=rv32imac -mabi=ilp32",
    "avr": "avr-gcc -mmcu=atmega328p",
    "gcc": "gcc",
    "clang": "clang",
}
CORE = Path("/usr/share/arduino/hardware/arduino/avr")
FUZZ_S = int(os.environ.get("EDGE_GRU_FUZZ_S", "3"))
HELPERS_OF_GCC = re.compile(r"__aeabi_\w+|__gnu_thumb1_\w+")
N_MOST_FLASH, N_MOST_RAM = 4096, 1024


def build(need, target, source, out, *options):
    compiler, *flags = COMPILERS[target].split()
    command = [need(compiler), *flags, *STRICT, *options, f"-I{LIBRARY}", "-c", str(source)]
    subprocess.run([*command, "-o", str(out)], check=True)
    return out


@pytest.mark.parametrize("target", COMPILERS)
def test_it_compiles_without_a_warning(need, target, tmp_path):
    build(need, target, LIBRARY / "edge_link.c", tmp_path / "edge_link.o")


def test_the_header_is_c_plus_plus_too(need, tmp_path):
    (tmp_path / "it.cpp").write_text('#include "edge_link.h"\nedge_link board;\n')
    command = [need("g++"), "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run([*command, f"-I{LIBRARY}", str(tmp_path / "it.cpp")], check=True)


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "riscv32"])
def test_flash_and_ram(need, target, tmp_path):
    built = build(need, target, LIBRARY / "edge_link.c", tmp_path / "edge_link.o")
    size_of = COMPILERS[target].split()[0].replace("gcc", "size")
    size = subprocess.run([need(size_of), str(built)], check=True, capture_output=True, text=True)
    text, data, bss = map(int, size.stdout.splitlines()[1].split()[:3])
    assert text + data < N_MOST_FLASH
    assert data + bss == 0
    (tmp_path / "it.c").write_text(
        f'#include "edge_link.h"\ntypedef char fits[sizeof(edge_link) < {N_MOST_RAM} ? 1 : -1];\n'
    )
    build(need, target, tmp_path / "it.c", tmp_path / "it.o")


def test_it_calls_nothing_of_libc(need, tmp_path):
    built = build(need, "cortex-m0", LIBRARY / "edge_link.c", tmp_path / "edge_link.o")
    names = subprocess.run(
        [need("arm-none-eabi-nm"), "-u", str(built)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {name for name in names if name != "U" and not HELPERS_OF_GCC.fullmatch(name)} == set()


@pytest.fixture
def sketch(tmp_path):
    """The Arduino example for a board with two channels."""
    schema = BoardSchema.from_toml(b'dtype = "<i2"\nchannels = [{ name = "a" }, { name = "b" }]')
    folder = tmp_path / "sensor"
    folder.mkdir()
    for name, content in project_files("arduino", schema_header(schema), "sensor").items():
        (folder / name).write_bytes(content)
    return folder


def test_the_arduino_sketch_compiles_for_an_uno(need, sketch):
    if not CORE.is_dir():
        pytest.skip("arduino-core-avr is not installed")
    command = [need("avr-g++"), "-mmcu=atmega328p", "-DF_CPU=16000000L", "-DARDUINO=10819", "-Os"]
    command += ["-std=gnu++11", "-fno-exceptions", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{sketch}", f"-I{CORE / 'cores/arduino'}", f"-I{CORE / 'variants/standard'}"]
    command += ["-x", "c++", "-c", "sensor.ino", "-o", "sensor.o"]
    subprocess.run(command, check=True, cwd=sketch)


@pytest.fixture
def project(tmp_path):
    """The PlatformIO example for a board with two channels."""
    schema = BoardSchema.from_toml(b'dtype = "<i2"\nchannels = [{ name = "a" }, { name = "b" }]')
    folder = tmp_path / "sensor"
    for name, content in project_files("platformio", schema_header(schema), "sensor").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


PROJECT = ["src/main.cpp", "lib/edge_link/edge_link.c"]


def test_the_platformio_project_is_a_program_for_its_uno(need, project):
    """Compiled and linked with the Arduino core, as PlatformIO does it; it fits the chip."""
    if not CORE.is_dir():
        pytest.skip("arduino-core-avr is not installed")
    core = sorted((CORE / "cores/arduino").glob("*.c*"))
    options = ["-mmcu=atmega328p", "-DF_CPU=16000000L", "-DARDUINO=10819", "-Os"]
    options += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    options += ["-Iinclude", "-Ilib/edge_link", f"-I{CORE / 'cores/arduino'}"]
    options += [f"-I{CORE / 'variants/standard'}"]
    made = []
    for source in [*PROJECT, *map(str, core)]:
        is_c = source.endswith(".c")
        language = ["-std=gnu11"] if is_c else ["-std=gnu++11", "-fno-exceptions"]
        # Debian's avr-gcc is older than the core: its C++ lacks this one constant.
        of_the_core = ["-w", "-DDECIMAL_DIG=__DECIMAL_DIG__"]
        strict = ["-Wall", "-Wextra", "-Werror"] if source in PROJECT else of_the_core
        made.append(f"{len(made)}.o")
        command = [need("avr-gcc" if is_c else "avr-g++"), *options, *language, *strict]
        subprocess.run([*command, "-c", source, "-o", made[-1]], check=True, cwd=project)
    subprocess.run([need("avr-gcc"), *options, *made, "-o", "it.elf"], check=True, cwd=project)
    size = subprocess.run(
        [need("avr-size"), "it.elf"], check=True, capture_output=True, text=True, cwd=project
    )
    text, data, bss = map(int, size.stdout.splitlines()[1].split()[:3])
    assert text + data < 32_256  # beside the boot loader
    assert data + bss < 1536  # of 2048; the rest is stack


ARDUINO = """
#include <stdint.h>
#define LED_BUILTIN 25
enum { OUTPUT = 1, LOW = 0, HIGH = 1, A0 = 26 };
extern "C" unsigned long micros(), millis();
extern "C" int analogRead(int);
extern "C" void pinMode(int, int), digitalWrite(int, int);
struct SerialPort { void begin(unsigned long); int available(), read(), availableForWrite();
                    unsigned write(uint8_t); };
extern SerialPort Serial;
"""


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "riscv32"])
def test_the_platformio_project_asks_for_nothing_but_arduino(need, project, target):
    """The cores of its other boards are in no package; their documented functions will do."""
    (project / "include" / "Arduino.h").write_text(ARDUINO)
    compiler, *flags = COMPILERS[target].split()
    options = [*flags, "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding"]
    options += ["-Iinclude", "-Ilib/edge_link"]
    command = [need(compiler.replace("gcc", "g++")), *options, "-std=gnu++17", "-fno-exceptions"]
    subprocess.run([*command, "-c", PROJECT[0], "-o", "main.o"], check=True, cwd=project)
    command = [need(compiler), *options, "-c", PROJECT[1], "-o", "edge_link.o"]
    subprocess.run(command, check=True, cwd=project)


@pytest.mark.timeout(FUZZ_S + 120)
def test_no_input_breaks_it(need, tmp_path):
    """Sanitizers watch addresses and undefined behaviour; ``make fuzz-firmware`` takes longer."""
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    fuzzer = tmp_path / "fuzz"
    command = [need("clang"), "-std=c99", "-g", "-O1", "-fsanitize=fuzzer,address,undefined"]
    command += ["-fno-sanitize-recover=all", f"-I{LIBRARY}", str(HERE / "fuzz.c")]
    made = subprocess.run(
        [*command, "-o", str(fuzzer)], check=False, capture_output=True, text=True
    )
    if "libclang_rt" in made.stderr:
        pytest.skip("the sanitizers of clang are not installed: libclang-rt-14-dev")
    assert made.returncode == 0, made.stderr
    run = subprocess.run(
        [str(fuzzer), f"-max_total_time={FUZZ_S}", "-timeout=10", "-seed=1"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert int(re.search(r"Done (\d+) runs", run.stderr)[1]) > 1000
