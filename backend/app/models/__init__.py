"""SQLAlchemy models. Importing this package registers every table with the metadata."""

from app.models.account_token import AccountToken
from app.models.address import Address
from app.models.api_key import ApiKey
from app.models.article import Article
from app.models.attempt import Attempt
from app.models.audit import AuditEvent
from app.models.mail import Mail
from app.models.second_factor import RecoveryCode, SecondFactor
from app.models.session import UserSession
from app.models.user import User

__all__ = [
    "AccountToken",
    "Address",
    "ApiKey",
    "Article",
    "Attempt",
    "AuditEvent",
    "Mail",
    "RecoveryCode",
    "SecondFactor",
    "User",
    "UserSession",
]
