"""Request and response models, with the names of RealWorld's OpenAPI description.

Fields have the same limits as in the native API. Unknown fields are ignored, and null counts as
omitted, because front ends send back the complete objects that they received.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Path
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.core.config import get_settings
from app.core.errors import InvalidInput
from app.schemas.accounts.login import LoginForm
from app.schemas.accounts.passwords import NewPassword, Password
from app.schemas.accounts.user import AccountUpdate, Bio, UserCreate
from app.schemas.articles.article import (
    MAX_TAGS,
    ArticleCreate,
    ArticleQuery,
    ArticleUpdate,
    Excerpt,
    FeedQuery,
    Status,
    TagName,
)
from app.schemas.community.comment import CommentContent
from app.schemas.page import DEFAULT_LIMIT, MAX_LIMIT, MAX_SKIP
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

Model = TypeVar("Model", bound=BaseModel)


def _blank_as_none(value: Any) -> Any:
    return None if value == "" else value


NoneIfBlank = BeforeValidator(_blank_as_none)


class Envelope(BaseModel):
    """Base of request models: ignores unknown fields."""

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
    """Treats the password `""` as omitted, because forms also send empty fields."""

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
    """Dates are in ISO 8601 format with milliseconds and Z."""

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
    """Errors by field, and all of them as sentences in `body`."""

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
    """A page of a list. A limit above 100 counts as 100."""

    offset: Annotated[int, Field(ge=0, le=MAX_SKIP), PlainDigits] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_ID), PlainDigits] = DEFAULT_LIMIT

    @property
    def page(self) -> Mapping[str, Any]:
        """The page as parameters of the services."""
        return {"skip": self.offset, "limit": min(self.limit, MAX_LIMIT)}


Name = Annotated[str, Path(pattern=STORABLE_PATTERN)]
"""A slug or a username."""


class ArticlesQuery(PageQuery):
    """Filters for articles. An empty value counts as omitted."""

    tag: Annotated[str | None, NoneIfBlank] = None
    author: Annotated[str | None, Field(pattern=STORABLE_PATTERN), NoneIfBlank] = None
    favorited: Annotated[str | None, Field(pattern=STORABLE_PATTERN), NoneIfBlank] = None


def validated(
    model: type[Model], location: str, *, names: Mapping[str, str] | None = None, **values: Any
) -> Model:
    """Return a native schema with these values. Raises RequestValidationError.

    `location` is "body" or "query". `names` maps native field names to names of the RealWorld API.
    """
    try:
        return model(**values)
    except ValidationError as error:
        known = names or {}
        findings = [
            {**each, "loc": (location, *(known.get(str(part), part) for part in each["loc"]))}
            for each in error.errors()
        ]
        raise RequestValidationError(findings) from None


def login_form(user: LoginUser) -> LoginForm:
    """Convert a login to the native form. Raises RequestValidationError."""
    names = {"username": "email"}
    return validated(LoginForm, "body", names=names, username=user.email, password=user.password)


def user_create(new: NewUser) -> UserCreate:
    """Convert a registration to the native form. The username is also the initial name."""
    return validated(
        UserCreate,
        "body",
        email=new.email,
        username=new.username,
        name=new.username,
        password=new.password,
    )


def account_update(changes: UpdateUser) -> AccountUpdate:
    """Convert account changes to the native form; null clears `bio` and `image`.

    Raises InvalidInput if no field is set.
    """
    fields_set = changes.model_fields_set
    if not fields_set:
        raise InvalidInput("user can't be empty; send at least one field to change")
    fields = {
        name: value
        for name in ("email", "username", "password")
        if (value := getattr(changes, name)) is not None
    }
    if "bio" in fields_set:
        fields["bio"] = changes.bio or ""
    if "image" in fields_set:
        fields["image_url"] = _relative_media_url(changes.image)
    return validated(AccountUpdate, "body", **fields)


def _relative_media_url(image: str | None) -> str | None:
    """Return the path of an image of this installation, which responses show as absolute URL."""
    media_url = f"{get_settings().api_url}/media/"
    if image is not None and image.startswith(media_url):
        return f"/media/{image.removeprefix(media_url)}"
    return image


def new_article(new: NewArticle) -> ArticleCreate:
    """Convert a new article to the native form; it is published at once."""
    return validated(
        ArticleCreate,
        "body",
        title=new.title,
        excerpt=new.description,
        content=new.body,
        tags=new.tagList or [],
        published=True,
    )


def article_changes(changes: UpdateArticle, *, title: str) -> ArticleUpdate:
    """Convert changes of an article to the native form; `title` is its current title.

    A new title also requests a new slug. Forms send an unchanged title too, which keeps the slug.
    """
    names = {"title": "title", "description": "excerpt", "body": "content", "tagList": "tags"}
    values = changes.model_dump(exclude_none=True)
    fields = {names[name]: value for name, value in values.items()}
    if fields.get("title", title) != title:
        fields["slug"] = None
    return validated(ArticleUpdate, "body", **fields)


def article_query(query: ArticlesQuery) -> ArticleQuery:
    """Convert a query to the native form, with a total count. Raises RequestValidationError."""
    return validated(
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
    """Convert a page of the feed to the native form, with a total count."""
    return FeedQuery(count=True, **query.page)
