"""The story of a writer: first article with a picture, conflicts, no network, calendar."""

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.images import image_bytes
from tests.web.browser.conftest import Site, Visitor

if TYPE_CHECKING:
    from playwright.async_api import Route

pytestmark = pytest.mark.browser

SAVED = "() => document.getElementById('save-status').textContent.startsWith('Saved')"


async def find_media(site: Site, visitor: Visitor) -> None:
    """Lead requests for media to the server: its settings do not have its port."""

    async def lead(route: "Route") -> None:
        await route.continue_(url=site.url + urlsplit(route.request.url).path)

    await visitor.page.route("http://localhost:8000/media/**", lead)


async def press_end(visitor: Visitor) -> None:
    await visitor.page.focus("#content")
    await visitor.page.keyboard.press("Control+End")


async def wait_until_saved(visitor: Visitor) -> None:
    await visitor.page.wait_for_function(SAVED)


async def write_draft(visitor: Visitor, title: str, content: str) -> str:
    """Write a draft, and return the path of its editor."""
    page = visitor.page
    await visitor.open("/studio/articles/new")
    await page.fill("#title", title)
    await page.fill("#content", content)
    await page.click("#save")
    await wait_until_saved(visitor)
    return page.url.removeprefix(visitor.site.url)


async def test_first_article(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    await find_media(site, visitor)
    await visitor.sign_in(await site.create_user())
    await visitor.open("/studio/articles")
    await visitor.accessible()
    await page.click("text=Write the first article")
    await page.fill("#title", "Notes on looms")
    await page.click("#content")

    # Formats, and lists that go on.
    await page.keyboard.type("They weave ")
    await page.keyboard.press("Control+b")
    await page.keyboard.type("patterns")
    await page.keyboard.press("Control+End")
    await page.keyboard.type("\n\n- [x] first\nsecond\n\n\nEnd\n")
    content = await page.input_value("#content")
    assert content == "They weave **patterns**\n\n- [x] first\n- [ ] second\n\nEnd\n"

    # A picture, with its description and the progress of the upload.
    async with page.expect_file_chooser() as chooser:
        await page.click('[data-format="picture"]')
    await (await chooser.value).set_files(
        {"name": "loom.jpg", "mimeType": "image/jpeg", "buffer": image_bytes()}
    )
    await page.fill("#picture-alt", "A loom [old]")
    await page.click("#picture-form button[value=upload]")
    await page.wait_for_function(
        "() => document.getElementById('content').value.includes('![A loom \\\\[old\\\\]](http')"
    )

    # The preview comes from the renderer of the server.
    await page.click('[data-view="preview"]')
    await page.wait_for_selector("#preview strong:text('patterns')")
    assert await page.get_attribute("#preview img", "alt") == "A loom [old]"
    await visitor.accessible()
    await page.click('[data-view="write"]')

    # Tags, with suggestions and chips.
    await page.fill("#tag-field", "Looms")
    await page.keyboard.press("Enter")
    assert await page.input_value("#tags") == "Looms"

    await page.fill("#tag-field", "a, b")
    await page.keyboard.press("Enter")
    await page.click(".tag-box li button")
    assert await page.input_value("#tags") == "a\nb"

    # The draft is saved without a click.
    await wait_until_saved(visitor)
    await page.wait_for_url("**/studio/articles/*/edit")
    assert await page.inner_text('.search-title[data-mirror="title"]') == "Notes on looms"
    assert await page.input_value("#slug") == "notes-on-looms"
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("editor")
    await page.click("text=Publish now")
    await page.wait_for_selector("#flash :text('The article is published.')")
    assert await page.is_hidden("#kept")


async def test_cover_has_a_description(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    await find_media(site, visitor)
    await visitor.sign_in(await site.create_user())
    await write_draft(visitor, "Notes on looms", "They weave patterns.")
    async with page.expect_file_chooser() as chooser:
        await page.click("text=Upload a cover")
    await (await chooser.value).set_files(
        {"name": "cover.jpg", "mimeType": "image/jpeg", "buffer": image_bytes()}
    )
    await page.fill("#picture-alt", "A weaver")
    await page.click("#picture-form button[value=upload]")
    await page.wait_for_selector(".share-card img:not([hidden])")
    await page.click("text=Publish now")
    await page.click("text=View on the site")
    assert await page.get_attribute(".cover img", "alt") == "A weaver"


async def test_revisions_and_preview_links(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    await visitor.sign_in(await site.create_user())
    await write_draft(visitor, "Notes on looms", "They weave **patterns**.\n\nThe end.")
    # Publishing waits for a running save, whose answer has the entity tag.
    await press_end(visitor)
    await page.keyboard.type(" Or not.")
    await page.keyboard.press("Control+s")
    await page.click("text=Publish now")
    await page.wait_for_selector("#flash :text('The article is published.')")
    await page.fill("#content", "Rewritten")
    await page.keyboard.press("Control+s")
    await wait_until_saved(visitor)
    await page.click("nav.tabs >> text=Revisions")
    await page.click("table a")
    await page.wait_for_selector("ins")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("revision")
    await page.click("text=Restore this version")
    await page.wait_for_selector("#flash :text('restored')")
    assert "patterns" in await page.input_value("#content")

    # A preview link.
    await page.click("nav.tabs >> text=Preview links")
    await page.click("text=Create a link")
    url = await page.input_value("#link")
    await visitor.accessible()
    await visitor.open(urlsplit(url).path)
    assert await page.inner_text("h1") == "Notes on looms"
    await visitor.accessible()
    await visitor.sizes("/studio/articles")
    await visitor.screenshot("articles")


async def test_two_windows(site: Site, visitor: Visitor) -> None:
    visitor.expect_status(412)
    await visitor.sign_in(await site.create_user())
    path = await write_draft(visitor, "Shared", "one\ntwo\nthree")
    other = Visitor(await visitor.page.context.new_page(), site)
    await other.open(path)
    await other.page.fill("#content", "one, changed there\ntwo\nthree")
    await other.page.keyboard.press("Control+s")
    await wait_until_saved(other)

    await visitor.page.fill("#content", "one\ntwo\nthree, mine")
    await visitor.page.keyboard.press("Control+s")
    await visitor.page.wait_for_selector("#conflict-dialog[open]")
    assert "in another window" in await visitor.page.inner_text("#conflict")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("conflict")
    assert await visitor.page.input_value("#merged") == "one, changed there\ntwo\nthree, mine"
    await visitor.page.click("text=Save the merged text")
    await visitor.page.wait_for_selector("#flash :text('The article was saved.')")
    assert await visitor.page.input_value("#content") == "one, changed there\ntwo\nthree, mine"
    assert await visitor.page.is_hidden("#kept")
    assert other.problems == []


async def test_without_network_and_session(site: Site, visitor: Visitor) -> None:
    visitor.expect_status(401, 403)
    page, context = visitor.page, visitor.page.context
    username = await site.create_user()
    await visitor.sign_in(username)
    path = await write_draft(visitor, "Kept", "First.")

    # Without a network, the text is kept; it is saved once the network is back.
    await context.set_offline(True)
    await press_end(visitor)
    await page.keyboard.type(" Typed offline.")
    await page.keyboard.press("Control+s")
    await page.wait_for_selector("#trouble-text:text('cannot be reached')")
    await visitor.accessible()
    await context.set_offline(False)
    await page.wait_for_function(SAVED)
    await page.wait_for_selector("#trouble", state="hidden")
    visitor.problems[:] = [each for each in visitor.problems if "INTERNET_DISCONNECTED" not in each]
    assert visitor.problems == []

    # The session ends while the writer types. After signing in again, the text is saved.
    await context.clear_cookies(name="pressroom")
    await press_end(visitor)
    await page.keyboard.type(" Typed without a session.")
    await page.keyboard.press("Control+s")
    await page.wait_for_selector("#trouble-text:text('Your session has ended')")
    other = Visitor(await context.new_page(), site)
    await other.sign_in(username)
    await other.page.close()
    await page.click("#trouble-retry")
    await wait_until_saved(visitor)

    # The browser is closed before anything was saved: the text is offered at the next visit.
    await press_end(visitor)
    await page.keyboard.type(" Typed at last.")
    kept = "Object.values(localStorage).some((each) => each.includes('Typed at last.'))"
    async with asyncio.timeout(10):
        while not await page.evaluate(kept):  # wait_for_function needs `unsafe-eval`
            pass
    await visitor.open("/studio")
    await visitor.open(path)
    await page.click("#kept-use")
    await wait_until_saved(visitor)
    await visitor.open(path)
    expected = "First. Typed offline. Typed without a session. Typed at last."
    assert await page.input_value("#content") == expected
    assert await page.is_hidden("#kept")


KEPT_TEXTS = "Object.keys(localStorage).filter((name) => name.startsWith('pressroom:text:')).length"


async def keep_a_text(visitor: Visitor) -> None:
    """Type into an empty editor, and wait until the browser has kept the text."""
    await visitor.open("/studio/articles/new")
    await visitor.page.fill("#content", "A secret text")
    async with asyncio.timeout(10):
        while not await visitor.page.evaluate(KEPT_TEXTS):
            pass


async def test_kept_text_belongs_to_its_user(site: Site, visitor: Visitor) -> None:
    page, username = visitor.page, await site.create_user()
    await visitor.sign_in(username)
    await keep_a_text(visitor)

    # The session ends without signing out. Another user of the browser never sees the text.
    await page.context.clear_cookies(name="pressroom")
    await visitor.sign_in(await site.create_user())
    own = await page.evaluate("Object.keys(localStorage).find((each) => each.endsWith(':new'))")
    await visitor.open("/studio/articles/new")
    key = await page.get_attribute("#editor", "data-key")
    assert own != f"pressroom:text:{key}"
    assert await page.is_hidden("#kept")
    # Not even if it is under the key of the other user.
    await visitor.open("/studio")
    copy = "([from, to]) => localStorage.setItem(to, localStorage.getItem(from))"
    await page.evaluate(copy, [own, f"pressroom:text:{key}"])
    await visitor.open("/studio/articles/new")
    assert await page.is_hidden("#kept")
    await page.click("text=Sign out")
    await page.click("dialog[open] >> text=Continue")
    await page.wait_for_url("**/studio/sign-in")

    # The first user finds the text. It is deleted by signing out, after a question.
    await visitor.sign_in(username)
    await visitor.open("/studio/articles/new")
    await page.click("#kept-use")
    assert await page.input_value("#content") == "A secret text"
    await page.click("text=Sign out")
    await page.wait_for_selector("dialog[open] :text('was not saved')")
    await visitor.accessible()
    await page.click("dialog[open] >> text=Cancel")
    assert await page.evaluate(KEPT_TEXTS) > 0
    await page.click("text=Sign out")
    await page.click("dialog[open] >> text=Continue")
    await page.wait_for_url("**/studio/sign-in")
    assert await page.evaluate(KEPT_TEXTS) == 0


async def test_calendar(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    await visitor.sign_in(await site.create_user())
    await write_draft(visitor, "Scheduled", "Later.")
    await page.click("summary")
    assert "Europe/Berlin" in await page.inner_text("#publish_on-hint")
    await page.fill("#publish_on", "2099-05-14T00:30")
    await page.click("button[value=schedule]")
    await page.wait_for_selector("#flash :text('The article is scheduled.')")
    assert await page.input_value("#publish_on") == "2099-05-14T00:30"

    # Half past midnight in Berlin is a day earlier in UTC.
    await visitor.open("/studio/calendar?month=2099-05")
    day = "td[data-day='2099-05-{}'] >> text=Scheduled"
    await page.wait_for_selector(day.format("14"))
    assert "Time zone: Europe/Berlin." in await page.inner_text("#calendar")
    await page.context.clear_cookies(name="pressroom-zone")
    await visitor.open("/studio/calendar?month=2099-05")
    await page.wait_for_selector(day.format("14"))
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("calendar")
    await page.drag_and_drop("[data-article]", "td[data-day='2099-05-20']")
    await page.wait_for_selector(day.format("20"))
    await page.click("a.move")
    assert await page.input_value("#time") == "00:30"
    await page.fill("#day", "2099-05-21")
    await visitor.accessible()
    await page.click("main button")
    await page.wait_for_selector(day.format("21"))


async def test_dropped_and_pasted_pictures(site: Site, visitor: Visitor) -> None:
    visitor.expect_status(422)
    page = visitor.page
    await find_media(site, visitor)
    await visitor.sign_in(await site.create_user())
    await visitor.open("/studio/articles/new")
    await page.fill("#content", "Text")
    for kind, files in (("paste", 1), ("drop", 2)):
        await page.evaluate(
            """([kind, bytes, count]) => {
                const transfer = new DataTransfer();
                for (let number = 0; number < count; number += 1) {
                    const name = `picture${number}.jpg`;
                    const options = { type: "image/jpeg" };
                    transfer.items.add(new File([new Uint8Array(bytes)], name, options));
                }
                const event = kind === "paste"
                    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
                    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
                document.getElementById("content").dispatchEvent(event);
            }""",
            [kind, list(image_bytes()), files],
        )
        for number in range(files):
            await page.wait_for_selector("#picture-dialog[open]")
            await page.fill("#picture-alt", f"{kind} {number}")
            await page.keyboard.press("Enter")
            await page.wait_for_function(
                "(alt) => document.getElementById('content').value.includes(`![${alt}](`)",
                arg=f"{kind} {number}",
            )
    # Other files are refused with a reason, and the browser does not open them.
    is_left = await page.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["no picture"], "notes.txt", { type: "text/plain" }));
            const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
            return document.getElementById("content").dispatchEvent(new DragEvent("drop", options));
        }"""
    )
    assert not is_left
    await page.click("#picture-form button[value=upload]")
    await page.wait_for_selector("#uploads .notice:text('Not an image')")
    await visitor.accessible()


async def test_deleted_meanwhile(site: Site, visitor: Visitor) -> None:
    visitor.expect_status(404)
    page = visitor.page
    await visitor.sign_in(await site.create_user())
    path = await write_draft(visitor, "Deleted", "Text.")
    other = Visitor(await page.context.new_page(), site)
    await other.open(path)
    await other.page.click("text=Move to trash")
    await other.page.click("dialog[open] >> text=Continue")
    await other.page.wait_for_url("**/studio/articles")
    await other.accessible()
    assert other.problems == []
    await press_end(visitor)
    await page.keyboard.type(" Kept.")
    await page.keyboard.press("Control+s")
    await page.wait_for_selector("#trouble-text:text('Someone has deleted this article')")
    await page.click("#trouble-retry")
    await page.wait_for_selector("h1:text('This article is gone')")
    await visitor.accessible()
    await page.click("text=Save as a new article")
    await page.wait_for_selector("#flash :text('The article was saved.')")
    assert await page.input_value("#content") == "Text. Kept."
    await visitor.open("/studio/trash")
    await visitor.accessible()
    await visitor.fits()
    await page.click("text=Restore")
    await page.wait_for_selector("#flash :text('The article is restored.')")


class TestWithoutScripts:
    @pytest.fixture
    def browser_options(self) -> dict[str, Any]:
        return {"java_script_enabled": False, "locale": "de-DE"}

    async def test_write_and_publish(self, site: Site, visitor: Visitor) -> None:
        page = visitor.page
        await visitor.sign_in(await site.create_user())
        await visitor.open("/studio/articles/new")
        await visitor.screenshot("editor-without-scripts")
        await page.fill("#title", "Ohne Skripte")
        await page.fill("#content", "Es geht **auch so**.")
        await page.fill("#tags", "Webstuhl\nSpitze")
        await page.click("text=Jetzt veröffentlichen")
        assert await page.inner_text("#flash") == "Der Artikel ist veröffentlicht."
        await visitor.open("/studio/articles")
        assert await page.inner_text(".article-list h2") == "Ohne Skripte"
