"""The lists of hashes agree with the lists of packages, hold what comes along, and name nobody's index."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LISTS = {"requirements.lock": ("requirements.txt",),
         "requirements-tests.lock": ("requirements.txt", "requirements-tests.txt")}  # fmt: skip
_ENTRY = re.compile(r"^(?P<what>[^\s#][^\\\n]*?) ?\\\n(?P<hashes>(?:    --hash=[^\n]*\n?)+)", re.MULTILINE)


def pinned(name: str) -> list[Requirement]:
    """The packages of a list, without its comments and the lists that it includes."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def locked(name: str) -> dict[str, list[Requirement]]:
    """Package → its versions in a list of hashes, one for each kind of machine that needs another one."""
    found: dict[str, list[Requirement]] = {}
    for entry in _ENTRY.finditer((ROOT / name).read_text()):
        one = Requirement(entry["what"])
        found.setdefault(canonicalize_name(one.name), []).append(one)
    return found


def version(one: Requirement) -> str:
    (pin,) = one.specifier
    assert pin.operator == "==", one
    return pin.version


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_hashes_has_the_versions_of_the_list_of_packages(name):
    has = locked(name)
    for one in (one for listed in LISTS[name] for one in pinned(listed)):
        versions = {version(found) for found in has.get(canonicalize_name(one.name), [])}
        assert versions == {version(one)}, f"{one} is not in {name}; run: make lock"


@pytest.mark.parametrize("name", LISTS)
def test_every_line_of_a_list_of_hashes_is_a_package_with_sha256_or_a_comment(name):
    text = (ROOT / name).read_text()
    left = _ENTRY.sub("", text)
    assert [line for line in left.splitlines() if line and not line.startswith("#")] == []
    sums = re.findall(r"--hash=(\S+)", text)
    assert sums and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in sums)
    assert not re.search(r"://|index-url|find-links|file:", text), "a list of hashes names no address"


@pytest.mark.parametrize("name", LISTS)
def test_what_the_installed_packages_need_on_this_machine_is_in_the_list_of_hashes(name):
    has = locked(name)
    wanted, seen = [one for listed in LISTS[name] for one in pinned(listed)], set()
    while wanted:
        one = wanted.pop()
        package = canonicalize_name(one.name)
        here = [found for found in has.get(package, []) if found.marker is None or found.marker.evaluate()]
        assert len(here) == 1, f"{one} is not in {name}; run: make lock"
        if (package, tuple(sorted(one.extras))) in seen:
            continue
        seen.add((package, tuple(sorted(one.extras))))
        try:
            installed = distribution(one.name)
        except PackageNotFoundError:
            continue  # of a build of torch that this machine does not have
        if installed.version != version(here[0]):
            continue  # another version may need other packages
        for line in installed.requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in one.extras or {""}):
                assert need.specifier.contains(version_of(has, need), prereleases=True), (
                    f"{one} needs {need}; run: make lock"
                )
                wanted.append(need)


def version_of(has: dict[str, list[Requirement]], need: Requirement) -> str:
    here = [one for one in has.get(canonicalize_name(need.name), []) if one.marker is None or one.marker.evaluate()]
    assert len(here) == 1, f"{need} is not in the list of hashes; run: make lock"
    return version(here[0])


def test_both_lists_of_hashes_have_one_version_of_a_package():
    studio, tests = locked("requirements.lock"), locked("requirements-tests.lock")
    assert {name: [version(one) for one in studio[name]] for name in studio} == {
        name: [version(one) for one in tests.get(name, [])] for name in studio
    }
