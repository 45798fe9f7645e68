"""The server: health, jobs, the audit trail, mails and settings."""

from collections.abc import Mapping

from fastapi import Request, Response

from app import __version__
from app.core.config import get_settings
from app.core.errors import ServiceUnavailable, UserNotFound
from app.core.job_states import JobState
from app.db.dependencies import CurrentDatabase, ReadConnection
from app.db.reading import Reader
from app.http.routing import allowed_in_maintenance
from app.schemas.audit import AuditQuery
from app.schemas.health import Readiness
from app.schemas.mail import MailQuery
from app.schemas.maintenance import MAX_MESSAGE, MaintenanceUpdate
from app.services import health, maintenance, operations, outbox
from app.services.accounts import users
from app.web.administration.access import Administrator
from app.web.administration.labels import ACTIONS, MAIL_STATES, MAILS, SUBJECTS
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.localization import ngettext
from app.web.queries import read_query
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageWriteSession

router = create_router()

HEALTH = "/studio/admin"
MAILBOX = "/studio/admin/mails"
PAGE_SIZE = 50
MAX_UNSENT = 1000
NOBODY = 2**63 - 1
"""An id that no user has. It matches no audit event."""


@router.get(HEALTH)
async def show_health(
    request: Request, database: CurrentDatabase, reader: ReadConnection, user: Administrator
) -> Response:
    """Show what the probes and the background jobs say."""
    readiness: Readiness | None = None
    reason = ""
    try:
        readiness = await health.check_readiness(database)
    except ServiceUnavailable as error:
        reason = str(error)
    jobs: Mapping[str, JobState] = request.app.state.jobs
    return page(
        request,
        "administration/health.html",
        version=__version__,
        readiness=readiness,
        reason=reason,
        state=await health.read_state(database),
        jobs=jobs,
        sends_mail=get_settings().smtp_host is not None,
        unsent=len(await outbox.list_unsent(reader, limit=MAX_UNSENT)),
        maintenance=await maintenance.get_maintenance(database, user=user),
        max_message=MAX_MESSAGE,
    )


@router.post("/studio/admin/maintenance")
@form_page(HEALTH)
@allowed_in_maintenance
async def begin_maintenance(
    form: SubmittedForm, session: PageWriteSession, user: Administrator
) -> Response:
    """Refuse writes, or change the sentence."""
    await maintenance.begin(session, new=form.read(MaintenanceUpdate), actor=user)
    text = _("The server is in maintenance: changes are refused in a second or two.")
    return redirect(HEALTH, flash=text, kind="warning")


@router.post("/studio/admin/maintenance/end")
@form_page(HEALTH)
@allowed_in_maintenance
async def end_maintenance(session: PageWriteSession, user: Administrator) -> Response:
    """Accept writes again."""
    await maintenance.end(session, actor=user)
    return redirect(HEALTH, flash=_("The maintenance has ended."))


@router.get("/studio/admin/audit")
async def show_audit_trail(
    request: Request, reader: ReadConnection, user: Administrator
) -> Response:
    """Show recorded actions that match the filters."""
    actor = request.query_params.get("actor", "").strip()
    try:
        actor_id = await _find_actor(reader, actor)
    except UserNotFound:
        actor_id = NOBODY
    query = read_query(request, AuditQuery, limit=PAGE_SIZE, actor=actor_id)
    listed = await operations.list_events(reader, query=query, user=user)
    return page(
        request,
        "administration/audit.html",
        events=listed.items,
        actor=actor,
        query=query,
        actions=sorted(((code, _(label)) for code, label in ACTIONS.items()), key=lambda x: x[1]),
        labels=ACTIONS,
        subjects=SUBJECTS,
        following=listed.next,
    )


async def _find_actor(reader: Reader, text: str) -> int | None:
    """Return the id of a user by number, username or email; None without a text.

    `@` in front of a username of digits tells it from a number. Raises UserNotFound.
    """
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if not text.isprintable():
        raise UserNotFound
    return await users.find_user_id(reader, name=text.removeprefix("@"))


@router.get(MAILBOX)
async def show_mails(request: Request, reader: ReadConnection, user: Administrator) -> Response:
    """Show the mail queue."""
    query = read_query(request, MailQuery, limit=PAGE_SIZE)
    listed = await operations.list_mails(reader, query=query, user=user)
    return page(
        request,
        "administration/mails.html",
        mails=listed.items,
        query=query,
        kinds=MAILS,
        states=MAIL_STATES,
        following=listed.next,
    )


@router.post("/studio/admin/mails/requeue")
async def requeue(form: SubmittedForm, session: PageWriteSession, user: Administrator) -> Response:
    """Send the chosen failed mails again, or all of the last day."""
    chosen = None
    if not form.flag("all"):
        numbers = [value for value in form.list("mails") if value.isascii() and value.isdigit()]
        chosen = [int(value) for value in numbers if len(value) < 19]
        if not chosen:
            return redirect(MAILBOX, flash=_("Choose at least one mail."), kind="warning")
    count = await outbox.requeue(session, mail_ids=chosen, actor=user)
    if not count:
        text = _("None of these mails can be sent again: they are too old, or were sent.")
        return redirect(MAILBOX, flash=text, kind="warning")
    text = ngettext("%(num)s mail is queued again.", "%(num)s mails are queued again.", count)
    return redirect(MAILBOX, flash=text % {"num": count})


@router.get("/studio/admin/settings")
async def show_settings(request: Request, user: Administrator) -> Response:
    """Show the settings of the server, without secrets."""
    return page(
        request,
        "administration/settings.html",
        settings=operations.list_settings(get_settings(), user=user),
    )
