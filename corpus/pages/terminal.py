"""The report of a built corpus as a table for the terminal."""

from typing import Any

COLUMNS = ("source", "in", "kept", "held out", "removed", "rejected", "kept %", "words", "characters", "weight", "epochs")


def table(report: dict[str, Any]) -> str:
    """The table by source, then one line for each kind of count that is not empty."""
    rows = summary_rows(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * max(map(len, lines))
    lines[1:1] = [rule]
    lines[-1:-1] = [rule]
    total = report["total"]
    titles = (
        ("removed", "removed"),
        ("rejected", "rejected"),
        ("rules", "characters repaired"),
        ("personal_data", "personal data hidden"),
        ("scripts", "scripts (documents)"),
        ("languages", "languages (documents)"),
        ("cluster_sizes", "clusters by size"),
        ("task_items", "task items"),
    )
    for key, title in titles:
        if total[key]:
            lines.append(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in total[key].items()))
    if total["lines_dropped"]:
        lines.append(f"lines removed from kept documents: {total['lines_dropped']:,}")
    damaged = [reject for entry in report["sources"].values() for reject in entry["first_rejects"] if is_of_a_file(reject)]
    for reject in damaged[:10]:
        lines.append(f"not read to its end: {reject['file']} from line {reject['line']} ({reject['reason']}: {reject['raw']})")
    if report["ignored_files"]:
        shown = ", ".join(report["ignored_files"][:5]) + (", ..." if len(report["ignored_files"]) > 5 else "")
        lines.append(f"not read (other formats): {shown}")
    return "\n".join(lines)


def summary_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The cells of the table by source: header, one row for each source, total."""
    rows = [COLUMNS]
    for name, entry in [*report["sources"].items(), ("total", report["total"])]:
        share = (entry["kept"] + entry["heldout"]) / max(entry["in"], 1)
        rows.append(
            (
                name,
                f"{entry['in']:,}",
                f"{entry['kept']:,}",
                f"{entry['heldout']:,}",
                f"{sum(entry['removed'].values()):,}",
                f"{sum(entry['rejected'].values()):,}",
                f"{100 * share:.1f}",
                f"{entry['words']:,}",
                f"{entry['characters']:,}",
                f"{entry['weight']:g}" if "weight" in entry else "",
                f"{entry['epochs']:.2f}" if "epochs" in entry else "",
            )
        )
    return rows


def is_of_a_file(reject: dict[str, Any]) -> bool:
    """Whether a reject covers the rest of a file rather than one record."""
    return reject["reason"].endswith("_file")
