"""`python -m triows.testing`: simulations by seed."""

from __future__ import annotations

import argparse
import sys
import time

from triows.testing.schedule import draw
from triows.testing.simulation import shrink, simulate


def main() -> int:
    """Run simulations; print the first that is wrong, as short as it can be had."""
    parser = argparse.ArgumentParser(prog="python -m triows.testing", description=__doc__)
    parser.add_argument("--simulations", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first one (default 0)")
    parser.add_argument("--store", choices=("memory", "sqlite"), help="else the seed says which")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    chosen = parser.parse_args()
    began = time.monotonic()
    for seed in range(chosen.seed, chosen.seed + chosen.simulations):
        outcome = simulate(draw(seed, chosen.store))
        if chosen.trace:
            print(*(" ".join(map(str, entry)) for entry in outcome.trace), sep="\n")
        if outcome.wrong:
            print(shrink(outcome))
            return 1
    print(f"{chosen.simulations} simulations, all right, in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
