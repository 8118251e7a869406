"""Distances between distributions with scikit-learn: which handwritten digits look alike, and how well neighbours tell them.

Each image of scikit-learn's digits is a distribution of ink over 64 places. All pairs of images are compared by the
Jensen-Shannon distance, for nearest neighbours and for clusters. The picture is docs/distances.png.

    python examples/distances.py [--plot FILE]

``--plot`` draws the matrix of distances, cluster by cluster.
"""

import argparse
from pathlib import Path

import numpy as np
import scipy.spatial.distance
from kldiv_fast.distance import cdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier


def nearest_neighbours(ink, labels):
    """The part of the second half of the images whose five nearest in the first half tell their digit."""
    half = len(ink) // 2
    neighbours = KNeighborsClassifier(n_neighbors=5, metric="precomputed")
    neighbours.fit(cdist(ink[:half], ink[:half]), labels[:half])
    return neighbours.score(cdist(ink[half:], ink[:half]), labels[half:])


def clusters(distances):
    return AgglomerativeClustering(
        n_clusters=10, metric="precomputed", linkage="average"
    ).fit_predict(distances)


def check_scipy(ink):
    theirs = scipy.spatial.distance.cdist(ink[:200], ink[:200], "jensenshannon")
    np.testing.assert_allclose(cdist(ink[:200], ink[:200]), theirs, rtol=1e-9, atol=1e-7)


def plot(distances, labels, found, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = np.lexsort((labels, found))[::6]  # as many as a picture has room for
    shown = found[order]
    starts = np.flatnonzero(np.diff(shown, prepend=-1, append=-1))
    large = np.diff(starts) > 5
    middles = ((starts[:-1] + starts[1:]) / 2)[large]
    commonest = [np.bincount(labels[found == i]).argmax() for i in shown[starts[:-1]][large]]
    figure, axes = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
    image = axes.imshow(distances[np.ix_(order, order)], cmap="viridis", interpolation="nearest")
    for lines in (axes.hlines, axes.vlines):
        lines(starts[1:-1] - 0.5, -0.5, len(order) - 0.5, colors="white", linewidth=0.6)
    axes.set_xticks(middles, commonest)
    axes.set_yticks(middles, commonest)
    axes.set_xlabel("cluster, by its commonest digit")
    axes.set_title("Handwritten digits: Jensen-Shannon distances")
    figure.colorbar(image, label="distance (root of nats)")
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture there")
    options = parser.parse_args()
    ink, labels = load_digits(return_X_y=True)
    check_scipy(ink)
    print(f"5 nearest neighbours: accuracy {nearest_neighbours(ink, labels):.4f}")
    distances = cdist(ink, ink)
    found = clusters(distances)
    print(f"10 clusters: adjusted Rand index {adjusted_rand_score(labels, found):.4f}")
    if options.plot:
        plot(distances, labels, found, options.plot)


if __name__ == "__main__":
    main()
