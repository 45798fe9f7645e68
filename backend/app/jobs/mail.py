"""How a mail leaves the house: by SMTP, or into the log of who develops."""

import asyncio
from email.message import EmailMessage
from email.utils import parseaddr

import aiosmtplib

from app.core.config import Settings, SmtpSecurity
from app.core.logging import get_logger
from app.services.mail_delivery import DeliveryError, SendMail

logger = get_logger(__name__)

TIMEOUT_SECONDS = 15
"""For each answer of the mail server."""
LONGEST_SECONDS = 60
"""For all of them; within services.mail_delivery.CLAIM_DURATION."""


def by_smtp(settings: Settings) -> SendMail:
    """Hands mails to SMTP_HOST; its certificate has to be good where SMTP_SECURITY asks for one."""
    domain = parseaddr(settings.mail_from)[1].rpartition("@")[2]

    async def send(message: EmailMessage) -> None:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await aiosmtplib.send(
                    message,
                    hostname=settings.smtp_host,
                    port=settings.smtp_port,
                    username=settings.smtp_username,
                    password=settings.smtp_password,
                    local_hostname=domain,  # looking our own name up could block
                    timeout=TIMEOUT_SECONDS,
                    use_tls=settings.smtp_security is SmtpSecurity.TLS,
                    start_tls=settings.smtp_security is SmtpSecurity.STARTTLS,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [refused.code for refused in error.recipients]
            raise DeliveryError(
                _reason(error, *codes), permanent=all(code >= 500 for code in codes)
            ) from None
        except aiosmtplib.SMTPResponseException as error:
            raise DeliveryError(_reason(error, error.code)) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise DeliveryError(_reason(error)) from None

    return send


def _reason(error: Exception, *codes: int) -> str:
    """Kind and codes alone: what a mail server says may quote whom and what a mail was for."""
    return " ".join([type(error).__name__, *map(str, codes)])


async def into_the_log(message: EmailMessage) -> None:
    """Print a mail, for development."""
    logger.info(f"Mail to {message['To']}: {message['Subject']}\n\n{message.get_content()}")
