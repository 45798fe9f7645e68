"""Forged access tokens for the attacks of RFC 8725.

Unless its name says otherwise, a forgery is signed with the correct secret. It then has exactly one
defect.
"""

import json
import string
from collections.abc import Callable
from functools import partial
from typing import Any

from jose import jwe

from app.auth.challenges import create_challenge
from app.auth.tokens import RefreshToken, new_api_key, new_secret
from app.core.config import get_settings
from tests.security.forging import Forger, Json, segment

Forgery = Callable[[Forger], str]

DAY = 24 * 60 * 60
DIGITS = str.maketrans(string.digits, "".join(chr(0xFF10 + digit) for digit in range(10)))
"""Maps digits to full-width digits, which int() accepts and RFC 7519 does not."""
ATTACKERS_KEY = b"a key of the attacker's, 32 bytes"
ATTACKERS_JWK = {"kty": "oct", "k": segment(ATTACKERS_KEY)}
URL = "https://attacker.example/jwks.json"
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def later(forger: Forger, claim: str, seconds: float) -> Any:
    return forger.claims()[claim] + seconds


def with_last_letter_moved(token: str) -> str:
    """Return another encoding of the same signature: 43 characters have two unused bits."""
    return token[:-1] + ALPHABET[ALPHABET.index(token[-1]) ^ 1]


def with_payload(forger: Forger, payload: object) -> str:
    """Return other claims with the signature of a valid token."""
    head, _, signature = forger.token().split(".")
    return f"{head}.{segment(payload)}.{signature}"


def twice(claim: str, claims: Json) -> bytes:
    """Return claims with a duplicate name, which parsers treat differently (RFC 8259 §4)."""
    return json.dumps({f"{claim}#": "1", **claims}).replace("#", "").encode()


NO_SIGNATURE: dict[str, Forgery] = {
    f"alg {spelling!r}": lambda forger, alg=spelling: forger.unsigned(alg=alg)
    for spelling in ("none", "None", "NONE", "nOnE", " none", "none\0", "", "HS256")
} | {
    "no alg": lambda forger: forger.unsigned(alg=None),
    "alg is a list": lambda forger: forger.unsigned(alg=["none", "HS256"]),
    "alg is an object": lambda forger: forger.unsigned(alg={"name": "HS256"}),
    "alg is a number": lambda forger: forger.unsigned(alg=0),
    "alg none, signed all the same": lambda forger: forger.with_header(alg="none"),
    "two parts": lambda forger: forger.token().rpartition(".")[0],
    "signature of another token": lambda forger: with_payload(forger, forger.claims(sub="1")),
    "signature cut short": lambda forger: forger.token()[:-10],
    "signature with more behind it": lambda forger: forger.token() + "AAAA",
}

OTHER_KEY: dict[str, Forgery] = {
    "another key": lambda forger: forger.token(key=ATTACKERS_KEY),
    "empty key": lambda forger: forger.token(key=b""),
    "key of the audience": lambda forger: forger.token(key=b"pressroom-api"),
    "kid as the key": lambda forger: forger.token(key=forger.header()["kid"].encode()),
    "HS512 of the right key": lambda forger: forger.token(
        header=forger.header(alg="HS512"), digest="sha512"
    ),
    "HS384 of the right key": lambda forger: forger.token(
        header=forger.header(alg="HS384"), digest="sha384"
    ),
    "HS256 said, HS512 done": lambda forger: forger.token(digest="sha512"),
    "jwk of the attacker's": lambda forger: forger.token(
        header=forger.header(jwk=ATTACKERS_JWK), key=ATTACKERS_KEY
    ),
    "kid of the attacker's jwk": lambda forger: forger.token(
        header=forger.header(kid=None, jwk=ATTACKERS_JWK), key=ATTACKERS_KEY
    ),
    "kid of an empty file": lambda forger: forger.token(
        header=forger.header(kid="../../../../../../dev/null"), key=b""
    ),
    "kid that selects a key": lambda forger: forger.token(
        header=forger.header(kid="x' UNION SELECT 'key"), key=b"key"
    ),
}

HEADERS: dict[str, dict[str, Any]] = {
    "no kid": {"kid": None},
    "kid unknown": {"kid": "0" * 16},
    "kid empty": {"kid": ""},
    "kid in capitals": {"kid": "CAPITALS"},
    "kid a path": {"kid": "/proc/self/environ"},
    "kid a command": {"kid": "key|whoami"},
    "kid a URL": {"kid": URL},
    "kid with NUL": {"kid": "\0"},
    "kid a list": {"kid": ["a"]},
    "kid an object": {"kid": {"a": 1}},
    "kid a number": {"kid": 1},
    "kid true": {"kid": True},
    "kid huge": {"kid": "k" * 100_000},
    "jku": {"jku": URL},
    "jwk": {"jwk": ATTACKERS_JWK},
    "x5u": {"x5u": URL},
    "x5c": {"x5c": ["MIIB"]},
    "x5t": {"x5t": "AAAA"},
    "x5t#S256": {"x5t#S256": "AAAA"},
    "crit": {"crit": ["b64"]},
    "crit empty": {"crit": []},
    "crit unknown": {"crit": ["attack"], "attack": True},
    "b64": {"b64": False},
    "zip": {"zip": "DEF"},
    "cty, a nested token": {"cty": "JWT"},
    "enc, as if encrypted": {"enc": "A256GCM"},
    "iss in the header": {"iss": "pressroom"},
    "no typ": {"typ": None},
    "typ JWT": {"typ": "JWT"},
    "typ in capitals": {"typ": "AT+JWT"},
    "typ with its media type": {"typ": "application/at+jwt"},
    "typ of a challenge": {"typ": "challenge+jwt"},
    "typ a list": {"typ": ["at+jwt"]},
}

CLAIMS: dict[str, dict[str, Any]] = {
    f"no {claim}": {claim: None}
    for claim in ("iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti")
} | {
    "iss elsewhere": {"iss": "elsewhere"},
    "iss empty": {"iss": ""},
    "iss a list": {"iss": ["pressroom"]},
    "iss with a slash": {"iss": "pressroom/"},
    "aud of another API": {"aud": "another-api"},
    "aud empty": {"aud": ""},
    "aud a list without ours": {"aud": ["another-api", "pressroom"]},
    "aud an empty list": {"aud": []},
    "aud a list with more than text": {"aud": ["pressroom-api", 1]},
    "aud an object": {"aud": {"pressroom-api": True}},
    "sub nobody": {"sub": "999999999"},
    "sub no number": {"sub": "ada"},
    "sub a number, not text": {"sub": 1},
    "sub huge": {"sub": "9" * 400},
    "sub beyond 64 bits": {"sub": str(2**63)},
    "sub negative": {"sub": "-1"},
    "sub zero": {"sub": "0"},
    "sub true": {"sub": True},
    "sub a list": {"sub": ["1"]},
    "sub SQL": {"sub": "1 OR 1=1"},
    "sid nobody's": {"sid": "999999999"},
    "sid a number, not text": {"sid": 1},
    "sid huge": {"sid": "9" * 400},
    "sid zero": {"sid": "0"},
    "sid a list": {"sid": ["1"]},
    "sid empty": {"sid": ""},
    "sid SQL": {"sid": "1 OR 1=1"},
    "exp text": {"exp": "tomorrow"},
    "exp a list": {"exp": [1]},
    "exp NaN": {"exp": float("nan")},
    "exp Infinity": {"exp": float("inf")},
    "exp an object": {"exp": {}},
    "iat text": {"iat": "yesterday"},
    "iat NaN": {"iat": float("nan")},
    "iat Infinity": {"iat": float("inf")},
    "nbf text": {"nbf": "yesterday"},
    "nbf Infinity": {"nbf": float("inf")},
    "jti a number": {"jti": 1},
    "at_hash of nothing": {"at_hash": "x"},
}

DIFFERENT_CLAIMS: dict[str, Forgery] = {
    "nbf tomorrow": lambda forger: forger.with_claims(nbf=later(forger, "nbf", DAY)),
    "iat tomorrow": lambda forger: forger.with_claims(
        iat=later(forger, "iat", DAY), exp=later(forger, "exp", DAY)
    ),
    "sub with a sign": lambda forger: forger.with_claims(sub=f"+{forger.user_id}"),
    "sub with a space": lambda forger: forger.with_claims(sub=f" {forger.user_id}"),
    "sub with a zero in front": lambda forger: forger.with_claims(sub=f"0{forger.user_id}"),
    "sub in digits of full width": lambda forger: forger.with_claims(
        sub=str(forger.user_id).translate(DIGITS)
    ),
    "sid in digits of full width": lambda forger: forger.with_claims(
        sid=str(forger.session_id).translate(DIGITS)
    ),
    "sid with an underscore": lambda forger: forger.with_claims(sid=f"{forger.session_id}_0"),
    "exp in digits of full width": lambda forger: forger.with_claims(
        exp=str(forger.claims()["exp"]).translate(DIGITS)
    ),
    "claims a list": lambda forger: forger.token(claims=b"[]"),
    "claims no JSON": lambda forger: forger.token(claims=b"{"),
    "claims not UTF-8": lambda forger: forger.token(claims=b'{"sub": "\xff"}'),
    "claims nested deeply": lambda forger: forger.token(claims=b"[" * 100_000 + b"]" * 100_000),
    "a claim twice": lambda forger: with_payload(forger, twice("sub", forger.claims(sub="1"))),
}

SPELLINGS: dict[str, Forgery] = {
    "signature with its spare bits set": lambda forger: with_last_letter_moved(forger.token()),
    "signature with padding": lambda forger: forger.token() + "=",
    "signature with junk in it": lambda forger: ".!!!!".join(forger.token().rsplit(".", 1)),
    "signature in the other alphabet": lambda forger: next(
        token.rpartition(".")[0] + "." + signature.replace("-", "+").replace("_", "/")
        for token in (forger.token() for _ in range(1000))
        for signature in [token.rpartition(".")[2]]
        if {"-", "_"} & set(signature)
    ),
    "header with padding": lambda forger: forger.token().replace(".", "=.", 1),
    "a space in it": lambda forger: forger.token().replace(".", ". ", 1),
    "a tab in it": lambda forger: forger.token().replace(".", ".\t", 1),
    "a comma behind it": lambda forger: forger.token() + ",x",
    "two tokens": lambda forger: f"{forger.token()} {forger.token()}",
    "quoted": lambda forger: f'"{forger.token()}"',
    "JSON serialisation": lambda forger: json.dumps(
        dict(zip(("protected", "payload", "signature"), forger.token().split("."), strict=True))
    ),
}

OTHER_KINDS: dict[str, Forgery] = {
    "empty": lambda _: "..",
    "one part": lambda _: "abc",
    "binary": lambda _: "\xff\xfe.\x00.\x00".replace("\x00", "\x01"),
    "header a list": lambda _: f"{segment([])}.{segment({})}.{segment('x')}",
    "header nested deeply": lambda _: segment(b"[" * 100_000 + b"]" * 100_000) + ".e30.e30",
    "four parts": lambda forger: forger.token() + "." + forger.token().rpartition(".")[2],
    "a nested token": lambda forger: forger.token(
        header=forger.header(cty="JWT"), claims=forger.token().encode()
    ),
    "encrypted, five parts": lambda forger: jwe.encrypt(
        json.dumps(forger.claims()), "0" * 32, algorithm="dir", encryption="A256GCM"
    ).decode(),
    "five parts": lambda forger: forger.token() + ".e30.e30",
    "a megabyte": lambda forger: forger.token(
        claims=forger.claims(padding="x" * 1_000_000), key=ATTACKERS_KEY
    ),
    "a challenge": lambda forger: create_challenge(forger.user_id, "$bcrypt-sha256$"),
    "a refresh token": lambda forger: str(RefreshToken.issue(forger.session_id, new_secret())),
    "an account token": lambda _: f"pra_{new_secret()}",
    "nobody's API key": lambda _: new_api_key(),
    "an API key cut short": lambda _: new_api_key()[:-1],
    "an API key's prefix": lambda _: "prk_",
    "the secret itself": lambda _: get_settings().secret_key,
    "a session's id": lambda forger: str(forger.session_id),
}

FORGERIES: dict[str, Forgery] = {
    **NO_SIGNATURE,
    **OTHER_KEY,
    **{name: partial(Forger.with_header, **changes) for name, changes in HEADERS.items()},
    **{name: partial(Forger.with_claims, **changes) for name, changes in CLAIMS.items()},
    **DIFFERENT_CLAIMS,
    **SPELLINGS,
    **OTHER_KINDS,
}
