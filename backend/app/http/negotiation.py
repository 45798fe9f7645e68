"""Content negotiation (RFC 9110 §12.5.1): JSON, or Markdown on request."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from app.core.conditional import entity_tag
from app.http.caching import list_header

MARKDOWN = "text/markdown"
_NAMES_JSON = ("application/json", "application/*")
_SPACE = " \t"
"""What RFC 9110 allows around separators. nginx, whose cache has a copy of each form, agrees."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

MARKDOWN_CONTENT: Mapping[str, Any] = {
    MARKDOWN: {"schema": {"type": "string", "description": "Markdown with front matter in YAML"}}
}
"""The `content` of a response in OpenAPI.

Routes with both forms describe JSON alone: generated clients would return a union of both.
"""


def negotiated(endpoint: Endpoint) -> Endpoint:
    """Declare that the responses of a route depend on `Accept`."""
    endpoint.varies_by_accept = True  # type: ignore[attr-defined]  # an attribute of the function
    return endpoint


def prefers_markdown(request: Request) -> bool:
    """Return whether the client accepts Markdown and does not prefer JSON.

    JSON is the default: it is returned to clients that accept neither, too. Of two equal weights,
    the one that the client names wins over a wildcard.
    """
    # Every read of an article looks at its headers here.
    for name, value in request.scope["headers"]:
        if name == b"accept" and b"markdown" in value.lower():
            return _prefers_markdown(list_header(request, "Accept") or "")
    return False


def _prefers_markdown(accept: str) -> bool:
    weights: dict[str, float] = {}
    for item in accept.split(","):
        media_type, *parameters = (part.strip(_SPACE).lower() for part in item.split(";"))
        weights[media_type] = max(weights.get(media_type, 0), _weight(parameters))
    markdown = weights.get(MARKDOWN, 0)
    names_json = next((name for name in _NAMES_JSON if name in weights), None)
    if names_json is not None:
        return markdown > weights[names_json]
    return markdown > 0 and markdown >= weights.get("*/*", 0)


def _weight(parameters: list[str]) -> float:
    """Return the value of `q`, 1 without one, and 0 for an invalid one."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.rstrip(_SPACE) == "q":
            digits = value.strip(_SPACE)
            is_valid = digits.isascii() and digits.replace(".", "", 1).isdigit()
            return min(float(digits), 1) if is_valid else 0
    return 1


def markdown_response(body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """Return a Markdown document, with its entity tag."""
    return Response(
        body, headers={**(headers or {}), "ETag": entity_tag(body)}, media_type=MARKDOWN
    )
