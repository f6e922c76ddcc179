"""An OpenID provider on this machine, for tests: the code flow with PKCE, and whatever claims a test gives."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

CLIENT = {"client_id": "copl", "client_secret": "a secret of the client"}
KEY = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})


class OpenIdServer:
    """Everybody who comes is signed in at once, with ``claims``.

    Attributes:
        claims: what the next ID token says, over the claims that every token has.
        in_token: whether address and name are in the token; otherwise only the address /userinfo has them.
        key: what signs the tokens.
        error: what it answers instead of a code.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.codes: dict[str, dict[str, str]] = {}
        self.requests: list[str] = []
        self.reset()
        routes = [
            Route("/.well-known/openid-configuration", self.metadata),
            Route("/authorize", self.authorize),
            Route("/token", self.token, methods=["POST"]),
            Route("/userinfo", self.userinfo),
            Route("/jwks", lambda request: JSONResponse({"keys": [KEY.as_dict(private=False)]})),
        ]
        config = Config(Starlette(routes=routes), port=port, log_level="error", lifespan="off")
        self.server = Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def reset(self) -> None:
        self.claims: dict[str, Any] = {"sub": "ann", "email": "ann@example.org", "email_verified": True, "name": "Ann"}
        self.in_token, self.key, self.error = True, KEY, ""

    def start(self) -> OpenIdServer:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)

    def metadata(self, request: Request) -> Response:
        paths = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
        return JSONResponse(
            {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", "id_token_signing_alg_values_supported": ["RS256"]}
            | {f"{name}_endpoint": f"{self.url}/{path}" for name, path in paths.items()}
        )

    def authorize(self, request: Request) -> Response:
        wanted = dict(request.query_params)
        assert wanted["client_id"] == CLIENT["client_id"] and wanted["code_challenge_method"] == "S256"
        answer = {"state": wanted["state"], "iss": self.url}
        if self.error:
            answer["error"] = self.error
        else:
            answer["code"] = secrets.token_hex(8)
            self.codes[answer["code"]] = wanted
        return RedirectResponse(f"{wanted['redirect_uri']}?{urlencode(answer)}", 302)

    async def token(self, request: Request) -> Response:
        form = await request.form()
        given = base64.b64encode(f"{CLIENT['client_id']}:{CLIENT['client_secret']}".encode()).decode()
        wanted = self.codes.pop(str(form["code"]), None)  # a code works once
        challenge = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        proof = base64.urlsafe_b64encode(challenge).decode().rstrip("=")
        if wanted is None or proof != wanted["code_challenge"] or request.headers["authorization"] != f"Basic {given}":
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        every = {"iss": self.url, "aud": CLIENT["client_id"], "iat": now, "exp": now + 300, "nonce": wanted["nonce"]}
        claims = {name: value for name, value in (every | self.claims).items() if value is not None}
        if not self.in_token:
            claims = {name: value for name, value in claims.items() if name not in ("email", "email_verified", "name")}
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.key)
        return JSONResponse({"access_token": "t", "token_type": "Bearer", "expires_in": 300, "id_token": signed})

    def userinfo(self, request: Request) -> Response:
        return JSONResponse({name: value for name, value in self.claims.items() if value is not None})
