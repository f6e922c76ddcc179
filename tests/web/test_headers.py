"""The headers of answers; ``test_watching`` asks the running app for those of its addresses."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from copl_core.config import Settings
from copl_core.records import CoplError
from copl_core.serving.app import make_app
from pages import scripts
from tests.worlds import open_study
from web import headers


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return open_study(tmp_path_factory.mktemp("headers"))


def test_an_answer_that_fails_has_them_too_and_says_nothing_of_the_reason():
    def fails(request):
        raise RuntimeError("a secret of the program")

    app = Starlette(routes=[Route("/", fails)], exception_handlers={Exception: headers.failed})
    answer = TestClient(app, raise_server_exceptions=False).get("/")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json", "/metrics", "/v1/rewards", "/nothing"])
def test_every_answer_of_the_reward_server_has_them(session, path):
    server = TestClient(make_app(session.store, session.settings), client=("203.0.113.7", 5))
    found = server.get(path).headers
    assert found["content-security-policy"].startswith("default-src 'none'")
    assert (found["x-frame-options"], found["x-content-type-options"]) == ("DENY", "nosniff")


def test_no_script_runs_that_the_policy_does_not_name():
    found = headers.policy("studio.example.org")
    scripts_only = re.search("script-src ([^;]*)", found)[1]
    assert "unsafe-inline" not in scripts_only and "http" not in scripts_only
    assert scripts_only.count("sha256-") == len(scripts.EVERY) + 1  # and the one of Streamlit's own page
    assert "connect-src 'self' data: blob: ws://studio.example.org wss://studio.example.org;" in found


@pytest.mark.parametrize("host", ["evil; script-src *", "one two", "one,two", "evil\n", "'evil'"])
def test_a_host_adds_nothing_to_the_policy(host):
    assert headers.policy(host) == headers.policy("")


def test_pictures_of_hosts_that_owners_name_are_loaded_by_https_and_nothing_else_of_them():
    found = headers.policy("h", "", ("a.org", "b.org:8443"))
    assert "img-src 'self' data: blob: https://a.org https://b.org:8443;" in found
    assert found.count("a.org") == 1 and headers.policy("h") == found.replace(" https://a.org https://b.org:8443", "")


def test_a_site_that_frames_the_app_is_named_in_a_setting():
    settings = Settings(framed_by="https://portal.example.org https://*.example.org:8443")
    found = headers.security_headers(headers.policy("h", settings.framed_by), framed=True)
    assert found["Content-Security-Policy"].endswith(f"frame-ancestors {settings.framed_by}")
    assert "X-Frame-Options" not in found


@pytest.mark.parametrize("site", ["*", "portal.example.org", "https://a.org; script-src *", "javascript:x", "'self'"])
def test_what_is_no_site_is_refused_as_one_that_frames_the_app(site):
    with pytest.raises(CoplError, match="COPL_FRAMED_BY"):
        Settings(framed_by=site)
