"""Ray's command lines, environment, ports and temporary directory."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm import daemons
from farm.daemons import RayPorts
from farm.errors import ConfigurationError


def head(tmp_path: Path, node_id: str | None = "N1") -> list[str]:
    return daemons.head_command(
        address="10.0.0.1", ports=RayPorts(7000), temp_dir=tmp_path, object_store_mib=400, node_id=node_id
    )


def test_a_head_without_a_local_node_carries_no_label(tmp_path):
    assert "--labels=farm-node=N1" in head(tmp_path)
    assert not [option for option in head(tmp_path, None) if option.startswith("--labels")]


def test_a_node_says_nothing_that_only_a_head_may(tmp_path):
    """`ray start --address` aborts when it is given --port or --include-dashboard."""
    command = daemons.node_command(
        head="10.0.0.1:7000",
        address="10.0.0.2",
        ports=RayPorts(7000),
        temp_dir=tmp_path,
        object_store_mib=400,
        node_id="N2",
    )
    names = {option.partition("=")[0] for option in command}
    assert "--address" in names
    assert not names & {"--head", "--port", "--include-dashboard", "--no-monitor"}


@given(st.integers(1024, 65400))
def test_no_two_daemons_of_a_block_share_a_port(base):
    ports = RayPorts(base)
    named = ports.named()
    single = [port for name, port in named.items() if "worker" not in name]
    assert len({base, *single}) == len(single) + 1
    assert max(base, *single) < named["min-worker-port"] < named["max-worker-port"] == ports.last <= 65535
    assert set(ports.listened()) == {base, *single}


def test_the_environment_has_our_token_and_nothing_of_another_ray(tmp_path):
    """A user's RAY_ADDRESS makes `ray start --head` refuse, and a token in RAY_AUTH_TOKEN wins over our file."""
    base = {"PATH": "/bin", "RAY_ADDRESS": "1.2.3.4:1", "RAY_AUTH_TOKEN": "x", "FARM_MODELS_FILE": "/m.toml"}
    found = daemons.ray_environment(base, token=tmp_path / "t", node_home=tmp_path / "n")
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "t")
    assert found["FARM_NODE_HOME"] == str(tmp_path / "n")
    assert found["FARM_MODELS_FILE"] == "/m.toml"
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert float(found["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) == 0
    assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN"} & set(found)


@pytest.mark.parametrize("depth", [1, 30])
def test_socket_paths_fit_however_deep_the_directories_are(tmp_path, monkeypatch, depth):
    """A Unix socket's path has 107 characters at most; Ray ends with "AF_UNIX path length cannot exceed" beyond."""
    deep = tmp_path.joinpath(*["directory"] * depth)
    deep.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    found = daemons.temp_dir_for(deep / "data")
    assert len(f"{found}/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store.12345") <= 107
    assert found == daemons.temp_dir_for(deep / "data")
    assert found != daemons.temp_dir_for(deep / "other")


def test_the_temporary_directory_is_made_ready_for_another_start(tmp_path):
    """`ray start --head` refuses where `ray_current_cluster` names the wanted address and a raylet is just ending."""
    place = tmp_path / "ray"
    daemons.prepare_temp_dir(place)
    assert place.stat().st_mode & 0o777 == 0o700
    (place / "ray_current_cluster").write_text("10.0.0.1:7000")
    for second in "1234":
        (place / f"session_2026-01-01_00-00-0{second}_1_1").mkdir()
    daemons.prepare_temp_dir(place)
    assert [entry.name for entry in place.iterdir()] == ["session_2026-01-01_00-00-04_1_1"]


def test_a_link_in_the_place_of_the_temporary_directory_is_refused(tmp_path):
    """The directory lies in /tmp under a name that others can work out."""
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "ray").symlink_to(target)
    with pytest.raises(ConfigurationError, match="somebody else"):
        daemons.prepare_temp_dir(tmp_path / "ray")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ray.exceptions.AuthenticationError: Invalid auth token", "the head's Ray refused our token"),
        ("RuntimeError: Version mismatch: The cluster was started with", "another version"),
        ("ConnectionError: Ray is trying to start at 1.2.3.4:1, but is already running", "another Ray"),
        ("Failed to connect to GCS at address 10.0.0.1:6380 within 30 seconds", "did not answer"),
        (
            "Exiting because this node manager has mistakenly been marked as dead by the GCS",
            "had given this PC up",
        ),
        ("ValueError: something new", "ValueError: something new"),
    ],
)
def test_what_ray_says_at_its_end_becomes_a_reason(line, reason):
    assert reason in daemons.why_it_failed(["Local node IP: 1.2.3.4", line])


def test_ray_that_said_nothing_has_a_reason_too():
    assert daemons.why_it_failed([]) == "it said nothing"


def test_the_way_to_this_pc_is_this_pc():
    assert daemons.own_address_towards("127.0.0.1", 9) == "127.0.0.1"
    assert daemons.is_loopback("127.0.0.1")
    assert not daemons.is_loopback("10.1.2.3")
