"""Settings: one frozen, validated class, read once. Nothing else reads the environment."""

import json
import os
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.core import sources
from app.core.languages import canonical_language
from app.core.limits import DEFAULTS, Limit, LimitKind, parse_limits

BACKEND_DIR = Path(__file__).resolve().parents[2]
PROJECT_DIR = BACKEND_DIR.parent

DEVELOPMENT_SECRET = "development-only-secret-that-production-refuses"  # noqa: S105 - public
"""Used where no SECRET_KEY is set, so that several processes agree on it without a `.env`."""

PLACEHOLDER = "<generated>"
"""What `.env.example` has in place of a secret."""
EXAMPLE_SECRETS = frozenset({DEVELOPMENT_SECRET, PLACEHOLDER, "change-me", "your-secret-key-here"})
MIN_SECRET_BYTES = 32
EXAMPLE_PASSWORDS = frozenset(
    {"pressroom", "postgres", "password", "change-me", "changeme", PLACEHOLDER}
)
"""Passwords of databases that examples use; `pressroom` is the compose file's default."""

SECRETS = frozenset(
    {
        "secret_key",
        "secret_keys_previous",
        "database_url",
        "database_read_url",
        "database_password",
        "smtp_password",
        "s3_access_key_id",
        "s3_secret_access_key",
    }
)
"""Settings that can be read from a file: SECRET_KEY_FILE=/run/secrets/secret_key."""

CommaSeparated = Annotated[list[str], NoDecode]


class Algorithm(StrEnum):
    """RFC 7518 §3.1: how access tokens are signed; one secret, or a pair of keys in PEM files."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"


class SmtpSecurity(StrEnum):
    """How the connection to the mail server is encrypted."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class Registration(StrEnum):
    """Who gets an account: whoever asks, or whoever answers a mail (and nobody learns who has)."""

    OPEN = "open"
    BY_EMAIL = "by_email"


class Environment(StrEnum):
    """Where the process runs; production refuses what development forgives."""

    DEVELOPMENT = "development"
    TEST = "test"
    PRODUCTION = "production"


def _front_ends_in_development(values: dict[str, Any]) -> list[str]:
    """Where front ends' development servers listen; in production nobody is let in unnamed."""
    if values.get("environment") is Environment.PRODUCTION:
        return []
    return [f"http://localhost:{port}" for port in (3000, 4100, 4200, 5173, 8080)]


def _own_address(values: dict[str, Any]) -> str:
    """Where HOST and PORT serve the API, as a browser on this machine reaches it."""
    host = values.get("host", "127.0.0.1")
    if host in {"127.0.0.1", "0.0.0.0", "::", "::1"}:  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{values.get('port', 8000)}"


class Settings(BaseSettings):
    """Everything an operator can set, from the environment or the `.env` beside the Makefile.

    Raises pydantic.ValidationError at construction; in production its one message names every
    setting that is unsafe.
    """

    model_config = SettingsConfigDict(
        env_file=PROJECT_DIR / ".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # a refused value may be a password
    )

    environment: Environment = Environment.DEVELOPMENT
    debug: bool = False
    """Logs every SQL statement."""
    log_level: str = "INFO"

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    allowed_hosts: CommaSeparated = ["*"]
    cors_origins: CommaSeparated = Field(default_factory=_front_ends_in_development)
    max_body_bytes: PositiveInt = 4 * 1024 * 1024
    public_cache_seconds: NonNegativeInt = 1
    """How long a shared cache may answer by itself what anybody may read; 0: never."""
    security_headers: bool = True
    """Whether the backend adds security headers itself; off where the edge in front of it does."""

    database_password: str | None = None
    """The password of DATABASE_URL and DATABASE_READ_URL where they have none."""
    database_url: str | None = None
    """PostgreSQL to use; without it, the host's commands start an embedded one in `.data`."""
    database_read_url: str | None = None
    """A replica for reads; the primary serves them where it is not set."""
    database_pool_size: PositiveInt = 5
    """Connections per pool; a process has two pools, one for writing and one for reading."""
    database_pool_timeout: PositiveFloat = 5.0
    """Seconds a request waits for a connection before it is answered 503."""
    database_connect_timeout: PositiveFloat = 5.0
    """Seconds to wait for PostgreSQL to accept a new connection."""
    database_statement_timeout: PositiveFloat = 15.0
    """Seconds after which PostgreSQL cancels a statement."""
    data_dir: Path = PROJECT_DIR / ".data"

    secret_key: str = DEVELOPMENT_SECRET
    secret_keys_previous: CommaSeparated = []
    """What SECRET_KEY was, or will be: what is signed with these is still believed."""
    jwt_algorithm: Algorithm = Algorithm.HS256
    jwt_private_key_file: Path | None = None
    """The PEM that signs where JWT_ALGORITHM is RS256 or ES256."""
    jwt_previous_key_files: Annotated[list[Path], NoDecode] = []
    """PEMs, public or private, whose tokens are still believed."""
    jwt_issuer: str = "pressroom"
    jwt_audience: str = "pressroom-api"
    access_token_expire_minutes: PositiveInt = 15
    conduit_api: bool = True
    """Whether the RealWorld API is served, below /api."""
    conduit_token_expire_minutes: PositiveInt = 7 * 24 * 60
    """How long an access token from /api is believed: front ends for it have no other."""
    session_expire_days: PositiveInt = 30
    """How long a login lasts at most, however often its refresh token is used."""
    session_idle_days: PositiveInt = 14
    """How long a login lasts that nobody uses."""
    bcrypt_cost: Annotated[int, Field(ge=4, le=16)] = 12
    """Base-2 logarithm of bcrypt's rounds; 12 takes about 0.2 s of one core."""
    bcrypt_threads: PositiveInt = 2

    registration: Registration = Registration.OPEN
    require_verified_email: bool = False
    """Whether publishing takes an address that its author has confirmed."""
    public_url: str = "http://localhost:3000"
    """The front end that links in mails lead to; never taken from a request."""
    smtp_host: str | None = None
    """The mail server; without it, development prints mail and shows it under /dev/mailbox."""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 587
    smtp_security: SmtpSecurity = SmtpSecurity.STARTTLS
    smtp_username: str | None = None
    smtp_password: str | None = None
    mail_from: str = "Pressroom <pressroom@localhost>"

    site_title: str = "Pressroom"
    site_description: str = ""
    """What feeds say that they are about."""
    default_language: Annotated[str, AfterValidator(canonical_language)] = "en"
    """Of feeds, and of articles whose author names none."""
    api_url: str = Field(default_factory=_own_address)
    """Where this API is reached from outside: in the addresses of media and feeds."""
    article_path: str = "/articles/{slug}"
    """Where PUBLIC_URL's front end shows an article; feeds and the sitemap lead there."""
    author_path: str = "/authors/{username}"
    tag_path: str = "/tags/{slug}"

    iframe_hosts: CommaSeparated = []
    """Hosts whose frames articles may contain: none by default."""

    require_if_match: bool = False
    """Whether changing what has an ETag takes `If-Match`; 428 without it."""
    stream_seconds: PositiveFloat = 3600
    """How long one import, export or upload may take in all."""
    max_import_bytes: PositiveInt = 4 * 1024 * 1024 * 1024

    limits: Annotated[dict[LimitKind, Limit | None], NoDecode] = {}
    """Limits that differ from the defaults; None means no limit."""

    media_dir: Path | None = None
    """Where pictures are kept; `media` below DATA_DIR where it is not set."""
    media_max_bytes: PositiveInt = 20 * 1024 * 1024
    media_max_pixels: PositiveInt = 50_000_000
    media_quota_bytes: PositiveInt = 1024 * 1024 * 1024
    """Of each user."""
    media_accel_redirect: bool = False
    """Whether nginx sends the files, told by X-Accel-Redirect; else the backend does."""
    s3_bucket: str | None = None
    """Keeps pictures in this bucket, in place of MEDIA_DIR."""
    s3_endpoint_url: str | None = None
    """Of a store that is not Amazon's."""
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = None

    revisions_all_days: NonNegativeInt = 30
    """For how many days every revision is kept; 0: for ever."""
    revisions_daily_days: NonNegativeInt = 365
    """For how many days the last revision of each day is kept; then one of each month is."""
    audit_days: NonNegativeInt = 400
    """For how many days audit events are kept; 0: for ever."""

    raw_sql_reference: bool = False
    """Mounts the users API written in raw SQL at /raw/users, for comparison."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature of the base class
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, the environment, then `.env`; each with aliases and `..._FILE` resolved."""
        problems = []
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)  # noqa: S101 - for the type checker
            source.env_vars, found = sources.resolve(
                source.env_vars, secrets=SECRETS, folder=PROJECT_DIR
            )
            problems += found
        if problems:
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError(
                            "setting_source", "{reason}", {"reason": problem.reason}
                        ),
                        loc=(problem.setting,),
                        input=None,
                    )
                    for problem in problems
                ],
                hide_input=True,
            )
        return init_settings, env_settings, dotenv_settings

    @field_validator(
        "allowed_hosts",
        "cors_origins",
        "secret_keys_previous",
        "jwt_previous_key_files",
        "iframe_hosts",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("must be a list in JSON, or separated by commas") from None
        return [item.strip() for item in value.split(",") if item.strip()]

    @field_validator("limits", mode="before")
    @classmethod
    def _parse_limits(cls, value: Any) -> Any:
        return parse_limits(value) if isinstance(value, str) else value

    @field_validator("database_url", "database_read_url")
    @classmethod
    def _use_asyncpg(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            url = None
        if url is None or url.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
            raise ValueError("must look like postgresql://user:password@host:5432/database")
        query = {"ssl" if name == "sslmode" else name: text for name, text in url.query.items()}
        if unknown := query.keys() - {"host", "port", "ssl"}:
            raise ValueError(f"has options that are not known: {', '.join(sorted(unknown))}")
        if not 0 < (url.port or 5432) < 65536:
            raise ValueError("has a port that is not between 1 and 65535")
        url = url.set(drivername="postgresql+asyncpg", query=query)
        if url.password is None:
            url = url.set(password=info.data.get("database_password"))
        return url.render_as_string(hide_password=False)

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not re.fullmatch(r"\*|https?://[^/\s]+", origin):
                raise ValueError(f"{origin!r} is no origin such as https://www.example.com")
        return origins

    @field_validator("iframe_hosts")
    @classmethod
    def _host_names(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host):
                raise ValueError(f"{host!r} is no host name such as www.youtube-nocookie.com")
        return hosts

    @field_validator("secret_key")
    @classmethod
    def _one_secret(cls, value: str) -> str:
        if "," in value or value != value.strip():  # it will be one of SECRET_KEYS_PREVIOUS
            raise ValueError("must have no comma, and no spaces around it")
        return value

    @field_validator("public_url", "api_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must look like https://www.example.com")
        return value.rstrip("/")

    @field_validator("article_path", "author_path", "tag_path")
    @classmethod
    def _path_with_a_name(cls, value: str, info: ValidationInfo) -> str:
        name = {"article_path": "{slug}", "author_path": "{username}", "tag_path": "{slug}"}
        placeholder = name[str(info.field_name)]
        if not re.fullmatch(rf"/[^\s{{}}#]*{re.escape(placeholder)}[^\s{{}}]*", value):
            raise ValueError(f"must be a path with {placeholder} in it")
        return value

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, value: str) -> str:
        if not re.fullmatch(r"[^\x00-\x1f\x7f@]*[^\s<>@]+@[^\s<>@]+>?", value):
            raise ValueError("must look like Pressroom <pressroom@example.com>")
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        level = value.upper()
        if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return level

    def limit_of(self, kind: LimitKind) -> Limit | None:
        """The limit of an author; None where there is none."""
        if kind is LimitKind.MEDIA_BYTES:
            return Limit(self.media_quota_bytes)
        return self.limits.get(kind, DEFAULTS[kind])

    @model_validator(mode="after")
    def _need_a_key_to_sign_with(self) -> Self:
        if self.jwt_algorithm is not Algorithm.HS256 and self.jwt_private_key_file is None:
            raise ValueError(
                f"JWT_ALGORITHM={self.jwt_algorithm} needs JWT_PRIVATE_KEY_FILE; set neither, and "
                f"`pressroom keys rotate --algorithm {self.jwt_algorithm}` makes one"
            )
        return self

    @model_validator(mode="after")
    def _keep_fewer_later(self) -> Self:
        if self.revisions_daily_days < self.revisions_all_days:
            raise ValueError("REVISIONS_DAILY_DAYS must not be less than REVISIONS_ALL_DAYS")
        return self

    @model_validator(mode="after")
    def _frame_no_host_of_ours(self) -> Self:
        """Refuse our own hosts: a sandbox cannot isolate a frame of the same origin."""
        own = {urlsplit(self.public_url).hostname, urlsplit(self.api_url).hostname}
        if shared := own.intersection(self.iframe_hosts):
            raise ValueError(f"IFRAME_HOSTS has the host of PUBLIC_URL or API_URL: {shared.pop()}")
        return self

    @model_validator(mode="after")
    def _refuse_unsafe_production(self) -> Self:
        if self.environment is not Environment.PRODUCTION:
            return self
        if problems := self._production_problems():
            raise ValueError("unsafe for ENVIRONMENT=production: " + "; ".join(problems))
        return self

    def _production_problems(self) -> list[str]:
        problems = []
        if "secret_key" not in self.model_fields_set:
            problems.append("SECRET_KEY is missing (`make env` makes one)")
        elif self.secret_key in EXAMPLE_SECRETS:
            problems.append("SECRET_KEY is the example from the documentation")
        elif len(self.secret_key.encode()) < MIN_SECRET_BYTES:
            problems.append(f"SECRET_KEY is shorter than {MIN_SECRET_BYTES} bytes")
        if any(
            secret in EXAMPLE_SECRETS or len(secret.encode()) < MIN_SECRET_BYTES
            for secret in self.secret_keys_previous
        ):
            problems.append(
                f"SECRET_KEYS_PREVIOUS has an example or one shorter than {MIN_SECRET_BYTES} bytes"
            )
        if self.debug:
            problems.append("DEBUG is on")
        if any("*" in host.removeprefix("*.") for host in self.allowed_hosts):
            problems.append("ALLOWED_HOSTS has a wildcard; name the hosts you serve")
        if any("*" in origin for origin in self.cors_origins):
            problems.append("CORS_ORIGINS has a wildcard; name the origins of your front ends")
        if self.database_url is None:
            problems.append("DATABASE_URL is missing")
        return [
            *problems,
            *self._password_problems(),
            *self._mail_problems(),
            *self._media_problems(),
        ]

    def _password_problems(self) -> list[str]:
        urls = {"DATABASE_URL": self.database_url, "DATABASE_READ_URL": self.database_read_url}
        return [
            f"{name} has a password from an example; change it"
            ' (docs/operations.md, "The database\'s password")'
            for name, url in urls.items()
            if url is not None and make_url(url).password in EXAMPLE_PASSWORDS
        ]

    def _media_problems(self) -> list[str]:
        """Production may keep pictures in a bucket, but not half of one."""
        own = {"S3_ACCESS_KEY_ID": self.s3_access_key_id} | {
            "S3_SECRET_ACCESS_KEY": self.s3_secret_access_key
        }
        if self.s3_bucket is None:
            others = {**own, "S3_ENDPOINT_URL": self.s3_endpoint_url}
            return [f"{name} needs S3_BUCKET" for name, value in others.items() if value]
        missing = [name for name, value in own.items() if value is None]
        return [f"{missing[0]} is missing"] if len(missing) == 1 else []

    def _mail_problems(self) -> list[str]:
        """Production may go without mail, but not half with it."""
        if self.smtp_host is None:
            needs_mail = {
                "REGISTRATION=by_email": self.registration is Registration.BY_EMAIL,
                "REQUIRE_VERIFIED_EMAIL": self.require_verified_email,
            }
            return [f"{name} needs SMTP_HOST" for name, needed in needs_mail.items() if needed]
        problems = [
            f"{name.upper()} is missing: mail goes out with it"
            for name in ("public_url", "mail_from")
            if name not in self.model_fields_set
        ]
        if "public_url" in self.model_fields_set:
            if self.public_url.startswith("http:"):
                problems.append("PUBLIC_URL is not https: its links carry tokens")
            if _is_local(self.public_url):
                problems.append("PUBLIC_URL is on this machine: mail sends readers there")
        if self.smtp_username and self.smtp_security is SmtpSecurity.NONE:
            problems.append("SMTP_SECURITY=none would send SMTP_PASSWORD in the clear")
        return problems

    def warnings(self) -> list[str]:
        """Sentences about settings that are probably mistakes: unknown names, local addresses."""
        found = unknown_names()
        if self.environment is Environment.PRODUCTION:
            urls = {
                "API_URL": (self.api_url, "media and feeds"),
                "PUBLIC_URL": (self.public_url, "feeds and the sitemap"),
            }
            found += [
                f"{name} is {url}: the addresses in {where} work on this machine only"
                for name, (url, where) in urls.items()
                if _is_local(url)
            ]
        return found


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    local = {"localhost", "::1", "0.0.0.0"}  # noqa: S104 - compared, not bound
    return host in local or host.endswith(".localhost") or host.startswith("127.")


def unknown_names() -> list[str]:
    """A sentence for each name in `.env` that nothing reads."""
    file = Settings.model_config.get("env_file")
    if not isinstance(file, Path) or not file.is_file():
        return []
    settings = {*Settings.model_fields, *sources.ALIASES, *(f"{name}_file" for name in SECRETS)}
    known = settings | sources.names_of_files(file.parent)
    return sources.unknown(map(str.lower, dotenv_values(file)), known=known)


def set_outside_of_dotenv(names: Iterable[str]) -> list[str]:
    """The variables among `names`, with or without `_FILE`, that the environment sets."""
    return [
        variable
        for name in names
        for variable in (name, f"{name}_FILE")
        if os.environ.get(variable)
    ]


class SetupError(RuntimeError):
    """Something about this installation has to be mended; the message says what."""


class SettingsError(SetupError):
    """The environment's settings cannot be used; the message names every reason."""


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read on the first call. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        reasons = (
            describe(finding, naming=str.upper)
            for finding in error.errors()
            if finding["type"] != "default_factory_not_called"  # it follows from another finding
        )
        raise SettingsError("; ".join(reasons)) from None


def describe(finding: ErrorDetails, *, naming: Callable[[str], str] = str) -> str:
    """One of Pydantic's findings as a sentence; `naming` makes of the field what people call it."""
    name = naming(".".join(str(part) for part in finding["loc"]))
    reason = finding["msg"].removeprefix("Value error, ")
    return f"{name}: {reason}" if name else reason
