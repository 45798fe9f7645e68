"""A local S3-compatible server, and one that refuses uploads."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server; yield its URL."""
    from moto.server import ThreadedMotoServer  # takes a second

    logging.getLogger("werkzeug").propagate = False  # commands print what is logged
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@cache
def _client_of(server: str) -> Any:
    import boto3

    return boto3.resource(
        "s3",
        endpoint_url=server,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )


@contextmanager
def new_bucket(server: str, name: str) -> Iterator[Any]:
    """Create a bucket, and delete it with its objects at the end."""
    bucket = _client_of(server).Bucket(name)
    bucket.create()
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@contextmanager
def refusing(server: str, *, after: int) -> Iterator[str]:
    """Forward requests to a server, but refuse uploads after the first ones; yield the URL."""
    uploads = iter(range(after))

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "PUT" and next(uploads, None) is None:
                answer = httpx.Response(403, content=b"<Error><Key>testing</Key></Error>")
            else:
                with httpx.Client(verify=False) as client:  # it uses no TLS
                    answer = client.request(
                        self.command, server + self.path, content=body, headers=dict(self.headers)
                    )
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in {"transfer-encoding", "content-length", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()
        thread.join()
