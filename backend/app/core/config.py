"""Settings: one frozen, validated class, read once. Nothing else reads the environment."""

import json
import os
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
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

from app.core import database_url, sources
from app.core.languages import canonical_language
from app.core.limits import DEFAULTS, DEVELOPMENT_DEFAULTS, Limit, LimitKind, parse_limits
from app.core.origins import parse_origin
from app.core.validation import validation_message

BACKEND_DIR = Path(__file__).resolve().parents[2]
PROJECT_DIR = BACKEND_DIR.parent

DEVELOPMENT_SECRET = "development-only-secret-that-production-refuses"  # noqa: S105 - public
"""The default SECRET_KEY, so that several processes share one without a `.env`."""

PLACEHOLDER = "<generated>"
"""The placeholder for secrets in `.env.example`."""
EXAMPLE_SECRETS = frozenset({DEVELOPMENT_SECRET, PLACEHOLDER, "change-me", "your-secret-key-here"})
MIN_SECRET_BYTES = 32
PRIVATE_NETWORKS = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
"""nginx overwrites X-Forwarded-For with the address of its client, and only it reaches gunicorn."""
MIN_PASSWORD_LENGTH = 8
"""The minimum that production accepts for PASSWORD_MIN_LENGTH (NIST SP 800-63B-4 §3.1.1.2)."""
MAX_ATTEMPTS_PER_NAME = 100
"""The maximum that production accepts (NIST SP 800-63B-4 §3.2.2)."""
EXAMPLE_PASSWORDS = frozenset(
    {"pressroom", "postgres", "password", "change-me", "changeme", PLACEHOLDER}
)
"""Database passwords from examples; `pressroom` is the default in the compose file."""

SECRETS = frozenset(
    {
        "secret_key",
        "secret_keys_previous",
        "database_url",
        "database_direct_url",
        "database_read_url",
        "database_password",
        "database_owner_url",
        "database_owner_password",
        "database_monitor_password",
        "smtp_password",
        "s3_access_key_id",
        "s3_secret_access_key",
        "backup_key",
        "backup_s3_access_key_id",
        "backup_s3_secret_access_key",
    }
)
"""Settings that can be read from a file: SECRET_KEY_FILE=/run/secrets/secret_key."""

CommaSeparated = Annotated[list[str], NoDecode]


class Algorithm(StrEnum):
    """The signature of access tokens (RFC 7518 §3.1): a secret, or a key pair in PEM files."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"


class SmtpSecurity(StrEnum):
    """The encryption of the connection to the mail server."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class Registration(StrEnum):
    """Whether registration needs a confirmed email; BY_EMAIL also hides which emails exist."""

    OPEN = "open"
    BY_EMAIL = "by_email"


class Environment(StrEnum):
    """The environment of the process; production rejects unsafe settings."""

    DEVELOPMENT = "development"
    TEST = "test"
    PRODUCTION = "production"


def _default_cors_origins(values: dict[str, Any]) -> list[str]:
    """Return the origins of development servers on this machine; none in production."""
    if values.get("environment") is Environment.PRODUCTION:
        return []
    return ["http://localhost:*", "http://127.0.0.1:*"]


def _outside_development(values: dict[str, Any]) -> bool:
    return values.get("environment") is not Environment.DEVELOPMENT


def _outside_production(values: dict[str, Any]) -> bool:
    return values.get("environment") is not Environment.PRODUCTION


def _default_attempts_per_address(values: dict[str, Any]) -> int:
    """Return a small number, but let end-to-end tests of front ends run in development."""
    return 30 if _outside_development(values) else 3000


def _default_attempts_per_name(values: dict[str, Any]) -> int:
    return 10 if _outside_development(values) else 300


def _default_local_url(values: dict[str, Any]) -> str:
    """Return the URL of HOST and PORT for a browser on this machine."""
    host = values.get("host", "127.0.0.1")
    if host in {"127.0.0.1", "0.0.0.0", "::", "::1"}:  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{values.get('port', 8000)}"


def _default_api_url(values: dict[str, Any]) -> str:
    """Return the URL of the first host of ALLOWED_HOSTS in production, otherwise LOCAL_URL."""
    hosts = values.get("allowed_hosts", [])
    return _first_public(values, [f"https://{host}" for host in hosts]) or values["local_url"]


def _default_public_url(values: dict[str, Any]) -> str:
    """Return the first origin of CORS_ORIGINS in production, otherwise a development server."""
    return _first_public(values, values.get("cors_origins", [])) or "http://localhost:3000"


def _first_public(values: dict[str, Any], urls: Iterable[str]) -> str | None:
    """Return the first URL in production that has no wildcard and is not on this machine."""
    if values.get("environment") is not Environment.PRODUCTION:
        return None
    return next((url for url in urls if "*" not in url and not _is_local(url)), None)


class Settings(BaseSettings):
    """All settings, from the environment or from `.env` in the project folder.

    Construction raises pydantic.ValidationError. In production, one message lists all unsafe
    settings.
    """

    model_config = SettingsConfigDict(
        env_file=PROJECT_DIR / ".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # a rejected value may be a password
    )

    environment: Environment = Environment.DEVELOPMENT
    debug: bool = False
    """Whether to log every SQL statement."""
    log_level: str = "INFO"
    access_log_percent: Annotated[int, Field(ge=1, le=100)] = 100
    """Percentage of successful requests in the access log; errors are always logged."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    web_concurrency: NonNegativeInt = 0
    """Worker processes of gunicorn; 0: by processors and memory."""
    graceful_timeout: PositiveInt = 30
    """Seconds in which a worker of gunicorn finishes its requests at shutdown."""
    allowed_hosts: CommaSeparated = ["*"]
    cors_origins: CommaSeparated = Field(default_factory=_default_cors_origins)
    max_body_bytes: PositiveInt = 4 * 1024 * 1024
    public_cache_seconds: NonNegativeInt = 1
    """Seconds for which a shared cache may reuse a public response; 0 disables this."""
    security_headers: bool = True
    """Whether the backend adds security headers; turn it off behind nginx, which adds them."""
    forwarded_allow_ips: str = PRIVATE_NETWORKS
    """Proxies whose X-Forwarded-For gunicorn trusts, separated by commas; `*` for all."""

    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The port of the metrics for Prometheus; 0: no metrics."""
    metrics_host: str = "127.0.0.1"
    metrics_dir: Path | None = None
    """The folder in which processes write their metrics; defaults to a new one in memory."""
    metrics_tls_address: Annotated[str | None, Field(pattern=r"^.+:[0-9]{1,5}$")] = None
    """The host and port whose certificate the metrics show, such as `nginx:443`."""
    otel_exporter_otlp_endpoint: str | None = None
    """The URL of the collector for traces over OTLP and HTTP; without it, there are none."""
    otel_service_name: str = "pressroom"
    otel_traces_sampler: str | None = None
    """The sampler of OpenTelemetry, which reads it itself."""
    otel_traces_sampler_arg: str | None = None

    database_password: str | None = None
    """The password of DATABASE_URL, DATABASE_DIRECT_URL and DATABASE_READ_URL without one."""
    database_url: str | None = None
    """The PostgreSQL URL; without it, commands start an embedded server in `.data`."""
    database_direct_url: str | None = None
    """A URL of the primary without a pooler in transaction mode; defaults to DATABASE_URL."""
    database_read_url: str | None = None
    """The URL of replicas for reads, one host for each; defaults to DATABASE_URL."""
    database_read_max_lag: Annotated[float, Field(ge=0.2)] = 2.0
    """Seconds that a replica may be behind, and that a commit waits for the replicas."""
    database_failover_wait: NonNegativeFloat = 3.0
    """Seconds that requests wait for a new primary; only with several hosts or with replicas."""
    database_owner_password: str | None = None
    """The password of DATABASE_OWNER_URL if it contains none."""
    database_owner_url: str | None = None
    """The URL of the role that owns the tables and migrates; defaults to DATABASE_URL."""
    database_monitor_password: str | None = None
    """If set, migrations create the role `pressroom_monitor`, which reads statistics only."""
    database_pool_size: PositiveInt = 5
    """Connections per pool; each process has one pool for writing and one for reading."""
    database_pool_timeout: PositiveFloat = 5.0
    """Seconds that a request waits for a connection; then it gets 503."""
    database_connect_timeout: PositiveFloat = 5.0
    """Seconds to wait for PostgreSQL to accept a new connection."""
    database_statement_timeout: PositiveFloat = 15.0
    """Seconds after which PostgreSQL cancels a statement."""
    data_dir: Path = PROJECT_DIR / ".data"

    secret_key: str = DEVELOPMENT_SECRET
    secret_keys_previous: CommaSeparated = []
    """Former or future values of SECRET_KEY: their signatures are accepted."""
    jwt_algorithm: Algorithm = Algorithm.HS256
    jwt_private_key_file: Path | None = None
    """The PEM file that signs tokens if JWT_ALGORITHM is RS256 or ES256."""
    jwt_previous_key_files: Annotated[list[Path], NoDecode] = []
    """PEM files, public or private, whose tokens are still accepted."""
    jwt_issuer: str = "pressroom"
    jwt_audience: str = "pressroom-api"
    access_token_expire_minutes: PositiveInt = 15
    conduit_api: bool = True
    """Whether to serve the RealWorld API below /api."""
    mcp: bool = True
    """Whether to serve tools for agents at /mcp. The library is loaded at the first use."""
    conduit_token_expire_minutes: PositiveInt = 7 * 24 * 60
    """Lifetime of access tokens from /api, which has no refresh tokens."""
    session_expire_days: PositiveInt = 30
    """Maximum lifetime of a session, even if its refresh token is used."""
    session_idle_days: PositiveInt = 14
    """Lifetime of a session whose refresh token is not used."""
    bcrypt_cost: Annotated[int, Field(ge=4, le=16)] = 12
    """Base-2 logarithm of bcrypt's rounds; 12 takes about 0.2 s of one core."""
    bcrypt_threads: PositiveInt = 2

    password_min_length: Annotated[int, Field(ge=1, le=64)] = MIN_PASSWORD_LENGTH
    """Minimum characters of a new password."""
    password_refuse_common: bool = Field(default_factory=_outside_development)
    """Whether the most common passwords are refused; off in development only."""
    attempts_per_address: PositiveInt = Field(default_factory=_default_attempts_per_address)
    """Wrong passwords that one client address may send at once; separately, registrations."""
    attempts_per_name: PositiveInt = Field(default_factory=_default_attempts_per_name)
    """Wrong passwords for one login name that may be sent at once."""
    registration: Registration = Registration.OPEN
    require_verified_email: bool = False
    """Whether authors must confirm their email before they publish."""
    public_url: str = Field(default_factory=_default_public_url)
    """The URL of the front end, used for links in mails; never taken from a request."""
    smtp_host: str | None = None
    """The mail server; without it, development logs mails and lists them at /dev/mailbox."""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 587
    smtp_security: SmtpSecurity = SmtpSecurity.STARTTLS
    smtp_username: str | None = None
    smtp_password: str | None = None
    mail_from: str = "Pressroom <pressroom@localhost>"
    mail_connections: PositiveInt = 8
    """Mails that one process sends at the same time."""
    mail_timeout: Annotated[float, Field(gt=0, le=90)] = 60.0
    """Seconds for the delivery of one mail; less than mail_delivery.CLAIM_DURATION."""

    webhook_connections: Annotated[int, Field(ge=2)] = 16
    """Messages that one process sends to webhooks at the same time."""
    webhook_private_addresses: bool = False
    """Whether webhooks may have private addresses, for development and receivers beside it."""

    site_title: str = "Pressroom"
    site_description: str = ""
    """The description of feeds."""
    default_language: Annotated[str, AfterValidator(canonical_language)] = "en"
    """The language of feeds, and of articles without a language."""
    local_url: str = Field(default_factory=_default_local_url)
    """The URL of this API for a browser on this machine, used in development."""
    api_url: str = Field(default_factory=_default_api_url)
    """The public URL of this API, used in the URLs of media and feeds."""
    article_path: str = "/articles/{slug}"
    """The path of an article below PUBLIC_URL, used in feeds and the sitemap."""
    author_path: str = "/authors/{username}"
    tag_path: str = "/tags/{slug}"
    redirects_prefix: str = ""
    """The path below which old addresses of imported articles redirect; empty: nowhere."""

    web_reader: bool = Field(default_factory=_outside_production)
    """Whether to serve the reader's pages below WEB_PREFIX."""
    web_studio: bool = Field(default_factory=_outside_production)
    """Whether to serve the pages of writers and administrators below /studio."""
    web_prefix: str = "/read"
    """The path of the reader's home page."""
    web_featured_tag: Annotated[str, Field(min_length=1, max_length=50)] = "Featured"
    """The name of the tag whose newest articles lead the readers' home page."""
    web_theme_dir: Path | None = None
    """A folder whose `templates` and `static` replace files of the pages."""

    iframe_hosts: CommaSeparated = []
    """Hosts that articles may embed in iframes; none by default."""

    require_if_match: bool = False
    """Whether changes to resources with an ETag need `If-Match`; they get 428 without it."""
    stream_seconds: PositiveFloat = 3600
    """Maximum duration of one import, export or upload."""
    max_import_bytes: PositiveInt = 1024 * 1024 * 1024
    """Maximum size of an import over HTTP, which is stored in a file until it ends."""

    live_connections: NonNegativeInt = 5000
    """Open streams and sockets of one process; 0: none."""
    live_connections_per_user: PositiveInt = 50
    """Those of one user, in one process."""

    limits: Annotated[dict[LimitKind, Limit | None], NoDecode] = {}
    """Limits that replace the defaults; None means no limit."""

    media_dir: Path | None = None
    """The folder of images; defaults to `media` in DATA_DIR."""
    media_max_bytes: PositiveInt = 20 * 1024 * 1024
    media_max_pixels: PositiveInt = 50_000_000
    media_quota_bytes: PositiveInt = 1024 * 1024 * 1024
    """Maximum bytes of images per user."""
    media_memory_bytes: PositiveInt | None = None
    """Memory for images being processed, shared by the processes of a container. None: no limit."""
    media_keep_deleted_hours: NonNegativeInt = 24
    """Hours for which the files of deleted images are kept, without being served."""
    media_accel_redirect: bool = False
    """Whether nginx sends media files (X-Accel-Redirect) instead of the backend."""
    s3_bucket: str | None = None
    """The bucket for images, instead of MEDIA_DIR."""
    s3_endpoint_url: str | None = None
    """The endpoint of an S3-compatible service; defaults to Amazon S3."""
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = None

    backup_target: str | None = None
    """The folder of backups, or `s3://bucket/prefix`, for the command `pressroom backup`."""
    backup_key: str | None = None
    """The secret key of age that encrypts backups; without it, they are not encrypted."""
    backup_s3_endpoint_url: str | None = None
    """The endpoint of BACKUP_TARGET=s3://…; defaults to Amazon S3."""
    backup_s3_region: str = "us-east-1"
    backup_s3_access_key_id: str | None = None
    """Use other credentials than for S3_BUCKET, so that a leaked key cannot delete backups."""
    backup_s3_secret_access_key: str | None = None
    backup_hours: PositiveInt = 24
    """Hours between backups of `pressroom backup schedule`."""
    backup_verify_hours: PositiveInt = 168
    """Hours between verifications."""
    backup_keep: PositiveInt = 7
    """How many of the newest backups are kept."""
    backup_keep_days: NonNegativeInt = 30
    """All backups of these last days are kept, too."""

    revisions_all_days: NonNegativeInt = 30
    """Days for which all revisions are kept; 0 keeps them forever."""
    revisions_daily_days: NonNegativeInt = 365
    """Days for which the last revision of each day is kept; later, one per month is kept."""
    audit_days: NonNegativeInt = 400
    """Days for which audit events are kept; 0 keeps them forever."""

    raw_sql_reference: bool = False
    """Whether to serve the raw SQL users API at /raw/users, for comparison."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature of the base class
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by priority: arguments, environment, `.env`.

        Aliases and `..._FILE` variables are resolved in each source.
        """
        problems, used = [], [init_settings]
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)  # noqa: S101 - for the type checker
            source.env_vars, found = sources.resolve(
                source.env_vars, secrets=SECRETS, folder=PROJECT_DIR
            )
            problems += found
            if source.env_vars:  # an empty source takes as long as a full one
                used.append(source)
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
        return tuple(used)

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
                raise ValueError("must be a JSON list or a comma-separated list") from None
        return [item.strip() for item in value.split(",") if item.strip()]

    @field_validator("limits", mode="before")
    @classmethod
    def _parse_limits(cls, value: Any) -> Any:
        return parse_limits(value) if isinstance(value, str) else value

    @field_validator(
        "database_url", "database_direct_url", "database_read_url", "database_owner_url"
    )
    @classmethod
    def _use_asyncpg(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        is_owner = info.field_name == "database_owner_url"
        password = info.data.get("database_owner_password" if is_owner else "database_password")
        return database_url.normalize(
            value,
            password=password,
            folder=PROJECT_DIR,
            needs_primary=info.field_name != "database_read_url",
        )

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        return [parse_origin(origin) for origin in origins]

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", host):
                raise ValueError(
                    f"{host!r} must be a host name such as blog.example.com, without a scheme, a "
                    "port or a path; *.example.com is allowed"
                )
        return hosts

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _check_networks(cls, networks: str) -> str:
        for network in networks.split(","):
            try:
                if network.strip() != "*":
                    ip_network(network.strip())
            except ValueError:
                raise ValueError(
                    f"{network.strip()!r} must be an IP address, or a network such as 172.16.0.0/12"
                ) from None
        return networks

    @field_validator("iframe_hosts")
    @classmethod
    def _check_host_names(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host):
                raise ValueError(
                    f"{host!r} must be a lower-case host name such as www.youtube-nocookie.com"
                )
        return hosts

    @field_validator("secret_key")
    @classmethod
    def _check_secret_key(cls, value: str) -> str:
        # Rotation adds it to SECRET_KEYS_PREVIOUS, a comma-separated list.
        if "," in value or value != value.strip():
            raise ValueError("must not contain commas or start or end with spaces")
        return value

    @property
    def names_front_end(self) -> bool:
        """Whether links to articles lead to a front end, not to the pages below WEB_PREFIX."""
        has_paths = bool(self.model_fields_set & {"article_path", "author_path", "tag_path"})
        return self.names_public_url or has_paths or not self.web_reader

    def page_urls(self, base_url: str) -> dict[str, str]:
        """Return the URLs of the readers' home page and of the studio, if these are served."""
        readers = {"Pages": base_url + self.web_prefix} if self.web_reader else {}
        return readers | ({"Studio": f"{base_url}/studio"} if self.web_studio else {})

    @property
    def names_public_url(self) -> bool:
        """Whether PUBLIC_URL is set, or is the URL of a front end in CORS_ORIGINS."""
        return "public_url" in self.model_fields_set or not _is_local(self.public_url)

    @field_validator("public_url", "local_url", "api_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must look like https://www.example.com")
        return value.rstrip("/")

    @field_validator("article_path", "author_path", "tag_path")
    @classmethod
    def _check_path_template(cls, value: str, info: ValidationInfo) -> str:
        placeholders = {"article_path": "{slug}", "author_path": "{username}", "tag_path": "{slug}"}
        placeholder = placeholders[str(info.field_name)]
        if not re.fullmatch(rf"/[^\s{{}}#]*{re.escape(placeholder)}[^\s{{}}]*", value):
            raise ValueError(f"must be a path that contains {placeholder}")
        return value

    @field_validator("redirects_prefix")
    @classmethod
    def _check_redirects_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"((/[A-Za-z0-9._~-]*[A-Za-z0-9_~-])+/?)?", value):
            raise ValueError("must be a path such as /old")
        return value.rstrip("/")

    @field_validator("web_prefix")
    @classmethod
    def _check_web_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"(/[A-Za-z0-9_-]+)+/?", value):
            raise ValueError("must be a path such as /read")
        return value.rstrip("/")

    @field_validator("mail_from")
    @classmethod
    def _check_sender(cls, value: str) -> str:
        if not re.fullmatch(r"[^\x00-\x1f\x7f@]*[^\s<>@]+@[^\s<>@]+>?", value):
            raise ValueError("must look like Pressroom <pressroom@example.com>")
        return value

    @field_validator("log_level")
    @classmethod
    def _check_log_level(cls, value: str) -> str:
        level = value.upper()
        if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return level

    def certificate_files(self) -> list[Path]:
        """Return the files with certificates that the URLs of databases name."""
        urls = (
            self.database_url,
            self.database_direct_url,
            self.database_read_url,
            self.database_owner_url,
        )
        files = {make_url(url).query.get("sslrootcert") for url in urls if url is not None}
        return [Path(str(file)) for file in files if file is not None]

    def limit_of(self, kind: LimitKind) -> Limit | None:
        """Return the limit of an author, or None without a limit."""
        if kind is LimitKind.MEDIA_BYTES:
            return Limit(self.media_quota_bytes)
        development = self.environment is Environment.DEVELOPMENT
        defaults = DEVELOPMENT_DEFAULTS if development else DEFAULTS
        return self.limits.get(kind, defaults[kind])

    @model_validator(mode="after")
    def _require_signing_key(self) -> Self:
        if self.jwt_algorithm is not Algorithm.HS256 and self.jwt_private_key_file is None:
            raise ValueError(
                f"JWT_ALGORITHM={self.jwt_algorithm} needs JWT_PRIVATE_KEY_FILE; remove "
                "JWT_ALGORITHM and run "
                f"`pressroom keys rotate --algorithm {self.jwt_algorithm}` to create a key "
                "(for containers, see docs/operations/keys.md)"
            )
        return self

    @model_validator(mode="after")
    def _check_revision_days(self) -> Self:
        if self.revisions_daily_days < self.revisions_all_days:
            raise ValueError("REVISIONS_DAILY_DAYS must not be less than REVISIONS_ALL_DAYS")
        return self

    @model_validator(mode="after")
    def _check_iframe_hosts(self) -> Self:
        """Reject the hosts of this site: a sandbox cannot isolate a frame of the same origin."""
        site_hosts = {urlsplit(self.public_url).hostname, urlsplit(self.api_url).hostname}
        if shared := site_hosts.intersection(self.iframe_hosts):
            raise ValueError(
                f"IFRAME_HOSTS must not contain the host of PUBLIC_URL or API_URL: {shared.pop()}"
            )
        return self

    @model_validator(mode="after")
    def _reject_unsafe_production(self) -> Self:
        if self.environment is not Environment.PRODUCTION:
            return self
        if problems := self._production_problems():
            raise ValueError("unsafe for ENVIRONMENT=production: " + "; ".join(problems))
        return self

    def _production_problems(self) -> list[str]:
        problems = []
        if "secret_key" not in self.model_fields_set:
            problems.append("SECRET_KEY is missing (`make env` creates one)")
        elif self.secret_key in EXAMPLE_SECRETS:
            problems.append("SECRET_KEY is the example from the documentation")
        elif len(self.secret_key.encode()) < MIN_SECRET_BYTES:
            problems.append(f"SECRET_KEY is shorter than {MIN_SECRET_BYTES} bytes")
        if any(
            secret in EXAMPLE_SECRETS or len(secret.encode()) < MIN_SECRET_BYTES
            for secret in self.secret_keys_previous
        ):
            problems.append(
                "SECRET_KEYS_PREVIOUS contains an example secret or one shorter than "
                f"{MIN_SECRET_BYTES} bytes"
            )
        if self.debug:
            problems.append("DEBUG is on")
        if "*" in self.allowed_hosts:
            problems.append("ALLOWED_HOSTS has a wildcard; list the hosts that you serve")
        if any("*" in origin for origin in self.cors_origins):
            problems.append("CORS_ORIGINS has a wildcard; list the origins of your front ends")
        if self.database_url is None:
            problems.append("DATABASE_URL is missing")
        return [
            *problems,
            *self._guessing_problems(),
            *self._password_problems(),
            *self._url_problems(),
            *self._mail_problems(),
            *self._media_problems(),
        ]

    def _guessing_problems(self) -> list[str]:
        """Return the settings that make it easy to guess the passwords of users."""
        problems = {
            f"PASSWORD_MIN_LENGTH is less than {MIN_PASSWORD_LENGTH}": (
                self.password_min_length < MIN_PASSWORD_LENGTH
            ),
            "PASSWORD_REFUSE_COMMON is off": not self.password_refuse_common,
            f"ATTEMPTS_PER_NAME is more than {MAX_ATTEMPTS_PER_NAME}": (
                self.attempts_per_name > MAX_ATTEMPTS_PER_NAME
            ),
        }
        return [problem for problem, found in problems.items() if found]

    def _password_problems(self) -> list[str]:
        urls = {
            "DATABASE_URL": self.database_url,
            "DATABASE_DIRECT_URL": self.database_direct_url,
            "DATABASE_READ_URL": self.database_read_url,
            "DATABASE_OWNER_URL": self.database_owner_url,
        }
        problems = [
            f"{name} has a password from an example; change it (docs/operations/database.md)"
            for name, url in urls.items()
            if url is not None and make_url(url).password in EXAMPLE_PASSWORDS
        ]
        if self.database_monitor_password in EXAMPLE_PASSWORDS:
            problems.append(
                "DATABASE_MONITOR_PASSWORD is an example; change it (docs/operations/observe.md)"
            )
        return problems

    @property
    def account_url(self) -> str:
        """The URL above the pages to which links in mails lead: PUBLIC_URL, or our studio.

        The studio's pages are used if no front end is named.
        """
        if self.names_public_url or not self.web_studio:
            return self.public_url
        return f"{self.api_url}/studio"

    @property
    def preview_url(self) -> str:
        """The URL above the pages of preview links: that of PUBLIC_URL, or our studio's."""
        name = "preview" if self.account_url == self.public_url else "previews"
        return f"{self.account_url}/{name}"

    def _url_problems(self) -> list[str]:
        """Return which public URLs only work on this machine."""
        urls = {
            "API_URL": (self.api_url, "media and feeds", "ALLOWED_HOSTS"),
            "PUBLIC_URL": (self.public_url, "mails, feeds and the sitemap", "CORS_ORIGINS"),
        }
        return [
            f"{name} is {url}, which works on this machine only: {used_in} contain it"
            f" (the default is the first of {source})"
            for name, (url, used_in, source) in urls.items()
            if _is_local(url) and not (name == "PUBLIC_URL" and self._serves_all_pages)
        ]

    @property
    def _serves_all_pages(self) -> bool:
        """Whether our pages replace a front end that is not named."""
        return self.web_reader and self.web_studio and not self.names_public_url

    def _media_problems(self) -> list[str]:
        """Return what is missing from an incomplete S3 configuration."""
        credentials = {"S3_ACCESS_KEY_ID": self.s3_access_key_id} | {
            "S3_SECRET_ACCESS_KEY": self.s3_secret_access_key
        }
        if self.s3_bucket is None:
            needs_bucket = {**credentials, "S3_ENDPOINT_URL": self.s3_endpoint_url}
            return [f"{name} needs S3_BUCKET" for name, value in needs_bucket.items() if value]
        missing = [name for name, value in credentials.items() if value is None]
        return [f"{missing[0]} is missing"] if len(missing) == 1 else []

    def _mail_problems(self) -> list[str]:
        """Return what is missing from, or unsafe in, the mail configuration."""
        if self.smtp_host is None:
            needs_mail = {
                "REGISTRATION=by_email": self.registration is Registration.BY_EMAIL,
                "REQUIRE_VERIFIED_EMAIL": self.require_verified_email,
            }
            return [f"{name} needs SMTP_HOST" for name, needed in needs_mail.items() if needed]
        problems = []
        if "mail_from" not in self.model_fields_set:
            problems.append("MAIL_FROM is missing: mails contain it")
        if self.names_public_url and self.public_url.startswith("http:"):
            problems.append("PUBLIC_URL must use https: links in mails contain tokens")
        if self.smtp_username and self.smtp_security is SmtpSecurity.NONE:
            problems.append("SMTP_SECURITY=none would send SMTP_PASSWORD unencrypted")
        return problems


def _is_local(url: str) -> bool:
    """Return whether the host of a URL is this machine."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def unknown_names() -> list[str]:
    """Return a message for each name in `.env` that is not used."""
    file = Settings.model_config.get("env_file")
    if not isinstance(file, Path) or not file.is_file():
        return []
    settings = {*Settings.model_fields, *sources.ALIASES, *(f"{name}_file" for name in SECRETS)}
    known = settings | sources.names_in_files(file.parent)
    return sources.unknown_name_warnings(map(str.lower, dotenv_values(file)), known=known)


def environment_overrides(names: Iterable[str]) -> list[str]:
    """Return the variables among `names`, with or without `_FILE`, that the environment sets."""
    return [
        variable
        for name in names
        for variable in (name, f"{name}_FILE")
        if os.environ.get(variable)
    ]


class SetupError(RuntimeError):
    """The operator must fix this installation; the message says what is wrong."""


class SettingsError(SetupError):
    """The settings are invalid; the message lists every reason."""


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read on the first call. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        reasons = (
            describe(details, format_name=str.upper)
            for details in error.errors()
            if details["type"] != "default_factory_not_called"  # it follows from another error
        )
        raise SettingsError("; ".join(reasons)) from None


def describe(details: ErrorDetails, *, format_name: Callable[[str], str] = str) -> str:
    """Return a Pydantic error as `field: reason`; `format_name` converts the field's name."""
    name = format_name(".".join(str(part) for part in details["loc"]))
    reason = validation_message(details)
    return f"{name}: {reason}" if name else reason
