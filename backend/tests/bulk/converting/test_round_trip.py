"""Rendering converted HTML yields the same texts, links, emphasis, code and order of blocks."""

from hypothesis import HealthCheck, given, settings

from app.content.markdown import render_sync
from app.services.bulk.converting.pages import from_html
from tests.bulk.converting.documents import describe, documents


@given(documents())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_conversion_keeps_the_document(html: str) -> None:
    markdown = from_html(html).markdown
    assert describe(render_sync(markdown).html) == describe(html)
