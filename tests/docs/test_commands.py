"""What README and CONTRIBUTING tell people to type exists, and what they link to is there."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.farm_verbs import run_here

ROOT = Path(__file__).parent.parent.parent
PAGES = ("README.md", "CONTRIBUTING.md")


def commands(page: str) -> list[list[str]]:
    """The lines of a page's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.S)
    return [
        words
        for block in blocks
        for line in block.splitlines()
        if (words := shlex.split(line, comments=True))
    ]


def told() -> list[list[str]]:
    return [words for page in PAGES for words in commands(page)]


def test_the_pages_have_commands() -> None:
    assert len(told()) > 15


@pytest.mark.parametrize("words", [words for words in told() if words[0] == "make"], ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [words for words in told() if words[0].endswith("farm")], ids=" ".join)
def test_farm_verbs_and_their_options_exist(words: list[str]) -> None:
    verb = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
    verb = verb[:2] if words[1] in ("token", "user", "models", "local") else verb[:1]
    helped = run_here([*verb, "--help"])
    assert helped.returncode == 0, helped.stderr
    for option in (word for word in words if word.startswith("--")):
        assert option in helped.stdout, f"`farm {' '.join(verb)}` has no {option}"


@pytest.mark.parametrize("words", [words for words in told() if words[0] == "sh"], ids=" ".join)
def test_scripts_exist_and_parse(words: list[str]) -> None:
    done = subprocess.run(["sh", "-n", str(ROOT / words[1])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_project_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_the_map_names_folders_and_files_that_are_there() -> None:
    section = (ROOT / "README.md").read_text().split("## The map of the code")[1].split("##")[0]
    for row in (line for line in section.splitlines() if line.startswith("| `")):
        folders, names = (
            re.findall(r"`([\w_/]+/)`", row.split("|")[1]),
            re.findall(r"`([\w_/.]+)`", row.split("|")[2]),
        )
        for folder in folders:
            assert (ROOT / folder).is_dir(), folder
        for name in names:
            assert any((ROOT / folder / name).exists() for folder in folders), name
