"""A farm with TLS: a PC joins by the line and renders, nobody without a certificate of the farm's is heard, and the wire tells nothing."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from farm import daemons
from farm.certificates import fingerprint
from farm.tls import TlsFiles, trust
from farm.video import verify
from tests.network.farms import FARM, PORT, Head, Node
from tests.network.netbed import Bed, require, wait_until
from tests.network.test_line import prepared
from tests.pictures import street

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]

PLAIN_DRIVER = """
import sys, ray
ray.init(address=sys.argv[1], namespace="farm", log_to_driver=False, logging_level="ERROR")
print("LET IN", len(ray.nodes()))
"""


class SecureHead(Head):
    """`farm up --tls` on a machine."""

    def start(self) -> None:
        self.url = f"https://{self.machine.address}:{PORT}"
        options = ("--data", str(self.data.root), "--host", self.machine.address, "--port", str(PORT))
        self.up = self.machine.start([*FARM, "up", "--tls", "--no-local-node", *options], "up")
        self.ready_after_s = self.up.wait_for("Ctrl-C ends the farm", 90)

    @property
    def ca(self) -> Path:
        return TlsFiles.in_folder(self.data.tls).ca


@contextmanager
def tapped(interface: str) -> Iterator[bytearray]:
    """All that passes a network interface, as bytes."""
    heard, over = bytearray(), threading.Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:  # 3: ETH_P_ALL
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        tap.bind((interface, 0))
        tap.settimeout(0.2)

        def listen() -> None:
            while not over.is_set():
                try:
                    heard.extend(tap.recv(65536))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join()


def test_a_pc_joins_by_the_line_renders_and_nobody_else_is_heard(tmp_path: Path) -> None:
    require()
    with Bed(tmp_path, 2) as bed:
        head = SecureHead(bed.machines[0], {})
        node = Node(bed.machines[1], head, "attic")
        head.start()
        admin = head.data.admin_token.read_text().strip()
        bearer = {"authorization": f"Bearer {admin}"}
        known = trust(head.url, head.ca)
        answer = httpx.post(
            f"{head.url}/api/v1/tokens", json={}, headers=bearer, verify=known, trust_env=False
        )
        assert answer.status_code == 201, answer.text
        code, line = answer.json()["token"], answer.json()["linux"]
        assert f"{head.url}/join/install.sh" in line

        home = tmp_path / "home"
        home.mkdir()
        env = {"HOME": str(home), "FARM_PROGRAM": str(prepared(home / "program")), "PYTHONPATH": ""}
        env |= {"FARM_NODE_HOME": str(node.home)}
        picture = head.machine.directory / "street.png"
        street(640, 480).image.save(picture)
        clip = head.machine.directory / "clip.mp4"
        with tapped(node.machine._link) as heard:
            joined = node.machine.start(["sh", "-c", line], "line", env)
            seconds = joined.wait_for("Connected", 90)
            print(f"joined {seconds:.1f} s after the line was pasted")
            client = ("--head", head.url, "--token", admin, "--output", str(clip))
            command = [*FARM, "submit", str(picture), "--preset", "draft", "--prompt", "pan left", *client]
            exit_code, said = head.machine.run(command, 120.0, {"FARM_CA": str(head.ca)})
            assert exit_code == 0, said
            verify(clip, width=512, height=512, frames=16, fps=8)
        secrets = {
            "the join code": code.encode(),
            "Ray's token": head.data.ray_token.read_bytes().strip(),
            "the node's credential": (node.home / "farm.json").read_bytes().split(b'"node_token": "')[1][:20],
            "the picture": picture.read_bytes()[1000:1064],
        }
        assert len(heard) > 300_000, "the tap heard a picture and a clip pass"
        assert [name for name, secret in secrets.items() if secret in heard] == []
        assert (node.home / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600

        nobody_else_is_heard(head, node)
        a_fingerprint_comes_first(head, node, tmp_path / "other")
        wait_until(lambda: joined.exit_code is None, 1, lambda: "the node is still there")


def nobody_else_is_heard(head: SecureHead, node: Node) -> None:
    """Without TLS not, and with Ray's own token but no certificate neither."""
    with pytest.raises(httpx.HTTPError):
        httpx.get(head.url.replace("https", "http") + "/healthz", trust_env=False)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{head.url}/healthz", trust_env=False)
    plain = daemons.ray_environment({}, token=head.data.ray_token)
    driver = [sys.executable, "-c", PLAIN_DRIVER, f"{head.machine.address}:6380"]
    exit_code, said = node.machine.run(["timeout", "-s", "KILL", "8", *driver], 30.0, plain)
    assert exit_code != 0
    assert "LET IN" not in said


def a_fingerprint_comes_first(head: SecureHead, node: Node, home: Path) -> None:
    """By hand: it is compared before the code is sent anywhere."""
    more = head.code()
    other = [*FARM, "join", head.url, "--home", str(home), "--token", more, "--enroll"]
    exit_code, said = node.machine.run([*other, "--pin", "ab" * 32])
    assert exit_code == 1
    assert "is not the farm with the fingerprint" in said
    pin = fingerprint(head.ca.read_text())
    assert head.up is not None
    assert pin in head.up.output()
    exit_code, said = node.machine.run([*other, "--pin", pin])
    assert exit_code == 0, said
