"""What must a build inside an image know of this machine's pip? Its settings and local folders.

    python pip_settings.py SETTINGS CONF

SETTINGS is the output of `pip config list`. Writes a pip.conf with the same sources, certificates
under the name that they have in the build, to CONF; prints `folder PLACE` for each local folder
among the sources, and `cert FILE`.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

LINE = re.compile(r"^[^=]*?\.(?P<key>[a-z-]+)=(?P<value>.+)$", re.MULTILINE)
SOURCES = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "no-index")
CERTIFICATES = "/run/secrets/ca.crt"  # where the Dockerfiles mount the secret `ca.crt`


def settings(listed: str) -> dict[str, str]:
    """Key -> value of what concerns where packages come from; the last of a key wins."""
    return {
        match["key"].lstrip("."): str(ast.literal_eval(match["value"]))
        for match in LINE.finditer(listed)
    }


def local_folders(found: dict[str, str]) -> list[str]:
    words = [word for key in SOURCES[:3] for word in found.get(key, "").split()]
    paths = [
        Path(word.removeprefix("file://")) for word in words if word.startswith(("/", "file:"))
    ]
    # An index of the form FOLDER/simple links to files beside it.
    paths = [path.parent if path.name == "simple" else path for path in paths]
    return sorted({str(path) for path in paths if path.is_dir()})


def configuration(found: dict[str, str]) -> str:
    lines = [f"{key} = {found[key]}" for key in SOURCES if key in found]
    if "cert" in found:
        lines.append(f"cert = {CERTIFICATES}")
    return "\n".join(["[global]", *lines, ""])


def main() -> None:
    found = settings(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(configuration(found), encoding="utf-8")
    for folder in local_folders(found):
        print("folder", folder)
    if "cert" in found:
        print("cert", found["cert"])


if __name__ == "__main__":
    main()
