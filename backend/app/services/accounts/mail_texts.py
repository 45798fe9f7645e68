"""Texts of mails. They contain no user input, because a name could look like a message of ours."""

from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from enum import Enum
from typing import NamedTuple

from email_validator import EmailNotValidError, validate_email

from app.core import clock
from app.core.config import Settings
from app.core.enums import Purpose


class Text(NamedTuple):
    """A subject and a body. The body may contain `{link}` with the token and `{site}`."""

    subject: str
    body: str


class MailText(Enum):
    """The texts of all mails."""

    REGISTER = Text(
        "Confirm your registration at Pressroom",
        """Someone, probably you, registered at Pressroom with this email address.

To create the account, open this link within one hour. It asks for the password that you chose:

{link}

If it was not you, ignore this mail. No account is created without the link.
""",
    )
    ALREADY_REGISTERED = Text(
        "You already have an account at Pressroom",
        """Someone, probably you, tried to register at Pressroom with this email address. It already
has an account, and nothing has changed.

If you do not remember the password, choose a new one:

{site}/forgot-password

If it was not you, ignore this mail.
""",
    )
    VERIFY_EMAIL = Text(
        "Verify your email address for Pressroom",
        """Someone, probably you, used this email address for an account at Pressroom.

To verify the address, open this link within one hour. Unless you are signed in, it asks for the
password of the account:

{link}

If it was not you, ignore this mail. To take over the account that someone else registered with your
address, choose a new password: {site}/forgot-password
""",
    )
    CHANGE_EMAIL = Text(
        "Confirm your new email address for Pressroom",
        """Someone, probably you, wants to use this email address for their account at Pressroom.

To confirm the change, open this link within one hour. Unless you are signed in, it asks for the
password of the account:

{link}

If it was not you, ignore this mail. Nothing changes without the link.
""",
    )
    EMAIL_IN_USE = Text(
        "Someone tried to use your email address at Pressroom",
        """Someone tried to use this email address for another account at Pressroom. They were not
told that it is in use, and nothing has changed.

If it was you: this address already belongs to another account of yours.
""",
    )
    RESET_PASSWORD = Text(
        "Choose a new password for Pressroom",
        """Someone, probably you, requested a new password for your account at Pressroom.

To choose a new one, open this link within one hour:

{link}

If it was not you, ignore this mail. Your password stays the same.
""",
    )
    PASSWORD_CHANGED = Text(
        "Your password at Pressroom was changed",
        """The password of your account at Pressroom was changed, and all other sessions were logged
out. API keys still work. Check them, and delete those that you do not recognize.

If it was not you, choose a new password at once:

{site}/forgot-password
""",
    )
    EMAIL_CHANGED = Text(
        "Your email address at Pressroom was changed",
        """The email address of your account at Pressroom was changed. This mail went to the
previous address, which gets no further mails.

If it was not you, contact the operator of this installation at once:

{site}
""",
    )
    WEBHOOK_DISABLED = Text(
        "A webhook of yours at Pressroom was disabled",
        """The receiver of one of your webhooks did not accept messages for three days, or refused
them for good. The webhook was disabled. Its log shows why: GET /webhooks lists your webhooks.

Once the receiver works again, enable the webhook. It then gets the events of the last two weeks
that it has missed.

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
    """Return the link for a token. The token is in the fragment, which is not sent to servers."""
    return f"{settings.account_url}/{PAGES[purpose]}#token={token}"


def compose(
    text: MailText, *, recipient: str, settings: Settings, link: str | None = None
) -> EmailMessage:
    """Return the message to `recipient`."""
    subject, body = text.value
    sender = parseaddr(settings.mail_from)[1]
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = _deliverable(recipient)
    message["Subject"] = subject
    message["Date"] = format_datetime(clock.now())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: prevents automatic replies
    content = body.format(link=link, site=settings.account_url)
    # Without an encoding, because quoted-printable would break a long link.
    message.set_content(content, cte="7bit" if content.isascii() else None)
    return message


def _deliverable(email: str) -> str:
    """Return the address with its domain in ASCII, which every mail server accepts."""
    try:
        parts = validate_email(email, check_deliverability=False)
    except EmailNotValidError:
        return email
    return parts.ascii_email or f"{parts.local_part}@{parts.ascii_domain}"
