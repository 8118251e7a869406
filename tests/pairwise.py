"""Products of parameters, of which the plain run takes the cases in which every two values meet, and --long the others.

A fault that hangs on one value, or on two together, is found by such cases, which are as many as the two longest lists
multiply to; one that needs three at once is left to --long.
"""

import itertools

import pytest


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
    """Parametrize by the product of the axes, each a list, or a dictionary of ids; ``isa`` is the fixture."""
    named = [axis if isinstance(axis, dict) else dict(zip(map(label, axis), axis)) for axis in axes.values()]
    plain = set(covering([len(axis) for axis in named]))
    cases = [
        pytest.param(
            *(value for _, value in picked),
            id="-".join(name for name, _ in picked),
            marks=() if indices in plain else pytest.mark.long,
        )
        for indices, picked in zip(
            itertools.product(*(range(len(axis)) for axis in named)),
            itertools.product(*(axis.items() for axis in named)),
            strict=True,
        )
    ]
    return pytest.mark.parametrize(list(axes), cases, indirect=[n for n in axes if n == "isa"])


def label(value):
    return getattr(value, "__name__", str(value))
