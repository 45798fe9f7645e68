"""Settings: defaults, validation, sources and the checks for production."""

import os
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url

from app.core import config, sources
from app.core.config import (
    DEVELOPMENT_SECRET,
    PLACEHOLDER,
    PROJECT_DIR,
    SECRETS,
    Settings,
    SettingsError,
    get_settings,
)
from app.core.limits import Limit, LimitKind

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


def test_development_has_defaults_for_all_settings() -> None:
    settings = make()
    assert settings.secret_key == DEVELOPMENT_SECRET
    assert settings.bcrypt_cost == 12
    assert settings.cors_origins == ["http://localhost:*", "http://127.0.0.1:*"]
    assert settings.database_url is None


@pytest.mark.parametrize("environment", ["development", "test", "production"])
def test_only_development_lets_end_to_end_tests_register_many_users(environment: str) -> None:
    settings = make(**{**SAFE, "environment": environment})
    policy = (settings.password_refuse_common, settings.password_min_length)
    limits = (settings.attempts_per_address, settings.attempts_per_name)
    registrations = settings.limit_of(LimitKind.REGISTRATIONS)
    if environment == "development":
        assert policy == (False, 8)
        assert limits == (3000, 300)
        assert registrations == Limit(100_000, timedelta(days=1))
    else:
        assert policy == (True, 8)
        assert limits == (30, 10)
        assert registrations == Limit(2000, timedelta(days=1))


def test_empty_variable_uses_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "")
    monkeypatch.setenv("DATABASE_URL", "")
    assert make().secret_key == DEVELOPMENT_SECRET
    assert make().database_url is None


def test_production_starts_with_safe_settings() -> None:
    without_front_ends = {name: value for name, value in SAFE.items() if name != "cors_origins"}
    public_url = "https://www.example.com"
    assert make(**without_front_ends, public_url=public_url).cors_origins == []
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
        ({"cors_origins": "http://localhost:*"}, "CORS_ORIGINS has a wildcard"),
        ({"password_min_length": 7}, "PASSWORD_MIN_LENGTH is less than 8"),
        ({"password_refuse_common": False}, "PASSWORD_REFUSE_COMMON is off"),
        ({"attempts_per_name": 101}, "ATTEMPTS_PER_NAME is more than 100"),
        ({"database_url": None}, "DATABASE_URL is missing"),
        ({"secret_key": PLACEHOLDER}, "SECRET_KEY is the example"),
        ({"database_url": "postgresql://u:pressroom@db/b"}, "DATABASE_URL has a password"),
        ({"database_url": f"postgresql://u:{PLACEHOLDER}@db/b"}, "DATABASE_URL has a password"),
        ({"database_read_url": "postgresql://u:postgres@r/b"}, "DATABASE_READ_URL has a password"),
        (
            {"database_url": "postgresql://u@db/b", "database_password": "pressroom"},
            "DATABASE_URL has a password",
        ),
        (
            {"database_owner_url": "postgresql://o@db/b", "database_owner_password": "postgres"},
            "DATABASE_OWNER_URL has a password",
        ),
        ({"database_monitor_password": "pressroom"}, "DATABASE_MONITOR_PASSWORD is an example"),
    ],
)
def test_production_rejects_unsafe_setting(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match="unsafe for ENVIRONMENT=production") as refusal:
        make(**{**SAFE, **change})
    assert named in str(refusal.value)
    make(**{**SAFE, **change, "environment": "development"})


def test_production_lists_all_problems_in_one_error() -> None:
    with pytest.raises(ValidationError) as refusal:
        make(environment="production", debug=True, cors_origins="*")
    message = str(refusal.value)
    for name in ("SECRET_KEY is missing", "DEBUG", "ALLOWED_HOSTS", "CORS_ORIGINS", "DATABASE_URL"):
        assert name in message
    assert refusal.value.error_count() == 1


@pytest.mark.parametrize(
    "hosts",
    [
        "https://blog.example.com",
        "blog.example.com:8443",
        "blog.example.com/",
        "blog.example.com other.example.com",
        "blog.*.com",
    ],
)
def test_allowed_hosts_are_host_names(hosts: str) -> None:
    with pytest.raises(ValidationError, match="must be a host name such as"):
        make(allowed_hosts=hosts)


@pytest.mark.checkout
def test_nginx_serves_the_allowed_hosts_of_the_backend() -> None:
    for hosts, (served, first) in {
        "blog.example.com, *.example.org": ("blog.example.com *.example.org", "blog.example.com"),
        '["*.example.org", "b.example"]': ("*.example.org b.example", "www.example.org"),
        "blog.example.com,*": ("~^", "localhost"),
        "": ("~^", "localhost"),
    }.items():
        script = ["sh", str(PROJECT_DIR / "nginx" / "scripts" / "hosts.sh")]
        environment = {"ALLOWED_HOSTS": hosts, "PATH": os.environ["PATH"]}
        printed = subprocess.check_output(script, env=environment, text=True)
        assert " ".join(printed.split()) == f"server_name {served};"
        printed = subprocess.check_output([*script, "--first"], env=environment, text=True)
        assert printed == f"{first}\n"


@pytest.mark.parametrize(
    "url", ["postgres://u@h/d", "postgresql://u@h/d", "postgresql+asyncpg://u@h/d"]
)
def test_postgresql_url_schemes_are_mapped_to_asyncpg(url: str) -> None:
    assert make(database_url=url).database_url == "postgresql+asyncpg://u@h/d"


def test_sslmode_is_passed_as_ssl_to_asyncpg() -> None:
    url = make(database_url="postgresql://u:p%40ss@h/d?sslmode=require").database_url
    assert url == "postgresql+asyncpg://u:p%40ss@h/d?ssl=require"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u@h/d?target_session_attrs=all", "wrong target_session_attrs"),
        ("postgresql://u@h/d?sslmode=yes", "wrong sslmode: use one of disable"),
        ("postgresql://u@h/d?channel_binding=require", "unknown options: channel_binding"),
        (
            "postgresql://u@h/d?sslrootcert=nowhere.pem",
            r"nowhere\.pem cannot be read \(No such file",
        ),
        ("postgresql://u@h/d?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
        ("postgresql://u@a:1,b:port/d", "must look like"),
        ("postgresql://u@a,,b/d", "must look like"),
        ("postgresql://u@h:99999/d", "port"),
        ("postgresql://u@h:0/d", "port"),
        ("postgresql://u@a:99999,b/d", "a port between"),
        ("postgresql://u@a:0,b/d", "a port between"),
        ("postgresql://u@/d?host=a,b&port=1", "one port for each host"),
        ("postgresql://u:p/w@a,b/d", "%2F for /"),
        ("postgresql://u:p?w@a,b/d", "%3F for"),
        ("postgresql://u:p@w@a,b/d", "%40 for @"),
        ("postgresql://u:p@w@h/d", "%40 for @"),
        ("postgresql://u@h:port/d", "must look like"),
    ],
)
def test_unusable_database_url_is_rejected(url: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(database_url=url)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p%40@a:1,b/d?target_session_attrs=read-write", (["a", "b"], [1, 5432])),
        ("postgresql://u:p%40@[::1]:2,[2001:db8::7]/d", (["::1", "2001:db8::7"], [2, 5432])),
        ("postgresql://u:p%40@/d?host=a,b&port=1,2", (["a", "b"], [1, 2])),
        ("postgresql://u:p%40@/d?host=a,b", (["a", "b"], [5432, 5432])),
        ("postgresql://u:p%40@/d?host=a:1&host=b:2", (["a", "b"], [1, 2])),
        ("postgresql://u:p%40@a, b/d", (["a", "b"], [5432, 5432])),
        ("postgresql://u:p%40@/d?host=/run/postgresql", ("/run/postgresql", None)),
    ],
)
def test_several_hosts_are_accepted(url: str, hosts: tuple[Any, Any]) -> None:
    dialect: Any = PGDialect_asyncpg
    normalized = make(database_url=url).database_url
    _, address = dialect().create_connect_args(make_url(str(normalized)))
    assert (address["user"], address["password"], address["database"]) == ("u", "p@", "d")
    assert (address["host"], address.get("port")) == hosts


def test_certificates_of_the_database_are_found_below_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "PROJECT_DIR", tmp_path)
    (tmp_path / "ca.pem").touch()
    settings = make(database_url="postgresql://u@h/d?sslmode=verify-full&sslrootcert=ca.pem")
    assert settings.certificate_files() == [tmp_path / "ca.pem"]
    system = make(database_url="postgresql://u@h/d?sslrootcert=system")
    assert system.database_url == "postgresql+asyncpg://u@h/d?ssl=verify-full"
    assert system.certificate_files() == []


@pytest.mark.parametrize("url", ["mysql://u@h/d", "u@h/d", "sqlite:///x.db"])
def test_url_of_another_database_is_rejected(url: str) -> None:
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
def test_value_out_of_range_is_rejected(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**bad)


def test_list_is_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example.com, https://b.example.com,")
    assert make().cors_origins == ["https://a.example.com", "https://b.example.com"]


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make().debug = True  # type: ignore[misc]  # the test assigns to a frozen model


def test_unknown_environment_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "x")
    make()


MAIL = {
    "smtp_host": "smtp.example.com",
    "public_url": "https://www.example.com",
    "mail_from": "Blog <blog@example.com>",
}


def test_production_accepts_complete_mail_settings() -> None:
    settings = make(
        **SAFE, **MAIL, smtp_username="blog", smtp_password="x", registration="by_email"
    )
    assert settings.smtp_security == "starttls"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"registration": "by_email"}, "REGISTRATION=by_email needs SMTP_HOST"),
        ({"require_verified_email": True}, "REQUIRE_VERIFIED_EMAIL needs SMTP_HOST"),
        ({"smtp_host": "smtp.example.com"}, "MAIL_FROM is missing"),
        ({"smtp_host": "x", "cors_origins": "http://example.com"}, "PUBLIC_URL must use https"),
        ({**MAIL, "public_url": "http://example.com"}, "PUBLIC_URL must use https"),
        ({**MAIL, "smtp_username": "a", "smtp_security": "none"}, "SMTP_PASSWORD unencrypted"),
        ({"secret_keys_previous": "short"}, "SECRET_KEYS_PREVIOUS"),
        ({"secret_keys_previous": DEVELOPMENT_SECRET}, "SECRET_KEYS_PREVIOUS"),
    ],
)
def test_production_rejects_incomplete_or_unsafe_settings(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(**{**SAFE, **change})
    make(**{**change, "environment": "development"})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"secret_key": "a" * 32 + "," + "b" * 32}, "must not contain commas"),
        ({"secret_key": " " + "a" * 32}, "start or end with spaces"),
        ({"public_url": "www.example.com"}, "must look like https"),
        ({"public_url": "https://user@example.com"}, "must look like https"),
        ({"public_url": "https://example.com/?a"}, "must look like https"),
        ({"mail_from": "nobody"}, "must look like"),
        ({"mail_from": "A\nBcc: b@example.com <a@example.com>"}, "must look like"),
        ({"jwt_algorithm": "RS256"}, "pressroom keys rotate --algorithm RS256"),
        ({"jwt_algorithm": "none"}, "HS256"),
        ({"cors_origins": '["https://a.example.com"'}, "a JSON list"),
        ({"cors_origins": "[1]"}, "valid string"),
        ({"revisions_daily_days": 7}, "REVISIONS_DAILY_DAYS must not be less"),
        ({"forwarded_allow_ips": "10.0.0.0/8,nginx"}, "'nginx' must be an IP address"),
        ({"forwarded_allow_ips": "10.0.0.1/8"}, "such as 172.16.0.0/12"),
    ],
)
def test_invalid_value_is_rejected_in_all_environments(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(**bad)


def test_error_names_only_the_invalid_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings whose defaults follow from others are not named as well."""
    monkeypatch.setenv("BCRYPT_COST", "99")
    get_settings.cache_clear()
    with pytest.raises(SettingsError) as refusal:
        get_settings()
    assert str(refusal.value) == "BCRYPT_COST: Input should be less than or equal to 16"
    get_settings.cache_clear()


def test_trailing_slash_of_public_url_is_removed() -> None:
    assert make(public_url="https://example.com/blog/").public_url == "https://example.com/blog"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "http://localhost:8000"),
        ({"port": 8111}, "http://localhost:8111"),
        ({"host": "0.0.0.0", "port": 8111}, "http://localhost:8111"),
        ({"host": "192.0.2.7"}, "http://192.0.2.7:8000"),
        ({"host": "2001:db8::7"}, "http://[2001:db8::7]:8000"),
        ({"port": 8111, "api_url": "https://api.example.com/"}, "https://api.example.com"),
        ({"port": 8111, "local_url": "http://localhost:8080/"}, "http://localhost:8080"),
        (SAFE, "https://blog.example.com"),
        ({**SAFE, "allowed_hosts": "localhost,*.a.example,b.example"}, "https://b.example"),
    ],
)
def test_api_url_defaults_to_an_allowed_host_or_a_local_url(
    given: dict[str, Any], expected: str
) -> None:
    assert make(**given).api_url == expected


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        ("https://www.example.com,https://app.example.com", "https://www.example.com"),
        ("http://localhost:3000,https://www.example.com", "https://www.example.com"),
    ],
)
def test_public_url_defaults_to_an_origin_in_production(origins: str, expected: str) -> None:
    assert make(**{**SAFE, "cors_origins": origins}).public_url == expected
    assert make(cors_origins=origins).public_url == "http://localhost:3000"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),
        ({"public_url": "http://localhost:3000"}, True),
        ({"article_path": "/posts/{slug}"}, True),
        ({"web_reader": False}, True),
        ({**SAFE, "web_reader": True}, True),
        (
            {**SAFE, "web_reader": True, "cors_origins": "", "public_url": "https://a.example.com"},
            True,
        ),
    ],
)
def test_links_to_articles_lead_to_a_named_front_end(
    values: dict[str, Any], expected: bool
) -> None:
    """CORS_ORIGINS of SAFE names one."""
    assert make(**values).names_front_end is expected


@pytest.mark.parametrize(
    "local",
    [
        "http://localhost:8080",
        "https://localhost.",
        "http://127.0.0.2",
        "http://[::1]:80",
        "http://0.0.0.0",
        "http://a.localhost",
    ],
)
def test_local_url_is_rejected_in_production(local: str) -> None:
    for name in ("api_url", "public_url"):
        with pytest.raises(ValidationError, match=f"{name.upper()} is {re.escape(local)}, which"):
            make(**SAFE, **{name: local})
        make(**{name: local})
    underivable = {**SAFE, "allowed_hosts": "*.example.com", "cors_origins": ""}
    with pytest.raises(ValidationError, match=r"API_URL is http://localhost:8000.*PUBLIC_URL is"):
        make(**underivable)


def test_links_in_mails_lead_to_the_studio_without_a_front_end() -> None:
    """Then production needs no PUBLIC_URL, also if it sends mails."""
    front_end = "https://www.example.com"
    assert make().account_url == "http://localhost:8000/studio"
    assert make(public_url=front_end).account_url == front_end
    assert make(web_studio=False).account_url == "http://localhost:3000"
    assert make(**{**SAFE, "web_studio": True, "cors_origins": front_end}).account_url == front_end
    mail = {name: value for name, value in MAIL.items() if name != "public_url"}
    assert make(**{**SAFE, **mail, "cors_origins": front_end}).account_url == front_end
    pages = {"web_reader": True, "web_studio": True, "cors_origins": ""}
    served = make(**{**SAFE, **mail, **pages})
    assert served.account_url == f"{served.api_url}/studio"
    with pytest.raises(ValidationError, match="PUBLIC_URL is"):
        make(**{**SAFE, **mail, **pages, "web_studio": False})


def test_urls_of_pages_name_those_that_are_served() -> None:
    url = "https://blog.example.com"
    everything = {"Pages": f"{url}/read", "Studio": f"{url}/studio"}
    assert make().page_urls(url) == everything
    assert make(web_studio=False, web_prefix="/blog").page_urls(url) == {"Pages": f"{url}/blog"}
    assert make(**SAFE).page_urls(url) == {}


def test_preview_links_lead_to_the_studio_without_a_front_end() -> None:
    front_end = "https://www.example.com"
    assert make().preview_url == "http://localhost:8000/studio/previews"
    assert make(public_url=front_end).preview_url == f"{front_end}/preview"
    assert make(web_studio=False).preview_url == "http://localhost:3000/preview"
    named = {**SAFE, "web_studio": True, "cors_origins": front_end}
    assert make(**named).preview_url == f"{front_end}/preview"


def test_database_password_completes_urls_without_a_password() -> None:
    urls = {"database_url": "postgresql://u@h/d", "database_read_url": "postgresql://u:own@r/d"}
    settings = make(
        database_password="p@ss/#",
        database_owner_password="owner",
        database_owner_url="postgresql://o@h/d",
        **urls,
    )
    assert settings.database_owner_url == "postgresql+asyncpg://o:owner@h/d"
    assert settings.database_url == "postgresql+asyncpg://u:p%40ss%2F%23@h/d"
    assert settings.database_read_url == "postgresql+asyncpg://u:own@r/d"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("database_url", "read-write"),
        ("database_direct_url", "read-write"),
        ("database_owner_url", "read-write"),
        ("database_read_url", None),
    ],
)
def test_several_hosts_mean_the_primary_except_for_replicas(
    name: str, expected: str | None
) -> None:
    url = make_url(getattr(make(**{name: "postgresql://u@first,second/d"}), name))
    assert url.query.get("target_session_attrs") == expected
    chosen = make(**{name: "postgresql://u@first,second/d?target_session_attrs=any"})
    assert make_url(getattr(chosen, name)).query["target_session_attrs"] == "any"


class TestAliases:
    @pytest.mark.parametrize(
        ("alias", "value", "name", "expected"),
        [
            ("ALGORITHM", "HS256", "jwt_algorithm", "HS256"),
            ("APP_NAME", "My blog", "site_title", "My blog"),
            (
                "BACKEND_CORS_ORIGINS",
                '["http://localhost:3000", "https://a.example.com"]',
                "cors_origins",
                ["http://localhost:3000", "https://a.example.com"],
            ),
            ("BACKEND_CORS_ORIGINS", "https://a.com,https://b.com", "cors_origins", None),
        ],
    )
    def test_alias_sets_its_setting(
        self, monkeypatch: pytest.MonkeyPatch, alias: str, value: str, name: str, expected: Any
    ) -> None:
        monkeypatch.setenv(alias, value)
        assert getattr(make(), name) == (expected or value.split(","))
        assert name in make().model_fields_set
        monkeypatch.setenv(name.upper(), value)  # the same twice is no conflict
        assert getattr(make(), name) == (expected or value.split(","))

    def test_conflict_names_alias_and_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for alias, name in sources.ALIASES.items():
            monkeypatch.setenv(alias.upper(), "one")
            monkeypatch.setenv(name.upper(), "another")
        get_settings.cache_clear()
        with pytest.raises(SettingsError) as refusal:
            get_settings()
        for alias, name in sources.ALIASES.items():
            reason = f"{name.upper()}: {alias.upper()} is an alias with another value"
            assert reason in str(refusal.value)
        get_settings.cache_clear()

    def test_environment_overrides_dotenv(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / ".env"
        file.write_text("APP_NAME=File\n")
        monkeypatch.setenv("SITE_TITLE", "Environment")
        assert Settings(_env_file=file).site_title == "Environment"
        monkeypatch.delenv("SITE_TITLE")
        assert Settings(_env_file=file).site_title == "File"


VALUES = dict.fromkeys(SECRETS, "s" * 40) | {
    "database_url": "postgresql+asyncpg://u:s3cret@h/d",
    "database_direct_url": "postgresql+asyncpg://u:s3cret@h/d",
    "database_read_url": "postgresql+asyncpg://u:s3cret@h/d",
    "database_owner_url": "postgresql+asyncpg://u:s3cret@h/d",
}


class TestSecretsInFiles:
    def test_every_secret_setting_can_be_read_from_a_file(self) -> None:
        """Settings with the name of a secret can be read from a file, or are the path of one."""
        named = re.compile(r"secret|password|(^|_)keys?(_|$)|token$|^database_\w*url$")
        files = {"jwt_private_key_file", "jwt_previous_key_files"}
        policy = {"password_min_length", "password_refuse_common"}
        found = {name for name in Settings.model_fields if named.search(name)}
        assert found == SECRETS | files | policy

    @pytest.mark.parametrize("name", sorted(SECRETS))
    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_secret_file_is_read_without_its_line_break(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, end: str
    ) -> None:
        (tmp_path / "secret").write_bytes(f"{VALUES[name]}{end}".encode())
        monkeypatch.setenv(f"{name}_FILE".upper(), str(tmp_path / "secret"))
        monkeypatch.setenv(name.upper(), "")  # as the compose file passes it on
        value = getattr(make(), name)
        assert value == ([VALUES[name]] if isinstance(value, list) else VALUES[name])

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, r"cannot be read \(No such file or directory\)"),
            (b"", "is empty"),
            (b"\n", "is empty"),
            (b"\xff\xfe", "is not UTF-8"),
            (b"one\ntwo\n", "must hold one line"),
            (b"a" * 70_000, "is larger than 65536 bytes"),
        ],
    )
    def test_error_names_the_setting_but_not_the_value(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
    ) -> None:
        path = tmp_path / "secret"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setenv("SMTP_PASSWORD_FILE", str(path))
        monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path))
        get_settings.cache_clear()
        with pytest.raises(SettingsError, match=f"SMTP_PASSWORD_FILE={path} {reason}") as refusal:
            get_settings()
        assert "SECRET_KEY_FILE" in str(refusal.value)
        assert "Is a directory" in str(refusal.value)
        assert "two" not in str(refusal.value)
        get_settings.cache_clear()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
    def test_unreadable_secret_file_is_rejected(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text("s" * 40)
        (tmp_path / "secret").chmod(0)
        monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "secret"))
        with pytest.raises(ValidationError, match=r"SECRET_KEY_FILE=.* \(Permission denied\)"):
            make()

    def test_secret_and_secret_file_together_are_rejected(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text("s" * 40)
        monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "secret"))
        monkeypatch.setenv("SECRET_KEY", "t" * 40)
        with pytest.raises(ValidationError, match="SECRET_KEY_FILE is set as well") as refusal:
            make()
        assert "t" * 40 not in str(refusal.value)

    def test_production_accepts_secrets_from_files(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("secret_key", "database_password"):
            (tmp_path / name).write_text(f"{VALUES[name]}\n")
            monkeypatch.setenv(f"{name}_FILE".upper(), str(tmp_path / name))
        given = {**SAFE, "database_url": "postgresql://u@db/blog"}
        del given["secret_key"]
        # Arguments override the environment, which therefore sets only the missing values.
        monkeypatch.setenv("DATABASE_URL", given.pop("database_url"))
        settings = make(**given)
        assert settings.database_url == f"postgresql+asyncpg://u:{'s' * 40}@db/blog"


@pytest.mark.checkout
class TestUnknownNames:
    @pytest.fixture(autouse=True)
    def _env(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("docker-compose.yml", "docker-compose.tls.yml", ".env.example"):
            (tmp_path / name).write_bytes((PROJECT_DIR / name).read_bytes())
        monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")

    def test_warning_suggests_the_closest_setting(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(
            "# DATABSE_URL=a comment\n"
            "export SECRET_KEI='quoted # value'\n"
            "  SMTP_PASWORD = x\n"
            'TEXT="first\nNOT_A_NAME=1"\n'
            "\n"
            "trust_proxy=y\n"
        )
        assert config.unknown_names() == [
            "SECRET_KEI in .env is not a setting: it has no effect; did you mean SECRET_KEY?",
            "SMTP_PASWORD in .env is not a setting: it has no effect; did you mean SMTP_PASSWORD?",
            "TEXT in .env is not a setting: it has no effect",
            "TRUST_PROXY in .env is not a setting: it has no effect; did you mean TRUSTED_PROXY?",
        ]

    def test_names_of_other_programs_are_known(self, tmp_path: Path) -> None:
        example = (PROJECT_DIR / ".env.example").read_text(encoding="utf-8")
        others = "COMPOSE_PROJECT_NAME=x\nPOSTGRES_INITDB_ARGS=x\nPGPASSWORD=x\nPIP_NO_INPUT=1\n"
        aliases = "ALGORITHM=HS256\nAPP_NAME=x\nBACKEND_CORS_ORIGINS=*\nSMTP_PASSWORD_FILE=x\n"
        every = "".join(f"{name.upper()}=x\n" for name in Settings.model_fields)
        uncommented = re.sub(r"(?m)^#(?=[A-Z_]+=)", "", example)
        (tmp_path / ".env").write_text(uncommented + others + aliases + every)
        assert config.unknown_names() == []

    def test_missing_dotenv_causes_no_warnings(self) -> None:
        assert config.unknown_names() == []


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
def test_iframe_hosts_are_host_names_of_other_sites(hosts: str) -> None:
    with pytest.raises(ValidationError):
        make(public_url="https://www.example.com", iframe_hosts=hosts)
    allowed = make(iframe_hosts="a.example, b.example")
    assert allowed.iframe_hosts == ["a.example", "b.example"]
