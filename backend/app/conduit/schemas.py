"""Request and response models, with the names of RealWorld's OpenAPI description.

Fields have the same limits as in the native API. Unknown fields are ignored, because front ends
send back the complete objects that they received.
"""

from collections.abc import Mapping
from json import JSONDecodeError
from typing import Annotated, Any, TypeVar

from fastapi import Path
from fastapi.exceptions import RequestValidationError
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

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
    Input,
    PlainDigits,
    Title,
    Username,
    omitted,
)

Model = TypeVar("Model", bound=BaseModel)


def _blank_as_none(value: Any) -> Any:
    return None if value == "" else value


NoneIfBlank = BeforeValidator(_blank_as_none)


class Envelope(Input):
    """Base of request models: ignores unknown fields."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _reject_invalid_json(cls, value: Any) -> Any:
        """Reject a body that is not JSON; see ConduitRequest."""
        if isinstance(value, JSONDecodeError):
            raise PydanticCustomError("json_invalid", "JSON decode error", {"error": value.msg})
        return value


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
    """Fields to change. `""` and null clear `bio` and `image`.

    The password `""` is ignored beside other fields, because forms also send empty fields.
    """

    email: Email = omitted()
    username: Username = omitted()
    password: NewPassword = Field(default_factory=lambda: SecretStr(""))
    bio: Bio | None = None
    image: Annotated[ImageUrl | None, NoneIfBlank] = None

    @model_validator(mode="before")
    @classmethod
    def _ignore_empty_password(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("password") == "" and len(value) > 1:
            return {name: each for name, each in value.items() if name != "password"}
        return value


class UpdateUserRequest(Envelope):
    user: UpdateUser


class User(BaseModel):
    email: str
    token: str
    username: str
    bio: str | None
    image: str | None


class UserResponse(BaseModel):
    user: User


class Profile(BaseModel):
    username: str
    bio: str | None
    image: str | None
    following: bool


class ProfileResponse(BaseModel):
    profile: Profile


TagList = Annotated[list[TagName], Field(max_length=MAX_TAGS)]


class NewArticle(Envelope):
    title: Title
    description: Excerpt
    body: Content
    tagList: TagList = Field(default_factory=list)  # noqa: N815 - Conduit's name


class NewArticleRequest(Envelope):
    article: NewArticle


class UpdateArticle(Envelope):
    title: Title = omitted()
    description: Excerpt = omitted()
    body: Content = omitted()
    tagList: TagList = omitted()  # noqa: N815 - Conduit's name


class UpdateArticleRequest(Envelope):
    article: UpdateArticle


class ListedArticle(BaseModel):
    """Dates are in ISO 8601 format with milliseconds and Z. Tags are sorted by name."""

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
    """Messages by the field or the resource that they concern."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"errors": {"email": ["has already been taken"]}}]}
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
    fields = changes.model_dump(exclude_unset=True)
    if not fields:
        raise InvalidInput("can't be empty; send at least one field to change")
    if "bio" in fields:
        fields["bio"] = changes.bio or ""
    if "image" in fields:
        fields["image_url"] = _relative_media_url(fields.pop("image"))
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
        tags=new.tagList,
        published=True,
    )


def article_changes(changes: UpdateArticle, *, title: str) -> ArticleUpdate:
    """Convert changes of an article to the native form; `title` is its current title.

    A new title also requests a new slug. Forms send an unchanged title too, which keeps the slug.
    """
    names = {"title": "title", "description": "excerpt", "body": "content", "tagList": "tags"}
    values = changes.model_dump(exclude_unset=True)
    fields = {names[name]: value for name, value in values.items()}
    if fields.get("title", title) != title:
        fields["slug"] = None
    return validated(ArticleUpdate, "body", **fields)


def article_query(query: ArticlesQuery) -> ArticleQuery:
    """Convert a query to the native form, with a total count. Raises RequestValidationError."""
    return validated(
        ArticleQuery,
        "query",
        names={"favorited_by": "favorited"},
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
