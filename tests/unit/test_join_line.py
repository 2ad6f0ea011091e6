"""The lines of "Add a PC" and their scripts: what is in them, that each link of the chain of checksums holds, and that they parse."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

import farm
from dashboard.joining.lines import is_plain, linux_line, linux_script, windows_line, windows_script
from dashboard.joining.package import PACKAGES, make_package, package
from farm.auth import new_token
from farm.errors import FarmError
from node_agent.torch_choice import pip_arguments
from node_agent.uninstall import MARK, UNIT
from tests.unit.test_doctor import BLACKWELL, CPU, PASCAL

HEAD = "http://192.168.1.5:8000"
ROOT = Path(farm.__file__).parents[1]
SCRIPT = linux_script(package(), "farm-1")


def test_the_wheel_is_the_same_to_the_byte_and_whole() -> None:
    """Its checksum is in lines that were pasted into chats and notes: a restart of the head must not break them."""
    made = make_package(ROOT)
    assert made.wheel == package().wheel
    held = zipfile.ZipFile(BytesIO(made.wheel))
    names = held.namelist()
    for folder in PACKAGES:
        assert f"{folder}/__init__.py" in names
    assert {
        "dashboard/joining/install.sh",
        "dashboard/joining/lock/gpu.txt",
        "dashboard/static/farm.css",
        "farm/catalogue/rules.toml",
    } <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "deploy/"))]
    record = next(name for name in names if name.endswith("/RECORD"))
    assert {line.split(",")[0] for line in held.read(record).decode().splitlines()} == set(names)


def test_pip_installs_the_wheel_and_a_head_that_runs_from_it_makes_the_same_one(tmp_path: Path) -> None:
    """A head need not be a checkout: what another head served is enough, locks and all."""
    wheel = tmp_path / package().name
    wheel.write_bytes(package().wheel)
    there = tmp_path / "there"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", there, wheel],
        check=True,
        capture_output=True,
    )  # fmt: skip
    program = (
        f"import sys; sys.path.insert(0, {str(there)!r}); from dashboard.joining.package import package; "
        "import farm; print(farm.__file__, package().wheel_sha256)"
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout.split()
    assert told[0].startswith(str(there))
    assert told[1] == package().wheel_sha256


def test_a_head_without_lock_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(FarmError, match="no lock files") as caught:
        make_package(tmp_path)
    assert "deploy/setup.sh" in caught.value.remedy


def test_the_script_is_filled_and_parses_in_posix_shell() -> None:
    text = SCRIPT.decode()
    assert not re.findall(r"@[A-Z_0-9]+@", text)
    assert package().wheel_sha256 in text
    for name in ("head.txt", "gpu.txt"):
        assert package().lock_sha256(name) in text
    assert f"unit='{UNIT}'" in text
    assert MARK in text
    for shell in filter(shutil.which, ("sh", "dash", "bash", "busybox")):
        command = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
        subprocess.run(command, input=SCRIPT, check=True)


@pytest.mark.parametrize(("share", "made"), [(0.3, 0), (0.6, 0), (0.97, 0), (1.0, 1)])
def test_half_a_script_does_nothing_and_without_a_python_it_says_what_to_install(
    share: float, made: int, tmp_path: Path
) -> None:
    tools, home = tmp_path / "bin", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    for tool in ("id", "mkdir"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    shell = shutil.which("sh") or ""
    script = SCRIPT[: int(len(SCRIPT) * share)]
    ran = subprocess.run(
        [shell, "-s", HEAD, "code"],
        input=script,
        env={"HOME": str(home), "PATH": str(tools), "FARM_AS_USER": "root"},
        capture_output=True,
        check=False,
    )
    assert len(list(home.iterdir())) == made
    if made:
        wanted = ".".join(platform.python_version_tuple()[:2])
        assert ran.returncode == 1
        assert f"sudo apt-get install python{wanted} python{wanted}-venv" in ran.stderr.decode()
        assert f"sudo dnf install python{wanted}" in ran.stderr.decode()


def test_the_line_holds_the_checksum_the_code_and_one_head() -> None:
    line = linux_line(SCRIPT, HEAD, "c0de")
    assert hashlib.sha256(SCRIPT).hexdigest() in line
    assert line.endswith(f"sh $f {HEAD} c0de")
    assert '"' not in line, "PowerShell would lose it"
    assert linux_line(SCRIPT, HEAD).endswith(f"sh $f {HEAD}")
    assert "\n" not in line
    subprocess.run(["sh", "-n", "-c", line], check=True)


def test_a_script_that_was_changed_on_the_way_does_not_run(tmp_path: Path) -> None:
    """The farm's network is not encrypted: somebody in it could answer in the head's place."""
    site = tmp_path / "join"
    site.mkdir()
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(f'#!/bin/sh\nfor last; do :; done\ncp {site}/install.sh "$last"\n')
    curl.chmod(0o755)
    ran = tmp_path / "ran"
    honest = f'#!/bin/sh\necho "$@" > {ran}\n'.encode()
    line = linux_line(honest, HEAD, "c0de")
    path = {"PATH": f"{curl.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    (site / "install.sh").write_bytes(honest + b"echo evil\n")
    assert subprocess.run(["sh", "-c", line], env=path, capture_output=True, check=False).returncode != 0
    assert not ran.exists()
    (site / "install.sh").write_bytes(honest)
    subprocess.run(["sh", "-c", line], env=path, check=True)
    assert ran.read_text() == f"{HEAD} c0de\n"


def parsed(text: bytes) -> tree_sitter.Node:
    language = tree_sitter.Language(tree_sitter_powershell.language())
    return tree_sitter.Parser(language).parse(text).root_node


def test_the_powershell_parses_and_says_that_it_was_not_run() -> None:
    script = windows_script(SCRIPT)
    assert not parsed(script).has_error
    assert parsed(script.replace(b"exit 1", b"exit 1 }")).has_error, "the parser finds what is wrong"
    assert b"parse this script and do not run it" in script
    assert hashlib.sha256(SCRIPT).hexdigest().encode() in script
    line = windows_line(script, HEAD, "c0de")
    assert not parsed(line.encode()).has_error
    assert hashlib.sha256(script).hexdigest() in line
    assert "-Code 'c0de'" in line


@pytest.mark.parametrize(("head", "curl"), [(HEAD, "-fsS"), (HEAD.replace("http", "https"), "-fsSk")])
def test_what_windows_hands_to_wsl_is_the_line_for_linux(head: str, curl: str) -> None:
    """The two are written in two files; put together as PowerShell would, they must be the same words."""
    script = windows_script(SCRIPT).decode()
    sha = re.search(r"\$LinuxSha256 = '(\w+)'", script)
    assert sha is not None
    assert "$Head.StartsWith('https:')) { '-fsSk' } else { '-fsS' }" in script
    values = {"$Head": head, "$Curl": curl, "$Code": "c0de", "$LinuxSha256": sha[1]}
    parts = []
    for name in ("Fetch", "Check", "Run"):
        source = re.search(rf"^\${name} = (.+)$", script, re.M)
        assert source is not None
        pieces = re.findall(r"'(?:[^']|'')*'|\$\w+", source[1])
        parts.append(
            "".join(values[one] if one.startswith("$") else one[1:-1].replace("''", "'") for one in pieces)
        )
    assert " && ".join(parts) == linux_line(SCRIPT, head, "c0de")


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        (HEAD, True),
        ("https://farm.example:443", True),
        ("http://[fe80::1]:8000", True),
        ("http://a;reboot:80", False),
        ("http://$(x)", False),
        ("http://a'b", False),
        ("http://a/b c", False),
    ],
)
def test_an_address_that_a_shell_would_read_is_not_put_into_a_line(url: str, plain: bool) -> None:
    assert is_plain(url) is plain


def test_the_torch_for_a_pc_is_chosen_by_its_cards() -> None:
    assert pip_arguments([CPU]) == ""
    assert (
        pip_arguments([PASCAL, CPU])
        == "torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126"
    )
    assert pip_arguments([BLACKWELL]).endswith("cu130")
    assert pip_arguments([replace(PASCAL, compute_capability=None)]).endswith("cu126")
    assert pip_arguments([replace(PASCAL, compute_capability=(3, 5))]) == "", "no torch serves Kepler"


def test_no_token_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """One code in 64 began with a dash: PowerShell took it for a parameter's name."""
    monkeypatch.setattr("secrets.token_urlsafe", lambda _size: "-abc")
    assert new_token() == "_abc"


def test_a_checkout_s_own_setup_installs_the_build_for_old_cards(tmp_path: Path) -> None:
    """After `make test` the CPU build was there, which to pip is the same version: it stayed, and the PC's card was refused."""
    (tmp_path / "deploy" / "lock").mkdir(parents=True)
    for name in ("setup.sh", "constraints.txt", "lock/gpu.txt"):
        shutil.copy(Path("deploy", name), tmp_path / "deploy" / name)
    (tmp_path / "pyproject.toml").touch()
    for place in ("bin/python3", ".venv/bin/python"):
        python = tmp_path / place
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
        python.chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(tmp_path / "deploy" / "setup.sh"), "gpu"], env=path, check=True)
    (line,) = (line for line in (tmp_path / "said").read_text().splitlines() if "torch==" in line)
    assert set(pip_arguments([PASCAL]).split()) <= set(line.split())
