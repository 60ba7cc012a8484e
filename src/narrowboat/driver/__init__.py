"""What drivers share: public, for everybody who writes one. Users of Narrowboat need none of this.

For every backend of a server:

- `narrowboat.driver.endpoint`: where the servers are and who we are there, out of the URL.
- `narrowboat.driver.tls`: the options for TLS, with one name and one meaning in every backend, and what its failures come to.
- `narrowboat.driver.handshake`: the `ssl.SSLContext` that these options make; its handshakes may run beside a fork.
- `narrowboat.driver.options`: the numbers that options of the URL may be.
- `narrowboat.driver.names`: names of users as names of the server: escaped, and hashed where they are too long.
- `narrowboat.driver.texts`: what a server says, fit for a text of ours.
- `narrowboat.driver.quiet`: the log of a client library, which says no more than the driver does unless it is asked.
- `narrowboat.driver.versions`: what a server says of its version, and a warning where that was never tried.

For every backend:

- `narrowboat.driver.admission`: who of a lock's waiters may go, for those that keep the queue themselves; and the refusals.
- `narrowboat.driver.claims`: what those claim that keep each message by itself.
- `narrowboat.driver.sources`: what a source of messages begins with, dead letters, and the refusals in words.
- `narrowboat.driver.waking`: whom to wake in this process, and how to end a thread's wait on sockets.
- `narrowboat.driver.turn`: a mutex that a call waits for no longer than it has time.
- `narrowboat.driver.threads`: a thread that begins when it is first needed, and ends with the driver.
- `narrowboat.driver.serving`: what a server that `narrowboat serve` starts is handed.

Nothing here imports a client library, and `ssl` is imported only where TLS is used.
"""
