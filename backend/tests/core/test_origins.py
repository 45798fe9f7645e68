"""CORS_ORIGINS: the backend and nginx allow the same origins and refuse the same values."""

import re
import subprocess

import pytest
from pydantic import ValidationError

from app.core.config import PROJECT_DIR, Environment, Settings
from app.core.origins import is_listed
from tests.origins import ALLOWED, ENTRIES, MALFORMED, REFUSED

MAP_ENTRY = re.compile(r'"~(\S+)" (\$http_origin|"\*");')


def listed(origins: str) -> list[str]:
    return Settings(_env_file=None, cors_origins=origins).cors_origins  # type: ignore[arg-type]  # text, as in the environment


def script(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run the script that writes the entries of nginx's map."""
    command = ["sh", str(PROJECT_DIR / "nginx" / "scripts" / "origins.sh")]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


def mapped(**settings: str) -> dict[str, str]:
    """Return the entries: regular expressions and the values of Access-Control-Allow-Origin."""
    result = script(**settings)
    assert result.returncode == 0, result.stderr
    entries = dict(MAP_ENTRY.findall(result.stdout))
    assert len(entries) == len(result.stdout.splitlines())
    return entries


def allowed_by_nginx(origin: str, entries: dict[str, str]) -> bool:
    return any(re.search(pattern, origin) for pattern in entries)


def test_backend_compares_origins_exactly() -> None:
    entries = listed(ENTRIES)
    assert [each for each in ALLOWED if not is_listed(each, entries)] == []
    assert [each for each in REFUSED if is_listed(each, entries)] == []


@pytest.mark.checkout
class TestNginx:
    @pytest.mark.parametrize("entries", [ENTRIES, str([*ENTRIES.split(",")]).replace("'", '"')])
    @pytest.mark.parametrize("name", ["CORS_ORIGINS", "BACKEND_CORS_ORIGINS"])
    def test_nginx_allows_the_same_origins(self, name: str, entries: str) -> None:
        found = mapped(**{name: entries})
        assert [each for each in ALLOWED if not allowed_by_nginx(each, found)] == []
        assert [each for each in REFUSED if allowed_by_nginx(each, found)] == []
        assert set(found.values()) == {"$http_origin"}

    @pytest.mark.parametrize("environment", ["development", "test", "production"])
    def test_defaults_are_those_of_the_backend(self, environment: str) -> None:
        defaults = Settings.model_fields["cors_origins"].default_factory
        assert defaults is not None
        expected = defaults({"environment": Environment(environment)})  # type: ignore[call-arg]  # it gets the values
        by_default = script(ENVIRONMENT=environment, CORS_ORIGINS="")
        assert by_default.returncode == 0
        explicit = script(ENVIRONMENT="production", CORS_ORIGINS=",".join(expected))
        assert by_default.stdout == explicit.stdout
        assert bool(expected) == (environment != "production")

    def test_wildcard_allows_all_origins(self) -> None:
        found = mapped(CORS_ORIGINS="*")
        assert set(found.values()) == {'"*"'}
        assert allowed_by_nginx("null", found)
        assert not allowed_by_nginx("", found)


@pytest.mark.parametrize("value", MALFORMED)
def test_malformed_origin_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="must be an origin such as"):
        listed(value)


@pytest.mark.checkout
@pytest.mark.parametrize("value", MALFORMED)
def test_malformed_origin_does_not_reach_the_configuration_of_nginx(value: str) -> None:
    result = script(CORS_ORIGINS=f"https://www.example.com,{value}")
    assert result.returncode == 1
    assert "must be an origin such as https://www.example.com" in result.stderr
