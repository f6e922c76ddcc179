"""What ``benchmarks.fuzz`` sends, drawn at random: sound requests of each entry that are broken, and noise."""

from __future__ import annotations

from pathlib import Path
from random import Random

from streamlit.proto.BackMsg_pb2 import BackMsg

NOISE = (
    "", " ", "0", "-1", "1e9", "NaN", "9" * 40, "null", "true", "\x00", "\r\nX-Injected: 1", "../../etc/passwd",
    "%00%ff", "%2e%2e%2f", "<script>alert(1)</script>", "'; drop table label; --", "{{7*7}}", "ａｂｃ", "\u202eabc",
    "é" * 300, "a" * 5000, "{}", "[[[[", "=1+1", "\ud83d",
)  # fmt: skip
METHODS = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "PROPFIND")
APP = (
    "/", "/label", "/taste", "/people", "/experts", "/controversy", "/reward", "/training", "/quality", "/settings",
    "/join", "/healthz", "/readyz", "/metrics", "/auth/login", "/oauth2callback", "/_stcore/health", "/_stcore/metrics",
    "/_stcore/host-config", "/_stcore/stream", "/_stcore/upload_file/x/y", "/_stcore/bidi-components/x", "/media/x.png",
    "/component/x/index.html", "/static/index.html", "/app/static/x", "/~/+/_stcore/health", "/streamlit_app.py",
    "/var/copl.db", "/.streamlit/secrets.toml",
)  # fmt: skip
SERVER = ("/v1/rewards", "/v1/rewards/batch", "/get_reward", "/v1/users", "/v1/groups", "/v1/embeddings", "/healthz",
          "/metrics", "/docs", "/openapi.json", "/")  # fmt: skip
HEALTH = ("/healthz", "/readyz", "/metrics", "/", "/docs")
NAMES = (
    "token",
    "study",
    "pair",
    "join",
    "invite",
    "user",
    "link",
    "code",
    "state",
    "provider",
    "next",
    "connect",
    "group",
)
HEADERS = (
    "Cookie", "Authorization", "X-Copl-Sign-In", "X-Forwarded-Proto", "X-Forwarded-For", "Origin", "Content-Type",
    "Accept-Encoding", "Range", "If-None-Match", "Transfer-Encoding", "Expect", "Upgrade",
)  # fmt: skip


def noise(random: Random) -> str:
    return random.choice(NOISE)


def _printable(text: str) -> str:
    """As a client writes it into a line of a request: percent signs for what a line cannot hold."""
    return "".join(c if "!" <= c <= "~" else "".join(f"%{b:02x}" for b in c.encode(errors="replace")) for c in text)


def http_request(random: Random, paths: tuple[str, ...]) -> tuple[bytes, bool]:
    """(one request as bytes, whether a server knows where it ends)."""
    path = random.choice(paths) + random.choice(("", "", "/", "//", "/..", f"/{_printable(noise(random))}"))
    query = "&".join(
        f"{random.choice(NAMES)}={_printable(noise(random))}" for _ in range(random.choice((0, 0, 1, 2, 3)))
    )
    body = _damaged(random, noise(random).encode(errors="replace") * random.choice((1, 1, 50)))
    lines = [f"{random.choice(METHODS)} {path}{'?' if query else ''}{query} HTTP/1.1", "Host: 127.0.0.1"]
    for _ in range(random.choice((0, 0, 1, 3))):
        value = "".join(c for c in noise(random) if c not in "\r\n\x00")
        lines.append(f"{random.choice(HEADERS)}: {value}")
    if random.random() < 0.9:
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: close")
    made = "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + body
    return (_damaged(random, made), False) if random.random() < 0.15 else (made, True)


def _damaged(random: Random, content: bytes) -> bytes:
    """Bytes that were cut, flipped, doubled or mixed with others."""
    if not content:
        return random.randbytes(random.randrange(1, 80))
    at, to = sorted(random.randrange(len(content) + 1) for _ in range(2))
    way = random.randrange(7)
    if way == 0:
        return content[:at]
    if way == 1:
        flipped = bytearray(content)
        for _ in range(random.randrange(1, 9)):
            flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
        return bytes(flipped)
    if way == 2:
        return content[:at] + content[at:to] * random.randrange(2, 6) + content[to:]
    if way == 3:
        return content[:at] + random.randbytes(random.randrange(1, 60)) + content[to:]
    if way == 4:
        return content[:at] + noise(random).encode(errors="replace") + content[at:]
    if way == 5:
        return content[:at] + content[to:]
    lines = content.split(b"\n")
    random.shuffle(lines)
    return b"\n".join(lines)


def socket_message(random: Random, widgets: list[str], fragments: list[str]) -> bytes | str:
    """A message of the app's protocol: noise, a damaged one, or a sound one with ids of widgets of somebody else."""
    if random.random() < 0.1:
        return noise(random)[:50].encode(errors="replace").decode() if random.random() < 0.3 else random.randbytes(60)
    message = BackMsg()
    if random.random() < 0.1:
        getattr(message, random.choice(("clear_cache", "stop_script", "load_git_info", "set_run_on_save")))
        message.clear_cache = True
    else:
        run = message.rerun_script
        run.query_string = "&".join(
            f"{random.choice(NAMES)}={_printable(noise(random))}" for _ in range(random.randrange(3))
        )
        run.page_script_hash = random.choice(("", "x", "f" * 32))
        run.page_name = random.choice(("", *(path[1:] for path in APP[:11]), "nowhere", "../x"))
        if fragments and random.random() < 0.4:
            run.fragment_id = random.choice((*fragments, "nothing"))
        for _ in range(random.randrange(4)):
            _add_widget(random, run.widget_states.widgets.add(), widgets)
    made = message.SerializeToString()
    return _damaged(random, made) if random.random() < 0.2 else made


def _add_widget(random: Random, state, widgets: list[str]) -> None:
    state.id = random.choice(widgets) if widgets and random.random() < 0.9 else _printable(noise(random))[:99]
    way = random.randrange(6)
    if way == 0:
        state.trigger_value = True
    elif way == 1:
        state.bool_value = random.random() < 0.5
    elif way == 2:
        state.int_value = random.choice((0, -1, 2**31, 2**53))
    elif way == 3:
        state.json_value = random.choice(("{", "null", '{"a":' * 50, '{"choice": "left"}'))
    elif way == 4:
        state.string_array_value.data.extend(_printable(noise(random)) for _ in range(3))
    else:
        state.string_value = _printable(noise(random))


def mutated_file(random: Random, seeds: list[Path], folder: Path) -> Path:
    """A file like one of the seeds, damaged once or a few times."""
    seed = random.choice(seeds)
    content = seed.read_bytes()
    for _ in range(random.randrange(1, 4)):
        content = _damaged(random, content)
    path = folder / f"mutated{random.choice((seed.suffix, seed.suffix, '.jsonl', '.csv', ''))}"
    path.write_bytes(content)
    return path


def arguments(random: Random, options: dict[str, list[str]], words: list[str]) -> list[str]:
    """Arguments of the terminal: a command with options of its own and of others, and words of any kind."""
    command = random.choice(list(options))
    known = options[command] + random.choice(list(options.values()))
    made = [command] if random.random() < 0.97 else [noise(random)]
    for _ in range(random.randrange(6)):
        if known and random.random() < 0.5:
            made.append(random.choice(known))
        made.append(random.choice(words) if random.random() < 0.8 else noise(random).replace("\x00", "?"))
    return made
