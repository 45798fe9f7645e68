"""What goes in and out, by the names of RealWorld's OpenAPI description.

Fields are ours under other names, with our limits. What is unknown is overlooked, and null is as
good as left out: front ends send whole objects back, as they have got them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Path
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.core.config import get_settings
from app.core.errors import InvalidInput
from app.schemas.article import (
    MAX_TAGS,
    ArticleCreate,
    ArticleQuery,
    ArticleUpdate,
    Excerpt,
    FeedQuery,
    Status,
    TagName,
)
from app.schemas.auth import LoginForm
from app.schemas.comment import CommentContent
from app.schemas.page import DEFAULT_LIMIT, MAX_LIMIT, MAX_SKIP
from app.schemas.passwords import NewPassword, Password
from app.schemas.types import (
    MAX_ID,
    STORABLE_PATTERN,
    Content,
    Email,
    ImageUrl,
    PlainDigits,
    Title,
    Username,
)
from app.schemas.user import AccountUpdate, Bio, UserCreate

Model = TypeVar("Model", bound=BaseModel)


def _blank_as_none(value: Any) -> Any:
    return None if value == "" else value


NoneIfBlank = BeforeValidator(_blank_as_none)


class Envelope(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="ignore")


class LoginUser(Envelope):
    email: Annotated[str, Field(min_length=1, max_length=254)]
    password: Password


class LoginUserRequest(Envelope):
    user: LoginUser


class NewUser(Envelope):
    username: Username
    email: Email
    password: NewPassword


class NewUserRequest(Envelope):
    user: NewUser


class UpdateUser(Envelope):
    """`""` for the password is none: forms send the field that nobody has filled in."""

    email: Email | None = None
    username: Username | None = None
    password: Annotated[NewPassword | None, NoneIfBlank] = None
    bio: Bio | None = None
    image: Annotated[ImageUrl | None, NoneIfBlank] = None


class UpdateUserRequest(Envelope):
    user: UpdateUser


class User(BaseModel):
    email: str
    token: str
    username: str
    bio: str
    image: str


class UserResponse(BaseModel):
    user: User


class Profile(BaseModel):
    username: str
    bio: str
    image: str
    following: bool


class ProfileResponse(BaseModel):
    profile: Profile


TagList = Annotated[list[TagName], Field(max_length=MAX_TAGS)]


class NewArticle(Envelope):
    title: Title
    description: Excerpt
    body: Content
    tagList: TagList | None = None  # noqa: N815 - Conduit's name


class NewArticleRequest(Envelope):
    article: NewArticle


class UpdateArticle(Envelope):
    title: Title | None = None
    description: Excerpt | None = None
    body: Content | None = None
    tagList: TagList | None = None  # noqa: N815 - Conduit's name


class UpdateArticleRequest(Envelope):
    article: UpdateArticle


class ListedArticle(BaseModel):
    """Dates as in ISO 8601, with milliseconds and Z."""

    slug: str
    title: str
    description: str
    tagList: list[str]  # noqa: N815 - Conduit's name
    createdAt: str = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    updatedAt: str = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    favorited: bool
    favoritesCount: int  # noqa: N815 - Conduit's name
    author: Profile


class Article(ListedArticle):
    body: str


class ArticleResponse(BaseModel):
    article: Article


class ArticlesResponse(BaseModel):
    articles: list[ListedArticle]
    articlesCount: int  # noqa: N815 - Conduit's name


class NewComment(Envelope):
    body: CommentContent


class NewCommentRequest(Envelope):
    comment: NewComment


class Comment(BaseModel):
    id: int
    createdAt: str = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    updatedAt: str = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    body: str
    author: Profile


class CommentResponse(BaseModel):
    comment: Comment


class CommentsResponse(BaseModel):
    comments: list[Comment]


class TagsResponse(BaseModel):
    tags: list[str]


class GenericError(BaseModel):
    """What is wrong: by field, and all of it as sentences under `body`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "errors": {
                        "email": ["has already been taken"],
                        "body": ["email has already been taken"],
                    }
                }
            ]
        }
    )

    errors: dict[str, list[str]]


class PageQuery(Envelope):
    """Which part of a list; more than 100 at once are 100."""

    offset: Annotated[int, Field(ge=0, le=MAX_SKIP), PlainDigits] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_ID), PlainDigits] = DEFAULT_LIMIT

    @property
    def page(self) -> Mapping[str, Any]:
        """The same, as our own lists take it."""
        return {"skip": self.offset, "limit": min(self.limit, MAX_LIMIT)}


Name = Annotated[str, Path(pattern=STORABLE_PATTERN)]
"""A slug, or a username."""


class ArticlesQuery(PageQuery):
    """Which articles; an empty name is none."""

    tag: Annotated[str | None, NoneIfBlank] = None
    author: Annotated[str | None, Field(pattern=STORABLE_PATTERN), NoneIfBlank] = None
    favorited: Annotated[str | None, Field(pattern=STORABLE_PATTERN), NoneIfBlank] = None


def checked(
    model: type[Model], place: str, *, names: Mapping[str, str] | None = None, **values: Any
) -> Model:
    """One of our schemas with these values; `names` are Conduit's for our fields.

    Raises RequestValidationError.
    """
    try:
        return model(**values)
    except ValidationError as error:
        known = names or {}
        findings = [
            {**each, "loc": (place, *(known.get(str(part), part) for part in each["loc"]))}
            for each in error.errors()
        ]
        raise RequestValidationError(findings) from None


def login_form(user: LoginUser) -> LoginForm:
    """A login, as ours. Raises RequestValidationError."""
    names = {"username": "email"}
    return checked(LoginForm, "body", names=names, username=user.email, password=user.password)


def registration_of(new: NewUser) -> UserCreate:
    """A registration, as ours: people are called by their username until they say another name."""
    return checked(
        UserCreate,
        "body",
        email=new.email,
        username=new.username,
        name=new.username,
        password=new.password,
    )


def account_update(changes: UpdateUser) -> AccountUpdate:
    """What is to be changed of an account; null for `bio` and `image` is none.

    Raises InvalidInput where nothing is.
    """
    given = changes.model_fields_set
    if not given:
        raise InvalidInput("user can't be empty: send what is to be changed")
    fields = {
        name: value
        for name in ("email", "username", "password")
        if (value := getattr(changes, name)) is not None
    }
    if "bio" in given:
        fields["bio"] = changes.bio or ""
    if "image" in given:
        fields["image_url"] = _own_path(changes.image)
    return checked(AccountUpdate, "body", **fields)


def _own_path(image: str | None) -> str | None:
    """A picture of ours comes back by the absolute address that it was shown by."""
    ours = f"{get_settings().api_url}/media/"
    if image is not None and image.startswith(ours):
        return f"/media/{image.removeprefix(ours)}"
    return image


def new_article(new: NewArticle) -> ArticleCreate:
    """A new article, published at once."""
    return checked(
        ArticleCreate,
        "body",
        title=new.title,
        excerpt=new.description,
        content=new.body,
        tags=new.tagList or [],
        published=True,
    )


def article_changes(changes: UpdateArticle, *, title: str) -> ArticleUpdate:
    """What is to be changed of an article that has this title; with another, its slug is another.

    Forms send the title with whatever is changed: that alone gives no reason for another slug.
    """
    ours = {"title": "title", "description": "excerpt", "body": "content", "tagList": "tags"}
    given = changes.model_dump(exclude_none=True)
    fields = {ours[name]: value for name, value in given.items()}
    if fields.get("title", title) != title:
        fields["slug"] = None
    return checked(ArticleUpdate, "body", **fields)


def article_query(query: ArticlesQuery) -> ArticleQuery:
    """A list of published articles, counted. Raises RequestValidationError."""
    return checked(
        ArticleQuery,
        "query",
        status=Status.PUBLISHED,
        tag=[] if query.tag is None else [query.tag],
        author=query.author,
        favorited_by=query.favorited,
        count=True,
        **query.page,
    )


def feed_query(query: PageQuery) -> FeedQuery:
    """A page of the feed, counted."""
    return FeedQuery(count=True, **query.page)
