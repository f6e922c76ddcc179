"""The reward server: its answers are the study's own, its refusals are sentences, and it writes nothing."""

from __future__ import annotations

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import count
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from copl_core.serving import bodies, openapi
from copl_core.serving.app import make_app, server_of
from copl_core.serving.service import REWARD_STEP, WIN_STEP
from copl_core.study import access, contents, group_names, rewards, service_tokens, user_map
from copl_core.study.session import Session
from copl_core.study_settings import SMALLEST_GROUP, ServiceRole
from db.base import Base
from tests.worlds import by_style, fit_graph_now, long_text, pairs_to_label, short_text, three_people, two_camps
from tests.worlds import trained as trained_world

PROMPT, RESPONSES = "What about number 3?", [short_text(3), long_text(3)]
NEW = ["A short new one.", "A new one that is a good deal longer than the other, with more to say about it."]
BODY = {"prompt": PROMPT, "responses": RESPONSES, "user": "user 00"}
_names = count()


@pytest.fixture(scope="module")
def camps(tmp_path_factory) -> Session:
    session = trained_world(two_camps, tmp_path_factory, tmp_path_factory.mktemp("serving") / "home")
    return Session(session.store, session.settings, session.id, embed=by_style)


@pytest.fixture(scope="module")
def client(camps) -> TestClient:
    return TestClient(make_app(camps.store, camps.settings, embed=by_style, exact=True), client=("127.0.0.1", 4000))


def bearer(session: Session, role: ServiceRole = ServiceRole.REWARDS, per_minute: int = 1_000_000) -> dict[str, str]:
    _, secret = service_tokens.make_token(session, f"test {next(_names)}", role, per_minute)
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def token(camps) -> dict[str, str]:
    return bearer(camps)


@pytest.fixture(scope="module")
def users(camps) -> dict[str, int]:
    return {user.name: user.id for user in access.users(camps)}


def everything(session: Session) -> list:
    with session.store.engine.connect() as connection:
        return [connection.execute(table.select()).all() for table in Base.metadata.sorted_tables]


# ---- answers


@pytest.mark.parametrize("responses", [RESPONSES, NEW], ids=["labelled", "new"])
def test_the_numbers_are_those_of_the_reward_page(camps, client, token, users, responses):
    own = rewards.reward(camps, PROMPT, responses, users=[users["user 00"]], groups=False)
    page = rewards.reward(camps, PROMPT, responses)
    for body, view in (({"user": "user 00"}, own), ({"user": users["user 00"]}, own), ({}, page)):
        answer = client.post("/v1/rewards", json={"prompt": PROMPT, "responses": responses, **body}, headers=token)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["snapshot"] == view.snapshot == answer.headers["x-copl-snapshot"] and found["basis"] == view.basis
        assert found["labelled"] == (responses is RESPONSES) and len(found["rows"]) == len(view.rows)
        for row, expected in zip(found["rows"], view.rows, strict=True):
            assert (row["name"], row["kind"], row["people"]) == (expected.name, expected.kind, expected.size)
            for name in ("reward", "win", "low", "high"):
                served = {"reward": "rewards", "win": "win", "low": "win_low", "high": "win_high"}[name]
                assert row[served] == getattr(expected, name).tolist()  # equal, not nearly equal


@pytest.mark.parametrize("role", ServiceRole)
def test_rewards_are_rounded_unless_the_token_also_gets_embeddings(camps, client, role):
    """Every number is the nearest multiple of its step to that of the exact server."""
    app = make_app(camps.store, camps.settings, embed=by_style)
    asker, token = TestClient(app, client=("127.0.0.1", 4000)), bearer(camps, role)
    about = {} if role is ServiceRole.GROUPS else {"user": "user 00"}
    body = {"prompt": PROMPT, "responses": NEW, **about}
    texts = {"query": [PROMPT + text for text in NEW], "prompts": [PROMPT] * 2}
    address = "/get_reward?" + ("user=user%2000" if about else "group=1")

    def ask(server: TestClient) -> list[float]:
        rows = server.post("/v1/rewards", json=body, headers=token).json()["rows"]
        batch = server.post("/v1/rewards/batch", json={"requests": [body]}, headers=token).json()["answers"][0]["rows"]
        assert batch == rows != []
        shares = [value for row in rows for name in ("win", "win_low", "win_high") for value in row[name]]
        numbers = [value for row in rows for value in row["rewards"]]
        numbers += server.post(address, json=texts, headers=token).json()["rewards"]
        return [value / WIN_STEP for value in shares] + [value / REWARD_STEP for value in numbers]

    exact, served = np.array(ask(client)), np.array(ask(asker))
    assert not np.allclose(exact, np.round(exact), atol=1e-3)
    assert served == pytest.approx(exact if role is ServiceRole.PEOPLE else np.round(exact), abs=1e-6)


def test_a_group_is_found_by_its_name_and_by_its_number(camps, client, token):
    names = group_names.names(camps)
    for number, name in names.items():
        (expected,) = rewards.reward(camps, PROMPT, RESPONSES, groups=[number]).rows
        for wanted in (name.upper(), number + 1, str(number + 1)):
            body = {"prompt": PROMPT, "responses": RESPONSES, "group": wanted}
            (row,) = client.post("/v1/rewards", json=body, headers=token).json()["rows"]
            assert row["name"] == name and row["win"] == expected.win.tolist()


def test_labels_given_on_the_spot_place_somebody_who_is_nowhere_stored(camps, client, token):
    before = everything(camps)
    wins = []
    for preferred, rejected in ((short_text, long_text), (long_text, short_text)):
        labels = [
            {"prompt": f"What about number {n}?", "preferred": preferred(n), "rejected": rejected(n)} for n in range(6)
        ]
        answer = client.post(
            "/v1/rewards", json={"prompt": PROMPT, "responses": RESPONSES, "labels": labels}, headers=token
        )
        (row,) = answer.json()["rows"]
        wins.append(row["win"][0])
        ids = [(one["prompt"], one["preferred"], one["rejected"]) for one in labels]
        answers = rewards.answers_by_text(camps, ids)
        assert (
            row["win"] == rewards.reward(camps, PROMPT, RESPONSES, groups=False, answers=answers).rows[0].win.tolist()
        )
    assert wins[0] > 0.6 and wins[1] < 0.4 and everything(camps) == before
    labels = [{"prompt": "What about number 3?", "preferred": "never seen", "rejected": short_text(3)}]
    refused = client.post("/v1/rewards", json={**BODY, "user": None, "labels": labels}, headers=token)
    assert refused.status_code == 422 and "Label 1 does not name two responses of this study" in refused.json()["error"]


def test_messages_are_a_prompt_too(client, token):
    body = {"messages": [{"role": "user", "content": PROMPT}], "responses": RESPONSES, "user": "user 00"}
    assert client.post("/v1/rewards", json=body, headers=token).json() == \
        client.post("/v1/rewards", json=BODY, headers=token).json()  # fmt: skip
    body["messages"] = [{"role": "system", "content": "Be brief."}, *body["messages"]]
    assert client.post("/v1/rewards", json=body, headers=token).json()["labelled"] is False  # another prompt


def test_a_batch_gives_the_answers_of_its_requests(client, token):
    requests = [BODY, {**BODY, "user": "user 01"}, {"prompt": PROMPT, "responses": NEW}]
    batch = client.post("/v1/rewards/batch", json={"requests": requests}, headers=token).json()["answers"]
    assert batch == [client.post("/v1/rewards", json=one, headers=token).json() for one in requests]


def test_get_reward_has_the_shape_of_openrlhf_and_the_differences_of_the_page(camps, client, token, users):
    body = {"query": [PROMPT + text for text in NEW], "prompts": [PROMPT] * 2, "labels": ["", ""]}
    for address, audience in (
        ("?user=user%2000", {"users": [users["user 00"]], "groups": False}),
        ("?group=1", {"groups": [0]}),
    ):
        answer = client.post("/get_reward" + address, json=body, headers=token)
        assert list(answer.json()) == ["rewards"] and answer.headers["x-copl-snapshot"] == "v0001"
        first, second = answer.json()["rewards"]
        (row,) = rewards.reward(camps, PROMPT, NEW, **audience).rows
        assert first - second == pytest.approx(float(row.reward[0] - row.reward[1]), abs=1e-4)
        alone = client.post(
            "/get_reward" + address, json={"query": body["query"][:1], "prompts": [PROMPT]}, headers=token
        )
        assert alone.json()["rewards"] == pytest.approx([first], abs=1e-5)
    for address, sentence in (
        ("", "add ?user=NAME or ?group=NAME"),
        ("?user=a&group=1", "one of them"),
        ("?user=No", "no user"),
    ):
        refused = client.post("/get_reward" + address, json=body, headers=token)
        assert 400 <= refused.status_code < 500 and sentence in refused.json()["error"]


def test_an_embedding_is_the_one_of_the_study(camps, client, users):
    people = bearer(camps, ServiceRole.PEOPLE)
    position = user_map.position(camps, users["user 01"])
    for wanted in ("user 01", users["user 01"]):
        found = client.get(f"/v1/users/{wanted}/embedding", headers=people).json()
        assert found["embedding"] == [float(value) for value in position.vector] and found["name"] == "user 01"
        assert (found["labels"], found["source"], found["snapshot"]) == (10, "trained", "v0001")
        assert found["group"] == group_names.names(camps)[position.group]
    assert client.get("/v1/users/nobody/embedding", headers=people).status_code == 404
    assert client.get(f"/v1/users/{10**30}/embedding", headers=people).status_code == 404


# ---- who may ask


def test_without_a_live_token_of_the_right_role_nothing_is_answered(camps, client):
    refused = client.post("/v1/rewards", json=BODY)
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert "token is missing" in refused.json()["error"]
    for header in ("Bearer wrong", "Basic ???", "Basic " + b64encode(b"copl:wrong").decode(), "Bearer"):
        assert client.post("/v1/rewards", json=BODY, headers={"Authorization": header}).status_code == 401
    mine = bearer(camps)
    assert client.get("/v1/users/user 00/embedding", headers=mine).status_code == 403
    assert client.post("/v1/rewards", json=BODY, headers=mine).status_code == 200
    service_tokens.revoke_token(camps, service_tokens.tokens(camps)[0].name)
    revoked = client.post("/v1/rewards", json=BODY, headers=mine)
    assert revoked.status_code == 401 and "unknown or revoked" in revoked.json()["error"]


def test_the_token_may_stand_in_an_address(camps, client):
    secret = bearer(camps)["Authorization"].partition(" ")[2]
    header = {"Authorization": "Basic " + b64encode(f"copl:{secret}".encode()).decode()}
    assert client.post("/v1/rewards", json=BODY, headers=header).status_code == 200


def test_a_token_opens_its_own_study_alone(camps, client):
    other = Session(camps.store, camps.settings, camps.store.create_study("Elsewhere").id)
    contents.import_rows(other, pairs_to_label(2))
    refused = client.post("/v1/rewards", json={"prompt": PROMPT, "responses": NEW}, headers=bearer(other))
    assert refused.status_code == 409 and "no snapshot yet" in refused.json()["error"]


def test_a_token_that_asks_too_often_waits(camps, client):
    mine = bearer(camps, per_minute=3)
    batch = {"requests": [BODY, BODY]}
    assert client.post("/v1/rewards/batch", json=batch, headers=mine).status_code == 200
    assert client.post("/v1/rewards", json=BODY, headers=mine).status_code == 200
    refused = client.post("/v1/rewards", json=BODY, headers=mine)
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 20
    assert "may ask 3 times a minute" in refused.json()["error"]


# ---- bad bodies

texts = st.text(min_size=1, max_size=20).filter(str.strip)
junk = st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.lists(st.integers(), max_size=2)
not_text = junk | st.sampled_from(["", "  ", "\ud800", "x" * (bodies.TEXT_LENGTH + 1)])
not_texts = junk | st.text(max_size=5) | st.lists(texts, max_size=1) | st.tuples(not_text, texts).map(list)
not_texts |= texts.map(lambda one: [one, f" {one}"]) | st.just(["a"] * 2) | st.just([str(n) for n in range(33)])
not_a_key = (
    st.booleans() | st.floats(allow_nan=False) | st.lists(st.integers(), max_size=2) | st.just("") | st.just("\ud800")
)
not_messages = junk | st.text(max_size=3) | st.just([]) | st.lists(junk, min_size=1, max_size=2)
not_messages |= st.just([{"role": "user"}]) | st.just([{"role": "king", "content": "x"}])
not_messages |= st.just([{"role": "assistant", "content": "x"}])
not_labels = (
    st.booleans() | st.integers() | st.just([]) | st.lists(junk, min_size=1, max_size=2) | st.just([{"prompt": "x"}])
)
unknown = st.text(min_size=1, max_size=9).filter(lambda name: name not in bodies._REWARD_FIELDS)
bad_rewards = st.one_of(
    junk | st.text(max_size=5),
    not_text.map(lambda one: {**BODY, "prompt": one}),
    not_texts.map(lambda own: {**BODY, "responses": own}),
    not_a_key.map(lambda one: {**BODY, "user": one}),
    not_a_key.map(lambda one: {"prompt": PROMPT, "responses": RESPONSES, "group": one}),
    texts.map(lambda name: {**BODY, "user": "nobody " + name}),
    not_messages.map(lambda own: {"messages": own, "responses": RESPONSES}),
    not_labels.map(lambda own: {"prompt": PROMPT, "responses": RESPONSES, "labels": own}),
    unknown.map(lambda name: {**BODY, name: 1}),
    st.sampled_from(["prompt", "responses"]).map(lambda name: {key: own for key, own in BODY.items() if key != name}),
    st.just({**BODY, "group": 1}),
    st.just({**BODY, "messages": []}),
)
bad_batches = st.one_of(
    junk,
    st.just({"requests": []}),
    bad_rewards.map(lambda one: {"requests": [BODY, one]}),
    st.just({"requests": [BODY] * 65}),
)
bad_queries = st.one_of(
    junk,
    not_texts.filter(lambda own: not (isinstance(own, list) and own and all(isinstance(one, str) for one in own)))
    .map(lambda own: {"query": own, "prompts": ["a"]}),
    st.just({"query": ["a"]}), st.just({"query": ["a b", "c"], "prompts": ["a"]}),
    st.just({"query": ["b"], "prompts": ["a"]}), st.just({"query": ["a"], "prompts": ["a"]}),
)  # fmt: skip
not_json = st.binary(max_size=40).filter(lambda body: not body.strip()[:1].isdigit()) | st.just(b"[" * 100_000)
not_json |= st.just(b'{"prompt": NaN}') | st.just("{}".encode("utf-16")) | st.just(b"1" * 5000)
requests = st.one_of(
    st.tuples(st.just("/v1/rewards"), bad_rewards),
    st.tuples(st.just("/v1/rewards/batch"), bad_batches),
    st.tuples(st.just("/get_reward?user=user%2000"), bad_queries),
    st.tuples(st.sampled_from(["/v1/rewards", "/v1/rewards/batch", "/get_reward?group=1"]), not_json),
)


@settings(max_examples=150)  # `python -m benchmarks.serving` sends 2,000
@given(requests)
def test_a_bad_body_is_refused_in_a_sentence_and_nothing_is_written(camps, client, token, bad):
    address, body = bad
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    before = camps.store.revision(camps.id), len(camps.store.audit(camps.id))
    answer = client.post(address, content=content, headers=token)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert list(answer.json()) == ["error"] and answer.json()["error"].endswith(".")
    assert (camps.store.revision(camps.id), len(camps.store.audit(camps.id))) == before


def test_a_body_that_is_too_large_and_an_address_that_does_not_exist_are_refused(client, token):
    large = client.post("/v1/rewards", content=b" " * (bodies.LARGEST_BODY + 1), headers=token)
    assert large.status_code == 413 and "larger than 4 MiB" in large.json()["error"]
    assert client.get("/v2/rewards").json()["error"].startswith("There is nothing at this address")
    assert client.get("/v1/rewards").status_code == 405


# ---- beside the answers


def test_the_document_lists_every_address_and_its_examples_are_answered(client, token):
    routes = {route.path for route in client.app.routes} - {"/openapi.json", "/docs"}
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == routes and document == openapi.DOCUMENT
    page = client.get("/docs").text
    assert all(path in page for path in routes) and "<script" not in page and "http" not in page.partition("<h2>")[0]
    example = document["paths"]["/get_reward"]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "example"
    ]
    assert client.post("/get_reward?group=1", json=example, headers=token).status_code == 200


@pytest.mark.parametrize(("host", "proxied"), [("10.1.2.3", {}), ("127.0.0.1", {"X-Forwarded-For": "10.1.2.3"})])
def test_counts_go_to_this_machine_or_with_a_token(camps, host, proxied):
    asker = TestClient(make_app(camps.store, camps.settings, embed=by_style), client=(host, 4000), headers=proxied)
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        refused = asker.get("/metrics", headers=headers)
        assert refused.status_code == 403 and "copl token make" in refused.text and "copl_" not in refused.text
    assert "copl_texts_total" in asker.get("/metrics", headers=bearer(camps)).text
    assert asker.get("/healthz").json()["status"] == "ok"


def test_health_and_counts(camps, client, token):
    assert client.get("/healthz").json()["status"] == "ok"

    def counted() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {
            key: float(value) for key, _, value in (one.rpartition(" ") for one in lines if not one.startswith("#"))
        }

    before = counted()
    client.post("/v1/rewards", json=BODY, headers=token)
    client.post("/v1/rewards", json={}, headers=token)
    after = counted()
    for status in (200, 422):
        key = f'copl_requests_total{{route="/v1/rewards",status="{status}"}}'
        assert after[key] == before.get(key, 0) + 1
    assert after["copl_texts_total"] == before["copl_texts_total"] + 2
    buckets = [
        value for key, value in after.items() if key.startswith('copl_request_seconds_bucket{route="/v1/rewards"')
    ]
    assert buckets == sorted(buckets) and buckets[-1] == after['copl_request_seconds_count{route="/v1/rewards"}']


# ---- over a socket, while the champion changes


@pytest.fixture
def served(tmp_path_factory, tmp_path):
    """(the study with two snapshots, port of a running server, the server)."""
    session = trained_world(two_camps, tmp_path_factory, tmp_path / "home")
    assert fit_graph_now(session) == "v0002"
    server = server_of(make_app(session.store, session.settings, embed=by_style, exact=True), "127.0.0.1", 0)
    running = Thread(target=server.run)
    running.start()
    while not server.started:
        assert running.is_alive()
    yield session, server.servers[0].sockets[0].getsockname()[1], server
    server.should_exit = True
    running.join()


def test_no_request_is_dropped_while_the_champion_changes(served):
    session, port, _ = served
    header = {**bearer(session), "Content-Type": "application/json"}
    expected = {}
    for version in ("v0001", "v0002"):
        session.store.promote(session.id, version)
        expected[version] = rewards.reward(session, PROMPT, RESPONSES, groups=[0]).rows[0].win.tolist()
    assert not np.allclose(*expected.values())
    body = json.dumps({"prompt": PROMPT, "responses": RESPONSES, "group": 1})
    going = True

    def change() -> None:
        for version in count():
            if not going:
                return
            session.store.promote(session.id, ("v0001", "v0002")[version % 2])

    def ask(_: int) -> list[tuple[int, str, bool]]:
        found, connection = [], HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(25):
            connection.request("POST", "/v1/rewards", body, header)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            found.append(
                (answer.status, content["snapshot"], content["rows"][0]["win"] == expected[content["snapshot"]])
            )
        connection.close()
        return found

    changing = Thread(target=change)
    changing.start()
    try:
        with ThreadPoolExecutor(8) as clients:
            answers = [one for own in clients.map(ask, range(8)) for one in own]
    finally:
        going = False
        changing.join()
    assert len(answers) == 200 and {status for status, _, _ in answers} == {200}
    assert {snapshot for _, snapshot, _ in answers} == {"v0001", "v0002"}  # otherwise this test shows nothing
    assert all(equal for _, _, equal in answers)  # the numbers are of the snapshot that the answer names


def test_a_server_without_the_champion_fetches_it_and_says_why_it_cannot(tmp_path_factory, tmp_path):
    made = trained_world(two_camps, tmp_path_factory, tmp_path / "home", storage=str(tmp_path / "storage"))
    stored, snapshot, aside = made.fetching.stored, made.snapshot(), tmp_path / "aside"

    def answer_of_a_new_server():
        app = make_app(made.store, made.settings, embed=by_style)
        return TestClient(app).post("/v1/rewards", json=BODY, headers=bearer(made))

    snapshot.folder.rename(aside)
    refused = answer_of_a_new_server()
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    assert "Snapshot v0001 cannot be fetched" in refused.json()["error"]
    aside.rename(snapshot.folder)
    stored.put(snapshot)
    snapshot.folder.rename(aside)
    assert answer_of_a_new_server().json()["snapshot"] == "v0001" and snapshot.folder.is_dir()


# ---- tokens for groups alone


def test_a_token_for_groups_gets_large_groups_and_nobody_alone(camps, client, token):
    groups = bearer(camps, ServiceRole.GROUPS)
    question = {"prompt": PROMPT, "responses": RESPONSES}
    for body in (question, {**question, "group": 1}):
        found = client.post("/v1/rewards", json=body, headers=groups)
        assert found.json() == client.post("/v1/rewards", json=body, headers=token).json()
        assert min(row["people"] for row in found.json()["rows"]) >= SMALLEST_GROUP
    text = {"query": [f"{PROMPT}{RESPONSES[0]}"], "prompts": [PROMPT]}
    assert client.post("/get_reward?group=1", json=text, headers=groups).status_code == 200
    label = {"prompt": "What about number 3?", "preferred": short_text(3), "rejected": long_text(3)}
    refused = [
        client.post("/v1/rewards", json=BODY, headers=groups),
        client.post("/v1/rewards", json={**question, "labels": [label]}, headers=groups),
        client.post("/v1/rewards/batch", json={"requests": [question, BODY]}, headers=groups),
        client.post("/get_reward?user=user%2000", json=text, headers=groups),
        client.get("/v1/users/user%2000/embedding", headers=groups),
    ]
    assert [one.status_code for one in refused] == [403] * 5
    assert all("may ask for groups only" in one.json()["error"] for one in refused[:4])


def test_a_token_for_groups_gets_no_small_group_and_other_tokens_do(tmp_path, tmp_path_factory):
    session = trained_world(three_people, tmp_path_factory, tmp_path / "three")
    client = TestClient(make_app(session.store, session.settings, embed=by_style), client=("127.0.0.1", 4000))
    groups, rewards_ = bearer(session, ServiceRole.GROUPS), bearer(session)
    everything = {"prompt": PROMPT, "responses": RESPONSES}
    assert client.post("/v1/rewards", json=everything, headers=groups).json()["rows"] == []
    assert [row["people"] for row in client.post("/v1/rewards", json=everything, headers=rewards_).json()["rows"]] == [
        3
    ]
    text = {"query": [f"{PROMPT}{RESPONSES[0]}"], "prompts": [PROMPT]}
    for refused in (
        client.post("/v1/rewards", json={**everything, "group": 1}, headers=groups),
        client.post("/get_reward?group=1", json=text, headers=groups),
    ):
        assert refused.status_code == 403 and "fewer than 5 people" in refused.json()["error"]
