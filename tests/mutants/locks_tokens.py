"""Lock drivers whose fencing tokens do not fence."""

from __future__ import annotations

import dataclasses

from mutants import Mutant
from mutants.layers import Asks, named
from narrowboat.contract.locks import Grant, Holder, LockProvider, Request


class _Tokens(Asks):
    """Shows other tokens than the backend gave."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._real: dict[str, int] = {}  # by owner

    def shown(self, token: int) -> int:
        """Instead of `token`."""
        return token

    def there(self, grant: Grant) -> Grant:
        """With the real token."""
        return grant._replace(token=self._real[grant.owner])

    def here(self, asked: Request | Grant, grant: Grant) -> Grant:
        """With the other token."""
        self._real[grant.owner] = grant.token
        return grant._replace(token=self.shown(grant.token))

    def holders(self, name: str | None) -> list[Holder]:
        """Shown differently."""
        return [dataclasses.replace(each, token=self.shown(each.token)) for each in self.inner.holders(name)]

    def evict(self, name: str, token: int) -> bool:
        """The holder that is shown with that token."""
        meant = [each.token for each in self.inner.holders(name) if self.shown(each.token) == token]
        broken = [self.inner.evict(name, each) for each in meant]
        return any(broken)


class TokenShrinks(_Tokens):
    """Gives each holder a smaller token than the one before."""

    def shown(self, token: int) -> int:
        """Backwards."""
        return 2**62 - token


class TokenReused(_Tokens):
    """Gives a token to two holders, one after the other."""

    def shown(self, token: int) -> int:
        """Half of them."""
        return token // 2


class TokenOfTheConnection(_Tokens):
    """Counts the holders of its own connection, from one on."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._counted: dict[int, int] = {}

    def shown(self, token: int) -> int:
        """The next number."""
        return self._counted.setdefault(token, len(self._counted) + 1)


class TokenTooLarge(_Tokens):
    """Gives tokens that do not fit into 63 bits."""

    def shown(self, token: int) -> int:
        """Past the end."""
        return 2**63 + token


class RenewGivesAnotherToken(_Tokens):
    """Gives a holder a new token with each renewal."""

    def here(self, asked: Request | Grant, grant: Grant) -> Grant:
        """The next number."""
        told = super().here(asked, grant)
        return told._replace(token=asked.token + 1) if isinstance(asked, Grant) else told


MUTANTS: list[Mutant] = [
    named(TokenShrinks, "L17", "L21", "L40", "L47", "L74", "L75", "L76"),
    named(TokenReused, "L40", "L47", "L74", "L75", "L76"),
    named(TokenOfTheConnection, "L17", "L21", "L74", "L75"),
    named(TokenTooLarge, "L74", "L79"),
    named(RenewGivesAnotherToken, "L78"),
]
