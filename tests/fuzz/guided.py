"""`python -m tests.fuzz.guided TARGET FOLDER…`: inputs chosen by coverage, with atheris.

Further arguments are libFuzzer's. `python -m tests.fuzz --atheris` calls it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

INSTRUMENTED = ["triows", "h11", "wsproto", "jwt"]


def main() -> None:
    """Fuzz until libFuzzer has enough; it ends the process."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.drive import load

        target = load(name)

    def test(data: bytes) -> None:
        target(data)

    words = Path(__file__).parent / "words" / f"{name}.dict"
    atheris.Setup([*sys.argv, f"-dict={words}"], test)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
