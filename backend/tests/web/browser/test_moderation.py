"""Moderation in Chromium: the queue with the keyboard, reports, and the media library."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.images import image_bytes
from tests.web.browser.conftest import Site, Visitor

if TYPE_CHECKING:
    from playwright.async_api import FilePayload

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script>"


async def hold_comments(site: Site, number: int) -> dict[str, Any]:
    """Let a reader comment and report on an article that holds comments; return the article."""
    api = site.api

    def act() -> dict[str, Any]:
        author = api.bearer(f"author{number}")
        article = {
            "title": f"On looms {number}",
            "content": "Text.",
            "published": True,
            "comment_policy": "held",
        }
        response = api.client.post("/articles", json=article, headers=author)
        assert response.status_code == 201, response.text
        created: dict[str, Any] = response.json()
        reader = api.bearer(f"reader{number}")
        for text in ("First", "Second", f"Third {HOSTILE}", "Fourth"):
            path = f"/articles/{created['id']}/comments"
            api.client.post(path, json={"content": text}, headers=reader).raise_for_status()
        path = f"/articles/{created['id']}/reports"
        report = {"reason": f"Advertising {HOSTILE}"}
        api.client.post(path, json=report, headers=reader).raise_for_status()
        return created

    return await asyncio.to_thread(act)


async def test_moderation_with_the_keyboard(site: Site, visitor: Visitor) -> None:
    await hold_comments(site, 1)
    page = visitor.page
    await visitor.sign_in(await site.create_user(role="editor"))
    await visitor.open("/studio/moderation")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("moderation-narrow", width=360)
    await visitor.screenshot("moderation")
    items = page.locator("[data-queue] > li")
    before = await items.count()
    assert before >= 4
    await items.nth(0).focus()
    await page.keyboard.press("j")
    assert "Second" in await page.locator("[data-queue] > li:focus").inner_text()
    await page.keyboard.press("a")
    await visitor.counts(".queued", before - 1)
    assert await page.inner_text("#flash") == "1 comment approved."
    assert "Third" in await page.locator("[data-queue] > li:focus").inner_text()
    await page.keyboard.press("x")
    await page.keyboard.press("k")
    await page.keyboard.press("x")
    assert await page.locator("[data-queue] :checked").count() == 2
    await page.click("#bulk button[value=hide]")
    await visitor.counts(".queued", before - 3)
    assert await page.inner_text("#flash") == "2 comments hidden."
    await page.keyboard.press("d")
    await page.click("dialog button[value=yes]")
    await visitor.counts("text=Fourth", 0)
    assert "1 comment deleted." in await page.inner_text("#flash")
    await page.click("text=Hidden comments")
    await page.wait_for_url("**/studio/moderation?status=hidden")
    await visitor.accessible()

    await page.click("text=Reports")
    await page.wait_for_url("**/studio/moderation/reports")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("reports-narrow", width=360)
    await visitor.screenshot("reports")
    await page.locator(".report-form select").first.select_option("resolved")
    await page.locator(".report-form button").first.click()
    await page.wait_for_selector("text=The report was saved.")


async def test_several_reports(site: Site, visitor: Visitor) -> None:
    for number in (3, 4, 5):
        await hold_comments(site, number)
    page = visitor.page
    await visitor.sign_in(await site.create_user(role="editor"))
    await visitor.open("/studio/moderation/reports")
    items = page.locator("[data-queue] > li")
    before = await items.count()
    await items.nth(0).focus()
    await page.keyboard.press("r")
    await visitor.counts(".queued", before - 1)
    assert await page.inner_text("#flash") == "1 report changed."
    await page.keyboard.press("x")
    await page.keyboard.press("j")
    await page.keyboard.press("x")
    await page.click("#bulk button[value=dismissed]")
    await visitor.counts(".queued", before - 3)
    assert await page.inner_text("#flash") == "2 reports changed."


async def test_media_library(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    visitor.expect_status(422)
    await visitor.sign_in(await site.create_user())
    await visitor.open("/studio/media")
    await visitor.accessible()
    picture: FilePayload = {
        "name": "a.jpg",
        "mimeType": "image/jpeg",
        "buffer": image_bytes(size=(1600, 900)),
    }
    await page.set_input_files("#file", [picture])
    await page.fill("#alt", "A loom")
    await page.click("#upload button")
    await page.wait_for_selector("text=The picture was uploaded.")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("picture-narrow", width=360)
    await visitor.screenshot("picture")
    await page.click("text=All media")
    several: list[FilePayload] = [
        {**picture, "name": "b.jpg", "buffer": image_bytes(size=(300, 600))},
        {**picture, "name": "broken.jpg", "buffer": b"broken"},
    ]
    await page.set_input_files("#file", several)
    await page.fill("#alt-0", "A tall loom")
    await page.fill("#alt-1", "Nothing")
    await visitor.accessible()
    await visitor.fits()
    await page.click("#upload button")
    await page.wait_for_selector("#uploads .failed")
    await visitor.counts(".pictures > li", 2)
    assert await page.locator('.pictures img[alt="A tall loom"]').count() == 1
    assert await page.is_hidden("#chosen")
    assert await page.is_visible("#alt")
    assert "Not an image" in await page.inner_text("#uploads")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("media-narrow", width=360)
    await visitor.screenshot("media")
    # Dropped pictures are described before they are uploaded.
    await page.evaluate(
        """(bytes) => {
            const transfer = new DataTransfer();
            for (const name of ["c.jpg", "d.jpg"]) {
                const options = { type: "image/jpeg" };
                transfer.items.add(new File([new Uint8Array(bytes)], name, options));
            }
            const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
            document.getElementById("upload-area").dispatchEvent(new DragEvent("drop", options));
        }""",
        list(image_bytes(size=(60, 40))),
    )
    assert await page.evaluate("document.activeElement.id") == "alt-0"
    await page.fill("#alt-1", "A small loom")
    await page.click("#upload button")
    await visitor.counts(".pictures > li", 4)
    assert await page.locator('.pictures img[alt="A small loom"]').count() == 1
    await page.check("#without_alt")
    await visitor.counts(".pictures > li", 1)
    await page.click(".pictures a")
    await page.click("text=Delete the picture")
    await page.click("dialog button[value=yes]")
    await page.wait_for_selector("text=The picture was deleted.")


class TestWithoutScripts:
    @pytest.fixture
    def browser_options(self) -> dict[str, Any]:
        return {"java_script_enabled": False, "locale": "de-DE"}

    async def test_moderation(self, site: Site, visitor: Visitor) -> None:
        await hold_comments(site, 2)
        await visitor.sign_in("author2")
        await visitor.open("/studio/moderation")
        page = visitor.page
        await page.check("[data-queue] > li:nth-child(1) .choice input")
        await page.check("[data-queue] > li:nth-child(2) .choice input")
        await page.click("#bulk button[value=approve]")
        assert await page.inner_text("#flash") == "2 Kommentare freigegeben."
        assert await page.locator("[data-queue] > li").count() == 2
