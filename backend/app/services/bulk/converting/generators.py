"""Markdown of static site generators: Hugo, Jekyll, Octopress, Hexo, Astro and Docusaurus.

Their text is Markdown already, except for shortcodes, Liquid tags and JSX components. Those become
Markdown; code is left alone.
"""

import re
from collections.abc import Callable, Mapping
from html import escape
from typing import NamedTuple

from app.services.bulk.converting.blocks import fenced, player
from app.services.bulk.converting.inline import destination, escape_text
from app.services.bulk.converting.pages import from_html
from app.services.bulk.converting.players import address, file_name
from app.services.bulk.converting.results import Context, Converted, Notes, names
from app.services.bulk.visibility import is_gate

_FENCE = re.compile(r"^[ \t>]*+(`{3,}+|~{3,}+)([^\n]*+)$", re.MULTILINE)
_CODE_SPAN = re.compile(r"(`+)")
_HUGO = re.compile(
    r"\{\{(?P<open>[<%])(?P<escaped>/\*)?\s*+(?P<close>/?)\s*+(?P<name>[A-Za-z][\w./-]*+)?"
    r"(?P<rest>(?:[^\"`>%{}]++|\"(?:[^\"\\]++|\\.)*+\"|`[^`]*+`|[>%](?!\}\})|\}(?!\})|\{(?!\{))*+)"
    r"[>%]\}\}",
    re.DOTALL,
)
_LIQUID = re.compile(
    r"\{%-?\s*+(?P<name>[A-Za-z][\w-]*+)(?P<rest>(?:[^%\"'{]++|\"[^\"\n]*+\"|'[^'\n]*+'|[\"']"
    r"|%(?!\})|\{(?!%))*+)%\}"
)
_OUTPUT = re.compile(r"\{\{-?(?P<expression>[^{}\n]{0,400}+)\}\}")
_SITE = re.compile(
    r"\s*(?:site\.(?:base_?url|url|root)|base_?url|config\.(?:root|url))\s*(?:\|[^}]*)?-?"
)
_LITERAL = re.compile(
    r"\s*(?:\"([^\"]*)\"|'([^']*)')\s*(?:\|\s*(?:relative_url|absolute_url|relref|url|prepend[^|]*"
    r"|url_for[^|]*)\s*)*-?"
)
_RAW = re.compile(r"\{%-?\s*+(end)?(?:raw|swig)\s*+-?%\}")
_COMMENT = re.compile(r"\{::comment\b[^{}\n]*\}|\{:/(?:comment)?\}")
"""The beginning or end of a comment of kramdown. The end need not name it."""
_KRAMDOWN = re.compile(r"(?m)(?:^[ \t]*\{:[^{}\n]*\}[ \t]*$\n?|(?<=[)*_`\w])\{:[^{}\n]*\})")
_HEADING = re.compile(r"^(#{1,6}+) ([^\n]*+)$", re.MULTILINE)
_HEADING_ID = re.compile(r"\{#([\w:.-]++)[^{}]*+\}")
_TOC = re.compile(
    r"(?m)^[*+-] (?:TOC|toc)\n\{:toc[^}\n]*\}\n?|^\{:toc[^}\n]*\}\n?|^\[\[?toc\]?\][ \t]*$\n?",
    re.IGNORECASE,
)
_DIRECTIVE = re.compile(
    r"(?m)^([ \t]*):::+[ \t]*([A-Za-z]*)[ \t]*(?:\[([^\]\n]*)\]|([^\n{]*))"
    r"(?:\{title=\"([^\"\n]*)\")?[^\n]*$"
)
_ARGUMENT = re.compile(
    r"(?:(?<![\w.:-])([\w.:-]++)\s*+(?:=|:(?=[\"'\w]))\s*+)?+(?:(?<!\\)\"((?:[^\"\\]++|\\.)*+)\"|'([^'\n]*+)'|`([^`]*+)`"
    r"|\{([^{}]*+)\}|([^\s,\"'`={}]++))"
)
_COMMA = re.compile(r"[\"']?+[^\s\"',]++[\"']?+\s*+,")
"""The first of several arguments that are separated by commas."""
_BLANK_LINES = re.compile(r"\n[ \t]*+\n(?:[ \t]*+\n)++")
_URL = re.compile(r"(?:https?:)?//\S+", re.IGNORECASE)
_IMAGE_FILE = re.compile(r"\.(?:jpe?g|png|gif|webp|avif|svg|bmp)(?:[?#]|\Z)", re.IGNORECASE)
_IMPORT = re.compile(
    r"(?m)^(?:import\s+(?:[^\n;]*?\sfrom\s+)?[\"'][^\"'\n]+[\"'];?"
    r"|import\s+\{[^}]*\}\s+from\s+[\"'][^\"'\n]+[\"'];?)[ \t]*$\n?"
)
_IMPORTED = re.compile(r"(?m)^import\s+(\w+)\s+from\s+[\"']([^\"'\n]+)[\"']")
_VARIABLE = re.compile(r"=\{(\w++)(?:\.src)?+\}")
_EXPORT = re.compile(
    r"(?m)^export\s+(?:const|let|var|default|function)\b[^\n]*(?:\n(?![ \t]*\n)[^\n]+)*\n?"
)
_JSX_COMMENT = re.compile(r"\{/\*(?:[^*{]++|\*(?!/)|\{(?!/\*))*+\*/\}")
_JSX_TEXT = re.compile(r"\{\s*(?:\"([^\"{}\n]*)\"|'([^'{}\n]*)'|`([^`{}$\n]*)`)\s*\}")
_JSX = re.compile(
    r"<(?P<close>/?)(?P<name>[A-Z][\w.]*+)"
    r"(?P<rest>(?:[^<>{}\"']++|\"[^\"]*+\"|'[^']*+'|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+)>"
)
_HTML_ATTRIBUTE = re.compile(
    r"\s(?:className|style|client:\w+)=(?:\{\{[^{}]*\}\}|\{[^{}]*\}|\"[^\"]*\")"
)

_MARKER = re.compile(
    r"<!--\s*+(?:paywall|(?:members?|subscribers?|paid|premium)(?:[ _-](?:only|members))?+)\s*+-->",
    re.IGNORECASE,
)
"""Comments after which the text is for some readers only."""

_BRACE = "\ufdd0"
"""A noncharacter in place of a brace that is not part of a tag."""

Arguments = Mapping[str, str]
"""The arguments of a tag. Those without a name have the names "0", "1" and so on."""

_NOTICES = {
    "note": "NOTE", "info": "NOTE", "notice": "NOTE", "primary": "NOTE", "default": "NOTE",
    "tip": "TIP", "hint": "TIP", "success": "TIP", "important": "IMPORTANT", "warning": "WARNING",
    "warn": "WARNING", "caution": "CAUTION", "danger": "CAUTION", "error": "CAUTION",
}  # fmt: skip
_NOTICE_TAGS = names(
    "admonition alert aside callout box notice hint note tip warning info danger important caution "
    "attention cq centerquote bubble"
)
_FOLD_TAGS = names(
    "accordion collapse details expand fold spoiler toggle collapsible folding hidetoggle hideblock"
)
_FIGURES = names(
    "figure img image imgproc picture asset_img fancybox lazyimg zoomable photo "
    "responsive_image responsive-image bundle-image resize-image imgcap "
)
_HIGHLIGHT = names("highlight codeblock code include_code")
_QUOTES = names("blockquote quote pullquote epigraph")
_LINKS = names("button btn link linkcard link-card blogcard linkgrid asset_link download cta")
_REFERENCES = names("ref relref post_url post_path asset_path link post-url")
_KEPT = names(
    "tabs tab column columns tabitem subtabs steps step center left right ltr rtl lead raw "
    "rawhtml html unsafe md markdown md-raw div section cards card timeline fragment layout grid "
    "row col capture wrap cardgrid"
)
"""Layout: the content is kept without a note."""
_GALLERIES = names("gallery gp grouppicture galleries")
_TITLED = names("tab tabitem step card")
"""Parts of the layout whose titles readers see."""
_PART = re.compile(r"<!--\s*+(end)?+(?:sub)?+(?:tab|node)\b([^\n<>]*+)>", re.IGNORECASE)
"""Comments between the tabs, or the points of a time line, in Hexo."""
_MARKS = {
    "sub": "sub", "sup": "sup", "kbd": "kbd", "mark": "mark", "u": "u", "del": "del", "s": "del",
    "ins": "ins", "small": "small", "wavy": "u", "emp": "", "psw": "", "span": "", "label": "",
    "hideinline": "", "checkbox": "", "radio": "",
}  # fmt: skip
"""Tags around words in a line, or with these words as their argument, and the HTML element."""
_NOTE_STYLES = names("no-icon icon simple modern flat disabled open true false")
_TEXTS = ("caption", "title", "text", "content", "label", "alt", "description", "message")
"""Arguments that readers see."""
_PLAYERS = ("youtube", "vimeo", "bilibili")
_LEFT_OUT = names("comment toc br clear more pagebreak nocaptions math katex load-photoswipe")
_LOGIC = names(
    "assign if elsif else endif unless endunless for endfor case when endcase capture endcapture "
    "increment decrement cycle break continue tablerow endtablerow paginate endpaginate set"
)
_SITES = {
    "youtube": "https://www.youtube.com/watch?v={}", "youtubelite": "https://www.youtube.com/watch?v={}",
    "yt": "https://www.youtube.com/watch?v={}", "lite-youtube": "https://www.youtube.com/watch?v={}",
    "youtubeembed": "https://www.youtube.com/watch?v={}",
    "vimeo": "https://vimeo.com/{}", "vimeo_simple": "https://vimeo.com/{}",
    "bilibili": "https://www.bilibili.com/video/{}", "gist": "https://gist.github.com/{}",
    "githubgist": "https://gist.github.com/{}",
    "tweet": "https://twitter.com/i/status/{}", "twitter": "https://twitter.com/i/status/{}",
    "x": "https://x.com/i/status/{}", "twitter_simple": "https://twitter.com/i/status/{}",
    "instagram": "https://www.instagram.com/p/{}/", "instagram_simple": "https://www.instagram.com/p/{}/",
    "jsfiddle": "https://jsfiddle.net/{}/", "codepen": "https://codepen.io/pen/{}",
    "speakerdeck": "https://speakerdeck.com/player/{}", "slideshare": "https://www.slideshare.net/slideshow/embed_code/{}",
    "spotify": "https://open.spotify.com/{}", "soundcloud": "https://soundcloud.com/{}",
    "asciinema": "https://asciinema.org/a/{}", "codesandbox": "https://codesandbox.io/s/{}",
    "stackblitz": "https://stackblitz.com/edit/{}", "replit": "https://replit.com/{}",
    "github": "https://github.com/{}", "ted": "https://www.ted.com/talks/{}",
}  # fmt: skip
_FILES = names("video audio iframe embed pdf mp3 mp4 music player frame")
_ADDRESSES = (
    "src",
    "url",
    "href",
    "link",
    "file",
    "path",
    "image",
    "img",
    "video",
    "source",
    "to",
    "0",
    "1",
    "2",
)


def from_site(text: str, context: Context | None = None, *, is_mdx: bool = False) -> Converted:
    """Return a text without the tags of generators.

    Addresses to other pages stay as they are: `{% post_url 2020-01-01-name %}` and `{{< ref >}}`
    become the name of the other file, for a later pass over the addresses.
    """
    notes = Notes()
    source, text = text, text.replace("\r\n", "\n").replace("\r", "\n")
    before = text
    if is_mdx:
        text = _convert_jsx(text, notes)
    for pattern, parse in _TAGS:
        text = _convert_blocks(text, pattern, parse, notes)
    text = _outside_code(text, lambda part: _plain_syntax(part, notes, context or Context()))
    text = _convert_directives(text)
    if "<!--" in text and _MARKER.search(text):
        notes.has_restricted_parts = True
    if text == before:
        return notes.result(source)
    text = _outside_code(text, lambda part: _BLANK_LINES.sub("\n\n", part))
    return notes.result(text.lstrip("\n"))


def from_site_html(text: str, context: Context | None = None) -> Converted:
    """Convert a page in HTML with the tags of a generator to Markdown. Raises TooComplex."""
    notes = Notes()
    context = context or Context()
    raw: list[str] = []

    def block(markdown: str) -> str:
        raw.append(markdown)
        return f'<div data-markdown="{len(raw) - 1}"></div>' if markdown.strip() else ""

    for pattern, parse in _TAGS:
        text = _convert_blocks(text, pattern, parse, notes, write=block)
    text = _plain_syntax(text, notes, context)
    if "<!--" in text and _MARKER.search(text):
        notes.has_restricted_parts = True
    return from_html(text, context, notes=notes, raw=raw)


class _Tag(NamedTuple):
    """A tag in the text of any generator."""

    start: int
    end: int
    name: str
    arguments: str
    is_end: bool = False
    is_void: bool = False
    literal: str | None = None
    """The text that replaces an escaped tag."""


def _hugo_tag(match: re.Match[str]) -> _Tag | None:
    if match["escaped"]:
        inner = match[0].replace("/*", "", 1)
        before, mark, after = inner.rpartition("*/")
        return _Tag(*match.span(), "", "", literal=before + after if mark else inner)
    if not match["name"]:
        return None
    rest = match["rest"].strip()
    return _Tag(
        *match.span(),
        match["name"].lower(),
        rest.removesuffix("/"),
        is_end=bool(match["close"]),
        is_void=rest.endswith("/"),
    )


def _liquid_tag(match: re.Match[str]) -> _Tag | None:
    name, rest = match["name"].lower(), match["rest"].strip().removesuffix("-").strip()
    if name in {"include", "include_relative", "include_cached", "render", "partial"}:
        file, _, rest = rest.partition(" ")
        name = file.strip("\"'").rpartition("/")[2].removesuffix(".html").lower()
    is_end = name.startswith("end") and name not in _LOGIC
    return _Tag(*match.span(), name.removeprefix("end") if is_end else name, rest, is_end=is_end)


def _comment_tag(match: re.Match[str]) -> _Tag:
    return _Tag(*match.span(), "comment", "", is_end=match[0].startswith("{:/"))


_TAGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], _Tag | None]], ...] = (
    (_COMMENT, _comment_tag),
    (_HUGO, _hugo_tag),
    (_LIQUID, _liquid_tag),
)
"""The tags of generators, in the order in which they are replaced."""


def _code_ranges(text: str) -> list[tuple[int, int]]:
    """Return the ranges of fenced code and of code in lines."""
    ranges: list[tuple[int, int]] = []
    position, opened = 0, None
    for fence in _FENCE.finditer(text):
        if opened is None:
            if fence[1][0] == "`" and "`" in fence[2]:
                continue  # code in a line
            ranges += _code_spans(text, position, fence.start())
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            position = fence.end()
            ranges.append((opened.start(), position))
            opened = None
    if opened is not None:
        return [*ranges, (opened.start(), len(text))]
    return ranges + _code_spans(text, position, len(text))


def _code_spans(text: str, start: int, end: int) -> list[tuple[int, int]]:
    runs = [(run.start(), run.end()) for run in _CODE_SPAN.finditer(text, start, end)]
    places: dict[int, list[int]] = {}
    for index in range(len(runs) - 1, -1, -1):
        places.setdefault(runs[index][1] - runs[index][0], []).append(index)
    ranges, index = [], 0
    while index < len(runs):
        length = runs[index][1] - runs[index][0]
        later = places[length]
        while later and later[-1] <= index:
            later.pop()
        if later and "\n\n" not in text[runs[index][1] : runs[later[-1]][0]]:
            ranges.append((runs[index][0], runs[later[-1]][1]))
            index = later[-1]
        index += 1
    return ranges


def _outside_code(text: str, convert: Callable[[str], str]) -> str:
    """Apply a conversion to the parts that are not code."""
    parts, position = [], 0
    for start, end in _code_ranges(text):
        parts += [convert(text[position:start]), text[start:end]]
        position = end
    return "".join([*parts, convert(text[position:])])


MAX_DEPTH = 50
"""Maximum nesting of tags."""


class _Open(NamedTuple):
    """A tag whose end has not been found yet."""

    tag: _Tag
    parts: list[str]


def _convert_blocks(
    text: str,
    pattern: re.Pattern[str],
    parse: Callable[[re.Match[str]], _Tag | None],
    notes: Notes,
    *,
    write: Callable[[str], str] = lambda markdown: markdown,
) -> str:
    """Replace the tags of a generator, with what is between them and their ends."""
    if pattern is _LIQUID:
        text = _protect_raw(text)
    found = _tags(text, pattern, parse)
    last_ends = {tag.name: tag.start for tag in found if tag.is_end}
    stack = [_Open(_Tag(0, 0, "", ""), [])]
    position = 0
    for tag in found:
        if tag.start < position:
            continue
        stack[-1].parts.append(text[position : tag.start])
        position = tag.end
        if tag.literal is not None:
            stack[-1].parts.append(tag.literal)
        elif tag.is_end:
            if any(each.tag.name == tag.name for each in stack[1:]):
                while (opened := stack.pop()).tag.name != tag.name:
                    stack[-1].parts.extend(
                        [_convert(opened.tag, None, notes, write), *opened.parts]
                    )
                content = "".join(opened.parts)
                stack[-1].parts.append(_convert(opened.tag, content, notes, write))
        elif (
            not tag.is_void and last_ends.get(tag.name, -1) > tag.start and len(stack) <= MAX_DEPTH
        ):
            stack.append(_Open(tag, []))
        else:
            stack[-1].parts.append(_convert(tag, None, notes, write))
    stack[-1].parts.append(text[position:])
    while len(stack) > 1:
        opened = stack.pop()
        stack[-1].parts.extend([_convert(opened.tag, None, notes, write), *opened.parts])
    return "".join(stack[0].parts).replace(_BRACE, "{")


def _protect_raw(text: str) -> str:
    """Remove `{% raw %}` and `{% endraw %}`, and replace the braces between them."""
    parts, position, start = [], 0, -1
    for tag in _RAW.finditer(text):
        if not tag[1]:
            start = tag.end() if start < 0 else start
            continue
        if start < 0:
            continue
        opening = text.rfind("{%", position, start)
        inner = text[start : tag.start()]
        if inner.startswith("\n") and inner.endswith("\n"):  # the tags have lines of their own
            inner = inner[1:-1]
        parts += [text[position:opening], inner.replace("{", _BRACE)]
        position, start = tag.end(), -1
    return "".join([*parts, text[position:]])


def _tags(
    text: str, pattern: re.Pattern[str], parse: Callable[[re.Match[str]], _Tag | None]
) -> list[_Tag]:
    """Return the tags outside of code, and escaped ones also in code."""
    code = _code_ranges(text)
    found, index = [], 0
    for match in pattern.finditer(text):
        while index < len(code) and code[index][1] <= match.start():
            index += 1
        is_code = index < len(code) and code[index][0] <= match.start()
        tag = parse(match)
        if tag is not None and (not is_code or tag.literal is not None):
            found.append(tag)
    return found


def _arguments(text: str) -> Arguments:
    found: dict[str, str] = {}
    unnamed = 0
    for match in _ARGUMENT.finditer(text):
        value = next((group for group in match.groups()[1:] if group is not None), "").strip()
        if value.startswith(("include.", "page.")):
            continue
        if match[5] is not None and value[:1] in "\"'`":
            value = value.strip("\"'`")
        if match[1]:
            found[match[1].lower()] = value
        else:
            found[str(unnamed)] = value
            unnamed += 1
    return found


def _first(arguments: Arguments, *names: str) -> str:
    return next((arguments[name] for name in names if arguments.get(name)), "")


def _convert(tag: _Tag, content: str | None, notes: Notes, write: Callable[[str], str]) -> str:
    """Return the Markdown of a tag."""
    name = tag.name
    if is_gate(name) and (content is not None or "paywall" in name):
        notes.has_restricted_parts = True
    if name in _LOGIC:
        if name in {"if", "for", "unless", "case"}:
            notes.add("parts of the text depend on conditions of the generator: all were kept")
        return content or ""
    if name in _LEFT_OUT:
        return content.strip() if content and name in {"math", "katex"} else ""
    arguments = _arguments(tag.arguments)
    if name in _REFERENCES and not (name == "link" and "1" in arguments) and content is None:
        return _reference(name, arguments)
    inline = content is not None and "\n" not in content and name not in _HIGHLIGHT
    markdown = _markdown(name, tag.arguments, arguments, content, notes)
    is_block = markdown.startswith(("<figure", "```", ">", "<details", "~~~")) or (
        "\n" in markdown.strip()
    )
    if is_block and not inline:
        return f"\n\n{write(markdown)}\n\n"
    return write(markdown)


def _reference(name: str, arguments: Arguments) -> str:
    target = _first(arguments, "path", "slug", "0")
    if name in {"post_url", "post_path", "post-url"} and not target.endswith(".md"):
        target += ".md"
    return destination(address(target) or target)


def _markdown(  # noqa: C901, PLR0911, PLR0912 - one case for each kind of tag
    name: str, source: str, arguments: Arguments, content: str | None, notes: Notes
) -> str:
    text = (content or "").strip("\n")
    if name == "highlight" and content and "\n" not in content and "0" not in arguments:
        return f"<mark>{content}</mark>"
    if name in _HIGHLIGHT:
        return _code(name, source, arguments, content, notes)
    if name in _FIGURES:
        return _figure(name, source, arguments, text)
    if site := name if name in _SITES else next((each for each in _PLAYERS if each in name), ""):
        return _site(site, arguments, text, notes)
    if name in _MARKS:
        return _mark(name, source, content)
    if name in _FILES:
        return _file(arguments, text, notes, name)
    if name in _QUOTES:
        return _quote(arguments, source, text)
    if name in _FOLD_TAGS:
        title = _fold_title(name, source, arguments)
        summary = f"<summary>{escape(title, quote=False)}</summary>\n" if title else ""
        return f"<details>\n{summary}\n{text}\n\n</details>"
    if name in _NOTICE_TAGS and content is not None:
        kind = _first(arguments, "type", "kind", "0").lower()
        title = _first(arguments, "title", "heading") or _note_title(arguments)
        return notice(_NOTICES.get(kind) or _NOTICES.get(name, ""), text, title)
    if name == "mermaid":
        return fenced(text, "mermaid")[0] if text else ""
    if name == "post_link":
        target, _, title = source.strip().partition(" ")
        title = title.strip(" \"'")
        return f"[{escape_text(title or target, in_link=True)}]({destination(target)}.md)"
    if name in _LINKS:
        return _link(name, source, arguments, text)
    if name in _KEPT:
        return _layout(name, arguments, text) if content is not None else _any_link(arguments)
    if content is not None:
        if name not in _GALLERIES:
            notes.add(f"the tag {name[:40]!r} of the generator was removed, its content was kept")
        return text
    found, kept = _any_link(arguments), "its URL was kept"
    if not found:
        found = escape_text(_first(arguments, *_TEXTS) or _sentences(arguments))
        kept = f"what it shows is not in the file{', its text was kept' if found else ''}"
    notes.add(f"the tag {name[:40]!r} of the generator was removed, {kept}")
    return found


def _layout(name: str, arguments: Arguments, content: str) -> str:
    """Return what a part of the layout contains, below its title."""
    title = ""
    if name in _TITLED:
        positional = [value for key, value in arguments.items() if key.isdigit()]
        title = _first(arguments, "label", "title", "name", "header", "value")
        title = title or (positional[-1] if positional else "")
    elif name in {"tabs", "subtabs", "timeline"}:
        content = _PART.sub(_part_title, content)
    return f"\n\n**{escape_text(title)}**\n\n{content}\n\n" if title else content


def _part_title(part: re.Match[str]) -> str:
    title = part[2].rstrip("-").partition("@")[0].strip()
    return f"\n**{escape_text(title)}**\n" if title and not part[1] else ""


def _mark(name: str, source: str, content: str | None) -> str:
    """Return words in a line. They are the content or, in Hexo, the argument after others."""
    if content is None:
        color, at, words = source.partition("@")
        if not at or color.count(" ") > 1:
            parts = source.split(",")
            words = parts[0] if name == "hideinline" else parts[-1]
        words = escape_text(words.strip(" \"'"))
        if name in {"checkbox", "radio"}:
            is_checked = "checked" in source.partition(",")[0]
            return f"\n- [{'x' if is_checked else ' '}] {words}\n" if words else ""
    else:
        words = content
    tag = _MARKS[name]
    return f"<{tag}>{words}</{tag}>" if tag and words else words


def _fold_title(name: str, source: str, arguments: Arguments) -> str:
    if found := _first(arguments, "title", "summary", "label", "header"):
        return found
    if source.strip()[:1] in {'"', "'", "`"} or "=" in source:
        return arguments.get("0", "")
    plain = source.partition("@")[0]
    before, _, after = plain.partition(",")
    return (after if name == "folding" and after else before).strip()


def _note_title(arguments: Arguments) -> str:
    """Return the title of a notice, without the names of its kind, styles and icons."""
    words = [value for key, value in arguments.items() if key.isdigit()]
    if words and " " not in words[0]:
        del words[0]  # the kind
    shown = (each for each in words if each not in _NOTE_STYLES and " fa-" not in each)
    return " ".join(shown)


def notice(kind: str, text: str, title: str = "") -> str:
    """Return an alert of GitHub's Markdown, or a quote if there is no kind."""
    lines = [f"[!{kind}]"] if kind else []
    if title and title.lower() not in _NOTICES:
        lines += [f"**{escape_text(title)}**", ""]
    return "\n".join(f"> {line}".rstrip(" ") for line in [*lines, *text.split("\n")])


def _code(name: str, source: str, arguments: Arguments, content: str | None, notes: Notes) -> str:
    language = _first(arguments, "lang", "language")
    if not language and name == "highlight":
        language = arguments.get("0", "")
    if match := re.search(r"\blang:\s*([\w+#.-]+)", source):
        language = match[1]
    if content is None:
        if name == "include_code":
            notes.add("code from another file was replaced by a link to the file")
            path = next((word for word in source.split() if "." in word), source)
            return f"[{escape_text(file_name(path), in_link=True)}]({destination(address(path))})"
        inline = _first(arguments, "code", "1", "0")
        return f"`{inline}`" if inline else ""
    language = language if re.fullmatch(r"[A-Za-z0-9][\w+#.-]{0,30}", language) else ""
    return fenced(content.strip("\n"), language)[0] if content.strip() else ""


def _figure(name: str, source: str, arguments: Arguments, content: str) -> str:
    """Return an image: `src="…"`, or Octopress's `[class] src [width] [height] [title [alt]]`."""
    url = _first(
        arguments, "src", "url", "path", "image", "image_path", "link_src", "file", "filename"
    )
    alt = _first(arguments, "alt")
    caption = _first(arguments, "caption", "attr", "description") or content.strip()
    title = _first(arguments, "title")
    if not url:
        values = [value for key, value in arguments.items() if key.isdigit()]
        paths = list(filter(_is_path, values))
        url = paths[0] if paths else (values[0] if values else "")
        if url:
            rest = [value for value in values[values.index(url) + 1 :] if not value.isdigit()]
            if not re.search(r"[\"']", source):
                rest = [" ".join(rest)]
            title = title or (rest[0] if rest else "")
            alt = alt or (rest[1] if len(rest) > 1 else title)
    if not address(url):
        return content
    if name == "figure" and title and not caption:
        caption, title = title, ""
    titled = (
        ' "' + title.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if title and title != alt
        else ""
    )
    image = f"![{escape_text(alt or '')}]({destination(address(url))}{titled})"
    if link := address(_first(arguments, "link", "href")):
        image = f"[{image}]({destination(link)})"
    if not caption:
        return image
    return f"<figure>\n\n{image}\n\n<figcaption>\n\n{caption}\n\n</figcaption>\n</figure>"


def _is_path(value: str) -> bool:
    """Return whether a value looks like the path or address of a file."""
    extension = re.split(r"[?#]", value, maxsplit=1)[0].rpartition(".")[2]
    return extension != value and 2 <= len(extension) <= 5 and extension.isalnum()


def _sentences(arguments: Arguments) -> str:
    """Return the unnamed arguments, without single words of the generator."""
    values = (value for name, value in arguments.items() if name.isdigit())
    return " ".join(value for value in values if " " in value or not value.isascii())


def _is_address(value: str) -> bool:
    return bool(_URL.match(value) or _IMAGE_FILE.search(value)) or (
        value.startswith("/") and _is_path(value)
    )


def _site(name: str, arguments: Arguments, content: str, notes: Notes) -> str:
    given = content.strip() or _first(
        arguments,
        "url",
        "src",
        "href",
        "id",
        "videoid",
        "video_id",
        "video",
        "bvid",
        "repo",
        "user",
        "0",
    )
    if name in {"tweet", "twitter", "x"} and arguments.get("user") and arguments.get("id"):
        given = f"https://twitter.com/{arguments['user']}/status/{arguments['id']}"
    if name == "gist" and re.fullmatch(r"\w{5,40}", arguments.get("1", "")):
        given = f"{given}/{arguments['1']}"
    if _URL.match(given):
        return player(address(given))
    if not re.fullmatch(r"[\w./:@-]{1,200}", given):
        notes.add(f"the tag {name!r} of the generator was removed, because it has no URL")
        return content
    return player(_SITES[name].format(given))


def _file(arguments: Arguments, content: str, notes: Notes, name: str) -> str:
    service = arguments.get("provider", "").lower()
    if service in _SITES and (given := _first(arguments, "id", "video_id")):
        return _site(service, {"id": given}, "", notes)
    url = address(_first(arguments, *_ADDRESSES) or content.strip())
    if url:
        return player(url, title=_first(arguments, "title", "caption", "name"))
    notes.add(f"the tag {name!r} of the generator was removed, because it has no URL")
    return content


def _quote(arguments: Arguments, source: str, content: str) -> str:
    author = _first(arguments, "author", "cite", "attribution")
    if not author and "=" not in source:
        author = " ".join(word for word in source.split() if not _URL.match(word)).strip("\"' ,-")
    url = next((word for word in source.split() if _URL.match(word)), "")
    cited = escape_text(author)
    if url:
        cited = f"[{cited or escape_text(url, in_link=True)}]({destination(address(url))})"
    text = content.replace('{"', "").replace('"}', "") + (f"\n\n\u2014 {cited}" if cited else "")
    return notice("", text)


def _link(name: str, source: str, arguments: Arguments, content: str) -> str:
    values = [value for key, value in arguments.items() if key.isdigit()]
    url = _first(arguments, "url", "href", "link", "to", "src", "relref", "ref")
    if not url:
        url = next((value for value in values if re.match(r"(?:https?:)?//|[/.#]", value)), "")
    if not url and name == "asset_link":
        url = values[0] if values else ""
    text = content or _first(arguments, "text", "title", "label", "name", "content")
    if not text and _COMMA.match(source):
        parts = (part.strip(" \"'") for part in source.split(","))
        text = next((part for part in parts if part and url not in part), "")
    elif not text and "=" not in source and ('"' in source or "'" in source):
        text = next((value for value in values if value != url), "")
    elif not text:
        words = [word for word in source.split() if word != url and "=" not in word]
        text = " ".join(word for word in words if word not in {"true", "false"}).strip("\"' ")
    if not address(url):
        return text
    label = text if content else escape_text(text or file_name(url), in_link=True)
    return f"[{label}]({destination(address(url))})"


def _any_link(arguments: Arguments) -> str:
    """Return an image or a link if a tag has an address, or an empty string."""
    named = [arguments.get(name, "") for name in _ADDRESSES if not name.isdigit()]
    positional = [value.removeprefix("url=") for name, value in arguments.items() if name.isdigit()]
    for value in (*named, *filter(_is_address, positional)):
        if (url := address(value)) and ("/" in url or "." in url):
            if _IMAGE_FILE.search(url):
                alt = escape_text(_first(arguments, "alt", "caption", "title"))
                return f"![{alt}]({destination(url)})"
            return player(url, title=_first(arguments, "title", "text", "caption", "label"))
    return ""


# --- syntax of single places


def _plain_syntax(text: str, notes: Notes, context: Context) -> str:
    """Replace Liquid's outputs, and attributes of kramdown and Goldmark."""
    if "{{" in text:
        text = _OUTPUT.sub(lambda output: _output(output, notes, context), text)
    if "{" in text or "toc" in text.lower():
        text = _TOC.sub("", text)
        text = _HEADING.sub(_anchored_heading, text)
        text = _KRAMDOWN.sub("", text)
    return text


def _output(match: re.Match[str], notes: Notes, context: Context) -> str:
    expression = match["expression"].strip()
    if _SITE.fullmatch(expression):
        return context.site.rstrip("/") if ".url" in expression else ""
    if literal := _LITERAL.fullmatch(expression):
        return literal[1] if literal[1] is not None else literal[2] or ""
    name = expression.rpartition(".")[2]
    if re.fullmatch(r"page\.\w{1,50}", expression) and name in context.values:
        notes.count_inserted(len(context.values[name]))
        return escape_text(context.values[name])
    if re.match(r"(?:page|site|post|include|layout)\.", expression):
        notes.add(f"the value of {expression[:40]!r} is not in the file")
    return match[0]


def _anchored_heading(match: re.Match[str]) -> str:
    """Return a heading whose `{#id}` is an anchor instead."""
    title = match[2].rstrip(" \t#")
    found = _HEADING_ID.fullmatch(title, title.rfind("{#")) if "{#" in title else None
    if found is None:
        return match[0]
    return f'{match[1]} <a id="{escape(found[1])}"></a>{title[: found.start()].rstrip()}'


def _convert_directives(text: str) -> str:
    """Replace `:::note` … `:::`, the notices of Docusaurus, Astro and VuePress."""
    if ":::" not in text:
        return text
    code = _code_ranges(text)
    out: list[str] = []
    stack: list[tuple[str, str, list[str]]] = []
    position = 0
    for match in _DIRECTIVE.finditer(text):
        if any(start <= match.start() < end for start, end in code):
            continue
        lines = stack[-1][2] if stack else out
        lines.append(text[position : match.start()])
        position = match.end()
        kind, title = match[2].lower(), (match[3] or match[5] or match[4] or "").strip()
        if kind and len(stack) <= MAX_DEPTH:
            stack.append((kind, title, []))
        elif stack:
            kind, title, parts = stack.pop()
            (stack[-1][2] if stack else out).append(_directive(kind, title, "".join(parts)))
        else:
            lines.append(match[0])
    (stack[-1][2] if stack else out).append(text[position:])
    while stack:
        _, _, parts = stack.pop()
        (stack[-1][2] if stack else out).extend(parts)
    return "".join(out)


def _directive(kind: str, title: str, content: str) -> str:
    text = content.strip("\n")
    if kind in _FOLD_TAGS:
        summary = f"<summary>{escape(title, quote=False)}</summary>\n" if title else ""
        return f"<details>\n{summary}\n{text}\n\n</details>"
    return notice(_NOTICES[kind], text, title) if kind in _NOTICES else text


# --- MDX


def _convert_jsx(text: str, notes: Notes) -> str:
    """Replace imports, exports, comments, expressions and components of MDX."""
    imported = dict(_IMPORTED.findall(text))
    text = _outside_code(text, lambda part: _EXPORT.sub("", _IMPORT.sub("", part)))

    def plain(part: str) -> str:
        part = _JSX_COMMENT.sub("", part)
        part = _JSX_TEXT.sub(lambda match: match[1] or match[2] or match[3] or "", part)
        return _HTML_ATTRIBUTE.sub("", part)

    def tag(match: re.Match[str]) -> _Tag:
        rest = match["rest"].strip()
        rest = _VARIABLE.sub(
            lambda each: f'="{imported[each[1]]}"' if each[1] in imported else each[0], rest
        )
        name = match["name"].rpartition(".")[2].lower()
        return _Tag(
            *match.span(),
            name,
            rest.removesuffix("/"),
            is_end=bool(match["close"]),
            is_void=rest.endswith("/"),
        )

    text = _outside_code(text, plain)
    return _convert_blocks(text, _JSX, tag, notes)
