"""/dev/mailbox: the latest mails with their texts; mounted only in development."""

from collections.abc import Sequence
from html import escape

from fastapi import APIRouter, Depends
from starlette.responses import HTMLResponse

from app.db.dependencies import ReadConnection
from app.http.routing import no_store
from app.schemas.mail import MailboxEntry
from app.services import outbox

router = APIRouter(prefix="/dev", include_in_schema=False, dependencies=[Depends(no_store)])

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mailbox</title>
</head>
<body>
<h1>Mailbox</h1>
<p>The latest mails of this installation, the newest first.</p>
{entries}
</body>
</html>
"""
ENTRY = """<article>
<h2>{subject}</h2>
<p>To {email}, {created_at:%Y-%m-%d %H:%M:%S} UTC: {state}</p>
<pre>{text}</pre>
</article>
"""


@router.get("/mailbox")
async def read_mailbox(connection: ReadConnection) -> HTMLResponse:
    """Show the latest mails as a page."""
    entries = await outbox.list_mailbox(connection)
    rendered = "\n".join(map(_render, entries)) or "<p>There are no mails.</p>"
    return HTMLResponse(PAGE.format(entries=rendered), headers={"Cache-Control": "no-store"})


@router.get("/mailbox.json")
async def list_mailbox(connection: ReadConnection) -> Sequence[MailboxEntry]:
    """List the latest mails as JSON."""
    return await outbox.list_mailbox(connection)


def _render(entry: MailboxEntry) -> str:
    return ENTRY.format(
        subject=escape(entry.subject or entry.kind),
        email=escape(entry.email),
        created_at=entry.created_at,
        state=escape(_state(entry)),
        text=escape(entry.text or ""),
    )


def _state(entry: MailboxEntry) -> str:
    if entry.sent_at is not None:
        return "sent"
    if entry.next_attempt_at is not None:
        return f"queued ({entry.error})" if entry.error else "queued"
    return f"not sent ({entry.error})"
