"""Rendering of Markdown to safe HTML.

The syntax is GitHub Flavored Markdown with footnotes and highlighted code. Raw HTML passes the
Markdown parser. nh3 then parses the whole output like a browser and keeps only allowed elements and
attributes, so that safety does not depend on the Markdown parser.

Only the renderer may set `class`, `data-embed` and the ids of headings and footnotes. An author
could use them to imitate the page around the article. The renderer writes these attributes under
random names (`_NONCE`). The sanitizer removes the author's attributes, and `_restore` then restores
the real names. An author's `id` gets a prefix. Checkboxes and iframes pass the sanitizer as
placeholders with random names, and the author's `input` and `iframe` elements are removed.

A thread cannot be cancelled, so rendering stops after a number of steps (`_Budget`) instead of a
timeout. The same text is therefore always accepted or always rejected.
"""

import html as entities
import re
import secrets
import time
import unicodedata
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from io import StringIO
from typing import Any, NamedTuple, TypedDict
from urllib.parse import unquote

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import (
    escapeHtml,
    isLinkClose,
    isLinkOpen,
    isMdAsciiPunct,
    isPunctChar,
    isWhiteSpace,
)
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, autolink, html_inline
from markdown_it.rules_inline import text as skip_text
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.footnote.index import footnote_ref
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from app.content.slugs import slugify
from app.core.config import get_settings
from app.core.errors import ContentTooComplex
from app.core.threads import FairThreadPool

RENDERER = 2
"""The version of the output. Increase it when the output changes: stored articles are then
rendered again."""

MAX_EVENT_LOOP_BYTES = 50_000
MAX_EVENT_LOOP_MARKS = 5_000
"""Limits for rendering on the event loop; this many marks take as long as the bytes, or longer."""
MAX_QUEUED = 20
"""Texts that may wait for the thread of a process; each takes at most a second."""
MAX_QUEUED_PER_USER = 2

BUDGET = 700_000
"""Steps for rendering an article; a step takes about a microsecond."""
COMMENT_BUDGET = 50_000
"""Steps for rendering a comment, which runs on the event loop."""
MAX_NESTING = 40
"""Maximum nesting of blocks: 40 quotes, or 20 lists, because a list item is a block too."""
MAX_DEPTH = 100
"""Maximum nesting of elements in the output; other parsers stop at 256 or 512."""
MAX_PARSES = 4
MAX_HEADING = 300
MAX_TAGS = 10_000
MAX_ATTRIBUTES = 10_000
MAX_REOPENED = 1_000_000
"""Limits for raw HTML. A parser reopens unclosed formatting elements in each later block."""

MAX_CODE = 20_000
"""Characters of the longest code block that is highlighted."""
MAX_HIGHLIGHT_SECONDS = 0.25
"""CPU seconds per text for highlighting, because some lexers take quadratic time. The remaining
code blocks are not highlighted."""

WORDS_PER_MINUTE = 230
EXCERPT_LENGTH = 200

LANGUAGES = frozenset(
    """
    bash c clojure cmake cpp csharp css dart diff docker elixir erlang fsharp go graphql groovy
    haskell hcl html http java javascript json json5 julia kotlin lua make nginx nim objective-c
    perl php plpgsql postgresql powershell protobuf pycon python pytb r ruby rust scala scss sql
    swift terraform toml typescript vim xml yaml zig
    """.split()  # noqa: SIM905 - a list of sixty lines is no easier to read
)
"""Languages that are highlighted, by their Pygments names.

A lexer can only be stopped between two tokens. These lexers are fast for hostile input too; those
of INI, MATLAB and OCaml took seconds for one token.
"""
ALIASES = {
    "c++": "cpp",
    "c#": "csharp",
    "cs": "csharp",
    "dockerfile": "docker",
    "ex": "elixir",
    "golang": "go",
    "hs": "haskell",
    "htm": "html",
    "js": "javascript",
    "jsx": "javascript",
    "kt": "kotlin",
    "makefile": "make",
    "mjs": "javascript",
    "objc": "objective-c",
    "patch": "diff",
    "pgsql": "postgresql",
    "pl": "perl",
    "ps1": "powershell",
    "psql": "postgresql",
    "py": "python",
    "python3": "python",
    "rb": "ruby",
    "rs": "rust",
    "sh": "bash",
    "shell": "bash",
    "svg": "xml",
    "tf": "terraform",
    "ts": "typescript",
    "tsx": "typescript",
    "yml": "yaml",
    "zsh": "bash",
}


class Heading(TypedDict):
    """An entry of the table of contents; `id` is the id of the heading in the HTML."""

    level: int
    text: str
    id: str


class Rendered(NamedTuple):
    """The result of rendering; `text` is one line of plain text."""

    html: str
    text: str
    toc: list[Heading]
    word_count: int
    reading_time: int
    """Minutes; at least 1 if there are words."""


async def render(content: str, *, user_id: int | None = None) -> Rendered:
    """Render like `render_sync`, in a thread if the text is long.

    The thread serves users in turn; `user_id` is the author. Do not hold a database connection
    while waiting.

    Raises ContentTooComplex, TooManyAtOnce if too many texts of this user are waiting, and
    ServiceUnavailable if too many texts of all users are waiting.
    """
    if is_light(content):
        return render_sync(content)
    return await _thread.run(lambda: _render(content, _Budget(yields=True)), user_id=user_id)


def render_sync(content: str) -> Rendered:
    """Render `content` to HTML, plain text and a table of contents.

    Raises ContentTooComplex if that would take more than about a second.
    """
    return _render(content, _Budget())


def render_comment(content: str) -> str:
    """Render a comment to HTML: paragraphs, emphasis, links, quotes, lists and code only.

    Headings, images, tables, task lists, alerts, footnotes and HTML stay as they were typed. The
    URL of a video is a normal link. Raises ContentTooComplex if rendering would take more than
    about 50 ms.
    """
    return _render(content, _Budget(COMMENT_BUDGET), _comment_parser).html


def make_excerpt(text: str) -> str:
    """Return the beginning of `text`: about 200 characters, cut at a space if possible."""
    line = " ".join(text[: 8 * EXCERPT_LENGTH].split())
    if len(line) <= EXCERPT_LENGTH:
        return line
    space = line.rfind(" ", EXCERPT_LENGTH // 2, EXCERPT_LENGTH + 1)
    end = space if space > 0 else EXCERPT_LENGTH
    while space < 0 and end > EXCERPT_LENGTH // 2 and _is_one_grapheme(line[end - 1], line[end]):
        end -= 1
    return line[:end].rstrip(" ,;:.-\u2013\u2014") + "…"


# ---------------------------------------------------------------------------------------------
# Cost and scheduling

_MARKS = "*_~[]<>`|&\\\n"
_URL_MARKS = ("://", "www.", "@")
"""Strings that start the search for a bare URL or email; each costs as much as two marks."""


def is_light(content: str) -> bool:
    """Return whether `content` is small enough for rendering on the event loop."""
    return (
        len(content) <= MAX_EVENT_LOOP_BYTES
        and (content.isascii() or len(content.encode(errors="replace")) <= MAX_EVENT_LOOP_BYTES)
        and sum(map(content.count, _MARKS)) + 2 * sum(map(content.count, _URL_MARKS))
        <= MAX_EVENT_LOOP_MARKS
    )


_thread = FairThreadPool(
    "rendering",
    size=1,
    what="long texts",
    max_jobs=MAX_QUEUED,
    max_jobs_per_user=MAX_QUEUED_PER_USER,
)
"""A single thread: parsing holds the GIL, so that two threads would not be faster.

The thread has normal priority. A low-priority thread could hold the GIL without getting CPU time,
and would then block the event loop. It sleeps regularly instead (`_Budget`).
"""


class _Budget:
    """The remaining steps for rendering one text."""

    __slots__ = ("_pause_at", "_yields", "has_nested_links", "highlight_seconds", "left", "tokens")

    def __init__(self, steps: int = BUDGET, *, yields: bool = False) -> None:
        """`yields`: whether to release the GIL regularly."""
        self.left = steps
        self.tokens = 0
        self.has_nested_links = False
        self.highlight_seconds = MAX_HIGHLIGHT_SECONDS
        self._yields = yields
        self._pause_at = steps

    def spend(self, steps: int) -> None:
        """Subtract `steps`. Raises ContentTooComplex if too few are left."""
        self.left -= steps
        if self.left < 0:
            raise ContentTooComplex(
                "The Markdown takes too long to render: shorten it, or use less markup"
            )
        if self._yields and self.left < self._pause_at:
            self._pause_at = self.left - 1000
            time.sleep(0.000_05)  # the event loop gets the GIL immediately

    def require(self, steps: int) -> None:
        """Raise ContentTooComplex if fewer than `steps` are left, without spending them."""
        if steps > self.left:
            self.spend(steps)


def _budget(env: MutableMapping[str, Any]) -> _Budget:
    budget: _Budget = env["budget"]
    return budget


# ---------------------------------------------------------------------------------------------
# Markdown to tokens, counting steps


_EMOJI = re.compile("[\u231a\u231b\u23e9-\u2bff\U0001f000-\U0001faff]")
"""Wide characters that are not CJK characters: Emoji_Presentation (UTS #51)."""


def _is_cjk(character: str) -> bool:
    """Return whether this is a CJK character: wide (UAX #11) but no emoji, or Hangul.

    The definition is from https://github.com/commonmark/commonmark-spec/pull/839.
    """
    if character < "\u1100":
        return character == "\u20a9"
    return (
        character <= "\u11ff"
        or "\ud7b0" <= character <= "\ud7ff"
        or (unicodedata.east_asian_width(character) in "WFH" and not _EMOJI.match(character))
        or "\U000e0100" <= character <= "\U000e01ef"  # ideographic variation selectors
    )


def is_punctuation(character: str) -> bool:
    """Return whether emphasis treats this character as punctuation."""
    return isMdAsciiPunct(ord(character)) or isPunctChar(character)


def flanking(before: str, after: str) -> tuple[bool, bool]:
    """Return whether a run of `*` or `~` between these characters can open and close emphasis.

    CommonMark expects white space or punctuation on the other side of punctuation. Chinese,
    Japanese and Korean have no spaces there, so a CJK character on either side counts too.
    """
    spaces = isWhiteSpace(ord(before)), isWhiteSpace(ord(after))
    marks = is_punctuation(before), is_punctuation(after)
    has_cjk = _is_cjk(before) or _is_cjk(after)
    return (
        not spaces[1] and (has_cjk or not marks[1] or spaces[0] or marks[0]),
        not spaces[0] and (has_cjk or not marks[0] or spaces[1] or marks[1]),
    )


class _StateInline(StateInline):
    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802, N803
        """Determine whether a run of `*`, `_` or `~` opens or closes emphasis.

        Runs without an adjacent CJK character follow CommonMark, others follow `flanking`.
        """
        scanned = super().scanDelims(start, canSplitWord)
        end = start + scanned.length
        before = self.src[start - 1] if start > 0 else " "
        after = self.src[end] if end < self.posMax else " "
        if "\ufe00" <= before <= "\ufe0e" and start > 1 and _is_cjk(self.src[start - 2]):
            before = self.src[start - 2]  # skip a variation selector
        if not (_is_cjk(before) or _is_cjk(after)):
            return scanned
        left, right = flanking(before, after)
        return Scanned(
            left and (canSplitWord or not right or is_punctuation(before)),
            right and (canSplitWord or not left or is_punctuation(after)),
            scanned.length,
        )


class _Inline(ParserInline):
    def __init__(self) -> None:
        super().__init__()
        # The text rule must also stop before a URL without a scheme.
        # A set of characters comes first: `re` skips to the next one of them at once.
        self.terminator_re = re.compile(
            rf"(?:{self.terminator_re.pattern}|[wW])(?:(?<![wW])|(?=[wW][wW]\.))"
        )

    def parse(
        self, src: str, md: MarkdownIt, env: MutableMapping[str, Any], tokens: list[Token]
    ) -> list[Token]:
        marks = src.count("*") + src.count("_") + src.count("~")
        _budget(env).spend(6 + 9 * marks + len(src) // 50)
        state = _StateInline(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens

    def skipToken(self, state: StateInline) -> None:  # noqa: N802 - the name in markdown-it
        _budget(state.env).spend(2)
        super().skipToken(state)


def _count_inline(state: StateInline, silent: bool) -> bool:
    """Count the steps of an inline position; the parser calls the first rule at each position."""
    _budget(state.env).spend(4)
    return skip_text(state, silent)


def _count_block(state: StateBlock, line: int, _end: int, silent: bool) -> bool:
    """Count the steps of a block; the parser calls the first rule for each block and line."""
    budget = _budget(state.env)
    if not silent and state.level > MAX_NESTING:
        raise ContentTooComplex("Lists and quotes are nested too deeply: use at most 20 levels")
    new_tokens = len(state.tokens) - budget.tokens
    budget.tokens += new_tokens
    # The title of a link reference is copied for each of its lines.
    budget.spend(8 + 3 * new_tokens + (50 if state.parentType == "reference" else 0))
    start, end = state.bMarks[line], state.eMarks[line]
    cells = state.src.count("|", start, end)
    budget.spend(cells + (0 if silent else (end - start) // 16))
    if not silent or state.parentType == "table":
        budget.require(12 * cells)
    return False


_FOOTNOTE = re.compile(r"\[\^[^\]\s]{1,100}\]")


def _footnote_ref(state: StateInline, silent: bool) -> bool:
    """Limit the length of a label: the rule of the plugin searches the whole text for its end."""
    return _FOOTNOTE.match(state.src, state.pos) is not None and footnote_ref(state, silent)


def _html_inline(state: StateInline, silent: bool) -> bool:
    """Count the length of comments: the rule may read an invalid one to the end of the text."""
    src, start = state.src, state.pos
    if src.startswith("<!--", start):
        end = src.find("-->", start)
        _budget(state.env).spend(((end if end > 0 else len(src)) - start) // 20)
    return html_inline(state, silent)


def _autolink(state: StateInline, silent: bool) -> bool:
    """Count the length of URLs: parsing and normalizing them takes most of the time of links."""
    start = state.pos
    is_link = autolink(state, silent)
    if is_link:
        _budget(state.env).spend(30 + (state.pos - start) // 4)
    return is_link


# ---------------------------------------------------------------------------------------------
# Bare URLs and emails: https://github.github.com/gfm/#autolinks-extension-
#
# linkify-it-py and the GFM plugin of mdit-py-plugins scan the rest of the text for each candidate,
# which takes quadratic time. This code scans each candidate once, up to MAX_URL characters.

MAX_URL = 2000
"""Maximum length of a bare URL; a longer one stays text."""

_HOST = re.compile(r"[\w-]++(?:\.[\w-]++)*+")
# Full-width punctuation ends a URL: Chinese and Japanese have no space after it.
_URL = re.compile(
    r"[^\s<\x00-\x1f\x7f\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff3d\uff5b-\uff65]"
    rf"{{1,{MAX_URL + 1}}}+"
)
_ENTITY = re.compile(r"&[A-Za-z0-9]{1,32};\Z")
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9.+_-])(?:mailto:)?+([A-Za-z0-9.+_-]{1,64}+@"
    r"([A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)++))(?![@\w])",
    re.ASCII,
)


def _bare_url(state: StateInline, silent: bool) -> bool:
    """Turn `https://…`, `http://…` and `www.…` outside links into links."""
    if silent or state.linkLevel > 0 or state.src[state.pos] not in ":wW":
        return False
    scheme = _scheme_at(state)
    if scheme is None:
        return False
    start = state.pos - len(scheme)
    url = _url_at(state, start, scheme)
    if not url:
        return False
    if scheme:
        state.pending = state.pending[: -len(scheme)]
    href = state.md.normalizeLink(url if scheme else f"http://{url}")
    token = state.push("link_open", "a", 1)
    token.attrs, token.markup, token.info = {"href": href}, "autolink", "auto"
    state.push("text", "", 0).content = url
    state.push("link_close", "a", -1)
    state.pos = start + len(url)
    return True


def _scheme_at(state: StateInline) -> str | None:
    """Return the scheme before the current colon, "" at `www.`, or None."""
    src, pos = state.src, state.pos
    if src[pos] != ":":
        scheme = "" if src[pos : pos + 4].lower() == "www." else None
    elif not src.startswith("://", pos):
        scheme = None
    else:  # `pending` contains no markup
        last = state.pending[-5:]
        scheme = next((last[-n:] for n in (5, 4) if last[-n:].lower() == "https"[:n]), None)
    if scheme is None:
        return None
    start = pos - len(scheme)
    before = src[start - 1] if start > 0 else " "
    is_inside_word = before in "/@.-" or (before.isascii() and before.isalnum())
    return None if is_inside_word else scheme


def _url_at(state: StateInline, start: int, scheme: str) -> str:
    """Return the URL that begins at `start`, or "" if its host is invalid or it is too long."""
    budget = _budget(state.env)
    budget.spend(5)
    host_start = start + (len(scheme) + 3 if scheme else 0)
    host = _HOST.match(state.src, host_start, state.posMax)
    labels = host[0].rsplit(".", 2) if host else []
    if len(labels) < (1 if scheme else 3) or "_" in "".join(labels[-2:]):
        return ""
    match = _URL.match(state.src, start, state.posMax)
    length = len(match[0]) if match else 0
    budget.spend(30 + length // 4)
    if match is None or length > MAX_URL:
        return ""
    url = _strip_punctuation(match[0].partition("[^")[0])  # a footnote may follow
    return url if len(url) > host_start - start else ""


def _strip_punctuation(url: str) -> str:
    """Remove trailing punctuation and brackets, which belong to the surrounding sentence."""
    unopened = url.count(")") - url.count("(")
    while url:
        last = url[-1]
        if last in "?!.,:*_~'\"[]":
            url = url[:-1]
        elif last == ";":
            entity = _ENTITY.search(url, max(0, len(url) - 40))
            url = url[: entity.start()] if entity else url[:-1]
        elif last == ")" and unopened > 0:
            url, unopened = url[:-1], unopened - 1
        else:
            break
    return url


def _link_emails(state: StateCore) -> None:
    """Turn bare email addresses outside links and code into links."""
    for block in state.tokens:
        if block.type == "inline" and "@" in block.content and block.children:
            block.children = list(_with_emails(block.children, state.md, _budget(state.env)))


def _with_emails(tokens: Sequence[Token], md: MarkdownIt, budget: _Budget) -> Iterator[Token]:
    link_level = 0
    for token in tokens:
        if token.type == "html_inline":
            link_level += isLinkOpen(token.content) - isLinkClose(token.content)
        elif token.type in {"link_open", "link_close"}:
            link_level += token.nesting
        elif token.type == "text" and link_level <= 0 and "@" in token.content:
            yield from _split_at_emails(token, md, budget)
            continue
        yield token


def _split_at_emails(token: Token, md: MarkdownIt, budget: _Budget) -> Iterator[Token]:
    text, end = token.content, 0
    budget.spend(5 + len(text) // 20)
    for match in _EMAIL.finditer(text):
        budget.spend(30 + len(match[0]) // 4)
        if match[2][-1] in "-_" or len(match[2]) > MAX_URL:
            continue
        if match.start() > end:
            yield Token("text", "", 0, content=text[end : match.start()], level=token.level)
        href = md.normalizeLink(f"mailto:{match[1]}")
        link = Token("link_open", "a", 1, attrs={"href": href}, level=token.level)
        link.markup, link.info = "autolink", "auto"
        yield link
        yield Token("text", "", 0, content=match[0], level=token.level + 1)
        yield Token("link_close", "a", -1, level=token.level)
        end = match.end()
    if end < len(text):
        yield Token("text", "", 0, content=text[end:], level=token.level)


# ---------------------------------------------------------------------------------------------
# Video, audio and iframes

_VIDEO_SITE = re.compile(
    r"https?://(?:www\.|m\.)?(?:"
    r"(?P<youtube>(?:youtube(?:-nocookie)?\.com/(?:watch\?(?:[\w.~%&=-]{0,200}&)?v=|embed/|shorts/|live/)"
    r"|youtu\.be/)[\w-]{6,20}(?![\w-]))"
    r"|(?P<vimeo>(?:player\.)?vimeo\.com/(?:video/|channels/[\w-]{1,60}/)?\d{1,15}(?![\w-]))"
    r")",
    re.IGNORECASE | re.ASCII,
)
_MEDIA_FILE = re.compile(
    r"https?://[^/?#]++/[^?#]*?\.(?:(?P<video>mp4|m4v|mov|ogv|webm)"
    r"|(?P<audio>aac|flac|m4a|mp3|oga|ogg|opus|wav))(?:[?#]|\Z)",
    re.IGNORECASE,
)
_IFRAME = re.compile(
    r"<iframe(?=[\s/>])((?:[^<>\"']|\"[^\"<>]*+\"|'[^'<>]*+')*+)>\s*+</iframe\s*+>", re.IGNORECASE
)
_SRC = re.compile(r"(?:\A|\s)src\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)')", re.IGNORECASE)
_IFRAME_URL = re.compile(
    r"https://([a-z0-9.-]{1,253})(?:/[\w./?=&;%+~,:@!$*()-]{0,1000})?", re.ASCII
)


def embed_provider(url: str) -> str | None:
    """Return the `data-embed` value of a media URL: `youtube`, `vimeo`, `video` or `audio`."""
    if len(url) > MAX_URL:
        return None
    match = _VIDEO_SITE.match(url) or _MEDIA_FILE.match(url)
    return match.lastgroup if match else None


def _mark_embed(tokens: Sequence[Token], index: int) -> None:
    """Mark the paragraph of this inline token if it contains only a bare media URL."""
    paragraph, children = tokens[index - 1], tokens[index].children or []
    if len(children) != 3 or paragraph.type != "paragraph_open" or paragraph.hidden:
        return
    link = children[0]
    if link.type == "link_open" and link.info == "auto":
        provider = embed_provider(str(link.attrs["href"]))
        if provider is not None:
            paragraph.attrs[_CLASS] = "embed"
            link.attrs[_EMBED] = provider


def _replace_iframes(html: str) -> str:
    """Replace iframes of IFRAME_HOSTS by placeholders, and other video iframes by links."""
    return _IFRAME.sub(_replace_iframe, html) if "<iframe" in html.lower() else html


def _replace_iframe(iframe: re.Match[str]) -> str:
    src = _SRC.search(iframe[1])
    url = entities.unescape(src[1] or src[2] or "").strip() if src else ""
    match = _IFRAME_URL.fullmatch(f"https:{url}" if url.startswith("//") else url)
    if match is None:
        return iframe[0]
    if match[1] in get_settings().iframe_hosts:
        return f'<wbr {_IFRAME_SRC}="{escapeHtml(match[0])}">'
    provider = embed_provider(match[0])
    if provider is None:
        return iframe[0]
    escaped = escapeHtml(match[0])
    return f'<p {_CLASS}="embed"><a href="{escaped}" {_EMBED}="{provider}">{escaped}</a></p>'


# ---------------------------------------------------------------------------------------------
# Tokens to HTML

_NONCE = f"data-{secrets.token_hex(8)}"
_ID, _CLASS, _EMBED = f"{_NONCE}-id", f"{_NONCE}-class", f"{_NONCE}-embed"
_CHECKED, _IFRAME_SRC = f"{_NONCE}-checked", f"{_NONCE}-iframe"
ID_PREFIX = "user-content-"
"""Prefix of the author's ids, as on GitHub: they cannot collide with ids of the page."""
_LANGUAGE = re.compile(r"[a-z0-9][a-z0-9_+#.-]{0,30}")
_IDS = re.compile(rf'{_ID}="([^"]*)"')
_formatter = HtmlFormatter(nowrap=True)


def _fence(
    _renderer: Any, tokens: Sequence[Token], index: int, _options: Any, env: dict[str, Any]
) -> str:
    code = tokens[index].content
    match = _LANGUAGE.match(tokens[index].info.strip().lower())
    if match is None:
        return f"<pre><code>{escapeHtml(code)}</code></pre>\n"
    language = match[0]
    highlighted = _highlight(code, ALIASES.get(language, language), _budget(env))
    # Unknown languages keep their class: a front end may support them.
    attribute = f'{_CLASS}="language-{language}"'
    if highlighted is None:
        return f"<pre><code {attribute}>{escapeHtml(code)}</code></pre>\n"
    return f'<pre {_CLASS}="highlight"><code {attribute}>{highlighted}</code></pre>\n'


def _highlight(code: str, language: str, budget: _Budget) -> str | None:
    """Return `code` with spans for its tokens, or None if it is not highlighted."""
    if language not in LANGUAGES or len(code) > MAX_CODE or budget.highlight_seconds <= 0:
        return None
    # Not measured: creating the first lexer of a language in a process takes long.
    lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    started, out = time.thread_time(), StringIO()
    try:
        tokens = _until(started + budget.highlight_seconds, lexer.get_tokens(code))
        _formatter.format(tokens, out)
    except TimeoutError:
        return None
    finally:
        budget.highlight_seconds -= time.thread_time() - started
    return out.getvalue().replace(' class="', f' {_CLASS}="')


def _until(deadline: float, tokens: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
    """Yield the tokens. Raises TimeoutError once the thread's CPU time reaches `deadline`."""
    for token in tokens:
        if time.thread_time() > deadline:
            raise TimeoutError
        yield token


def _image(
    renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]
) -> str:
    token = tokens[index]
    token.attrs["alt"] = _plain_text(token.children or [])
    html: str = renderer.renderToken(tokens, index, options, env)
    return html


def _checkbox(token: Token) -> str:
    return f'<wbr {_CHECKED}="{"yes" if token.meta["checked"] else "no"}"> '


def _list_item(
    renderer: Any, tokens: Sequence[Token], index: int, options: Any, _env: dict[str, Any]
) -> str:
    """Render a list item, with its checkbox unless its paragraph contains it."""
    html: str = renderer.renderToken(tokens, index, options, _env)
    return html + _checkbox(tokens[index]) if "checked" in tokens[index].meta else html


def _footnote_number(token: Token) -> str:
    repetition: int = token.meta.get("subId", 0)
    return f"{token.meta['id'] + 1}" + (f"-{repetition + 1}" if repetition > 0 else "")


def _footnote_reference(_renderer: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
    token = tokens[index]
    note = token.meta["id"] + 1
    return (
        f'<sup {_CLASS}="footnote-ref"><a href="#fn-{note}" '
        f'{_ID}="fnref-{_footnote_number(token)}">{note}</a></sup>'
    )


def _footnotes_open(*_: Any) -> str:
    return f'<section {_CLASS}="footnotes">\n<ol {_CLASS}="footnotes-list">\n'


def _footnote_open(_renderer: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
    return f'<li {_ID}="fn-{tokens[index].meta["id"] + 1}" {_CLASS}="footnote-item">'


def _footnote_backref(_renderer: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
    # U+FE0E selects the text presentation instead of an emoji.
    return (
        f' <a href="#fnref-{_footnote_number(tokens[index])}" '
        f'{_CLASS}="footnote-backref">\u21a9\ufe0e</a>'
    )


_DISABLED_IN_COMMENTS = [
    "table",
    "heading",
    "lheading",
    "reference",
    "html_block",
    "html_inline",
    "image",
    "footnote_def",
    "footnote_ref",
    "footnote_tail",
]


_SIMPLE_URL = re.compile(
    r"https?://[a-z0-9-]++(?:\.[a-z0-9-]++)*+(?:/[A-Za-z0-9./_~-]*+)?", re.ASCII
)
"""URLs that normalizing does not change. Parsing one takes ten times as long as this."""


class _Parser(MarkdownIt):
    def normalizeLink(self, url: str) -> str:  # noqa: N802 - the name in markdown-it
        return url if _SIMPLE_URL.fullmatch(url) else super().normalizeLink(url)


def make_parser(disabled: Iterable[str] = (), *, task_lists_and_alerts: bool = True) -> MarkdownIt:
    """Return a parser without the `disabled` rules. `parse` counts its steps."""
    md = _Parser("commonmark")
    md.inline = _Inline()
    md.configure(
        "commonmark",
        {
            "xhtmlOut": False,
            "maxNesting": MAX_NESTING + 3,
            "strikethrough_single_tilde": True,
            "tasklists": task_lists_and_alerts,
            "alerts": task_lists_and_alerts,
        },
    )
    md.enable(["table", "strikethrough"])
    # No inline footnotes (`^[text]`): GitHub does not support them, and they nest without a limit.
    md.use(footnote_plugin, inline=False)
    md.inline.ruler.at("text", _count_inline)
    md.inline.ruler.at("footnote_ref", _footnote_ref)
    md.inline.ruler.at("autolink", _autolink)
    md.inline.ruler.at("html_inline", _html_inline)
    md.inline.ruler.push("bare_url", _bare_url)
    md.core.ruler.after("inline", "bare_emails", _link_emails)
    chains = ["paragraph", "reference", "blockquote", "list"]
    md.block.ruler.before("table", "count", _count_block, {"alt": chains})
    for name, rule in (
        ("fence", _fence),
        ("image", _image),
        ("list_item_open", _list_item),
        ("checkbox", lambda _, tokens, index, *__: _checkbox(tokens[index])),
        ("footnote_ref", _footnote_reference),
        ("footnote_block_open", _footnotes_open),
        ("footnote_open", _footnote_open),
        ("footnote_anchor", _footnote_backref),
    ):
        md.add_render_rule(name, rule)
    md.disable(list(disabled))
    # The rulers compile their rules on first use, which is not thread-safe.
    md.render("x", {"budget": _Budget()})
    return md


def parse(md: MarkdownIt, content: str) -> list[Token]:
    """Return the tokens of a text. Raises ContentTooComplex like `render_sync`."""
    try:
        return md.parse(content, {"budget": _Budget()})
    except RecursionError:
        raise ContentTooComplex from None


def _plain_text(tokens: Iterable[Token]) -> str:
    """Return the text of inline tokens without markup."""
    parts = []
    for token in tokens:
        if token.type == "image":
            parts.append(_plain_text(token.children or []))
        elif token.type in {"softbreak", "hardbreak"}:
            parts.append(" ")
        elif token.type != "html_inline":
            parts.append(token.content)
    return " ".join("".join(parts).split())


def _prepare(
    tokens: Sequence[Token], budget: _Budget, *, embeds: bool
) -> tuple[list[Heading], list[str]]:
    """Set heading ids, table alignment, checkboxes and `data-embed` on the tokens, in place.

    Return the table of contents and the pieces of raw HTML.
    """
    toc: list[Heading] = []
    used_ids: dict[str, int] = {}
    raw: list[str] = []
    blocks: list[Token] = []
    for index, token in enumerate(tokens):
        if "class" in token.attrs:  # task lists and alerts
            token.attrs[_CLASS] = token.attrs.pop("class")
        if token.type == "inline":
            if embeds:
                _mark_embed(tokens, index)
            _prepare_inline(token.children or [], raw, budget)
        elif token.type == "list_item_open" and "checked" in token.meta:
            budget.spend(10)
            _move_checkbox(token, tokens[index + 2])
        elif token.type == "heading_open":
            budget.spend(20)
            heading = _plain_text(tokens[index + 1].children or [])[:MAX_HEADING]
            if heading:
                name = _unique_id(f"h-{slugify(heading, fallback='section')}", used_ids)
                token.attrs[_ID] = name
                toc.append(Heading(level=int(token.tag[1]), text=heading, id=name))
        elif token.type == "html_block":
            blocks.append(token)
        elif token.type in {"td_open", "th_open"} and token.attrs:
            token.attrs = {"align": str(token.attrs["style"]).removeprefix("text-align:")}
    raw += _prepare_html_blocks(blocks)
    return toc, raw


def _move_checkbox(item: Token, first: Token) -> None:
    """Move the checkbox of an item into its first paragraph or heading, if it has one."""
    if first.type == "inline" and first.children is not None:
        first.children.insert(0, Token("checkbox", "", 0, meta=item.meta))
        item.meta = {}


def _prepare_inline(children: Sequence[Token], raw: list[str], budget: _Budget) -> None:
    """Count the steps of inline tokens, and append their HTML, with unclosed tags escaped."""
    has_html = False
    for child in children:
        if child.type == "text":
            continue
        if child.type == "html_inline":
            has_html = True
        elif child.type == "footnote_ref":
            budget.has_nested_links = True  # a footnote reference may be inside another link
            budget.spend(20)
        elif child.attrs:
            # Many links may use one reference definition: count its length for each of them.
            budget.spend(5 + sum(len(str(value)) for value in child.attrs.values()) // 20)
            if child.type == "image":
                _prepare_inline(child.children or [], [], budget)
    if has_html:
        closed: set[str] = set()
        for child in reversed(children):
            if child.type == "html_inline":
                child.content = _escape_unclosed_tag(child.content, closed)
                raw.append(child.content)


def _unique_id(name: str, used_ids: dict[str, int]) -> str:
    unique = name
    while unique in used_ids:
        used_ids[name] += 1
        unique = f"{name}-{used_ids[name]}"
    used_ids[unique] = 1
    return unique


# ---------------------------------------------------------------------------------------------
# Raw HTML

ELEMENTS = frozenset(
    """
    a abbr b bdi bdo blockquote br caption cite code col colgroup dd del details dfn div dl dt em
    figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q rp rt ruby s samp
    section small span strong sub summary sup table tbody td tfoot th thead time tr u ul var wbr
    """.split()  # noqa: SIM905 - a list of sixty lines is no easier to read
)
ATTRIBUTES = {
    "*": {"dir", "id", "lang", "title", _ID, _CLASS},
    "a": {"href", _EMBED},
    "abbr": {"title"},
    "col": {"span"},
    "colgroup": {"span"},
    "del": {"datetime"},
    "details": {"open"},
    "img": {"src", "alt", "width", "height"},
    "ins": {"datetime"},
    "li": {"value"},
    "ol": {"start", "reversed", "type"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "time": {"datetime"},
    "wbr": {_CHECKED, _IFRAME_SRC},
}
SCHEMES = frozenset({"http", "https", "mailto", "tel"})
REMOVED_WITH_CONTENT = frozenset(
    """
    applet audio canvas embed iframe math noembed noframes noscript object plaintext script select
    style svg template textarea title video xmp
    """.split()  # noqa: SIM905 - a list of sixty lines is no easier to read
)
"""Elements that are removed with their content. Other disallowed elements lose only their tags."""

_cleaner = nh3.Cleaner(
    tags=set(ELEMENTS),
    clean_content_tags=set(REMOVED_WITH_CONTENT),
    attributes=ATTRIBUTES,
    tag_attribute_values={
        "td": {"align": {"left", "center", "right"}},
        "th": {"align": {"left", "center", "right"}},
    },
    url_schemes=set(SCHEMES),
    id_prefix=ID_PREFIX,
    # noreferrer: the URL of a page may contain a preview token. nofollow: any registered user can
    # publish links, which attracts spam.
    link_rel="noopener noreferrer nofollow",
)

_NAMES = "|".join(sorted(REMOVED_WITH_CONTENT))
_OPENING = re.compile(rf"<(?:({_NAMES})(?![a-z0-9:-])|(!--))", re.IGNORECASE)
_CLOSING = re.compile(rf"</({_NAMES})(?![a-z0-9:-])")
_TAG_NAME = re.compile(r"<(/?)([a-z][a-z0-9-]*)", re.IGNORECASE)
# Formatting elements with attributes (https://html.spec.whatwg.org/#formatting): a parser reopens
# all of them, but at most three equal elements. A link ends where another begins.
_REOPENED = re.compile(
    r"<(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)[\s/]", re.IGNORECASE
)
_ATTRIBUTE = re.compile(r"[\s/\"'][^\s/>\"'=]")
_SIMPLE = re.compile(
    r"<(?:/?[a-z][a-z0-9-]*+(?:\s++[a-z_:][a-z0-9_:.-]*+(?:=\"[^\"<>]*+\")?+){0,100}+\s*+/?+"
    r"|!--[^<>]*+--)>",
    re.IGNORECASE,
)


_NAMED_ANCHOR = re.compile(
    r"(<a(?:\s++(?!name\b)[\w-]++(?:\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+'|[^\s\"'<>=]++))?+)*+\s++)name(?=\s*+=)",
    re.IGNORECASE,
)
"""The obsolete syntax of an anchor: `<a name="…">`."""


def _escape_unclosed_tag(tag: str, closed: set[str]) -> str:
    """Escape an inline tag whose element would hide the rest of the text.

    `closed`: the elements with a closing tag after this tag.
    """
    match = _TAG_NAME.match(tag)
    if match is None:
        return tag
    name = match[2].lower()
    if name == "a":
        return _NAMED_ANCHOR.sub(r"\1id", tag)
    if match[1]:
        closed.add(name)
    elif name in REMOVED_WITH_CONTENT and (name not in closed or name == "plaintext"):
        return "&lt;" + tag[1:]
    return tag


def _prepare_html_blocks(blocks: Sequence[Token]) -> list[str]:
    """Replace iframes and escape unclosed tags in HTML blocks, in place; return their content."""
    closed: set[str] = set()
    for token in reversed(blocks):
        token.content = _escape_unclosed_tags(_replace_iframes(token.content), closed)
    return [token.content for token in blocks]


def _escape_unclosed_tags(block: str, closed: set[str]) -> str:
    """Escape the tags of an HTML block whose elements would hide the rest of the text.

    `closed`: the elements with a closing tag after this block.
    """
    lower, last_closing = block.lower(), dict[str, int]()

    def escape_unclosed(tag: re.Match[str]) -> str:
        name = (tag[1] or "--").lower()
        if name not in last_closing:
            last_closing[name] = lower.rfind("-->" if name == "--" else f"</{name}")
        is_unclosed = last_closing[name] < tag.start() and name not in closed
        return "&lt;" + tag[0][1:] if is_unclosed or name == "plaintext" else tag[0]

    escaped = _OPENING.sub(escape_unclosed, block)
    closed.update(_CLOSING.findall(lower))
    return _NAMED_ANCHOR.sub(r"\1id", escaped)


def _sanitize(html: str, raw: Sequence[str], budget: _Budget) -> str:
    """Remove all disallowed elements and attributes from `html`; `raw` is the author's HTML.

    Raises ContentTooComplex if this would take too long: the sanitizer cannot be stopped.
    """
    if raw:
        _check_html_cost("".join(raw), html.count("<"))
    clean = _cleaner.clean(html)
    if not raw and not budget.has_nested_links:
        return clean
    # Without the removed tags, the HTML may be parsed differently: repeat until it is stable.
    for _ in range(MAX_PARSES):
        repeated = _cleaner.clean(clean)
        if repeated == clean:
            return clean
        clean = repeated
    raise ContentTooComplex("The HTML in the Markdown is nested incorrectly")


def _check_html_cost(raw: str, all_tags: int) -> None:
    """Raise ContentTooComplex if sanitizing would take too long; `all_tags` includes Markdown."""
    tags = raw.count("<")
    if tags > MAX_TAGS or tags * all_tags > MAX_TAGS * MAX_TAGS:
        raise ContentTooComplex("There are too many HTML tags in the Markdown")
    if len(_REOPENED.findall(raw)) * all_tags > MAX_REOPENED:
        raise ContentTooComplex("There are too many HTML tags with attributes in the Markdown")
    # The parser compares the attributes of an element with each other, in quadratic time. In
    # malformed tags, words look like attributes: text with many words needs well-formed tags.
    if len(_ATTRIBUTE.findall(raw)) > MAX_ATTRIBUTES and "<" in _SIMPLE.sub("", raw):
        raise ContentTooComplex("The HTML in the Markdown is too complex: use Markdown instead")


# ---------------------------------------------------------------------------------------------
# Restoring attributes and placeholders after sanitizing

_CHECKBOX_PLACEHOLDER = re.compile(rf'<wbr {_CHECKED}="(yes|no)">')
_IFRAME_PLACEHOLDER = re.compile(rf'<wbr {_IFRAME_SRC}="(https://([a-z0-9.-]++)[^"]*+)">')
_FRAGMENT_LINK = re.compile(r'<a href="#([^"]++)"')
_AUTHOR_ID = re.compile(rf' id="{ID_PREFIX}([^"]*+)"')


def _restore(html: str, toc: Sequence[Heading]) -> str:
    """Restore the names of the renderer's attributes, and replace placeholders by elements.

    A placeholder matches only as an element: the sanitizer escapes `<` and `"` in text and in
    attribute values. Any other occurrence of the random name is replaced.
    """
    html = html.replace(f" {_ID}=", " id=").replace(f" {_CLASS}=", " class=")
    if _NONCE in html:
        html = html.replace(f" {_EMBED}=", " data-embed=")
        html = _CHECKBOX_PLACEHOLDER.sub(_restore_checkbox, html)
        html = _IFRAME_PLACEHOLDER.sub(_restore_iframe, html).replace(_NONCE, "data")
    return _FRAGMENT_LINK.sub(_FragmentResolver(html, toc), html) if '<a href="#' in html else html


def _restore_checkbox(placeholder: re.Match[str]) -> str:
    checked = ' checked=""' if placeholder[1] == "yes" else ""
    return f'<input type="checkbox" class="task-list-item-checkbox" disabled=""{checked}>'


def _restore_iframe(placeholder: re.Match[str]) -> str:
    # strict-origin: the URL of the page may contain a preview token.
    return (
        f'<iframe src="{placeholder[1]}" title="{placeholder[2]}" loading="lazy" '
        'referrerpolicy="strict-origin" allow="fullscreen; encrypted-media; picture-in-picture" '
        'sandbox="allow-popups allow-presentation allow-same-origin allow-scripts"></iframe>'
    )


class _FragmentResolver:
    """Adds the prefixes of the ids of anchors and headings to fragment links."""

    def __init__(self, html: str, toc: Sequence[Heading]) -> None:
        self.anchors = set(_AUTHOR_ID.findall(html))
        self.headings = {heading["id"] for heading in toc}

    def __call__(self, link: re.Match[str]) -> str:
        name = link[1]
        if name in self.headings:
            return link[0]
        if name in self.anchors:
            return f'<a href="#{ID_PREFIX}{name}"'
        heading = f"h-{slugify(unquote(name)[:MAX_HEADING], fallback='section')}"
        return f'<a href="#{heading}"' if heading in self.headings else link[0]


# ---------------------------------------------------------------------------------------------
# HTML to text

# Tags as the sanitizer writes them: attribute values in double quotes, correctly nested.
_TAG = re.compile(r"<(/?)([a-z0-9]++)[^<>\"]*+(?:\"[^\"]*+\"[^<>\"]*+)*+>")
_INLINE_TAG = re.compile(
    r"</?(?:a|abbr|b|bdi|bdo|cite|code|del|dfn|em|i|ins|kbd|mark|q|rp|rt|ruby|s|samp|small|span"
    r"|strong|sub|sup|time|u|var|wbr)(?:[ \"][^<>\"]*+(?:\"[^\"]*+\"[^<>\"]*+)*+)?+>"
)
_ALT = re.compile(r"<img(?= )[^<>\"]*+(?:\"[^\"]*+\"[^<>\"]*+)*?(?<= alt=)\"([^\"]*+)\"")
_GENERATED_TEXT = re.compile(
    r'<sup class="footnote-ref">(?:[^<]++|<(?!/?sup\b))*+</sup>'
    r'|<p class="markdown-alert-title">[^<]*+</p>'
    r'|<a href="[^"]*+" class="footnote-backref"[^<>]*+>[^<]*+</a>'
)
_VOID = frozenset({"br", "col", "hr", "img", "input", "wbr"})
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
"""Control characters that XML feeds cannot contain. They are replaced instead of removed: removing
them could join characters that the sanitizer saw as separate."""
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def _html_to_text(html: str) -> str:
    """Return the text of sanitized HTML in one line, with the alternative text of images."""
    if 'class="footnote' in html or 'class="markdown-alert' in html:
        html = _GENERATED_TEXT.sub("", html)
    if "<img" in html:
        html = _ALT.sub(r" \1 \g<0>", html)
    text = entities.unescape(_TAG.sub(" ", _INLINE_TAG.sub("", html)))
    return " ".join(text.split())


def _check_depth(html: str) -> None:
    """Raise ContentTooComplex if elements are nested more than MAX_DEPTH deep."""
    if html.count("</") <= MAX_DEPTH:
        return
    depth = 0
    for tag in _TAG.finditer(html):
        if tag[1]:
            depth -= 1
        elif tag[2] not in _VOID:
            depth += 1
            if depth > MAX_DEPTH:
                raise ContentTooComplex(f"Elements are nested more than {MAX_DEPTH} deep")


# ---------------------------------------------------------------------------------------------
# Words

_NOT_A_WORD = re.compile(r" [^\w ]++(?= )")
_UNSPACED_SCRIPTS = (
    # Chinese and Japanese: a word has about two characters.
    (
        2,
        re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+"),
    ),
    # Thai, Lao, Burmese and Khmer: a word has about five, including vowel signs and tone marks.
    (5, re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")),
)


def _count_words(text: str) -> int:
    words = 0
    if not text.isascii():
        for length, letters in _UNSPACED_SCRIPTS:
            words += sum(-(-len(run) // length) for run in letters.findall(text))
            text = " ".join(letters.sub(" ", text).split())
    return words + len(text.split()) - len(_NOT_A_WORD.findall(f" {text} "))


def _is_one_grapheme(before: str, after: str) -> bool:
    """Return whether these two characters belong to one grapheme cluster."""
    return (
        unicodedata.combining(after) != 0
        or unicodedata.category(after).startswith("M")
        or "\u200d" in (before, after)
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tone modifiers
    )


# ---------------------------------------------------------------------------------------------


def _render(content: str, budget: _Budget, md: MarkdownIt | None = None) -> Rendered:
    md = md or _article_parser
    if not content.isascii():
        content = _SURROGATES.sub("\ufffd", content)
    budget.spend(len(content) // 10 + 2 * (content.count("\n") + content.count(">")))
    env: dict[str, Any] = {"budget": budget}
    try:
        tokens = md.parse(content, env)
        toc, raw = _prepare(tokens, budget, embeds=md is _article_parser)
        html: str = md.renderer.render(tokens, md.options, env)
    except RecursionError:
        raise ContentTooComplex from None
    html = _sanitize(html, raw, budget)
    if raw and toc:  # the sanitizer may have removed headings
        ids = set(_IDS.findall(html))
        toc = [heading for heading in toc if heading["id"] in ids]
    html = _restore(html, toc)
    html = _NOT_XML.sub("\ufffd", html)
    _check_depth(html)
    text = _html_to_text(html)
    words = _count_words(text)
    return Rendered(html, text, toc, words, -(-words // WORDS_PER_MINUTE))


_article_parser = make_parser()
_comment_parser = make_parser(_DISABLED_IN_COMMENTS, task_lists_and_alerts=False)
