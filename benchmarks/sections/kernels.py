"""One thread, in cache, on every ISA that the machine has."""

import kldiv_fast
from memory_limit import reader
from peers import make_pair
from tables import Goal, at_least, billions, head_of_table, label, noise_of, row
from timing import interleaved

TITLE = "Kernels"
PLOT, PLOT_SHOWS = "isa", "Elements per second of each ISA and dtype, one thread"
SHAPE = (1024, 1000)
SIZE = SHAPE[0] * SHAPE[1]
DTYPES = ["float32", "float64", "float16", "bfloat16"]  # the last by ml_dtypes


def on(isa, t, p):
    def call():
        kldiv_fast._core.select_isa(isa)
        return kldiv_fast.kl(t, p, num_threads=1)

    return call


def measure(seconds):
    import ml_dtypes  # noqa: F401  NumPy knows its dtypes by name then

    t, p = make_pair(SHAPE)
    pairs = {name: (t.astype(name), p.astype(name)) for name in DTYPES}
    chosen, isas = kldiv_fast.current_isa(), kldiv_fast.available_isas()
    functions = {(isa, name): on(isa, *pair) for isa in isas for name, pair in pairs.items()}
    functions["limit"] = reader(t, p, 1)
    times = interleaved(functions, 2 * seconds)
    kldiv_fast._core.select_isa(chosen)
    of = {isa: {name: times[isa, name] for name in pairs} for isa in isas}
    return {"limit": times["limit"], "times": of}


def lines(found):
    data = next(iter(found.values()))  # the best machine's has them all
    limit = billions(SIZE, data["limit"], 1)
    yield f"{label(SHAPE)} on one thread, in cache, G elements/s. Only to read the two float32 arrays: {limit}."
    yield ""
    yield from head_of_table(["ISA", *DTYPES])
    for isa, of in data["times"].items():
        yield row([isa, *(billions(SIZE, of[name]) for name in DTYPES)])


def goals(data, isa):
    if isa != "avx512":
        return
    times = data["times"]
    best = times["avx512"]["float32"]
    scaled = 10 * data["limit"][0] / best[0]
    what = f"{label(SHAPE)} AVX-512, one thread: G elements/s where reading is 10"
    yield Goal(what, scaled, noise_of(scaled, data["limit"], best), 2.8, at_least=True)
    yield at_least(0.65, "the same, AVX2 over AVX-512", best, times["avx2"]["float32"])


def plot(data, pyplot):
    times = data["times"]
    figure, ax = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for i, name in enumerate(DTYPES):
        places = [place + 0.2 * i - 0.3 for place in range(len(times))]
        ax.bar(places, [SIZE / of[name][0] / 1e9 for of in times.values()], 0.2, label=name)
    title = f"{label(SHAPE)}, one thread"
    ax.set(ylabel="G elements/s", title=title, xticks=range(len(times)), xticklabels=times)
    ax.legend()
    return figure
