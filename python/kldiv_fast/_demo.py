"""What ``python -m kldiv_fast`` shows when it is given no files."""

import statistics
import time
from importlib.util import find_spec

import numpy as np

import kldiv_fast

PUBLISHED = [
    ([[0, 1], [1, 0]], [[0.2, 0.8], [0.9, 0.1]], 0.16425064),
    ([[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]], 0.45814306),
]


def demonstrate() -> None:
    """Print the published examples, a speed, and the handwritten digits if scikit-learn is there."""
    print(f"kldiv_fast {kldiv_fast.__version__} ({kldiv_fast.current_isa()})\n")
    print("Keras's published examples        kldiv_fast   published")
    for y_true, y_pred, published in PUBLISHED:
        value = kldiv_fast.kl(np.array(y_true, np.float32), np.array(y_pred, np.float32))
        print(f"  kl({y_true}, ...)       {value:.8f}   {published:.8f}")
    print()
    # Before scikit-learn: its own threads, still spinning, would share the cores with ours.
    ours, numpys = _speed()
    print(
        f"Speed, 1024x1000 float32: {ours * 1e6:.0f} us, NumPy {numpys * 1e6:.0f} us, {numpys / ours:.0f} times as fast"
    )
    if find_spec("sklearn") is None:
        print(
            "Handwritten digits: left out, scikit-learn is missing (pip install 'kldiv_fast[examples]')"
        )
    else:
        labels, predicted, accuracy = digits_predictions()
        value = kldiv_fast.kl(labels, predicted)
        print(
            f"Handwritten digits, logistic regression: accuracy {accuracy:.3f}, KL {value:.6f} nats"
        )


def digits_predictions():
    """Logistic regression on scikit-learn's handwritten digits.

    Returns
    -------
    labels : ndarray of float64, (450, 10)
        The test set's labels, one-hot.
    predicted : ndarray of float64, (450, 10)
        Its predicted probabilities.
    accuracy : float
    """
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    images, digits = load_digits(return_X_y=True)
    x_train, x_test, d_train, d_test = train_test_split(images / 16, digits, random_state=0)
    predicted = LogisticRegression(max_iter=1000).fit(x_train, d_train).predict_proba(x_test)
    return np.eye(10)[d_test], predicted, float((predicted.argmax(-1) == d_test).mean())


def _numpy_kl(y_true, y_pred):
    t, p = np.clip(y_true, 1e-7, 1), np.clip(y_pred, 1e-7, 1)
    return (t * np.log(t / p)).sum(-1).mean()


def _speed() -> tuple[float, float]:
    """Median seconds of kl and of NumPy, in turn, after they have agreed."""
    rng = np.random.default_rng(0)
    x, y = rng.dirichlet(np.ones(1000), (2, 1024)).astype(np.float32)
    assert np.isclose(kldiv_fast.kl(x, y), _numpy_kl(x, y), rtol=1e-4)
    times: dict = {kldiv_fast.kl: [], _numpy_kl: []}
    for _ in range(15):
        for function, seconds in times.items():
            start = time.perf_counter()
            function(x, y)
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[kldiv_fast.kl]), statistics.median(times[_numpy_kl])
