"""SQLAlchemy models. Importing this package registers every table with the metadata."""

from app.models.accounts.account_token import AccountToken
from app.models.accounts.address import Address
from app.models.accounts.api_key import ApiKey
from app.models.accounts.attempt import Attempt
from app.models.accounts.first_start import FirstStart
from app.models.accounts.second_factor import RecoveryCode, SecondFactor
from app.models.accounts.session import UserSession
from app.models.accounts.user import User
from app.models.articles.article import Article, DraftFormerSlug, FormerSlug
from app.models.articles.change import Change
from app.models.articles.preview_link import PreviewLink
from app.models.articles.revision import ArticleRevision
from app.models.articles.tag import ArticleTag, Tag
from app.models.articles.tag_change import TagChange
from app.models.audit import AuditEvent
from app.models.bulk import (
    Import,
    ImportedAddress,
    ImportRecord,
    Installation,
    MediaCopy,
    Redirect,
)
from app.models.community.comment import Comment
from app.models.community.favorite import ArticleCounts, Favorite
from app.models.community.follow import Block, Follow, UserCounts
from app.models.community.report import Report
from app.models.idempotency_key import IdempotencyKey
from app.models.integrations.event import Event
from app.models.integrations.webhook import Webhook, WebhookAttempt, WebhookDelivery
from app.models.job_run import JobRun
from app.models.limit import LimitOverride, LimitUse, UploadReservation
from app.models.mail import Mail
from app.models.media import ArticleMedia, DiscardedFolder, Media

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
    "DraftFormerSlug",
    "Event",
    "Favorite",
    "FirstStart",
    "Follow",
    "FormerSlug",
    "IdempotencyKey",
    "Import",
    "ImportRecord",
    "ImportedAddress",
    "Installation",
    "JobRun",
    "LimitOverride",
    "LimitUse",
    "Mail",
    "Media",
    "MediaCopy",
    "PreviewLink",
    "RecoveryCode",
    "Redirect",
    "Report",
    "SecondFactor",
    "Tag",
    "TagChange",
    "UploadReservation",
    "User",
    "UserCounts",
    "UserSession",
    "Webhook",
    "WebhookAttempt",
    "WebhookDelivery",
]
