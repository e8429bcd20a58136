"""Tables in Markdown, numbers, ratios, targets."""


def number(value, digits):
    """A number for people, nothing for None."""
    return "" if value is None else f"{value:,.{digits}f}"


def ratio(value, base):
    """value as a multiple of base."""
    return "" if value is None or not base else f"{value / base:.2f}"


def target(what, value, relation, limit, unit):
    """(what, value, goal, met): met is None when it was not measured."""
    met = None
    if value is not None:
        met = value <= limit if relation == "at most" else value >= limit
    return what, value, f"{relation} {limit} {unit}", met


class Table:
    """A Markdown table with a heading of its own."""

    def __init__(self, heading, *columns):
        self.heading, self.columns, self.rows = heading, [c.strip() for c in columns], []

    def row(self, *cells):
        """Adds a row."""
        self.rows.append([str(c) for c in cells])

    def __str__(self):
        lines = [f"**{self.heading}**", ""] if self.heading else []
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("| --- |" + " ---: |" * (len(self.columns) - 1))
        lines += ["| " + " | ".join(r) + " |" for r in self.rows]
        return "\n".join(lines) + "\n"
