"""The mails' texts. Nothing in them comes from a user: a name could pass for a message of ours."""

from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from enum import Enum
from typing import NamedTuple

from email_validator import EmailNotValidError, validate_email

from app.core import clock
from app.core.config import Settings
from app.core.purposes import Purpose


class Text(NamedTuple):
    """A subject, and a body with `{link}` where the token goes, or `{site}` for the front end."""

    subject: str
    body: str


class Wording(Enum):
    """What a mail says."""

    REGISTER = Text(
        "Confirm your registration at Pressroom",
        """Somebody, probably you, registered at Pressroom with this email address.

To create the account, open this link within an hour; it will ask for the password that you have
chosen:

{link}

If it was not you, ignore this mail: nothing happens without the link.
""",
    )
    ALREADY_REGISTERED = Text(
        "You have an account at Pressroom already",
        """Somebody, probably you, registered at Pressroom with this email address, which has an
account already. Nothing has changed.

If you do not remember the password, ask for a new one:

{site}/forgot-password

If it was not you, ignore this mail.
""",
    )
    VERIFY_EMAIL = Text(
        "Verify your email address for Pressroom",
        """Somebody, probably you, gave this email address for an account at Pressroom.

To verify that it is yours, open this link within an hour; unless you are logged in, it asks for
the password of the account:

{link}

If it was not you, ignore this mail. To take over the account that somebody else has registered with
your address, ask for a new password: {site}/forgot-password
""",
    )
    CHANGE_EMAIL = Text(
        "Confirm your new email address for Pressroom",
        """Somebody, probably you, wants to use this email address for their account at Pressroom.

To change to it, open this link within an hour; unless you are logged in, it asks for the password
of the account:

{link}

If it was not you, ignore this mail: nothing changes without the link.
""",
    )
    EMAIL_IN_USE = Text(
        "Somebody tried to use your email address at Pressroom",
        """Somebody wanted to use this email address for another account at Pressroom than yours.
They were not told that it is in use, and nothing has changed.

If it was you: this address already has an account of its own.
""",
    )
    RESET_PASSWORD = Text(
        "Choose a new password for Pressroom",
        """Somebody, probably you, has forgotten the password of your account at Pressroom.

To choose a new one, open this link within an hour:

{link}

If it was not you, ignore this mail: your password stays as it is.
""",
    )
    PASSWORD_CHANGED = Text(
        "Your password at Pressroom was changed",
        """The password of your account at Pressroom was changed, and who was logged in elsewhere is
logged out. API keys keep working: look at them, and delete those that you do not know.

If it was not you, choose a new password at once:

{site}/forgot-password
""",
    )
    EMAIL_CHANGED = Text(
        "Your email address at Pressroom was changed",
        """Your account at Pressroom has another email address from now on. This mail went to the
former one; there will be no more of them.

If it was not you, tell the operator of this installation at once:

{site}
""",
    )


PAGES = {
    Purpose.RESET_PASSWORD: "reset-password",
    Purpose.VERIFY_EMAIL: "verify-email",
    Purpose.CHANGE_EMAIL: "verify-email",
    Purpose.REGISTER: "confirm-registration",
}


def link(settings: Settings, purpose: Purpose, token: str) -> str:
    """Where a token is used. In the fragment: no server, and no log of one, ever sees it."""
    return f"{settings.public_url}/{PAGES[purpose]}#token={token}"


def compose(
    wording: Wording, *, recipient: str, settings: Settings, link: str | None = None
) -> EmailMessage:
    """The mail to `recipient`, ready to be sent."""
    text = wording.value
    sender = parseaddr(settings.mail_from)[1]
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = _deliverable(recipient)
    message["Subject"] = text.subject
    message["Date"] = format_datetime(clock.now())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: nobody's absence answers it
    body = text.body.format(link=link, site=settings.public_url)
    # As it is: encoded, a long link would be cut in two.
    message.set_content(body, cte="7bit" if body.isascii() else None)
    return message


def _deliverable(email: str) -> str:
    """The address as every mail server takes it: its domain in ASCII."""
    try:
        parts = validate_email(email, check_deliverability=False)
    except EmailNotValidError:
        return email
    return parts.ascii_email or f"{parts.local_part}@{parts.ascii_domain}"
