"""Descriptions of pages for search engines and previews of links."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from app.core.config import get_settings
from app.schemas.community.profile import ProfileResponse
from app.schemas.media import MediaResponse
from app.services.articles.addresses import article_url
from app.services.feeds.addresses import absolute_url, author_url, home_url

MAX_DESCRIPTION = 200
_CONTEXT = "https://schema.org"


class Metadata(NamedTuple):
    """What the head of a page says about it."""

    title: str
    description: str
    url: str
    """The canonical URL: that of the front end, if there is one."""
    kind: str = "website"
    """The type of the Open Graph protocol."""
    image: str | None = None
    image_alt: str = ""
    image_width: int | None = None
    image_height: int | None = None
    published_at: datetime | None = None
    updated_at: datetime | None = None
    data: Mapping[str, Any] | None = None
    """JSON-LD."""


def of_site(search_url: str) -> Metadata:
    """Describe the home page. `search_url` is the path of the search."""
    settings = get_settings()
    target = f"{settings.api_url}{search_url}?q={{search_term_string}}"
    return Metadata(
        settings.site_title,
        settings.site_description,
        home_url(),
        data={
            "@context": _CONTEXT,
            "@type": "WebSite",
            "name": settings.site_title,
            "description": settings.site_description,
            "url": home_url(),
            "inLanguage": settings.default_language,
            "potentialAction": {
                "@type": "SearchAction",
                "target": {"@type": "EntryPoint", "urlTemplate": target},
                "query-input": "required name=search_term_string",
            },
        },
    )


def of_article(article: Mapping[str, Any], cover: MediaResponse | None) -> Metadata:
    """Describe an article. `cover` is its stored cover image."""
    settings, url = get_settings(), article_url(article["slug"])
    author = article["author"]
    image = article["cover_image_url"] and absolute_url(article["cover_image_url"])
    data = {
        "@context": _CONTEXT,
        "@type": "BlogPosting",
        "headline": article["title"],
        "description": article["excerpt"],
        "url": url,
        "mainEntityOfPage": url,
        "inLanguage": article["language"],
        "datePublished": article["published_at"].isoformat(),
        "dateModified": max(article["updated_at"], article["published_at"]).isoformat(),
        "wordCount": article["word_count"],
        "commentCount": article["comments_count"],
        "keywords": article["tags"],
        "author": {
            "@type": "Person",
            "name": author["name"],
            "url": author_url(author["username"]),
        },
        "publisher": {"@type": "Organization", "name": settings.site_title, "url": home_url()},
        **({"image": [image]} if image else {}),
    }
    return Metadata(
        article["title"],
        article["excerpt"],
        url,
        kind="article",
        image=image,
        image_alt=cover.alt if cover else "",
        image_width=cover.width if cover else None,
        image_height=cover.height if cover else None,
        published_at=article["published_at"],
        updated_at=max(article["updated_at"], article["published_at"]),
        data=data,
    )


def of_author(profile: ProfileResponse) -> Metadata:
    """Describe an author's page."""
    url = author_url(profile.username)
    image = absolute_url(profile.image_url) if profile.image_url else None
    person = {
        "@type": "Person",
        "name": profile.name,
        "alternateName": profile.username,
        "description": profile.bio,
        "url": url,
        **({"image": image} if image else {}),
    }
    return Metadata(
        profile.name,
        shortened(profile.bio),
        url,
        kind="profile",
        image=image,
        data={"@context": _CONTEXT, "@type": "ProfilePage", "mainEntity": person},
    )


def shortened(text: str) -> str:
    """Return the beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_DESCRIPTION else f"{line[: MAX_DESCRIPTION - 1]}…"
