"""How often the rank tests of `tinsley check` are wrong, and what they find.

    python benchmarks/false_alarms.py

Ranks of 17 quantities, correlated by 0.25 among each other, raw and weighted, correlated by 0.97:
exact ones, and ones in which a single quantity's posterior is 20 % too narrow, 20 % too wide, or
shifted by 0.1 of its standard deviation. Writes benchmarks/results/false_alarms.json; minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import stats

from tinsley.infer.ranks import FAMILY_LEVEL, MAX_DISTANCE, holm

OUT = Path(__file__).resolve().parent / "results" / "false_alarms.json"
QUANTITIES = 17
TRUTH = {"exact": (1.0, 0.0), "narrow": (0.8, 0.0), "wide": (1.2, 0.0), "shifted": (1.0, 0.1)}
"""Width of one quantity's posterior, and its shift, in units of the true width."""
REPEATS = {500: 2000, 5000: 500}


def main() -> None:
    rng = np.random.default_rng(0)
    out = {"family_level": FAMILY_LEVEL, "max_distance": MAX_DISTANCE, "cases": []}
    for number, repeats in REPEATS.items():
        for name, (width, shift) in TRUTH.items():
            found = np.array([alarms(rng, number, width, shift) for _ in range(repeats)])
            case = {"galaxies": number, "case": name, "repeats": repeats}
            case["rejected"] = float(found[:, 0].mean())
            case["beyond_max_distance"] = float(found[:, 1].mean())
            out["cases"].append(case)
            print(case)
    OUT.write_text(json.dumps(out, indent=2) + "\n")


def alarms(rng: np.random.Generator, number: int, width: float, shift: float) -> tuple[bool, bool]:
    """Does Holm's test reject; is a quantity beyond the largest distance?"""
    raw = np.sqrt(0.75) * rng.normal(size=(QUANTITIES, number)) + 0.5 * rng.normal(size=number)
    other = rng.normal(size=raw.shape)
    z = np.concatenate([raw, 0.97 * raw + np.sqrt(1 - 0.97**2) * other])
    z[[0, QUANTITIES]] = (z[[0, QUANTITIES]] - shift) / width
    ranks = np.sort(stats.norm.cdf(z), axis=1)
    step = np.arange(number + 1) / number
    distance = np.maximum(step[1:] - ranks, ranks - step[:-1]).max(axis=1)
    p_values = {str(i): p for i, p in enumerate(stats.kstwo.sf(distance, number))}
    return bool(holm(p_values)), bool(distance.max() > MAX_DISTANCE)


if __name__ == "__main__":
    main()
