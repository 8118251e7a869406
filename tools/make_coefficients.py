"""Print the polynomial coefficients of src/core/math/log_ratio.hpp (needs mpmath).

With s = (u - 1) / (u + 1) and z = s**2, half of log(u) is s + s z Q(z), where Q(z) = 1/3 + z/5 + z**2/7 + ...
Each Q below is the minimax polynomial of that degree for z in [0, 0.04] (u in [2/3, 3/2]), weighted by z so that what
is small is the error of log(u) relative to log(u). It is found by Remez exchange, in 60 digits, then rounded to the
kernel's precision.
"""

from mpmath import cos, log, lu_solve, matrix, mp, mpf, pi, polyval, sqrt

mp.dps = 60
Z_MAX = mpf(1) / 25


def q_exact(z):
    """Q(z) itself: (atanh(s) - s) / (s z)."""
    if z < mpf(10) ** -12:
        return mpf(1) / 3 + z / 5
    s = sqrt(z)
    return (log((1 + s) / (1 - s)) / 2 - s) / (s * z)


def weight(z):
    return z / (1 + z / 3)


def remez(degree):
    """Coefficients, lowest first, and the greatest relative error that they leave in log(u)."""
    n = degree + 2
    x = [Z_MAX * (1 - cos(pi * (i + mpf(1) / 2) / n)) / 2 for i in range(n)]
    for _ in range(12):
        system = matrix(n, n)
        rhs = matrix(n, 1)
        for i, z in enumerate(x):
            for k in range(degree + 1):
                system[i, k] = z**k
            system[i, degree + 1] = (-1) ** i / weight(z)
            rhs[i] = q_exact(z)
        coefficients = list(lu_solve(system, rhs))[: degree + 1]

        def error(z, coefficients=coefficients):
            return (polyval(coefficients[::-1], z) - q_exact(z)) * weight(z)

        grid = [Z_MAX * i / 1500 for i in range(1, 1501)]
        errors = [error(z) for z in grid]
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
    for name, degree, bits in (("float", 2, 24), ("double", 7, 53)):
        coefficients, error = remez(degree)
        print(f"{name}: relative error 2^{float(log(error, 2)):.1f}")
        mp.prec, saved = bits, mp.prec
        rounded = [+c for c in coefficients]
        mp.prec = saved
        for c in rounded:
            print(f"    {float(c).hex()},")


if __name__ == "__main__":
    main()
