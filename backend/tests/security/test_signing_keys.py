"""Signing keys: rotation, removal, publication and separation of keys."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.keys import new_private_key, secret_id, signing_keys
from app.auth.security import create_access_token
from app.core.config import Algorithm, SetupError, get_settings
from tests.factories import PASSWORD, create_user
from tests.processes import FORKS
from tests.security.answers import assert_refused
from tests.security.conftest import Install
from tests.security.forging import Forger, segment, unsegment

OLD, NEW = "the secret before: 32 bytes long.", "the secret after: 32 bytes long.."
KEY_PAIR_ALGORITHMS = [Algorithm.RS256, Algorithm.ES256]

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Pem = Callable[[PrivateKey], bytes]


def private_pem(key: PrivateKey, *, password: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )


def public_pem(pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(pem, None).public_key()
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def number(text: str) -> int:
    return int.from_bytes(unsegment(text))


def verify(token: str, jwk: dict[str, Any]) -> None:
    """Verify a token as another service does, by RFC 7515 to 7518, without application code."""
    signed, _, text = token.rpartition(".")
    signature = unsegment(text)
    if jwk["kty"] == "RSA":
        public = rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()
        public.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        assert jwk["crv"] == "P-256"
        assert len(signature) == 64
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        curve = ec.EllipticCurvePublicNumbers(number(jwk["x"]), number(jwk["y"]), ec.SECP256R1())
        curve.public_key().verify(
            encode_dss_signature(r, s), signed.encode(), ec.ECDSA(hashes.SHA256())
        )


async def status(client: httpx.AsyncClient, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await client.get("/auth/me", headers=headers)).status_code


async def key_set(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    response = await client.get("/.well-known/jwks.json")
    assert response.status_code == 200
    keys: list[dict[str, Any]] = response.json()["keys"]
    return keys


class TestSecrets:
    async def test_previous_key_is_accepted_until_it_is_removed(
        self, client: httpx.AsyncClient, forger: Forger, install: Install
    ) -> None:
        install(SECRET_KEY=OLD)
        token = forger.token()
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS=OLD)
        assert await status(client, token) == 200
        assert forger.header()["kid"] == secret_id(NEW)
        expired = forger.token(
            header=forger.header(kid=secret_id(OLD)), claims=forger.claims(exp=1), key=OLD.encode()
        )
        response = await client.get("/auth/me", headers={"Authorization": f"Bearer {expired}"})
        assert_refused(response, "token_expired")
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS="")
        response = await client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
        assert_refused(response)

    async def test_kid_selects_exactly_one_key(
        self, client: httpx.AsyncClient, forger: Forger, install: Install
    ) -> None:
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS=OLD)
        for kid, key in ((secret_id(OLD), NEW), (secret_id(NEW), OLD)):
            token = forger.token(header=forger.header(kid=kid), key=key.encode())
            assert await status(client, token) == 401

    async def test_secret_is_not_published(
        self, client: httpx.AsyncClient, install: Install
    ) -> None:
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS=OLD)
        assert await key_set(client) == []

    def test_kid_does_not_reveal_the_secret(self) -> None:
        assert secret_id(OLD) != secret_id(NEW)
        assert len(secret_id(OLD)) == 16  # 64 bits of a hash are too few to confirm a guess


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Create two key pairs for each algorithm once. Short RSA keys are read faster."""
    directory = tmp_path_factory.mktemp("keys")
    paths = {}
    for algorithm in KEY_PAIR_ALGORITHMS:
        for name in ("current", "previous"):
            path = directory / f"{algorithm}-{name}.pem"
            path.write_bytes(private_pem(new_key(algorithm)))
            paths[f"{algorithm} {name}"] = path
    return paths


@pytest.fixture(params=KEY_PAIR_ALGORITHMS, ids=str)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    return Algorithm(request.param)


@pytest.fixture
def use_key_pair(install: Install, pems: dict[str, Path], algorithm: Algorithm) -> None:
    install(JWT_ALGORITHM=algorithm, JWT_PRIVATE_KEY_FILE=pems[f"{algorithm} current"])


@pytest.mark.usefixtures("use_key_pair")
class TestKeyPairs:
    async def test_access_token_can_be_verified_with_published_key(
        self, client: httpx.AsyncClient, session: AsyncSession, algorithm: Algorithm
    ) -> None:
        user = await create_user(session, username="ada")
        form = {"username": "ada", "password": PASSWORD}
        token = (await client.post("/auth/login", data=form)).json()["access_token"]
        assert await status(client, token) == 200
        head, payload, _ = token.split(".")
        header, (jwk,) = json.loads(unsegment(head)), await key_set(client)
        assert header == {"alg": algorithm, "typ": "at+jwt", "kid": jwk["kid"]}
        assert (jwk["use"], jwk["alg"]) == ("sig", algorithm)
        verify(token, jwk)
        assert json.loads(unsegment(payload))["sub"] == str(user.id)

    async def test_published_key_contains_no_private_parameters(
        self, client: httpx.AsyncClient
    ) -> None:
        public = {"kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"}
        for jwk in await key_set(client):
            assert jwk.keys() <= public
            assert not jwk.keys() & {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}

    async def test_previous_key_is_accepted_until_it_is_removed(
        self,
        client: httpx.AsyncClient,
        forger: Forger,
        install: Install,
        pems: dict[str, Path],
        algorithm: Algorithm,
        tmp_path: Path,
    ) -> None:
        token = create_access_token(user_id=forger.user_id, session_id=forger.session_id)
        before = pems[f"{algorithm} current"]
        public_half = tmp_path / "before.pem"
        public_half.write_bytes(public_pem(before.read_bytes()))
        after = {"JWT_PRIVATE_KEY_FILE": pems[f"{algorithm} previous"]}
        for path in (before, public_half):
            install(**after, JWT_PREVIOUS_KEY_FILES=path)
            assert await status(client, token) == 200
            kid = json.loads(unsegment(token.split(".")[0]))["kid"]
            jwks = await key_set(client)
            assert len(jwks) == 2
            verify(token, next(jwk for jwk in jwks if jwk["kid"] == kid))
            assert jwks[0].keys() == jwks[1].keys()
        install(**after, JWT_PREVIOUS_KEY_FILES="")
        assert await status(client, token) == 401
        assert len(await key_set(client)) == 1

    @pytest.mark.parametrize("encoding", ["PEM", "PEM without its last line break", "DER", "JWK"])
    async def test_hmac_with_the_public_key_is_refused(
        self,
        client: httpx.AsyncClient,
        forger: Forger,
        pems: dict[str, Path],
        algorithm: Algorithm,
        encoding: str,
    ) -> None:
        """RFC 8725 §2.1: an HMAC with the public key, in any encoding."""
        pem = public_pem(pems[f"{algorithm} current"].read_bytes())
        key = {
            "PEM": pem,
            "PEM without its last line break": pem.rstrip(),
            "DER": serialization.load_pem_public_key(pem).public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            "JWK": json.dumps((await key_set(client))[0]).encode(),
        }[encoding]
        for alg in ("HS256", algorithm.value):
            token = forger.token(header=forger.header(alg=alg), key=key)
            assert await status(client, token) == 401

    async def test_secret_key_does_not_sign_access_tokens(
        self, client: httpx.AsyncClient, forger: Forger
    ) -> None:
        secret = get_settings().secret_key
        for header in (
            forger.header(alg="HS256"),
            forger.header(alg="HS256", kid=secret_id(secret)),
        ):
            assert await status(client, forger.token(header=header, key=secret.encode())) == 401

    async def test_key_embedded_in_the_token_is_ignored(
        self, client: httpx.AsyncClient, forger: Forger, algorithm: Algorithm
    ) -> None:
        for token in tokens_with_embedded_key(forger, algorithm):
            assert await status(client, token) == 401

    async def test_alg_none_is_refused(self, client: httpx.AsyncClient, forger: Forger) -> None:
        assert await status(client, forger.unsigned(alg="none")) == 401
        assert await status(client, forger.unsigned()) == 401

    async def test_signature_of_zeros_is_refused(
        self, client: httpx.AsyncClient, forger: Forger, algorithm: Algorithm
    ) -> None:
        """CVE-2022-21449: r = s = 0 must not verify everything."""
        length = 256 if algorithm is Algorithm.RS256 else 64
        assert await status(client, forger.unsigned() + segment(bytes(length))) == 401


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def new_key(algorithm: Algorithm) -> PrivateKey:
    if algorithm is Algorithm.RS256:
        return rsa_key(2048)
    return ec.generate_private_key(ec.SECP256R1())


attackers_key = cache(new_key)


def tokens_with_embedded_key(forger: Forger, algorithm: Algorithm) -> list[str]:
    """Return tokens that are signed by an attacker, with the public key in the header."""
    key = attackers_key(algorithm)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        jwk = {"kty": "RSA", "n": as_text(numbers.n), "e": as_text(numbers.e)}
    else:
        point = key.public_key().public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "x": as_text(point.x), "y": as_text(point.y)}

    def signed(**header: Any) -> str:
        text = forger.unsigned(**header).rstrip(".")
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        return f"{text}.{segment(signature)}"

    return [signed(jwk=jwk), signed(jwk=jwk, kid=None), signed()]


def as_text(value: int) -> str:
    return segment(value.to_bytes((value.bit_length() + 7) // 8))


async def test_key_pair_token_is_refused_with_hs256(
    client: httpx.AsyncClient, forger: Forger
) -> None:
    for algorithm in KEY_PAIR_ALGORITHMS:
        for token in tokens_with_embedded_key(forger, algorithm):
            assert await status(client, token) == 401
    assert signing_keys().algorithm is Algorithm.HS256


UNUSABLE: dict[str, tuple[Algorithm, Callable[[], bytes]]] = {
    "RSA of 1024 bits": (Algorithm.RS256, lambda: private_pem(rsa_key(1024))),
    "EC of P-384": (Algorithm.ES256, lambda: private_pem(ec.generate_private_key(ec.SECP384R1()))),
    "EC of secp256k1": (
        Algorithm.ES256,
        lambda: private_pem(ec.generate_private_key(ec.SECP256K1())),
    ),
    "EC for RS256": (Algorithm.RS256, lambda: new_private_key(Algorithm.ES256)),
    "RSA for ES256": (Algorithm.ES256, lambda: private_pem(rsa_key(1024))),
    "encrypted": (
        Algorithm.ES256,
        lambda: private_pem(ec.generate_private_key(ec.SECP256R1()), password=b"password"),
    ),
    "the public half": (Algorithm.ES256, lambda: public_pem(new_private_key(Algorithm.ES256))),
    "cut short": (Algorithm.ES256, lambda: new_private_key(Algorithm.ES256)[:-60]),
    "no PEM": (Algorithm.ES256, lambda: b"my-secret-key"),
    "empty": (Algorithm.ES256, lambda: b""),
    "binary": (Algorithm.ES256, lambda: bytes(range(256))),
}


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_invalid_key_is_refused_at_startup(install: Install, tmp_path: Path, unusable: str) -> None:
    algorithm, make = UNUSABLE[unusable]
    path, pem = tmp_path / "key.pem", make()
    path.write_bytes(pem)
    install(JWT_ALGORITHM=algorithm, JWT_PRIVATE_KEY_FILE=path)
    with pytest.raises(SetupError) as refused:
        signing_keys()
    assert str(path) in str(refused.value)
    lines = [line for line in pem.decode("latin-1").splitlines() if len(line) > 8]
    assert not any(line in str(refused.value) for line in lines)


@pytest.mark.parametrize("missing", ["key.pem", "."], ids=["missing", "a folder"])
def test_unreadable_key_file_is_reported(install: Install, tmp_path: Path, missing: str) -> None:
    install(JWT_ALGORITHM="ES256", JWT_PRIVATE_KEY_FILE=tmp_path / missing)
    with pytest.raises(SetupError, match=str(tmp_path)):
        signing_keys()


def test_invalid_previous_key_is_refused_at_startup(install: Install, tmp_path: Path) -> None:
    current, previous = tmp_path / "current.pem", tmp_path / "previous.pem"
    current.write_bytes(new_private_key(Algorithm.ES256))
    previous.write_bytes(private_pem(ec.generate_private_key(ec.SECP384R1())))
    install(JWT_ALGORITHM="ES256", JWT_PRIVATE_KEY_FILE=current, JWT_PREVIOUS_KEY_FILES=previous)
    with pytest.raises(SetupError, match=str(previous)):
        signing_keys()


def test_ecdsa_package_is_not_imported() -> None:
    """It is a dependency of python-jose, with a timing weakness that will not be fixed."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tempfile import mkstemp\n"
        "from app.auth.keys import new_private_key, read_key_pair\n"
        "from app.core.config import Algorithm\n"
        "from app.main import create_app\n"
        "create_app()\n"
        "path = Path(mkstemp()[1])\n"
        "path.write_bytes(new_private_key(Algorithm.ES256))\n"
        "key = read_key_pair(path, Algorithm.ES256)\n"
        "path.unlink()\n"
        "assert key.verifier.verify(b'x', key.signer.sign(b'x'))\n"
        "assert type(key.signer).__module__ == 'jose.backends.cryptography_backend'\n"
        "assert 'ecdsa' not in sys.modules\n"
    )
    process = FORKS.Process(target=exec, args=(program, {}))
    process.start()
    process.join()
    assert process.exitcode == 0
