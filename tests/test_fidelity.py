"""Language models beside each other: every line of the report against NumPy in float64, files, the command, the example."""

import json
import math
import os
import re
import runpy
import signal
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast import _cli, _core
from kldiv_fast.fidelity import Fidelity, TopK, fidelity, open_logits, write_llama_logits
from kldiv_fast.fidelity._report import FIGURES, table_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "fidelity.py"
BOUND = 8 / 65535 + 2**-19  # half of a step, and what the row's two float32 are rounded by

# ---- the report again, as it is usually written, in float64 ----


def log_softmax(x):
    x = np.asarray(x, dtype=np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def decoded(words, vocabulary):
    """Log-probabilities of llama.cpp's rows, and whether they are of code 0."""
    scale, least = np.ascontiguousarray(words[:, :4]).view("<f4").T
    codes = words[:, 4 : 4 + vocabulary]
    return (scale[:, None] * codes + least[:, None]).astype(np.float64), codes == 0


def usual_rows(log_p, log_q, targets, *, of_llama=False):
    """What is told of each row. Divergences as sums of terms that don't cancel, which float64 has all digits of."""
    p, q, x = np.exp(log_p), np.exp(log_q), log_p - log_q
    rows = np.arange(len(p))
    with np.errstate(invalid="ignore"):
        m = np.log((p + q) / 2)
        forward = np.where(log_p > -16, p * x, 0) if of_llama else p * (np.expm1(-x) + x)
        top = [np.argsort(-y, axis=1, kind="stable") for y in (log_p, log_q)]
    shared = [len(set(a) & set(b)) for a, b in zip(top[0][:, :5], top[1][:, :5], strict=True)]
    return {
        "kld": forward.sum(axis=1),
        "kld_reverse": (q * (np.expm1(x) - x)).sum(axis=1),
        "jsd": (p * (log_p - m) + q * (log_q - m)).sum(axis=1) / 2,
        "log_p_base": log_p[rows, targets],
        "log_p": log_q[rows, targets],
        "top_base": top[0][:, 0],
        "top": top[1][:, 0],
        "top_p_base": p.max(axis=1),
        "shared_top5": np.array(shared),
    }


def usual_report(rows, chunk):
    """Every figure, by its name in to_dict."""
    n = len(rows["kld"])
    nll, nll_b = -rows["log_p"], -rows["log_p_base"]

    def se(x):
        return math.sqrt(max(0, (x**2).mean() - x.mean() ** 2) / (n - 1))

    def se_chunks(x):
        sums = (x - x.mean()).reshape(-1, chunk).sum(axis=1)
        return math.sqrt((sums**2).sum()) / n * math.sqrt(len(sums) / (len(sums) - 1))

    def both(x):
        return {"value": x.mean(), "se": se(x), "se_chunks": se_chunks(x)}

    covariance = ((nll * nll_b).mean() - nll.mean() * nll_b.mean()) / (n - 1)
    ppl, ppl_b = math.exp(nll.mean()), math.exp(nll_b.mean())
    ln_ratio, u = nll.mean() - nll_b.mean(), (ppl * se(nll), ppl_b * se(nll_b))
    # Also sqrt(u^2 + v^2 - 2 cov), which has no digits where models nearly agree: test_standard_errors_of_differences.
    se_ratio, se_difference = se(nll - nll_b), se(ppl * nll - ppl_b * nll_b)
    delta = np.exp(-nll) - np.exp(-nll_b)
    rms = math.sqrt((delta**2).mean())
    same = (rows["top_base"] == rows["top"]).astype(float)
    parts = (1, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0)
    edges = (0, 0.25, 0.5, 0.75, 0.95, 1.0000001)
    place = np.digitize(rows["top_p_base"], edges) - 1
    return {
        "tokens": n,
        "ppl": {"value": ppl, "se": u[0]},
        "ppl_base": {"value": ppl_b, "se": u[1]},
        "correlation": covariance / (se(nll) * se(nll_b)),
        "ln_ppl_ratio": {"value": ln_ratio, "se": se_ratio, "se_chunks": se_chunks(nll - nll_b)},
        "ppl_ratio": {"value": math.exp(ln_ratio), "se": math.exp(ln_ratio) * se_ratio},
        "ppl_difference": {"value": ppl - ppl_b, "se": se_difference},
        "kld": both(rows["kld"]),
        "kld_reverse": both(rows["kld_reverse"]),
        "jsd": both(rows["jsd"]),
        "kld_quantiles": {f"{f:g}": np.quantile(rows["kld"], f) for f in parts if f not in (0.75, 0.25)},
        "delta_p": both(delta),
        "delta_p_quantiles": {f"{f:g}": np.quantile(delta, f) for f in parts},
        "rms_delta_p": {"value": rms, "se": se(delta**2) / (2 * rms)},
        "same_top": {
            "value": same.mean(),
            "se": math.sqrt(same.mean() * (1 - same.mean()) / (n - 1)),
            "se_chunks": se_chunks(same),
        },
        "top5_overlap": both(rows["shared_top5"] / 5),
        "buckets": [
            {"tokens": int((place == i).sum()), "kld": rows["kld"][place == i].mean(), "same_top": same[place == i].mean()}
            for i in range(5)
            if (place == i).any()
        ],
    }  # fmt: skip


def assert_alike(found, wanted, rtol, atol=1e-12, where=""):
    """All that `wanted` has, `found` has too."""
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            assert_alike(found[name], value, rtol, atol, f"{where}.{name}")
    elif isinstance(wanted, list):
        for one, value in zip([x for x in found if x["tokens"]], wanted, strict=True):
            assert_alike(one, value, rtol, atol, where)
    else:
        np.testing.assert_allclose(found, wanted, rtol, atol, err_msg=where)


def assert_figures(found, wanted, rtol):
    """A log-probability has the error of its row's normaliser, which near 0 is not small beside it."""
    for name in FIGURES:
        atol = 3e-7 if name.startswith("log_p") else 1e-9
        np.testing.assert_allclose(found[name], wanted[name], rtol, atol, err_msg=name)


# ---- models ----


def models(rng, shape, perturbed=0.1, dtype=np.float32):
    """Logits of two models, the second one the first perturbed, or (None) another; and tokens that the first finds likely."""
    base = (rng.standard_normal(shape, np.float32) * 3).astype(dtype)
    other = rng.standard_normal(shape, np.float32)
    other = (other * 3 if perturbed is None else base + np.float32(perturbed) * other).astype(dtype)
    noisy = base.astype(np.float32) + rng.gumbel(size=shape).astype(np.float32)
    return base, other, noisy.argmax(axis=-1)


SIZES = [
    (64, 1000, np.float32),
    (64, 1001, np.float16),
    pytest.param(200, 32_000, np.float32, marks=pytest.mark.long),
    pytest.param(200, 32_000, np.float16, marks=pytest.mark.long),
    pytest.param(40, 151_936, np.float16, marks=pytest.mark.long),
    pytest.param(40, 151_936, np.float32, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("rows", "classes", "dtype"), SIZES)
@pytest.mark.parametrize("perturbed", [None, 1.0, 1e-1, 1e-2, 1e-3, 1e-4])
def test_every_figure(rng, rows, classes, dtype, perturbed):
    base, other, tokens = models(rng, (4, rows // 4, classes), perturbed, dtype)
    report = fidelity(base, other, tokens=tokens)
    flat = [log_softmax(x.reshape(-1, classes)) for x in (base, other)]
    wanted = usual_rows(*flat, tokens.ravel())
    for name in ("kld", "kld_reverse"):
        np.testing.assert_allclose(report.figures[name], wanted[name], rtol=2e-5, atol=1e-16)
    np.testing.assert_allclose(report.figures["kld"].mean(), wanted["kld"].mean(), rtol=2e-6)
    for name in ("top_base", "top", "shared_top5"):
        np.testing.assert_array_equal(report.figures[name], wanted[name])
    # The usual jsd, and what is made of differences of log-probabilities, has float64's noise.
    assert_alike(report.to_dict(), usual_report(wanted, rows // 4), rtol=2e-4, atol=2e-6)


def test_all_isas_agree(rng, isa):
    base, other, tokens = models(rng, (10, 3001), 0.5)
    found = fidelity(base, other, tokens=tokens).figures
    with np.errstate(all="ignore"):
        wanted = usual_rows(log_softmax(base), log_softmax(other), tokens)
    assert_figures(found, wanted, rtol=2e-6)


def test_same_bits_for_any_number_of_threads(rng):
    base, other, tokens = models(rng, (300, 2000))
    found = [fidelity(base, other, tokens=tokens, num_threads=n).figures for n in (1, 2)]
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1100])
def test_short_rows(rng, classes):
    base, other, tokens = models(rng, (7, classes), 2.0)
    found = fidelity(base, other, tokens=tokens).figures
    wanted = usual_rows(log_softmax(base), log_softmax(other), tokens)
    assert_figures(found, wanted, rtol=5e-6)


def test_bfloat16_and_float64(rng):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    base, other, _ = models(rng, (6, 700))
    for dtype in (ml_dtypes.bfloat16, np.dtype(">f4"), np.dtype(">f2")):
        a, b = base.astype(dtype), other.astype(dtype)
        wanted = fidelity(a.astype(np.float32), b.astype(np.float32)).figures
        assert fidelity(a, b).figures.tobytes() == wanted.tobytes()
    a, b = (x.astype(np.float64) + 1e6 for x in (base, other))  # of which float32 has no digits
    wanted = usual_rows(log_softmax(a), log_softmax(b), np.zeros(6, int))
    np.testing.assert_allclose(fidelity(a, b).figures["kld"], wanted["kld"], rtol=2e-6)


@pytest.mark.parametrize("shift", [0.0, 3.75, -40.0])
def test_six_digits_where_models_nearly_agree(rng, shift):
    """Beside rounded log-softmaxes in float32, whose difference has none."""
    base, other, _ = models(rng, (20, 32_000), 1e-4)
    other = (other + np.float32(shift)).astype(np.float32)
    wanted = usual_rows(log_softmax(base), log_softmax(other), np.zeros(20, int))["kld"].mean()
    found = fidelity(base, other)
    assert found.kld.value == pytest.approx(wanted, rel=2e-6 if shift == 0 else 1e-4)
    assert found.kld_quantiles[0.0] >= 0
    logs = [x - np.float32(0) - np.log(np.exp(x).sum(axis=1, keepdims=True, dtype=np.float32)) for x in (base, other)]  # fmt: skip
    usual = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1, dtype=np.float32).mean()
    assert abs(usual / wanted - 1) > 0.1


@pytest.mark.parametrize(("apart", "error"), [(1e-4, 1e-3), (1e-6, 0.5)])
def test_digits_of_float64(rng, apart, error):
    """It is rounded to float32 first."""
    base = rng.standard_normal((20, 32_000)) * 3
    other = base + apart * rng.standard_normal(base.shape)
    wanted = usual_rows(log_softmax(base), log_softmax(other), np.zeros(20, int))["kld"].mean()
    assert fidelity(base, other).kld.value == pytest.approx(wanted, rel=error)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature(rng, temperature):
    base, other, tokens = models(rng, (5, 300), 1.0)
    found = fidelity(base, other, tokens=tokens, temperature=temperature).figures
    wanted = usual_rows(log_softmax(base / temperature), log_softmax(other / temperature), tokens)
    assert_figures(found, wanted, rtol=5e-6)


def test_rows_without_a_target(rng):
    """-1 and -100: no part of what is told of targets, and a part of all else."""
    base, other, tokens = models(rng, (6, 300))
    wanted = fidelity(base, other, tokens=tokens), fidelity(base[2:], other[2:], tokens=tokens[2:])
    tokens[:2] = -1, -100
    found = fidelity(base, other, tokens=tokens)
    assert found.kld == wanted[0].kld
    for name in ("ppl", "ppl_base", "delta_p", "rms_delta_p"):
        assert getattr(found, name) == getattr(wanted[1], name)


def test_padded_vocabulary(rng):
    base, other, tokens = models(rng, (5, 300))
    wanted = fidelity(base, other, tokens=tokens)
    padded = np.concatenate([other, np.full((5, 20), 50, np.float32)], axis=1)
    assert fidelity(base, padded, tokens=tokens, vocab_size=300).to_dict()["kld"] == wanted.to_dict()["kld"]  # fmt: skip
    with pytest.raises(ValueError, match=r"base has a vocabulary of 300, other of 320; expected the same, or vocab_size="):  # fmt: skip
        fidelity(base, padded)


def test_a_file_beside_itself(rng, tmp_path):
    base, _, tokens = models(rng, (3, 16, 500))
    write_llama_logits(tmp_path / "base", base, tokens, 16)
    for side in (base, base.astype(np.float16), str(tmp_path / "base")):
        report = fidelity(side, side, tokens=None if isinstance(side, str) else tokens)
        assert (report.kld.value, report.kld_reverse.value, report.jsd.value) == (0, 0, 0)
        assert (report.delta_p.value, report.rms_delta_p.value) == (0, 0)
        assert (report.same_top.value, report.top5_overlap.value) == (1, 1)
        assert not report.figures["kld"].any()


def test_the_running_mean(rng, monkeypatch):
    """As the report's: without the rows that have none, and of all windows."""
    import kldiv_fast.fidelity._run as run

    base, other, _ = models(rng, (40, 600))
    base[3, 5] = base[30, 7] = np.nan
    monkeypatch.setattr(run, "_MAPPED", 16 * 600 * 4)
    steps = []
    report = fidelity(base, other, progress=lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == [16, 32, 40]
    assert steps[-1][1:] == pytest.approx((report.kld.value, report.kld.se))
    assert steps[0][1] == pytest.approx(np.nanmean(report.figures["kld"][:16]))


# ---- what is not finite ----


def test_rows_without_a_value_are_counted(rng):
    base, other, tokens = models(rng, (8, 600))
    wanted = fidelity(base[4:], other[4:], tokens=tokens[4:])
    base[0, 3], other[1, 599], base[2], other[3, 7] = np.nan, np.nan, -np.inf, np.inf
    report = fidelity(base, other, tokens=tokens)
    assert (report.nan_rows, report.tokens) == (4, 4)
    assert report.kld == wanted.kld
    assert report.ppl.value == pytest.approx(wanted.ppl.value)
    assert "Left out: 4 rows" in str(report)


def test_no_probability(rng):
    base, other, tokens = models(rng, (3, 600), 1.0)
    base[0, 5:90] = other[0, 5:90] = -np.inf  # as if these were not there
    base[1, 7] = -np.inf
    other[2, 9] = -np.inf
    found = fidelity(base, other, tokens=tokens)
    kept = np.r_[0:5, 90:600]
    wanted = usual_rows(log_softmax(base[:1, kept]), log_softmax(other[:1, kept]), np.zeros(1, int))
    for name in ("kld", "kld_reverse", "jsd"):
        np.testing.assert_allclose(found.figures[name][0], wanted[name][0], rtol=2e-6)
    assert np.isfinite(found.figures["kld"]).tolist() == [True, True, False]
    assert np.isfinite(found.figures["kld_reverse"]).tolist() == [True, False, True]
    assert np.isfinite(found.figures["jsd"]).all()
    p, q = (np.exp(log_softmax(x[1])) for x in (base, other))
    np.testing.assert_allclose(
        found.figures["kld"][1],
        (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum(),
        rtol=2e-6,
    )
    assert found.infinite_rows == 1
    assert np.isinf(found.kld.value)
    assert np.isnan(found.kld.se)
    assert "Infinite: 1 rows" in str(found)


# ---- llama.cpp's file ----


@pytest.fixture
def llama(rng, tmp_path):
    """A base file of 5 chunks, the logits, tokens, and another model's logits at the scored rows."""
    base, other, tokens = models(rng, (5, 32, 801), 0.2)
    tokens = np.roll(tokens, 1, axis=1)  # what is read is what was to predict
    path = str(tmp_path / "base.kld")
    write_llama_logits(path, base, tokens, 32)
    return path, base[:, 16:31], tokens, other[:, 16:31]


def test_the_file_byte_by_byte(llama):
    path, base, tokens, _ = llama
    data = Path(path).read_bytes()
    assert struct.unpack_from("<8siii", data) == (b"_logits_", 32, 801, 5)
    assert len(data) == 20 + 4 * 32 * 5 + 2 * 806 * 15 * 5
    np.testing.assert_array_equal(np.frombuffer(data, "<i4", 160, 20), tokens.ravel())
    words = np.frombuffer(data, "<u2", offset=20 + 640).reshape(75, 806)
    z = base.reshape(75, 801)
    for row, x in zip(words, z, strict=True):
        scale, least = np.frombuffer(row[:4].tobytes(), "<f4")
        high, low = x.max(), max(x.min(), x.max() - np.float32(16))
        log_sum = np.log(np.exp((x - high).astype(float)).sum())
        assert least == np.float32(low - float(high) - log_sum)
        assert scale == np.float32((high - low) / np.float32(65535))
        above = x > low
        np.testing.assert_array_equal(row[4:805][above], np.rint((x[above] - low) / scale))
        assert not row[4:805][~above].any()
        assert row[4:805].max() == 65535
    log_p, is_floor = decoded(words, 801)
    exact = log_softmax(z)
    assert np.abs(log_p - exact)[~is_floor].max() <= BOUND
    assert (exact[is_floor] <= log_p[is_floor] + BOUND).all()


def test_rows_of_one_value_and_odd_vocabularies(tmp_path):
    logits = np.zeros((1, 4, 3), np.float32)
    write_llama_logits(tmp_path / "x", logits, [[0, 1, 2, 0]], 4)
    assert os.path.getsize(tmp_path / "x") == 20 + 16 + 2 * 8
    report = fidelity(tmp_path / "x", logits[:, 2:3])
    assert report.kld.value == pytest.approx(0, abs=1e-7)
    assert report.same_top.value == 1


def test_the_report_beside_llama_cpp(llama):
    path, _, tokens, other = llama
    words = np.fromfile(path, "<u2", offset=20 + 640).reshape(75, 806)
    log_p, is_floor = decoded(words, 801)
    log_q, targets = log_softmax(other.reshape(75, 801)), tokens[:, 17:].ravel()
    rows = usual_rows(log_p, log_q, targets, of_llama=True)
    report = fidelity(path, other)
    assert_alike(report.to_dict(), usual_report(rows, 15), rtol=2e-5, atol=2e-7)
    np.testing.assert_allclose(report.figures["kld"], rows["kld"], rtol=1e-5, atol=1e-7)
    assert report.base.targets_at_floor == is_floor[np.arange(75), targets].sum()
    assert report.base.codec_bound <= BOUND
    assert f"log-probabilities rounded by at most {report.base.codec_bound:.3g}" in str(report)
    assert fidelity(path, other, chunks=2).tokens == 30


@pytest.mark.parametrize("positions", [32, 31])
def test_whole_chunks_are_cut_to_what_llama_cpp_scores(llama, rng, tmp_path, positions):
    path, _, tokens, other = llama
    whole = rng.standard_normal((5, positions, 801), np.float32)
    whole[:, 16:31] = other
    np.save(tmp_path / "whole.npy", whole)

    class Slices:
        shape, dtype = whole.shape, whole.dtype

        def __getitem__(self, key):
            return whole[key]

    wanted = fidelity(path, other)
    for given in (whole, tmp_path / "whole.npy", Slices()):
        found = fidelity(path, given)
        assert found.figures.tobytes() == wanted.figures.tobytes()
        assert (found.chunks, found.kld) == (5, wanted.kld)
        assert "rows 16 to 30 of each chunk, 75 x 801" in str(found)
    assert fidelity(path, whole, chunks=2).tokens == 30
    assert fidelity(path, whole, tokens=tokens).figures.tobytes() == wanted.figures.tobytes()
    with pytest.raises(ValueError, match="tokens are not those of"):
        fidelity(path, whole, tokens=tokens[::-1])
    turned = fidelity(whole, path).figures
    assert turned.tobytes() == fidelity(other, path).figures.tobytes()
    message = "other 160; expected the same tokens in both, of which llama.cpp's file has 16 to 30 of each chunk: "
    with pytest.raises(ValueError, match=message):
        fidelity(path, np.zeros((160, 801), np.float32))


def test_standard_errors_of_differences(llama):
    """By llama.cpp's own formulas."""
    report = fidelity(llama[0], llama[3])
    nll, nll_b = -report.figures["log_p"], -report.figures["log_p_base"]
    n, both = len(nll), (nll.mean() * nll_b.mean(), (nll * nll_b).mean())
    covariance = (both[1] - both[0]) / (n - 1)
    se = [math.sqrt(((x**2).mean() - x.mean() ** 2) / (n - 1)) for x in (nll, nll_b)]
    ppl, ppl_b = math.exp(nll.mean()), math.exp(nll_b.mean())
    u = ppl * se[0], ppl_b * se[1]
    assert report.correlation == pytest.approx(covariance / (se[0] * se[1]))
    of_ratio = math.sqrt(se[0] ** 2 + se[1] ** 2 - 2 * covariance)
    assert report.ln_ppl_ratio.se == pytest.approx(of_ratio, rel=1e-6)
    of_difference = math.sqrt(u[0] ** 2 + u[1] ** 2 - 2 * ppl * ppl_b * covariance)
    assert report.ppl_difference.se == pytest.approx(of_difference, rel=1e-6)


def test_a_floor_of_24(llama):
    """ik_llama.cpp's: the same file but for a row's range."""
    path, base, tokens, other = llama
    z = base.reshape(75, 801).astype(np.float64) * 2
    words = np.zeros((75, 806), "<u2")
    for row, x in zip(words, z, strict=True):
        low = max(x.min(), x.max() - 24)
        scale = np.float32((x.max() - low) / 65535)
        row[:4] = np.array([scale, low - x.max() - np.log(np.exp(x - x.max()).sum())], "<f4").view("<u2")  # fmt: skip
        row[4:805] = np.rint((x.clip(min=low) - low) / scale).clip(max=65535)
    with open(path, "r+b") as file:
        file.seek(20 + 640)
        file.write(words.tobytes())
    rows = usual_rows(decoded(words, 801)[0], log_softmax(other.reshape(75, 801)), tokens[:, 17:].ravel(), of_llama=True)  # fmt: skip
    report = fidelity(path, other)
    np.testing.assert_allclose(report.figures["kld"], rows["kld"], rtol=1e-5)
    assert report.base.codec_bound > BOUND


def test_rows_of_codes_that_are_no_numbers(llama):
    """NaN and infinity in a row's scale or least are left out and counted; a scale below 0 is no such file's."""
    path, *_, other = llama
    wanted = fidelity(path, other)

    def write(row, at, value):
        with open(path, "r+b") as file:
            file.seek(20 + 640 + 2 * 806 * row + at)
            file.write(struct.pack("<f", value))

    for row, (at, value) in enumerate([(0, np.nan), (4, np.nan), (0, np.inf), (4, np.inf)]):
        write(row, at, value)
    found = fidelity(path, other)
    assert (found.nan_rows, found.tokens) == (4, 71)
    assert found.figures[4:].tobytes() == wanted.figures[4:].tobytes()
    assert found.kld.value == pytest.approx(wanted.figures["kld"][4:].mean())
    assert found.base.codec_bound == pytest.approx(wanted.base.codec_bound, rel=0.5)
    write(7, 0, -1.0)
    with pytest.raises(ValueError, match="whose scale is below 0; it is damaged"):
        fidelity(path, other)


def test_targets_at_the_floor_are_told(rng, tmp_path):
    base = np.zeros((1, 8, 50), np.float32)
    base[..., 0] = 40  # all others are at the floor
    for tokens, line in [
        (np.zeros((1, 8), int), r"  0 targets at or below the floor \(code 0\)"),
        (
            np.arange(8)[None],
            r"  3 targets at or below the floor \(code 0\): PPL\(base\) is too low",
        ),
    ]:
        write_llama_logits(tmp_path / "b", base, tokens, 8)
        report = fidelity(tmp_path / "b", rng.standard_normal((1, 8, 50), np.float32))
        assert re.search(f"^{line}$", str(report), re.MULTILINE)


def test_codes_on_the_other_side(llama):
    path, _, tokens, other = llama
    report = fidelity(other, path, tokens=tokens[:, 17:])
    assert (report.figures["kld"] >= 0).all()
    assert "KLD is a lower bound" in str(report)
    assert report.other.targets_at_floor is not None


# ---- the layout, as people parse it ----

NUMBER = r"\s*(-?\d+\.\d+)"
PARSERS = [
    (rf"Mean PPL\(Q\)\s+:{NUMBER} ±{NUMBER}", "ppl", 1),
    (rf"Mean PPL\(base\)\s+:{NUMBER} ±{NUMBER}", "ppl_base", 1),
    (rf"Mean ln\(PPL\(Q\)/PPL\(base\)\)\s+:{NUMBER} ±{NUMBER}", "ln_ppl_ratio", 1),
    (rf"Mean PPL\(Q\)/PPL\(base\)\s+:{NUMBER} ±{NUMBER}", "ppl_ratio", 1),
    (rf"Mean PPL\(Q\)-PPL\(base\)\s+:{NUMBER} ±{NUMBER}", "ppl_difference", 1),
    (rf"Mean\s+KLD:{NUMBER} ±{NUMBER}", "kld", 1),
    (rf"Mean\s+Δp:{NUMBER} ±{NUMBER} %", "delta_p", 100),
    (rf"RMS Δp\s+:{NUMBER} ±{NUMBER} %", "rms_delta_p", 100),
    (rf"Same top p:{NUMBER} ±{NUMBER} %", "same_top", 100),
    (rf"Cor\(ln\(PPL\(Q\)\), ln\(PPL\(base\)\)\):{NUMBER}%", "correlation", 100),
    (rf"99\.9%\s+KLD:{NUMBER}", "kld_quantiles", 1),
    (rf"99\.9%\s+Δp:{NUMBER}%", "delta_p_quantiles", 100),
]


@pytest.mark.parametrize(("pattern", "name", "unit"), PARSERS)
def test_lines_as_people_parse_them(llama, pattern, name, unit):
    report = fidelity(llama[0], llama[3])
    numbers = list(map(float, re.search(f"^{pattern}$", str(report), re.MULTILINE).groups()))
    found = getattr(report, name)
    if isinstance(found, dict):
        found = found[0.999]
    wanted = [found] if isinstance(found, float) else [found.value, found.se]
    digits = {"correlation": 5.1e-3}.get(name, 5.1e-7 if unit == 1 else 5.1e-4)
    assert numbers == pytest.approx([unit * x for x in wanted], rel=0, abs=digits)


LAYOUT = """\
====== Perplexity statistics ======
Mean PPL(Q)                   : %10.6f ± %10.6f
Mean PPL(base)                : %10.6f ± %10.6f
Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%
Mean ln(PPL(Q)/PPL(base))     : %10.6f ± %10.6f
Mean PPL(Q)/PPL(base)         : %10.6f ± %10.6f
Mean PPL(Q)-PPL(base)         : %10.6f ± %10.6f

====== KL divergence statistics ======
Mean    KLD: %10.6f ± %10.6f
Maximum KLD: %10.6f
99.9%%   KLD: %10.6f
99.0%%   KLD: %10.6f
95.0%%   KLD: %10.6f
90.0%%   KLD: %10.6f
Median  KLD: %10.6f
10.0%%   KLD: %10.6f
 5.0%%   KLD: %10.6f
 1.0%%   KLD: %10.6f
 0.1%%   KLD: %10.6f
Minimum KLD: %10.6f

====== Token probability statistics ======
Mean    Δp: %6.3f ± %5.3f %%
Maximum Δp: %6.3f%%
99.9%%   Δp: %6.3f%%
99.0%%   Δp: %6.3f%%
95.0%%   Δp: %6.3f%%
90.0%%   Δp: %6.3f%%
75.0%%   Δp: %6.3f%%
Median  Δp: %6.3f%%
25.0%%   Δp: %6.3f%%
10.0%%   Δp: %6.3f%%
 5.0%%   Δp: %6.3f%%
 1.0%%   Δp: %6.3f%%
 0.1%%   Δp: %6.3f%%
Minimum Δp: %6.3f%%
RMS Δp    : %6.3f ± %5.3f %%
Same top p: %6.3f ± %5.3f %%

====== Beyond llama.cpp ======
"""  # as its sources print them


def test_the_layout_to_the_letter(llama):
    report = fidelity(llama[0], llama[3])

    def pair(name, unit=1):
        found = getattr(report, name)
        return unit * found.value, unit * found.se

    wanted = LAYOUT % (
        *pair("ppl"),
        *pair("ppl_base"),
        100 * report.correlation,
        *pair("ln_ppl_ratio"),
        *pair("ppl_ratio"),
        *pair("ppl_difference"),
        *pair("kld"),
        *report.kld_quantiles.values(),
        *pair("delta_p", 100),
        *(100 * x for x in report.delta_p_quantiles.values()),
        *pair("rms_delta_p", 100),
        *pair("same_top", 100),
    )
    assert str(report)[: len(wanted)] == wanted
    parts = [1, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0]
    assert list(report.delta_p_quantiles) == parts
    assert list(report.kld_quantiles) == [x for x in parts if x not in (0.75, 0.25)]


def test_published_arithmetic():
    """Same top 70.144 ± 0.252 % of 32,895 tokens; the divergences of two small distributions."""
    base = np.zeros((32_895, 2), np.float32)
    base[:, 0] = 1
    other = base.copy()
    other[round(0.70144 * 32_895) :] = [0, 1]
    assert re.search(r"^Same top p: 70\.14[34] ± 0\.252 %$", str(fidelity(base, other)), re.MULTILINE)  # fmt: skip
    t, s = np.log([[0.7, 0.2, 0.1]]), np.log([[0.2, 0.3, 0.5]])
    found = fidelity(t, s)
    assert found.kld.value == pytest.approx(0.634897265, rel=5e-7)
    assert found.kld_reverse.value == pytest.approx(0.675805895, rel=5e-7)
    assert found.jsd.value == pytest.approx(0.151358112, rel=5e-7)


# ---- teachers of whom k tokens are known ----

TAILS = [("truncate", 0.876934), ("bucket", 0.582685), ("renormalize", 0.0)]


@pytest.mark.parametrize(("tail", "wanted"), TAILS)
def test_one_token_of_a_teacher(tail, wanted):
    s = np.log([[0.2, 0.3, 0.5]])
    found = fidelity(TopK([[0]], np.log([[0.7]])), s, tail=tail)
    assert found.kld.value == pytest.approx(wanted, abs=1e-6)
    assert f"Top-k base: tail {tail}" in str(found)


def test_a_bucket_is_at_most_the_whole(rng):
    base, other, tokens = models(rng, (40, 500), 0.5)
    log_p = log_softmax(base)
    whole = fidelity(base, other, tokens=tokens)
    for k in (1, 20, 499, 500):
        indices = np.argsort(-log_p, axis=1)[:, :k]
        kept = np.take_along_axis(log_p, indices, axis=1)
        found = fidelity(TopK(indices, kept), other, tokens=tokens)
        assert (found.figures["kld"] >= 0).all()
        assert (found.figures["kld"] <= whole.figures["kld"] * (1 + 1e-5) + 1e-9).all()
        np.testing.assert_array_equal(found.figures["top"], whole.figures["top"])
        np.testing.assert_array_equal(found.figures["log_p"], whole.figures["log_p"])
    np.testing.assert_allclose(found.figures["kld"], whole.figures["kld"], rtol=1e-4)


def test_renormalized_at_a_temperature(rng):
    base, other, _ = models(rng, (6, 90), 1.0)
    log_p = log_softmax(base)
    indices = np.argsort(-log_p, axis=1)[:, :10]
    kept = [np.take_along_axis(x, indices, axis=1) for x in (log_p, other)]
    found = fidelity(TopK(indices, kept[0]), other, tail="renormalize", temperature=2.0)
    wanted = usual_rows(*(log_softmax(x / 2) for x in kept), np.zeros(6, int))["kld"]
    np.testing.assert_allclose(found.figures["kld"], wanted, rtol=1e-5)
    with pytest.raises(ValueError, match=r"temperature is 2\.0 with tail='bucket'; expected 1, or tail='renormalize'"):  # fmt: skip
        fidelity(TopK(indices, kept[0]), other, temperature=2.0)


def test_what_no_teacher_has(rng):
    other = rng.standard_normal((3, 90), np.float32)
    for indices, log_probs, message in [
        ([[1, 90]] * 3, np.full((3, 2), -1.0), "indices has 90; expected tokens in [0, 90)"),
        ([[1, 2], [7, 7], [3, 4]], np.full((3, 2), -1.0), "indices has a token twice in a row"),
        ([[1, 2]] * 3, [[-1.0, -2], [np.nan, 0], [2, 2]], "log_probs has a row of probabilities that add up to 14.8"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(message)):
            fidelity(TopK(indices, log_probs), other)
    found = fidelity(TopK([[1, 2]] * 3, [[-1.0, -2], [np.nan, 0], [-1, -1]]), other)
    assert (found.tokens, found.nan_rows) == (2, 1)


# ---- other containers ----


def test_containers(rng, tmp_path):
    base, other, tokens = models(rng, (3, 10, 400))
    wanted = fidelity(base, other, tokens=tokens).to_dict()
    np.save(tmp_path / "base.npy", base)
    np.save(tmp_path / "flat.npy", other.reshape(30, 400))
    np.save(tmp_path / "order.npy", np.asfortranarray(other))
    np.savez(tmp_path / "both.npz", other=other)
    base_path = str(tmp_path / "base.npy")

    class Slices:
        """As HDF5's and zarr's."""

        shape, dtype = other.shape, other.dtype

        def __getitem__(self, key):
            return other[key].copy()

    class TorchDtype:
        def __repr__(self):
            return "torch.float32"

    tensor = Slices()
    tensor.dtype = TorchDtype()
    for given in (
        tmp_path / "flat.npy",
        tmp_path / "order.npy",
        Slices(),
        tensor,
        other[:, ::-1][:, ::-1],
    ):
        found = fidelity(base_path, given, tokens=tokens).to_dict()
        assert found | {"base": 0, "other": 0} == wanted | {"base": 0, "other": 0}
        assert found["other"]["shape"] == (30, 400)
    with pytest.warns(UserWarning, match=r"is read as a whole: a \.npz file can't be mapped"):
        found = fidelity(base_path, f"{tmp_path}/both.npz:other", tokens=tokens).to_dict()
    assert found["kld"] == wanted["kld"]
    read = np.concatenate([np.zeros((3, 1), int), tokens], axis=1)  # what the model read
    assert fidelity(base_path, other, tokens=read).to_dict()["ppl"] == wanted["ppl"]


def test_hdf5_and_zarr(rng, tmp_path):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    base, other, tokens = models(rng, (3, 10, 400))
    wanted = fidelity(base, other, tokens=tokens)
    array = zarr.create_array(tmp_path / "z", shape=(3, 10, 400), chunks=(1, 4, 400), dtype="f4")
    array[:] = base
    with h5py.File(tmp_path / "h.h5", "w") as file:
        found = fidelity(array, file.create_dataset("logits", data=other), tokens=tokens)
    assert found.figures.tobytes() == wanted.figures.tobytes()


def test_safetensors_of_bfloat16(rng, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    st = pytest.importorskip("safetensors.numpy")
    base, other, _ = models(rng, (4, 7, 400), dtype=ml_dtypes.bfloat16)
    st.save_file({f"window{i}": x for i, x in enumerate(other)}, tmp_path / "x.safetensors")
    opened = open_logits(tmp_path / "x.safetensors")
    assert (opened.dtype, opened.shape) == ("bfloat16", (28, 400))
    wanted = fidelity(base.astype(np.float32), other.astype(np.float32))
    assert fidelity(base, opened).figures.tobytes() == wanted.figures.tobytes()


def test_safetensors(rng, tmp_path):
    st = pytest.importorskip("safetensors.numpy")
    base, other, tokens = models(rng, (12, 7, 400), dtype=np.float16)
    wanted = fidelity(base, other, tokens=tokens).to_dict()
    for i, window in enumerate(other):
        st.save_file(
            {"logits": window[None]}, tmp_path / f"row_{i}.safetensors"
        )  # 10 comes after 9
    one = tmp_path / "one" / "all.safetensors"
    one.parent.mkdir()
    st.save_file({f"window{i}": window for i, window in enumerate(other)}, one)
    for path in (tmp_path, one):
        found = fidelity(base, path, tokens=tokens).to_dict()
        assert found | {"base": 0, "other": 0} == wanted | {"base": 0, "other": 0}
    (tmp_path / "row_4.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks window 4 between row_0\.safetensors and row_11"):
        open_logits(tmp_path)
    for folder, name in (("first", "row_{}"), ("later", "row_1{}"), ("elsewhere", "q4_{}")):
        (tmp_path / folder).mkdir()
        for i in range(3):
            st.save_file({"logits": other[i]}, tmp_path / folder / f"{name.format(i)}.safetensors")
    assert fidelity(tmp_path / "first", tmp_path / "elsewhere").kld.value == 0
    with pytest.raises(ValueError, match=r"base has row_0\.safetensors where other has row_10\."):
        fidelity(tmp_path / "first", tmp_path / "later")
    top = {"indices": np.zeros((84, 1), np.int32), "logprobs": np.full((84, 1), -0.5, np.float32)}
    st.save_file(top, tmp_path / "top.safetensors")
    found = fidelity(tmp_path / "top.safetensors", other)
    assert found.kld == fidelity(TopK(top["indices"], top["logprobs"]), other).kld
    (tmp_path / "teacher").mkdir()
    for i in range(2):  # 42 rows each
        part = {name: x[:42] for name, x in top.items()} | {"tail_mass": np.full(42, 0.2 + 0.1 * i, np.float32)}  # fmt: skip
        st.save_file(part, tmp_path / "teacher" / f"{i}.safetensors")
    tails = np.repeat(np.array([0.2, 0.3], np.float32), 42)
    wanted = fidelity(TopK(top["indices"], top["logprobs"], tails), other)
    assert fidelity(tmp_path / "teacher", other).kld == wanted.kld != found.kld
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(one.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        open_logits(damaged)


def test_memory_is_that_of_a_window(rng, tmp_path):
    out = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (600, 150_000))
    out[:] = rng.standard_normal(150_000, np.float32)
    del out
    tracemalloc.start()
    try:
        fidelity(tmp_path / "x.npy", tmp_path / "x.npy")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# ---- what does not fit ----


def damage(path, how):
    data = bytearray(Path(path).read_bytes())
    if how == "cut":
        data = data[:-7]
    elif how == "long":
        data += b"\0\0"
    elif how == "header":
        data = data[:14]
    elif how == "negative":
        data[16:20] = struct.pack("<i", -1)
    elif how == "token":
        data[20 + 4 * 17 : 24 + 4 * 17] = struct.pack("<i", 801)
    else:
        data[:8] = how
    Path(path).write_bytes(data)


DAMAGES = [
    ("cut", r"is cut off: 121,553 of 121,560 bytes for 5 chunks of n_ctx 32 and a vocabulary of 801 \(4 whole chunks"),
    ("long", r"is too long: 121,562 of 121,560 bytes"),
    ("header", r"has a header of \[32\] for n_ctx, n_vocab, n_chunk; it is cut off or damaged"),
    ("negative", r"has a header of \[32, 801, -1\]"),
    ("token", r"has a token of 801; expected tokens in \[0, 801\)"),
    (b"_logits2", r"is beellama\.cpp's format .*, which is not read; expected llama\.cpp's"),
    (b"_logp16_", r"is a file of 16-bit log-probabilities, which is not read"),
    (b"_logp16n", r"is a file of normalised 16-bit log-probabilities, which is not read"),
    (b"HFKLDR\0\0", r"is a file of HFKLDR, which is not read"),
    (b"_LOGITS_", r"is no array \(it begins with b'_LOGITS_'\)"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "message"), DAMAGES)
def test_damaged_files(llama, capsys, how, message):
    path, *_, other = llama
    damage(path, how)
    with pytest.raises(ValueError, match=message):
        open_logits(path)
    np.save(f"{path}.npy", other)
    status, output, line = main(capsys, path, f"{path}.npy", "--json", f"{path}.json")
    assert (status, output, line.count("\n")) == (2, "", 1)
    assert re.search(message, line)
    assert not os.path.exists(f"{path}.json")


def test_arguments(rng, llama):
    path, base, tokens, other = llama
    for message, arguments, keywords in [
        ("base has 75 rows, other 74; expected the same tokens", (path, other.reshape(75, 801)[1:]), {}),
        ("tokens has shape (74,); expected 75", (base, other), {"tokens": np.zeros(74, int)}),
        ("tokens has 801; expected tokens in [0, 801)", (base, other), {"tokens": np.full(75, 801)}),
        ("tokens are not those of", (path, other), {"tokens": np.zeros(75, int)}),
        ("temperature is 2; expected 1 where a file holds", (path, other), {"temperature": 2}),
        ("temperature is 0; expected a finite number above 0", (base, other), {"temperature": 0}),
        ("vocab_size is 900; expected at most 801", (base, other), {"vocab_size": 900}),
        ("vocab_size is 800, less than the 801 of llama.cpp's", (path, other), {"vocab_size": 800}),
        ("chunks is 6; expected at most 5", (path, other), {"chunks": 6}),
        ("chunks is 0; expected an integer of at least 1", (path, other), {"chunks": 0}),
        ("tail is 'head'; expected one of: bucket, renormalize, truncate", (base, other), {"tail": "head"}),
        ("indices has shape (1,)", (TopK, [0], [0.0]), {}),
        ("has shape (3,) and dtype float64; expected float16", (np.zeros(3), other), {}),
        ("has shape (75, 801) and dtype int64; expected float16", (np.zeros((75, 801), int), other), {}),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(message)):
            if callable(arguments[0]) and not hasattr(arguments[0], "shape"):
                arguments[0](*arguments[1:])
            else:
                fidelity(*arguments, **keywords)
    with pytest.raises(TypeError, match="other is a TopK; expected all of the vocabulary"):
        fidelity(base, TopK([[0]], [[0.0]]))
    with pytest.raises(TypeError, match="logits are of int; expected a path, or an array"):
        fidelity(3, other)
    with pytest.raises(TypeError, match="tokens has dtype float64; expected integers"):
        fidelity(base, other, tokens=np.zeros(75))
    second = tokens.copy()
    second[1, 4] += 1 if second[1, 4] < 800 else -1
    write_llama_logits(f"{path}2", base, second, 32)
    with pytest.raises(ValueError, match="base and other are of different texts: token 4 of chunk 1"):  # fmt: skip
        fidelity(path, f"{path}2")
    for logits in (np.full((5, 15, 801), np.nan, np.float32), np.full((5, 15, 801), -np.inf)):
        with pytest.raises(ValueError, match="logits has NaN, infinity, or a row of -inf"):
            write_llama_logits(f"{path}3", logits, tokens, 32)
    assert not os.path.exists(f"{path}3")
    with pytest.raises(ValueError, match=r"logits has shape \(5, 14, 801\)"):
        write_llama_logits(f"{path}3", base[:, :14], tokens, 32)


def test_what_the_core_checks(rng):
    base, other, _ = models(rng, (4, 90))
    out = np.empty((4, 9))
    for arguments in [
        (base.astype(np.float64), other, 90, None, out),
        (base, other[:3], 90, None, out),
        (base, other, 91, None, out),
        (base, other, 0, None, out),
        (base[:, ::2], other, 45, None, out),
        (base, other, 90, np.full(4, 90), out),
        (base, other, 90, np.full(4, -2), out),
        (base, other, 90, np.zeros(3, int), out),
        (base, other, 90, np.zeros(4, np.int32), out),
        (base, other, 90, None, out[:, :8]),
        (base, other, 90, None, np.empty((4, 9), np.float32)),
        (base.view(np.uint16), other, 180, None, out),
    ]:
        with pytest.raises((ValueError, TypeError)):
            _core.fidelity(*arguments)


# ---- the command ----


def main(capsys, *arguments):
    try:
        status = _cli.main(["fidelity", *map(str, arguments)])
    except SystemExit as ended:  # argparse
        status = ended.code
    return status, *capsys.readouterr()


@pytest.fixture
def files(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, base, tokens, other = llama
    np.save("near.npy", base + (other - base) / 4)
    np.save("far.npy", other)
    np.save("tokens.npy", tokens[:, 17:])
    np.save("base.npy", base)
    return path


def test_one_report(files, capsys):
    status, output, errors = main(capsys, files, "far.npy", "--json", "f.json", "--rows", "r.npy")
    assert (status, errors) == (0, "")
    report = fidelity(files, "far.npy")
    assert output == f"{report}\n"
    assert json.loads(Path("f.json").read_text())["kld"]["value"] == report.kld.value
    assert np.load("r.npy").tobytes() == report.figures.tobytes()
    status, output, _ = main(capsys, "base.npy", "far.npy", "--tokens", "tokens.npy", "--chunks=2", "--temperature=2")  # fmt: skip
    wanted = fidelity("base.npy", "far.npy", tokens=np.load("tokens.npy"), chunks=2, temperature=2)
    assert (status, output) == (0, f"{wanted}\n")
    assert ", temperature 2" in output


def test_a_table_of_several(files, capsys):
    reports = [fidelity(files, name) for name in ("far.npy", "near.npy")]
    for layout in ("text", "markdown"):
        command = [
            files,
            "far.npy",
            "near.npy",
            "--format",
            layout,
            "--rows=r.npy",
            "--json=f.json",
        ]
        status, output, _ = main(capsys, *command)
        assert (status, output) == (0, table_of(reports, layout) + "\n")
        assert output.index("near.npy") < output.index("far.npy")  # best first
    assert "| mean KLD |" in output
    assert np.load("r.npy").shape == (2, 75)
    assert [x["other"]["name"] for x in json.loads(Path("f.json").read_text())] == ["far.npy", "near.npy"]  # fmt: skip


def test_outputs_that_are_inputs(files, rng, capsys):
    """By links, and as one of a folder's files: each is as it was."""
    st = pytest.importorskip("safetensors.numpy")
    top = {"indices": np.zeros((40, 1), np.int32), "logprobs": np.full((40, 1), -0.5, np.float32)}
    for folder, tensors in (("windows", {"logits": np.zeros((40, 801), np.float32)}), ("top", top)):
        Path(folder).mkdir()
        for i in range(2):
            st.save_file(tensors, f"{folder}/{i}.safetensors")
    np.savez("both.npz", far=np.load("far.npy"))
    Path("link").symlink_to("far.npy")
    Path("hard").hardlink_to("far.npy")
    Path("linked_base").symlink_to(files)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for arguments in [
        [files, "far.npy", "--rows", "link"],
        [files, "far.npy", "--rows", "hard"],
        [files, "link", "--json", "far.npy"],
        ["linked_base", "far.npy", "--json", files],
        [files, "near.npy", "far.npy", "--json", "far.npy"],
        [files, "far.npy", "--tokens", "tokens.npy", "--rows", "tokens.npy"],
        [files, "both.npz:far", "--json", "both.npz"],
        ["top", "windows", "--json", "windows/0.safetensors"],
        ["top", "windows", "--json", "windows/1.safetensors"],
        ["top", "windows", "--json", "top/0.safetensors"],
    ]:
        status, output, errors = main(capsys, *arguments)
        assert (status, output) == (2, "")
        assert "which would be lost" in errors
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", ["png", pytest.param("svg", marks=pytest.mark.long)])
def test_a_picture(files, capsys, kind):
    pytest.importorskip("matplotlib")
    status, _, errors = main(capsys, files, "far.npy", "near.npy", files, "--plot", f"p.{kind}")
    assert (status, errors) == (0, "")
    data = Path(f"p.{kind}").read_bytes()
    assert data.startswith(b"\x89PNG") if kind == "png" else b"<svg" in data


def test_models_of_nan_alone(files, capsys, recwarn):
    """Counted, in the table, the picture and JSON's own words."""
    pytest.importorskip("matplotlib")
    np.save("nan.npy", np.full((5, 15, 801), np.nan, np.float32))
    for others in (["nan.npy"], ["nan.npy", "far.npy"]):
        status, output, errors = main(capsys, files, *others, "--plot", "p.png", "--json", "f.json")
        assert (status, errors, len(recwarn)) == (0, "", 0)
        assert "Left out: 75 rows" in output or re.search(r"^rows left out +75$", output, re.MULTILINE)  # fmt: skip
        assert "NaN" not in Path("f.json").read_text()


def test_a_picture_of_many(tmp_path, rng):
    """Each has a look of its own, and long names fit."""
    pytest.importorskip("matplotlib")
    from kldiv_fast.fidelity import _plot
    from matplotlib.figure import Figure

    base, *_ = models(rng, (20, 300))
    others = [base + np.float32(0.1 * i) * base[::-1] for i in range(1, 10)]
    reports = [fidelity(base, other) for other in others]
    names = [f"a-model-with-a-long-name-{i}-Q{i}_K_M.safetensors" for i in range(9)]
    for report, name in zip(reports, names, strict=True):
        object.__setattr__(report.other, "name", name)
    drawn = []
    real = Figure.savefig

    def kept(figure, *arguments, **keywords):
        drawn.append(figure)
        real(figure, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", kept)
        _plot.plot(reports, tmp_path / "p.png")
    figure = drawn[0]
    looks = {(x.get_color(), str(x.get_linestyle()), x.get_marker()) for x in figure.axes[1].lines}
    assert len(looks) == 9
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(names)
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0


ERRORS = [
    (["BASE", "missing.npy"], "missing.npy can't be read: No such file or directory"),
    (["BASE", "far.npy", "--json", "far.npy"], "--json far.npy is the same file as OTHER 1 far.npy"),
    (["BASE", "far.npy", "--rows", "BASE"], "is the same file as BASE"),
    (["BASE", "far.npy", "--rows", "x", "--json", "./x"], "are the same file"),
    (["BASE", "far.npy", "--plot", "p.pdf"], "--plot is 'p.pdf'; expected a name that ends in .png or .svg"),
    (["BASE", "far.npy", "--rows", "nowhere/x.npy"], "--rows nowhere/x.npy can't be written: "),
    (["BASE", "far.npy", "--json", "."], "--json . can't be written: it is a folder, a pipe or a device, or in no folder"),
    (["BASE", "far.npy", "--json", os.devnull], "can't be written: it is a folder, a pipe or a device"),
    (["BASE", "far.npy", "--temperature", "2"], "temperature is 2.0; expected 1 where"),
    (["BASE", "tokens.npy"], "tokens.npy has shape (5, 15) and dtype int64"),
    (["."], "the following arguments are required: OTHER"),
    ([".", "far.npy"], ". is a folder without .safetensors files"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_of_the_command(files, capsys, arguments, message):
    if "windows" in arguments:
        st = pytest.importorskip("safetensors.numpy")
        Path("windows").mkdir()
        for i in (0, 1, 2) if "--json" in arguments else (0, 2):
            st.save_file({"logits": np.load("far.npy")[i]}, f"windows/a{i}.safetensors")
    os.link("far.npy", "hard.npy")
    os.symlink("far.npy", "soft.png")
    np.save("narrow.npy", np.load("far.npy")[..., :800])
    Path("cut.npy").write_bytes(Path("far.npy").read_bytes()[:-9])
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    status, output, line = main(capsys, *[files if word == "BASE" else word for word in arguments])
    assert (status, output) == (2, "")
    assert message in line
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_inputs_are_only_read(files, capsys, monkeypatch):
    opened, real = [], open

    def told(path, mode="r", *arguments, **keywords):
        opened.append((str(path), mode))
        return real(path, mode, *arguments, **keywords)

    for path in (files, "far.npy"):
        os.chmod(path, 0o444)
    monkeypatch.setattr("builtins.open", told)
    monkeypatch.setattr("io.open", told)
    assert main(capsys, files, "far.npy", "--json", "f.json")[0] == 0
    monkeypatch.undo()
    of_inputs = {path: {m for p, m in opened if p == path} for path in (files, "far.npy")}
    assert all(modes and modes <= {"r", "rb"} for modes in of_inputs.values())


def test_rows_that_are_left_out_are_told(files, capsys):
    far = np.load("far.npy")
    far[0, 3, 5], far[1, 2] = np.nan, -np.inf
    np.save("nan.npy", far)
    status, output, errors = main(capsys, files, "nan.npy")
    assert (status, errors) == (0, "")
    assert "\nLeft out: 2 rows with NaN, infinity or nothing but -inf\n" in output
    assert "Tokens: 73 in 5 chunks" in output
    output = main(capsys, files, "nan.npy", "near.npy")[1]
    assert re.search(r"^rows left out +2$", output, re.MULTILINE)
    assert re.search(r"^tokens +75 +73$", output, re.MULTILINE)


def test_a_file_beside_itself_by_the_command(files, capsys):
    output = main(capsys, files, files)[1]
    for line in (
        r"Mean    KLD:   0\.000000 ±   0\.000000",
        r"Mean    Δp:  0\.000 ± 0\.000 %",
        r"Same top p: 100\.000 ± 0\.000 %",
        r"Mean ln\(PPL\(Q\)/PPL\(base\)\)     :   0\.000000 ±   0\.000000",
    ):
        assert re.search(f"^{line}$", output, re.MULTILINE)


def test_ctrl_c_tells_what_was_read(files, capsys, monkeypatch):
    import kldiv_fast.fidelity._run as run

    monkeypatch.setattr(run, "_MAPPED", 20 * 801 * 4)
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return real(*arguments)

    real = _core.fidelity
    monkeypatch.setattr(run._core, "fidelity", interrupted)
    status, output, line = main(capsys, files, "far.npy", "--json", "f.json")
    assert (status, line) == (130, "kldiv_fast: interrupted\n")
    assert "PARTIAL" in output
    assert "Tokens: 40 in 3 chunks" in output
    assert not os.path.exists("f.json")


def test_the_bar_leaves_out_rows_without_a_value(files, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    shown = []

    class Bar(tqdm.tqdm):
        def set_postfix_str(self, text, **_):
            shown.append(text)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    other = np.load("far.npy")
    other[0] = np.nan
    np.save("far.npy", other)
    kld = fidelity(files, "far.npy").kld
    assert main(capsys, files, "far.npy")[0] == 0
    assert shown[-1] == f"KLD {kld.value:.6f} ± {kld.se:.6f}"


LOOP = """
import signal, sys
import numpy as np
from kldiv_fast import _core
x = np.zeros((1 << 12, 1 << 16), np.float32)[:, :]
out = np.empty((1 << 12, 9))
print("begun", flush=True)
for _ in range(1000):
    _core.fidelity(x, x, 1 << 16, None, out)
"""


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_the_core_is_interrupted():
    process = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGINT or process.returncode == 130


def test_the_example(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--folder", str(tmp_path), "--steps", "300"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert ended.value.code == 0
    output = capsys.readouterr().out
    names = [name for name in re.findall(r"\d-bit\.npy", output)]
    assert names == ["8-bit.npy", "4-bit.npy", "3-bit.npy"]
    means = [float(x) for x in re.search(r"^mean KLD(.*)$", output, re.MULTILINE)[1].replace("±", " ").split()[::2]]  # fmt: skip
    assert 0 < means[0] < means[1] < means[2]
    assert (tmp_path / "fidelity.png").read_bytes().startswith(b"\x89PNG")
    assert isinstance(fidelity(tmp_path / "base.kld", tmp_path / "8-bit.npy"), Fidelity)
    assert kldiv_fast.current_isa()
