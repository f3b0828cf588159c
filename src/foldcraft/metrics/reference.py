"""The table of all metrics in docs/metrics.md, generated from the catalogue."""

from foldcraft.metrics.catalogue import ENTRIES, REQUIRED, Entry

GIVEN = {
    "labels": "labels",
    "probabilities": "probabilities",
    "values": "values",
    "ranks": "labels, the likeliest first",
}


def table() -> str:
    """Every metric as a row of a Markdown table."""
    lines = [
        "| name | target | options | better | the host is given | what it is | used in |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in ENTRIES:
        better = "higher" if entry.greater_is_better else "lower"
        kinds = ", ".join(entry.kinds)
        cells = [f"`{entry.name}`", kinds, _options(entry), better, GIVEN[entry.wants], entry.judges, entry.used_in]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _options(entry: Entry) -> str:
    """Their names and defaults."""
    words = []
    for name, default in (entry.options or {}).items():
        shown = str(default).lower() if isinstance(default, bool) else default
        words.append(f"`{name}`" if default is None else f"`{name}` ({'required' if default == REQUIRED else shown})")
    return ", ".join(words) or "–"
