from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from edge_gru.doctor import Machine, Process, Status, examine, nvidia, resources, serving, wire
from edge_gru.doctor import board as boards
from edge_gru.engines import table
from edge_gru.errors import EngineUnavailableError

J6, J7, AGX = "jetpack_6_2_orin_nano", "jetpack_7_2_orin_nano", "jetpack_7_2_agx_orin"
FILES = Path(__file__).parent / "boards"
VENV = "/usr/bin/python3 -m venv --system-site-packages .venv"
HIDDEN = {"modules": {}, "distributions": {}}
BINDING_3_10 = {"/usr/lib/python3.10/dist-packages/tensorrt/__init__.py": ""}


def verdicts(machine):
    return {check.name: (check.status.value, check.says) for check in examine(machine)}


@pytest.mark.parametrize("name", [J6, J7, AGX])
def test_every_file_of_a_board_names_where_it_was_published(name):
    board = msgspec.toml.decode((FILES / f"{name}.toml").read_bytes())
    assert {file["source"] for file in board["files"].values()} == set(board["sources"])


def test_a_jetpack_6_2_board_with_loose_clocks(board):
    found = verdicts(board(J6))
    assert found["board"] == (
        "PASS",
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    )
    assert found["jetpack"] == ("PASS", "L4T 36.4.7, JetPack 6.2.1+b38")
    assert found["tensorrt"] == ("PASS", "10.3.0.30 of the system")
    assert found["tensorrt in Python"] == (
        "PASS",
        "10.3.0 from /usr/lib/python3.10/dist-packages/tensorrt",
    )
    assert found["cuda"] == ("PASS", "12.6.68-1")
    assert found["gpu"] == ("PASS", "17000000.gpu: compute capability 8.7")
    assert found["power mode"] == (
        "PASS",
        "25W (1); there are also 15W (0), MAXN_SUPER (2), 7W (3)",
    )
    assert found["clocks"] == (
        "WARN",
        "follow the load: CPU 729 to 1344 MHz; GPU 306 to 918 MHz; governor schedutil",
    )
    assert found["system"][1].startswith("Ubuntu 22.04.5 LTS, kernel 5.15.148-tegra, aarch64")
    assert "FAIL" not in {status for status, _ in found.values()}


def test_a_fresh_jetpack_7_2_board_has_no_tensorrt_yet(board):
    machine = board(J7, version=(3, 12), **HIDDEN)
    found = verdicts(machine)
    assert found["jetpack"] == ("PASS", "L4T 39.2.0, JetPack 7.2")
    assert found["tensorrt"][0] == "WARN"
    assert nvidia.tensorrt(machine).fix == "sudo apt install nvidia-jetpack"
    assert nvidia.cuda(machine).fix == "sudo apt install nvidia-jetpack"
    assert found["tensorrt in Python"][0] == "SKIP"
    assert found["power mode"] == ("PASS", "15W (0); there are also 7W (1)")
    assert found["heat"] == ("PASS", "hottest tj-thermal 48.2 C, nothing is slowed down")


def test_held_clocks_pass(board):
    assert boards.clocks(board(AGX)) == boards.Check(
        "clocks", Status.PASS, "held: CPU 2201 MHz; GPU 1300 MHz; governor schedutil"
    )


def test_a_thor_lists_its_gpu_clocks_by_domain(board):
    clocks = {"min": "315000000", "max": "1575000000"}
    files = {f"/sys/class/devfreq/gpu-gpc-0/{k}_freq": v for k, v in clocks.items()}
    machine = board(J7, {**files, "/sys/class/devfreq/17000000.gpu/max_freq": "x"})
    assert "GPU 315 to 1575 MHz" in boards.clocks(machine).says


@pytest.mark.parametrize(
    ("release", "status", "says"),
    [
        ("# R36 (release), REVISION: 3.0, GCID: 1", Status.WARN, "JetPack 6.0: its TensorRT is"),
        ("# R35 (release), REVISION: 6.1, GCID: 1", Status.WARN, "L4T 35.6.1, of an unknown"),
        ("# R39 (release), REVISION: 2.1, GCID: 1", Status.PASS, "L4T 39.2.1, JetPack 7.2.1"),
        ("# R40 (release), REVISION: 0.0, GCID: 1", Status.PASS, "of an unknown JetPack"),
        ("garbage", Status.SKIP, "only on a Jetson"),
    ],
)
def test_releases_are_told_apart(write, process, release, status, says):
    check = boards.jetpack(Machine(write({"/etc/nv_tegra_release": release}), process()))
    assert check.status == status
    assert says in check.says


@pytest.mark.parametrize(
    ("facts", "says", "fix"),
    [
        ({"is_virtual": True, "sees_system_packages": False}, "virtual environment hides", VENV),
        ({"is_conda": True, "is_virtual": True}, "conda's Python", VENV),
        ({"version": (3, 12)}, "is for Python 3.10, this is 3.12", VENV),
        ({"executable": "/opt/python"}, "/opt/python does not find", VENV),
    ],
)
def test_what_hides_tensorrt_is_named(board, facts, says, fix):
    check = nvidia.binding(board(J6, BINDING_3_10, **HIDDEN, **facts))
    assert check.status == Status.WARN
    assert says in check.says
    assert fix in check.fix


def test_a_missing_binding_is_installed_with_apt(board):
    status = "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.3.0.30-1\n"
    check = nvidia.binding(board(J6, {"/var/lib/dpkg/status": status}, **HIDDEN))
    assert check.fix == "sudo apt install python3-libnvinfer"


def test_pips_tensorrt_fails_on_jetpack_6_alone(board):
    modules = {"tensorrt": "/home/me/.venv/lib/python3.10/site-packages/tensorrt"}
    versions = {"tensorrt": "11.4.0.106", "tensorrt_cu12": "11.4.0.106"}
    facts = {"modules": modules, "distributions": versions, "is_virtual": True}
    check = nvidia.binding(board(J6, **facts))
    assert check.status == Status.FAIL
    assert check.fix.startswith("pip uninstall tensorrt tensorrt_cu12, then")
    assert nvidia.binding(board(J7, **facts)).status == Status.PASS


def test_an_old_tensorrt_is_refused(write, process):
    status = "Package: libnvinfer8\nStatus: install ok installed\nVersion: 8.6.2.3-1+cuda12.2\n"
    check = nvidia.tensorrt(Machine(write({"/var/lib/dpkg/status": status}), process()))
    assert check.status == Status.WARN
    assert check.says == "8.6.2.3 is older than 10.3 and is not used"


def test_removed_packages_do_not_count(write, process):
    status = "Package: libnvinfer10\nStatus: deinstall ok config-files\nVersion: 10.3.0.30-1\n"
    assert Machine(write({"/var/lib/dpkg/status": status}), process()).packages == {}


def test_the_gpu_needs_its_groups_and_nodes(board):
    check = nvidia.gpu(board(J6, groups=frozenset({"video"})))
    assert (check.status, check.fix.split(",")[0]) == (
        Status.WARN,
        "sudo usermod -aG render $USER",
    )
    assert nvidia.gpu(board(J6, groups=frozenset(), is_root=True)).status == Status.PASS
    assert "renderD" in nvidia.gpu(board(J6, {"/dev/dri/card0": ""})).says
    with_node = {"/dev/dri/card0": "", "/dev/dri/renderD128": ""}
    assert nvidia.gpu(board(J6, with_node)).status == Status.PASS


def test_the_gpu_of_a_pc_is_known_by_its_driver(write, process):
    root = write({"/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64  580.95.05"})
    assert nvidia.gpu(Machine(root, process())).says.startswith("NVIDIA's driver 580.95.05: ")


def test_a_gpu_that_cuda_cannot_use_is_told(board):
    check = nvidia.gpu(board(J6, cuda_error="cudaErrorNoDevice (100)"))
    assert check.status == Status.WARN
    assert check.says.endswith("CUDA does not start: cudaErrorNoDevice (100)")


def test_heat_that_slows_down_is_told(board):
    brake = {"type": "cpufreq-cpu0\n", "cur_state": "3\n"}
    files = {f"/sys/class/thermal/cooling_device1/{k}": v for k, v in brake.items()}
    check = boards.heat(board(J7, files))
    assert (check.status, "slowed down by cpufreq-cpu0" in check.says) == (Status.WARN, True)
    fan = {"type": "pwm-fan\n", "cur_state": "2\n"}
    files = {f"/sys/class/thermal/cooling_device1/{k}": v for k, v in fan.items()}
    assert boards.heat(board(J7, files)).status == Status.PASS


def test_over_current_and_a_hot_sensor_are_told(board):
    files = {"/sys/class/hwmon/hwmon2/oc3_event_cnt": "7\n"}
    assert "over-current, 7 times" in boards.heat(board(J7, files)).says
    hot = {"/sys/class/thermal/thermal_zone8/temp": "97500\n"}
    machine = board(J7, {**hot, "/sys/class/hwmon/hwmon2/oc3_event_cnt": "0\n"})
    assert boards.heat(machine).status == Status.FAIL


@pytest.mark.parametrize("millidegc", ["0", "-256000", "hot"])
def test_sensors_that_are_off_are_no_temperature(write, process, millidegc):
    root = write({"/sys/class/thermal/thermal_zone0/temp": millidegc})
    assert boards.heat(Machine(root, process())).status == Status.SKIP


def test_ports_that_may_not_be_opened_fail(write, process):
    root = write({"/dev/ttyACM0": "", "/dev/ttyTHS1": "", "/dev/serial/by-id/usb-X": ""})
    assert wire.serial_ports(Machine(root, process())).says == "/dev/ttyACM0, /dev/ttyTHS1"
    check = wire.serial_ports(Machine(root, process(closed=frozenset({"ttyACM0"}))))
    assert check.status == Status.FAIL
    assert check.says == "this user may not open /dev/ttyACM0"
    assert "dialout" in check.fix


def test_usb_ports_need_names_that_survive(write, process):
    root = write({"/dev/ttyTHS1": ""})
    assert wire.serial_ports(Machine(root, process())).status == Status.PASS
    check = wire.serial_ports(Machine(write({"/dev/ttyUSB0": ""}), process()))
    assert (check.status, "survive a replug" in check.says) == (Status.WARN, True)


def test_without_a_port_the_group_is_told(write, process):
    assert wire.serial_ports(Machine(write({}), process())).status == Status.SKIP
    check = wire.serial_ports(Machine(write({}), process(groups=frozenset())))
    assert check.status == Status.WARN


def test_services_that_take_ports_are_found(write, process):
    installed = "Package: {}\nStatus: install ok installed\nVersion: 1\n\n"
    status = installed.format("modemmanager") + installed.format("brltty")
    machine = Machine(write({"/var/lib/dpkg/status": status}), process())
    assert wire.modem_manager(machine) == wire.Check("ModemManager", Status.PASS, "not active")
    assert wire.braille(machine).status == Status.WARN
    unit = "/etc/systemd/system/multi-user.target.wants/ModemManager.service"
    assert wire.modem_manager(Machine(write({unit: ""}), process())).status == Status.WARN
    Path(machine.path(unit)).unlink()
    running = Machine(write({"/proc/77/comm": "ModemManager\n"}), process())
    assert wire.modem_manager(running).status == Status.WARN


@pytest.mark.parametrize(
    ("free", "status"), [(99 << 20, Status.FAIL), (900 << 20, Status.WARN), (2 << 30, Status.PASS)]
)
def test_disk_space_is_judged(write, process, free, status):
    assert resources.disk(Machine(write({}), process(free=free))).status == status


def test_the_clock_is_judged(write, process):
    kept = write({"/proc/5/comm": "systemd-timesyn\n"})
    assert (
        resources.clock(Machine(kept, process())).says == "synchronised, kept by systemd-timesyncd"
    )
    assert resources.clock(Machine(kept, process(synced=False))).status == Status.WARN
    check = resources.clock(Machine(kept, process(synced=False, now_s=13.5)))
    assert (check.status, check.says[:15]) == (Status.FAIL, "says 1970-01-01")


def test_memory_is_judged(write, process):
    text = "MemTotal: 7800000 kB\nMemAvailable: {} kB\nSwapTotal: 4000000 kB\nSwapFree: {} kB\n"

    def judge(available, free):
        root = write({"/proc/meminfo": text.format(available, free)})
        return resources.memory(Machine(root, process()))

    assert judge(5_000_000, 4_000_000).status == Status.PASS
    assert judge(400_000, 4_000_000).status == Status.WARN
    assert "586 MB swapped out" in judge(5_000_000, 3_400_000).says
    assert judge(5_000_000, 3_400_000).status == Status.WARN


def test_engines_that_are_missing_are_told(write, process, monkeypatch):
    machine = Machine(write({}), process(modules={}))
    assert serving.native(machine).status == Status.WARN
    assert serving.onnxruntime(machine).fix == "pip install 'edge-gru[onnxruntime]'"
    rows = {name: row for name, row in table.ENGINES.items() if not row.serves}
    monkeypatch.setattr(serving, "ENGINES", rows)
    assert serving.engines(machine).status == Status.FAIL


@pytest.mark.parametrize("name", [J6, J7, AGX])
def test_whatever_is_not_well_has_one_line_that_mends_it(board, name):
    facts = {"groups": frozenset(), "synced": False, "free": 0, **HIDDEN}
    for check in examine(board(name, **facts)):
        needs_fix = check.status in (Status.WARN, Status.FAIL)
        assert bool(check.fix) == needs_fix
        assert "\n" not in check.fix + check.says


def test_an_empty_root_raises_nothing(tmp_path, process):
    assert len(examine(Machine(tmp_path, process()))) == len(verdicts(Machine(tmp_path, process())))


def test_the_machine_that_runs_the_tests_can_be_looked_at():
    process = Process()
    assert process.version == sys.version_info[:2]
    assert process.modules["onnxruntime"].endswith("onnxruntime")
    assert process.distributions["onnxruntime"]
    assert process.free_bytes(Path("/no/such/folder")) > 0
    assert "ready:" in serving.engines(Machine()).says
    with suppress(EngineUnavailableError):  # where there is none, it is told
        assert "compute capability" in process.gpu()


def test_the_verb_prints_and_tells_by_its_exit_code(call, board):
    root = board(J6).root
    result = call("doctor", "--root", root, "--json")
    report = json.loads(result.stdout)
    by_name = {check["name"]: check for check in report["checks"]}
    assert by_name["jetpack"]["says"] == "L4T 36.4.7, JetPack 6.2.1+b38"
    assert result.exit_code == (0 if report["passed"] else 1)
    (root / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("99000\n")
    result = call("doctor", "--root", root)
    assert result.exit_code == 1
    assert "FAIL  heat" in result.stdout
    assert "-> cool it" in result.stdout
