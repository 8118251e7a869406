"""Labels in PyTorch's and JAX's functions, beside NumPy's."""

import kldiv_fast
import numpy as np
import pytest
from pairwise import each
from test_forms import BY_NAME, FORMS, functions, numbers

KEYWORDS = {
    "alone": {},
    "ignored": {"ignore_class": -1},
    "smoothed": {"label_smoothing": 0.1, "ignore_class": 3},
    "masked": {"mask": np.arange(6) % 3 != 0, "reduction": "none"},
    "weighed": {"sample_weight": np.arange(6.0), "base": 2, "temperature": 1},
}


def given(rng, form, keywords, dtype=np.float32):
    labels = rng.integers(0, 5, 6)
    if keywords.get("ignore_class") == -1:
        labels[2] = -1
    return labels, numbers(rng, form, (6, 5), dtype), {"form": ("labels", form), **keywords}


def allclose(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=3e-6, atol=1e-6)


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    import kldiv_fast.torch  # noqa: F401

    torch.compiler.reset()  # it compiles a function for so many arguments alone
    return torch


@each(name=[name for name in BY_NAME if name != "jeffreys"], form=FORMS, keywords=KEYWORDS)
def test_torch(torch, rng, name, form, keywords):
    """In eager code, and as what the compiler sees, which is made of one-hot rows."""
    labels, y_pred, keywords = given(rng, form, keywords)
    value, gradient = functions(name)[1](labels, y_pred, **keywords)
    divergence = getattr(kldiv_fast.torch, name)
    tensors = {k: torch.from_numpy(x) for k, x in keywords.items() if isinstance(x, np.ndarray)}

    def step(t, p):
        return divergence(t, p, **keywords | tensors)

    for function in (step, torch.compile(step, backend="eager", fullgraph=True)):
        x = torch.tensor(y_pred, requires_grad=True)
        ours = function(torch.from_numpy(labels), x)
        allclose(ours.detach().numpy(), value)
        ours.sum().backward()
        allclose(x.grad.numpy(), gradient)


def test_torch_labels_that_are_none(torch, rng):
    labels, y_pred, keywords = given(rng, "logits", {})
    labels[4] = 5
    for reduction in ("mean", "none"):
        with pytest.raises(ValueError, match=r"y_true has the label 5 in row 4; expected one in"):
            kldiv_fast.torch.kl(
                torch.from_numpy(labels),
                torch.tensor(y_pred, requires_grad=True),
                reduction=reduction,
                **keywords,
            )
    with pytest.raises(TypeError, match=r"y_true is of dtype torch.float32; expected integers"):
        kldiv_fast.torch.kl(
            torch.ones(6), torch.tensor(y_pred, requires_grad=True), reduction="none", **keywords
        )


def test_torch_is_cross_entropy(torch, rng):
    labels, logits = torch.from_numpy(rng.integers(0, 7, (4, 3))), torch.randn(4, 7, 3)
    ours = kldiv_fast.torch.kl(labels, logits, form=("labels", "logits"), axis=1)
    allclose(ours, torch.nn.functional.cross_entropy(logits, labels))


def test_several_class_axes(torch, jax, rng):
    """Numbered as in NumPy's functions, whether they are read in place or made one-hot rows."""
    y_pred, labels = numbers(rng, "logits", (3, 4, 5)), rng.integers(0, 15, 4)
    keywords = {"form": ("labels", "logits"), "axis": (0, 2)}
    expected = kldiv_fast.kl(labels, y_pred, reduction="none", **keywords)
    for values in (
        kldiv_fast.torch.kl(
            torch.from_numpy(labels), torch.from_numpy(y_pred), reduction="none", **keywords
        ),
        torch.compile(kldiv_fast.torch.kl, backend="eager")(
            torch.from_numpy(labels), torch.from_numpy(y_pred), reduction="none", **keywords
        ),
        kldiv_fast.jax.kl(labels, y_pred, reduction="none", **keywords),
        jax.jit(lambda t, p: kldiv_fast.jax.kl(t, p, reduction="none", **keywords))(labels, y_pred),
    ):
        allclose(np.asarray(values), expected)


def test_torch_s_gradcheck(torch, rng):
    labels, logits = torch.tensor([1, 0, 4]), torch.randn(3, 5, dtype=torch.float64)
    labels_kl = lambda x: kldiv_fast.torch.kl(labels, x, form=("labels", "logits"))
    assert torch.autograd.gradcheck(labels_kl, logits.requires_grad_())
    assert torch.autograd.gradgradcheck(labels_kl, logits)


@pytest.fixture
def jax():
    jax = pytest.importorskip("jax")
    import kldiv_fast.jax  # noqa: F401

    return jax


@each(name=["kl", "jsd"], form=FORMS, keywords=KEYWORDS)
def test_jax(jax, rng, name, form, keywords):
    labels, y_pred, keywords = given(rng, form, keywords)
    value, gradient = functions(name)[1](labels, y_pred, **keywords)
    divergence = getattr(kldiv_fast.jax, name)

    def total(p, t):
        rows = divergence(t, p, **keywords)
        return rows.sum(), rows

    for function in (jax.value_and_grad(total, has_aux=True), jax.jit(jax.value_and_grad(total, has_aux=True))):  # fmt: skip
        (_, ours), by_pred = function(y_pred, labels)
        allclose(ours, value)
        allclose(by_pred, gradient)


def test_jax_labels_that_are_none(jax, rng):
    labels, y_pred, keywords = given(rng, "logits", {"reduction": "none"})
    labels[4] = 5
    with pytest.raises(ValueError, match=r"y_true has the label 5 in row 4; expected one in"):
        kldiv_fast.jax.kl(labels, y_pred, **keywords)
    rows = jax.jit(lambda t, p: kldiv_fast.jax.kl(t, p, **keywords))(labels, y_pred)
    assert np.isnan(rows).tolist() == [False] * 4 + [True, False]
    with pytest.raises(TypeError, match=r"y_true is of dtype float64; expected integers"):
        kldiv_fast.jax.kl(np.ones(6), y_pred, **keywords)


def test_jax_vmap(jax, rng):
    labels, logits = rng.integers(0, 7, (4, 3)), np.float32(rng.normal(size=(4, 3, 7)))
    each = jax.vmap(lambda t, p: kldiv_fast.jax.kl(t, p, form=("labels", "logits")))
    rows = kldiv_fast.kl(labels, logits, form=("labels", "logits"), reduction="none")
    allclose(each(labels, logits), rows.mean(axis=1))


@pytest.mark.parametrize(
    "keywords", [{"ignore_class": 3}, {"label_smoothing": 0.1}, {"pseudocount": 1}], ids=str
)
def test_what_is_of_another_form_is_refused(torch, jax, keywords):
    x = torch.tensor([[0.5, 0.5]], requires_grad=True)
    for function, given in ((kldiv_fast.torch.kl, x), (kldiv_fast.jax.kl, x.detach().numpy())):
        with pytest.raises(ValueError, match=f"{next(iter(keywords))} is .*, which is for"):
            function(given, given, reduction="none", **keywords)
