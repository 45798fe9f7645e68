"""A 2xx response is sent after the commit. A failed commit returns an error, and nothing is
stored."""

from collections.abc import Iterator

import pytest

from tests.databases import execute
from tests.postgres import fetch
from tests.processes import Api

pytestmark = pytest.mark.e2e

REFUSE_AT_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON articles
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"""


@pytest.fixture
def commits_of_articles_fail(api_database: str) -> Iterator[None]:
    execute(api_database, REFUSE_AT_COMMIT)
    yield
    execute(api_database, "DROP FUNCTION refuse CASCADE")


@pytest.mark.usefixtures("commits_of_articles_fail")
def test_failed_commit_returns_an_error(api: Api, api_database: str) -> None:
    headers = api.bearer("committer")
    facts = "SELECT (SELECT count(*) FROM articles), (SELECT count(*) FROM audit_events)"
    before = fetch(api_database, facts)

    article = {"title": "Never stored", "content": "This is refused at commit.", "published": True}
    answer = api.client.post("/articles", json=article, headers=headers)

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert fetch(api_database, facts) == before
    assert "[AUDIT] CREATE_ARTICLE" not in api.process.log
