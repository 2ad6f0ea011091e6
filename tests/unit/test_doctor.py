"""What `farm doctor` finds: a truth table over facts, and the facts themselves with NVML, torch and the head faked at their edges."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from farm.doctor import Facts, Finding, HeadFacts, Level, TorchFacts, diagnose
from farm.model import CardKind
from farm.settings import DataDirectory
from farm.single import only_one
from farm.wire import CardReport
from node_agent import checkup
from node_agent.identity import Identity, save_identity
from node_agent.join import Membership
from tests.fake_nvml import recorded

CPU = CardReport("CPU-1", CardKind.CPU, "CPU (old)")
PASCAL = CardReport(
    "GPU-1", CardKind.CUDA, "GTX 1080", vram_gib=8.0, usable_gib=7.4, compute_capability=(6, 1), driver="550.120"
)  # fmt: skip
BLACKWELL = replace(PASCAL, id="GPU-2", name="RTX 5070", compute_capability=(12, 0), driver="580.65.06")
TORCH = TorchFacts("2.13.0+cu126", "12.6", diffusers=True)
HEAD = HeadFacts(
    "http://head:8000", farm_id="f1", ray="2.60.0", python="3.11.2", line="curl LINE", build="0.1.0+aa"
)
WELL = Facts(
    python="3.11.7",
    ray="2.60.0",
    pip="PIP install",
    system="debian",
    cards=(PASCAL,),
    home="/home/ann/node",
    disk_free_gib=100.0,
    torch=TORCH,
    ffmpeg="7.1",
    ports=(6380, 6499),
    head=HEAD,
    build="0.1.0+aa",
)


def bad(facts: Facts) -> list[Finding]:
    return [finding for finding in diagnose(facts) if finding.level is not Level.GOOD]


def test_a_pc_on_which_all_is_well_has_nothing_to_mend() -> None:
    found = diagnose(WELL)
    assert {finding.level for finding in found} == {Level.GOOD}
    assert [finding.about for finding in found] == [
        "python", "ray", "head", "card", "torch", "ports", "disk", "ffmpeg"
    ]  # fmt: skip
    assert all(not finding.command for finding in found)
    assert found[3].says == "GTX 1080, 7.4 GiB for the farm, sm_61, driver 550.120."


NO_KERNEL = (
    "This torch (2.13.0+cu130) was built for sm_75 and newer, GTX 1080 is sm_61 (Pascal): install torch 2.13.0 from PyTorch's cu126 "
    "index: `pip install torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126`"
)
WRONG: dict[str, tuple[dict[str, object], str, str, str]] = {
    "python too new": ({"python": "3.14.0", "head": None}, "python", "3.11 to 3.13", "apt-get install python3.11"),
    "python of the head": ({"python": "3.12.3"}, "python", "the head has 3.11.2", "curl LINE"),
    "no ray": ({"ray": None}, "ray", "not installed", 'PIP install "ray==2.60.0"'),
    "other ray": ({"ray": "2.9.0"}, "ray", "the head has 2.60.0", 'PIP install "ray==2.60.0"'),
    "other farm": ({"build": "0.1.0+bb"}, "farm", "the head has 0.1.0+aa", "curl LINE"),
    "silent head": (
        {"head": HeadFacts("http://head:8000", silent="timed out")}, "head", "timed out", "farm up --host 0.0.0.0"
    ),
    "another farm": ({"member_of": "f2"}, "head", "another farm", "farm leave"),
    "wrong build": (
        {"cards": (replace(PASCAL, trouble=NO_KERNEL),)}, "card", "sm_61", "PIP install torch==2.13.0+cu126 --index-url"
    ),
    "old driver": ({"cards": (replace(PASCAL, driver="470.256.02"),)}, "driver", "525.60.13", "nvidia-driver"),
    "card that hangs": (
        {"cards": (replace(PASCAL, trouble="It did not finish. Restart that PC."),)}, "card", "finish", "sudo reboot"
    ),
    "card lost": ({"cards": (replace(PASCAL, notice="A card does not answer."),)}, "card", "answer", "sudo reboot"),
    "no driver": (
        {"cards": (CPU,), "torch": None, "undriven": ("0000:01:00.0",)}, "driver", "0000:01:00.0", "nvidia-driver"
    ),
    "no torch": ({"torch": None}, "torch", "drafts only", "PIP install torch==2.13.0+cu126 --index-url"),
    "no diffusers": ({"torch": replace(TORCH, diffusers=False)}, "torch", "diffusers", "PIP install diffusers"),
    "no ports": ({"ports": None}, "ports", "120 ports", "--ray-port"),
    "full disk": ({"disk_free_gib": 0.4}, "disk", "Only 0.4 GiB", "--home"),
    "no ffmpeg": ({"ffmpeg": None, "ffmpeg_trouble": "gone."}, "ffmpeg", "gone", "imageio-ffmpeg"),
    "wsl behind nat": ({"wsl_network": "nat"}, "network", "networkingMode=mirrored", "wsl.exe --shutdown"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_each_trouble_is_one_line_with_the_command_that_mends_it(case: str) -> None:
    change, about, says, command = WRONG[case]
    (found,) = bad(replace(WELL, **change))  # type: ignore[arg-type]  # the table's values fit their fields
    assert (found.level, found.about) == (Level.WRONG, about)
    assert says in found.says
    assert command in found.command
    assert "\n" not in found.says + found.command


HINTS: dict[str, tuple[dict[str, object], str]] = {
    "small card": ({"cards": (replace(PASCAL, usable_gib=1.4),)}, "too little for diffusion"),
    "card in use": ({"cards": (replace(PASCAL, others_gib=4.5),)}, "hold 4.5 of 7.4 GiB"),
    "little disk": ({"disk_free_gib": 5.0}, "weights"),
}


@pytest.mark.parametrize("case", HINTS)
def test_what_only_limits_a_pc_is_a_hint(case: str) -> None:
    change, says = HINTS[case]
    (found,) = bad(replace(WELL, **change))  # type: ignore[arg-type]  # the table's values fit their fields
    assert found.level is Level.HINT
    assert says in found.says


def test_the_build_is_the_one_that_serves_most_of_the_cards() -> None:
    """Pascal needs CUDA 12.6's build and Blackwell 13.0's; a PC with both gets what serves more of them."""
    commands = [
        bad(replace(WELL, torch=None, cards=cards))[0].command
        for cards in ((BLACKWELL,), (PASCAL, PASCAL, BLACKWELL), (PASCAL, BLACKWELL))
    ]
    assert [command.rpartition("/")[2] for command in commands] == ["cu130", "cu126", "cu126"]


def test_a_pc_without_a_card_or_at_work_is_well() -> None:
    assert bad(replace(WELL, cards=(CPU,), torch=None)) == []
    assert bad(replace(WELL, ports=None, at_work=True)) == []
    assert bad(replace(WELL, wsl_network="mirrored")) == []


@pytest.fixture
def told_head() -> Iterator[str]:
    """A head that tells its versions, on a real port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = {
                "farm_id": "f1",
                "ray_version": "2.1.0",
                "python_version": "3.11.1",
                "line": "curl LINE",
                "farm_version": "0.1.0+aa",
            }
            body = json.dumps(told if self.path == "/join/farm" else []).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(5)
    server.server_close()


@pytest.mark.parametrize(
    "pc", ["no-driver", "driver-mismatch", "no-permission", "card-lost", "mig", "eight-cards", "wsl2"]
)
def test_recorded_pcs_are_gathered_and_their_troubles_have_commands(
    pc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(pc).install(monkeypatch)
    monkeypatch.setattr(checkup, "_system", lambda: "debian")
    monkeypatch.setattr(checkup, "card_trouble_apart", lambda *_: None)
    facts = replace(checkup.gather(tmp_path / "node", 21000, devices=tmp_path), torch=TORCH)
    wrong = [finding for finding in diagnose(facts) if finding.about in ("card", "driver")]
    expected = {
        "driver-mismatch": "sudo reboot",
        "no-permission": "sudo usermod -aG $(stat -c %G /dev/nvidia0) $USER",
        "card-lost": "sudo reboot",
        "mig": "-mig 0",
        "eight-cards": "nvidia-driver",  # one finding for the one driver, which is too old for all eight
    }
    commands = [finding.command for finding in wrong if finding.level is Level.WRONG]
    assert len(commands) == (1 if pc in expected else 0), wrong
    assert all(expected[pc] in command for command in commands)


def test_a_card_is_tested_alone_and_not_while_the_node_works_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several cards the test must not always look at the first; at work it would take half a gigabyte from a render."""
    recorded("rtx-3060-and-1050-ti").install(monkeypatch)
    asked: list[str] = []
    monkeypatch.setattr(checkup, "card_trouble_apart", lambda *told: asked.append(told[3]))
    facts = checkup.gather(tmp_path, 21000, devices=tmp_path)
    assert asked == [card.id for card in facts.cards]
    with only_one(tmp_path / "lock", "", ""):
        facts = checkup.gather(tmp_path, 21000, devices=tmp_path)
    assert len(asked) == 2
    assert facts.at_work


def test_a_home_that_may_not_be_looked_at_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of another user ended `farm doctor` with a trace."""
    recorded("no-driver").install(monkeypatch)
    closed, real = tmp_path / "closed", Path.stat

    def stat(path: Path, **how: bool) -> os.stat_result:
        if path.is_relative_to(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(checkup, "holder", lambda lock: lock.stat().st_size)
    facts = checkup.gather(closed / "node", 21000, devices=tmp_path)
    assert not facts.at_work
    assert facts.disk_free_gib > 0


def test_on_the_head_the_disk_of_the_head_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was that of a home which nothing is kept in, so that a head whose disk was full was well."""
    monkeypatch.setattr("node_agent.identity.user_data_path", lambda _name: tmp_path / "joined")
    head = DataDirectory(tmp_path / "head")
    monkeypatch.setenv("FARM_DATA", str(head.root))
    assert checkup.home_here() == tmp_path / "joined"
    save_identity(head.node_home, Identity("n1", "head"))
    assert checkup.home_here() == head.node_home
    save_identity(tmp_path / "joined", Identity("n2", "spare"))
    assert checkup.home_here() == tmp_path / "joined"


def test_the_head_s_own_node_is_at_work_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the head its cards were tested in mid-render, and what the farm itself held was said to be other programs'."""
    recorded("rtx-3060-and-1050-ti").install(monkeypatch)
    monkeypatch.setattr(checkup, "card_trouble_apart", lambda *_: pytest.fail("tested"))
    monkeypatch.setattr(checkup, "readings", lambda **_: pytest.fail("what the farm holds was counted"))
    head = DataDirectory(tmp_path / "head")
    monkeypatch.setenv("FARM_DATA", str(head.root))
    save_identity(head.node_home, Identity("n1", "head"))
    with only_one(head.root / "lock", "", ""):
        assert checkup.gather(tmp_path / "node", 21000, devices=tmp_path).at_work


def test_a_card_on_the_bus_that_no_driver_shows_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded("no-driver").install(monkeypatch)
    for name, vendor, kind in (
        ("0000:01:00.0", "0x10de", "0x030000"),
        ("0000:01:00.1", "0x10de", "0x040300"),
        ("0000:00:02.0", "0x8086", "0x030000"),
    ):
        device = tmp_path / "bus" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")
    facts = checkup.gather(tmp_path / "node", 21000, devices=tmp_path / "bus")
    assert facts.undriven == ("0000:01:00.0",), "the card's sound device and Intel's graphics are none"


def test_the_head_that_was_joined_or_named_is_asked(
    told_head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded("no-driver").install(monkeypatch)
    Membership(told_head, "token", "f2").save(tmp_path)
    facts = checkup.gather(tmp_path, 21000, devices=tmp_path)
    assert facts.head == HeadFacts(
        told_head, farm_id="f1", ray="2.1.0", python="3.11.1", line="curl LINE", build="0.1.0+aa"
    )
    assert {finding.about for finding in bad(facts)} == {"ray", "farm", "head"}
    silent = checkup.gather(tmp_path, 21000, "127.0.0.1:9", devices=tmp_path).head
    assert silent is not None
    assert silent.url == "http://127.0.0.1:9"
    assert "refused" in silent.silent


def test_the_verb_prints_a_line_for_each_finding_and_exits_by_them(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "farm.cli.main",
        "doctor",
        "--home",
        str(tmp_path),
        "--ray-port",
        "21000",
    ]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    findings = json.loads(told.stdout)
    assert told.returncode == any(finding["level"] == "wrong" for finding in findings), told.stderr
    assert {finding["about"] for finding in findings} >= {"python", "ray", "torch", "ports", "disk", "ffmpeg"}
    silent = subprocess.run([*command, "--head", "127.0.0.1:9"], capture_output=True, text=True, check=False)
    assert silent.returncode == 1
    assert len(silent.stdout.splitlines()) == len(findings) + 1
    (line,) = [line for line in silent.stdout.splitlines() if line.startswith("wrong head")]
    assert line.endswith("Mend: farm up --host 0.0.0.0  (on the head)")
