"""A first start, as a person meets it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
LEFT, RIGHT = re.compile("^Left(?!,)"), re.compile("^Right(?!,)")  # not "Left, slightly"


def test_the_app_answers_on_its_health_address(studio):
    with urllib.request.urlopen(f"{studio.url}/_stcore/health", timeout=10) as answer:
        assert answer.status == 200


def test_the_owners_link_opens_a_pair_to_label(app, ready):
    page = ready(app.open())
    assert page.get_by_role("button", name=LEFT).is_visible()
    assert page.get_by_role("button", name=RIGHT).is_visible()
    texts = [
        page.locator(f".st-key-response-{side}", has_text=re.compile(r"\w")).inner_text().strip()
        for side in ("left", "right")
    ]
    assert texts[0] != texts[1]


def test_a_stranger_gives_a_name_and_then_sees_a_pair(app, settled):
    page = app.open(owner=False)
    assert page.get_by_role("button", name=LEFT).count() == 0
    page.get_by_label("Your name or a nickname").fill("Ada")
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("button", name=LEFT).wait_for()
    settled(page).wait_for_url("**token=**")


def test_a_second_start_keeps_the_owner(start_studio, browser):
    first = start_studio()
    assert first.stop() == 0
    again = start_studio()
    assert again.owner_url.startswith(again.url) and again.url != first.url
    page = browser.new_page()
    page.goto(first.owner_url.replace(first.url, again.url))  # the old link still signs the owner in
    page.get_by_role("button", name=LEFT).wait_for()
    page.close()


def test_ctrl_c_stops_the_app_and_the_trainer_while_a_page_is_open(start_studio, browser):
    studio = start_studio()
    page = browser.new_page()
    page.goto(studio.owner_url)
    page.get_by_role("button", name=LEFT).wait_for()
    children = psutil.Process(studio.process.pid).children(recursive=True)
    assert len(children) >= 3  # app, trainer, guard
    assert studio.stop(signal.SIGINT) == 0
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert "Traceback" not in studio.said.read_text()
    page.close()


def test_the_app_alone_works_and_says_that_no_trainer_runs(tmp_path, browser, settled):
    environment = os.environ | {"COPL_HOME": str(tmp_path)}
    link = subprocess.run(
        [sys.executable, "-m", "copl_core", "link"],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        check=True,
    ).stdout.strip()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "streamlit_app.py", "--server.port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    page = browser.new_page()
    try:
        wait_for_health(port)
        page.goto(f"http://localhost:{port}/?{link.partition('?')[2]}")
        page.get_by_role("button", name=LEFT).wait_for()
        settled(page).goto(f"http://localhost:{port}/training?{link.partition('?')[2]}")
        page.get_by_text("python -m copl_core worker").first.wait_for()
    finally:
        page.close()
        app.terminate()
        app.wait(20)


def test_a_taken_port_is_told_in_one_sentence(studio):
    done = subprocess.run(
        studio.process.args, cwd=ROOT, env=studio.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "COPL_PORT" in done.stdout and len(done.stdout.splitlines()) == 1 and not done.stderr


def wait_for_health(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=2):
            return
        time.sleep(0.2)
    raise AssertionError("the app did not answer")
