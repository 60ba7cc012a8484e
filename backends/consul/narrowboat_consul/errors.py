"""Translates the errors of Consul and of the network into Narrowboat's own, with the original as the cause."""

from __future__ import annotations

from narrowboat.driver import tls
from narrowboat.driver.texts import cut
from narrowboat.errors import AccessDenied, ConfigurationError, NarrowboatError, NotFound, Unavailable
from narrowboat_consul.http import Malformed
from narrowboat_consul.options import SCHEME, TLS_SCHEME, Agent


def translate(error: Exception, agent: Agent, timeout: float) -> NarrowboatError:
    """The error to raise for an error of the network."""
    where = agent.where
    secure = tls.failure(error, where, plain=SCHEME, backend=agent.scheme)
    if secure is not None:
        return secure
    hint = tls.hint(error, plain=SCHEME)
    if isinstance(error, Malformed):
        return Unavailable(
            f"{where} gave no reply in HTTP ({cut(error)}). If it did not just end: is it Consul's HTTP "
            f"port (8500), and {SCHEME}:// or {TLS_SCHEME}:// as that port wants it?",
            backend=SCHEME,
        )
    if isinstance(error, TimeoutError):
        return Unavailable(
            f"{where} did not answer within {timeout:g} s. Look whether it runs and is reachable{hint}; "
            "the call may be repeated, and ?timeout= gives it more time.",
            backend=SCHEME,
        )
    return Unavailable(
        f"{where} could not be reached ({cut(error)}). Look whether it runs and listens there{hint}.", backend=SCHEME
    )


def nonsense(agent: Agent, what: str) -> NarrowboatError:
    """The error for an HTTP reply that does not come from Consul."""
    return Unavailable(
        f"the agent at {agent.hosts[0]} answered what Consul does not ({cut(what)}); what was asked may or may not have "
        "happened. Look what listens there; the call may be repeated.",
        backend=SCHEME,
    )


def no_room(agent: Agent, error: Exception) -> NarrowboatError:
    """The error when the program has no descriptor or no thread left."""
    return Unavailable(
        f"{agent.where} was not asked: this process has no room left ({error}). Raise its limits "
        "(ulimit -n, ulimit -u), or close what it does not need. The call may be repeated.",
        backend=SCHEME,
    )


def refused(code: int, text: str, agent: Agent) -> NarrowboatError:
    """The error for a reply that reports a failure."""
    said = cut(text) or "nothing"
    where = agent.where
    low = said.lower()
    if code in (401, 403) or "permission denied" in low or "acl not found" in low:
        return AccessDenied(
            f"{where} refused the ACL token or its rights (HTTP {code}: {said}). Locks need "
            f"session:write on the agent's node and key:write (and key:list for reads) on {agent.root!r}; "
            "the token goes where the URL has the password.",
            backend=SCHEME,
        )
    if code == 429:
        return Unavailable(
            f"{where} has too many requests or connections from this address (HTTP 429). Wait and repeat; "
            "raise limits.http_max_conns_per_client where many programs share one agent.",
            backend=SCHEME,
        )
    if "no path to datacenter" in low or "unknown datacenter" in low:
        return ConfigurationError(f"{where} knows no datacenter {agent.options.dc!r} ({said}). Correct ?dc=.", backend=SCHEME)
    if "invalid session ttl" in low or "session ttl" in low:
        return ConfigurationError(
            f"{where} refused session_ttl={agent.options.session_ttl} ({said}). Take one in the range that it names.",
            backend=SCHEME,
        )
    if "no cluster leader" in low or "leadership" in low or "no known consul servers" in low:
        return Unavailable(
            f"{where} has no leader to ask ({said}). The call may be repeated; look at the servers if it lasts.", backend=SCHEME
        )
    if "https server" in low:
        return ConfigurationError(f"{where} wants TLS on this port: take {TLS_SCHEME}:// ({said}).", backend=SCHEME)
    if code == 400:
        return ConfigurationError(f"{where} refused the request (HTTP 400: {said}).", backend=SCHEME)
    if code == 404:
        return NotFound(f"{where} does not know what was asked for (HTTP 404: {said}).", backend=SCHEME)
    return Unavailable(f"{where} failed (HTTP {code}: {said}). The call may be repeated.", backend=SCHEME)
