"""A farm's own authority: what it vouches for, and that a real TLS server is known by it and by nothing else."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from farm.certificates import LOOPBACKS, fingerprint, make_request, prepare_head, sign_request
from farm.errors import BadInputError, ConfigurationError
from farm.settings import DataDirectory
from farm.tls import RAY_NAMES, TlsFiles, ray_variables, trust
from node_agent.head_line import HeadSilentError
from node_agent.trust import keep_certificate, learn_ca, request_for


def names_in(certificate: str) -> set[str]:
    found = x509.load_pem_x509_certificate(certificate.encode())
    alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(one) for one in alternatives.get_values_for_type(x509.IPAddress)}
    return addresses | set(alternatives.get_values_for_type(x509.DNSName))


@contextmanager
def serving(files: TlsFiles, body: bytes = b"here") -> Iterator[str]:
    """An HTTPS server on loopback that answers everything with `body`; its URL."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Says nothing."""

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_authority_stays_and_the_head_s_certificate_follows_its_addresses(tmp_path: Path) -> None:
    files = prepare_head(tmp_path / "tls", more=("10.9.8.7", "attic.example", "fe80::1%eth0"))
    ca, key, first = files.ca.read_text(), files.key.read_text(), files.certificate.read_text()
    assert {"10.9.8.7", "attic.example", "localhost", *LOOPBACKS} <= names_in(first)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}
    prepare_head(tmp_path / "tls", more=("10.9.8.8",))
    assert (files.ca.read_text(), files.key.read_text()) == (ca, key)
    assert "10.9.8.7" not in names_in(files.certificate.read_text())


def test_a_server_with_its_certificate_is_known_by_the_farm_s_authority_and_by_nothing_else(
    tmp_path: Path,
) -> None:
    ours, others = prepare_head(tmp_path / "ours"), prepare_head(tmp_path / "others")
    with serving(ours) as url:
        assert httpx.get(url, verify=trust(url, ours.ca), trust_env=False).text == "here"
        for wrong in (others.ca, None):
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                httpx.get(url, verify=trust(url, wrong), trust_env=False)
    assert trust("http://127.0.0.1:8000", ours.ca) is False, "nothing is read for plain HTTP"


def test_a_node_gets_a_certificate_for_the_address_that_it_comes_from_whatever_it_asks(
    tmp_path: Path,
) -> None:
    """A node that could choose its names could stand in the head's place."""
    head = prepare_head(tmp_path / "head")
    home = tmp_path / "node"
    home.mkdir()
    request = request_for(home, "10.0.0.1")
    assert request_for(home, "attic") != "", "the key stays"
    files = keep_certificate(home, sign_request(tmp_path / "head", request, "attic", "10.0.0.7"))
    assert names_in(files.certificate.read_text()) == {"localhost", "10.0.0.7", *LOOPBACKS}
    learn_ca(home, "https://head", given=head.ca, pin="")
    assert files.ca.read_text() == head.ca.read_text()
    assert files.key.stat().st_mode & 0o777 == 0o600
    with serving(files) as url:
        assert httpx.get(url, verify=trust(url, head.ca), trust_env=False).text == "here"


def test_what_is_no_request_of_an_own_key_is_refused(tmp_path: Path) -> None:
    prepare_head(tmp_path)
    good = make_request(tmp_path / "node" / "key.pem", "attic")
    body = good.splitlines()
    body[2] = body[2][::-1]
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attic")])
    rsa_request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(rsa_key, hashes.SHA256())
    pem = rsa_request.public_bytes(serialization.Encoding.PEM).decode()
    for wrong in ("", "csr", "\n".join(body), pem):
        with pytest.raises(BadInputError) as caught:
            sign_request(tmp_path, wrong, "attic", "10.0.0.7")
        assert caught.value.field == "csr"


def test_a_fingerprint_is_compared_before_the_authority_is_believed(tmp_path: Path) -> None:
    ours, others = prepare_head(tmp_path / "ours"), prepare_head(tmp_path / "others")
    home = tmp_path / "node"
    home.mkdir()
    pin = fingerprint(ours.ca.read_text())
    with (
        serving(ours, body=others.ca.read_bytes()) as url,
        pytest.raises(ConfigurationError, match="is not the farm"),
    ):
        learn_ca(home, url, given=None, pin=pin)
    assert learn_ca(home, "https://127.0.0.1:9", given=None, pin="") is None, "nothing was kept"
    with pytest.raises(HeadSilentError):
        learn_ca(home, "https://127.0.0.1:9", given=None, pin=pin)
    with serving(ours, body=ours.ca.read_bytes()) as url:
        shown = ":".join(pin[at : at + 2] for at in range(0, len(pin), 2)).upper()
        kept = learn_ca(home, url, given=None, pin=shown)
    assert kept is not None
    assert kept.read_text() == ours.ca.read_text()


def test_ray_s_variables_are_ours_or_none(tmp_path: Path) -> None:
    files = TlsFiles.in_folder(DataDirectory(tmp_path).tls)
    assert ray_variables(None) == {}
    assert list(ray_variables(files)) == list(RAY_NAMES)
    assert ray_variables(files)["RAY_USE_TLS"] == "1"
