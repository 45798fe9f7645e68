"""Write the screenshots of docs/pages.md to docs/images. For `make screenshots`.

Runs with the Python in .venv, and requires Chromium. A server is started with a database of its
own, as for the tests with a browser. An example blog fills it.
"""

from __future__ import annotations

import io
import math
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from app.core import clock
from app.core.config import PROJECT_DIR
from tests.browsers import ARGUMENTS, find_browser
from tests.databases import application_url, execute, migrated_database, server_url
from tests.e2e.conftest import copy_backend
from tests.processes import PASSWORD, Api, Checkout, free_port, serving

IMAGES = PROJECT_DIR / "docs" / "images"
MAX_BYTES = 150_000
SIZE = (1280, 800)
COLORS = 256

ADMINISTRATOR = "nora"
WRITER = "tomas"
USERS = {
    ADMINISTRATOR: "Nora Vale",
    WRITER: "Tomas Reed",
    "ines": "Ines Costa",
    "yuki": "Yuki Mori",
    "paul": "Paul Adeyemi",
}
PAGES = {
    "calendar": "/studio/calendar",
    "moderation": "/studio/moderation",
    "media": "/studio/media",
    "administration": "/studio/admin",
    "account": "/studio/account",
}
"""Pages that need no step after they are opened."""

ARTICLES = (
    # title, excerpt, author, days from today, tags
    (
        "The harbour at first light",
        "Why the hour before breakfast is the best one at the quay.",
        ADMINISTRATOR,
        -1,
        ("Featured", "Harbour", "Walks"),
    ),
    (
        "How to read a tide table",
        "Two numbers and a time of day tell when the beach is wide.",
        WRITER,
        -4,
        ("Featured", "Tides"),
    ),
    (
        "A walk along the breakwater",
        "Forty minutes, one lamp, and a bench out of the wind.",
        ADMINISTRATOR,
        -8,
        ("Walks", "Harbour"),
    ),
    (
        "What the fishing boats bring home",
        "Mackerel in summer, cod in winter, and stories all year.",
        WRITER,
        -13,
        ("Featured", "Boats"),
    ),
    (
        "Three knots for every day",
        "They hold a boat, a parcel and a washing line.",
        WRITER,
        -19,
        ("Boats",),
    ),
    (
        "The lamp on the hill",
        "It has shown the way since the first ferry.",
        ADMINISTRATOR,
        -26,
        ("Harbour",),
    ),
    (
        "Fog, and how to wait for its end",
        "What to do when the sea is grey and so is the sky.",
        WRITER,
        1,
        ("Weather",),
    ),
    (
        "The winter timetable of the ferry",
        "Fewer crossings, and the last one is earlier.",
        ADMINISTRATOR,
        4,
        ("Boats",),
    ),
)
DRAFT = "Oysters at low tide"
PICTURES = (
    ("The harbour in the morning sun", ("#f6c89f", "#7fb3c8"), 0.72),
    ("A calm sea below a pale sky", ("#cfe3ec", "#4e8aa8"), 0.3),
    ("The bay in the evening", ("#e79a7b", "#5d4f7c"), 0.55),
    ("Hills behind the bay", ("#dfe9c9", "#5d8f72"), 0.4),
    ("Blue hour at the breakwater", ("#8fa8d6", "#27406b"), 0.8),
    ("", ("#f3e3b3", "#b0705a"), 0.2),
)
"""Alternative text, colors of the sky and the sea, and the place of the sun from 0 to 1."""
TEXT = """The first boats leave before the street lamps go out. Whoever wants to see them needs warm
gloves, a **thermos** and a place out of the wind.

## Where to stand

The best place is the end of the breakwater. The light comes from the left, and the water is calm:

- until seven, the quay belongs to the gulls
- at half past seven, the *ferry* turns in front of the lamp
- at eight, the market opens

![{alt}]({url})

## What to bring

> A harbour is never finished. It is only quiet for a while.

| thing | why |
|:------|:----|
| gloves | the railing is cold |
| tide table | the steps are wet at high tide |

## On the way back

The bakery behind the church opens at six. Ask for the bread with seeds.
"""
COMMENTS = (
    ("ines", "I was there on Sunday. The ferry was late, and the light was worth it."),
    ("yuki", "Which side of the breakwater is open in winter?"),
    ("paul", "Thank you for the tip with the bakery!"),
)
HELD = (
    ("paul", "Is there a tide table for the whole year?"),
    ("yuki", "The second example helped me. At our beach, the water comes an hour later."),
    ("ines", "Cheap watches, today only: write to me."),
)


def picture(sky: str, sea: str, sun: float) -> bytes:
    """Draw a bay as a JPEG. `sun`: its place from left to right, from 0 to 1."""
    width, height = 1600, 900
    image = Image.new("RGB", (width, height), sky)
    draw = ImageDraw.Draw(image)
    x, y = round(width * sun), 300
    draw.ellipse((x - 90, y - 90, x + 90, y + 90), fill="#fff4d6")
    nearest = Image.new("RGB", (1, 1), sea)
    for layer in range(5):
        shade = Image.blend(Image.new("RGB", (1, 1), sky), nearest, (layer + 1) / 5)
        base = 380 + layer * 110
        line = [
            (at, base + 46 * math.sin(at / (260 - layer * 30) + layer * 2 + sun * 9))
            for at in range(0, width + 20, 20)
        ]
        draw.polygon([*line, (width, height), (0, height)], fill=shade.getpixel((0, 0)))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


class Blog:
    """The example blog, which is written with the API."""

    def __init__(self, api: Api, database: str) -> None:
        self._client = api.client
        self._headers: dict[str, dict[str, str]] = {}
        for username, name in USERS.items():
            self._register(username, name)
        execute(database, "UPDATE users SET role = 'admin' WHERE username = 'nora'")
        for username in USERS:
            token = api.log_in(username).raise_for_status().json()["access_token"]
            self._headers[username] = {"Authorization": f"Bearer {token}"}
        self._pictures = [self._upload(*each) for each in PICTURES]

    def write(self) -> tuple[str, str]:
        """Write everything; return the paths of an article and of a draft's editor."""
        articles = [
            self._write(number, title, author, tags, excerpt=excerpt, days=days)
            for number, (title, excerpt, author, days, tags) in enumerate(ARTICLES)
        ]
        draft = self._write(3, DRAFT, ADMINISTRATOR, ("Tides", "Food"))
        self._comment(articles[0]["id"], COMMENTS)
        self._comment(articles[1]["id"], HELD)
        report = {"reason": "This is advertising."}
        self._post(f"/articles/{articles[4]['id']}/reports", report, "ines")
        profile = {
            "bio": "I write about the harbour, its boats and the weather.",
            "image_url": self._pictures[0],
        }
        headers = self._headers[ADMINISTRATOR]
        self._client.patch("/users/me", json=profile, headers=headers).raise_for_status()
        return f"/read/articles/{articles[0]['slug']}", f"/studio/articles/{draft['id']}/edit"

    def _register(self, username: str, name: str) -> None:
        account = {
            "email": f"{username}@example.com",
            "username": username,
            "name": name,
            "password": PASSWORD,
        }
        self._client.post("/users", json=account).raise_for_status()

    def _upload(self, alt: str, colors: tuple[str, str], sun: float) -> str:
        files = {"file": (f"{uuid4()}.jpg", picture(*colors, sun), "image/jpeg")}
        response = self._client.post(
            "/media", files=files, data={"alt": alt}, headers=self._headers[ADMINISTRATOR]
        )
        url: str = response.raise_for_status().json()["url"]
        return url

    def _write(
        self,
        number: int,
        title: str,
        author: str,
        tags: Sequence[str],
        *,
        excerpt: str | None = None,
        days: int | None = None,
    ) -> dict[str, Any]:
        """Write an article. `days`: its publication, in days from today; None for a draft."""
        place = number % (len(PICTURES) - 1)
        cover = self._pictures[place]
        inside = (place + 1) % (len(PICTURES) - 1)
        new: dict[str, Any] = {
            "title": title,
            "content": TEXT.format(alt=PICTURES[inside][0], url=self._pictures[inside]),
            "tags": list(tags),
            "excerpt": excerpt,
            "cover_image_url": cover,
            "comment_policy": "held" if number == 1 else "open",
        }
        if days is not None:
            morning = clock.now().replace(hour=7, minute=30, second=0, microsecond=0)
            new["published_at"] = (morning + timedelta(days=days)).isoformat()
        created: dict[str, Any] = self._post("/articles", new, author).json()
        return created

    def _comment(self, article_id: int, comments: Sequence[tuple[str, str]]) -> None:
        for username, content in comments:
            self._post(f"/articles/{article_id}/comments", {"content": content}, username)

    def _post(self, path: str, content: dict[str, Any], username: str) -> httpx.Response:
        return self._client.post(
            path, json=content, headers=self._headers[username]
        ).raise_for_status()


def take(page: Page, name: str) -> None:
    """Store what the page shows, with few colors, as a PNG. Fails if it is too large."""
    page.wait_for_load_state("networkidle")
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / f"{name}.png"
    taken.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(PROJECT_DIR)}  {size // 1000} kB")
    if size >= MAX_BYTES:
        raise ValueError(f"{path.name} has {size} bytes; at most {MAX_BYTES} are allowed")


def visit(page: Page, url: str, *, article: str, editor: str) -> None:
    """Open the pages as a reader and as an administrator, and store what they show."""
    page.goto(f"{url}/read")
    take(page, "home")
    page.goto(f"{url}{article}")
    page.evaluate("scrollTo(0, 560)")  # below most of the cover
    take(page, "article")
    page.goto(f"{url}/studio/sign-in")
    page.fill("#username", ADMINISTRATOR)
    page.fill("#password", PASSWORD)
    page.click("#sign-in button")
    page.wait_for_url("**/studio")
    page.goto(f"{url}{editor}")
    page.click('[data-view="both"]')
    page.wait_for_selector("#preview h2")
    take(page, "editor")
    for name, path in PAGES.items():
        page.goto(f"{url}{path}")
        if name == "calendar":
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
        take(page, name)


def main() -> int:
    """Return 0, or 1 without Chromium."""
    executable = find_browser()
    if executable is None:
        print("Chromium is required, for example from `apt-get install chromium`", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    server_url()  # starts an event loop, which is not possible inside another one
    with tempfile.TemporaryDirectory() as folder, migrated_database() as database:
        checkout = Checkout(directory=Path(folder) / "backend", logs=Path(folder))
        copy_backend(checkout.directory)
        settings = {
            "DATABASE_URL": application_url(database),
            "PORT": str(free_port()),
            "SITE_TITLE": "Harbour Notes",
            "SITE_DESCRIPTION": "Walks, tides and small boats",
        }
        with serving(checkout, **settings) as api:
            article, editor = Blog(api, database).write()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
                width, height = SIZE
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme="light",
                    locale="en-US",
                    reduced_motion="reduce",
                )
                # On `localhost`, Chromium accepts Secure cookies.
                url = api.url.replace("127.0.0.1", "localhost")
                visit(page, url, article=article, editor=editor)
                browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
