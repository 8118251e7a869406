"""`where`: what it leaves out is as if its class were not there. Beside rows of which the others alone are kept."""

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
from isas import on_each_isa
from pairwise import each, pairwise
from test_arrays import LAYOUTS
from test_family import same
from test_forms import BY_NAME, FORMS, both, formula, functions, pair
from test_gradient import summed_to

PAIRS = {f"{t}-{p}": (t, p) for t in FORMS for p in FORMS}
NOTHING = {"probs": np.nan, "counts": np.inf, "log_probs": np.nan, "logits": np.inf}

each_form = pytest.mark.parametrize("forms", PAIRS.values(), ids=PAIRS)


def some(rng, shape):
    """Two of three elements, and one of each row at least."""
    where = rng.random(shape) < 2 / 3
    where[..., 0] = True
    return where


def without(arrays, forms, where):
    """The inputs with nothing of use where it is not to be read."""
    return [
        np.where(where, x, NOTHING[form]).astype(x.dtype)
        for x, form in zip(arrays, forms, strict=True)
    ]


def rows_alone(name, arrays, forms, where, work):
    """Rows, slopes, and their bounds, from the elements that there are alone; classes last."""
    shape = np.broadcast_shapes(*(x.shape for x in arrays), where.shape)
    arrays = [np.broadcast_to(x, shape) for x in arrays]
    where = np.broadcast_to(where, shape)
    rows, rows_off = np.zeros((2, *shape[:-1]), np.longdouble)
    slopes, slopes_off = np.zeros((2, 2, *shape), np.longdouble)
    for i in np.ndindex(shape[:-1]):
        kept = [np.array(x[i][where[i]]) for x in arrays]
        rows[i], slope, rows_off[i], off = formula(name, kept, forms, work=work)
        for side in range(2):
            slopes[side][i][where[i]], slopes_off[side][i][where[i]] = slope[side], off[side]
    return rows, slopes, rows_off, slopes_off


def close(name, result, arrays, forms, where, factor=1.0, work=None):
    """`result`: rows and both gradients of inputs whose classes are the last axis."""
    rows, slopes, rows_off, slopes_off = rows_alone(name, arrays, forms, where, work or arrays)
    ours, gradients = result
    eps = np.finfo(ours.dtype).eps
    assert np.all(abs(ours - rows) <= rows_off + eps * abs(rows))
    for gradient, x, slope, off in zip(gradients, arrays, slopes, slopes_off, strict=True):
        terms, allowed = factor * slope, abs(factor) * (off + eps * abs(slope)) + 1e-30
        allowed = np.where(where, allowed, 0)  # nothing but 0 where nothing is
        assert gradient.shape == x.shape
        assert np.all(abs(gradient - summed_to(terms, x.shape)) <= summed_to(allowed, x.shape))


# ---- values and gradients ----


@pairwise(
    isa=kldiv_fast.available_isas(),
    name=list(BY_NAME),
    forms=PAIRS,
    shape=[(1, 2), (7, 46), (40, 3), (3, 1500), (2, 3, 20)],
    dtype=[np.float32, np.float64],
)
def test_rows_of_the_others_alone(isa, rng, name, forms, shape, dtype):
    arrays, where = pair(rng, forms, shape, dtype), some(rng, shape)
    given = without(arrays, forms, where)
    keywords = {"form": forms, "where": where, "epsilon": None, "reduction": "none"}
    result = both(name, *given, **keywords)
    close(name, result, arrays, forms, where)
    assert same(functions(name)[0](*given, **keywords), result[0])


@pytest.mark.parametrize("epsilon", [1e-7, 1e-3, 0, None])
@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_not_there_is_not_clipped(isa, rng, name, epsilon):
    y_true, y_pred = pair(rng, ("probs", "probs"), (4, 9), np.float64)
    where = some(rng, (4, 9))
    rows = functions(name)[0](y_true, y_pred, where=where, epsilon=epsilon, reduction="none")
    kept = [
        functions(name)[0](t[w], p[w], epsilon=epsilon)
        for t, p, w in zip(y_true, y_pred, where, strict=True)
    ]
    np.testing.assert_allclose(rows, kept, rtol=1e-14)
    nothing = np.zeros((4, 9), bool)
    value, gradients = both(name, y_true, y_pred, where=nothing, epsilon=epsilon, reduction="none")
    assert np.all(value == 0)
    assert all(np.all(gradient == 0) for gradient in gradients)


@pairwise(
    forms=[("probs", "probs"), ("logits", "logits"), ("probs", "counts"), ("log_probs", "logits")],
    layout=LAYOUTS,
    of_where=[name for name in LAYOUTS if name not in ("foreign", "misaligned")],
    axis=[-1, 0, (0, 2), (0, 1, 2)],
)
def test_layouts(rng, forms, layout, of_where, axis):
    shape, axes = (3, 5, 17), tuple(a % 3 for a in np.atleast_1d(axis))
    arrays, where = pair(rng, forms, shape), some(rng, shape)
    where[0] = True  # one of each row, along any axes
    upstream = np.float32(rng.random(np.delete(shape, axes)))
    keywords = {"form": forms, "axis": axis, "epsilon": None, "reduction": "none"}
    given = [layout(x) for x in without(arrays, forms, where)]
    value, gradients = both(
        "jsd", *given, where=LAYOUTS[of_where](where), upstream=upstream, **keywords
    )

    def by_rows(x):
        batch = [i for i in range(3) if i not in axes]
        return x.transpose(*batch, *axes).reshape(-1, int(np.prod([shape[i] for i in axes])))

    result = value.reshape(-1), [by_rows(gradient) for gradient in gradients]
    factor = upstream.reshape(-1, 1)
    close("jsd", result, [by_rows(x) for x in arrays], forms, by_rows(where), factor)


@pytest.mark.parametrize("of_where", [(1, 1), (1, 7), (5, 1), (7,), (5, 7)], ids=str)
@pytest.mark.parametrize(("a", "b"), [((5, 7), (5, 7)), ((1, 7), (5, 7)), ((5, 7), (7,))], ids=str)
@pytest.mark.parametrize("forms", [("probs", "probs"), ("counts", "logits")], ids="-".join)
def test_broadcasting(isa, rng, a, b, of_where, forms):
    (y_true, _), (_, y_pred) = pair(rng, forms, a), pair(rng, forms, b)
    where = rng.random(of_where) < 0.7
    where[..., 0] = True
    keywords = {"form": forms, "epsilon": None, "where": where, "reduction": "none"}
    result = both("kl", y_true, y_pred, **keywords)
    close("kl", result, (y_true, y_pred), forms, where)


@each(
    dtype=[np.float16, ml_dtypes.bfloat16, ">f8", np.int32, np.uint8],
    forms=[("counts", "counts"), ("probs", "counts"), ("counts", "probs")],
    isa=kldiv_fast.available_isas(),
)
def test_dtypes(isa, rng, dtype, forms):
    arrays = [(1 + 60 * rng.random((6, 30))).astype(dtype) for _ in range(2)]
    where = some(rng, (6, 30))
    keywords = {"form": forms, "epsilon": None, "where": where, "reduction": "none"}
    close("generalized_kl", both("generalized_kl", *arrays, **keywords), arrays, forms, where)


@pairwise(
    forms=[("probs", "probs"), ("logits", "logits"), ("counts", "log_probs")],
    shape=[(1, 300_000), (3000, 40), (2, 70_000), (64, 3, 100)],
    axis=[-1, 0],
)
def test_bits_for_any_number_of_threads_and_any_isa(rng, forms, shape, axis):
    arrays, where = pair(rng, forms, shape), some(rng, shape)

    def results():
        keywords = {"form": forms, "axis": axis, "where": where, "reduction": "none"}
        found = [both("kl", *arrays, num_threads=n, **keywords) for n in (1, 2, 5)]
        return [(value, *gradients) for value, gradients in found]

    found = [one for isa, each in on_each_isa(results).items() if isa != "baseline" for one in each]
    for other in found[1:]:
        assert all(same(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("forms", [("probs", "probs"), ("logits", "counts")], ids="-".join)
def test_beside_weights_masks_and_out(isa, rng, forms):
    arrays, where = pair(rng, forms, (4, 3, 6)), some(rng, (4, 3, 6))
    weight, mask = rng.random((4, 3)), rng.random((4, 3)) < 0.6
    keywords = {"form": forms, "where": where, "sample_weight": weight, "mask": mask}
    rows = kldiv_fast.kl(*arrays, form=forms, where=where, reduction="none").astype(np.float64)
    out = np.empty((4, 3), np.float32)
    kldiv_fast.kl(*arrays, reduction="none", out=out, **keywords)
    np.testing.assert_allclose(out, np.where(mask, rows * weight, 0), rtol=1e-6)
    mean = np.where(mask, rows * weight, 0).sum() / mask.sum()
    np.testing.assert_allclose(kldiv_fast.kl(*arrays, **keywords), mean, rtol=1e-6)
    # Weights that repeat the rows, and a rank that Keras would make equal.
    repeated = rng.random((2, 4, 3))
    total = kldiv_fast.kl(*arrays, form=forms, where=where, sample_weight=repeated, reduction="sum")
    np.testing.assert_allclose(total, (rows * repeated).sum(), rtol=1e-6)
    (t, p), w = (x[:, :1] for x in arrays), where[:, :1]
    value = kldiv_fast.kl(t, p, form=forms, where=w, sample_weight=weight[:, 0], reduction="none")
    np.testing.assert_allclose(value.ravel(), rows[:, 0] * weight[:, 0], rtol=1e-6)


def test_python_and_c_are_one(rng):
    """A list in place of an array goes through Python."""
    y_true, y_pred = rng.random((2, 5, 7))
    where = some(rng, (5, 7))
    for keywords in (
        {},
        {"axis": 0},
        {"reduction": "none"},
        {"form": "counts", "pseudocount": 0.5},
    ):
        value = kldiv_fast.kl(y_true, y_pred, where=where, **keywords)
        assert same(value, kldiv_fast.kl(y_true, y_pred, where=where.tolist(), **keywords))


# ---- labels ----


@pytest.mark.parametrize("form", FORMS)
def test_labels(isa, rng, form):
    _, y_pred = pair(rng, ("probs", form), (6, 5))
    where, labels = some(rng, (6, 5)), np.zeros(6, int)
    labels[2], where[2, 3] = 3, True
    keywords = {"form": ("labels", form), "reduction": "none", "where": where}
    rows = kldiv_fast.kl(labels, y_pred, **keywords)
    kept = [
        kldiv_fast.kl([w[:label].sum()], p[w][np.newaxis], form=("labels", form))
        for label, p, w in zip(labels, y_pred, where, strict=True)
    ]
    np.testing.assert_allclose(rows, kept, rtol=1e-6)
    where[2, 3] = False
    with pytest.raises(ValueError, match=r"y_true has in row 2 a label whose class where leaves"):
        kldiv_fast.kl(labels, y_pred, **keywords)
    mask = np.arange(6) != 2
    assert np.isfinite(kldiv_fast.kl(labels, y_pred, mask=mask, **keywords)).all()
    with pytest.raises(ValueError, match="label_smoothing is given with where"):
        kldiv_fast.kl(labels, y_pred, label_smoothing=0.1, **keywords)


def test_labels_of_more_rows_than_y_pred(rng):
    _, y_pred = pair(rng, ("probs", "probs"), (1, 3))
    labels, form = np.array([0, 1, 2, 0, 1]), ("labels", "probs")
    rows = kldiv_fast.kl(labels, y_pred, form=form, reduction="none")
    for shape in ((3,), (5, 3), (5, 1)):
        where = np.ones(shape, bool)
        assert same(kldiv_fast.kl(labels, y_pred, form=form, where=where, reduction="none"), rows)
    where = np.ones((5, 3), bool)
    where[4, 1] = False
    with pytest.raises(
        ValueError, match="y_true has in row 4 a label whose class where leaves out"
    ):
        kldiv_fast.kl(labels, y_pred, form=form, where=where)


def test_adapters_refuse_labels_that_are_left_out():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    import kldiv_fast.jax
    import kldiv_fast.torch

    logits, labels = np.float32([[1, 2, 3], [3, 1, 0]]), np.array([0, 1])
    where = np.array([[False, True, True], [True, True, True]])
    keywords = {"form": ("labels", "logits"), "reduction": "none"}
    x = torch.tensor(logits, requires_grad=True)
    for function, *given in (
        (kldiv_fast.kl, labels, logits, where),
        (kldiv_fast.torch.kl, torch.tensor(labels), x, torch.tensor(where)),
        (kldiv_fast.jax.kl, labels, logits, where),
    ):
        with pytest.raises(
            ValueError, match="y_true has in row 0 a label whose class where leaves"
        ):
            function(*given[:2], where=given[2], **keywords)
    rows = jax.jit(lambda w: kldiv_fast.jax.kl(labels, logits, where=w, **keywords))(where)
    assert np.isnan(rows).tolist() == [True, False]


# ---- what is refused ----

X = np.full((3, 4), 0.25)
BAD = {
    "more elements": (np.ones((2, 3, 4), bool), ValueError, r"where has shape \(2, 3, 4\); expected one that broadcasts to the inputs' \(3, 4\)"),
    "other elements": (np.ones((3,), bool), ValueError, r"where has shape \(3,\); expected"),
    "integers": (np.ones((3, 4), int), TypeError, "where is of dtype int64; expected bool"),
    "a word": ("all", TypeError, "where is of type str, which NumPy can't read|where is of dtype"),
}  # fmt: skip


@pytest.mark.parametrize(("where", "error", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", BY_NAME)
def test_bad_where(name, where, error, message):
    out, gradient = np.full(3, 7.0), np.full((3, 4), 7.0)
    for function, keywords in zip(
        functions(name), ({"out": out}, {"out": (out, gradient)}), strict=True
    ):
        with pytest.raises(error, match=message):
            function(X, X, where=where, reduction="none", **keywords)
    assert np.all(out == 7)
    assert np.all(gradient == 7)


@pytest.mark.parametrize("forms", [("probs", "probs"), ("logits", "counts")], ids="-".join)
def test_a_mask_of_classes_is_told_of_where(rng, forms):
    y_true, y_pred = pair(rng, forms, (2, 5), np.float64)
    with pytest.raises(
        ValueError, match=r"a mask leaves out rows. Classes are left out by where=keep"
    ):
        kldiv_fast.kl(y_true, y_pred, form=forms, mask=some(rng, (2, 5)))


# ---- the adapters ----

some_forms = pytest.mark.parametrize(
    "forms", [("probs", "probs"), ("logits", "logits"), ("counts", "log_probs")], ids="-".join
)


@some_forms
def test_torch(rng, forms):
    torch = pytest.importorskip("torch")
    import kldiv_fast.torch

    arrays, where = pair(rng, forms, (6, 5)), some(rng, (6, 5))
    given = without(arrays, forms, where)
    keywords = {"form": forms, **({"pseudocount": 0.25} if "counts" in forms else {})}
    value, gradients = both("kl", *given, where=where, **keywords)
    tensors = [torch.tensor(x, requires_grad=True) for x in given]
    there = torch.tensor(where)
    for wraps in (lambda f: f, lambda f: torch.compile(f, backend="eager", fullgraph=True)):
        for x in tensors:
            x.grad = None
        f = wraps(lambda t, p: kldiv_fast.torch.kl(t, p, where=there, **keywords))
        ours = f(*tensors)
        ours.backward()
        np.testing.assert_allclose(ours.detach().numpy(), value, rtol=2e-6)
        for x, gradient in zip(tensors, gradients, strict=True):
            np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="where has shape"):
        kldiv_fast.torch.kl(*tensors, where=torch.ones(6, dtype=torch.bool), **keywords)


@some_forms
def test_jax(rng, forms):
    jax = pytest.importorskip("jax")
    import kldiv_fast.jax

    arrays, where = pair(rng, forms, (6, 5)), some(rng, (6, 5))
    given = without(arrays, forms, where)
    keywords = {"form": forms, **({"pseudocount": 0.25} if "counts" in forms else {})}
    value, gradients = both("kl", *given, where=where, **keywords)

    def f(t, p):
        return kldiv_fast.jax.kl(t, p, where=where, **keywords)

    for function in (jax.value_and_grad(f, (0, 1)), jax.jit(jax.value_and_grad(f, (0, 1)))):
        ours, found = function(*given)
        np.testing.assert_allclose(ours, value, rtol=2e-6)
        for one, gradient in zip(found, gradients, strict=True):
            np.testing.assert_allclose(one, gradient, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="where has shape"):
        kldiv_fast.jax.kl(*arrays, where=np.ones(6, bool), form=forms)
