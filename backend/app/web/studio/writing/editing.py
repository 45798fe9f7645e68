"""The editor: create, save, publish, schedule and delete articles.

The form has the entity tag of the article that it shows. Someone else's change therefore never gets
lost: the writer compares both texts, and keeps one or merges them. Drafts are saved automatically;
the texts of all other articles are kept in the browser, and saved on request.
"""

import secrets
from datetime import datetime
from typing import Any

from fastapi import Request, Response

from app.auth.identity import Identity
from app.core.conditional import Precondition, resource_tag
from app.core.config import get_settings
from app.core.enums import CommentPolicy
from app.core.errors import ArticleNotFound, IdempotencyKeyReused, PreconditionFailed
from app.db.dependencies import CurrentDatabase, ReadConnection
from app.db.reading import Reader
from app.http.routing import allowed_in_maintenance
from app.schemas.articles.article import (
    MAX_EXCERPT,
    MAX_TAGS,
    ArticleCreate,
    ArticleResponse,
    ArticleUpdate,
    Status,
)
from app.schemas.types import Id
from app.services import idempotency
from app.services.articles import authorship, reading, revisions, writing
from app.services.articles.rendering import preview_text
from app.services.idempotency import AlreadyProcessed, StoredResponse
from app.web.forms import Form, FormError, SubmittedForm, form_of
from app.web.localization import gettext as _
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession

router = create_router()

FIELDS = ("title", "content", "cover_image_url", "language", "comment_policy")
UNLESS_SHOWN = ("slug", "excerpt")
"""Fields that may show a derived value: sent back unchanged, they stay derived."""
AUTOSAVE = "autosave"
INTENTS: dict[str, dict[str, Any]] = {
    "publish": {"published": True},
    "unpublish": {"published": False},
    "archive": {"archived": True},
    "unarchive": {"archived": False},
}
"""The changes of each button, besides those of the fields."""
SAVED = {
    "publish": N_("The article is published."),
    "schedule": N_("The article is scheduled."),
    "unpublish": N_("The article is a draft again."),
    "archive": N_("The article is archived: readers no longer see it."),
    "unarchive": N_("The article is no longer archived."),
}
POLICIES = {
    CommentPolicy.OPEN: N_("Open"),
    CommentPolicy.HELD: N_("Held until they are approved"),
    CommentPolicy.CLOSED: N_("Closed"),
}


class FormSentBefore(IdempotencyKeyReused):
    """The form has made an article, and is sent with other values."""

    message = N_("This form was sent before. Save again to make a second article.")


@router.get("/studio/articles/new")
async def show_new(request: Request, user: PageUser) -> Response:
    """Show an empty editor."""
    return _editor(request, None)


@router.post("/studio/articles")
@form_page("/studio/articles/new")
async def create_article(
    *,
    request: Request,
    form: SubmittedForm,
    session: PageWriteSession,
    reader: ReadConnection,
    database: CurrentDatabase,
    user: PageUser,
) -> Response:
    """Create an article: a draft, or published or scheduled at once.

    The same form sent twice makes one article.
    """
    intent = form.text("intent")
    timing = {"published": True} if intent == "publish" else _schedule(form, intent)
    new = form.read(ArticleCreate, FIELDS, **_changed(form), tags=tag_names(form), **timing)
    try:
        claimed = await idempotency.claim(
            session,
            database=database,
            caller=user,
            key=f"{request.url.path} {form.text('once') or secrets.token_urlsafe()}",
            content=[new.model_dump_json().encode()],
        )
        created = await writing.create_article(session, new=new, author=user)
        location = {"Location": f"/articles/{created.id}"}
        await claimed.store(StoredResponse(201, location, None))
    except IdempotencyKeyReused:
        raise FormSentBefore from None
    except AlreadyProcessed as earlier:
        await session.rollback()
        article_id = int(earlier.response.headers["Location"].rpartition("/")[2])
        created = await reading.get_article(reader, article_id=article_id, viewer=user)
    return _saved(request, created, intent)


@router.get("/studio/articles/{article_id}/edit")
async def show_editor(
    request: Request, reader: ReadConnection, user: PageUser, article_id: Id
) -> Response:
    """Show an article in the editor."""
    await authorship.require_author(reader, article_id=article_id, actor=user)
    article = await reading.get_article(reader, article_id=article_id, viewer=user)
    return _editor(request, article)


@router.post("/studio/articles/preview")
@form_page("/studio/articles/new")
@allowed_in_maintenance
async def preview(request: Request, form: SubmittedForm, user: PageUser) -> Response:
    """Render a text that is not stored, with the renderer of stored texts."""
    content = form.text("content")
    checked = form.read(ArticleUpdate, ("content",)) if content.strip() else None
    rendered = await preview_text(checked.content if checked else "", writer=user)
    return page(request, "studio/writing/preview.html", rendered=rendered, title=form.text("title"))


@router.post("/studio/articles/{article_id}")
@form_page("/studio/articles/{article_id}/edit")
async def save_article(
    *,
    request: Request,
    form: SubmittedForm,
    session: PageWriteSession,
    reader: ReadConnection,
    user: PageUser,
    article_id: Id,
) -> Response:
    """Save an article. If someone else has saved it meanwhile, show both texts."""
    intent = form.text("intent")
    timing = INTENTS.get(intent) or _schedule(form, intent)
    changes = form.read(ArticleUpdate, FIELDS, **_changed(form), tags=tag_names(form), **timing)
    try:
        saved = await writing.update_article(
            session,
            article_id=article_id,
            changes=changes,
            actor=user,
            precondition=Precondition.parse(form.text("etag") or None),
            autosave=intent == AUTOSAVE,
        )
    except PreconditionFailed:
        await session.rollback()  # the lock ends before the texts are compared
        return await _conflict(request, reader, form, changes, article_id=article_id, user=user)
    except ArticleNotFound:
        await session.rollback()
        key = f"{user.id}:{article_id}"
        return page(request, "studio/writing/gone.html", status=404, fields=_typed(form), key=key)
    return _saved(request, saved, intent)


@router.post("/studio/articles/{article_id}/delete")
@form_page("/studio/articles/{article_id}/edit")
async def delete_article(session: PageWriteSession, user: PageUser, article_id: Id) -> Response:
    """Move an article to the trash."""
    await writing.delete_article(
        session, article_id=article_id, actor=user, precondition=Precondition()
    )
    return redirect("/studio/articles", flash=_("The article is in the trash for 30 days."))


def tag_names(form: Form) -> list[str]:
    """Return the tags of a form: one on each line."""
    return [line.strip() for line in form.text("tags").split("\n") if line.strip()]


def _changed(form: Form) -> dict[str, str | None]:
    """Return the slug and the excerpt if the writer has changed them; None if they are empty."""
    typed = {name: " ".join(form.text(name).split()) for name in UNLESS_SHOWN}
    return {
        name: text or None for name, text in typed.items() if text != form.text(f"shown_{name}")
    }


def _schedule(form: Form, intent: str) -> dict[str, Any]:
    """Return the publication date if the writer schedules the article.

    Without scripts, the date is in UTC. Otherwise the form has the browser's offset from UTC.
    """
    if intent != "schedule":
        return {}
    text = form.text("publish_on") + (form.text("publish_offset") or "+00:00")
    try:
        return {"published_at": datetime.fromisoformat(text).isoformat()}
    except ValueError:
        raise FormError(publish_on=_("Enter a date and a time.")) from None


def _editor(request: Request, article: ArticleResponse | None) -> Response:
    return page(
        request,
        "studio/writing/editor.html",
        article=article,
        etag=resource_tag(article) if article else "",
        digest=revisions.text_digest(article.content) if article else "",
        once=_once(request),
        tags="\n".join(article.tags) if article else "",
        policies=[(policy.value, _(label)) for policy, label in POLICIES.items()],
        default_language=get_settings().default_language,
        max_excerpt=MAX_EXCERPT,
        max_tags=MAX_TAGS,
        saves_automatically=article is None or article.status is Status.DRAFT,
    )


def _once(request: Request) -> str:
    """Return the value by which a form that is sent twice is recognized."""
    form = form_of(request)
    used = isinstance(form.error, FormSentBefore)
    return secrets.token_urlsafe(16) if used else form.value("once", secrets.token_urlsafe(16))


def _saved(request: Request, article: ArticleResponse, intent: str) -> Response:
    """Lead back to the editor; scripts get what they need to go on instead."""
    path = f"/studio/articles/{article.id}"
    if intent == AUTOSAVE:
        return page(
            request,
            "studio/writing/saved.html",
            article=article,
            etag=resource_tag(article),
            digest=revisions.text_digest(article.content),
        )
    if intent == "schedule" and article.status is Status.PUBLISHED:
        intent = "publish"  # with an earlier date
    return redirect(f"{path}/edit", flash=_(SAVED.get(intent, "")) or _("The article was saved."))


def _typed(form: Form) -> dict[str, str]:
    """Return the fields of a form that another form repeats."""
    dropped = {"once", "etag", "version", "digest", "base"}
    return {
        name: value
        for name, value in form.repeatable()
        if name not in dropped and (name, value) != ("intent", AUTOSAVE)
    }


async def _conflict(
    request: Request,
    reader: Reader,
    form: Form,
    changes: ArticleUpdate,
    *,
    article_id: int,
    user: Identity,
) -> Response:
    """Show what someone else has saved beside what the writer has typed."""
    article = await reading.get_article(reader, article_id=article_id, viewer=user)
    if _is_repeated(changes, article):
        return _saved(request, article, form.text("intent"))
    conflict = await revisions.resolve_conflict(
        reader,
        article_id=article_id,
        title=changes.title or article.title,
        content=changes.content or article.content,
        version=form.number("version") or 0,
        digest=form.text("digest"),
        base=form.text("base") or None,
        labels=(_("Your text"), _("Saved text")),
        actor=user,
    )
    return page(
        request,
        "studio/writing/conflict.html",
        status=412,
        article=article,
        conflict=conflict,
        etag=resource_tag(article),
        digest=revisions.text_digest(article.content),
        fields=_typed(form),
    )


def _is_repeated(changes: ArticleUpdate, article: ArticleResponse) -> bool:
    """Return whether the article already has these values: the form was sent twice."""
    wanted = changes.model_dump(exclude_unset=True, exclude={"tags", "archived"})
    return set(changes.tags) == set(article.tags) and all(
        getattr(article, name) == value for name, value in wanted.items()
    )
