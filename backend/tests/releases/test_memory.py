"""The stack at the smallest documented size, with uploads of the largest images."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import pytest
from PIL import Image

from tests.edge.stack import Stack, register
from tests.processes import free_port

SMALLEST = {"BACKEND_MEMORY": "400m", "DB_MEMORY": "256m", "NGINX_MEMORY": "320m"}
SIZE = (8000, 6000)


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def small(request: pytest.FixtureRequest) -> Iterator[Stack]:
    settings = {**SMALLEST, "WEB_CONCURRENCY": request.param, "EDGE_CACHE_TMPFS": "128m"}
    stack = Stack(free_port(), settings)
    with stack.project.running():
        yield stack


def photograph(kind: str, **options: object) -> bytes:
    """Return an image of 48 megapixels with noise, as a camera takes it."""
    noise = Image.effect_noise((1000, 750), 60).resize(SIZE, Image.Resampling.BILINEAR)
    image = Image.merge("RGB", (noise, noise.transpose(Image.Transpose.ROTATE_180), noise))
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def upload(stack: Stack, headers: dict[str, str], content: bytes) -> httpx.Response:
    with stack.client(headers=headers) as client:
        client.timeout = httpx.Timeout(120)
        return client.post("/media", files={"file": content})


def test_images_of_48_megapixels_end_no_worker(small: Stack) -> None:
    with small.client() as client:
        users = [register(client) for _ in range(2)]
    photo = photograph("JPEG", quality=80)
    progressive = photograph("JPEG", quality=60, progressive=True)
    webp = photograph("WEBP", quality=50, method=0)
    for contents, statuses in (
        ([photo, photo], {201}),
        ([progressive, webp], {201, 422}),  # refused if the memory does not suffice
        ([webp, photo, progressive, photo], {201, 422}),
    ):
        with ThreadPoolExecutor(len(contents)) as threads:
            jobs = [
                threads.submit(upload, small, users[number % 2], content)
                for number, content in enumerate(contents)
            ]
        responses = [job.result() for job in jobs]
        for response in responses:
            print(response.status_code, response.text[:200], response.elapsed)
        show_memory(small)
        assert {response.status_code for response in responses} <= statuses
    assert "signal 9" not in small.project.output("logs", "backend")


def show_memory(stack: Stack) -> None:
    """Print the peak of the container's memory, and require that no process was killed."""
    files = "memory.peak memory.events memory/memory.max_usage_in_bytes memory/memory.oom_control"
    command = f"cd /sys/fs/cgroup && cat {files} 2>/dev/null; true"  # versions 2 and 1
    peak, *events = stack.project.output("exec", "-T", "backend", "sh", "-c", command).splitlines()
    print(f"peak {int(peak) // 2**20} MB", events)
    assert "oom_kill 0" in events
