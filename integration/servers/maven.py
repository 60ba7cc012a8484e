"""Java servers by their `pom.xml`, which stands beside this file: the jars go into a folder of the user's cache.

`<server>.sha256` beside the pom, or `<server>-<version>.sha256`, has the name and the checksum of each jar, as `sha256sum`
prints them: what Maven brings is run by tests, so nothing else than what was looked at once is taken.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_POMS = Path(__file__).parent / "maven"


class MavenFailed(RuntimeError):
    """Maven did not copy the jars; its own words are in the text."""


def copy_jars(server: str, into: Path, version: str | None = None) -> None:
    """Copy the jars that `maven/<server>.xml` lists, with their dependencies, to `into`/lib; or another `version` of it."""
    maven = shutil.which("mvn")
    if maven is None:
        raise MavenFailed("mvn is not on this machine: install Maven and Java 17 from your system's packages")
    other = [] if version is None else [f"-Dserver.version={version}"]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(_POMS / f"{server}.xml", Path(folder) / "pom.xml")  # Maven writes beside its pom
        done = subprocess.run(
            [
                maven,
                "-q",
                "-B",
                "--strict-checksums",
                _PLUGIN,
                f"-DoutputDirectory={into / 'lib'}",
                "-DincludeScope=runtime",
                *other,
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=900,
        )
    if done.returncode != 0 or not any((into / "lib").glob("*.jar")):
        raise MavenFailed(f"mvn failed for {server}:\n{(done.stdout + done.stderr)[-2000:]}")
    check(into / "lib", _POMS / (f"{server}.sha256" if version is None else f"{server}-{version}.sha256"))


def check(jars: Path, sums: Path) -> None:
    """Raise `MavenFailed` unless the folder holds exactly the files of the list, each with its checksum."""
    known = {name: total for total, name in (line.split() for line in sums.read_text().splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in jars.iterdir()}
    wrong = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))
    if wrong:
        raise MavenFailed(
            f"these are not what {sums.name} lists: {', '.join(wrong)}. After a change of the pom make it anew, in the "
            "folder of the jars that you trust: sha256sum *.jar"
        )
