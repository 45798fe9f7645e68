"""SQLAlchemy models. Importing this package registers every table with the metadata."""

from app.models.address import Address
from app.models.article import Article
from app.models.audit import AuditEvent
from app.models.user import User

__all__ = ["Address", "Article", "AuditEvent", "User"]
