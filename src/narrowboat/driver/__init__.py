"""What drivers of server backends share: public, for everybody who writes one.

- `narrowboat.driver.tls`: the options for TLS, with one name and one meaning in every backend, and what its failures come to.
- `narrowboat.driver.handshake`: the `ssl.SSLContext` that these options make; its handshakes may run beside a fork.
- `narrowboat.driver.texts`: what a server says, fit for a text of ours.
- `narrowboat.driver.versions`: what a server says of its version, and a warning where that was never tried.

Users of Narrowboat need none of this. Nothing here imports a client library, and `ssl` is imported only where TLS is used.
"""
