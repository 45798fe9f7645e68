"""/.well-known/jwks.json: public keys for the verification of access tokens."""

from fastapi import Response

from app.auth import keys
from app.http.caching import public
from app.routers.responses import create_router
from app.schemas.key import JsonWebKeySet

router = create_router(prefix="/.well-known", tag="auth")

SECONDS_FRESH = 300


@router.get("/jwks.json", response_model_exclude_none=True)
async def read_key_set(response: Response) -> JsonWebKeySet:
    """Read the public keys that verify access tokens; an empty set for HS256."""
    response.headers["Cache-Control"] = public(SECONDS_FRESH)
    return JsonWebKeySet.model_validate({"keys": keys.public_keys()})
