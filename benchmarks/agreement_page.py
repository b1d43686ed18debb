"""The tables of docs/how_good.md, from what benchmarks/agreement.py found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinsley.io.results import new_file

MARKS = ("<!-- agreement.py: from here -->", "<!-- agreement.py: to here -->")
"""In the page: the lines between which they go."""
FIGURES = (
    "![One galaxy by chains and by the flow](figures/agreement-corner.png)",
    "![Medians of all galaxies](figures/agreement-medians.png)",
    "![Ranks of the truth](figures/agreement-pp.png)",
)
_TESTS = {"raw": "raw", "weighted": "weighted", "halves": "half the chains, half"}
_COSTS = {
    "chains": "chains",
    "weighted_to_ess_4000": "weighted draws to an ESS of 4,000",
    "flow_4096_weighted_draws": "4,096 weighted draws",
}


def write_page(page: Path, result: dict[str, Any]) -> None:
    """Put the tables and figures between the page's two marks."""
    before, _, rest = page.read_text().partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise SystemExit(f"{page} lacks the lines {MARKS[0]} and {MARKS[1]}.")
    tables = (of_criteria(result["criteria"]), of_sets(result["sets"]), of_ranks(result["ranks"]))
    text = "\n\n".join("\n".join(lines) for lines in (*tables, FIGURES))
    with new_file(page) as file:
        file.write(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}".encode())


def of_criteria(criteria: dict[str, Any]) -> list[str]:
    """Which of the limits are kept."""
    return [
        *head("criterion", "value", "limit", ""),
        *(
            row(name, f"{c['value']:.3f}", f"{c['limit']:g}", "met" if c["passed"] else "missed")
            for name, c in criteria.items()
        ),
    ]


def of_sets(sets: dict[str, Any]) -> list[str]:
    """Simulated and real galaxies side by side; medians with the 84 % quantile."""
    found = sets.values()
    lines = [*head("", *sets), row("galaxies", *(s["galaxies"] for s in found))]
    for kind, words in _TESTS.items():
        lines.append(row(f"C2ST, {words}", *(both(s["c2st"][kind]) for s in found)))
    worst = (s["offset_of_means_in_sigma"]["weighted"]["worst_property_by_galaxy"] for s in found)
    lines.append(row("mean of the worst property, off by, sigma", *map(both, worst)))
    lines.append(row("chains converged", *(s["chains"]["converged"] for s in found)))
    lines.append(
        row("weighted draws with ESS >= 2,000", *(s["weighted"]["ess_2000"] for s in found))
    )
    costs = [s["processor_seconds"] for s in found]
    for kind, words in _COSTS.items():
        lines.append(row(f"processor seconds, {words}", *(f"{c[kind]['0.5']:.2g}" for c in costs)))
    ratios = (f"{c['ratio_chains_to_weighted']:.0f}" for c in costs)
    lines.append(row("seconds, chains over weighted draws", *ratios))
    return lines


def of_ranks(ranks: dict[str, Any]) -> list[str]:
    """Calibration of the same simulations by each way."""
    lines = head("ranks of the truth", "simulations", "largest distance", "least p of 18")
    for kind, found in ranks.items():
        if found["galaxies"]:
            figures = (f"{found[name]:.3f}" for name in ("largest_distance", "least_p"))
            lines.append(row(kind.replace("_", ", "), found["galaxies"], *figures))
    return lines


def both(quantiles: dict[str, float]) -> str:
    return f"{quantiles['0.5']:.3f} ({quantiles['0.84']:.3f})"


def head(*cells: str) -> list[str]:
    return [row(*cells), "|---" * len(cells) + "|"]


def row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
