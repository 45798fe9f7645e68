"""Invalid HTTP returns 400 in the error format, and the connection is closed."""

import json
import socket

import pytest

from tests.processes import HOST, Api

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"FOO /articles HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /articles?limit=\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /articles HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"POST /users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_invalid_http_is_rejected_in_the_error_format(
    gunicorn_api: Api, request_bytes: bytes
) -> None:
    port = int(gunicorn_api.url.rpartition(":")[2])
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(request_bytes)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    error = json.loads(body)
    assert error["code"] == "invalid_request"
    assert error["request_id"].encode() in head
