"""Makes the message classes of RocketMQ's gRPC protocol out of the vendored .proto files: the modules are not edited by hand.

    pip install grpcio-tools==1.62.3 && python tools/rocketmq_stubs.py

That release's classes run on protobuf 4.25 and all later ones; newer ones would ask for the newest protobuf. Two things differ
from what the files in `rocketmq-apis/` say. The protobuf package gets a name of ours, because protobuf keeps one registry in a
process, and refuses the second one who registers `apache.rocketmq.v2`: RocketMQ's own client, for one. And the imports are
of files in the package. What goes over the wire has neither name in it; the service's name is in `library/calls.py`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TO = ROOT / "backends" / "rocketmq"
FOLDER = "narrowboat_rocketmq/library"


def main() -> int:
    """Write them; the exit code."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / FOLDER
        folder.mkdir(parents=True)
        for path in sorted((ROOT / "tools" / "rocketmq-apis").glob("*.proto")):
            text = path.read_text().replace("package apache.rocketmq.v2;", "package narrowboat.rocketmq.v2;")
            (folder / path.name).write_text(text.replace("apache/rocketmq/v2/", f"{FOLDER}/"))
        files = [f"{FOLDER}/{path.name}" for path in sorted(folder.glob("*.proto"))]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{made}", f"--python_out={TO}", *files]
        return subprocess.run(command, check=False).returncode  # noqa: S603  # a command of our own


if __name__ == "__main__":
    sys.exit(main())
