"""Checks of an installation, each with what the operator should do: `pressroom doctor`."""

import asyncio
import json
import platform
import shutil
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from email.utils import parseaddr
from enum import StrEnum
from functools import partial
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import aiosmtplib
from cryptography import x509

from app import __version__
from app.auth.keys import signing_keys
from app.core import clock
from app.core.config import Environment, Settings, SetupError, SmtpSecurity, unknown_names
from app.core.errors import ServiceUnavailable
from app.core.origins import ANY, is_listed
from app.core.plurals import counted
from app.db.failures import is_disk_full
from app.db.session import Database
from app.services import health, outbox
from app.services.media.storage import BUCKET_ADVICE, open_storage, verify
from app.services.server_health import MAX_CLOCK_SKEW_SECONDS
from app.services.space import MIN_FREE_FRACTION, min_free_bytes

TIMEOUT_SECONDS = 10
MIN_POSTGRESQL = 180000
MIN_CERTIFICATE_DAYS = 14
MAX_CONNECTIONS_FRACTION = 0.8
GIGABYTE = 1024**3


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """The result of one check: what was found, and what to do about it."""

    level: Level
    subject: str
    text: str
    advice: str = ""


Check = Callable[[], AsyncIterator[Finding]]


def ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str, advice: str) -> Finding:
    return Finding(Level.WARNING, subject, text, advice)


def problem(subject: str, text: str, advice: str) -> Finding:
    return Finding(Level.PROBLEM, subject, text, advice)


async def examine(settings: Settings, database: Database) -> Sequence[Finding]:
    """Run all checks at once. An unexpected exception of a check is a finding."""
    checks: dict[str, Check] = {
        "settings": partial(check_settings, settings),
        "database": partial(check_database, settings, database),
        "urls": partial(check_urls, settings),
        "certificates": partial(check_certificates, settings),
        "mail": partial(check_mail, settings, database),
        "storage": partial(check_storage, settings),
        "disk": partial(check_disk, settings),
    }
    results = await asyncio.gather(*(_collect(*check) for check in checks.items()))
    return [finding for findings in results for finding in findings]


async def _collect(subject: str, check: Check) -> Sequence[Finding]:
    try:
        return [finding async for finding in check()]
    except Exception as error:  # noqa: BLE001 - the other checks still run
        reason = f"the check failed: {type(error).__name__}: {error}"
        return [problem(subject, reason, "report this as a bug")]


async def check_settings(settings: Settings) -> AsyncIterator[Finding]:
    """Check the environment, unknown names in `.env`, and the signing keys."""
    version = f"Pressroom {__version__}, Python {platform.python_version()}"
    yield ok("settings", f"{version}, ENVIRONMENT={settings.environment}")
    for message in unknown_names():
        yield warning("settings", message, "correct or remove the line in .env")
    if settings.environment is not Environment.PRODUCTION:
        advice = "set ENVIRONMENT=production on a public server: unsafe settings are then refused"
        yield warning("settings", f"this is a {settings.environment} environment", advice)
    try:
        keys = signing_keys()
    except SetupError as error:
        yield problem("keys", str(error), "see docs/operations/keys.md")
    else:
        accepted = counted(len(keys.by_id), "key is accepted", "keys are accepted")
        yield ok("keys", f"{accepted}, {keys.algorithm} signs")


async def check_database(settings: Settings, database: Database) -> AsyncIterator[Finding]:
    """Check connection, version, role, connections, clock and revision."""
    try:
        state = await health.read_state(database)
    except ServiceUnavailable as error:
        cause = error.__cause__
        reason = f"not reachable: {type(cause).__name__}: {cause}" if cause else str(error)
        advice = "check DATABASE_URL, its password, and that PostgreSQL runs"
        if is_disk_full():
            advice = "free the disk of the database: docs/runbooks/disk-full.md"
        yield problem("database", reason, advice)
        return
    size = f"{state.size / GIGABYTE:.1f} GiB"
    yield ok("database", f"PostgreSQL {state.version}, {size}, role {state.role}")
    if state.version_number < MIN_POSTGRESQL:
        yield problem("database", f"PostgreSQL {state.version} is too old", "upgrade it to 18")
    if state.encoding != "UTF8":
        advice = "create the database with ENCODING 'UTF8'"
        yield problem("database", f"the encoding is {state.encoding}", advice)
    if state.is_superuser or state.may_create_tables:
        may = "is a superuser" if state.is_superuser else "may create tables"
        level = warning if settings.environment is not Environment.PRODUCTION else problem
        advice = "use a role that only reads and writes rows: docs/operations/database.md"
        yield level("database", f"the role {state.role} {may}", advice)
    if state.connections > state.max_connections * MAX_CONNECTIONS_FRACTION:
        advice = "lower DATABASE_POOL_SIZE or WEB_CONCURRENCY, or raise max_connections"
        used = f"{state.connections} of {state.max_connections} connections are in use"
        yield warning("database", used, advice)
    yield _compare_clocks(state.now - clock.system_now())
    try:
        readiness = await health.check_readiness(database)
    except ServiceUnavailable as error:
        yield problem("revision", str(error), "run `docker compose run --rm migrate`")
        return
    if readiness.ahead:
        advice = "finish the upgrade, or see docs/operations/upgrade.md to go back"
        text = f"the database is at {readiness.revision}, which a newer release has made"
        yield warning("revision", text, advice)
    else:
        yield ok("revision", f"the database is at {readiness.revision}")


def _compare_clocks(difference: timedelta) -> Finding:
    seconds = abs(difference.total_seconds())
    text = f"the clock differs from that of PostgreSQL by {seconds:.1f} s"
    if seconds > MAX_CLOCK_SKEW_SECONDS:
        return warning("clock", text, "synchronize the clocks of both machines (NTP)")
    return ok("clock", text)


async def check_urls(settings: Settings) -> AsyncIterator[Finding]:
    """Check that clients reach this API at API_URL, and that the front end may call it."""
    public, api = urlsplit(settings.public_url), urlsplit(settings.api_url)
    # Otherwise our pages are the front end, and PUBLIC_URL has no effect on links.
    has_front_end = settings.names_front_end or settings.account_url == settings.public_url
    if settings.environment is Environment.PRODUCTION:
        urls = {"API_URL": api, **({"PUBLIC_URL": public} if has_front_end else {})}
        for name, url in urls.items():
            if url.scheme != "https":
                advice = f"serve it with TLS, and set {name}=https://{url.netloc}"
                yield warning("urls", f"{name} is not https", advice)
    origin = f"{public.scheme}://{public.netloc}"
    same_origin = origin == f"{api.scheme}://{api.netloc}"
    origins = settings.cors_origins
    may_call = same_origin or is_listed(origin, origins) or ANY in origins
    if has_front_end and not may_call:
        text = f"browsers at PUBLIC_URL ({origin}) may not call the API"
        advice = "add it to CORS_ORIGINS, unless its server calls the API"
        yield warning("urls", text, advice)
    yield await asyncio.to_thread(_probe, f"{settings.api_url}/health/live")


def _probe(url: str) -> Finding:
    """Request the liveness probe, which only Pressroom answers like this."""
    advice = "check API_URL, DNS and the proxy; some networks do not reach their own public address"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - http(s) by validation
            body = json.load(response)
    except HTTPError as error:
        error.close()
        if error.code in {400, 421}:
            advice = "add the host of API_URL to ALLOWED_HOSTS"
        return problem("urls", f"{url} answers {error.code}", advice)
    except (URLError, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return warning("urls", f"{url} is not reachable from here: {reason}", advice)
    except ValueError:
        body = None
    if not isinstance(body, dict) or body.get("status") != "alive":
        return problem("urls", f"{url} is another site", advice)
    return ok("urls", f"{url} answers")


async def check_certificates(settings: Settings) -> AsyncIterator[Finding]:
    """Check how long the certificates of API_URL, PUBLIC_URL and `sslrootcert` are valid."""
    for name, address in {"API_URL": settings.api_url, "PUBLIC_URL": settings.public_url}.items():
        url = urlsplit(address)
        if url.scheme == "https" and url.hostname:
            yield await _check_server(name, url.hostname, url.port or 443)
    for path in settings.certificate_files():
        expires = min(
            each.not_valid_after_utc for each in x509.load_pem_x509_certificates(path.read_bytes())
        )
        yield _validity(str(path), expires)


async def _check_server(name: str, host: str, port: int) -> Finding:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(
                host, port, ssl=ssl.create_default_context(), server_hostname=host
            )
    except ssl.SSLCertVerificationError as error:
        advice = "install a valid certificate, with its whole chain"
        return problem("certificates", f"{name}: {error.verify_message}", advice)
    except (OSError, TimeoutError) as error:
        text = f"{name}: {host}:{port} is not reachable from here: {error!r}"
        return warning("certificates", text, "check it from another machine")
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return _validity(name, x509.load_der_x509_certificate(certificate).not_valid_after_utc)


def _validity(name: str, expires: datetime) -> Finding:
    days = (expires - clock.now()).days
    text = f"{name}: valid for {counted(days, 'day')}, until {expires:%F}"
    if days < 0:
        return problem("certificates", f"{name}: expired on {expires:%F}", "renew it now")
    if days < MIN_CERTIFICATE_DAYS:
        return warning("certificates", text, "renew it")
    return ok("certificates", text)


async def check_mail(settings: Settings, database: Database) -> AsyncIterator[Finding]:
    """Check that the mail server accepts a login, and that the queue is being delivered."""
    if settings.smtp_host is None:
        if settings.environment is Environment.PRODUCTION:
            advice = "set SMTP_HOST and MAIL_FROM"
            yield warning("mail", "no mail is sent: passwords cannot be recovered", advice)
        else:
            yield ok("mail", "mail is logged, not sent")
    else:
        yield await _log_in_to_mail_server(settings)
    try:
        unsent = await outbox.list_unsent(database.reader, limit=1000)
    except Exception as error:  # noqa: BLE001 - the database has its own check
        yield warning("mail", f"the queue is not readable: {type(error).__name__}", "see database")
        return
    waiting = [mail for mail in unsent if mail.next_attempt_at is not None]
    if waiting:
        waits = counted(len(waiting), "mail waits", "mails wait")
        text = f"{waits} after failures or for too long"
        yield warning(
            "mail", text, "`pressroom mail list` shows why; then `pressroom mail requeue`"
        )
    else:
        yield ok("mail", "no mail waits for longer than ten minutes")


async def _log_in_to_mail_server(settings: Settings) -> Finding:
    address = f"{settings.smtp_host}:{settings.smtp_port}"
    server = aiosmtplib.SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        username=settings.smtp_username,
        password=settings.smtp_password,
        local_hostname=parseaddr(settings.mail_from)[1].rpartition("@")[2],
        timeout=TIMEOUT_SECONDS,
        use_tls=settings.smtp_security is SmtpSecurity.TLS,
        start_tls=settings.smtp_security is SmtpSecurity.STARTTLS,
    )
    try:
        async with server:
            return ok("mail", f"{address} accepts the connection and the login")
    except (aiosmtplib.SMTPException, OSError) as error:
        advice = "check SMTP_HOST, SMTP_PORT, SMTP_SECURITY, SMTP_USERNAME and SMTP_PASSWORD"
        return problem("mail", f"{address}: {type(error).__name__}: {error}", advice)


async def check_storage(settings: Settings) -> AsyncIterator[Finding]:
    """Check that a file can be stored, found and deleted."""
    storage = open_storage(settings)
    where = (
        f"the bucket {settings.s3_bucket}" if settings.s3_bucket else str(storage.incoming.parent)
    )
    advice = (
        BUCKET_ADVICE
        if settings.s3_bucket
        else "the folder must be writable for this user, and have free space"
    )
    try:
        await verify(storage)
    except OSError as error:
        yield problem("storage", f"{where} does not work: {error}", advice)
    else:
        yield ok("storage", f"{where} stores and deletes files")


async def check_disk(settings: Settings) -> AsyncIterator[Finding]:
    """Check the free space of the folders that grow."""
    storage = open_storage(settings)
    folders = {storage.incoming.parent}
    if settings.database_url is None:
        folders.add(settings.data_dir)
    for folder in sorted(folders):
        if not folder.exists():
            continue
        usage = shutil.disk_usage(folder)
        text = f"{folder}: {usage.free / GIGABYTE:.1f} of {usage.total / GIGABYTE:.1f} GiB are free"
        if usage.free < min_free_bytes(usage.total):
            yield problem("disk", text, "free space or enlarge the disk")
        elif usage.free < usage.total * MIN_FREE_FRACTION:
            yield warning("disk", text, "free space or enlarge the disk soon")
        else:
            yield ok("disk", text)
    if settings.database_url is not None:
        text = "the disk of PostgreSQL is not visible from here"
        yield Finding(Level.OK, "disk", text, "look there: `df -h /var/lib/postgresql`")
