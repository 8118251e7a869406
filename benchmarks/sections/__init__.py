"""The sections of docs/speed.md, a module each, in the page's order.

TITLE               its heading
measure(seconds)    what it measures, as plain data: what results.py keeps
lines(found)        what the page shows of it; `found` has such data by ISA, and a table the columns of each
goals(data, isa)    what is wanted of it: lines of benchmarks/GOALS.md
PLOT, PLOT_SHOWS, plot(data, pyplot)    where there is one: its picture's name, what it shows, and the picture

What is needed to measure and not to make a page is imported by `measure`: a page needs NumPy and matplotlib.
"""

from sections import (
    busy,
    executors,
    forms,
    gradients,
    kernels,
    latency,
    layouts,
    limit,
    memory,
    peers,
    reductions,
    sizes,
    threads,
)

ORDER = [peers, latency, limit, threads, forms, gradients, executors]  # what a reader wants first
ORDER += [sizes, kernels, reductions, layouts, busy, memory]
SECTIONS = {module.__name__.rpartition(".")[2]: module for module in ORDER}
