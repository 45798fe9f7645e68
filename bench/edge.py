# ruff: noqa: S603, S607 - it runs docker, which is on PATH
"""nginx with the production configuration: as a proxy for a server, and as a file server."""

import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.core.config import PROJECT_DIR
from servers import HOST, BenchError, Server, free_port

IMAGE: Final = os.environ.get("NGINX_IMAGE") or "nginx:1.30"
NGINX_DIR: Final = PROJECT_DIR / "nginx"
UNLIMITED: Final = "1000000"
"""All requests come from one address."""

FILE_SERVER: Final = """
server {{
    listen {host}:{port};
    root /srv/files;
    default_type application/json;
    add_header ETag '"file"' always;
}}
"""


def why_no_nginx() -> str | None:
    """Return why nginx cannot be started, or None."""
    try:
        answer = subprocess.run(
            ["docker", "image", "inspect", IMAGE], capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "the Docker engine does not respond"
    return None if answer.returncode == 0 else f"Docker has no image {IMAGE} (`docker pull` it)"


@contextmanager
def edge(backend: Server, files: Mapping[str, bytes]) -> Iterator[tuple[Server, Server]]:
    """Start nginx as a proxy for `backend` and, on another port, with the static `files`.

    It uses the host's network, to avoid the overhead of Docker's bridge and proxy. Both write the
    access log of production, which is discarded.
    """
    edge_port, files_port = free_port(), free_port()
    name = f"pressroom-bench-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        conf = folder / "conf.d"
        conf.mkdir()
        (folder / "files").mkdir()
        (folder / "snippets").mkdir()
        for snippet in (NGINX_DIR / "snippets").iterdir():
            (folder / "snippets" / snippet.name).write_text(_substituted(snippet.read_text()))
        (conf / "edge.conf").write_text(rendered(backend.port, edge_port))
        (conf / "hosts.inc").write_text("server_name ~^;\n")
        (conf / "origins.inc").touch()
        (conf / "files.conf").write_text(FILE_SERVER.format(host=HOST, port=files_port))
        for path, content in files.items():
            (folder / "files" / path).write_bytes(content)
        command = ["docker", "run", "--detach", "--rm", "--name", name, "--network", "host"]
        command += ["--log-driver", "none", "--user", "101:101", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108 - in the container
        command += ["--tmpfs", "/var/cache/nginx:uid=101,gid=101,size=256m"]
        command += ["--tmpfs", "/var/cache/nginx-proxy:uid=101,gid=101"]
        mounts = {
            NGINX_DIR / "nginx.conf": "/etc/nginx/nginx.conf",
            folder / "snippets": "/etc/nginx/snippets",
            conf: "/etc/nginx/conf.d",
            folder / "files": "/srv/files",
        }
        for source, target in mounts.items():
            command += ["--volume", f"{source}:{target}:ro"]
        started = subprocess.run([*command, IMAGE], capture_output=True, text=True, check=False)
        if started.returncode != 0:
            raise BenchError(f"nginx did not start: {started.stderr.strip()[-500:]}")
        try:
            inspected = ["docker", "inspect", "--format", "{{.State.Pid}}", name]
            pid = int(subprocess.run(inspected, capture_output=True, check=True).stdout)
            servers = Server("nginx", edge_port, pid), Server("nginx, files", files_port, pid)
            servers[0].wait_until_ready("/health/ready")
            yield servers
        finally:
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)


SETTINGS: Final = {
    "BACKEND_DOMAIN": "",
    "RESOLVER": HOST,
    "TRUSTED_PROXY": "unix:",
    "EDGE_REQUESTS_PER_SECOND": UNLIMITED,
    "EDGE_ATTEMPTS_PER_MINUTE": UNLIMITED,
    "EDGE_ATTEMPTS_BURST": "1000",
    "EDGE_ATTEMPT_SECONDS": "6",
    "EDGE_LARGE_BODIES_PER_MINUTE": UNLIMITED,
    "EDGE_UPLOADS_PER_MINUTE": UNLIMITED,
    "EDGE_STREAMS_PER_ADDRESS": "1000",
    "EDGE_CACHE_MEGABYTES": "96",
    "MAX_BODY_BYTES": "4194304",
    "WEB_PREFIX": "/read",
    "ACCESS_LOG_PERCENT": "100",
}
"""Instead of the environment of the image `nginx-config`."""


def rendered(backend_port: int, port: int) -> str:
    """Return the rendered template. Raises BenchError if an expected line is missing."""
    text = _substituted((NGINX_DIR / "templates" / "edge.conf.template").read_text())
    replacements = {
        f"    resolver {HOST} valid=1s ipv6=off;\n": "",
        "server ready-backend:8000 resolve max_fails=2 fail_timeout=5s;": (
            f"server {HOST}:{backend_port} max_fails=2 fail_timeout=5s;"
        ),
        "    server backend:8000 resolve backup max_fails=0;\n": "",
        "listen 80 default_server;": f"listen {HOST}:{port} default_server;",
        "listen 80;": f"listen {HOST}:{port};",
    }
    for old, new in replacements.items():
        if old not in text:
            raise BenchError(f"the nginx template has changed: {old!r} is not in it")
        text = text.replace(old, new)
    return text


def _substituted(text: str) -> str:
    """Return a text with the settings. Raises BenchError for an unknown one."""
    for name, value in SETTINGS.items():
        text = text.replace(f"${{{name}}}", value)
    if unknown := re.search(r"\$\{[A-Z_]+\}", text):
        raise BenchError(f"nginx has a new setting: {unknown[0]}")
    return text
