"""The limits of containers and services on the PC's memory, as the kernel writes them."""

from pathlib import Path

import psutil
import pytest

from node_agent import hostram
from node_agent.cgroups import memory_limit

GIB = 1024**3
MOST = 9223372036854771712


def first(group: Path, limit: int, used: int = 0, inactive: int = 0, active: int = 0) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (group / "memory.usage_in_bytes").write_text(f"{used}\n")
    (group / "memory.stat").write_text(
        f"cache 1\ninactive_file 7\ntotal_inactive_file {inactive}\ntotal_active_file {active}\n"
    )


def second(group: Path, limit: int | str, used: int = 0, inactive: int = 0, active: int = 0) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nactive_file {active}\n")


def found(tmp_path: Path, own: str) -> tuple[int, int] | None:
    (tmp_path / "own").write_text(own)
    return memory_limit(tmp_path / "own", tmp_path / "cgroup")


def test_a_container_has_what_its_group_allows_and_caches_of_files_are_free(tmp_path: Path) -> None:
    """A worker in a container of 8 GiB on a PC with 64 was told that 60 are free, and was ended by the kernel while weights came."""
    second(tmp_path / "cgroup", 8 * GIB, used=6 * GIB, inactive=2 * GIB, active=GIB)
    assert found(tmp_path, "0::/\n") == (8 * GIB, 5 * GIB)


def test_the_first_version_has_it_under_another_name_and_the_host_s_path(tmp_path: Path) -> None:
    first(tmp_path / "cgroup" / "memory", 4 * GIB, used=3 * GIB, inactive=GIB)
    own = "9:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab\n"
    assert found(tmp_path, own) == (4 * GIB, 2 * GIB)


@pytest.mark.parametrize("most", [8 * GIB, "max"])
def test_where_the_kernel_begins_to_hold_a_service_back_is_its_limit_too(
    tmp_path: Path, most: int | str
) -> None:
    """Under systemd's MemoryHigh all of the PC's memory was counted on, and the render stood nearly still once it was over that."""
    second(tmp_path / "cgroup", most, used=2 * GIB)
    (tmp_path / "cgroup" / "memory.high").write_text(f"{3 * GIB}\n")
    assert found(tmp_path, "0::/\n") == (3 * GIB, GIB)


def test_the_tightest_group_around_it_counts(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    second(root / "farm.slice" / "farm.service", 6 * GIB, used=GIB)
    second(root / "farm.slice", 16 * GIB, used=15 * GIB)
    second(root / "farm.slice" / "other.service", GIB, used=GIB)
    assert found(tmp_path, "0::/farm.slice/farm.service\n") == (6 * GIB, GIB)


@pytest.mark.parametrize("own", ["", "0::/\n", "0::/../../..\n", "nonsense\n", "4:memory:/a\n", "4:memory\n"])
def test_without_a_limit_there_is_none(tmp_path: Path, own: str) -> None:
    root = tmp_path / "cgroup"
    second(root, "max", used=GIB)
    first(root / "memory", MOST, used=GIB)
    first(root / "memory" / "a", MOST, used=GIB)
    second(tmp_path, GIB)  # not among the groups
    assert found(tmp_path, own) is None


def test_more_than_is_allowed_leaves_nothing(tmp_path: Path) -> None:
    second(tmp_path / "cgroup", 2 * GIB, used=3 * GIB)
    assert found(tmp_path, "0::/\n") == (2 * GIB, 0)


def test_no_linux_has_none(tmp_path: Path) -> None:
    assert memory_limit(tmp_path / "nowhere", tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "in_all", "free"),
    [((8 * GIB, GIB), 8.0, 1.0), (None, 64.0, 60.0), ((128 * GIB, 127 * GIB), 64.0, 60.0)],
)
def test_a_pc_has_the_less_of_its_memory_and_its_limit(
    limit: tuple[int, int] | None, in_all: float, free: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        total, available = 64 * GIB, 60 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr(hostram, "memory_limit", lambda: limit)
    assert hostram.ram_gib() == (in_all, free)
    assert hostram.free_ram_gib() == free


def test_this_pc_has_some() -> None:
    in_all, free = hostram.ram_gib()
    assert 0 < free < in_all <= psutil.virtual_memory().total / GIB
