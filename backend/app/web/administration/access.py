"""Who may open the pages of administrators."""

from typing import Annotated

from app.auth.identity import Identity
from app.auth.permissions import Action
from app.web.sessions import page_user_with

Administrator = Annotated[Identity, page_user_with(Action.OPERATE)]
