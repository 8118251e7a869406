"""The table of divergences, Python's side: for each row of the core's table what its documentation says, and its functions.

To add a divergence is to add an entry to ``ENTRIES``; a row of the core's without one is an error at import. An entry's
formulas are documentation and Python at once: :mod:`kldiv_fast._formulas` computes them where the core can't.
"""

import textwrap
from typing import NamedTuple

from kldiv_fast import _core
from kldiv_fast._divergence import gradient_function, value_function
from kldiv_fast._meaning import FORMS


class Entry(NamedTuple):
    """What is to be said of one divergence alone."""

    title: str
    term: str  # what an element adds to its row, in terms of t, p, the parameters and `definitions`
    slopes: tuple[str, str]  # the term's derivatives, by y_true and by y_pred
    unclipped: str  # what epsilon=None means
    sign: str  # when it is not below 0
    source: str
    value: str  # of the examples below
    gradient: str
    definitions: tuple[
        tuple[str, str], ...
    ] = ()  # names of the formulas' own, and what they stand for
    # At these values of its parameter it is another operation, perhaps of the swapped arguments.
    limits: tuple[tuple[float, str, bool], ...] = ()


ENTRIES = {
    "kl": Entry(
        title="Kullback-Leibler divergence",
        term="t * log(t / p)",
        slopes=("log(t / p) + 1", "-t / p"),
        unclipped="the meaning of ``scipy.special.rel_entr`` summed over `axis`: 0 log(0/q) is 0, a "
        "positive over 0 is inf, a negative is inf",
        sign="It has the meaning of ``keras.losses.KLDivergence`` [1]_, and is not below 0 where both "
        "rows have the same sum.",
        source="https://keras.io/api/losses/probabilistic_losses/#kldivergence-class",
        value="0.458143",
        gradient="array([[-0.    , -1.    ],\n       [-1.    , -0.3333]], dtype=float32)",
    ),
    "generalized_kl": Entry(
        title="Generalized Kullback-Leibler divergence",
        term="t * log(t / p) - t + p",
        slopes=("log(t / p)", "1 - t / p"),
        unclipped="the meaning of ``scipy.special.kl_div`` summed over `axis`: 0 beside q is q, a "
        "positive over 0 is inf, a negative is inf",
        sign="It has the meaning of ``scipy.special.kl_div`` [1]_, for rows of any sums; no term is "
        "below 0.",
        source="https://docs.scipy.org/doc/scipy/reference/generated/scipy.special.kl_div.html",
        value="0.958143",
        gradient="array([[ 0.5   , -0.5   ],\n       [-0.5   ,  0.1667]], dtype=float32)",
    ),
    "jsd": Entry(
        title="Jensen-Shannon divergence",
        term="beta * t * log(t / m) + (1 - beta) * p * log(p / m)",
        slopes=("beta * log(t / m)", "(1 - beta) * log(p / m)"),
        unclipped="0 log 0 is 0, a negative is inf",
        sign="No row is below 0, and none of two distributions is above log(2). It is not rooted: "
        "``scipy.spatial.distance.jensenshannon`` is its root. Other values of `beta` than a half are "
        "those of the generalized divergence [1]_. At 0 it is the limit of jsd/beta, kl(y_true, "
        "y_pred), and at 1 that of jsd/(1 - beta), kl(y_pred, y_true), as TRL and Liger have it: "
        "jsd itself goes to 0 beside both.",
        source="https://arxiv.org/abs/2306.13649",
        value="0.310465",
        gradient="array([[ 0.1733, -0.1014],\n       [-0.1014,  0.0456]], dtype=float32)",
        definitions=(("m", "beta * t + (1 - beta) * p"),),
        limits=((0, "kl", False), (1, "kl", True)),
    ),
    "jeffreys": Entry(
        title="Jeffreys divergence",
        term="(t - p) * log(t / p)",
        slopes=("log(t / p) + 1 - p / t", "log(p / t) + 1 - t / p"),
        unclipped="0 beside 0 is 0, a positive beside 0 is inf, a negative is inf",
        sign="It is kl(y_true, y_pred) + kl(y_pred, y_true), not half of it [1]_; no term is below 0.",
        source="https://doi.org/10.1098/rspa.1946.0056",
        value="12.679608",
        gradient="array([[ 8.2125, -0.8466],\n       [-0.8466,  0.3694]], dtype=float32)",
    ),
}


class Operation(NamedTuple):
    """A row of the core's table."""

    number: int
    name: str
    parameters: tuple[str, ...]

    def defaults(self):
        """Of its own parameters."""
        return {name: _PARAMETERS[name][0] for name in self.parameters}


# The parameters that the core's table names: defaults, and what the section on parameters says.
_PARAMETERS = {
    "beta": (
        0.5,
        """\
beta : float in [0, 1], default 0.5
    The weight of `y_true`'s side.
""",
    )
}

_INPUTS = """\
y_true, y_pred : array_like, of shapes (..., classes) that broadcast
    The distributions, by default as probabilities: not counts, for values above 1 are clipped to 1.
    float16, bfloat16 (``ml_dtypes``), float32 and float64 arrays are read in place, whatever their
    strides; integers, bools and foreign byte orders are converted a block at a time. CPU tensors of
    PyTorch, TensorFlow and JAX, tables of pandas, polars, pyarrow and xarray, and lists are
    accepted; sparse arrays of ``scipy.sparse`` are made dense a tile at a time. Two tables whose
    labels of the classes differ are an error. A 0-d or 1-d input is one row.
"""

# What the core's forms are.
_FORMS = {
    "probs": "probabilities, taken as they are",
    "counts": "non-negative numbers, which are divided by their sum over `axis`; a row of zeros is NaN",
    "log_probs": "logarithms of probabilities, taken as they are; -inf is a probability of 0",
    "logits": "softmax(x / `temperature`) over `axis` makes probabilities of them; -inf is a probability of 0",
    "labels": "of `y_true` alone, integers of the rows' shape: the number of the class whose probability is 1, "
    "with the last of several class axes fastest",
}

_AXIS = """\
axis : int or tuple of int, default -1
    The class axes, of the shape that the two broadcast to.
"""

_FORM = """\
form : str or a pair of str, default "probs"
{meanings}
"""

_EPSILON = """\
epsilon : float in [0, 1) or None, default 1e-7
    Lower bound of the clip.
"""

_TEMPERATURE = """\
temperature : float, default 1.0
    What logits are divided by, finite and above 0. Other forms have none but 1.
pseudocount : float, default 0.0
    Added to each of the counts, finite and not below 0. Other forms have none but 0.
"""

_REST = """\
base : float or None, default None
    The logarithm's base, positive and not 1: with 2 the result is in bits. None: nats.
reduction : str or None, default "mean"
    "mean" or "sum_over_batch_size": the sum over the number of rows. "sum". "none" or None: every
    row's value. "mean_with_sample_weight": the sum over the sum of the weights. "batchmean": the
    sum over the length of the first batch axis, as in PyTorch. A mean over nothing is 0.
sample_weight : array_like, optional
    A weight for each row, of a shape that broadcasts with the rows. As in Keras, ranks that differ
    by one trailing axis of length 1 are made equal first, and more weights than rows repeat the rows.
mask : array_like of bool or integers, optional
    False (0) where a row counts as 0, whatever it holds, of a shape that broadcasts to the rows'. A
    mean is then over the rows that count.
where : array_like of bool, optional
    False where an element is as if its class were not there: it is not read, is in no sum that
    counts or logits are divided by, adds 0, and has a gradient of 0. Of a shape that broadcasts to
    that of the inputs. A row without any is 0 of probabilities and their logarithms, and NaN of what
    is divided by a sum.
"""

_THREADS = """\
num_threads : int, optional
    At least 1; no more are used than there are processors. Default: :func:`get_num_threads`. The
    result does not depend on it.
"""

_LABELS = """\
ignore_class : int, optional
    A label of rows that do not count, as with `mask`.
label_smoothing : float in [0, 1], default 0.0
    So much of each label's probability is spread over all classes alike, as in Keras. Not beside
    `where`.
"""

_VALIDATE = """\
validate : bool, default False
    Whether rows that are not what `form` says are an error, which takes several times as long:
    probabilities below 0, above 1 or NaN, or of another sum than 1 by more than their dtype's
    rounding; counts below 0, infinite or NaN; logarithms of such probabilities; logits that are NaN
    or inf.
"""

_RAISES = """\
Raises
------
ValueError
    If shapes do not broadcast, an argument has a value that is not in its range, labels contradict
    each other, a table has a missing value, or `validate` finds a row that is not of its form.
TypeError
    If an argument is of a type or dtype that is not among those above.
"""

# The first line of these two is the signature, in the form that inspect.signature reads.
_VALUE = """\
{name}(y_true, y_pred, *, {signature}axis=-1, form='probs', epsilon=1e-07, temperature=1.0, \
pseudocount=0.0, base=None, reduction='mean', sample_weight=None, mask=None, where=None, out=None, num_threads=None, \
ignore_class=None, label_smoothing=0.0, validate=False)
--

{title} of probability distributions, in nats.

With t and p, the clipped inputs::

    t = clip(y_true, epsilon, 1)      p = clip(y_pred, epsilon, 1)
{formula}
    result = reduction over the rows of  sample_weight * row

or, where `form` says that either is something else, the probabilities that it stands for, unclipped.

{sign}

Parameters
----------
{inputs}{parameters}{shared}out : ndarray, optional
    With ``reduction="none"``: where to write the rows, of the result's shape and dtype. It may
    overlap the inputs. Its content is undefined after an interrupt (Ctrl-C).
{threads}
Returns
-------
numpy.float32 or numpy.float64, or an ndarray of it with ``reduction="none"``
    float64 if `y_pred` is float64, an integer array or a list, or if `y_true` is a float64 array;
    otherwise float32.

{raises}
Notes
-----
The quotient t/p is never rounded: its logarithm comes from the exact difference of the two, so that
distributions that nearly agree keep their digits. Sums are carried in float64. The result has the
same bits for any number of threads, on AVX2, AVX-512 and NEON.

References
----------
.. [1] {source}

Examples
--------
>>> import numpy as np
>>> from kldiv_fast import {name}
>>> y_true = np.array([[0, 1], [0, 0]], dtype=np.float32)
>>> y_pred = np.array([[0.6, 0.4], [0.4, 0.6]], dtype=np.float32)
>>> print(f"{{{name}(y_true, y_pred):.6f}}")
{value}
>>> {name}(y_true, y_pred, reduction="none").shape
(2,)
"""

_GRADIENT = """\
{name}_value_and_grad(y_true, y_pred, *, {signature}wrt='y_pred', axis=-1, form='probs', epsilon=1e-07, \
temperature=1.0, pseudocount=0.0, base=None, reduction='mean', sample_weight=None, mask=None, where=None, upstream=None, \
out=None, num_threads=None, ignore_class=None, label_smoothing=0.0, validate=False)
--

{title} and its gradient, in nats, from one pass over the inputs.

With the t, p and row of :func:`kldiv_fast.{name}`, and with f, a row's factor: upstream *
sample_weight / the reduction's divisor, 0 where masked::

{formula}
    d value / d y_true = f * ({by_true})      where epsilon <= y_true <= 1, else 0
    d value / d y_pred = f * ({by_pred})      where epsilon <= y_pred <= 1, else 0

and where x, one of the two, stands for the probabilities t of its row, with g = d value / d t::

    d value / d x = t * g                                      of log_probs
    d value / d x = (g - sum over `axis` of t * g) / sum of x  of counts
    d value / d x = t * (g - sum over `axis` of t * g) / temperature  of logits

Parameters
----------
{inputs}{parameters}wrt : {{"y_pred", "y_true"}} or a sequence of them, default "y_pred"
    The argument or arguments to differentiate with respect to.
{shared}upstream : array_like, optional
    The derivative of what follows with respect to the value: a number, or with
    ``reduction="none"`` an array that broadcasts to the rows' shape. Default: 1.
out : ndarray, or a sequence of one for each of `wrt`, or a pair of rows and these, optional
    Where to write the gradient: of the argument's shape and the result's dtype. With
    ``reduction="none"`` the rows too: ``out=(rows, gradient)``. They may overlap the inputs.
    Their content is undefined after an interrupt (Ctrl-C).
{threads}
Returns
-------
value : numpy.float32, numpy.float64 or ndarray
    The same bits as those of :func:`kldiv_fast.{name}`.
gradient : ndarray, or a tuple of them where `wrt` is a sequence
    Of the argument's shape and the value's dtype: float32 for 16-bit arguments.

{raises}
Notes
-----
At the bounds of the clip the gradient is the formula's, as with Keras on TensorFlow and PyTorch;
on JAX it is half of it there. With ``epsilon=None`` (and 0) it is the formula's where both are
positive and 0 elsewhere, as that of ``jax.scipy.special.rel_entr``. A row whose factor is 0 (masked,
or of weight 0) has a gradient of 0, whatever it holds. NaN gives NaN. The formulas are the
derivatives of the value [1]_.

References
----------
.. [1] {source}

Examples
--------
>>> import numpy as np
>>> from kldiv_fast import {name}_value_and_grad
>>> y_true = np.array([[0, 1], [0.5, 0.5]], dtype=np.float32)
>>> y_pred = np.array([[0.5, 0.5], [0.25, 0.75]], dtype=np.float32)
>>> value, gradient = {name}_value_and_grad(y_true, y_pred)
>>> np.round(gradient, 4)
{gradient}
"""


def docstring(template, operation):
    """A function's documentation: the template with what is to be said of this operation."""
    entry = ENTRIES[operation.name]
    parameters = {name: _PARAMETERS[name] for name in operation.parameters}
    unclipped = f"None: no clip, and {entry.unclipped}. With 0 the two are clipped to [0, 1] and zeros have that meaning too."
    epsilon = _EPSILON + _paragraph(unclipped) + "\n"
    form = _FORM.format(meanings=_paragraph(_meanings()))
    return template.format(
        **entry._asdict()
        | {
            "name": operation.name,
            "signature": "".join(f"{x}={default}, " for x, (default, _) in parameters.items()),
            "formula": textwrap.indent("\n".join(_lines(entry)), "    "),
            "sign": textwrap.fill(entry.sign, 100),
            "by_true": entry.slopes[0],
            "by_pred": entry.slopes[1],
            "inputs": _INPUTS,
            "parameters": "".join(text for _, text in parameters.values()),
            "shared": _AXIS + form + epsilon + _TEMPERATURE + _REST,
            "labels": _LABELS,
            "validate": _VALIDATE,
            "threads": _THREADS + _LABELS + _VALIDATE,
            "raises": _RAISES,
        }
    )


def _lines(entry):
    yield from (f"{name} = {meaning}" for name, meaning in entry.definitions)
    yield f"row = sum over `axis` of  {entry.term}"


def _meanings():
    meanings = ". ".join(f'"{name}": {_FORMS[name]}' for name in FORMS)
    return (
        f"What the numbers are, of both inputs or of `y_true` and `y_pred` each. {meanings}. Nothing is "
        "clipped but probabilities beside probabilities or labels."
    )


def _paragraph(text):
    return textwrap.indent(textwrap.fill(text, 96), "    ")


def _read_table():
    """The core's rows, each of which has an entry here."""
    rows = [Operation(i, *row) for i, row in enumerate(_core.operations())]
    names = [row.name for row in rows]
    if sorted(names) != sorted(ENTRIES):
        raise ImportError(
            f"the core has the operations {', '.join(names)}; _operations.py documents {', '.join(ENTRIES)}"
        )
    if sorted(FORMS) != sorted(_FORMS):
        raise ImportError(
            f"the core has the forms {', '.join(FORMS)}; _operations.py documents {', '.join(_FORMS)}"
        )
    return rows


OPERATIONS = _read_table()
BY_NAME = {row.name: row for row in OPERATIONS}


def functions():
    """The public functions by name: each operation's value, and its value and gradients."""
    found = {}
    for operation in OPERATIONS:
        for template, gradients, fallback in (
            (_VALUE, False, value_function(operation)),
            (_GRADIENT, True, gradient_function(operation)),
        ):
            name, doc = fallback.__name__, docstring(template, operation)
            found[name] = _core.function(operation.number, gradients, name, doc, fallback)
    return found
