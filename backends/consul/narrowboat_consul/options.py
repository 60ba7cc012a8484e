"""What a `consul://` URL takes beside its host, and what its parts come to. Nothing here imports a client library."""

from __future__ import annotations

from dataclasses import dataclass

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.options import check_ranges
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Secret, Url
from narrowboat.errors import ConfigurationError

SCHEME = "consul"
TLS_SCHEME = "consuls"

#: What Consul accepts for a session's ttl, in seconds.
TTL_MIN, TTL_MAX = 10, 86400
#: What Consul accepts for a lock-delay, in seconds.
DELAY_MAX = 60
#: Bytes. One transaction of 128 members has up to half a megabyte, and so has its reply.
REPLY_MIN = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`consul://:token@host:8500/root?prefix=&dc=&namespace=&session_ttl=10&lock_delay=0`; TLS with `consuls://`."""

    prefix: str = ""  #: a namespace of its own under the same root; two prefixes never meet
    token: Secret | None = None  #: the ACL token, sent in a header; the same as the URL's password
    dc: str | None = None  #: the datacenter; None: the agent's own
    namespace: str | None = None  #: Consul Enterprise's namespace
    session_ttl: int = TTL_MIN  #: seconds, whole; the lock of a holder that died is free after up to twice as long
    lock_delay: int = 0  #: seconds, whole, for which Consul refuses a lock whose session ended; our holder gave up long before
    max_reply: int = 32 * 1024 * 1024  #: bytes of one reply, at most; 50,000 locks in one listing have 30 MB

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            SCHEME,
            ("session_ttl", TTL_MIN, TTL_MAX, f"{TTL_MIN} to {TTL_MAX} whole seconds, which is what Consul takes"),
            ("max_reply", REPLY_MIN, 2**31 - 1, f"{REPLY_MIN} to {2**31 - 1} bytes"),
            ("lock_delay", 0, DELAY_MAX, f"0 to {DELAY_MAX} whole seconds, which is what Consul takes"),
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Agent(Endpoint):
    """The agent that is asked, and how."""

    options: Options

    @classmethod
    def of(cls, url: Url, options: Options) -> Agent:
        """What `url` says; `ConfigurationError` where it makes no sense for Consul."""
        agent = cls.read(
            url,
            options,
            plain=SCHEME,
            port=8500,
            secure_port=8501,
            host="127.0.0.1",
            one_host="Each machine talks to its own agent, which knows all servers.",
            options=options,
        )
        if agent.user:
            raise ConfigurationError(
                f"{url.scheme}:// takes no user name; an ACL token goes where the password is: {url.scheme}://:TOKEN@host",
                backend=url.scheme,
            )
        if url.password is not None and options.token is not None and url.password != options.token:
            raise ConfigurationError(
                "the ACL token is given twice, as password and as token=; leave one away", backend=url.scheme
            )
        token = agent.token.reveal() if agent.token else ""
        for what, text in (("ACL token", token), ("namespace=", options.namespace or "")):
            if any(not "!" <= letter <= "~" for letter in text):  # it would end the header, or cannot be sent in one
                raise ConfigurationError(
                    f"the {what} has a character that HTTP takes in no header: only printable ASCII without spaces is allowed. "
                    "Look for a line end where it was read from a file.",
                    backend=url.scheme,
                )
        agent.folder()
        return agent

    @property
    def token(self) -> Secret | None:
        """The ACL token."""
        return self.secret or self.options.token

    @property
    def root(self) -> str:
        """The folder of all keys."""
        return self.folder() or "narrowboat"

    @property
    def where(self) -> str:
        """As an error calls it."""
        return f"the Consul agent at {self.hosts[0]}"
