"""`python -m tests.fuzz --seconds 600 frames`: fuzz for long."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import drive

_WITH_ATHERIS = "the library atheris chooses inputs by coverage (pip install -e '.[fuzz]')"


def main() -> int:
    """Fuzz one target after the other; 1 if a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*drive.TARGETS, []], help="all if not given")
    parser.add_argument("--seconds", type=float, default=60, help="for each target, 60")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of chance")
    parser.add_argument("--replay", type=Path, help="run this one input")
    parser.add_argument("--keep", action="store_true", help="put what is new into the corpus")
    parser.add_argument("--atheris", action="store_true", help=_WITH_ATHERIS)
    chosen = parser.parse_args()
    if chosen.atheris and find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install -e '.[fuzz]', or leave --atheris out")
    for name in chosen.targets or drive.TARGETS:
        if chosen.replay:
            print(drive.load(name)(chosen.replay.read_bytes()))
            continue
        fuzz = _with_atheris if chosen.atheris else _fuzz
        if not fuzz(name, chosen.seconds, chosen.seed, keep=chosen.keep):
            return 1
    return 0


def _fuzz(name: str, seconds: float, seed: int, *, keep: bool) -> bool:
    try:
        tally = drive.fuzz(name, seed=seed, seconds=seconds, artifacts=Path())
    except drive.Finding as finding:
        print(f"FOUND {finding}\n{finding.__cause__!r}")
        return False
    figures = f"{tally.executions:,} inputs, {len(tally.outcomes)} outcomes, seed {seed}"
    print(f"{name}: {figures}: nothing found", flush=True)
    if keep:
        print(f"{name}: {drive.keep(name, tally.outcomes.values())} inputs are kept")
    return True


def _with_atheris(name: str, seconds: float, seed: int, *, keep: bool) -> bool:
    """Run libFuzzer in a process of its own: it ends the one it runs in."""
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.guided", name, folder, drive.CORPUS / name),
                *(f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-max_len=4096"),
                "-print_final_stats=1",
                "-artifact_prefix=finding-",
            ],
            check=False,
        )
        if keep and not ended.returncode:
            found = [path.read_bytes() for path in Path(folder).iterdir()]
            print(f"{name}: {drive.keep(name, found)} inputs are kept")
    return not ended.returncode


if __name__ == "__main__":
    sys.exit(main())
