"""Usage: python programs.py URL. Run the program of each resource."""

import sys

from conduit import articles as conduit_articles
from conduit import comments as conduit_comments
from conduit import favorites as conduit_favorites
from conduit import profiles as conduit_profiles
from conduit import session as conduit_session
from conduit import tags as conduit_tags
from conduit import users as conduit_users
from native import (
    addresses,
    api_keys,
    articles,
    auth,
    bulk,
    changes,
    comments,
    favorites,
    feeds,
    health,
    index,
    media,
    previews,
    profiles,
    reports,
    revisions,
    search,
    tags,
    trash,
    users,
    webhooks,
)
from native.session import sign_up


def main(url: str) -> None:
    session = sign_up(url)
    for program in (
        articles, addresses, api_keys, auth, bulk, changes, comments, favorites, feeds, health,
        index, media, previews, profiles, reports, revisions, search, tags, trash,
        webhooks, users,  # the last one, because it deletes the user
    ):  # fmt: skip
        program.run(session)
    other = conduit_session.sign_up(url)
    for program_of_conduit in (
        conduit_articles, conduit_comments, conduit_favorites, conduit_profiles, conduit_tags,
        conduit_users,
    ):  # fmt: skip
        program_of_conduit.run(other)


if __name__ == "__main__":
    main(sys.argv[1])
