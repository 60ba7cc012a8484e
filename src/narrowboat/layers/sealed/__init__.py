"""Messages that the server can neither read nor change: a layer in front of any message driver.

`layer` has what users give to `wrap=`, `keyring` the keys, `format` what is stored. `?seal=` of a broker's URL is the same.
"""

from narrowboat.layers.sealed.keyring import Keyring
from narrowboat.layers.sealed.layer import Seal

__all__ = ["Keyring", "Seal"]
