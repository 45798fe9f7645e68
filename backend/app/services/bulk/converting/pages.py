"""HTML to Markdown."""

from collections.abc import Sequence

from app.services.bulk.converting import cards, footnotes
from app.services.bulk.converting.blocks import Blocks
from app.services.bulk.converting.results import Context, Converted, Notes
from app.services.bulk.converting.trees import parse


def from_html(
    html: str,
    context: Context | None = None,
    *,
    notes: Notes | None = None,
    raw: Sequence[str] = (),
) -> Converted:
    """Convert HTML to Markdown. Raises TooComplex.

    `raw` has Markdown that elements `<div data-markdown="index">` are replaced with.
    """
    notes = notes or Notes()
    context = context or Context()
    tree = parse(html, notes)
    if "kg-" in html:
        cards.simplify(tree, notes)
    definitions = footnotes.extract(tree, context, notes, raw=raw)
    blocks = Blocks(notes, raw=raw)
    parts = [blocks.convert(tree.children)]
    for label, content in definitions:
        text = blocks.convert(content) or "\\"
        parts.append(f"[^{label}]: " + text.replace("\n", "\n    ").replace("\n    \n", "\n\n"))
    return notes.result("\n\n".join(filter(None, parts)))
