"""Entity tags, preconditions and Cache-Control, without HTTP requests."""

from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from app.core import clock
from app.core.conditional import Precondition, entity_tag
from app.core.config import get_settings
from app.core.errors import PreconditionFailed
from app.http import caching
from app.http.caching import PRIVATE, last_modified, make_conditional, public
from tests.linear import grows_too_fast, run_of


class Resource(BaseModel):
    name: str = "thing"


TAG = entity_tag(Resource().model_dump_json().encode())
OTHER = entity_tag(b"other")


def request_with(method: str = "GET", **headers: str) -> Request:
    raw = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in headers.items()
    ]
    return Request({"type": "http", "method": method, "headers": raw})


def holds(precondition: Precondition) -> bool:
    try:
        precondition.require(Resource())
    except PreconditionFailed as failure:
        return failure.etag != TAG
    return True


class TestEntityTag:
    def test_tag_is_a_quoted_string_of_allowed_characters(self) -> None:
        for body in (b"", b"{}", b"x" * 10**6):
            tag = entity_tag(body)
            assert tag[0] == tag[-1] == '"'
            assert tag[1:-1].replace("-", "").replace("_", "").isalnum()

    def test_different_bodies_have_different_tags(self) -> None:
        assert len({entity_tag(str(number).encode()) for number in range(1000)}) == 1000
        assert entity_tag(b"a") == entity_tag(b"a")


class TestIfMatch:
    @pytest.mark.parametrize(
        "header",
        [
            None,
            "*",
            " * ",
            TAG,
            f"W/{TAG}",
            f"{OTHER}, {TAG}",
            f"{OTHER},{TAG}",
            f",, {OTHER} ,\t{TAG} ,",
            f'"a,b", {TAG}',
            f'"\xe9", {TAG}',
        ],
    )
    def test_header_with_the_current_tag_matches(self, header: str | None) -> None:
        assert holds(Precondition.parse(header))

    @pytest.mark.parametrize(
        "header",
        [
            "",
            " ",
            ",",
            OTHER,
            TAG.strip('"'),
            TAG[:-1],
            TAG[1:],
            TAG.replace('"', "'"),
            f"w/{TAG}",
            f"W/ {TAG}",
            f"{TAG} {OTHER}",
            f"{OTHER} {TAG}",
            f"x{TAG}",
            f"{TAG}x",
            f"{TAG}, x",
            f"x, {TAG}",
            f"*, {TAG}",
            f"{TAG}, *",
            "**",
            '"*"',
            '""',
            "\x00",
        ],
    )
    def test_malformed_header_or_other_tag_does_not_match(self, header: str) -> None:
        assert not holds(Precondition.parse(header))

    @pytest.mark.parametrize("junk", ['"', ",", " ,", '"",', 'W/"', "\t", '"a" '])
    def test_a_long_header_takes_linear_time(self, junk: str) -> None:
        assert not grows_too_fast(Precondition.parse, partial(run_of, "", junk, "x"))


class TestIfNoneMatch:
    @pytest.mark.parametrize("header", [None, "", OTHER, f"{OTHER}, {OTHER}", "nonsense"])
    def test_precondition_holds_without_the_current_tag(self, header: str | None) -> None:
        assert holds(Precondition.parse(None, header))

    @pytest.mark.parametrize("header", ["*", TAG, f"W/{TAG}", f"{OTHER}, {TAG}"])
    def test_precondition_fails_with_the_current_tag(self, header: str) -> None:
        assert not holds(Precondition.parse(None, header))

    def test_both_headers_must_hold(self) -> None:
        assert holds(Precondition.parse(TAG, OTHER))
        assert not holds(Precondition.parse(TAG, TAG))
        assert not holds(Precondition.parse(OTHER, OTHER))


class TestLastModified:
    def test_latest_time_is_formatted_as_imf_fixdate(self) -> None:
        first = datetime(2026, 11, 20, 12, 0, 0, 999_999, UTC)
        later = datetime(2026, 11, 20, 14, 30, 5, tzinfo=timezone(timedelta(hours=1)))
        assert last_modified([first, later, first]) == {
            "Last-Modified": "Fri, 20 Nov 2026 13:30:05 GMT"
        }

    def test_empty_list_has_no_header(self) -> None:
        assert last_modified([]) == {}

    def test_time_is_never_later_than_the_response(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
        monkeypatch.setattr(clock, "now", lambda: now)
        ahead = last_modified([now + timedelta(hours=1)])
        assert ahead == {"Last-Modified": "Fri, 20 Nov 2026 12:00:00 GMT"}


class TestMakeConditional:
    def test_resource_has_a_strong_tag_and_list_a_weak_tag(self) -> None:
        one = make_conditional(request_with(), JSONResponse({"a": 1}), varies_by_caller=False)
        assert one.headers["ETag"] == entity_tag(b'{"a":1}')
        many = make_conditional(request_with(), JSONResponse([1]), varies_by_caller=False)
        assert many.headers["ETag"] == f"W/{entity_tag(b'[1]')}"

    @pytest.mark.parametrize("status", [202, 203, 204, 206, 301, 404, 500])
    def test_other_statuses_have_no_tag(self, status: int) -> None:
        answer = make_conditional(request_with(), JSONResponse({}, status), varies_by_caller=True)
        assert "ETag" not in answer.headers

    def test_stream_has_no_tag_and_headers_of_the_handler_stay(self) -> None:
        stream = StreamingResponse(iter(()), media_type="application/json")
        assert (
            "ETag" not in make_conditional(request_with(), stream, varies_by_caller=False).headers
        )
        own = Response("<a/>", headers={"ETag": '"own"', "Cache-Control": "max-age=9", "Vary": "X"})
        answer = make_conditional(request_with(), own, varies_by_caller=True)
        assert answer.headers["ETag"] == '"own"'
        assert answer.headers["Cache-Control"] == "max-age=9"
        assert answer.headers["Vary"] == "X, Authorization"
        again = make_conditional(request_with(if_none_match='"own"'), own, varies_by_caller=True)
        assert again.status_code == 304

    @pytest.mark.parametrize("vary", ["authorization", "Origin, AUTHORIZATION", "Authorization"])
    def test_vary_contains_authorization_once(self, vary: str) -> None:
        answer = JSONResponse({}, headers={"Vary": vary})
        assert (
            make_conditional(request_with(), answer, varies_by_caller=True).headers["Vary"] == vary
        )

    def test_only_authenticated_responses_are_private(self) -> None:
        def kept(*, varies_by_caller: bool, **headers: str) -> str:
            answer = make_conditional(
                request_with(**headers), JSONResponse({}), varies_by_caller=varies_by_caller
            )
            return answer.headers["Cache-Control"]

        assert kept(varies_by_caller=True) == public()
        assert kept(varies_by_caller=True, authorization="Bearer x") == PRIVATE
        assert kept(varies_by_caller=False, authorization="Bearer x") == public()

    @pytest.mark.parametrize(
        ("seconds", "shared", "expected"),
        [
            (0, 0, "public, max-age=0, must-revalidate"),
            (300, 0, "public, max-age=300"),
            (0, 7, "public, max-age=0, s-maxage=7, stale-while-revalidate=2, stale-if-error=3600"),
        ],
    )
    def test_shared_cache_lifetime_is_a_setting(
        self, monkeypatch: pytest.MonkeyPatch, seconds: int, shared: int, expected: str
    ) -> None:
        settings = get_settings().model_copy(update={"public_cache_seconds": shared})
        monkeypatch.setattr(caching, "get_settings", lambda: settings)
        assert public(seconds) == expected

    def test_no_store_response_has_no_tag(self) -> None:
        secret = JSONResponse({}, headers={"Cache-Control": "no-store"})
        answer = make_conditional(request_with(if_none_match="*"), secret, varies_by_caller=True)
        assert answer.status_code == 200
        assert "ETag" not in answer.headers

    def test_304_has_cache_headers_but_no_body_headers(self) -> None:
        headers = {
            "Link": '</?cursor=x>; rel="next"',
            "Last-Modified": "Fri, 20 Nov 2026 12:00:00 GMT",
            "X-Total-Count": "7",
        }
        answer = make_conditional(
            request_with(if_none_match="*"),
            JSONResponse([1], headers=headers),
            varies_by_caller=True,
        )
        assert answer.status_code == 304
        assert answer.body == b""
        assert {name.lower() for name in answer.headers} == {
            "cache-control", "etag", "link", "vary", "x-total-count"
        }  # fmt: skip

    def test_unsafe_methods_are_not_answered_with_304(self) -> None:
        for method in ("POST", "PUT", "PATCH"):
            request = request_with(method, if_none_match="*", if_match='"x"')
            assert (
                make_conditional(request, JSONResponse({}), varies_by_caller=True).status_code
                == 200
            )

    def test_weak_tag_does_not_match_if_match(self) -> None:
        tag = make_conditional(request_with(), JSONResponse([]), varies_by_caller=False).headers[
            "ETag"
        ]
        for header in (tag, tag.removeprefix("W/")):
            with pytest.raises(PreconditionFailed):
                make_conditional(
                    request_with(if_match=header), JSONResponse([]), varies_by_caller=False
                )
        anything = request_with(if_match="*")
        assert (
            make_conditional(anything, JSONResponse([]), varies_by_caller=False).status_code == 200
        )

    def test_several_header_lines_form_one_list(self) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "headers": [(b"if-none-match", b'"x"'), (b"if-none-match", b"W/" + TAG.encode())],
        }
        answer = make_conditional(
            Request(scope), JSONResponse(Resource().model_dump()), varies_by_caller=False
        )
        assert answer.status_code == 304
