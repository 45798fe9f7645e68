"""WordPress's shortcodes as HTML: those of WordPress itself and of popular plugins.

The content of unknown shortcodes is kept. Other text in brackets stays as it is.
"""

import re
from collections.abc import Callable, Mapping
from html import escape, unescape

from app.services.bulk.converting.players import file_name
from app.services.bulk.converting.results import Attachment, Context, Notes, names

Attributes = Mapping[str, str]
"""The attributes of a shortcode. Values without a name have the names "0", "1" and so on."""
Handler = Callable[[Attributes, "str | None", Context, Notes], str]

_TOKEN = re.compile(
    r"<!--(?:[^<-]++|<(?!!--)|-(?!->))*+-->"
    r"|<(?P<protected>pre|code|textarea|script|style)(?=[\s>])"
    r"|</?[A-Za-z](?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+>"
    r"|\[(?P<close>/?)(?P<name>[A-Za-z][A-Za-z0-9_-]*+)(?P<attributes>(?:[\s=:|/][^\[\]]*+)?+)\]"
    r"|\(\((?P<note>[^()]*+(?:\([^()]*+\)[^()]*+)*+)\)\)(?!\))"
)
_OTHER = re.compile(
    r"(?:[^<\[(]++|\((?!\()|\[(?!/?[A-Za-z])|<!--(?:[^<-]++|<(?!!--)|-(?!->))*+-->"
    r"|</?(?!(?:pre|code|textarea|script|style)[\s>])"
    r"[A-Za-z](?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+>)*+"
)
"""What is between tokens: text, comments, and tags whose content is searched."""
_POSSIBLE = re.compile(r"\[/?[A-Za-z]|\(\(")
_ATTRIBUTE = re.compile(
    r"(?:(?<![\w-])([\w-]++)\s*+=\s*+)?+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'=][^\s\"']*+))"
)
_QUOTES = re.compile("&#822[0123];|&#8243;|&quot;|&#0?34;|[\u201c\u201d\u2033]")
_LINKED_IMAGE = re.compile(
    r"\s*+((?:<a\s[^<>]*+>\s*+)?+<img\s(?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+>(?:\s*+</a>)?+)",
    re.IGNORECASE,
)
_IMAGE_FILE = re.compile(r"\.(?:jpe?g|png|gif|webp|avif|svg|bmp)(?:[?#]|\Z)", re.IGNORECASE)
_URL = re.compile(r"(?:https?:)?//[^\s\"'<>|]+", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_CODE_IN_PRE = re.compile(r"<pre[^<>]*+>\s*+\[([A-Za-z][A-Za-z0-9_-]*+)", re.IGNORECASE)

LANGUAGES = names("""
    actionscript3 applescript as3 bash c cf clojure coldfusion cpp csharp css delphi diff erlang
    fsharp go groovy haskell html java javascript javafx js latex matlab matlabkey objc
    objective-c pascal patch perl php php5 plain powershell ps py python r rails rb ror ruby scala
    shell sql text vb vbnet xhtml xml xslt yaml yml
    """)
"""Names of shortcodes of SyntaxHighlighter that are names of languages."""
CODE = LANGUAGES | {
    "cc", "cci", "ccb", "code", "codeblock", "codesyntax", "crayon", "highlight", "prism", "pre",
    "source", "sourcecode", "snippet", "syntax",
}  # fmt: skip
_FOOTNOTES = names("efn_note fn footnote ftn mfn modern_footnote ref sidenote")
_FOLDS = names("accordion-item collapse collapsible expand fold read_more spoiler su_accordion "
                   "su_spoiler toggle")  # fmt: skip
_QUOTE_NAMES = names("blockquote pullquote quote su_quote su_pullquote")
_BUTTONS = names("btn button link su_button url")
_MARKS = {"b": "strong", "bold": "strong", "i": "em", "italic": "em", "u": "u", "s": "del",
          "sub": "sub", "sup": "sup", "strong": "strong", "em": "em", "su_highlight": "mark",
          "strike": "del"}  # fmt: skip
_RULES = names("divider hr separator su_divider")
_SILENT = names(
    "footnotes reference_list ref_list references clear clearfix br nbsp raw vc_row vc_column "
    "vc_column_text row column columns col section su_row su_column one_half one_half_last "
    "one_third one_third_last two_third two_third_last dropcap su_dropcap noautop center "
    "su_note su_box su_list su_tabs su_tab tabs tab tabgroup box alert et_pb_section et_pb_row "
    "et_pb_column et_pb_text fusion_builder_container fusion_builder_row fusion_builder_column "
    "fusion_text caption wp_caption toc lwptoc ez-toc"
)
"""Layout: the content is kept without a note."""
_SITES: Mapping[str, str] = {
    "youtube": "https://www.youtube.com/watch?v={}",
    "youtube_sc": "https://www.youtube.com/watch?v={}",
    "su_youtube": "https://www.youtube.com/watch?v={}",
    "fve": "{}",
    "lyte": "https://www.youtube.com/watch?v={}",
    "vimeo": "https://vimeo.com/{}",
    "su_vimeo": "https://vimeo.com/{}",
    "dailymotion": "https://www.dailymotion.com/video/{}",
    "ted": "https://www.ted.com/talks/{}",
    "tweet": "https://twitter.com/i/status/{}",
    "twitter": "https://twitter.com/i/status/{}",
    "instagram": "https://www.instagram.com/p/{}/",
    "gist": "https://gist.github.com/{}",
    "wpvideo": "https://videopress.com/v/{}",
    "videopress": "https://videopress.com/v/{}",
    "spotify": "https://open.spotify.com/{}",
    "soundcloud": "{}",
    "slideshare": "https://www.slideshare.net/slideshow/embed_code/{}",
    "scribd": "https://www.scribd.com/document/{}",
    "googlevideo": "https://video.google.com/videoplay?docid={}",
    "codepen": "https://codepen.io/pen/{}",
    "bandcamp": "https://bandcamp.com/EmbeddedPlayer/album={}",
    "flickr": "https://www.flickr.com/photos/{}",
    "facebook": "{}",
    "googlemaps": "{}",
    "kickstarter": "{}",
    "mixcloud": "https://www.mixcloud.com/{}",
    "bliptv": "https://blip.tv/play/{}",
    "blip.tv": "https://blip.tv/play/{}",
    "iframe": "{}",
    "embedyt": "{}",
    "pdf": "{}",
    "pdf-embedder": "{}",
    "gview": "{}",
    "archiveorg": "https://archive.org/details/{}",
}
_SITE_ID = re.compile(r"[\w./:=@-]{1,200}", re.ASCII)
_AUDIO = ("src", "mp3", "m4a", "ogg", "oga", "wav", "flac", "wma", "url", "0")
_VIDEO = ("src", "mp4", "m4v", "webm", "ogv", "mov", "wmv", "flv", "url", "0")
_ADDRESSES = ("url", "src", "href", "link", "file", "video", "audio", "mp3", "mp4", "image", "img",
              "0", "1")  # fmt: skip


def replace_shortcodes(html: str, context: Context, notes: Notes) -> str:
    """Replace the shortcodes in a post by HTML. Code and comments are not searched."""
    return _Parser(html, context, notes).run() if _POSSIBLE.search(html) else html


MAX_DEPTH = 50
"""Maximum nesting of shortcodes."""
_MIN_IMAGE_LENGTH = 20
"""The length that a media file of a post counts as, also if a gallery does not show it."""


def _end_of_other(html: str, position: int) -> int:
    other = _OTHER.match(html, position)
    return other.end() if other else position


class _Frame:
    """A shortcode whose end has not been found yet."""

    __slots__ = ("attributes", "name", "parts")

    def __init__(self, name: str, attributes: str) -> None:
        self.name = name
        self.attributes = attributes
        self.parts: list[str] = []


class _Parser:
    """Finds shortcodes and their ends in one pass."""

    def __init__(self, html: str, context: Context, notes: Notes) -> None:
        self._html = html
        self._lower = html.lower()
        self._context = context
        self._notes = notes
        self._frames = [_Frame("", "")]
        self._ends: dict[str, int] = {}
        """The position of the last end of each shortcode, or -1."""

    def run(self) -> str:
        html, copied, position = self._html, 0, 0
        while token := _TOKEN.search(html, _end_of_other(html, position)):
            position = token.end()
            if token["protected"]:
                if not (code := _CODE_IN_PRE.match(html, token.start())) or (
                    code[1].lower() not in CODE
                ):
                    position = self._end_of(f"</{token['protected'].lower()}", position)
                continue
            if token["note"] is not None:
                if len(_WORD.findall(token["note"][:500])) < 3:
                    position = token.start() + 2
                    continue
                result: str | None = _footnote({}, token["note"], self._context, self._notes)
            elif token["name"] is None:
                continue
            else:
                result, position = self._shortcode(token)
            if result is None:
                continue
            start = token.start()
            if start and html[start - 1] == "[" and html[position - 1 : position + 1] == "]]":
                start, position = start - 1, position + 1  # [[escaped]]
            self._append(html[copied:start])
            self._append(result)
            copied = position
            self._close_or_open(token)
        self._append(html[copied:])
        while len(self._frames) > 1:
            self._finish(self._frames.pop())
        return "".join(self._frames[0].parts)

    def _append(self, text: str) -> None:
        self._frames[-1].parts.append(text)

    def _end_of(self, mark: str, position: int) -> int:
        """Return the position after this text, or `position` if there is none."""
        if mark not in self._ends:
            self._ends[mark] = self._lower.rfind(mark)
        if self._ends[mark] < position:
            return position
        return self._lower.find(mark, position) + len(mark)

    def _has_end(self, name: str, position: int) -> bool:
        return self._end_of(f"[/{name}]", position) > position

    def _shortcode(self, token: re.Match[str]) -> tuple[str | None, int]:
        """Return the HTML that replaces the token, or None, and the position to go on."""
        name, position = token["name"].lower(), token.end()
        start = token.start()
        is_escaped = start > 0 and self._html[start - 1] == "["
        if is_escaped and self._is_shortcode(token):
            if self._html[position : position + 1] == "]":
                return token[0], position
            end = self._end_of(f"[/{name}]]", position)
            if end > position:
                return self._html[start : end - 1], end - 1
        if not self._is_shortcode(token):
            return None, position
        if token["close"] or name not in CODE or not self._has_end(name, position):
            return "", position
        end = self._end_of(f"[/{name}]", position)
        content = self._html[position : end - len(name) - 3]
        return _code(name, _parse_attributes(token["attributes"]), content), end

    def _is_shortcode(self, token: re.Match[str]) -> bool:
        """Return whether text in brackets is a shortcode, not just text."""
        name = token["name"].lower()
        if token["close"]:
            return any(frame.name == name for frame in self._frames[1:]) or name in _SILENT
        if name in CODE:
            return self._has_end(name, token.end())
        if name in _NEED_CONTENT:
            return self._has_end(name, token.end())
        return (
            name in _HANDLERS
            or name in _SILENT
            or _ASSIGNMENTS.match(token["attributes"]) is not None
            or (name not in LANGUAGES and self._has_end(name, token.end()))
        )

    def _close_or_open(self, token: re.Match[str]) -> None:
        """Open a frame for a shortcode, or close the frames up to its beginning."""
        name = (token["name"] or "").lower()
        start = token.start()
        is_escaped = start > 0 and self._html[start - 1] == "["
        if not name or name in CODE or is_escaped:
            return
        if not token["close"]:
            frame = _Frame(name, token["attributes"])
            if (
                token["attributes"].endswith("/")
                or len(self._frames) > MAX_DEPTH
                or not self._has_end(name, token.end())
            ):
                self._append(self._render(frame, None))
            else:
                self._frames.append(frame)
            return
        while len(self._frames) > 1:
            frame = self._frames.pop()
            if frame.name == name:
                self._append(self._render(frame, "".join(frame.parts)))
                return
            self._finish(frame)

    def _finish(self, frame: _Frame) -> None:
        """Write a shortcode without an end, and what follows it."""
        self._append(self._render(frame, None))
        self._frames[-1].parts += frame.parts

    def _render(self, frame: _Frame, content: str | None) -> str:
        attributes = _parse_attributes(frame.attributes)
        if handler := _HANDLERS.get(frame.name):
            return handler(attributes, content, self._context, self._notes)
        if frame.name not in _SILENT:
            self._report(frame.name, has_content=bool(content and content.strip()))
        if content is not None:
            return content
        return "" if frame.name in _SILENT else _any_link(attributes)

    def _report(self, name: str, *, has_content: bool) -> None:
        kept = "its content was kept" if has_content else "what it shows is not in the export"
        self._notes.add(f"the shortcode [{name[:40]}] of a plugin was removed, {kept}")


_ASSIGNMENTS = re.compile(
    r"[\s=:|/]*+(?:[^\s=<]++\s++)?[\w-]++\s*+=\s*+(?=[\"'&\u201c\u201d\w])"
    r"(?:[^<\"']++|\"[^\"]*+\"|'[^']*+'|[\"'])*+\Z"
)
"""Attributes with a value, after one without a name at most. Others are words in brackets."""


def _parse_attributes(text: str) -> Attributes:
    """Return the attributes of a shortcode, with lower-case names."""
    text = text.strip().removesuffix("/").lstrip("=: ")
    if '"' not in text and "'" not in text:
        text = _QUOTES.sub('"', text)
    found: dict[str, str] = {}
    unnamed = 0
    for match in _ATTRIBUTE.finditer(text):
        value = next((group for group in match.groups()[1:] if group is not None), "")
        if match[1]:
            found[match[1].lower()] = unescape(value)
        else:
            found[str(unnamed)] = unescape(value)
            unnamed += 1
    return found


def _first(attributes: Attributes, *names: str) -> str:
    return next((attributes[name] for name in names if attributes.get(name)), "")


def _code(name: str, attributes: Attributes, content: str) -> str:
    """Return a code block. WordPress stores the code partly escaped."""
    language = _first(attributes, "language", "lang", "brush", "type") or (
        name if name in LANGUAGES else ""
    )
    if not language and re.fullmatch(r"[A-Za-z0-9+#-]{1,20}", attributes.get("0", "")):
        language = attributes["0"]
    content = re.sub(r"(?i)<br ?/?>\n?", "\n", content) if content.count("<br") else content
    code = escape(unescape(content).strip("\r\n"), quote=False)
    return f'\n\n<pre data-lang="{escape(language)}">\n{code}</pre>\n\n'


def _figure(content: str, caption: str) -> str:
    return f"\n\n<figure>{content}<figcaption>{caption}</figcaption></figure>\n\n"


def _caption(attributes: Attributes, content: str | None, _: Context, __: Notes) -> str:
    """The caption is an attribute in old posts, and follows the image in newer ones."""
    content = content or ""
    caption = attributes.get("caption", "")
    image = _LINKED_IMAGE.match(content)
    if image and not caption:
        content, caption = image[1], content[image.end() :].strip()
    return _figure(content, caption) if caption else f"\n\n<figure>{content}</figure>\n\n"


def _media(ids: str, context: Context, notes: Notes) -> list[Attachment]:
    """Return the attachments with these ids, each of them once."""
    found = []
    for name in dict.fromkeys(re.split(r"[,\s]+", ids)):
        if name in context.attachments:
            found.append(context.attachments[name])
        elif name:
            notes.add("an image of a gallery is not in the export and was left out")
    return found


def image_html(image: Attachment, notes: Notes) -> str:
    """Return an attachment as an image with its caption. Raises TooComplex."""
    tag = f'<img src="{escape(image.url)}" alt="{escape(image.alt)}">'
    html = _figure(tag, image.caption) if image.caption.strip() else f"<p>{tag}</p>"
    notes.count_inserted(len(html))
    return html


def _gallery(attributes: Attributes, _: "str | None", context: Context, notes: Notes) -> str:
    ids = _first(attributes, "ids", "include")
    if ids:
        images = _media(ids, context, notes)
    else:
        notes.count_inserted(_MIN_IMAGE_LENGTH * len(context.attached))
        excluded = set(re.split(r"[,\s]+", attributes.get("exclude", "")))
        images = [
            context.attachments[name]
            for name in dict.fromkeys(context.attached)
            if name in context.attachments and name not in excluded
        ]
        images = [image for image in images if _IMAGE_FILE.search(image.url)]
        if not images:
            notes.add("a gallery without images was left out")
    return "\n\n" + "\n\n".join(image_html(image, notes) for image in images) + "\n\n"


def _playlist(attributes: Attributes, _: "str | None", context: Context, notes: Notes) -> str:
    items = _media(_first(attributes, "ids", "include"), context, notes)
    links = []
    for item in items:
        text = escape(item.title or file_name(item.url))
        links.append(f'<p><a href="{escape(item.url)}">{text}</a></p>')
        notes.count_inserted(len(links[-1]))
    return "\n\n" + "".join(links)


def _file(tag: str, names: tuple[str, ...]) -> Handler:
    def convert(attributes: Attributes, content: str | None, _: Context, notes: Notes) -> str:
        url = _first(attributes, *names).split("|", 1)[0]
        if not url and content and (found := _URL.search(content)):
            url = found[0]
        if not url:
            notes.add(f"a player without a URL ([{tag}]) was left out")
            return ""
        return f'\n\n<{tag} src="{escape(url)}"></{tag}>\n\n'

    return convert


def _embed(attributes: Attributes, content: str | None, _: Context, __: Notes) -> str:
    found = _URL.search(unescape(content or "")) or _URL.search(_first(attributes, *_ADDRESSES))
    return _player(found[0]) if found else content or ""


def _player(url: str) -> str:
    return f'\n\n<figure><iframe src="{escape(url)}"></iframe></figure>\n\n'


def _site(name: str) -> Handler:
    """Return a handler for a site's shortcode, which has an address or an id."""

    def convert(attributes: Attributes, content: str | None, _: Context, notes: Notes) -> str:
        text = unescape(content or "").strip()
        given = text or _first(
            attributes, "url", "src", "href", "id", "video", "user", "tweet", "0"
        )
        if found := _URL.search(given):
            return _player(found[0])
        given = given.split("&", 1)[0]
        url = _SITES[name].format(given)
        if given and _SITE_ID.fullmatch(given) and url.startswith("http"):
            return _player(url)
        notes.add(f"the shortcode [{name}] was left out, because it has no URL")
        return content or ""

    return convert


def _footnote(_: Attributes, content: str | None, __: Context, ___: Notes) -> str:
    return f'<span data-footnote="">{(content or "").strip()}</span>'


def _fold(attributes: Attributes, content: str | None, _: Context, __: Notes) -> str:
    title = _first(attributes, "title", "heading", "label", "show", "text", "0")
    return (
        f"\n\n<details><summary>{escape(title, quote=False)}</summary>\n\n"
        f"{content or ''}\n\n</details>\n\n"
    )


def _quote(attributes: Attributes, content: str | None, _: Context, __: Notes) -> str:
    source = _first(attributes, "author", "cite", "source")
    cited = f"\n\n\u2014 {escape(source)}" if source else ""
    return f"\n\n<blockquote>{content or ''}{cited}</blockquote>\n\n"


def _button(attributes: Attributes, content: str | None, _: Context, __: Notes) -> str:
    url = _first(attributes, "url", "href", "link", "0")
    text = content or escape(_first(attributes, "text", "title", "label"))
    if not url and _URL.fullmatch(text.strip()):
        url = unescape(text.strip())
    return f'<a href="{escape(url)}">{text or escape(url)}</a>' if url else text


def _formula(_: Attributes, content: str | None, __: Context, ___: Notes) -> str:
    return f"${(content or '').strip()}$"


def _mark(tag: str) -> Handler:
    return lambda _, content, __, ___: f"<{tag}>{content or ''}</{tag}>"


def _any_link(attributes: Attributes) -> str:
    """Return the image or a link for an unknown shortcode with an address."""
    for name in _ADDRESSES:
        if url := _URL.match(attributes.get(name, "")):
            if _IMAGE_FILE.search(url[0]):
                return f'<img src="{escape(url[0])}" alt="{escape(attributes.get("alt", ""))}">'
            text = _first(attributes, "title", "text", "label") or file_name(url[0])
            return f'<a href="{escape(url[0])}">{escape(text)}</a>'
    return ""


_HANDLERS: dict[str, Handler] = {
    "audio": _file("audio", _AUDIO),
    "caption": _caption,
    "embed": _embed,
    "gallery": _gallery,
    "latex": _formula,
    "playlist": _playlist,
    "slideshow": _gallery,
    "video": _file("video", _VIDEO),
    "wp_caption": _caption,
    **{name: _site(name) for name in _SITES},
    **dict.fromkeys(_FOOTNOTES, _footnote),
    **dict.fromkeys(_FOLDS, _fold),
    **dict.fromkeys(_QUOTE_NAMES, _quote),
    **dict.fromkeys(_BUTTONS, _button),
    **{name: _mark(tag) for name, tag in _MARKS.items()},
    **dict.fromkeys(_RULES, lambda *_: "\n\n<hr>\n\n"),
}
_NEED_CONTENT = (
    _FOOTNOTES | _MARKS.keys() | _FOLDS | _QUOTE_NAMES | {"latex", "caption", "wp_caption", "link"}
)
"""Names that are words in brackets unless they have an end."""
