"""Evidence of a world model: what counts where, baselines, bootstrap, and the verbs around it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pathdreamer_cases import TINY

from decisive.benchmarks import dreams
from decisive.rendering import draw_house, panoramas_of
from decisive.train import main as train_main
from world_models.pathdreamer.evidence import HOPS, METHODS, diversity, revisits, score_walks
from world_models.pathdreamer.model import Pathdreamer, load_world_model, save_world_model
from world_models.pathdreamer.panoramas import PanoramaSet, write_panoramas
from world_models.pathdreamer.scores import StructureScores

SIZE = (32, 64)


@pytest.fixture(scope="module")
def data() -> PanoramaSet:
    return PanoramaSet.of_houses([draw_house(seed, "val", 1.0, SIZE) for seed in (0, 1)])


@pytest.fixture(scope="module")
def copier() -> Pathdreamer:
    torch.manual_seed(0)
    return Pathdreamer(TINY).eval()


def test_an_untrained_model_scores_as_nearest_fill_at_the_first_hop(
    data: PanoramaSet, copier: Pathdreamer
) -> None:
    for walk in score_walks(copier, data, 1, 0):
        for where in ("hole", "seen"):
            model = walk.scores["model", where, 1].results()
            fill = walk.scores["nearest-fill", where, 1].results()
            # The memory keeps one point a voxel, the baseline all: a pixel in a hundred differs.
            assert model["accuracy"] == pytest.approx(fill["accuracy"], abs=0.02)
            assert model["rgb_mae"] == pytest.approx(fill["rgb_mae"], abs=0.02)


def test_every_method_is_scored_on_the_same_pixels(data: PanoramaSet, copier: Pathdreamer) -> None:
    walks = score_walks(copier, data, 2, 0)
    assert len(walks) == 4
    for walk in walks:
        hops = max(hop for _, _, hop in walk.scores)
        assert 1 <= hops <= HOPS
        for hop in range(1, hops + 1):
            pixels = {
                where: {walk.scores[name, where, hop].depth_pixels for name in METHODS}
                for where in ("hole", "seen")
            }
            assert all(len(found) == 1 for found in pixels.values())
            assert sum(next(iter(found)) for found in pixels.values()) <= SIZE[0] * SIZE[1]


def test_what_was_seen_is_repeated_badly_and_filled_well_where_it_shows(
    data: PanoramaSet, copier: Pathdreamer
) -> None:
    walks = score_walks(copier, data, 3, 1)
    rows = {
        (row["method"], row["where"], row["hop"]): row for row in dreams.summarize([walks, walks])
    }
    filled, repeated = rows["nearest-fill", "seen", 1], rows["repeat-last", "seen", 1]
    assert filled["accuracy"] > repeated["accuracy"]
    assert filled["depth_mae"] < repeated["depth_mae"]
    low, high = filled["accuracy_ci95"]
    assert low <= filled["accuracy"] <= high
    assert filled["accuracy_by_model"] == [filled["accuracy"]] * 2


def test_weighted_scores_are_worked_by_hand() -> None:
    one, two = StructureScores(3), StructureScores(3)
    truth, mask = torch.ones(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.bool)
    depth = torch.ones(1, 2, 2)
    one.add(truth, depth, truth, depth, mask)  # all right
    two.add(truth + 1, depth + 0.5, truth, depth, mask)  # all wrong
    two.add_colours(torch.full((1, 3, 2, 2), 0.1), torch.zeros(1, 3, 2, 2), mask)
    total = StructureScores.weighted([one, two], [3.0, 1.0]).results()
    assert total["accuracy"] == pytest.approx(0.75)
    assert total["depth_mae"] == pytest.approx(0.125)
    assert total["rgb_psnr"] == pytest.approx(20.0, abs=1e-4)


def test_without_a_latent_samples_are_one_and_with_one_more_cover_more(data: PanoramaSet) -> None:
    torch.manual_seed(0)
    model = Pathdreamer(TINY).eval()
    silent = diversity(model, data, 0, samples=4)
    assert silent.disagreement["hole"] == 0.0
    assert len(set(silent.covered.values())) == 1
    for parameter in model.structure.head.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    torch.nn.init.zeros_(model.structure.prior.log_variance.bias)  # type: ignore[union-attr,arg-type]
    found = diversity(model, data, 0, samples=4)
    assert found.disagreement["hole"] > 0
    assert found.depth_spread["hole"] > 0
    covered = list(found.covered.values())
    assert list(found.covered) == [1, 2, 4]
    assert covered == sorted(covered)
    assert list(found.covered_depth.values()) == sorted(found.covered_depth.values(), reverse=True)


def test_a_memory_keeps_a_dreamed_place_as_it_was(data: PanoramaSet) -> None:
    torch.manual_seed(0)
    model = Pathdreamer(TINY).eval()
    for parameter in model.structure.head.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    torch.nn.init.zeros_(model.structure.prior.log_variance.bias)  # type: ignore[union-attr,arg-type]
    found = revisits(model, data, 0)
    assert set(found) == {
        "agreement", "depth_change", "agreement_without", "depth_change_without",
    }  # fmt: skip
    assert all(np.isfinite(list(found.values())))


# Verbs


def test_houses_are_rendered_once(tmp_path: Path) -> None:
    first = panoramas_of(tmp_path, "val", range(1), 0.5, SIZE)
    stamp = (tmp_path / "g1-val-0-1-p050-32" / "rgb.bin").stat().st_mtime_ns
    again = panoramas_of(tmp_path, "val", range(1), 0.5, SIZE)
    assert (tmp_path / "g1-val-0-1-p050-32" / "rgb.bin").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.semantic, again.semantic)
    assert first.houses[0][0] == "house_val_000000_p050"
    with pytest.raises(ValueError, match="whole percent"):
        panoramas_of(tmp_path, "val", range(1), 0.505, SIZE)


@pytest.mark.learning
def test_a_world_model_is_trained_joined_and_scored_by_the_verbs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--panoramas", str(tmp_path / "panoramas"), "--height", "32", "--json"]
    words = ["pathdreamer", "--houses", "2", "--steps", "2", "--side-by-side", *common]
    words += ["--set-train", "batch_size=2", "--set-train", "holdout=0.5"]
    words += ["--set-train", "validate_samples=2", "--out", str(tmp_path / "run")]
    assert train_main(words) == 0
    folder = Path(json.loads(capsys.readouterr().out)["folder"])
    model = load_world_model(folder)
    parts = {
        part: load_world_model(tmp_path / "run" / part / "last") for part in ("structure", "image")
    }
    for part, own in parts.items():
        for name, value in getattr(own, part).state_dict().items():
            torch.testing.assert_close(getattr(model, part).state_dict()[name], value)
    card = (folder / "README.md").read_text()
    assert "generator 1, predictability 1: synthetic" in card
    assert "decisive train pathdreamer" in card
    words = ["--model", str(folder), "--split", "val", "--houses", "1", "--walks", "1", *common]
    assert dreams.main([*words, "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["method"] for row in found["scores"]} == set(METHODS)
    assert json.loads((tmp_path / "out" / "dreams.json").read_text()) == found


def test_a_start_goes_on_from_its_weights(tmp_path: Path, copier: Pathdreamer) -> None:
    save_world_model(copier, tmp_path / "start")
    houses = [draw_house(seed, "val", 1.0, SIZE) for seed in (0, 1)]
    write_panoramas(tmp_path / "own", houses, SIZE)
    words = ["pathdreamer", "--data", str(tmp_path / "own"), "--start", str(tmp_path / "start")]
    words += ["--steps", "1", "--parts", "structure", "--set-train", "lr=1e-12", "--json"]
    words += ["--set-train", "holdout=0.5", "--set-train", "validate_samples=2"]
    assert train_main([*words, "--out", str(tmp_path / "run")]) == 0
    after = load_world_model(tmp_path / "run" / "last")
    for name, value in copier.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, atol=1e-6, rtol=0)
    assert "panoramas of the user" in (tmp_path / "run" / "last" / "README.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["--parts", "sound"],
        ["--houses", "1"],
        ["--predictability", "2"],
        ["--side-by-side", "--parts", "image"],
        ["--size", "huge"],
        ["--set-train", "lr=-1"],
    ],
)
def test_a_training_that_cannot_run_is_refused(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"must|needs|unknown|positive"):
        train_main(["pathdreamer", "--out", str(tmp_path / "run"), *words])
    assert not (tmp_path / "run").exists()
