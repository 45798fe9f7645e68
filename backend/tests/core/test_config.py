"""Settings: what development forgives and production refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.core.config import DEVELOPMENT_SECRET, Settings

SAFE: dict[str, Any] = {
    "environment": "production",
    "secret_key": "k" * 32,
    "allowed_hosts": "blog.example.com,*.example.org",
    "cors_origins": "https://app.example.com",
    "database_url": "postgresql://u:p@db/blog",
}


def make(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENVIRONMENT", "DATABASE_URL", "BCRYPT_COST", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def test_development_needs_nothing() -> None:
    settings = make()
    assert settings.secret_key == DEVELOPMENT_SECRET
    assert settings.bcrypt_cost == 12
    assert "http://localhost:3000" in settings.cors_origins
    assert settings.database_url is None


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "")
    monkeypatch.setenv("DATABASE_URL", "")
    assert make().secret_key == DEVELOPMENT_SECRET
    assert make().database_url is None


def test_production_starts_with_safe_settings() -> None:
    without_front_ends = {name: value for name, value in SAFE.items() if name != "cors_origins"}
    assert make(**without_front_ends).cors_origins == []
    settings = make(**SAFE)
    assert settings.allowed_hosts == ["blog.example.com", "*.example.org"]
    assert settings.cors_origins == ["https://app.example.com"]
    assert settings.database_url == "postgresql+asyncpg://u:p@db/blog"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"secret_key": "short"}, "SECRET_KEY is shorter than 32 bytes"),
        ({"secret_key": DEVELOPMENT_SECRET}, "SECRET_KEY is the example"),
        ({"secret_key": "your-secret-key-here"}, "SECRET_KEY is the example"),
        ({"debug": True}, "DEBUG is on"),
        ({"allowed_hosts": "*"}, "ALLOWED_HOSTS has a wildcard"),
        ({"allowed_hosts": "a.example.com,*"}, "ALLOWED_HOSTS has a wildcard"),
        ({"cors_origins": "*"}, "CORS_ORIGINS has a wildcard"),
        ({"cors_origins": "https://*.example.com"}, "CORS_ORIGINS has a wildcard"),
        ({"database_url": None}, "DATABASE_URL is missing"),
    ],
)
def test_production_refuses(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match="unsafe for ENVIRONMENT=production") as refusal:
        make(**{**SAFE, **change})
    assert named in str(refusal.value)
    assert make(**{**SAFE, **change, "environment": "development"})


def test_production_names_every_problem_at_once() -> None:
    with pytest.raises(ValidationError) as refusal:
        make(environment="production", debug=True, cors_origins="*")
    message = str(refusal.value)
    for name in ("SECRET_KEY is missing", "DEBUG", "ALLOWED_HOSTS", "CORS_ORIGINS", "DATABASE_URL"):
        assert name in message
    assert refusal.value.error_count() == 1


@pytest.mark.parametrize(
    "url", ["postgres://u@h/d", "postgresql://u@h/d", "postgresql+asyncpg://u@h/d"]
)
def test_every_common_form_of_url_means_asyncpg(url: str) -> None:
    assert make(database_url=url).database_url == "postgresql+asyncpg://u@h/d"


def test_sslmode_is_passed_to_the_driver_under_its_own_name() -> None:
    url = make(database_url="postgresql://u:p%40ss@h/d?sslmode=require").database_url
    assert url == "postgresql+asyncpg://u:p%40ss@h/d?ssl=require"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u@h/d?target_session_attrs=any", "target_session_attrs"),
        ("postgresql://u@h:99999/d", "port"),
        ("postgresql://u@h:port/d", "must look like"),
    ],
)
def test_a_url_that_the_driver_cannot_use_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(database_url=url)


@pytest.mark.parametrize("origin", ["null", "nonsense", "https://a.example.com/", "//a.com"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        make(cors_origins=origin)


@pytest.mark.parametrize("url", ["mysql://u@h/d", "u@h/d", "sqlite:///x.db"])
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must look like postgresql://"):
        make(database_url=url)


@pytest.mark.parametrize(
    "bad",
    [
        {"bcrypt_cost": 3},
        {"bcrypt_cost": 40},
        {"port": 0},
        {"log_level": "loud"},
        {"environment": "staging"},
        {"database_pool_size": 0},
    ],
)
def test_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**bad)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example.com, https://b.example.com,")
    assert make().cors_origins == ["https://a.example.com", "https://b.example.com"]


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make().debug = True  # type: ignore[misc]


def test_unknown_variables_are_other_programs_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "x")
    assert make()


MAIL = {
    "smtp_host": "smtp.example.com",
    "public_url": "https://www.example.com",
    "mail_from": "Blog <blog@example.com>",
}


def test_production_sends_mail_with_all_that_it_takes() -> None:
    settings = make(
        **SAFE, **MAIL, smtp_username="blog", smtp_password="x", registration="by_email"
    )
    assert settings.smtp_security == "starttls"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"registration": "by_email"}, "REGISTRATION=by_email needs SMTP_HOST"),
        ({"require_verified_email": True}, "REQUIRE_VERIFIED_EMAIL needs SMTP_HOST"),
        ({"smtp_host": "smtp.example.com"}, "PUBLIC_URL is missing.*MAIL_FROM is missing"),
        ({**MAIL, "public_url": "http://example.com"}, "PUBLIC_URL is not https"),
        ({**MAIL, "smtp_username": "a", "smtp_security": "none"}, "SMTP_PASSWORD in the clear"),
        ({"secret_keys_previous": "short"}, "SECRET_KEYS_PREVIOUS"),
        ({"secret_keys_previous": DEVELOPMENT_SECRET}, "SECRET_KEYS_PREVIOUS"),
    ],
)
def test_production_does_nothing_by_halves(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(**{**SAFE, **change})
    make(**{**change, "environment": "development"})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"secret_key": "a" * 32 + "," + "b" * 32}, "no comma"),
        ({"secret_key": " " + "a" * 32}, "no spaces around"),
        ({"public_url": "www.example.com"}, "must look like https"),
        ({"public_url": "https://user@example.com"}, "must look like https"),
        ({"public_url": "https://example.com/?a"}, "must look like https"),
        ({"mail_from": "nobody"}, "must look like"),
        ({"mail_from": "A\nBcc: b@example.com <a@example.com>"}, "must look like"),
        ({"jwt_algorithm": "RS256"}, "pressroom keys rotate --algorithm RS256"),
        ({"jwt_algorithm": "none"}, "HS256"),
    ],
)
def test_refused_everywhere(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(**bad)


def test_a_slash_at_the_end_of_the_public_url_makes_no_difference() -> None:
    assert make(public_url="https://example.com/blog/").public_url == "https://example.com/blog"


@pytest.mark.parametrize(
    "hosts",
    [
        "https://a.example",
        "a.example/",
        "a.example:443",
        "*.a.example",
        "A.example",
        "www.example.com",
    ],
)
def test_hosts_of_frames_are_names_and_not_our_own(hosts: str) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, public_url="https://www.example.com", iframe_hosts=hosts)
    allowed = Settings(_env_file=None, iframe_hosts="a.example, b.example")
    assert allowed.iframe_hosts == ["a.example", "b.example"]
