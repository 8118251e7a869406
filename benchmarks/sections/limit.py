"""kl of arrays larger than the caches, beside a loop that only reads them."""

import kldiv_fast
from memory_limit import REST, reader
from peers import LARGE, make_pair
from tables import at_least, at_most, billions, credible, label, on_each, over, size, table, us
from timing import interleaved

TITLE = "Beside the limit"
DTYPES = ["float32", "float64", "float16", "bfloat16"]  # the last by ml_dtypes


def measure(seconds):
    import ml_dtypes  # noqa: F401  NumPy knows its dtypes by name then
    from tqdm import tqdm

    threads = kldiv_fast.get_num_threads()
    times = {}
    for shape in tqdm(LARGE, desc="limit", unit="shape"):
        functions = {}
        for name in DTYPES:
            t, p = make_pair(shape, name)
            functions[name] = lambda t=t, p=p: kldiv_fast.kl(t, p)
            functions[f"limit {name}"] = reader(t, p, threads)
        limits = {f"limit {name}": name for name in DTYPES}
        times[label(shape)] = interleaved(functions, 2 * seconds, REST, limits)
    return {"threads": threads, "times": times}


def cells(shape, mine, limit):
    beside = [us(limit), over(mine, limit)] if credible(limit, mine) else ["-", "-"]
    return [us(mine), *beside, billions(size(shape), mine)]


def lines(found):
    def columns(data):
        rows = {
            (shape, name): cells(shape, times[name], times[f"limit {name}"])
            for shape, times in data["times"].items()
            for name in DTYPES
        }
        return ["kl, us", "limit, us", "kl / limit", "kl, G elements/s"], rows

    threads = on_each(found, lambda data: data["threads"])
    yield f"The limit is the time of a loop that only adds up both arrays, on the same {threads} threads."
    yield "Where it took longer than kl, which reads as much, other programs had the cores, and it is left out."
    yield ""
    yield from table(["shape", "dtype"], found, columns)


def goals(data, isa):
    for shape, times in data["times"].items():
        for name, bound in {"float32": 1.05, "float64": 1.1}.items():
            limit = times[f"limit {name}"]
            if credible(limit, times[name]):
                yield at_most(bound, f"{shape} {name}: times the limit", times[name], limit)
        for name in ("float16", "bfloat16"):
            what = f"{shape} {name}: elements/s over float32's"
            yield at_least(1, what, times["float32"], times[name])
