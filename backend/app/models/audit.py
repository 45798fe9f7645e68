"""The audit trail, written in the same transaction as the recorded action."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey, current_time


class AuditEvent(Base):
    """A recorded action. It has no foreign keys, because it outlives its actor and subject."""

    __tablename__ = "audit_events"

    id: Mapped[PrimaryKey]
    occurred_at: Mapped[datetime] = mapped_column(
        default=current_time, server_default=func.now(), index=True
    )
    action: Mapped[str] = mapped_column(String(50))
    actor_id: Mapped[int | None] = mapped_column(BigInteger)
    subject_type: Mapped[str] = mapped_column(String(50))
    subject_id: Mapped[int | None] = mapped_column(BigInteger)
    message: Mapped[str] = mapped_column(String(500))
    request_id: Mapped[str | None] = mapped_column(String(128))


Index("ix_audit_events_subject", AuditEvent.subject_type, AuditEvent.subject_id)
Index("ix_audit_events_actor", AuditEvent.actor_id, AuditEvent.id)
