"""`narrowboat serve`: one thread that puts this protocol in front of another backend's drivers."""

from narrowboat.driver.serving import Served, ServerProgram, Serving


def _serve(served: Served, serving: Serving) -> None:
    from narrowboat_zeromq.server.daemon import serve  # imports pyzmq

    serve(served, serving)


def _keygen(name: str) -> tuple[str, str]:
    from narrowboat_zeromq import keys, library

    public, secret = library.new_pair()
    return keys.write_pair(name, public, secret.reveal())


program = ServerProgram(
    scheme="tcp",
    summary="a ROUTER of ZeroMQ, for zmq:// and zmqs://",
    serve=_serve,
    keygen=_keygen,
    extra="zeromq",
)
