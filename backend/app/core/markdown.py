"""Articles' Markdown, rendered to HTML that is safe to show.

GitHub Flavored Markdown with footnotes and coloured code. Raw HTML is let through to nh3,
which parses all that comes out as a browser would and keeps what is on the lists below: nothing
depends on how it was written. `class`, `data-embed` and the ids of headings and footnotes are ours
alone, for a writer's own could pass for something of the page around the article: they leave the
renderer under a name that nobody can guess, and get their own back when the sanitiser has dropped
all others. A writer's `id` gets a prefix. Checkboxes and frames pass the sanitiser as placeholders
with such a name: no writer's `input` or `iframe` passes it.

Threads cannot be stopped, so what would take too long is refused by counting steps (`_Work`) rather
than by the clock: the same text is refused always or never.
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

from app.core.config import get_settings
from app.core.errors import ContentTooComplex
from app.core.text import slugify
from app.core.threads import Threads

RENDERER = 2
"""Raise it when what comes out changes: stored articles are then rendered again."""

OFF_LOOP_BYTES = 50_000
OFF_LOOP_MARKS = 5_000
"""So much punctuation takes as long to render as OFF_LOOP_BYTES of prose, or longer."""
MAX_WAITING = 20
"""Texts that may wait for the thread, a process; each takes a second at most."""
MAX_WAITING_EACH = 2
"""The same for the texts of one user."""

BUDGET = 700_000
"""What rendering a text may cost, in steps of about a microsecond."""
COMMENT_BUDGET = 50_000
"""The same for a comment, which is rendered where it comes in."""
MAX_NESTING = 40
"""Blocks within blocks: 40 quotes, or 20 lists, as an item is a block of its own."""
MAX_DEPTH = 100
"""Elements within elements of what comes out: parsers of others give up at 256 or 512."""
MAX_PARSES = 4
MAX_HEADING = 300
MAX_TAGS = 10_000
MAX_ATTRIBUTES = 10_000
MAX_REPEATED = 1_000_000
"""Raw HTML: tags, attributes, and elements that a browser repeats for want of closing tags."""

MAX_CODE = 20_000
"""The characters of a block of code that is coloured; a longer one comes out plain."""
MAX_COLOURING_SECONDS = 0.25
"""Of the processor's time, a text: some lexers are quadratic. What is left comes out plain."""

WORDS_A_MINUTE = 230
EXCERPT = 200

LANGUAGES = frozenset(
    """
    bash c clojure cmake cpp csharp css dart diff docker elixir erlang fsharp go graphql groovy
    haskell hcl html http java javascript json json5 julia kotlin lua make nginx nim objective-c
    perl php plpgsql postgresql powershell protobuf pycon python pytb r ruby rust scala scss sql
    swift terraform toml typescript vim xml yaml zig
    """.split()  # noqa: SIM905 - a list of sixty lines is no easier to read
)
"""What is coloured, by Pygments' names: those whose lexers never took long between two tokens of
hostile code. A lexer cannot be stopped there, and those of INI, MATLAB and OCaml took seconds."""
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
    """An entry of the table of contents; `id` is that of the heading in the HTML."""

    level: int
    text: str
    id: str


class Rendered(NamedTuple):
    """What is made of an article's Markdown: `text` is one line without any markup."""

    html: str
    text: str
    toc: list[Heading]
    word_count: int
    reading_time: int
    """Minutes: at least one where there are words."""


async def render(content: str, *, user_id: int | None = None) -> Rendered:
    """The same as render_now, in a thread where it takes long enough for others to notice.

    `user_id` is the user whose text it is: users take turns. Hold no database connection meanwhile.

    Raises ContentTooComplex, TooManyAtOnce where too many texts of the user wait already, or
    ServiceUnavailable where too many of all users do.
    """
    if is_light(content):
        return render_now(content)
    return await _thread.run(lambda: _render(content, _Work(yields=True)), user_id=user_id)


def render_now(content: str) -> Rendered:
    """`content` as HTML, text and table of contents.

    Raises ContentTooComplex where that would take more than about a second.
    """
    return _render(content, _Work())


def render_comment(content: str) -> str:
    """A comment as HTML: paragraphs, emphasis, links, quotes, lists and code, and nothing else.

    Headings, pictures, tables, task lists, alerts, footnotes and HTML come out as they were
    written; an address of a video is a link like any other. Raises
    ContentTooComplex where that would take more than a twentieth of a second.
    """
    return _render(content, _Work(COMMENT_BUDGET), _comments).html


def excerpt_of(text: str) -> str:
    """The beginning of `text`: a line of about 200 characters, whole words where there are any."""
    line = " ".join(text[: 8 * EXCERPT].split())
    if len(line) <= EXCERPT:
        return line
    space = line.rfind(" ", EXCERPT // 2, EXCERPT + 1)
    end = space if space > 0 else EXCERPT
    while space < 0 and end > EXCERPT // 2 and _joins(line[end - 1], line[end]):
        end -= 1
    return line[:end].rstrip(" ,;:.-\u2013\u2014") + "…"


# ---------------------------------------------------------------------------------------------
# How much, and where

_MARKS = "*_~[]<>`|&\\\n"
_ADDRESSES = ("://", "www.", "@")
"""What bare addresses are found by; each costs as much as two marks."""


def is_light(content: str) -> bool:
    """Whether `content` is rendered so fast that `render` does not wait for a thread."""
    return (
        len(content) <= OFF_LOOP_BYTES
        and (content.isascii() or len(content.encode(errors="replace")) <= OFF_LOOP_BYTES)
        and sum(map(content.count, _MARKS)) + 2 * sum(map(content.count, _ADDRESSES))
        <= OFF_LOOP_MARKS
    )


_thread = Threads(
    "markdown",
    size=1,
    what="long texts",
    max_jobs=MAX_WAITING,
    max_jobs_each=MAX_WAITING_EACH,
)
"""One thread: parsing holds the interpreter's lock, so that two would not be any faster.

For the same reason its priority is everybody's: one of a low priority that is not given the
processor would keep the lock, and the event loop waiting. It pauses instead (`_Work`).
"""


class _Work:
    """The steps that rendering one text may still take."""

    __slots__ = ("_pause_at", "_yields", "colouring", "left", "links_nest", "tokens")

    def __init__(self, budget: int = BUDGET, *, yields: bool = False) -> None:
        self.left = budget
        self.tokens = 0
        self.links_nest = False
        self.colouring = MAX_COLOURING_SECONDS
        self._yields = yields
        self._pause_at = budget

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ContentTooComplex(
                "The Markdown takes too long to be rendered: shorten it, or use less markup"
            )
        if self._yields and self.left < self._pause_at:
            self._pause_at = self.left - 1000
            time.sleep(0.000_05)  # whoever waits for the interpreter's lock gets it at once

    def require(self, steps: int) -> None:
        """Spend nothing yet, but stop here where there is not as much left."""
        if steps > self.left:
            self.spend(steps)


def _work(env: MutableMapping[str, Any]) -> _Work:
    work: _Work = env["work"]
    return work


# ---------------------------------------------------------------------------------------------
# Markdown to tokens, counting


_EMOJI = re.compile("[\u231a\u231b\u23e9-\u2bff\U0001f000-\U0001faff]")
"""What is as wide as a Chinese character and none: characters of Emoji_Presentation (UTS #51)."""


def _is_cjk(character: str) -> bool:
    """Whether this is a CJK character: wide (UAX #11) and no emoji, or Hangul.

    As https://github.com/commonmark/commonmark-spec/pull/839 proposes.
    """
    if character < "\u1100":
        return character == "\u20a9"
    return (
        character <= "\u11ff"
        or "\ud7b0" <= character <= "\ud7ff"
        or (unicodedata.east_asian_width(character) in "WFH" and not _EMOJI.match(character))
        or "\U000e0100" <= character <= "\U000e01ef"  # selects a variant of an ideograph
    )


def _is_punctuation(character: str) -> bool:
    return isMdAsciiPunct(ord(character)) or isPunctChar(character)


class _StateInline(StateInline):
    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802, N803
        """Whether a run of `*`, `_` or `~` opens or closes emphasis.

        CommonMark expects a space or punctuation on the other side of punctuation. Chinese,
        Japanese and Korean have no space there: a CJK character on either side does as well.
        Runs without a CJK neighbour are read as CommonMark reads them.
        """
        scanned = super().scanDelims(start, canSplitWord)
        end = start + scanned.length
        before = self.src[start - 1] if start > 0 else " "
        after = self.src[end] if end < self.posMax else " "
        if "\ufe00" <= before <= "\ufe0e" and start > 1 and _is_cjk(self.src[start - 2]):
            before = self.src[start - 2]  # a variation selector belongs to what it follows
        cjk_before, cjk_after = _is_cjk(before), _is_cjk(after)
        if not (cjk_before or cjk_after):
            return scanned
        spaces = isWhiteSpace(ord(before)), isWhiteSpace(ord(after))
        marks = _is_punctuation(before), _is_punctuation(after)
        between = cjk_before or cjk_after
        left = not spaces[1] and (between or not marks[1] or spaces[0] or marks[0])
        right = not spaces[0] and (between or not marks[0] or spaces[1] or marks[1])
        return Scanned(
            left and (canSplitWord or not right or marks[0]),
            right and (canSplitWord or not left or marks[1]),
            scanned.length,
        )


class _Inline(ParserInline):
    def __init__(self) -> None:
        super().__init__()
        # The text rule stops before an address without a scheme, too.
        self.terminator_re = re.compile(rf"{self.terminator_re.pattern}|www\.", re.IGNORECASE)

    def parse(
        self, src: str, md: MarkdownIt, env: MutableMapping[str, Any], tokens: list[Token]
    ) -> list[Token]:
        marks = src.count("*") + src.count("_") + src.count("~")
        _work(env).spend(6 + 9 * marks + len(src) // 50)
        state = _StateInline(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens

    def skipToken(self, state: StateInline) -> None:  # noqa: N802 - markdown-it's name for it
        _work(state.env).spend(2)
        super().skipToken(state)


def _count_inline(state: StateInline, silent: bool) -> bool:
    """The first rule to be asked, wherever the parser stands."""
    _work(state.env).spend(4)
    return skip_text(state, silent)


def _count_block(state: StateBlock, line: int, _end: int, silent: bool) -> bool:
    """The first rule to be asked, for each block and each line that may end one."""
    work = _work(state.env)
    if not silent and state.level > MAX_NESTING:
        raise ContentTooComplex("Lists and quotes are nested too deeply: at most 20 lists")
    made = len(state.tokens) - work.tokens
    work.tokens += made
    # A reference's title is put together line by line, and copied for each.
    work.spend(8 + 3 * made + (50 if state.parentType == "reference" else 0))
    start, end = state.bMarks[line], state.eMarks[line]
    cells = state.src.count("|", start, end)
    work.spend(cells + (0 if silent else (end - start) // 16))
    if not silent or state.parentType == "table":
        work.require(12 * cells)
    return False


_FOOTNOTE = re.compile(r"\[\^[^\]\s]{1,100}\]")


def _footnote_ref(state: StateInline, silent: bool) -> bool:
    """The plugin's rule looks for the end of the label as far as it takes."""
    return _FOOTNOTE.match(state.src, state.pos) is not None and footnote_ref(state, silent)


def _html_inline(state: StateInline, silent: bool) -> bool:
    """The library's rule may read a comment to its end, and find that it is none."""
    src, start = state.src, state.pos
    if src.startswith("<!--", start):
        end = src.find("-->", start)
        _work(state.env).spend(((end if end > 0 else len(src)) - start) // 20)
    return html_inline(state, silent)


def _autolink(state: StateInline, silent: bool) -> bool:
    """Taking an address to pieces and putting it together again is what takes time in links."""
    start = state.pos
    found = autolink(state, silent)
    if found:
        _work(state.env).spend(30 + (state.pos - start) // 4)
    return found


# ---------------------------------------------------------------------------------------------
# Bare addresses: https://github.github.com/gfm/#autolinks-extension-
#
# linkify-it-py and the GFM plugin of mdit-py-plugins look at the rest of the text for each
# candidate, which takes quadratic time. Here a run is read once, and its length is bounded.

MAX_ADDRESS = 2000
"""Characters of a bare address; a longer one is text."""

_HOST = re.compile(r"[\w-]++(?:\.[\w-]++)*+")
# Also ends at full-width punctuation, after which Chinese and Japanese have no space.
_ADDRESS = re.compile(
    r"[^\s<\x00-\x1f\x7f\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff3d\uff5b-\uff65]"
    rf"{{1,{MAX_ADDRESS + 1}}}+"
)
_ENTITY = re.compile(r"&[A-Za-z0-9]{1,32};\Z")
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9.+_-])(?:mailto:)?+([A-Za-z0-9.+_-]{1,64}+@"
    r"([A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)++))(?![@\w])",
    re.ASCII,
)


def _bare_url(state: StateInline, silent: bool) -> bool:
    """Link `https://…`, `http://…` and `www.…` outside of links."""
    if silent or state.linkLevel > 0 or state.src[state.pos] not in ":wW":
        return False
    scheme = _scheme_here(state)
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


def _scheme_here(state: StateInline) -> str | None:
    """The scheme before the colon here; "" where `www.` begins here, None for neither."""
    src, pos = state.src, state.pos
    if src[pos] != ":":
        scheme = "" if src[pos : pos + 4].lower() == "www." else None
    elif not src.startswith("://", pos):
        scheme = None
    else:  # from what is pending: no part of it was markup
        last = state.pending[-5:]
        scheme = next((last[-n:] for n in (5, 4) if last[-n:].lower() == "https"[:n]), None)
    if scheme is None:
        return None
    start = pos - len(scheme)
    before = src[start - 1] if start > 0 else " "
    within = before in "/@.-" or (before.isascii() and before.isalnum())
    return None if within else scheme


def _url_at(state: StateInline, start: int, scheme: str) -> str:
    """The address that begins at `start`; "" where its host is none, or it is too long."""
    work = _work(state.env)
    work.spend(5)
    host_at = start + (len(scheme) + 3 if scheme else 0)
    host = _HOST.match(state.src, host_at, state.posMax)
    labels = host[0].rsplit(".", 2) if host else []
    if len(labels) < (1 if scheme else 3) or "_" in "".join(labels[-2:]):
        return ""
    found = _ADDRESS.match(state.src, start, state.posMax)
    length = len(found[0]) if found else 0
    work.spend(30 + length // 4)
    if found is None or length > MAX_ADDRESS:
        return ""
    url = _without_trailing(found[0].partition("[^")[0])  # a footnote follows
    return url if len(url) > host_at - start else ""


def _without_trailing(url: str) -> str:
    """`url` without the punctuation and the brackets that belong to the sentence around it."""
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
    """Link bare email addresses, outside of links and code."""
    for block in state.tokens:
        if block.type == "inline" and "@" in block.content and block.children:
            block.children = list(_with_emails(block.children, state.md, _work(state.env)))


def _with_emails(tokens: Sequence[Token], md: MarkdownIt, work: _Work) -> Iterator[Token]:
    links = 0
    for token in tokens:
        if token.type == "html_inline":
            links += isLinkOpen(token.content) - isLinkClose(token.content)
        elif token.type in {"link_open", "link_close"}:
            links += token.nesting
        elif token.type == "text" and links <= 0 and "@" in token.content:
            yield from _split_at_emails(token, md, work)
            continue
        yield token


def _split_at_emails(token: Token, md: MarkdownIt, work: _Work) -> Iterator[Token]:
    text, end = token.content, 0
    work.spend(5 + len(text) // 20)
    for found in _EMAIL.finditer(text):
        work.spend(30 + len(found[0]) // 4)
        if found[2][-1] in "-_" or len(found[2]) > MAX_ADDRESS:
            continue
        if found.start() > end:
            yield Token("text", "", 0, content=text[end : found.start()], level=token.level)
        href = md.normalizeLink(f"mailto:{found[1]}")
        opened = Token("link_open", "a", 1, attrs={"href": href}, level=token.level)
        opened.markup, opened.info = "autolink", "auto"
        yield opened
        yield Token("text", "", 0, content=found[0], level=token.level + 1)
        yield Token("link_close", "a", -1, level=token.level)
        end = found.end()
    if end < len(text):
        yield Token("text", "", 0, content=text[end:], level=token.level)


# ---------------------------------------------------------------------------------------------
# Films, sound and frames

_FILM = re.compile(
    r"https?://(?:www\.|m\.)?(?:"
    r"(?P<youtube>(?:youtube(?:-nocookie)?\.com/(?:watch\?(?:[\w.~%&=-]{0,200}&)?v=|embed/|shorts/|live/)"
    r"|youtu\.be/)[\w-]{6,20}(?![\w-]))"
    r"|(?P<vimeo>(?:player\.)?vimeo\.com/(?:video/|channels/[\w-]{1,60}/)?\d{1,15}(?![\w-]))"
    r")",
    re.IGNORECASE | re.ASCII,
)
_FILE = re.compile(
    r"https?://[^/?#]++/[^?#]*?\.(?:(?P<video>mp4|m4v|mov|ogv|webm)"
    r"|(?P<audio>aac|flac|m4a|mp3|oga|ogg|opus|wav))(?:[?#]|\Z)",
    re.IGNORECASE,
)
_FRAME = re.compile(
    r"<iframe(?=[\s/>])((?:[^<>\"']|\"[^\"<>]*+\"|'[^'<>]*+')*+)>\s*+</iframe\s*+>", re.IGNORECASE
)
_SRC = re.compile(r"(?:\A|\s)src\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)')", re.IGNORECASE)
_FRAME_URL = re.compile(
    r"https://([a-z0-9.-]{1,253})(?:/[\w./?=&;%+~,:@!$*()-]{0,1000})?", re.ASCII
)


def _provider(url: str) -> str | None:
    """Whose player shows `url`, or which element: `youtube`, `vimeo`, `video` or `audio`."""
    if len(url) > MAX_ADDRESS:
        return None
    found = _FILM.match(url) or _FILE.match(url)
    return found.lastgroup if found else None


def _mark_embed(tokens: Sequence[Token], index: int) -> None:
    """Mark the paragraph whose inline token this is if it is the bare address of a film."""
    paragraph, children = tokens[index - 1], tokens[index].children or []
    if len(children) != 3 or paragraph.type != "paragraph_open" or paragraph.hidden:
        return
    link = children[0]
    if link.type == "link_open" and link.info == "auto":
        provider = _provider(str(link.attrs["href"]))
        if provider is not None:
            paragraph.attrs[_CLASS] = "embed"
            link.attrs[_EMBED] = provider


def _framed(html: str) -> str:
    """A block of HTML with placeholders for the frames of hosts that may be framed.

    Those of others that show a film become a link to it.
    """
    return _FRAME.sub(_placeholder, html) if "<iframe" in html.lower() else html


def _placeholder(frame: re.Match[str]) -> str:
    src = _SRC.search(frame[1])
    url = entities.unescape(src[1] or src[2] or "").strip() if src else ""
    host = _FRAME_URL.fullmatch(f"https:{url}" if url.startswith("//") else url)
    if host is None:
        return frame[0]
    if host[1] in get_settings().iframe_hosts:
        return f'<wbr {_FRAMED}="{escapeHtml(host[0])}">'
    provider = _provider(host[0])
    if provider is None:
        return frame[0]
    address = escapeHtml(host[0])
    return f'<p {_CLASS}="embed"><a href="{address}" {_EMBED}="{provider}">{address}</a></p>'


# ---------------------------------------------------------------------------------------------
# Tokens to HTML

_MARK = f"data-{secrets.token_hex(8)}"
_ID, _CLASS, _EMBED = f"{_MARK}-id", f"{_MARK}-class", f"{_MARK}-embed"
_CHECKED, _FRAMED = f"{_MARK}-checked", f"{_MARK}-framed"
ID_PREFIX = "user-content-"
"""Before the ids that writers give, as on GitHub: they cannot be one of the page around."""
_LANGUAGE = re.compile(r"[a-z0-9][a-z0-9_+#.-]{0,30}")
_IDS = re.compile(rf'{_ID}="([^"]*)"')
_formatter = HtmlFormatter(nowrap=True)


def _fence(
    _renderer: Any, tokens: Sequence[Token], index: int, _options: Any, env: dict[str, Any]
) -> str:
    code = tokens[index].content
    named = _LANGUAGE.match(tokens[index].info.strip().lower())
    if named is None:
        return f"<pre><code>{escapeHtml(code)}</code></pre>\n"
    language = named[0]
    coloured = _coloured(code, ALIASES.get(language, language), _work(env))
    # The language's name is let through unknown, too: a front end may know what to do with it.
    attribute = f'{_CLASS}="language-{language}"'
    if coloured is None:
        return f"<pre><code {attribute}>{escapeHtml(code)}</code></pre>\n"
    return f'<pre {_CLASS}="highlight"><code {attribute}>{coloured}</code></pre>\n'


def _coloured(code: str, language: str, work: _Work) -> str | None:
    """`code` with spans for colours; None where it has to do without."""
    if language not in LANGUAGES or len(code) > MAX_CODE or work.colouring <= 0:
        return None
    # Not counted: the first of a language in a process takes long to make.
    lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    started, out = time.thread_time(), StringIO()
    try:
        _formatter.format(_until(started + work.colouring, lexer.get_tokens(code)), out)
    except TimeoutError:
        return None
    finally:
        work.colouring -= time.thread_time() - started
    return out.getvalue().replace(' class="', f' {_CLASS}="')


def _until(deadline: float, pieces: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
    for piece in pieces:
        if time.thread_time() > deadline:
            raise TimeoutError
        yield piece


def _image(
    renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]
) -> str:
    token = tokens[index]
    token.attrs["alt"] = _plain(token.children or [])
    html: str = renderer.renderToken(tokens, index, options, env)
    return html


def _checkbox(token: Token) -> str:
    return f'<wbr {_CHECKED}="{"yes" if token.meta["checked"] else "no"}"> '


def _list_item(
    renderer: Any, tokens: Sequence[Token], index: int, options: Any, _env: dict[str, Any]
) -> str:
    """An item, with its checkbox where no paragraph has it."""
    html: str = renderer.renderToken(tokens, index, options, _env)
    return html + _checkbox(tokens[index]) if "checked" in tokens[index].meta else html


def _footnote_number(token: Token) -> str:
    again: int = token.meta.get("subId", 0)
    return f"{token.meta['id'] + 1}" + (f"-{again + 1}" if again > 0 else "")


def _footnote_mark(_renderer: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
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


def _footnote_back(_renderer: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
    # U+FE0E: shown as text, not as an emoji.
    return (
        f' <a href="#fnref-{_footnote_number(tokens[index])}" '
        f'{_CLASS}="footnote-backref">\u21a9\ufe0e</a>'
    )


_NOT_IN_COMMENTS = [
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


def _parser(without: Iterable[str] = (), *, blocks: bool = True) -> MarkdownIt:
    """A parser; `blocks`: whether there are task lists and alerts."""
    md = MarkdownIt("commonmark")
    md.inline = _Inline()
    md.configure(
        "commonmark",
        {
            "xhtmlOut": False,
            "maxNesting": MAX_NESTING + 3,
            "strikethrough_single_tilde": True,
            "tasklists": blocks,
            "alerts": blocks,
        },
    )
    md.enable(["table", "strikethrough"])
    # Without ^[notes in the text]: not of GitHub's Markdown, and they nest without a limit.
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
        ("footnote_ref", _footnote_mark),
        ("footnote_block_open", _footnotes_open),
        ("footnote_open", _footnote_open),
        ("footnote_anchor", _footnote_back),
    ):
        md.add_render_rule(name, rule)
    md.disable(list(without))
    # The rulers list their rules when they are first asked, and not so that two threads may ask.
    md.render("x", {"work": _Work()})
    return md


def _plain(tokens: Iterable[Token]) -> str:
    """What inline tokens say, without markup."""
    parts = []
    for token in tokens:
        if token.type == "image":
            parts.append(_plain(token.children or []))
        elif token.type in {"softbreak", "hardbreak"}:
            parts.append(" ")
        elif token.type != "html_inline":
            parts.append(token.content)
    return " ".join("".join(parts).split())


def _prepare(
    tokens: Sequence[Token], work: _Work, *, embeds: bool
) -> tuple[list[Heading], list[str]]:
    """Headings get their ids, table cells their alignment, items their checkboxes, films a mark.

    Returns the table of contents, and what is raw HTML.
    """
    toc: list[Heading] = []
    taken: dict[str, int] = {}
    raw: list[str] = []
    blocks: list[Token] = []
    for index, token in enumerate(tokens):
        if "class" in token.attrs:  # of task lists and alerts
            token.attrs[_CLASS] = token.attrs.pop("class")
        if token.type == "inline":
            if embeds:
                _mark_embed(tokens, index)
            _see_to(token.children or [], raw, work)
        elif token.type == "list_item_open" and "checked" in token.meta:
            work.spend(10)
            _move_checkbox(token, tokens[index + 2])
        elif token.type == "heading_open":
            work.spend(20)
            heading = _plain(tokens[index + 1].children or [])[:MAX_HEADING]
            if heading:
                name = _free(f"h-{slugify(heading, fallback='section')}", taken)
                token.attrs[_ID] = name
                toc.append(Heading(level=int(token.tag[1]), text=heading, id=name))
        elif token.type == "html_block":
            blocks.append(token)
        elif token.type in {"td_open", "th_open"} and token.attrs:
            token.attrs = {"align": str(token.attrs["style"]).removeprefix("text-align:")}
    raw += _defused_blocks(blocks)
    return toc, raw


def _move_checkbox(item: Token, first: Token) -> None:
    """Move the checkbox of an item into its first paragraph or heading, where it has one."""
    if first.type == "inline" and first.children is not None:
        first.children.insert(0, Token("checkbox", "", 0, meta=item.meta))
        item.meta = {}


def _see_to(children: Sequence[Token], raw: list[str], work: _Work) -> None:
    has_html = False
    for child in children:
        if child.type == "text":
            continue
        if child.type == "html_inline":
            has_html = True
        elif child.type == "footnote_ref":
            work.links_nest = True  # a footnote's mark is a link, which may stand within another
            work.spend(20)
        elif child.attrs:
            # One definition may serve many links: it is paid for by what it adds to each.
            work.spend(5 + sum(len(str(value)) for value in child.attrs.values()) // 20)
            if child.type == "image":
                _see_to(child.children or [], [], work)
    if has_html:
        closed: set[str] = set()
        for child in reversed(children):
            if child.type == "html_inline":
                child.content = _unless_closed(child.content, closed)
                raw.append(child.content)


def _free(name: str, taken: dict[str, int]) -> str:
    free = name
    while free in taken:
        taken[name] += 1
        free = f"{name}-{taken[name]}"
    taken[free] = 1
    return free


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
    "wbr": {_CHECKED, _FRAMED},
}
SCHEMES = frozenset({"http", "https", "mailto", "tel"})
WITH_CONTENT = frozenset(
    """
    applet audio canvas embed iframe math noembed noframes noscript object plaintext script select
    style svg template textarea title video xmp
    """.split()  # noqa: SIM905 - a list of sixty lines is no easier to read
)
"""What is dropped with all that is in it; of other elements that are not allowed, only the tags."""

_cleaner = nh3.Cleaner(
    tags=set(ELEMENTS),
    clean_content_tags=set(WITH_CONTENT),
    attributes=ATTRIBUTES,
    tag_attribute_values={
        "td": {"align": {"left", "center", "right"}},
        "th": {"align": {"left", "center", "right"}},
    },
    url_schemes=set(SCHEMES),
    id_prefix=ID_PREFIX,
    # noreferrer: the address of a page may have a preview link's token in it. nofollow: whoever
    # may register may write, and links are what spam is written for.
    link_rel="noopener noreferrer nofollow",
)

_NAMES = "|".join(sorted(WITH_CONTENT))
_SWALLOWS = re.compile(rf"<(?:({_NAMES})(?![a-z0-9:-])|(!--))", re.IGNORECASE)
_CLOSES = re.compile(rf"</({_NAMES})(?![a-z0-9:-])")
_TAG_NAME = re.compile(r"<(/?)([a-z][a-z0-9-]*)", re.IGNORECASE)
# https://html.spec.whatwg.org/#formatting - those with attributes: of others, three at most are
# repeated. Links are not, as one ends where another begins.
_REPEATED = re.compile(
    r"<(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)[\s/]", re.IGNORECASE
)
_ATTRIBUTE = re.compile(r"[\s/\"'][^\s/>\"'=]")
_SIMPLE = re.compile(
    r"<(?:/?[a-z][a-z0-9-]*+(?:\s++[a-z_:][a-z0-9_:.-]*+(?:=\"[^\"<>]*+\")?+){0,100}+\s*+/?+"
    r"|!--[^<>]*+--)>",
    re.IGNORECASE,
)


_NAMED = re.compile(
    r"(<a(?:\s++(?!name\b)[\w-]++(?:\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+'|[^\s\"'<>=]++))?+)*+\s++)name(?=\s*+=)",
    re.IGNORECASE,
)
"""The obsolete way to make an anchor: `<a name="…">`."""


def _unless_closed(tag: str, closed: set[str]) -> str:
    """A tag of a line of text, which `closed` follow: as text if the rest would be lost in it."""
    named = _TAG_NAME.match(tag)
    if named is None:
        return tag
    name = named[2].lower()
    if name == "a":
        return _NAMED.sub(r"\1id", tag)
    if named[1]:
        closed.add(name)
    elif name in WITH_CONTENT and (name not in closed or name == "plaintext"):
        return "&lt;" + tag[1:]
    return tag


def _defused_blocks(blocks: Sequence[Token]) -> list[str]:
    """Defuse these blocks of HTML, in place; what they contain then."""
    closed: set[str] = set()
    for token in reversed(blocks):
        token.content = _defused(_framed(token.content), closed)
    return [token.content for token in blocks]


def _defused(block: str, closed: set[str]) -> str:
    """A block of HTML, after which `closed` are: what is never closed does not swallow the rest."""
    lower, last = block.lower(), dict[str, int]()

    def unless_closed(opened: re.Match[str]) -> str:
        name = (opened[1] or "--").lower()
        if name not in last:
            last[name] = lower.rfind("-->" if name == "--" else f"</{name}")
        lost = name == "plaintext" or (last[name] < opened.start() and name not in closed)
        return "&lt;" + opened[0][1:] if lost else opened[0]

    defused = _SWALLOWS.sub(unless_closed, block)
    closed.update(_CLOSES.findall(lower))
    return _NAMED.sub(r"\1id", defused)


def _sanitised(html: str, raw: Sequence[str], work: _Work) -> str:
    """`html`, of which `raw` was the writer's: parsed, and with nothing but what is allowed.

    Raises ContentTooComplex where it would take too long: nothing stops the sanitiser.
    """
    if raw:
        _weigh("".join(raw), html.count("<"))
    clean = _cleaner.clean(html)
    if not raw and not work.links_nest:
        return clean
    # Dropping a tag can leave an element where a parser would not: it is parsed until it is not.
    for _ in range(MAX_PARSES):
        again = _cleaner.clean(clean)
        if again == clean:
            return clean
        clean = again
    raise ContentTooComplex("The HTML in the Markdown is wrongly nested")


def _weigh(raw: str, all_tags: int) -> None:
    tags = raw.count("<")
    if tags > MAX_TAGS or tags * all_tags > MAX_TAGS * MAX_TAGS:
        raise ContentTooComplex("There are too many HTML tags in the Markdown")
    if len(_REPEATED.findall(raw)) * all_tags > MAX_REPEATED:
        raise ContentTooComplex("There are too many HTML tags with attributes in the Markdown")
    # An element's attributes are compared with each other. Words of a text look like attributes
    # where tags are written oddly, so these have to be written well if there are many words.
    if len(_ATTRIBUTE.findall(raw)) > MAX_ATTRIBUTES and "<" in _SIMPLE.sub("", raw):
        raise ContentTooComplex("The HTML in the Markdown is too intricate: use Markdown instead")


# ---------------------------------------------------------------------------------------------
# What left the renderer under another name

_BOX = re.compile(rf'<wbr {_CHECKED}="(yes|no)">')
_FRAME_HERE = re.compile(rf'<wbr {_FRAMED}="(https://([a-z0-9.-]++)[^"]*+)">')
_HERE = re.compile(r'<a href="#([^"]++)"')
_WRITERS_ID = re.compile(rf' id="{ID_PREFIX}([^"]*+)"')


def _unveiled(html: str, toc: Sequence[Heading]) -> str:
    """Sanitised `html` with our attributes under their own names, and elements for placeholders.

    A placeholder is one only as the sanitiser writes an element. It writes `<` and `"` in texts and
    attributes as references: what is left of the name there is removed.
    """
    html = html.replace(f" {_ID}=", " id=").replace(f" {_CLASS}=", " class=")
    if _MARK in html:
        html = html.replace(f" {_EMBED}=", " data-embed=")
        html = _FRAME_HERE.sub(_frame, _BOX.sub(_box, html)).replace(_MARK, "data")
    return _HERE.sub(_Leading(html, toc), html) if '<a href="#' in html else html


def _box(placeholder: re.Match[str]) -> str:
    checked = ' checked=""' if placeholder[1] == "yes" else ""
    return f'<input type="checkbox" class="task-list-item-checkbox" disabled=""{checked}>'


def _frame(placeholder: re.Match[str]) -> str:
    # It gets the page's origin, not the address, which may have a preview link's token in it.
    return (
        f'<iframe src="{placeholder[1]}" title="{placeholder[2]}" loading="lazy" '
        'referrerpolicy="strict-origin" allow="fullscreen; encrypted-media; picture-in-picture" '
        'sandbox="allow-popups allow-presentation allow-same-origin allow-scripts"></iframe>'
    )


class _Leading:
    """Leads links within the article to its anchors and headings, whose ids have prefixes."""

    def __init__(self, html: str, toc: Sequence[Heading]) -> None:
        self.anchors = set(_WRITERS_ID.findall(html))
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

# As it is written by the sanitiser: attributes in double quotes, all well nested.
_TAG = re.compile(r"<(/?)([a-z0-9]++)[^<>\"]*+(?:\"[^\"]*+\"[^<>\"]*+)*+>")
_IN_A_WORD = re.compile(
    r"</?(?:a|abbr|b|bdi|bdo|cite|code|del|dfn|em|i|ins|kbd|mark|q|rp|rt|ruby|s|samp|small|span"
    r"|strong|sub|sup|time|u|var|wbr)(?:[ \"][^<>\"]*+(?:\"[^\"]*+\"[^<>\"]*+)*+)?+>"
)
_ALT = re.compile(r"<img(?= )[^<>\"]*+(?:\"[^\"]*+\"[^<>\"]*+)*?(?<= alt=)\"([^\"]*+)\"")
_NOT_SAID = re.compile(
    r'<sup class="footnote-ref">(?:[^<]++|<(?!/?sup\b))*+</sup>'
    r'|<p class="markdown-alert-title">[^<]*+</p>'
    r'|<a href="[^"]*+" class="footnote-backref"[^<>]*+>[^<]*+</a>'
)
_VOID = frozenset({"br", "col", "hr", "img", "input", "wbr"})
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
"""What feeds cannot have, nor texts should. It is replaced and not removed, for removing it could
make a word of what was two when the sanitiser saw it."""
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def _text_of(html: str) -> str:
    if 'class="footnote' in html or 'class="markdown-alert' in html:
        html = _NOT_SAID.sub("", html)
    if "<img" in html:
        html = _ALT.sub(r" \1 \g<0>", html)
    text = entities.unescape(_TAG.sub(" ", _IN_A_WORD.sub("", html)))
    return " ".join(text.split())


def _check_depth(html: str) -> None:
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

_NO_WORD = re.compile(r" [^\w ]++(?= )")
_UNSPACED = (
    # Chinese and Japanese: words of two characters, mostly.
    (
        2,
        re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+"),
    ),
    # Thai, Lao, Burmese and Khmer: of about five, with their vowel signs and tone marks.
    (5, re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")),
)


def _count_words(text: str) -> int:
    words = 0
    if not text.isascii():
        for length, letters in _UNSPACED:
            words += sum(-(-len(run) // length) for run in letters.findall(text))
            text = " ".join(letters.sub(" ", text).split())
    return words + len(text.split()) - len(_NO_WORD.findall(f" {text} "))


def _joins(before: str, after: str) -> bool:
    """Whether what people see as one character would be cut between these two."""
    return (
        unicodedata.combining(after) != 0
        or unicodedata.category(after).startswith("M")
        or "\u200d" in (before, after)
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # the colours of skin
    )


# ---------------------------------------------------------------------------------------------


def _render(content: str, work: _Work, md: MarkdownIt | None = None) -> Rendered:
    md = md or _md
    if not content.isascii():
        content = _SURROGATES.sub("\ufffd", content)
    work.spend(len(content) // 10 + 2 * (content.count("\n") + content.count(">")))
    env: dict[str, Any] = {"work": work}
    try:
        tokens = md.parse(content, env)
        toc, raw = _prepare(tokens, work, embeds=md is _md)
        html: str = md.renderer.render(tokens, md.options, env)
    except RecursionError:
        raise ContentTooComplex from None
    html = _sanitised(html, raw, work)
    if raw and toc:
        left = set(_IDS.findall(html))
        toc = [heading for heading in toc if heading["id"] in left]
    html = _unveiled(html, toc)
    html = _NOT_XML.sub("\ufffd", html)
    _check_depth(html)
    text = _text_of(html)
    words = _count_words(text)
    return Rendered(html, text, toc, words, -(-words // WORDS_A_MINUTE))


_md = _parser()
_comments = _parser(_NOT_IN_COMMENTS, blocks=False)
