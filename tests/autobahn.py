"""`python -m tests.autobahn`: the Autobahn suite against our wire layer, as the table in the docs.

With `--write` the table in docs/conformance.md is replaced.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "conformance.md"
_TABLE = re.compile(r"(?<=<!-- autobahn -->\n).*?(?=<!-- end -->)", re.DOTALL)
SECTIONS = {
    "1": "framing",
    "2": "ping and pong",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragments",
    "6": "UTF-8",
    "7": "closing",
    "9": "large messages, and many",
    "10": "sending in fragments",
    "12": "compression, sizes",
    "13": "compression, parameters",
}
_COLUMNS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")

Verdicts = dict[str, str]
"""By case: how the exchange of messages was judged, or the close if that was judged worse."""


def run_suite(reports: Path) -> Verdicts:
    """Run all cases against an echo server on the wire layer.

    Args:
        reports: where the suite writes what it saw.
    """
    kosoku = Path(sys.executable).with_name("kosoku")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.echo_server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        with server.stdout as output:
            port = output.readline().strip()
        # Its status tells of what is not implemented, too, and so is not looked at.
        subprocess.run(
            [kosoku, "-p", "4", "-o", reports, f"127.0.0.1:{port}"],
            capture_output=True,
            timeout=180,
            check=False,
        )
    finally:
        server.kill()
        server.wait()
    (cases,) = json.loads((reports / "index.json").read_text()).values()
    return {id_: _verdict(case["behavior"], case["behaviorClose"]) for id_, case in cases.items()}


def _verdict(behaviour: str, close: str) -> str:
    if close in ("OK", "INFORMATIONAL") or behaviour not in ("OK", "NON-STRICT", "INFORMATIONAL"):
        return behaviour
    return close


def table(verdicts: Verdicts) -> str:
    """Return the verdicts by section, and the cases that are not plainly passed."""
    lines = [
        "| section | cases | passed | not strict | informational | left out | failed |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    total: Counter[str] = Counter()
    for number, name in SECTIONS.items():
        found = Counter(v for id_, v in verdicts.items() if id_.split(".")[0] == number)
        total += found
        lines.append(f"| {number} {name} | {_row(found)} |")
    lines.append(f"| all | {_row(total)} |")
    for verdict in ("NON-STRICT", "INFORMATIONAL"):
        cases = sorted((id_ for id_, v in verdicts.items() if v == verdict), key=_numbers)
        lines.append(f"\n{verdict.capitalize()}: {', '.join(cases)}.")
    return "\n".join(lines) + "\n"


def _numbers(id_: str) -> list[int]:
    return [int(part) for part in id_.split(".")]


def _row(found: Counter[str]) -> str:
    figures = [found.total(), *(found[column] for column in _COLUMNS)]
    figures.append(found.total() - sum(figures[1:]))
    return " | ".join(map(str, figures))


def in_docs() -> str:
    """Return the table that the docs show."""
    found = _TABLE.search(PAGE.read_text())
    assert found is not None, f"{PAGE} has no place for the table"
    return found[0]


def main() -> None:
    """Run the suite and print the table, or write it."""
    with tempfile.TemporaryDirectory() as folder:
        made = table(run_suite(Path(folder)))
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(_TABLE.sub(lambda _: made, PAGE.read_text()))
    else:
        sys.stdout.write(made)


if __name__ == "__main__":
    main()
