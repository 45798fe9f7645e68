from native_client.api.auth import list_sessions, login, read_identity, refresh
from native_client.models import (
    InvalidCredentials,
    LoginRequest,
    RefreshRequest,
    SecondFactorRequired,
    Tokens,
    UserPrivate,
)

from native.session import PASSWORD, Session


def challenge_of(error: SecondFactorRequired) -> str:
    return error.challenge


def run(session: Session) -> None:
    anonymous, username = session.anonymous, session.user.username
    refused = login.sync(client=anonymous, body=LoginRequest(username=username, password="wrong"))
    assert isinstance(refused, InvalidCredentials), refused
    assert refused.code == "invalid_credentials"
    tokens = login.sync(client=anonymous, body=LoginRequest(username=username, password=PASSWORD))
    assert isinstance(tokens, Tokens), tokens
    assert tokens.token_type == "bearer"
    body = RefreshRequest(refresh_token=tokens.refresh_token)
    assert isinstance(refresh.sync(client=anonymous, body=body), Tokens)
    identity = read_identity.sync(client=session.client)
    assert isinstance(identity, UserPrivate), identity
    sessions = list_sessions.sync(client=session.client, limit=5)
    assert isinstance(sessions, list)
    assert any(each.current for each in sessions)
