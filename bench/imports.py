# ruff: noqa: S603, T201 - a script: it runs Pressroom's own CLI and prints to the terminal
"""Compare imports of the same posts as NDJSON, WordPress, Ghost and Markdown.

    make bench ARGS=imports                      writes its section of bench/RESULTS.md
    make bench ARGS="imports --quick"            1,000 posts, no large file; prints only
    make bench ARGS="imports --former COMMIT"    also compares NDJSON with a former revision

Formats and revisions alternate, each with a new database. See bench/README.md.
"""

import argparse
import io
import json
import os
import resource
import secrets
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median
from typing import Final, NamedTuple

import psutil

import corpus
from app.core.config import BACKEND_DIR, PROJECT_DIR, get_settings
from app.db import embedded
from report import describe_machine, describe_versions, markdown_table, text_table, write_section
from servers import BENCH_DIR, SERVER_ENVIRONMENT, BenchError, execute, scratch_database

HEADING: Final = "## Imports"
COMMENTS: Final = 5
"""Comments of each post in WordPress."""
MIN_WORDPRESS: Final = 500 / 1200
MIN_FORMER: Final = 0.8
MAX_MIB: Final = 200
CORES: Final = os.cpu_count() or 1
MIN_JOBS: Final = 0.9 * CORES
SAMPLE_SECONDS: Final = 0.1
MIGRATE: Final = "import sys; from app.db import migrate; migrate.upgrade(sys.argv[1])"
"""Works for former revisions, too."""
NDJSON, JOBS, FORMER, WORDPRESS, GHOST, MARKDOWN, AGAIN, LARGE = (
    "NDJSON",
    f"NDJSON, --jobs {CORES}",
    "NDJSON, former revision",
    f"WordPress, {COMMENTS} comments each",
    "Ghost",
    "Markdown",
    "WordPress again, unchanged",
    "WordPress, large file",
)
WORDS: Final = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or "
    "had an they which one you were all her she there would their we him been has when who will no "
    "more if out so what up said about than into them can only other time new some could these two "
    "may first then do any like my now over such our man me even most made after also did many "
    "before must through years where much your way down should because long each just state people "
    "those too mr how little good world make very year still see own work men day get here old life"
)


@dataclass(frozen=True)
class Options:
    """The sizes of the measurement, and the output file."""

    posts: int
    rounds: int
    large_mib: int
    former: str
    note: str
    output: Path | None


class Run(NamedTuple):
    """An import: its duration, and the CPU time and greatest memory of its processes."""

    name: str
    records: int
    seconds: float
    cpu_seconds: float
    mib: float

    @property
    def rate(self) -> float:
        """Return the number of records per second."""
        return self.records / self.seconds


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py imports", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--posts", type=int, help="posts (default 10000)")
    parser.add_argument("--rounds", type=int, help="rounds (default 3)")
    parser.add_argument("--large", type=int, help="MiB of the large file (default 1024, 0: none)")
    parser.add_argument("--former", default="", help="a commit to compare NDJSON with")
    parser.add_argument("--quick", action="store_true", help="1,000 posts; writes no file")
    parser.add_argument("--note", default="", help="a note for the results, such as other load")
    parser.add_argument("--output", type=Path, default=BENCH_DIR / "RESULTS.md")
    parsed = parser.parse_args(arguments)
    large = (0 if parsed.quick else 1024) if parsed.large is None else parsed.large
    return Options(
        posts=parsed.posts or (1000 if parsed.quick else 10_000),
        rounds=parsed.rounds or (1 if parsed.quick else 3),
        large_mib=large,
        former=parsed.former,
        note=parsed.note,
        output=None if parsed.quick else parsed.output,
    )


# --- the posts


class Post(NamedTuple):
    """A post of about 1.6 KB."""

    number: int
    paragraphs: list[tuple[str, str]]
    """Each in Markdown and in HTML."""

    @property
    def date(self) -> str:
        """Return the date of publication, in UTC."""
        number = self.number
        day = f"20{number % 20:02}-{number % 12 + 1:02}-{number % 28 + 1:02}"
        return f"{day} {number % 24:02}:{number % 60:02}:00"

    @property
    def markdown(self) -> str:
        """Return the text as Markdown."""
        return "\n\n".join(markdown for markdown, _ in self.paragraphs)

    @property
    def html(self) -> str:
        """Return the text as HTML."""
        return "\n".join(f"<p>{html}</p>" for _, html in self.paragraphs)

    @property
    def wordpress(self) -> str:
        """Return the text of the classic editor, or of the block editor in every second post."""
        if self.number % 2:
            return "\n\n".join(html for _, html in self.paragraphs)
        return "\n\n".join(
            f"<!-- wp:paragraph -->\n<p>{html}</p>\n<!-- /wp:paragraph -->"
            for _, html in self.paragraphs
        )


def make_post(number: int) -> Post:
    """Make a post. A number always yields the same one."""
    random = Random(number)  # noqa: S311 - reproducible, not secret
    return Post(number, [_paragraph(random, WORDS.split()) for _ in range(6)])


def _paragraph(random: Random, vocabulary: Sequence[str]) -> tuple[str, str]:
    markdown, html = [], []
    for _ in range(4):
        words = " ".join(random.choices(vocabulary, k=13)).capitalize()
        kind = random.random()
        if kind < 0.15:
            markdown.append(f"{words}, **in bold words**.")
            html.append(f"{words}, <strong>in bold words</strong>.")
        elif kind < 0.3:
            url = f"https://blog.example/2020/01/post-{random.randint(1, 999)}/"
            markdown.append(f"{words}, [with a link]({url}).")
            html.append(f'{words}, <a href="{url}">with a link</a>.')
        else:
            markdown.append(f"{words}.")
            html.append(f"{words}.")
    return " ".join(markdown), " ".join(html)


def write_ndjson(path: Path, posts: Iterator[Post]) -> None:
    """Write Pressroom's own format."""
    with path.open("w") as file:
        for post in posts:
            record = {
                "title": f"Post {post.number}",
                "slug": f"post-{post.number}",
                "content": post.markdown,
                "tags": ["News", f"Tag {post.number % 50}"],
                "published_at": post.date.replace(" ", "T") + "Z",
            }
            file.write(json.dumps(record) + "\n")


def write_markdown(path: Path, posts: Iterator[Post]) -> None:
    """Write a folder of files with front matter."""
    path.mkdir()
    for post in posts:
        (path / f"post-{post.number}.md").write_text(
            f"---\ntitle: Post {post.number}\ndate: {post.date}\n"
            f"tags: [News, Tag {post.number % 50}]\n---\n\n{post.markdown}\n"
        )


def write_ghost(path: Path, posts: Iterator[Post]) -> None:
    """Write an export of Ghost."""
    with path.open("w") as file:
        file.write('{"db":[{"meta":{"version":"5.8.2"},"data":{"users":[],"tags":[],"posts":[')
        for post in posts:
            at = post.date.replace(" ", "T") + ".000Z"
            row = {
                "id": str(post.number),
                "uuid": f"uuid-{post.number}",
                "title": f"Post {post.number}",
                "slug": f"post-{post.number}",
                "html": post.html,
                "status": "published",
                "type": "post",
                "visibility": "public",
                "created_at": at,
                "published_at": at,
            }
            file.write(("," if post.number > 1 else "") + json.dumps(row))
        file.write("]}}]}")


def write_wordpress(path: Path, posts: Iterator[Post]) -> None:
    """Write a WXR file."""
    with path.open("w") as file:
        file.write(_WXR_HEAD)
        for post in posts:
            file.write(_wordpress_item(post))
        file.write("</channel></rss>\n")


def write_large(path: Path, mib: int) -> int:
    """Write a WXR file of this size, and return its number of posts.

    For each post, there are five media files, and a revision of 100 KB, which is left out.
    """
    number = 0
    with path.open("w") as file:
        file.write(_WXR_HEAD)
        while file.tell() < mib * 2**20:
            number += 1
            post = make_post(number)
            file.write(_wordpress_item(post))
            for media in range(number * 5, number * 5 + 5):
                file.write(_MEDIA_FILE.format(id=10_000_000 + media, post=number))
            long = "\n\n".join([post.html] * 60)
            file.write(_REVISION.format(id=20_000_000 + number, post=number, content=long))
        file.write("</channel></rss>\n")
    return number


_MEDIA_FILE: Final = """<item>
<title>Picture {id}</title>
<link>https://blog.example/2020/01/post-{post}/picture-{id}/</link>
<guid isPermaLink="false">https://blog.example/wp-content/uploads/2020/01/picture-{id}.jpg</guid>
<wp:post_id>{id}</wp:post_id>
<wp:status>inherit</wp:status>
<wp:post_parent>{post}</wp:post_parent>
<wp:post_type>attachment</wp:post_type>
<wp:attachment_url>https://blog.example/wp-content/uploads/2020/01/picture-{id}.jpg\
</wp:attachment_url>
</item>
"""
_REVISION: Final = """<item>
<title>Revision {id}</title>
<content:encoded><![CDATA[{content}]]></content:encoded>
<wp:post_id>{id}</wp:post_id>
<wp:status>inherit</wp:status>
<wp:post_parent>{post}</wp:post_parent>
<wp:post_type>revision</wp:post_type>
</item>
"""


def _comment(number: int) -> str:
    words = WORDS.split()
    return " ".join(words[(number + at) % len(words)] for at in range(25)).capitalize() + "."


def _wordpress_item(post: Post) -> str:
    number, day = post.number, post.date
    comments = "".join(
        f"<wp:comment><wp:comment_id>{number * COMMENTS + index}</wp:comment_id>"
        f"<wp:comment_author><![CDATA[Reader {index}]]></wp:comment_author>"
        f"<wp:comment_author_email><![CDATA[r{index}@example.org]]></wp:comment_author_email>"
        f"<wp:comment_date_gmt><![CDATA[{day}]]></wp:comment_date_gmt>"
        f"<wp:comment_content><![CDATA[{_comment(number + index)}]]></wp:comment_content>"
        "<wp:comment_approved><![CDATA[1]]></wp:comment_approved>"
        "<wp:comment_type><![CDATA[comment]]></wp:comment_type>"
        "<wp:comment_parent>0</wp:comment_parent></wp:comment>\n"
        for index in range(COMMENTS)
    )
    return f"""<item>
<title><![CDATA[Post {number}]]></title>
<link>https://blog.example/2020/01/post-{number}/</link>
<pubDate>Thu, 02 Jan 2020 03:04:05 +0000</pubDate>
<dc:creator><![CDATA[jane]]></dc:creator>
<guid isPermaLink="false">https://blog.example/?p={number}</guid>
<description></description>
<content:encoded><![CDATA[{post.wordpress}]]></content:encoded>
<excerpt:encoded><![CDATA[]]></excerpt:encoded>
<wp:post_id>{number}</wp:post_id>
<wp:post_date><![CDATA[{day}]]></wp:post_date>
<wp:post_date_gmt><![CDATA[{day}]]></wp:post_date_gmt>
<wp:post_modified_gmt><![CDATA[{day}]]></wp:post_modified_gmt>
<wp:comment_status><![CDATA[open]]></wp:comment_status>
<wp:post_name><![CDATA[post-{number}]]></wp:post_name>
<wp:status><![CDATA[publish]]></wp:status>
<wp:post_type><![CDATA[post]]></wp:post_type>
<wp:post_password><![CDATA[]]></wp:post_password>
<category domain="category" nicename="news"><![CDATA[News]]></category>
<category domain="post_tag" nicename="tag"><![CDATA[Tag {number % 50}]]></category>
<wp:postmeta><wp:meta_key><![CDATA[_edit_last]]></wp:meta_key>\
<wp:meta_value><![CDATA[1]]></wp:meta_value></wp:postmeta>
{comments}</item>
"""


_WXR_HEAD: Final = """<?xml version="1.0" encoding="UTF-8" ?>
<rss version="2.0"
  xmlns:excerpt="http://wordpress.org/export/1.2/excerpt/"
  xmlns:content="http://purl.org/rss/1.0/modules/content/"
  xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:wp="http://wordpress.org/export/1.2/">
<channel>
<title>A blog</title>
<link>https://blog.example</link>
<wp:wxr_version>1.2</wp:wxr_version>
<wp:base_blog_url>https://blog.example</wp:base_blog_url>
"""


# --- the imports


class Importing:
    """Imports files, each into a new database unless another is given."""

    def __init__(self, server_url: str, environment: Mapping[str, str]) -> None:
        self._server_url = server_url
        self._environment = environment

    def run(
        self, name: str, path: Path, records: int, *, code: Path = BACKEND_DIR, again: str = ""
    ) -> list[Run]:
        """Import a source, and once more if `again` is the name of that run.

        JOBS renders in as many processes as there are cores.
        """
        with scratch_database(self._server_url) as url:
            self._run(["-c", MIGRATE, url], url, code)
            corpus.add_admin(url)
            runs = [self._import(name, path, records, url, code)]
            (count,) = execute(url, "SELECT count(*) FROM articles")
            if count != records:
                raise BenchError(f"{name}: {count:,} of {records:,} articles were imported")
            if again:
                runs.append(self._import(again, path, records, url, code))
            return runs

    def _import(self, name: str, path: Path, records: int, url: str, code: Path) -> Run:
        arguments = ["-m", "app.cli", "import", str(path), "--author", corpus.ADMIN]
        if name == JOBS:
            arguments += ["--jobs", str(CORES)]
        seconds, usage, mib = self._run(arguments, url, code)
        cpu = usage.ru_utime + usage.ru_stime
        return Run(name, records, seconds, cpu, mib)

    def _run(
        self, arguments: Sequence[str], url: str, code: Path
    ) -> tuple[float, resource.struct_rusage, float]:
        """Run a command. Return its seconds, its usage, and the MiB of all its processes."""
        started = time.perf_counter()
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=code,
                env={**os.environ, **self._environment, "DATABASE_URL": url},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            with memory_of(process.pid) as samples:
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                errors.seek(0)
                output = errors.read().decode(errors="replace").strip()[-2000:]
                raise BenchError(f"{' '.join(arguments[:4])} failed: {output}")
        return time.perf_counter() - started, usage, max(samples)


@contextmanager
def memory_of(pid: int) -> Iterator[list[float]]:
    """Yield the MiB of a process and its descendants: their memory, with shared pages once.

    It is sampled, and so misses short peaks.
    """
    samples = [0.0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                tree = [process, *process.children(recursive=True)]
                samples.append(sum(each.memory_full_info().pss for each in tree) / 2**20)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def former_code(commit: str, folder: Path) -> Path:
    """Write the backend of a former revision into a folder, and return its path."""
    command = ["git", "-C", str(PROJECT_DIR), "archive", commit, "backend"]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode != 0:
        raise BenchError(f"there is no commit {commit}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return folder / "backend"


def measure(options: Options, log: Callable[[str], None]) -> list[Run]:
    """Import everything, in turn."""
    settings = get_settings()
    server_url = settings.database_url or embedded.start(settings.data_dir / "bench" / "postgres")
    environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32), "LOG_LEVEL": "ERROR"}
    importing = Importing(server_url, environment)
    runs: list[Run] = []

    def add(name: str, path: Path, records: int, code: Path = BACKEND_DIR, again: str = "") -> None:
        for run in importing.run(name, path, records, code=code, again=again):
            runs.append(run)
            log(
                f"{run.name:<32} {run.rate:>8.0f}/s  {run.cpu_seconds / records * 1000:.2f} ms CPU"
                f"  {run.mib:.0f} MiB"
            )

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-imports-")))

        def posts() -> Iterator[Post]:
            return map(make_post, range(1, options.posts + 1))

        write_ndjson(folder / "posts.ndjson", posts())
        write_wordpress(folder / "posts.xml", posts())
        write_ghost(folder / "posts.json", posts())
        write_markdown(folder / "posts", posts())
        for number in range(options.rounds):
            log(f"round {number + 1} of {options.rounds}")
            add(NDJSON, folder / "posts.ndjson", options.posts)
            add(JOBS, folder / "posts.ndjson", options.posts)
            add(WORDPRESS, folder / "posts.xml", options.posts, again=AGAIN)
            if options.former:
                code = former_code(options.former, folder / "former")
                add(FORMER, folder / "posts.ndjson", options.posts, code)
            add(GHOST, folder / "posts.json", options.posts)
            add(MARKDOWN, folder / "posts", options.posts)
        if options.large_mib:
            path = folder / "large.xml"
            add(LARGE, path, write_large(path, options.large_mib))
    return runs


# --- the results

EXPLANATION: Final = (
    "Whole commands, from their start to their end. CPU and memory are those of the command's"
    " processes together, without PostgreSQL's. Memory is their proportional set size (PSS)."
)
HEADINGS: Final = ["what", "records", "per second", "CPU ms", "ratio to NDJSON", "MiB", "goal"]


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """Return a row for each name, with medians. A ratio is of two runs of one round."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    table = []
    for name, own in by_name.items():
        ratios = [run.rate / base.rate for run, base in zip(own, by_name[NDJSON], strict=False)]
        ratio = median(ratios)
        goals = [f"≤ {MAX_MIB} MiB"]
        if name == WORDPRESS:
            goals.insert(0, f"ratio ≥ {MIN_WORDPRESS:.2f}")
        if name == JOBS:
            goals.insert(0, f"ratio ≥ {MIN_JOBS:.1f}")
        if name == FORMER:
            goals = [f"ratio ≤ {1 / MIN_FORMER:.2f}"]
        table.append(
            [
                name,
                f"{own[0].records:,}",
                f"{median(run.rate for run in own):,.0f}",
                f"{median(run.cpu_seconds / run.records for run in own) * 1000:.2f}",
                "" if name == LARGE else f"{ratio:.2f}",
                f"{max(run.mib for run in own):.0f}",
                ", ".join(goals),
            ]
        )
    return table


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    options = parse_options(arguments)
    busy = psutil.cpu_percent(interval=2)
    runs = measure(options, lambda line: print(line, flush=True))
    table = rows(runs)
    print(f"\n{text_table(HEADINGS, table)}")
    if options.output is None:
        return
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(None, "embedded, durable"),
        "data": f"{options.posts:,} posts of 1.6 KB, {options.rounds} rounds; the large file"
        " has five media files and a revision of 100 KB for each post",
        "other load": f"{busy:.0f} % of all CPUs busy before anything was started",
    }
    if options.former:
        facts["former revision"] = options.former
    if options.note:
        facts["note"] = options.note
    section = "\n\n".join(
        [
            HEADING,
            "Written by `make bench ARGS=imports`.",
            "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
            markdown_table(HEADINGS, table),
            EXPLANATION,
        ]
    )
    write_section(options.output, HEADING, section)
    print(f"written: {options.output.name}")
