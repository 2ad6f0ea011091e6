"""Which farm a PC runs, to the letter."""

import re
from pathlib import Path

import farm
from farm.build import build, build_of


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_build_tells_what_a_node_runs_and_nothing_else(tmp_path: Path) -> None:
    shared = {"farm/wire.py": "a", "node_agent/join.py": "b"}
    one = tree(tmp_path / "one", shared | {"dashboard/app.py": "c"})
    same = tree(
        tmp_path / "same", shared | {"dashboard/app.py": "d", "farm/__pycache__/wire.pyc": "compiled"}
    )
    assert build_of(one) == build_of(same)
    other = tree(tmp_path / "other", shared | {"node_agent/join.py": "B"})
    moved = tree(tmp_path / "moved", {"farm/wire.py": "a", "node_agent/b.py": "b"})
    assert len({build_of(one), build_of(other), build_of(moved)}) == 3


def test_this_farm_has_one() -> None:
    assert re.fullmatch(rf"{re.escape(farm.__version__)}\+[0-9a-f]{{12}}", build())
