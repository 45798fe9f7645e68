"""The navigation of the studio."""

from typing import NamedTuple

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function


class Entry(NamedTuple):
    """A link of the navigation. With `action`, only users who may do it see the link."""

    label: str
    path: str
    action: Action | None = None


STUDIO: tuple[Entry, ...] = (
    Entry(N_("Overview"), "/studio"),
    Entry(N_("Articles"), "/studio/articles"),
    Entry(N_("Calendar"), "/studio/calendar"),
    Entry(N_("Trash"), "/studio/trash"),
    Entry(N_("My account"), "/studio/account"),
)


def studio_entries(user: Identity | None) -> list[Entry]:
    """Return the links that `user` sees."""
    return [
        entry
        for entry in STUDIO
        if user is not None and (entry.action is None or may_on_any(user, entry.action))
    ]
