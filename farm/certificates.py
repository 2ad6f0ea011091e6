"""A farm's own certificate authority (CA): made once on the head, vouches for the head and for the PCs that have joined.

Keys are P-256 and never leave the PC that made them: a node sends a request for a certificate, and the head answers with one for the
address that the request came from, whatever it asks for. Certificates hold for ten years: a farm ends one's trust by a new CA (see
docs/threat-model.md), not by a date.
"""

import ipaddress
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from farm.errors import BadInputError
from farm.secret_files import ensure_private_directory, keep_secret, write_secret
from farm.tls import TlsFiles

YEARS_10 = timedelta(days=3652)
EARLIER = timedelta(days=2)
"""Certificates hold from then on: a spare PC's clock may be behind."""
LOOPBACKS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "::1")
"""The addresses of farms that only this PC sees, Ray's own among them (`farm.daemons`)."""
CA_KEY = "ca-key.pem"


def prepare_head(folder: Path, more: Iterable[str] = ()) -> TlsFiles:
    """The head's files, with a certificate for the addresses that this PC has now and for `more` names and addresses.

    CA and key are made on the first start and stay; the certificate is made anew on each, since addresses change.
    """
    ensure_private_directory(folder)
    files = TlsFiles.in_folder(folder)
    ca_key = _keep_key(folder / CA_KEY)
    if not files.ca.exists():
        write_secret(files.ca, _pem(_authority(ca_key)))
    key = _keep_key(files.key)
    here = [one.address for all_of in psutil.net_if_addrs().values() for one in all_of]
    names = ["localhost", socket.gethostname(), *LOOPBACKS, *(one.partition("%")[0] for one in here), *more]
    write_secret(files.certificate, _issue(folder, key.public_key(), "old-gpu-farm head", names))
    return files


def make_request(key: Path, name: str) -> str:
    """A request (PEM) for a certificate for the key in the file, which is made where there is none."""
    made = x509.CertificateSigningRequestBuilder().subject_name(_named(name))
    return made.sign(_keep_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def sign_request(folder: Path, request: str, name: str, address: str) -> str:
    """The certificate (PEM) that the CA in `folder` gives to a PC at `address`. Of the request only the key counts.

    Raises:
        BadInputError: it is no request, or was not signed with its own key.
    """
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        proven, public = asked.is_signature_valid, asked.public_key()
    except (ValueError, TypeError) as error:
        raise BadInputError("csr", "This is no request for a certificate.", "Send PEM (PKCS #10).") from error
    if not proven or not isinstance(public, ec.EllipticCurvePublicKey):
        raise BadInputError("csr", "The request is not signed by a P-256 key of its own.", "Make a new one.")
    return _issue(folder, public, name, ["localhost", *LOOPBACKS, address])


def fingerprint(certificate: str) -> str:
    """The SHA-256 of a certificate (PEM) in hexadecimal, as browsers and openssl show it, without colons.

    Raises:
        ValueError: it is none.
    """
    return x509.load_pem_x509_certificate(certificate.encode()).fingerprint(hashes.SHA256()).hex()


def _keep_key(path: Path) -> ec.EllipticCurvePrivateKey:
    ensure_private_directory(path.parent)
    key = serialization.load_pem_private_key(keep_secret(path, _new_key).encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), f"{path} holds another kind of key"  # noqa: S101
    return key


def _new_key() -> str:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _named("old-gpu-farm")
    return (
        _builder(name, key.public_key())
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _issue(folder: Path, public: ec.EllipticCurvePublicKey, name: str, names: Iterable[str]) -> str:
    ca = x509.load_pem_x509_certificate(TlsFiles.in_folder(folder).ca.read_bytes())
    ca_key = _keep_key(folder / CA_KEY)
    both_ways = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = (
        _builder(_named(name), public)
        .issuer_name(ca.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ways), critical=False)
        .add_extension(x509.SubjectAlternativeName(list(_alternatives(names))), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return _pem(made)


def _builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + YEARS_10)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(names: Iterable[str]) -> Iterable[x509.GeneralName]:
    """Addresses as such, host names as names; what is neither (a network card's own address) is left out."""
    for name in dict.fromkeys(names):
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            if name and name.isascii() and ":" not in name:
                yield x509.DNSName(name)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:60] or "node")])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
