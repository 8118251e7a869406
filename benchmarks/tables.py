"""How results are told: figures, tables with the columns of each machine, and goals.

A call's times are what results.py says: a list whose first is the median in seconds.
"""

import math
from dataclasses import dataclass


def label(shape):
    return "x".join(map(str, shape))


def size(shape_label):
    return math.prod(map(int, shape_label.split("x")))


# ---- figures ----


def three_digits(value):
    """Thousands in full."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def us(times):
    return three_digits(times[0] * 1e6)


def ns(times):
    return f"{times[0] * 1e9:.0f}"


def billions(elements, times, digits=2):
    """G elements/s."""
    return f"{elements / times[0] / 1e9:.{digits}f}"


def over(times, base):
    return f"{times[0] / base[0]:.2f}"


def us_over(times, base):
    """Microseconds and, in brackets, how many times another call's."""
    return f"{us(times)} ({over(times, base)}x)"


def us_faster(times, base):
    """The same, where the ratio may be in the thousands."""
    ratio = times[0] / base[0]
    return f"{us(times)} ({ratio:.{int(ratio < 100)}f}x)"


def credible(limit, call):
    """Whether a loop that only reads took no longer than a call that reads as much; else other programs had the cores."""
    return limit[0] <= call[0]


# ---- tables ----


def table(labels, found, columns):
    """A table's lines: its labels, then each machine's columns; `columns(data)`: their heads and {labels: cells}."""
    parts = {isa: columns(data) for isa, data in found.items()}
    keys = dict.fromkeys(key for _, rows in parts.values() for key in rows)
    heads = [named(isa, head, parts) for isa, (heads, _) in parts.items() for head in heads]
    yield from head_of_table([*labels, *heads])
    for key in keys:
        yield row([*key, *(cell for part in parts.values() for cell in cells_of(key, *part))])


def cells_of(key, heads, rows):
    return rows.get(key, ["-"] * len(heads))


def named(isa, what, found):
    """With the machine's ISA, where there is more than one."""
    return f"{isa}: {what}" if len(found) > 1 else what


def on_each(found, say):
    """What is said of a machine's data: once, where it is the same of all."""
    said = {isa: str(say(data)) for isa, data in found.items()}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{what} ({isa})" for isa, what in said.items())


def head_of_table(heads, align="---:"):
    yield row(heads)
    yield "| --- |" + f" {align} |" * (len(heads) - 1)


def row(cells):
    return f"| {' | '.join(map(str, cells))} |"


# ---- goals ----

MOST_EXCUSED = 0.1  # of a figure: a run that is noisier should be made again
YES, BARELY, NEARLY, NO = VERDICTS = (
    "yes",
    "yes, within the noise",
    "no, within the noise",
    "**no**",
)


@dataclass
class Goal:
    """One line of what this project wants of itself, and what was measured; `noise` is how far another run may be off."""

    what: str
    measured: float
    noise: float | None
    bound: float
    at_least: bool = False

    def wanted(self):
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}"

    def verdict(self):
        """Of the figure as it is shown; a noise speaks against a goal that is met as it does for one that is missed."""
        shown = float(three_digits(self.measured))
        left = shown - self.bound if self.at_least else self.bound - shown
        noise = self.noise or 0
        if left >= 0:
            return YES if left == 0 or left >= noise else BARELY
        return NEARLY if -left <= min(noise, MOST_EXCUSED * self.measured) else NO

    def cells(self):
        noise = "-" if self.noise is None else f"±{self.noise:.2g}"
        return [three_digits(self.measured), noise, self.verdict()]


def spread(times):
    """Half of the way from the lower quartile to the upper one, over the median; None where they are not known."""
    if len(times) < 3:
        return None
    median, lower, upper = times
    return (upper - lower) / 2 / median


def noise_of(value, *calls):
    """Of a figure that is a product or a quotient of calls' medians."""
    spreads = [spread(times) for times in calls]
    return None if None in spreads else value * math.hypot(*spreads)


def at_most(bound, what, times, base):
    """A goal for a call's time over another's."""
    ratio = times[0] / base[0]
    return Goal(what, ratio, noise_of(ratio, times, base), bound)


def at_least(bound, what, times, base):
    ratio = times[0] / base[0]
    return Goal(what, ratio, noise_of(ratio, times, base), bound, at_least=True)


def at_most_us(bound, what, times):
    value = times[0] * 1e6
    return Goal(what, value, noise_of(value, times), bound)
