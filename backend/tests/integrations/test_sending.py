"""Receivers that hang, drip, send too much, redirect, lie about their address or speak no HTTP."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import standardwebhooks
from standardwebhooks import WebhookVerificationError

from app.core import clock
from app.services.integrations.sending import (
    ANSWER_BYTES,
    MAX_RECEIVED_BYTES,
    SECONDS,
    Outcome,
    Sender,
)
from app.services.integrations.signing import new_secret, signed_headers
from tests.bulk.sites import Flood, Names
from tests.certificates import Certificates
from tests.integrations.receivers import OK, Receiver, local_sender, receiving

BODY = b'{"type":"test"}'
HEADERS = {"webhook-id": "msg_1"}
NOT_PUBLIC = "the host is unknown, or has an address that is not public"


async def send(url: str, sender: Sender | None = None) -> Outcome:
    async with sender or local_sender() as opened:
        return await opened.send(url, BODY, HEADERS)


async def answering(answer: bytes) -> Outcome:
    async with receiving() as receiver:
        receiver.answer = answer
        return await send(receiver.url)


class TestAnswers:
    async def test_message_arrives(self) -> None:
        async with receiving() as receiver:
            outcome = await send(receiver.url)
        assert outcome[1:] == (200, None, "ok")
        (message,) = receiver.messages
        assert (message.path, message.body) == ("/hook", BODY)
        assert message.headers["content-type"] == "application/json"
        assert message.headers["user-agent"].startswith("Pressroom/")

    @pytest.mark.parametrize(
        "path", ["//hook", "///", "/a//b?c=//d", "/a;b=c", "/%2e%2e/%0d%0a", "/?a?b", "/:@", "/.."]
    )
    async def test_path_is_sent_as_it_is(self, path: str) -> None:
        async with receiving() as receiver:
            url = receiver.url.removesuffix("/hook")
            assert (await send(url + path)).error is None
        (message,) = receiver.messages
        assert message.path == path

    @pytest.mark.parametrize("status", [200, 201, 204, 299])
    async def test_success(self, status: int) -> None:
        empty = "" if status == 204 else "Content-Length: 0\r\n"
        outcome = await answering(f"HTTP/1.1 {status} Fine\r\n{empty}\r\n".encode())
        assert (outcome.status, outcome.error) == (status, None)

    @pytest.mark.parametrize("status", [300, 304, 400, 404, 410, 500, 503])
    async def test_failure(self, status: int) -> None:
        empty = "" if status == 304 else "Content-Length: 0\r\n"
        outcome = await answering(f"HTTP/1.1 {status} No\r\n{empty}\r\n".encode())
        assert outcome.status == status
        assert outcome.error is not None

    @pytest.mark.parametrize(
        "location",
        ["http://169.254.169.254/latest/meta-data/", "http://127.0.0.1/", "//[::1]/", "file:///"],
    )
    async def test_redirects_are_not_followed(self, location: str) -> None:
        async with receiving() as receiver:
            head = f"HTTP/1.1 307 Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            receiver.answer = head.encode()
            outcome = await send(receiver.url)
            assert receiver.connections == 1
        assert outcome.error == "the receiver redirects (307): redirects are not followed"

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"220 mail.example.com ESMTP\r\n\r\n",
            b"\x00\x01\x02\x03\r\n\r\n",
            b"HTTP/1.1 200\x00 OK\r\n\r\n",
            b"HTTP/1.1 OK 200\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
        ],
    )
    async def test_answers_that_are_not_http(self, answer: bytes) -> None:
        async def write(writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

        async with receiving() as receiver:
            receiver.answer = write
            outcome = await send(receiver.url)
        assert (outcome.status, outcome.error) == (
            None,
            "the answer is not HTTP, or the server closed the connection",
        )

    async def test_answer_is_stored_as_text(self) -> None:
        outcome = await answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\x00a\x1b[1m\xff\xc3\xa9"
        )
        assert outcome.answer == "\ufffda\ufffd[1m\ufffdé"

    async def test_only_the_beginning_of_an_endless_answer_is_read(self) -> None:
        sent = 0
        ended = asyncio.Event()

        async def flood(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
            try:
                while sent < 1024**3:
                    writer.write(b"x" * 65536)
                    sent += 65536
                    await writer.drain()
            finally:
                ended.set()

        async with receiving() as receiver:
            receiver.answer = flood
            outcome = await send(receiver.url)
            await ended.wait()
        assert (outcome.error, outcome.answer) == (None, "x" * ANSWER_BYTES)
        assert sent < 100 * 1024**2

    @pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints"])
    async def test_interim_responses_are_bounded(self, status: str) -> None:
        flood = Flood(status)
        async with receiving() as receiver:
            receiver.answer = flood
            outcome = await send(receiver.url, local_sender(seconds=5.0))
        assert outcome.error == "the answer is too long"
        assert flood.sent < 500_000

    async def test_interim_responses_are_skipped(self) -> None:
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        outcome = await answering(b"HTTP/1.1 100 Continue\r\n\r\n" + 3 * hint + OK)
        assert (outcome.status, outcome.error) == (200, None)

    async def test_answers_of_one_connection_are_bounded_each(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 900
        count = MAX_RECEIVED_BYTES // len(answer) + 2
        async with receiving() as receiver, local_sender() as sender:
            receiver.answer = answer
            for _ in range(count):
                assert (await sender.send(receiver.url, BODY, HEADERS)).error is None
            assert receiver.connections == 1


class TestTime:
    @pytest.mark.parametrize(
        "beginning",
        [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        ],
    )
    async def test_receiver_that_hangs(self, beginning: bytes) -> None:
        async def hang(writer: asyncio.StreamWriter) -> None:
            writer.write(beginning)
            await asyncio.Event().wait()

        async with receiving() as receiver:
            receiver.answer = hang
            outcome = await send(receiver.url, local_sender(seconds=0.2))
        assert outcome.error == "no complete answer within 0.2 seconds"

    async def test_receiver_that_drips(self) -> None:
        """Each byte comes in time, but all of them do not."""

        async def drip(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

        async with receiving() as receiver:
            receiver.answer = drip
            outcome = await send(receiver.url, local_sender(seconds=0.2))
        assert outcome.error == "no complete answer within 0.2 seconds"

    async def test_receiver_that_reads_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/"
            async with local_sender(seconds=0.2) as sender:
                outcome = await sender.send(url, b"x" * 10_000_000, HEADERS)
        assert outcome.error == "no complete answer within 0.2 seconds"

    async def test_name_server_that_hangs(self) -> None:
        async def resolve(host: str, port: int) -> list[str]:
            await asyncio.Event().wait()
            return [host]

        outcome = await send("http://slow.example/", local_sender(seconds=0.2, resolve=resolve))
        assert outcome.error == "no complete answer within 0.2 seconds"

    def test_limit_is_ten_seconds(self) -> None:
        assert SECONDS == 10


class TestAddresses:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1",
            "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "169.254.169.254", "10.0.0.1",
        ],
    )  # fmt: skip
    async def test_private_addresses_are_not_contacted(self, host: str) -> None:
        async with receiving() as receiver:
            port = receiver.url.rpartition(":")[2].partition("/")[0]
            outcome = await send(f"http://{host}:{port}/", Sender(connections=1))
            assert receiver.connections == 0
        assert outcome.error == NOT_PUBLIC

    async def test_second_answer_of_the_name_server_is_checked_too(self) -> None:
        """DNS rebinding: the name has a public address first, and a private one afterwards."""
        names = Names(hook_example=[["127.0.0.1"], ["127.0.0.2"]])
        async with receiving(name="hook.example") as receiver, receiving(host="127.0.0.2") as other:
            receiver.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            async with local_sender(names) as sender:
                first = await sender.send(receiver.url, BODY, HEADERS)
                second = await sender.send(receiver.url, BODY, HEADERS)
            assert (receiver.connections, other.connections) == (1, 0)
        assert first.error is None
        assert second.error == NOT_PUBLIC
        assert names.questions == ["hook.example"] * 2

    async def test_one_private_address_is_enough(self) -> None:
        names = Names(hook_example=[["127.0.0.1", "10.0.0.1"]])
        outcome = await send("http://hook.example/", local_sender(names))
        assert outcome.error == NOT_PUBLIC

    async def test_names_of_the_network_cannot_be_looked_up(self) -> None:
        """A name that exists, and one that does not, have the same result, without an address."""
        names = Names(db=[["10.0.0.1"]], empty=[[]])
        outcomes = [await send(f"http://{name}/", local_sender(names)) for name in ("db", "empty")]
        unknown = await send("http://name.invalid/", Sender(connections=1))
        assert {outcome.error for outcome in (*outcomes, unknown)} == {NOT_PUBLIC}

    @pytest.mark.parametrize(
        "url",
        [
            "http://user:pass@127.0.0.1/", "http://[/", "http://127.0.0.1:99999/",
            "http://127.0.0.1:0/", "ftp://127.0.0.1/",
        ],
    )  # fmt: skip
    async def test_urls_that_are_refused(self, url: str) -> None:
        assert (await send(url)).error is not None

    async def test_nobody_listens(self) -> None:
        async with receiving() as receiver:
            url = receiver.url
        assert (await send(url)).error == "no connection"


class TestCertificates:
    @staticmethod
    def serving(certificates: Certificates) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server)
        return context

    async def test_certificate_must_be_valid(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trusting = ssl.create_default_context(cafile=str(certificates.authority))
        names = Names(localhost=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
        async with receiving(context=self.serving(certificates), name="localhost") as receiver:
            valid = await send(receiver.url, local_sender(names, ssl_context=trusting))
            unknown = await send(receiver.url, local_sender(names))
            url = receiver.url.replace("localhost", "other.example")
            wrong_name = await send(url, local_sender(names, ssl_context=trusting))
            assert len(receiver.messages) == 1
        assert valid.error is None
        assert unknown.error == wrong_name.error == "the certificate is not valid"

    async def test_expired_certificate(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        old = Certificates(tmp_path_factory.mktemp("old"), age=timedelta(days=30))
        trusting = ssl.create_default_context(cafile=str(old.authority))
        names = Names(localhost=[["127.0.0.1"]])
        async with receiving(context=self.serving(old), name="localhost") as receiver:
            outcome = await send(receiver.url, local_sender(names, ssl_context=trusting))
            assert receiver.messages == []
        assert outcome.error == "the certificate is not valid"

    async def test_plain_text_at_a_tls_address(self) -> None:
        async with receiving() as receiver:
            url = receiver.url.replace("http:", "https:")
            outcome = await send(url, local_sender(seconds=0.2))
        assert outcome.error == "no complete answer within 0.2 seconds"


class TestSignatures:
    @staticmethod
    def signed(body: bytes, *secrets: str, moment: datetime | None = None) -> dict[str, str]:
        moment = moment or clock.now()
        headers = signed_headers(body, message_id=uuid4(), moment=moment, signed_with=secrets)
        return dict(headers)

    def test_library_accepts_the_signature(self) -> None:
        secret = new_secret()
        body = '{"title":"Größe 背景"}'.encode()
        assert secret.startswith("whsec_")
        verified = standardwebhooks.Webhook(secret).verify(body, self.signed(body, secret))
        assert verified == {"title": "Größe 背景"}

    def test_both_secrets_sign_while_rotating(self) -> None:
        secrets = [new_secret(), new_secret()]
        headers = self.signed(BODY, *secrets)
        for secret in secrets:
            standardwebhooks.Webhook(secret).verify(BODY, headers)
        with pytest.raises(WebhookVerificationError):
            standardwebhooks.Webhook(new_secret()).verify(BODY, headers)

    def test_forged_and_replayed_messages_are_refused(self) -> None:
        secret = new_secret()
        receiver = standardwebhooks.Webhook(secret)
        headers = self.signed(BODY, secret)
        forged = {
            "body": (BODY + b" ", headers),
            "id": (BODY, headers | {"webhook-id": "msg_other"}),
            "time": (
                BODY,
                headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)},
            ),
            "secret": (BODY, self.signed(BODY, new_secret())),
            "replayed": (
                BODY,
                self.signed(BODY, secret, moment=clock.now() - timedelta(minutes=6)),
            ),
            "future": (BODY, self.signed(BODY, secret, moment=datetime(2099, 1, 1, tzinfo=UTC))),
        }
        for body, changed in forged.values():
            with pytest.raises(WebhookVerificationError):
                receiver.verify(body, changed)


async def test_connections_are_reused() -> None:
    async with receiving() as receiver, local_sender() as sender:
        receiver.answer = OK
        for _ in range(3):
            assert (await sender.send(receiver.url, BODY, HEADERS)).error is None
        assert isinstance(receiver, Receiver)
        assert receiver.connections == 1
