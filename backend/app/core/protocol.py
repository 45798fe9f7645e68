"""HTTP/1.1 as uvicorn speaks it, with its own refusals in our error shape.

What httptools cannot parse (an unknown method, raw bytes in the target, bad chunks) never becomes a
request, so that no middleware sees it.
"""

import json
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.errors import InvalidRequest, error_body


class PressroomProtocol(HttpToolsProtocol):
    """httptools' protocol; answers what is not HTTP with 400 as JSON, and closes."""

    def send_400_response(self, msg: str) -> None:
        identifier = uuid4().hex
        body = error_body(
            message=InvalidRequest.message,
            code=InvalidRequest.code,
            detail=msg,
            identifier=identifier,
        )
        content = json.dumps(body, separators=(",", ":")).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(content)}\r\n"
            f"x-request-id: {identifier}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()
