"""The official parser of AsyncAPI reads what `narrowboat asyncapi` writes, and has nothing to say against it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from integration.servers import cache
from narrowboat.working.asyncapi import document
from tests import every_codec

_SCRIPT = """
const { Parser } = require(process.argv[1] + "/node_modules/@asyncapi/parser");
new Parser().parse(require("fs").readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  const operations = document ? document.operations().all().map((each) => each.id()) : null;
  console.log(JSON.stringify({ operations, diagnostics }));
});
"""


def parsed(made: dict[str, Any]) -> Any:
    """What the parser says."""
    folder, node = cache.folder("asyncapi"), shutil.which("node")
    if node is None or not folder.exists():
        pytest.skip("the parser of AsyncAPI is not installed: python -m integration.servers install asyncapi (needs Node.js)")
    done = subprocess.run(
        [node, "-e", _SCRIPT, str(folder)], input=json.dumps(made), capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def test_the_official_parser_reads_the_document_of_every_codec() -> None:
    """Without a warning either."""
    made = document(every_codec.worker, title="Shop", version="1.4.0")

    said = parsed(made)

    assert said["diagnostics"] == []
    assert sorted(said["operations"]) == sorted(made["operations"])


def test_the_official_parser_tells_what_is_wrong() -> None:
    """So that the test above can fail."""
    made = document(every_codec.worker, title="Shop", version="1.4.0")
    made["operations"]["ship"]["channel"]["$ref"] = "#/channels/nowhere"

    said = parsed(made)

    assert said["operations"] is None
    assert said["diagnostics"]
