"""Sign-in with an identity provider (OpenID Connect): its settings, and the two addresses of its code flow.

Authlib makes the requests and checks what comes back: state, nonce, PKCE, signature, issuer, audience and times.  What
it returns becomes an ``Identity``, and the browser gets a session of the studio; tokens of the provider are not kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlencode, urlsplit

import streamlit as st
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from copl_core.records import CoplError, Identity
from copl_core.study import accounts, sign_in
from web.answers import is_local, problem_page, with_cookie
from web.installation import cookie_name, installation, open_study

DEFAULT = "default"  # the provider of a section [auth] without subsections
FLOW_COOKIE, FLOW_SECONDS = "copl_provider", 600  # what the browser keeps between the two addresses, signed
_SECONDS = 10  # for one answer of a provider
_KEYS = ("client_id", "client_secret", "server_metadata_url")
_RESERVED = ("redirect_uri", "cookie_secret", "client_kwargs", "expose_tokens", *_KEYS)
_STALE = (
    "This sign-in was begun in another browser, more than ten minutes ago, or has been used already. Nobody was signed "
    "in; begin again."
)
log = logging.getLogger("copl")


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """The section [auth] of `.streamlit/secrets.toml`."""

    redirect_uri: str
    cookie_secret: str
    sections: Mapping[str, Mapping[str, Any]]  # name → client_id, client_secret, server_metadata_url, client_kwargs

    @property
    def callback_path(self) -> str:
        return urlsplit(self.redirect_uri).path

    @property
    def login_path(self) -> str:
        return self.callback_path.removesuffix("oauth2callback") + "auth/login"


def auth_section() -> Mapping[str, Any] | None:
    """The section [auth] as it is written; None: there is none."""
    return st.secrets["auth"].to_dict() if st.secrets.load_if_toml_exists() and "auth" in st.secrets else None


def provider_settings() -> ProviderSettings | None:
    """The checked settings; None: no identity provider is set up.

    Raises:
        CoplError: they are not complete, or Authlib is not installed.
    """
    section = auth_section()
    return None if section is None else checked(section)


def checked(section: Mapping[str, Any]) -> ProviderSettings:
    named = {name: value for name, value in section.items() if name not in _RESERVED and isinstance(value, Mapping)}
    sections = named or {DEFAULT: section}
    for name, one in sections.items():
        where = "[auth]" if name == DEFAULT else f"[auth.{name}]"
        for key in _KEYS:
            if not isinstance(one.get(key), str) or not one[key]:
                raise CoplError(
                    f"{where} in secrets.toml has no {key}; copy it from the provider's page of this client."
                )
    redirect, secret = section.get("redirect_uri"), section.get("cookie_secret")
    if not isinstance(redirect, str) or not urlsplit(redirect).path.endswith("/oauth2callback"):
        raise CoplError(
            "[auth] in secrets.toml needs redirect_uri, the address of this studio with /oauth2callback at its end, "
            "such as https://studio.example.org/oauth2callback."
        )
    if not isinstance(secret, str) or len(secret) < 32:
        raise CoplError(
            "[auth] in secrets.toml needs cookie_secret of 32 characters or more; make one with: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return ProviderSettings(redirect, secret, sections)


# ---- the two addresses


def endpoint_of(path: str, settings: ProviderSettings) -> Callable[..., Any] | None:
    return {settings.login_path: login, settings.callback_path: callback}.get(path)


async def login(request: Request, settings: ProviderSettings) -> Response:
    """To the provider; a POST of one's own page answers with the address, to connect an account to who is signed in."""
    query = request.query_params
    try:
        client = client_of(settings, query.get("provider", DEFAULT))
        wanted = query.get("next", "")
        flow = {"provider": client.name, "next": wanted if is_local(wanted) else "/"}
        if request.method == "POST":
            flow["connect"] = _study_of(query.get("connect", ""))
        answer = await client.authorize_redirect(request, settings.redirect_uri)
    except CoplError as problem:
        return problem_page(str(problem), 503)
    except Exception as problem:  # of the network, and of whatever answers there
        log.warning("The identity provider could not be reached: %s", _reason(problem))
        return problem_page("The identity provider does not answer; try again in a minute.", 503)
    request.session["flow"] = flow
    return PlainTextResponse(answer.headers["location"]) if request.method == "POST" else answer


def _study_of(text: str) -> int:
    """The number of a study in an address; one that no study can have is that of none, as which nobody is signed in."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


async def callback(request: Request, settings: ProviderSettings) -> Response:
    """Back from the provider: a session of the studio, or a page that says why not."""
    flow = request.session.pop("flow", None)
    try:
        if not isinstance(flow, dict):
            raise CoplError(_STALE)
        identity = await _identity(request, client_of(settings, flow["provider"]))
        secret = await run_sync(_signed_in, request, flow, identity)
    except CoplError as problem:
        request.session.clear()
        return problem_page(str(problem), 403)
    return with_cookie(request, RedirectResponse(flow["next"], 303), secret)


def _signed_in(request: Request, flow: Mapping[str, Any], identity: Identity) -> str | None:
    """The secret of the session that begins; None: an account was connected to the one that there is."""
    store, _ = installation()
    if "connect" not in flow:
        return sign_in.begin_with(store, identity, agent=request.headers.get("user-agent", ""))
    browser = request.cookies.get(cookie_name(), "")
    me = sign_in.signed_in(store, browser, flow["connect"]) if browser else None
    if me is None:
        raise CoplError(sign_in.SIGNED_OUT)
    accounts.connect(open_study(flow["connect"]).acting(me.id), me.id, identity)
    return None


async def _identity(request: Request, client: Any) -> Identity:
    """Who the provider says has signed in.

    Raises:
        CoplError: the person gave up, the answer does not belong to this browser, or it cannot be trusted.
    """
    from authlib.integrations.base_client import MismatchingStateError, OAuthError
    from joserfc.errors import ExpiredTokenError, JoseError

    try:
        metadata = await client.load_server_metadata()
        issuer = metadata["issuer"]
        if request.query_params.get("iss", issuer) != issuer:  # RFC 9207: of a flow with another provider
            raise CoplError(_STALE)
        expected = {
            "iss": {"essential": True, "values": [issuer]},
            "aud": {"essential": True, "value": client.client_id},
        }
        token = await client.authorize_access_token(request, claims_options=expected)
        claims = token.get("userinfo")
        if claims is None:
            raise CoplError("The identity provider sent no ID token; give its client the scope openid.")
        return accounts.identity_of(await _with_userinfo(client, metadata, token, dict(claims)))
    except MismatchingStateError:
        raise CoplError(_STALE) from None
    except OAuthError as problem:
        if problem.error == "access_denied":
            raise CoplError("The sign-in was cancelled at the identity provider. Nobody was signed in.") from None
        log.warning("The identity provider refused the sign-in: %s", _reason(problem))
        raise CoplError("The identity provider refused this sign-in. Nobody was signed in; begin again.") from None
    except ExpiredTokenError:
        raise CoplError(
            "The identity provider's token has expired. Nobody was signed in; begin again, and compare the clocks of "
            "both machines if it happens again."
        ) from None
    except JoseError as problem:
        log.warning("The identity provider's token does not hold: %s", _reason(problem))
        raise CoplError(
            "The identity provider's token does not hold: its signature, its issuer, whom it is for or a claim of it "
            "is wrong. Nobody was signed in; the log of the app says which."
        ) from None
    except CoplError:
        raise
    except Exception as problem:  # of the network, and of whatever answers there
        log.warning("The identity provider's answer could not be read: %s", _reason(problem))
        raise CoplError(
            "The identity provider does not answer as the standard says. Nobody was signed in; try again in a minute."
        ) from None


async def _with_userinfo(
    client: Any, metadata: Mapping[str, Any], token: Any, claims: dict[str, Any]
) -> dict[str, Any]:
    """The claims of the ID token, with address and name from the provider's other address where they are not in it."""
    if "email" in claims or not metadata.get("userinfo_endpoint") or "access_token" not in token:
        return claims
    more = dict(await client.userinfo(token=token))
    if more.get("sub") != claims.get("sub"):  # OpenID Connect Core 1.0, section 5.3.2
        raise CoplError("The identity provider describes another account than it signed in. Nobody was signed in.")
    return {name: more[name] for name in ("email", "email_verified", "name") if name in more} | claims


def _reason(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"[:300]


def client_of(settings: ProviderSettings, name: str) -> Any:
    """Authlib's client of a provider.

    Raises:
        CoplError: there is no such provider, or Authlib is not installed.
    """
    if name not in settings.sections:
        raise CoplError(f"There is no identity provider {name[:60]!r} here; use the button of the first page.")
    return _client(name, json.dumps(settings.sections[name], sort_keys=True, default=str))


@cache
def _client(name: str, section: str) -> Any:
    """Kept, with what it has read of the provider."""
    try:
        from authlib.integrations.starlette_client import OAuth
    except ModuleNotFoundError:
        raise CoplError(
            "Sign-in with an identity provider needs the package Authlib; install it with: pip install '.[oidc]'"
        ) from None
    given = json.loads(section)
    more = given.get("client_kwargs", {})
    prompt = more.pop("prompt", "select_account")  # on a shared machine the last person's account is not taken
    oauth = OAuth()
    oauth.register(
        name,
        **{key: given[key] for key in _KEYS},
        authorize_params={"prompt": prompt} if prompt else {},
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256", "timeout": _SECONDS, **more},
    )
    return oauth.create_client(name)


def sign_in_buttons() -> list[tuple[str, str]]:
    """(the words, the address) of a button for each provider; none where no provider is set up.

    Raises:
        CoplError: the settings of a provider are not complete.
    """
    settings = provider_settings()
    if settings is None:
        return []
    return [
        (
            "Sign in" if name == DEFAULT else f"Sign in with {name.replace('-', ' ').title()}",
            f"{settings.login_path}?{urlencode({'provider': name})}",
        )
        for name in settings.sections
    ]
