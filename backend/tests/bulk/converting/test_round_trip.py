"""Rendering converted HTML yields the same texts, links, emphasis, code and order of blocks."""

from random import Random

from hypothesis import given, note, settings
from hypothesis import strategies as st

from app.content.markdown import render_sync
from app.services.bulk.converting.pages import from_html
from tests.bulk.converting.documents import describe, document


@given(st.integers(min_value=0, max_value=2**32))
@settings(max_examples=80, deadline=None)
def test_conversion_keeps_the_document(seed: int) -> None:
    html = document(Random(seed))  # drawing each part of a document takes 20 times as long
    note(html)
    markdown = from_html(html).markdown
    note(markdown)
    assert describe(render_sync(markdown).html) == describe(html)
