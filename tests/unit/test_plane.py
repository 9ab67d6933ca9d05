"""The arithmetic of a map: principal components, clusters."""

from __future__ import annotations

import numpy as np
import pytest

from worker.store.plane import clusters, principal, typical


def blobs(*centres: tuple[float, ...], each: int = 40) -> np.ndarray:
    noise = np.random.default_rng(1)
    rows = [np.array(one) + noise.normal(0, 0.01, (each, len(one))) for one in centres]
    return np.concatenate(rows).astype(np.float32)


def test_the_first_axis_is_the_one_along_which_rows_differ_most() -> None:
    noise = np.random.default_rng(2)
    wide = noise.normal(0, 5.0, 500)
    rows = np.stack([wide, noise.normal(0, 1.0, 500), np.zeros(500)], axis=1).astype(np.float32)
    axes, kept = principal(rows, 2)
    assert axes.shape == (500, 2)
    assert abs(np.corrcoef(axes[:, 0], wide)[0, 1]) > 0.99
    assert kept == pytest.approx(1.0)
    again, _ = principal(rows.copy(), 2)
    assert (axes == again).all()


@pytest.mark.parametrize("rows", [np.ones((5, 3)), np.arange(6.0).reshape(6, 1)])
def test_rows_without_a_plane_have_one_all_the_same(rows: np.ndarray) -> None:
    axes, kept = principal(rows.astype(np.float32), 4)
    assert len(axes) == len(rows) and axes.shape[1] >= 2
    assert np.isfinite(axes).all() and 0 <= kept <= 1


def test_clusters_are_found_and_the_largest_is_the_first() -> None:
    rows = np.concatenate([blobs((0.0, 0.0)), blobs((9.0, 9.0), each=90), blobs((9.0, 0.0))])
    labels, names = clusters(rows, 3)
    assert names == ["cluster 1", "cluster 2", "cluster 3"]
    parts = [set(labels[:40]), set(labels[40:130]), set(labels[130:])]
    assert parts[1] == {0} and parts[0] | parts[2] == {1, 2} and all(len(p) == 1 for p in parts)
    assert clusters(rows, 3)[0] == labels
    for label, row in enumerate(typical(rows, labels, 3)):
        assert labels[row] == label


def test_rounding_does_not_draw_equal_rows_apart() -> None:
    one = np.random.default_rng(3).normal(0, 1, 768).astype(np.float32)
    axes, kept = principal(np.tile(one, (40, 1)), 4)
    assert not axes.any() and kept == 1.0


def test_equal_rows_are_one_cluster() -> None:
    labels, names = clusters(np.ones((20, 3), dtype=np.float32), 4)
    assert set(labels) == {0} and names == ["cluster 1"]


def test_no_cluster_is_empty_whatever_the_rows() -> None:
    for seed in range(200):
        noise = np.random.default_rng(seed)
        rows = noise.integers(0, 3, (noise.integers(3, 30), 2)).astype(np.float32)
        labels, names = clusters(rows, 8)
        assert set(labels) == set(range(len(names)))
        assert len(typical(rows, labels, len(names))) == len(names)
