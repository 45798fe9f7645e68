"""TLS with docker-compose.tls.yml and a certificate of `make certs`."""

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.edge.stack import ORIGIN, WITH_TLS, Stack, register
from tests.processes import HOST, free_port


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import make_certs

    folder = tmp_path_factory.mktemp("certificates")
    folder.chmod(0o755)
    for parent in (folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    assert make_certs.write_certificate(folder)
    assert not make_certs.write_certificate(folder)  # does not overwrite
    return folder


@pytest.fixture(scope="module")
def https_port(stack: Stack, certificates: Path) -> Iterator[int]:
    port = free_port()
    settings = {"HTTPS_PORT": str(port), "TLS_CERTIFICATES_DIR": str(certificates)}
    with stack.additional_nginx(WITH_TLS, **settings):
        yield port


@pytest.fixture
def trusting(certificates: Path) -> ssl.SSLContext:
    """Return a context that trusts only this certificate."""
    return ssl.create_default_context(cafile=certificates / "localhost.pem")


@pytest.fixture
def secure(https_port: int, trusting: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"https://localhost:{https_port}", verify=trusting) as client:
        yield client


def test_site_has_hsts(secure: httpx.Client) -> None:
    answer = secure.get("/articles")
    assert answer.status_code == 200
    assert answer.headers.get_list("Strict-Transport-Security") == ["max-age=63072000"]
    assert "X-Cache" in answer.headers
    missing = secure.get("/metrics", headers={"Origin": ORIGIN})
    assert missing.status_code == 404
    assert "Strict-Transport-Security" in missing.headers
    assert missing.headers["Access-Control-Allow-Origin"] == ORIGIN
    register(secure)


def test_unknown_host_is_rejected(secure: httpx.Client) -> None:
    assert secure.get("/articles", headers={"Host": "elsewhere.example"}).status_code == 421


def test_http_redirects_to_https(stack: Stack, https_port: int) -> None:
    with stack.client() as client:
        answer = client.get("/articles?limit=1", headers={"Host": "localhost"})
        assert answer.status_code == 308
        assert answer.headers["Location"] == f"https://localhost:{https_port}/articles?limit=1"
        assert "Strict-Transport-Security" not in answer.headers  # RFC 6797 §7.2
        assert client.get("/health/ready").status_code == 200


def test_http_2_is_supported(https_port: int, trusting: ssl.SSLContext) -> None:
    import socket

    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((HOST, https_port), timeout=5) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        assert wrapped.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "AES128-SHA:@SECLEVEL=0"),
    ],
)
def test_weak_protocols_are_rejected(
    https_port: int, version: ssl.TLSVersion, ciphers: str
) -> None:
    import socket
    import warnings

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the deprecated protocols are tested on purpose
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((HOST, https_port), timeout=5) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain)


def served_certificate(port: int) -> str:
    return ssl.get_server_certificate((HOST, port), timeout=5)


def test_renewed_certificate(stack: Stack, https_port: int, certificates: Path) -> None:
    """A reload fails visibly if it cannot be applied, and nginx then keeps its certificate."""
    import make_certs

    reload = ("exec", "-T", "nginx", "sh", "/tmp/current/scripts/apply.sh")
    before = served_certificate(https_port)
    renewed = certificates / "renewed"
    renewed.mkdir()
    assert make_certs.write_certificate(renewed)
    for name in ("localhost.pem", "localhost-key.pem"):
        (certificates / name).write_text("not a certificate")
    failed = stack.project.run_captured(*reload)
    assert failed.returncode == 1
    assert "localhost.pem" in failed.stderr
    assert served_certificate(https_port) == before
    for name in ("localhost.pem", "localhost-key.pem"):
        shutil.copy(renewed / name, certificates / name)
    assert stack.project.run_captured(*reload).returncode == 0
    assert served_certificate(https_port) == (renewed / "localhost.pem").read_text()
