"""Security headers of pages."""

from urllib.parse import urlsplit

from app.core.config import Settings

POLICY_NAME = "pressroom"
"""The Trusted Types policy of static/js/enhance.js."""


def page_headers(settings: Settings, *, remote_images: bool = False) -> dict[str, str]:
    """Return the security headers of pages.

    `remote_images`: whether the page may show images of any host over https, as articles may. An
    image cannot run scripts, and the Referrer-Policy hides the address of the page from its host.

    With `no-referrer`, browsers would send `Origin: null` with forms.
    """
    media = urlsplit(settings.api_url)
    frames = " ".join(f"https://{host}" for host in settings.iframe_hosts) or "'none'"
    remote = " https:" if remote_images else ""
    policy = [
        "default-src 'self'",
        f"img-src 'self' data: blob: {media.scheme}://{media.netloc}{remote}",
        f"frame-src {frames}",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        f"trusted-types {POLICY_NAME}",
    ]
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
