"""Navigation graphs: ways, Matterport3D's JSON format, real graphs, bad input."""

import gzip
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.indoor.graph import NavigationGraph, load_graphs

DATA = Path(os.environ.get("DECISIVE_DATA", Path(__file__).parents[1] / "../shared/data"))


def square() -> NavigationGraph:
    """a - b - c - d around a square of 2 m, without the side d - a; e stands alone."""
    positions = np.array([[0, 0, 1.5], [2, 0, 1.5], [2, 2, 1.5], [0, 2, 1.5], [9, 9, 1.5]], float)
    adjacent = np.zeros((5, 5), bool)
    for i, j in ((0, 1), (1, 2), (2, 3)):
        adjacent[i, j] = adjacent[j, i] = True
    return NavigationGraph("square", "abcde", positions, adjacent)


def test_shortest_ways_follow_edges() -> None:
    graph = square()
    assert graph.shortest_path("a", "d") == ("a", "b", "c", "d")
    assert graph.distance("a", "d") == pytest.approx(6.0)
    assert graph.shortest_path("c", "c") == ("c",)
    assert graph.length(["a", "b", "b", "a"]) == pytest.approx(4.0)
    assert graph.neighbors[1] == (0, 2)


def test_a_way_that_is_not_there_is_refused() -> None:
    graph = square()
    assert math.isinf(graph.distance("a", "e"))
    with pytest.raises(ValueError, match="no way from a to e"):
        graph.shortest_path("a", "e")
    with pytest.raises(ValueError, match="no way leads straight from a to d"):
        graph.length(["a", "d"])
    with pytest.raises(ValueError, match="no viewpoint 'z'"):
        graph.index("z")


def test_a_graph_survives_its_own_json(tmp_path: Path) -> None:
    graph = square()
    (tmp_path / "square_connectivity.json").write_text(json.dumps(graph.connectivity()))
    (again,) = load_graphs(tmp_path).values()
    assert again.scan == "square"
    assert again.viewpoints == graph.viewpoints
    assert np.array_equal(again.positions, graph.positions)
    assert np.array_equal(again.adjacent, graph.adjacent)


def test_viewpoints_that_are_not_included_are_not_there() -> None:
    entries = square().connectivity()
    entries[1]["included"] = False
    graph = NavigationGraph.from_connectivity("square", entries)
    assert graph.viewpoints == ("a", "c", "d", "e")
    assert math.isinf(graph.distance("a", "c"))


def test_an_edge_needs_both_ends() -> None:
    entries = square().connectivity()
    entries[0]["unobstructed"][1] = False
    assert not NavigationGraph.from_connectivity("square", entries).adjacent[1, 0]


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_distances_are_a_metric_and_paths_are_as_long(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < 0.4, 1)
    names = [str(i) for i in range(n)]
    graph = NavigationGraph("random", names, rng.normal(size=(n, 3)), upper | upper.T)
    d = graph.distances
    assert np.array_equal(np.isinf(d), np.isinf(d.T))
    assert np.allclose(d, d.T)
    assert (d[:, None] <= d[:, :, None] + d[None] + 1e-9).all()
    for i in range(n):
        for j in range(n):
            if math.isfinite(d[i, j]):
                path = graph.shortest_path(names[i], names[j])
                assert (path[0], path[-1]) == (names[i], names[j])
                assert graph.length(path) == pytest.approx(d[i, j])


@pytest.mark.parametrize(
    "entries",
    [
        [{}],
        3,
        [{"included": True, "pose": [0.0] * 15, "unobstructed": "0", "image_id": "a", "height": 1}],
        [{"included": True, "pose": [0.0] * 16, "unobstructed": "", "image_id": "a", "height": 1}],
        [{"included": True, "pose": ["x"] * 16, "unobstructed": "0", "image_id": "", "height": 1}],
        [],
    ],
)
def test_malformed_lists_are_refused_in_one_line(entries: object) -> None:
    with pytest.raises(ValueError, match=r"^scan: ") as error:
        NavigationGraph.from_connectivity("scan", entries)
    assert "\n" not in str(error.value)


def test_positions_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        NavigationGraph("x", ["a"], np.array([[math.nan, 0, 0]]), np.zeros((1, 1), bool))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", gzip.compress(b"[", mtime=0)])
def test_files_that_are_not_json_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("a_connectivity.json", "a_connectivity.json.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="not JSON"):
            load_graphs(tmp_path / name)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="connectivity"):
        load_graphs(tmp_path)


def test_the_graphs_of_matterport3d_have_their_published_size() -> None:
    path = DATA / "mp3d_connectivity" / "connectivity_90scans.json.gz"
    if not path.exists():
        pytest.skip("the Matterport3D graphs are absent (set DECISIVE_DATA)")
    graphs = load_graphs(path)
    assert len(graphs) == 90
    assert sum(map(len, graphs.values())) == 10_567
    assert sum(int(graph.adjacent.sum()) for graph in graphs.values()) == 2 * 21_468
