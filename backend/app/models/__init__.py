"""SQLAlchemy models. Importing this package registers every table with the metadata."""

from app.models.account_token import AccountToken
from app.models.address import Address
from app.models.api_key import ApiKey
from app.models.article import Article, FormerSlug
from app.models.attempt import Attempt
from app.models.audit import AuditEvent
from app.models.change import Change
from app.models.comment import Comment
from app.models.favorite import ArticleCounts, Favorite
from app.models.follow import Block, Follow, UserCounts
from app.models.idempotency_key import IdempotencyKey
from app.models.import_record import ImportRecord
from app.models.limit import LimitOverride, LimitUse, UploadReservation
from app.models.mail import Mail
from app.models.media import ArticleMedia, DiscardedFolder, Media
from app.models.preview_link import PreviewLink
from app.models.report import Report
from app.models.revision import ArticleRevision
from app.models.second_factor import RecoveryCode, SecondFactor
from app.models.session import UserSession
from app.models.tag import ArticleTag, Tag
from app.models.user import User

__all__ = [
    "AccountToken",
    "Address",
    "ApiKey",
    "Article",
    "ArticleCounts",
    "ArticleMedia",
    "ArticleRevision",
    "ArticleTag",
    "Attempt",
    "AuditEvent",
    "Block",
    "Change",
    "Comment",
    "DiscardedFolder",
    "Favorite",
    "Follow",
    "FormerSlug",
    "IdempotencyKey",
    "ImportRecord",
    "LimitOverride",
    "LimitUse",
    "Mail",
    "Media",
    "PreviewLink",
    "RecoveryCode",
    "Report",
    "SecondFactor",
    "Tag",
    "UploadReservation",
    "User",
    "UserCounts",
    "UserSession",
]
