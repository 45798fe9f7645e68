"""Download of images from old sites, which may be hostile, broken or slow."""

import asyncio
import gzip
import ssl
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import pytest

from app.services.bulk.fetching import MAX_HEAD_BYTES, Fetcher, FetchLimits, NotFetched
from app.services.outgoing import is_public, resolve
from tests.bulk.sites import FAST, Flood, Names, local_fetcher, moved, response, serve
from tests.certificates import Certificates

MAX = 100_000
IMAGE = b"\x89PNG" + bytes(50)


async def refused(fetcher: Fetcher, url: str, path: Path) -> str:
    """Return why a file was not fetched."""
    with pytest.raises(NotFetched) as error:
        await fetcher.fetch(url, path, max_bytes=MAX)
    return str(error.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
            "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1",
            "::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1",
            "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
            "64:ff9b:1::101:101", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "168.63.129.16", "192.0.0.192", "192.88.99.1", "3fff::1", "::ffff:168.63.129.16",
            "64:ff9b::a83f:8110", "2002:a83f:8110::1",
        ],
    )  # fmt: skip
    def test_private_and_special_addresses_are_not_public(self, address: str) -> None:
        assert not is_public(ip_address(address))

    @pytest.mark.parametrize(
        "address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
    )
    def test_addresses_of_the_internet_are_public(self, address: str) -> None:
        assert is_public(ip_address(address))

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1",
            "[::ffff:127.0.0.1]",
        ],
    )  # fmt: skip
    async def test_no_spelling_of_this_machine_is_contacted(self, host: str, file: Path) -> None:
        async with serve({"/a.png": response(IMAGE)}) as site, Fetcher(FAST) as fetcher:
            reason = await refused(fetcher, f"http://{host}:{site.port}/a.png", file)
            assert reason.endswith("which is not public")
            assert site.connections == 0

    async def test_all_addresses_of_a_host_must_be_public(self, file: Path) -> None:
        names = Names(old_example=[["127.0.0.1", "10.0.0.1"]])
        async with serve({"/a.png": response(IMAGE)}) as site, local_fetcher(names) as fetcher:
            reason = await refused(fetcher, f"http://old.example:{site.port}/a.png", file)
            assert reason == "the host has the address 10.0.0.1, which is not public"
            assert site.connections == 0

    async def test_checked_address_is_the_one_that_is_contacted(self, file: Path) -> None:
        """DNS rebinding: the second answer of the name server would be a private address."""
        names = Names(old_example=[["127.0.0.1"], ["127.0.0.2"]])
        answers = {"/a.png": response(IMAGE, Connection="close")}
        async with (
            serve(answers) as site,
            serve(answers, host="127.0.0.2") as private,
            local_fetcher(names) as fetcher,
        ):
            url = f"http://old.example:{site.port}/a.png"
            await fetcher.fetch(url, file, max_bytes=MAX)
            assert (names.questions, site.connections) == (["old.example"], 1)
            assert site.headers["Host"] == f"old.example:{site.port}"
            assert (await refused(fetcher, url, file)).startswith(
                "the host has the address 127.0.0.2"
            )
            assert private.connections == 0

    @pytest.mark.parametrize(
        ("location", "reason"),
        [
            ("http://169.254.169.254/latest/meta-data/", "169.254.169.254, which is not public"),
            ("http://[::ffff:a9fe:a9fe]/", "which is not public"),
            ("http://inside.example/", "10.0.0.1, which is not public"),
            ("file:///etc/passwd", "not one of HTTP"),
            ("ftp://127.0.0.1/a.png", "not one of HTTP"),
            ("http://user:secret@127.0.0.1/", "contains a user name"),
            ("http://[/", "not valid"),
            ("http://127.0.0.1:99999/", "not valid"),
            ("", "redirects without a URL"),
            ("/loop", "more than 5 times"),
        ],
    )
    async def test_each_redirect_is_checked(self, location: str, reason: str, file: Path) -> None:
        names = Names(inside_example=[["10.0.0.1"]])
        answers = {"/a.png": moved(location), "/loop": moved("/loop")}
        async with serve(answers) as site, local_fetcher(names) as fetcher:
            url = f"http://127.0.0.1:{site.port}/a.png"
            assert (await refused(fetcher, url, file)).endswith(reason)

    async def test_redirects_are_followed(self, file: Path) -> None:
        names = Names(other_example=[["127.0.0.1"]])
        async with (
            serve({"/b%20%C3%A9.png": response(IMAGE)}) as other,
            serve({"/a.png": moved(f"http://other.example:{other.port}/b é.png")}) as site,
            local_fetcher(names) as fetcher,
        ):
            found = await fetcher.fetch(f"http://127.0.0.1:{site.port}/a.png", file, max_bytes=MAX)
            assert found.digest == sha256(IMAGE).digest()

    async def test_certificate_must_be_for_the_name(
        self, file: Path, certificates: Certificates
    ) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server)
        trusting = ssl.create_default_context(cafile=str(certificates.authority))
        names = Names(localhost=[["127.0.0.1"]], old_example=[["127.0.0.1"]])
        async with (
            serve({"/a.png": response(IMAGE)}, context=context) as site,
            local_fetcher(names, ssl_context=trusting) as fetcher,
        ):
            await fetcher.fetch(f"https://localhost:{site.port}/a.png", file, max_bytes=MAX)
            reason = await refused(fetcher, f"https://old.example:{site.port}/a.png", file)
            assert reason == "the certificate is not valid"


class TestFiles:
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (response(status="404 Not Found"), "the server answered 404"),
            (response(status="503 Busy"), "the server answered 503"),
            (response(b"<p>Not found</p>", kind="text/html"), "it is not an image, but text/html"),
            (response(b"%PDF", kind="application/pdf"), "it is not an image, but application/pdf"),
            (response(), "the file is empty"),
            (response(Content_Length=str(MAX + 1)), f"it is larger than {MAX} bytes"),
            (
                response(gzip.compress(bytes(10 * MAX)), Content_Encoding="gzip"),
                "the server sends it compressed (gzip)",
            ),
            (response(IMAGE, Content_Length="9999"), "the server closed the connection"),
            (b"HTTP/1.1 200 OK\r\nA: " + bytes(200_000), "the server closed the connection"),
            (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "the server closed the connection"),
            (b"", "the server closed the connection"),
        ],
    )
    async def test_wrong_answers_are_refused(self, answer: bytes, reason: str, file: Path) -> None:
        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await writer.drain()
            writer.close()

        async with serve({"/a.png": send}) as site, local_fetcher() as fetcher:
            assert await refused(fetcher, f"http://127.0.0.1:{site.port}/a.png", file) == reason

    @pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints"])
    async def test_interim_responses_are_bounded(self, status: str, file: Path) -> None:
        flood = Flood(status)
        async with serve({"/a.png": flood}) as site, local_fetcher() as fetcher:
            url = f"http://127.0.0.1:{site.port}/a.png"
            assert await refused(fetcher, url, file) == "the answer is too long"
        assert flood.sent < 500_000

    async def test_files_of_one_connection_may_be_large(self, file: Path) -> None:
        image = bytes(3 * MAX_HEAD_BYTES)
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        async with (
            serve({"/a.png": hint + response(image)}) as site,
            local_fetcher() as fetcher,
        ):
            url = f"http://127.0.0.1:{site.port}/a.png"
            for _ in range(3):
                fetched = await fetcher.fetch(url, file, max_bytes=len(image))
                assert fetched.digest == sha256(image).digest()
            assert site.connections == 1

    async def test_endless_file_ends_at_the_limit(self, file: Path) -> None:
        ended = asyncio.Event()

        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
                    await writer.drain()
            except ConnectionError:
                ended.set()
                raise

        async with serve({"/a.png": send}) as site, local_fetcher() as fetcher:
            reason = await refused(fetcher, f"http://127.0.0.1:{site.port}/a.png", file)
            assert reason == f"it is larger than {MAX} bytes"
            await ended.wait()

    @pytest.mark.parametrize("part", ["head", "body"])
    async def test_slow_server_has_a_deadline_for_the_whole_file(
        self, part: str, file: Path
    ) -> None:
        """Each byte arrives in time, but the file takes much longer than the limit."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n"

        async def drip(writer: asyncio.StreamWriter) -> None:
            writer.write(head if part == "head" else head + b"\r\n")
            for _ in range(500):
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.close()

        limits = FAST._replace(file_seconds=0.2, silence_seconds=30)
        async with serve({"/a.png": drip}) as site, local_fetcher(limits=limits) as fetcher:
            reason = await refused(fetcher, f"http://127.0.0.1:{site.port}/a.png", file)
            assert reason == "the file was not complete after 0.2 seconds"

    async def test_silent_server_is_given_up(self, file: Path) -> None:
        silent = asyncio.Event()

        async def wait(_: asyncio.StreamWriter) -> None:
            await silent.wait()

        limits = FAST._replace(silence_seconds=0.05, host_failures=2)
        async with serve({"/a.png": wait}) as site, local_fetcher(limits=limits) as fetcher:
            url = f"http://127.0.0.1:{site.port}/a.png"
            reasons = [await refused(fetcher, url, file) for _ in range(3)]
            assert reasons == [
                "the host does not answer",
                "the host does not answer",
                "the host does not answer: it was not asked again",
            ]
            assert site.connections == 2
            silent.set()

    async def test_missing_files_do_not_end_a_host(self, file: Path) -> None:
        limits = FAST._replace(host_failures=2)
        async with (
            serve({"/a.png": response(IMAGE)}) as site,
            local_fetcher(limits=limits) as fetcher,
        ):
            url = f"http://127.0.0.1:{site.port}"
            for _ in range(3):
                assert await refused(fetcher, f"{url}/b.png", file) == "the server answered 404"
            await fetcher.fetch(f"{url}/a.png", file, max_bytes=MAX)

    async def test_temporary_errors_are_tried_again(self, file: Path) -> None:
        limits = FAST._replace(attempts=3)
        busy = response(status="503 Busy")
        answers = {"/a.png": [busy, busy, response(IMAGE)], "/b.png": [busy]}
        async with serve(answers) as site, local_fetcher(limits=limits) as fetcher:
            url = f"http://127.0.0.1:{site.port}"
            await fetcher.fetch(f"{url}/a.png", file, max_bytes=MAX)
            assert await refused(fetcher, f"{url}/b.png", file) == "the server answered 503"
            assert site.requests == {"/a.png": 3, "/b.png": 3}

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (FAST._replace(files=1), "the limit of this import is reached: the next one continues"),
            (
                FAST._replace(total_bytes=10),
                "the limit of this import is reached: the next one continues",
            ),
            (
                FAST._replace(host_seconds=0),
                "the time limit of this host is reached: the next import continues",
            ),
        ],
    )
    async def test_limits_of_an_import(self, limits: FetchLimits, reason: str, file: Path) -> None:
        async with (
            serve({"/a.png": response(IMAGE)}) as site,
            local_fetcher(limits=limits) as fetcher,
        ):
            url = f"http://127.0.0.1:{site.port}/a.png"
            await fetcher.fetch(url, file, max_bytes=MAX)
            assert (await refused(fetcher, url, file)).startswith(reason)

    async def test_requests_at_the_same_time_are_limited(self, tmp_path: Path) -> None:
        running, most = 0, 0
        four, go_on = asyncio.Event(), asyncio.Event()

        async def send(writer: asyncio.StreamWriter) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 4:
                four.set()
            await go_on.wait()
            running -= 1
            writer.write(response(IMAGE))

        async with serve({"/a.png": send}) as site, local_fetcher() as fetcher:
            url = f"http://127.0.0.1:{site.port}/a.png"
            fetches = [
                asyncio.create_task(fetcher.fetch(url, tmp_path / str(number), max_bytes=MAX))
                for number in range(20)
            ]
            await four.wait()
            go_on.set()
            await asyncio.gather(*fetches)
            assert most == 4

    async def test_unknown_name_and_closed_port(self, file: Path) -> None:
        async with serve({}) as site:
            port = site.port
        async with local_fetcher() as fetcher:
            assert await refused(fetcher, f"http://127.0.0.1:{port}/", file) == "no connection"

        async def unknown(host: str, port: int) -> list[str]:
            raise OSError(-2, "Name or service not known")

        async with Fetcher(FAST, resolve=unknown) as fetcher:
            assert await refused(fetcher, "http://a.example/", file) == (
                "the name of the host is unknown"
            )

    async def test_names_are_resolved_by_the_system(self) -> None:
        assert "127.0.0.1" in await resolve("localhost", 80)
