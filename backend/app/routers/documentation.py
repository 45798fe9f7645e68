"""The /docs and /redoc pages, served without internet access.

The scripts come from the fastapi-offline package. The pages contain no inline scripts, so that
their Content-Security-Policy can forbid inline scripts and other hosts.
"""

from functools import lru_cache
from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

ASSETS = Path(fastapi_offline.__file__).parent / "static"

# Both pages use inline styles. ReDoc runs its search in a worker created from a blob.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; "
    "script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; "
    "font-src 'self'; "
    "connect-src 'self'; "
    "worker-src 'self' blob:; "
    "base-uri 'none'; "
    "form-action 'none'; "
    "frame-ancestors 'none'"
)

REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"

SWAGGER_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pressroom API</title>
<link rel="icon" href="/docs/assets/favicon.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

SWAGGER_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""

REDOC_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pressroom API</title>
<link rel="icon" href="/docs/assets/favicon.png">
</head>
<body>
<redoc spec-url="/openapi.json"></redoc>
<script src="/docs/redoc.js"></script>
</body>
</html>
"""

router = APIRouter(include_in_schema=False)


def _html_page(html: str) -> HTMLResponse:
    return HTMLResponse(html, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@router.get("/docs")
async def swagger_ui() -> HTMLResponse:
    """Return the Swagger UI page."""
    return _html_page(SWAGGER_PAGE)


@router.get("/docs/start.js")
async def swagger_start() -> Response:
    """Return the script that starts Swagger UI; the policy forbids it inline."""
    return Response(SWAGGER_START, media_type="text/javascript")


@router.get("/docs/redoc.js")
async def redoc_script() -> Response:
    """Return ReDoc, with its remote logo replaced by the local icon."""
    return Response(_patched_redoc(), media_type="text/javascript")


@lru_cache(maxsize=1)
def _patched_redoc() -> bytes:
    script = (ASSETS / "redoc.standalone.js").read_bytes()
    return script.replace(REDOC_LOGO, b"/docs/assets/favicon.png")


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    """Return the ReDoc page."""
    return _html_page(REDOC_PAGE)


class Assets(StaticFiles):
    """Static files without range requests.

    Starlette answers an invalid Range in plain text. RFC 9110 §14.2 allows a server to ignore the
    header.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def install(app: FastAPI) -> None:
    """Add the documentation pages and their assets to the application."""
    app.include_router(router)
    app.mount("/docs/assets", Assets(directory=ASSETS), name="documentation")
