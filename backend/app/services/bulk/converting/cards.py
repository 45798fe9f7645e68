"""Ghost's cards: reduced to their content in HTML, and written as HTML from the editor's data."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from app.services.bulk.converting.results import Notes
from app.services.bulk.converting.trees import BREAK, Element

# --- cards in HTML


def simplify(tree: Element, notes: Notes) -> None:
    """Replace the cards in the tree by their content, without the controls of players."""
    for element in list(tree.elements()):
        for name in element.classes:
            if name.startswith("kg-") and (replace := _SIMPLIFIED.get(name)):
                replace(element, notes)


def _parts(element: Element, *names: str) -> list[list[Element | str]]:
    """Return the content of the first element with each class that is not empty."""
    found = [element.find_class(name) for name in names]
    return [each.children for each in found if each is not None and each.text().strip()]


def _captions(element: Element) -> list[Element | str]:
    return [each for each in element.elements() if each.name == "figcaption"]


def _link(element: Element, names: tuple[str, ...]) -> None:
    """Keep a link with the first text, and the other texts after it."""
    link = element if element.name == "a" else element.find("a")
    texts = _parts(element, *names)
    captions = _captions(element)
    if link is None:
        return
    kept = Element("a", {"href": link.get("href")})
    kept.children = texts[0] if texts else [link.get("href")]
    rest = [part for text in texts[1:] for part in (Element("br"), *text)]
    if element.name == "a":
        element.name, element.attributes = "div", {}
    element.children = [BREAK, kept, *rest, BREAK, *captions]


def _bookmark(element: Element, _: Notes) -> None:
    _link(element, ("kg-bookmark-title", "kg-bookmark-description"))


def _file(element: Element, _: Notes) -> None:
    names = ("kg-file-card-title", "kg-file-card-caption", "kg-file-card-filename")
    _link(element, names)


def _video(element: Element, _: Notes) -> None:
    video = element.find("video")
    if video is not None:
        element.children = [video, *_captions(element)]


def _audio(element: Element, _: Notes) -> None:
    audio = element.find("audio")
    if audio is not None:
        title = [BREAK, *part, BREAK] if (part := _first(element, "kg-audio-title")) else []
        element.children = [*title, audio]


def _first(element: Element, name: str) -> list[Element | str]:
    return next(iter(_parts(element, name)), [])


def _toggle(element: Element, _: Notes) -> None:
    summary = Element("summary")
    summary.children = _first(element, "kg-toggle-heading-text")
    content = _first(element, "kg-toggle-content")
    element.name, element.children = "details", [summary, *content]


def _callout(element: Element, _: Notes) -> None:
    emoji = _first(element, "kg-callout-emoji")
    text = _first(element, "kg-callout-text") or _without(element, "kg-callout-emoji")
    element.name = "blockquote"
    element.children = [*emoji, " ", *text]


def _without(element: Element, name: str) -> list[Element | str]:
    return [each for each in element.children if isinstance(each, str) or name not in each.classes]


def _rating(element: Element, _: Notes) -> None:
    stars = [each for each in element.elements() if "kg-product-card-rating-star" in each.classes]
    active = sum("kg-product-card-rating-active" in each.classes for each in stars)
    element.children = [BREAK, stars_text(active), BREAK] if stars else []


def _signup(element: Element, notes: Notes) -> None:
    notes.add("a sign-up form was left out, its texts were kept")
    texts = _parts(
        element, "kg-signup-card-heading", "kg-signup-card-subheading", "kg-signup-card-disclaimer"
    )
    element.children = [part for text in texts for part in (BREAK, *text, BREAK)]


_SIMPLIFIED: Mapping[str, Callable[[Element, Notes], None]] = {
    "kg-bookmark-card": _bookmark,
    "kg-file-card": _file,
    "kg-video-card": _video,
    "kg-audio-card": _audio,
    "kg-toggle-card": _toggle,
    "kg-callout-card": _callout,
    "kg-product-card-rating": _rating,
    "kg-signup-card": _signup,
}


# --- cards in the editor's data

Payload = Mapping[str, Any]


def text_of(payload: Payload, *names: str) -> str:
    """Return the first of these values that is a text with content, or an empty string."""
    for name in names:
        value = payload.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def stars_text(active: Any) -> str:
    """Return a rating as stars."""
    count = active if isinstance(active, int) and 0 <= active <= 5 else 5
    return "\u2605" * count + "\u2606" * (5 - count)


def paragraph_link(url: str, text: str) -> str:
    """Return a paragraph with a link. `text` is HTML."""
    return f'<p><a href="{escape(url)}">{text or escape(url)}</a></p>' if url else ""


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>" if caption else content


def _image_tag(src: str, alt: str = "", title: str = "") -> str:
    if not src:
        return ""
    titled = f' title="{escape(title)}"' if title else ""
    return f'<img src="{escape(src)}" alt="{escape(alt)}"{titled}>'


def _image_card(card: Payload) -> str:
    image = _image_tag(text_of(card, "src", "image"), text_of(card, "alt"), text_of(card, "title"))
    if href := text_of(card, "href"):
        image = f'<a href="{escape(href)}">{image}</a>'
    return _figure(f"<p>{image}</p>", text_of(card, "caption")) if image else ""


def _gallery_card(card: Payload) -> str:
    images = card.get("images")
    content = "".join(
        _image_card({**each, "href": ""})
        for each in (images if isinstance(images, list) else ())
        if isinstance(each, Mapping)
    )
    return _figure(content, text_of(card, "caption")) if content else ""


def _code_card(card: Payload) -> str:
    language = escape(text_of(card, "language"))
    attribute = f' class="language-{language}"' if language else ""
    code = f"<pre><code{attribute}>\n{escape(text_of(card, 'code'), quote=False)}</code></pre>"
    return _figure(code, text_of(card, "caption"))


def _bookmark_card(card: Payload) -> str:
    details = card.get("metadata")
    metadata: Payload = details if isinstance(details, Mapping) else {}
    url = text_of(card, "url") or text_of(metadata, "url")
    title = escape(text_of(card, "title") or text_of(metadata, "title"))
    description = escape(text_of(card, "description") or text_of(metadata, "description"))
    link = f'<a href="{escape(url)}">{title or escape(url)}</a>'
    content = f"<p>{link}{f'<br>{description}' if description else ''}</p>"
    return _figure(content, text_of(card, "caption")) if url else ""


def _embed_card(card: Payload) -> str:
    url, html = text_of(card, "url"), text_of(card, "html")
    content = f'<iframe src="{escape(url)}"></iframe>' if url.startswith(("http", "//")) else html
    return _figure(content, text_of(card, "caption")) if content else ""


def _video_card(card: Payload) -> str:
    src = text_of(card, "src")
    video = f'<video src="{escape(src)}" title="{escape(text_of(card, "fileName"))}"></video>'
    return _figure(video, text_of(card, "caption")) if src else ""


def _audio_card(card: Payload) -> str:
    src, title = text_of(card, "src"), text_of(card, "title")
    heading = f"<p>{escape(title)}</p>" if title else ""
    return f'{heading}<audio src="{escape(src)}"></audio>' if src else ""


def _file_card(card: Payload) -> str:
    src = text_of(card, "src")
    title, name = text_of(card, "fileTitle"), text_of(card, "fileName")
    rest = [text for text in (text_of(card, "fileCaption"), name if title else "") if text]
    lines = "".join(f"<br>{escape(text)}" for text in rest)
    return (
        f'<p><a href="{escape(src)}">{escape(title or name or src)}</a>{lines}</p>' if src else ""
    )


def _toggle_card(card: Payload) -> str:
    heading, content = text_of(card, "heading"), text_of(card, "content")
    return f"<details><summary>{heading}</summary>{content}</details>"


def _callout_card(card: Payload) -> str:
    emoji = escape(text_of(card, "calloutEmoji"))
    text = text_of(card, "calloutText", "text")
    if not text:
        return ""
    if emoji and text.lstrip().startswith("<p>"):
        return f"<blockquote><p>{emoji} {text.lstrip()[3:]}</blockquote>"
    return f"<blockquote>{emoji} {text}</blockquote>"


def _button_card(card: Payload) -> str:
    return paragraph_link(text_of(card, "buttonUrl"), escape(text_of(card, "buttonText")))


def _product_card(card: Payload) -> str:
    parts = []
    if image := _image_tag(text_of(card, "productImageSrc")):
        parts.append(f"<p>{image}</p>")
    if title := text_of(card, "productTitle"):
        parts.append(f"<h4>{title}</h4>")
    if card.get("productRatingEnabled"):
        parts.append(f"<p>{stars_text(card.get('productStarRating'))}</p>")
    parts.append(f"<div>{text_of(card, 'productDescription')}</div>")
    if card.get("productButtonEnabled"):
        parts.append(
            paragraph_link(text_of(card, "productUrl"), escape(text_of(card, "productButton")))
        )
    return "".join(parts)


def _header_card(card: Payload) -> str:
    parts = []
    if image := _image_tag(text_of(card, "backgroundImageSrc")):
        parts.append(f"<p>{image}</p>")
    if header := text_of(card, "header"):
        parts.append(f"<h2>{header}</h2>")
    if subheader := text_of(card, "subheader"):
        parts.append(f"<p>{subheader}</p>")
    if card.get("buttonEnabled"):
        parts.append(_button_card(card))
    return "".join(parts)


def _signup_card(card: Payload) -> str:
    texts = ("header", "subheader", "disclaimer")
    return "".join(f"<p>{text_of(card, name)}</p>" for name in texts if text_of(card, name))


def _call_to_action_card(card: Payload) -> str:
    parts = []
    if card.get("hasSponsorLabel"):
        parts.append(text_of(card, "sponsorLabel"))
    if image := _image_tag(text_of(card, "imageUrl")):
        parts.append(f"<p>{image}</p>")
    parts.append(f"<div>{text_of(card, 'textValue')}</div>")
    if card.get("showButton"):
        parts.append(_button_card(card))
    return "".join(parts)


def _before_after_card(card: Payload) -> str:
    images = [card.get("beforeImage"), card.get("afterImage")]
    sources = [text_of(image, "src") for image in images if isinstance(image, Mapping)]
    content = "".join(f"<p>{_image_tag(src)}</p>" for src in sources if src)
    return _figure(content, text_of(card, "caption")) if content else ""


_CARDS: Mapping[str, Callable[[Payload], str]] = {
    "image": _image_card,
    "gallery": _gallery_card,
    "code": _code_card,
    "codeblock": _code_card,
    "html": lambda card: text_of(card, "html"),
    "hr": lambda _: "<hr>",
    "horizontalrule": lambda _: "<hr>",
    "bookmark": _bookmark_card,
    "embed": _embed_card,
    "video": _video_card,
    "audio": _audio_card,
    "file": _file_card,
    "toggle": _toggle_card,
    "callout": _callout_card,
    "button": _button_card,
    "product": _product_card,
    "header": _header_card,
    "signup": _signup_card,
    "call-to-action": _call_to_action_card,
    "before-after": _before_after_card,
}
_LEFT_OUT = {
    "email": "a part that was only sent by email was left out",
    "email-cta": "a part that was only sent by email was left out",
    "collection": "a list of other posts was left out",
    "transistor": "an embedded podcast player was left out",
}


def card_html(name: str, payload: Payload, notes: Notes) -> str:
    """Return a card as HTML. Unknown cards become a link to their address, or a note."""
    if name == "paywall":
        notes.has_restricted_parts = True
        return ""
    if _is_restricted(payload):
        notes.has_restricted_parts = True
        notes.add("a part was shown to members only")
    if name == "signup":
        notes.add("a sign-up form was left out, its texts were kept")
    if convert := _CARDS.get(name):
        return convert(payload)
    if name in _LEFT_OUT:
        notes.add(_LEFT_OUT[name])
        return ""
    notes.add(f"a card of the unknown type {name[:40]!r} was reduced to its URL and text")
    url = text_of(payload, "url", "src", "href", "buttonUrl")
    return text_of(payload, "html") or paragraph_link(url, escape(text_of(payload, "title")))


def _is_restricted(payload: Payload) -> bool:
    """Return whether a card is not shown to all visitors of the site."""
    visibility = payload.get("visibility")
    web = visibility.get("web") if isinstance(visibility, Mapping) else None
    return isinstance(web, Mapping) and web.get("nonMember") is False
