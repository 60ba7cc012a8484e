"""From a scheme to its backend: real entry points in a folder of their own, found as anybody's are."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Never

import pytest

import narrowboat
from narrowboat import registry
from narrowboat.contract import LockProvider
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError, InvalidArgument, Unsupported

#: Takes the name of a module, its source and the text of its entry points.
Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a module and its entry points where an installer would; the registry looks anew, and forgets afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_found", {})
    monkeypatch.setattr(registry, "_contested", {})
    monkeypatch.setattr(registry, "_loaded", {})
    before = set(sys.modules)

    def install(module: str, source: str, entry_points: str) -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))

    yield install
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


BACKEND = """
    from narrowboat_memory import locks as memory
    import dataclasses

    def prepare(url, options):
        import acme_client

    def open(url, options, context):
        import acme_client
        raise AssertionError("the client library is not there")

    locks = dataclasses.replace(memory, scheme="acme", prepare=prepare, open=open, extra="fast")
"""


def test_a_third_partys_backend_is_found_like_a_built_in_one(install: Install) -> None:
    """By its entry point; nothing is registered by a call."""
    install("acme_locks", "from narrowboat_memory import locks\n", "[narrowboat.locks]\nacme = acme_locks:locks\n")

    assert {"acme", "memory", "sqlite"} <= set(registry.schemes(registry.LOCKS))
    assert "acme_locks" not in sys.modules, "listing what there is must import nothing"
    with narrowboat.locks("acme://doc") as locks, locks.lock("a") as held:
        assert held.name == "a"


@pytest.mark.parametrize("scheme", ["acme", "memory"])
def test_a_scheme_that_two_distributions_register_is_refused(install: Install, scheme: str) -> None:
    """Both are named and neither is loaded: it would be handed a URL with its password. Other schemes go on."""
    for module in ("acme_locks", "acme_evil"):
        install(module, "from narrowboat_memory import locks\n", f"[narrowboat.locks]\n{scheme} = {module}:locks\n")
    with pytest.raises(ConfigurationError, match="acme-evil and acme-locks") as caught:
        narrowboat.locks(f"{scheme}://:hunter2@h")

    assert "hunter2" not in str(caught.value)
    assert not {"acme_locks", "acme_evil"} & set(sys.modules)
    assert scheme in registry.schemes(registry.LOCKS)
    narrowboat.locks("sqlite:///x.db").close()


def test_the_name_of_a_backend_leads_to_its_scheme() -> None:
    """Its extra is called otherwise than what its URLs begin with."""
    with pytest.raises(ConfigurationError, match="The backend 'rabbitmq' is at amqp://"):
        narrowboat.broker("rabbitmq://localhost")


def test_a_url_from_the_environment_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has written it at the call."""
    monkeypatch.setenv("NARROWBOAT_LOCKS_URL", "shop.db")
    with pytest.raises(ConfigurationError, match="NARROWBOAT_LOCKS_URL: that is not a URL"):
        narrowboat.locks()


def test_what_a_backend_prepares_is_what_it_opens(install: Install) -> None:
    """Once for each face, however often the driver is opened."""
    code = """
        from narrowboat_memory import locks as memory
        from narrowboat.dsn import Url
        import dataclasses

        prepared = []

        def prepare(url, options):
            prepared.append(str(url))
            return Url.parse("memory://prepared")

        locks = dataclasses.replace(memory, scheme="acme", prepare=prepare)
    """
    install("acme_locks", code, "[narrowboat.locks]\nacme = acme_locks:locks\n")

    with narrowboat.locks("acme://doc") as locks, narrowboat.locks("memory://prepared") as others, locks.lock("a"):
        assert [holder.name for holder in others.holders()] == ["a"]
        locks._core.driver.forget()
        locks.ping()
    assert sys.modules["acme_locks"].prepared == ["acme://doc"]


@pytest.mark.parametrize("early", [True, False])
def test_a_missing_client_library_says_which_command_installs_it(install: Install, early: bool) -> None:
    """When the face is made, where the backend prepares for it; else at the first call, before anything is sent."""
    code = BACKEND if early else BACKEND.replace("prepare=prepare, ", "")
    install("acme_locks", code, "[narrowboat.locks]\nacme = acme_locks:locks\n")

    made = None if early else narrowboat.locks("acme://doc")
    with pytest.raises(ConfigurationError) as caught:
        narrowboat.locks("acme://doc") if made is None else made.ping()

    assert "acme:// needs acme_client, which is not installed: pip install --upgrade 'acme-locks[fast]'" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError) and caught.value.backend == "acme"


def test_a_missing_extra_of_the_entry_point_says_which_command_installs_it(install: Install) -> None:
    """At once when the backend's own module needs it."""
    install("acme_locks", "import acme_client\n", "[narrowboat.locks]\nacme = acme_locks:locks [turbo]\n")

    with pytest.raises(ConfigurationError, match=r"acme:// needs acme_client.*pip install --upgrade 'acme-locks\[turbo\]'"):
        narrowboat.locks("acme://doc")


def test_an_extra_of_our_own_is_installed_from_a_clone() -> None:
    """It is not published: `pip install 'narrowboat[redis]'` would find nothing, or somebody else's."""
    told = registry.how_to_install("narrowboat", "redis")

    assert told == "pip install --upgrade '.[redis]' in a clone of Narrowboat (narrowboat[redis] once it is published)"


def test_no_error_and_no_page_installs_an_extra_of_ours_by_its_name_alone() -> None:
    """A page that has both says from a clone first."""
    root = Path(__file__).resolve().parent.parent
    files = [
        each for pattern in ("src/**/*.py", "backends/**/*.py", "docs/*.md", "docs/how-to/*.md") for each in root.glob(pattern)
    ]
    command = re.compile(r"pip install (--upgrade )?'narrowboat\[")
    assert [str(each) for each in files if command.search(each.read_text())] == []


def test_a_backend_of_the_other_half_is_named() -> None:
    """Its extra has another name than its scheme."""
    with pytest.raises(ConfigurationError, match=r"The backend 'rabbitmq' is at amqp://, for brokers only\."):
        narrowboat.locks("rabbitmq://localhost")


def test_an_entry_point_that_gives_something_else_is_named(install: Install) -> None:
    """A class, a function, the other half's entry object."""
    install("acme_locks", "locks = object\n", "[narrowboat.locks]\nacme = acme_locks:locks\n")

    with pytest.raises(ConfigurationError, match="narrowboat.locks:acme gives type, not LockBackend"):
        narrowboat.locks("acme://")


@pytest.mark.parametrize("make", [narrowboat.locks, registry.broker_backend], ids=["locks", "brokers"])
def test_an_unknown_scheme_names_the_near_miss_and_what_there_is(make: Callable[[str], object]) -> None:
    """Before any I/O."""
    with pytest.raises(ConfigurationError) as caught:
        make("memroy://" if make is narrowboat.locks else "memroy")

    assert "unknown scheme 'memroy'" in str(caught.value)
    assert "Did you mean 'memory'?" in str(caught.value) and "sqlite" in str(caught.value)


def test_a_scheme_that_has_only_the_other_half_says_so(install: Install) -> None:
    """Who asks a lock service for messages learns that the name itself was right."""
    install("acme_locks", "from narrowboat_memory import locks\n", "[narrowboat.locks]\nacme = acme_locks:locks\n")

    with pytest.raises(ConfigurationError, match="acme:// is known for locks only"):
        registry.broker_backend("acme")


@pytest.mark.parametrize("url", ["memory://doc?prefx=a", "memory://doc?timeout=soon", "memory://doc?timeout=0", "memory://h:1"])
def test_bad_options_are_refused_when_the_face_is_made(url: str) -> None:
    """Not at the first call: a service with a misspelt option does not start."""
    with pytest.raises(ConfigurationError):
        narrowboat.locks(url)


def test_an_option_may_be_given_by_url_or_keyword_and_the_keyword_wins() -> None:
    """So a program can override what its environment says."""
    one, two = narrowboat.locks("memory://over?prefix=a", prefix="b"), narrowboat.locks("memory://over?prefix=b")
    with one, two, narrowboat.locks("memory://over?prefix=a") as third, one.lock("x"):
        assert third.holders("x") == []
        assert [holder.name for holder in two.holders("x")] == ["x"]
    with narrowboat.locks("memory://over?timeout=0", timeout=1) as locks:
        locks.ping()


def test_without_a_url_the_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """And when that is silent too, the error says which variable was looked at."""
    monkeypatch.setenv("NARROWBOAT_LOCKS_URL", "memory://from-environment")
    with narrowboat.locks() as locks:
        assert "from-environment" in repr(locks)

    monkeypatch.delenv("NARROWBOAT_LOCKS_URL")
    with pytest.raises(ConfigurationError, match="NARROWBOAT_LOCKS_URL is not set"):
        narrowboat.locks()


def test_what_is_not_promised_is_refused_before_the_driver_opens() -> None:
    """`open` is never called."""
    opened = []

    def wrap(driver: LockProvider) -> LockProvider:
        opened.append(driver)
        return driver

    with pytest.raises(Unsupported):
        narrowboat.locks("memory://never", require="survives=node", wrap=wrap)
    with narrowboat.locks("memory://never", wrap=wrap) as locks:
        with pytest.raises(InvalidArgument):
            locks.lock("x", ttl=-1)
        assert opened == []


def test_a_url_is_shown_without_its_secrets() -> None:
    """In the face's repr as in `str(Url)`."""
    url = "memory://doc?prefix=shop"

    assert repr(narrowboat.locks(url)) == f"<Locks {Url.parse(url)}>"


def test_a_layer_that_cannot_be_put_in_front_leaves_no_driver_behind() -> None:
    """What was opened for it is closed, since nobody else has it; the next call opens another."""
    opened, closed = [], []

    def wrap(driver: Any) -> Never:
        close = driver.close

        def noted() -> None:
            closed.append(driver)
            close()

        driver.close = noted
        opened.append(driver)
        raise RuntimeError("no layer today")

    with narrowboat.locks("memory://layer", wrap=wrap) as locks:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no layer today"):
                locks.ping()
    assert len(opened) == 2
    assert closed == opened
