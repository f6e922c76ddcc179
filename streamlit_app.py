"""Entry point of the web app: opens the store and the study, signs the visitor in, declares the pages."""

from __future__ import annotations

import streamlit as st

from copl_core.__main__ import open_store, prepare
from copl_core.config import Settings
from copl_core.records import CoplError, Role, User
from copl_core.study import access
from copl_core.study.session import Session
from pages.common import page_run, set_current

OVERVIEW = st.Page("pages/overview.py", title="Overview", icon=":material/home:", default=True)
LABEL = st.Page("pages/label.py", title="Label", icon=":material/compare:", url_path="label")
# Annotators start on the labelling page; its address /label works for them too.
START = st.Page("pages/label.py", title="Label", icon=":material/compare:", default=True)
LABEL_BY_ADDRESS = st.Page("pages/label.py", title="Label", url_path="label", visibility="hidden")
TASTE = st.Page("pages/taste.py", title="My taste", icon=":material/person:")
EXPLORE = [
    st.Page("pages/people.py", title="People", icon=":material/scatter_plot:"),
    st.Page("pages/experts.py", title="Experts", icon=":material/account_tree:"),
    st.Page("pages/controversy.py", title="Controversy", icon=":material/call_split:"),
    st.Page("pages/reward.py", title="Reward", icon=":material/balance:"),
    st.Page("pages/training.py", title="Training", icon=":material/timeline:"),
]
QUALITY = st.Page("pages/quality.py", title="Quality", icon=":material/fact_check:")
SETTINGS = st.Page("pages/settings.py", title="Study", icon=":material/tune:")
JOIN = st.Page("pages/join.py", title="Join", url_path="join")


@st.cache_resource(show_spinner="Opening the study")
def installation():
    """The store of this installation, opened once per process; an empty one gets the demo study and an owner."""
    settings = Settings.from_environment()
    store = open_store(settings)
    if store.current_study() is None:
        prepare(settings)
    return store, settings


@st.cache_resource
def open_study(study_id: int) -> Session:
    return Session(*installation(), study_id)


def signed_in(session: Session) -> User | None:
    """The user whose token is in the address, looked up in every run: roles change and tokens are revoked."""
    token = st.query_params.get("token") or st.session_state.get("token")
    user = access.sign_in(session, token) if token else None
    st.session_state["token"] = token if user else None
    if user is not None:
        st.query_params["token"] = token  # a reload then signs in the same user
    return user


def provider() -> bool:
    """Whether `.streamlit/secrets.toml` names an identity provider."""
    return st.secrets.load_if_toml_exists() and "auth" in st.secrets


def signed_in_with_provider(session: Session) -> User | None:
    """The user of a verified e-mail address; for everybody else the page ends with a sentence."""
    if not st.user.is_logged_in:
        st.title("CoPL Studio")
        st.button("Sign in", type="primary", on_click=st.login)
        st.stop()
    verified = st.user.get("email_verified") is not False  # some providers verify every address and send no such field
    user = (
        access.sign_in_email(session, st.user.email, st.user.get("name") or "")
        if verified and st.user.get("email")
        else None
    )
    if user is None:
        st.error(
            f"{st.user.get('email') or 'This account'} has no access to this study. Ask its owner, or sign in with "
            "another account."
        )
        st.button("Sign out", on_click=st.logout)
        st.stop()
    return user


def main() -> None:
    st.set_page_config(page_title="CoPL Studio", page_icon=":material/balance:", layout="wide")
    try:
        store, _ = installation()
        study = open_study(store.current_study().id)
    except CoplError as problem:
        st.error(str(problem))
        st.stop()
    user = signed_in_with_provider(study) if provider() else signed_in(study)
    set_current(study, user)
    if user is None:
        st.navigation([JOIN], position="hidden").run()
    elif user.role == Role.ANNOTATOR:
        st.navigation([START, TASTE, LABEL_BY_ADDRESS]).run()
    else:
        manage = [QUALITY, SETTINGS] if user.role == Role.OWNER else [QUALITY]
        st.navigation({"": [OVERVIEW, LABEL, TASTE], "Explore": EXPLORE, "Manage": manage}).run()


with page_run():
    main()
