"""Images and the memory budget."""

from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import get_settings
from app.core.memory import MemoryBudget
from app.services.media import images, uploading
from tests.factories import bearer, create_user
from tests.images import exif, image_bytes

SIZE = (2000, 1500)


@pytest.fixture
def budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryBudget:
    """A budget for a JPEG of a quarter of SIZE."""
    monkeypatch.setattr(images, "BASE_BYTES", 0)
    monkeypatch.setattr(images, "ENCODING_BYTES_PER_PIXEL", {"jpg": 8, "png": 8})
    budget = MemoryBudget(tmp_path, total=SIZE[0] * SIZE[1] // 4 * 16)
    monkeypatch.setattr(uploading, "_memory_budget", lambda: budget)
    return budget


@pytest.mark.usefixtures("budget")
async def test_large_jpeg_is_decoded_at_a_smaller_size(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    headers = bearer(await create_user(session))
    for options in ({}, {"exif": exif(6)}):
        content = image_bytes("JPEG", size=SIZE, **options)
        response = await client.post("/media", files={"file": content}, headers=headers)
        assert response.status_code == 201, response.text
        media = response.json()
        assert sorted((media["width"], media["height"])) == [750, 1000]


@pytest.mark.usefixtures("budget")
async def test_other_large_image_is_refused_with_both_numbers(
    client: httpx.AsyncClient, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = bearer(await create_user(session))
    content = image_bytes("PNG", size=SIZE)
    response = await client.post("/media", files={"file": content}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_media")
    assert "needs 44 MB of memory, and this server has 11 MB" in response.json()["message"]
    small = image_bytes("PNG", size=(400, 300))
    assert (await client.post("/media", files={"file": small}, headers=headers)).status_code == 201


def test_budget_follows_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uploading._memory_budget() is None
    changed = get_settings().model_copy(update={"media_memory_bytes": 1000})
    monkeypatch.setattr(uploading, "get_settings", lambda: changed)
    budget = uploading._memory_budget()
    assert budget is not None
    assert budget.total == 1000


@pytest.mark.parametrize(
    ("options", "samples"),
    [({"progressive": True}, 1.5), ({"progressive": True, "subsampling": 0}, 3), ({}, 0)],
)
def test_progressive_jpeg_needs_memory_for_its_coefficients(
    options: dict[str, object], samples: float
) -> None:
    with Image.open(BytesIO(image_bytes("JPEG", size=SIZE, **options))) as image:
        assert images._coefficient_bytes(image) == SIZE[0] * SIZE[1] * samples * 2
