"""Entry point of the web app.  The server imports it and finds ``app``; for every visitor it runs as the script, which
signs the visitor in and declares the pages.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from copl_core.logs import note
from copl_core.records import CoplError, Role, StudyRecord, User
from copl_core.store import Store
from copl_core.study import access, sign_in
from pages import join
from pages.account import account, welcome
from pages.common import current, is_id, page_link, page_run, set_current, stop_with_error
from pages.failures import show_failure
from pages.sending import try_again, waits
from web.installation import cookie_name, installation, open_study
from web.providers import sign_in_buttons

NOT_FOR_ANNOTATORS = ("overview", "people", "experts", "controversy", "reward", "training", "quality", "settings")
ICON = str(Path(__file__).parent / "web" / "icon.svg")

# ---- who visits, and which study


class Visitor:
    """The person behind a browser, by the session of its cookie."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.secret = st.context.cookies.get(cookie_name(), "")
        self.session = sign_in.session_of(store, self.secret) if self.secret else None

    def studies_now(self) -> tuple[StudyRecord, ...]:
        """The same studies looked up now, for a page that is open already."""
        self.session = sign_in.session_of(self.store, self.secret) if self.secret else None
        return self.studies()

    def studies(self) -> tuple[StudyRecord, ...]:
        """The studies that the visitor may open, the one opened last first."""
        if self.session is None:
            return ()
        return tuple(sorted(self.session.studies, key=lambda study: study.id != self.session.last))

    def enter(self, study_id: int) -> User | None:
        """The user as whom the visitor opens a study."""
        return None if self.session is None else sign_in.open_study(self.store, self.secret, study_id)

    def again(self, study_id: int) -> User | None:
        """The same user looked up now, for an act of a page that is open already."""
        return sign_in.signed_in(self.store, self.secret, study_id)


def wanted_study(store: Store) -> int | None:
    """The study that the address names, by its number or by an invite to it."""
    known = {study.id for study in store.studies()}
    if invite := st.query_params.get("invite"):
        return access.study_of_invite(store, invite)
    named = st.query_params.get("study", "")
    return int(named) if is_id(named) and int(named) in known else None


def choose_study(visitor: Visitor) -> tuple[int, User | None]:
    """(the study that this tab shows, the user as whom the visitor is signed in to it, if any)."""
    store, wanted = visitor.store, wanted_study(visitor.store)
    shown = [wanted] if wanted is not None else [st.session_state.get("study"), *(one.id for one in visitor.studies())]
    current = store.current_study()
    assert current is not None  # the installation has been prepared
    for study_id in dict.fromkeys([*shown, *([] if wanted else [current.id])]):
        user = None if study_id is None else visitor.enter(study_id)
        if user is not None:
            return study_id, user
    return wanted or current.id, None


# ---- the script that every visitor runs


def main() -> None:
    st.set_page_config(page_title="CoPL Studio", page_icon=ICON, layout="wide")
    try:
        store, _ = opened()
        visitor = Visitor(store)
        study_id, user = choose_study(visitor)
        note(study=study_id)
        study = open_study(study_id)
        many = len(store.studies()) > 1
        providers = sign_in_buttons()
    except CoplError as problem:
        if waits():  # the page of an answer that is sent again, and not a sentence that nothing follows
            try_again()
            st.stop()
        menu(None)  # keeps the address for when the page opens again
        stop_with_error(problem)
    set_current(study, user, lambda: visitor.again(study_id), browser=visitor.secret, studies=visitor.studies_now)
    st.session_state["providers"] = providers
    if user is None:
        menu(None)
        join.page(visitor.session.identity if visitor.session else None)
        return
    keep_address(study_id if many else None)
    page = menu(user.role)
    account()
    if page.title != "Label":  # which shows it after the first answer
        welcome()
    page.run()


@st.cache_resource(show_spinner="Opening the study")
def opened():
    return installation()


def keep_address(study_id: int | None) -> None:
    """The address of a page names its study, so everybody who gets it sees the same study; a used invite leaves it."""
    for word in ("invite", "link"):
        st.query_params.pop(word, None)
    if st.query_params.pop("joined", None):
        st.session_state["joined"] = True
    if study_id is not None:
        st.session_state["study"] = study_id
        if st.query_params.get("study") != str(study_id):
            st.query_params["study"] = str(study_id)


def not_for_annotators() -> None:
    """What an annotator sees at an address that a researcher or an owner has shared."""
    st.title("Not open to you")
    st.write("This page is for researchers and owners of the study. Ask an owner for that role, or go on labelling.")
    page_link("label", "Label")


def not_for_researchers() -> None:
    """What a researcher sees at the address of the page that owners have."""
    session, _ = current()
    owners = ", ".join(user.name for user in access.users(session) if user.role == Role.OWNER)
    st.title("Not open to you")
    st.text(f"This page is for owners of the study. Ask one of them: {owners}.")
    page_link("overview", "Overview")


def go_to(page: st.Page) -> None:
    """Show another page in place of this one, marked in the menu."""
    st.session_state["page running"] = False  # by its own request, and not interrupted
    st.switch_page(page)


def menu(role: Role | None):
    """The pages that a role may open.  For somebody who is not signed in: all of them, and no menu, so that the address
    stays as it is for after the sign-in.
    """
    taste = st.Page("pages/taste.py", title="My taste", icon=":material/person:")
    if role == Role.ANNOTATOR:
        # Annotators start on the labelling page; its address /label leads there.  Streamlit tells pages apart by
        # ``url_path`` alone, which the default page never shows.
        start = st.Page("pages/label.py", title="Label", icon=":material/compare:", url_path="start", default=True)
        by_address = st.Page(partial(go_to, start), title="Label", url_path="label", visibility="hidden")
        others = [
            st.Page(not_for_annotators, title="Not open to you", url_path=name, visibility="hidden")
            for name in NOT_FOR_ANNOTATORS
        ]
        return st.navigation([start, taste, by_address, *others])
    overview = st.Page("pages/overview.py", title="Overview", icon=":material/home:", default=True)
    label = st.Page("pages/label.py", title="Label", icon=":material/compare:", url_path="label")
    explore = [
        st.Page("pages/people.py", title="People", icon=":material/scatter_plot:"),
        st.Page("pages/experts.py", title="Experts", icon=":material/account_tree:"),
        st.Page("pages/controversy.py", title="Controversy", icon=":material/call_split:"),
        st.Page("pages/reward.py", title="Reward", icon=":material/balance:"),
        st.Page("pages/training.py", title="Training", icon=":material/timeline:"),
    ]
    quality = st.Page("pages/quality.py", title="Quality", icon=":material/fact_check:")
    settings = st.Page("pages/settings.py", title="Study", icon=":material/tune:")
    if role == Role.RESEARCHER:
        settings = st.Page(not_for_researchers, title="Not open to you", url_path="settings", visibility="hidden")
    manage = [quality, settings]
    position = "sidebar" if role else "hidden"
    return st.navigation({"": [overview, label, taste], "Explore": explore, "Manage": manage}, position=position)


if __name__ == "__main__":
    with page_run():
        main()
else:
    from starlette.middleware import Middleware
    from streamlit.runtime.pages_manager import PagesManager
    from streamlit.starlette import App

    from copl_core.serving.headers import SecurityHeaders
    from web.frames import Frames
    from web.headers import app_headers, failed
    from web.logs import start_logs
    from web.open_ahead import OpenAhead
    from web.pictures import Pictures
    from web.sign_in import SignIn
    from web.watching import ROUTES, OwnMetrics

    start_logs()
    # Otherwise the first visitor of a fresh server sees a menu of the files in ``pages``.
    PagesManager.uses_pages_directory = False
    middleware = [
        Middleware(SecurityHeaders, app_headers),
        Middleware(OpenAhead),
        Middleware(OwnMetrics),
        Middleware(Frames),
        Middleware(SignIn),
        Middleware(Pictures),
    ]
    app = App(
        __file__,
        routes=ROUTES,
        middleware=middleware,
        exception_handlers={Exception: failed},
        on_script_error=show_failure,
    )
