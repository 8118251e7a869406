"""Print the polynomial coefficients of src/core/math (needs mpmath).

Each is the minimax polynomial of its degree for a function on an interval, weighted so that what is small is the relative
error of what it is a part of. It is found by Remez exchange, in 60 digits, then rounded to the kernel's precision.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mpmath import cos, exp, log, lu_solve, matrix, mp, mpf, pi, polyval, sqrt

mp.dps = 60


@dataclass
class Part:
    """A function, what its error is multiplied by, the interval, and degrees in float32 and float64."""

    name: str
    function: Callable
    weight: Callable
    low: mpf
    high: mpf
    degrees: tuple[int, int]


def atanh_part(z):
    """Q of half of log(u) = s + s z Q(z), with s = (u - 1) / (u + 1) and z = s**2: 1/3 + z/5 + z**2/7 + ..."""
    if z < mpf(10) ** -12:
        return mpf(1) / 3 + z / 5
    s = sqrt(z)
    return (log((1 + s) / (1 - s)) / 2 - s) / (s * z)


def exp_part(r):
    """Q of e**r = 1 + r + r**2 Q(r)."""
    return mpf(1) / 2 + r / 6 if abs(r) < mpf(10) ** -12 else (exp(r) - 1 - r) / r**2


def log_part(r):
    """Q of log(1 + r) = r Q(r)."""
    return 1 - r / 2 if abs(r) < mpf(10) ** -12 else log(1 + r) / r


def bregman_part(x):
    """Q of e**-x - 1 + x = x**2 Q(x)."""
    return exp_part(-x)


def jsd_part(x):
    """J of (log(2 / (1 + t)) + t log(2 t / (1 + t))) / 2 = x**2 J(x), with t = e**-x: 1/8 - x/16 + ..."""
    if abs(x) < mpf(10) ** -10:
        return mpf(1) / 8 - x / 16
    t = exp(-x)
    return (log(2 / (1 + t)) + t * log(2 * t / (1 + t))) / 2 / x**2


PARTS = [
    # u in [2/3, 3/2].
    Part("atanh", atanh_part, lambda z: z / (1 + z / 3), mpf(0), mpf(1) / 25, (2, 7)),
    # What a whole power of 2 leaves.
    # (The exchange wants an error at 0 to count for something.)
    Part(
        "exp", exp_part, lambda r: max(r**2, mpf("1e-4")) / exp(r), -log(2) / 2, log(2) / 2, (4, 9)
    ),
    Part("bregman", bregman_part, lambda x: 1 / bregman_part(x), mpf(-1), mpf(1), (6, 13)),
    # u in [2/3, 4/3), by its difference from 1.
    Part("log", log_part, lambda r: 1 / log_part(r), -mpf(1) / 3, mpf(1) / 3, (8, 19)),
    # Of a log-ratio, and of the smaller of two probabilities over the other; in float32 alone (loops/fidelity.hpp).
    Part("jsd", jsd_part, lambda x: 1 / jsd_part(x), mpf(-1), mpf(1), (6, 13)),
    Part("log1p", log_part, lambda t: 1 / log_part(t), mpf(0), exp(mpf(-1)), (6, 13)),
]


def remez(part, degree):
    """Coefficients, lowest first, and the greatest error that they leave."""
    n = degree + 2
    width = part.high - part.low
    x = [part.low + width * (1 - cos(pi * (i + mpf(1) / 2) / n)) / 2 for i in range(n)]
    grid = [part.low + width * i / 1500 for i in range(1501)]
    grid = [z for z in grid if part.weight(z) != 0]
    for _ in range(12):
        system = matrix(n, n)
        rhs = matrix(n, 1)
        for i, z in enumerate(x):
            for k in range(degree + 1):
                system[i, k] = z**k
            system[i, degree + 1] = (-1) ** i / part.weight(z)
            rhs[i] = part.function(z)
        coefficients = list(lu_solve(system, rhs))[: degree + 1]
        errors = [
            (polyval(coefficients[::-1], z) - part.function(z)) * part.weight(z) for z in grid
        ]
        peaks = [
            i
            for i in range(len(grid))
            if (i == 0 or abs(errors[i]) >= abs(errors[i - 1]))
            and (i == len(grid) - 1 or abs(errors[i]) >= abs(errors[i + 1]))
        ]
        if len(peaks) < n:
            break
        x = [grid[i] for i in sorted(sorted(peaks, key=lambda i: -abs(errors[i]))[:n])]
    return coefficients, max(map(abs, errors))


def main():
    for part in PARTS:
        for name, degree, bits in zip(("float", "double"), part.degrees, (24, 53), strict=True):
            coefficients, error = remez(part, degree)
            print(f"{part.name}, {name}: error 2^{float(log(error, 2)):.1f}")
            mp.prec, saved = bits, mp.prec
            rounded = [+c for c in coefficients]
            mp.prec = saved
            for c in rounded:
                print(f"    {float(c).hex()},")


if __name__ == "__main__":
    main()
