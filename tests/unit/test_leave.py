"""`farm leave` and the owner's options of `farm join`, without a farm: what is left on the disk, and what is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from farm.cli.join import _rules
from farm.cli.local import _node_home
from farm.errors import BadInputError, ConfigurationError
from farm.single import holder
from node_agent.identity import Identity, save_identity
from node_agent.join import Membership
from node_agent.leave import leave
from node_agent.owner import OwnerRules

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "node"
    save_identity(home, Identity("n1", "attic"))
    Membership(NOWHERE, "token").save(home)
    OwnerRules(only_idle=True).save(home)
    return home


def test_a_pc_leaves_also_when_its_head_is_gone(home: Path) -> None:
    said: list[str] = []
    leave(home, said.append)
    assert [path.name for path in home.iterdir()] == ["node.json"], "its name in the farm's history stays"
    assert "does not answer" in said[0]
    assert "needs a new code" in said[-1]
    with pytest.raises(ConfigurationError, match="no node of a farm"):
        leave(home, said.append)


def test_uninstalling_removes_all_that_the_node_kept(home: Path) -> None:
    leave(home, lambda _line: None, uninstall=True)
    assert not home.exists()


def test_the_process_that_holds_a_lock_is_known_for_as_long_as_it_does(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert holder(lock) is None
    code = (
        "import sys; from pathlib import Path; from farm.single import only_one\n"
        "with only_one(Path(sys.argv[1]), '', ''):\n    print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert holder(lock) == process.pid
        process.communicate("\n", timeout=20)
    assert holder(lock) is None


def test_options_that_are_left_out_leave_the_owner_s_rules_as_they_were(tmp_path: Path) -> None:
    """A node that was started again without them must not forget what its owner asked for."""
    OwnerRules(only_idle=True, hours="22:00-08:00", max_temperature_c=80.0, cards=("GPU-1",)).save(tmp_path)
    kept = OwnerRules.load(tmp_path)
    assert _rules(tmp_path, None, None, None, None) == kept
    lifted = _rules(tmp_path, False, "all", 0.0, ["GPU-2"])
    assert lifted == OwnerRules(cards=("GPU-2",))
    assert (
        str(kept)
        == "only while nobody uses the PC; hours 22:00-08:00; no new work above 80 \N{DEGREE SIGN}C; only the cards GPU-1"
    )
    with pytest.raises(BadInputError):
        _rules(tmp_path, None, "at night", None, None)


def test_the_node_s_home_is_the_one_named_or_the_one_with_an_identity(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FARM_NODE_HOME", raising=False)
    assert _node_home(home) == home
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("FARM_DATA", str(tmp_path / "farm"))
    with pytest.raises(ConfigurationError, match="no node of a farm"):
        _node_home(None)
    save_identity(tmp_path / "farm" / "node", Identity("n2", "head"))
    assert _node_home(None) == tmp_path / "farm" / "node"
