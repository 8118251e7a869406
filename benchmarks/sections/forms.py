"""The same rows in every form, logits beside the peers, their gradients, and labels: the calls of the top-level forms.py."""

from memory_limit import REST, reader
from tables import at_least, at_most, credible, label, table, us_over
from timing import interleaved

TITLE = "Forms"
SHAPES = [(32, 10), (512, 46), (1024, 1024), (64, 151_936)]
GRADIENT = (8192, 1000)
LABELS_LOGITS, LABELS_PROBS = (4096, 32_000), (65_536, 46)
PROBS, LOGITS, LIMIT = "kl probs", "kl logits", "limit"
LEAST_RATIO = {"torch.compile": 5, "JAX jit": 8, "torch eager": 10, "NumPy": 10}


def measure(seconds):
    import forms
    import kldiv_fast
    from tqdm import tqdm

    own, peers = {}, {}
    for shape in tqdm(SHAPES, desc="forms", unit="shape"):
        a, b = forms.make_logits(shape)
        calls = forms.calls(a, b)
        beside = {LOGITS: calls[LOGITS]} | forms.peers(a, b)
        rest, limits = 0, {}
        if a.size >= 2**20:
            calls[LIMIT] = reader(a, b, kldiv_fast.get_num_threads())
            rest, limits = REST, {LIMIT: PROBS}
        own[label(shape)] = interleaved(calls, 2 * seconds, rest, limits)
        peers[label(shape)] = interleaved(beside, 2 * seconds, rest)
    gradients = forms.gradients(*forms.make_logits(GRADIENT))
    logits = forms.labels_beside_logits(LABELS_LOGITS)
    probs = forms.labels_beside_probs(LABELS_PROBS)
    return {
        "own": own,
        "peers": peers,
        "gradient": {label(GRADIENT): interleaved(gradients, 2 * seconds, REST)},
        "labels": {
            label(LABELS_LOGITS): interleaved(
                logits, 2 * seconds, REST, limits={LIMIT: "kldiv_fast"}
            ),
            label(LABELS_PROBS): interleaved(probs, 2 * seconds, REST),
        },
    }


def undisturbed(times):
    """Without a limit that is none."""
    reads_as_much = times.get(PROBS) or times.get("kldiv_fast")
    disturbed = LIMIT in times and not credible(times[LIMIT], reads_as_much)
    return {name: of for name, of in times.items() if name != LIMIT or not disturbed}


def columns_over(part, base):
    """Of a part of the data: its shapes, and by name microseconds and times `base`."""

    def columns(data):
        found = {shape: undisturbed(times) for shape, times in data[part].items()}
        names = dict.fromkeys(name for times in data[part].values() for name in times)
        rows = {
            (name,): [
                us_over(times[name], times[base]) if name in times else "-"
                for times in found.values()
            ]
            for name in names
        }
        return found, rows

    return columns


def lines(found):
    yield "The same rows in every form, float32: unrelated logits, their softmaxes, these times 1000, their logarithms."
    yield "Microseconds to one mean; in brackets, times the kl of probabilities. The limit is as above."
    yield ""
    yield from table(["us per call"], found, columns_over("own", PROBS))
    yield ""
    yield 'kl of logits beside the peers, which make both log-softmaxes; in brackets, times `kl(a, b, form="logits")`.'
    yield ""
    yield from table(["us per call"], found, columns_over("peers", LOGITS))
    yield ""
    yield "Its value and the gradient by `y_pred` together, which PyTorch makes forward and backward."
    yield ""
    yield from table(["us per call"], found, columns_over("gradient", "kldiv_fast"))
    yield ""
    yield "Labels. The limit reads the logits alone."
    yield ""
    yield from table(["us per call"], found, columns_over("labels", "kldiv_fast"))


def goals(data, isa):
    own, peers, labels = data["own"], data["peers"], data["labels"]
    small = own["32x10"]
    yield at_most(2, "32x10 logits: times the kl of probabilities", small[LOGITS], small[PROBS])
    for shape in map(label, SHAPES[2:]):
        for name, bound in LEAST_RATIO.items():
            what = f"{shape} logits: times faster than {name}"
            yield at_least(bound, what, peers[shape][name], peers[shape][LOGITS])
        times = undisturbed(own[shape])
        if isa == "avx512" and LIMIT in times:
            yield at_most(2.5, f"{shape} logits: times the limit", times[LOGITS], times[LIMIT])
    times = data["gradient"][label(GRADIENT)]
    what = f"{label(GRADIENT)} logits, value and gradient: times faster than torch.compile"
    yield at_least(3, what, times["torch.compile"], times["kldiv_fast"])
    times = labels[label(LABELS_LOGITS)]
    what = f"{label(LABELS_LOGITS)} labels beside logits: times"
    cross_entropy = times["torch cross_entropy"]
    yield at_least(
        4, f"{what} faster than torch's cross_entropy", cross_entropy, times["kldiv_fast"]
    )
    if isa == "avx512" and credible(times[LIMIT], times["kldiv_fast"]):
        yield at_most(2.5, f"{what} the limit", times["kldiv_fast"], times[LIMIT])
    times = labels[label(LABELS_PROBS)]
    what = f"{label(LABELS_PROBS)} labels beside probabilities: times faster than one-hot and Keras"
    yield at_least(10, what, times["to_categorical + Keras"], times["kldiv_fast"])
