"""Mail transports: SMTP, and the log for development."""

import asyncio
from email.message import EmailMessage
from email.utils import parseaddr

import aiosmtplib

from app.core.config import Settings, SmtpSecurity
from app.core.logging import get_logger
from app.services.accounts.mail_delivery import DeliveryError, SendMail

logger = get_logger(__name__)

RESPONSE_TIMEOUT_SECONDS = 30
"""Timeout for each response of the mail server. MAIL_TIMEOUT limits the whole delivery."""


def smtp_transport(settings: Settings) -> SendMail:
    """Return a transport that sends mail to SMTP_HOST.

    With SMTP_SECURITY=tls or starttls, the server's certificate must be valid.
    """
    domain = parseaddr(settings.mail_from)[1].rpartition("@")[2]

    async def send(message: EmailMessage) -> None:
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=settings.smtp_password,
            local_hostname=domain,  # the default is a DNS lookup, which could block
            timeout=RESPONSE_TIMEOUT_SECONDS,
            use_tls=settings.smtp_security is SmtpSecurity.TLS,
            start_tls=settings.smtp_security is SmtpSecurity.STARTTLS,
        )
        try:
            async with asyncio.timeout(settings.mail_timeout), client:
                try:
                    await client.send_message(message)
                except asyncio.CancelledError:
                    client.close()  # leaving the block would wait for the response to QUIT
                    raise
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
    """Return the error type and codes; the server's text may quote addresses and content."""
    return " ".join([type(error).__name__, *map(str, codes)])


async def log_transport(message: EmailMessage) -> None:
    """Log a mail instead of sending it, for development."""
    logger.info(f"Mail to {message['To']}: {message['Subject']}\n\n{message.get_content()}")
