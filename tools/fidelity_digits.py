"""Print the table of docs/fidelity.md: errors of a mean KLD of models that nearly agree, and of float32 log-softmaxes."""

import numpy as np
from kldiv_fast.fidelity import fidelity


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def kld(base, other):
    log_p, log_q = log_softmax(base), log_softmax(other)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def exact(base, other):
    """In float64, of terms that don't cancel."""
    log_p, log_q = (log_softmax(x.astype(np.float64)) for x in (base, other))
    x = log_p - log_q
    return (np.exp(log_p) * (np.expm1(-x) + x)).sum(axis=1)


def main():
    rng = np.random.default_rng(0)
    print("| logits differ by | mean KLD | error here | error of float32 log-softmax |")
    print("| ---: | ---: | ---: | ---: |")
    for apart in (1.0, 1e-1, 1e-2, 1e-3, 1e-4):
        base = 3 * rng.standard_normal((32, 32_000), np.float32)
        other = base + np.float32(apart) * rng.standard_normal(base.shape, np.float32)
        wanted = exact(base, other).mean()
        errors = [abs(x / wanted - 1) for x in (fidelity(base, other).kld.value, kld(base, other).mean())]  # fmt: skip
        print(f"| {apart:g} | {wanted:.3g} | {errors[0]:.0e} | {errors[1]:.0e} |")


if __name__ == "__main__":
    main()
