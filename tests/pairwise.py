"""Products of parameters, of which the plain run takes the cases in which every two values meet, and --long the others.

A fault that hangs on one value, or on two together, is found by such cases, which are as many as the two longest lists
multiply to; one that needs three at once is left to --long.
"""

import itertools

import pytest

# conftest.py's, before tests are collected: whether --long asks for the others. (Made and left out, they cost seconds.)
makes_all = False


def covering(sizes):
    """Cases, as a tuple of indices each, in which every two values of two axes meet; the same at every run."""
    axes = range(len(sizes))
    if len(sizes) == 1:
        return [(i,) for i in range(sizes[0])]
    two = itertools.combinations(axes, 2)
    missing = {
        ((a, i), (b, j)): None for a, b in two for i in range(sizes[a]) for j in range(sizes[b])
    }
    cases = []
    while missing:
        case = dict(next(iter(missing)))
        for axis in sorted(set(axes) - set(case), key=lambda a: -sizes[a]):
            # By turns where several meet equally many that are missing.
            turns = [(len(cases) + i) % sizes[axis] for i in range(sizes[axis])]
            case[axis] = max(turns, key=lambda i: len(met(case | {axis: i}) & missing.keys()))
        for pair in met(case):
            missing.pop(pair, None)
        cases.append(tuple(case[axis] for axis in axes))
    return cases


def met(case):
    return set(itertools.combinations(sorted(case.items()), 2))


def pairwise(**axes):
    """Parametrize by the product of the axes, each a list, or a dictionary of values by id; ``isa`` is the fixture."""
    return thinned(axes, covering([len(axis) for axis in axes.values()]))


def each(**axes):
    """As `pairwise`, for cases that take long: those in which every value occurs once."""
    sizes = [len(axis) for axis in axes.values()]
    return thinned(axes, [tuple(i % size for size in sizes) for i in range(max(sizes))])


def thinned(axes, plain):
    named = [
        list(axis.items() if isinstance(axis, dict) else zip(map(label, axis), axis, strict=True))
        for axis in axes.values()
    ]
    cases = []
    every = itertools.product(*(range(len(axis)) for axis in named))
    for indices in every if makes_all else sorted(set(plain)):
        ids, values = zip(*(axis[i] for axis, i in zip(named, indices, strict=True)), strict=True)
        marks = () if indices in plain else pytest.mark.long
        cases.append(pytest.param(*values, id="-".join(ids), marks=marks))
    return pytest.mark.parametrize(list(axes), cases, indirect=[n for n in axes if n == "isa"])


def label(value):
    return getattr(value, "__name__", str(value))
