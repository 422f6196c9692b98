"""`decisive forecast` and `decisive train metnet2`, on synthetic rain and a tiny network."""

import json
from dataclasses import replace

import numpy as np
import pytest
from metnet2_cases import TINY, rain, tiny
from PIL import Image

from decisive.cli import main
from decisive.forecast import check_leads, find_moment, moment_of, named, read_leads
from decisive.forecast_pictures import UNKNOWN, attribution_page, chance_picture, rain_picture
from learning.grid_files import write_sequence
from world_models.metnet2.attribution import occlusion
from world_models.metnet2.forecaster import Forecaster
from world_models.metnet2.model import save_forecaster


@pytest.fixture
def place(tmp_path):
    """A folder with an event of 9 frames and a model."""
    (tmp_path / "event").mkdir()
    write_sequence(tmp_path / "event" / "event.npz", rain())
    save_forecaster(tiny(), tmp_path / "model")
    return tmp_path


def words(place, *more: str) -> list[str]:
    return [
        "forecast", str(place / "event"), "--model", str(place / "model"), "--out",
        str(place / "out"), *more,
    ]  # fmt: skip


def time_of(frame: int) -> str:
    return moment_of(rain(), frame)


def test_it_writes_maps_arrays_and_scores(place, capsys):
    assert main(words(place, "--leads", "5,20", "--time", time_of(4), "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert [lead["seconds"] for lead in told["leads"]] == [300.0, 1200.0]
    assert all(lead["crps"] > 0 and lead["persistence"] > 0 for lead in told["leads"])
    assert told["missing_frames"] == 0
    assert not told["dry"]
    out = place / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["results.json", "forecast.npz", "forecast.mp4", "probability_005min.png",
         "probability_020min.png"]
    )  # fmt: skip
    with np.load(out / "forecast.npz") as arrays:
        assert arrays["probability"].shape == (2, 48, 56)
        assert arrays["quantiles"].shape == (2, 3, 48, 56)
        assert bool((np.diff(arrays["quantiles"].astype(float), axis=1) >= 0).all())
    with Image.open(out / "probability_005min.png") as picture:
        assert picture.width > 1000
    assert (out / "forecast.mp4").stat().st_size > 1000


def test_its_crps_is_that_of_the_scores(place, capsys):
    main(words(place, "--leads", "10", "--time", time_of(4), "--no-film", "--json"))
    told = json.loads(capsys.readouterr().out)["leads"][0]
    from world_models.metnet2.scores import crps

    sequence = rain()
    forecaster = Forecaster(tiny())
    forecast = forecaster.at(forecaster.read(sequence, 4), 600.0)
    scores = crps(forecast.probabilities, TINY.edges, sequence.quantity[6])
    assert told["crps_everywhere"] == pytest.approx(float(np.nanmean(scores)), rel=1e-5)


def test_where_there_is_no_truth_there_is_no_crps(place, capsys):
    assert main(words(place, "--leads", "5", "--no-film", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["time"] == time_of(8)
    assert told["leads"][0]["crps"] is None


def test_tiles_give_the_same_arrays(place, capsys):
    more = ("--leads", "5", "--no-film", "--json")
    main(words(place, *more))
    with np.load(place / "out" / "forecast.npz") as arrays:
        whole = arrays["probability"]
    main(words(place, *more, "--memory", "1"))
    with np.load(place / "out" / "forecast.npz") as arrays:
        assert np.abs(arrays["probability"].astype(float) - whole).max() < 1e-3  # float16
    capsys.readouterr()


def test_a_route_is_weighed(place, capsys):
    (place / "way.csv").write_text("row,column,minutes\n20,20,0\n30,30,10\n")
    assert main(words(place, "--leads", "5", "--route", str(place / "way.csv"), "--json")) == 0
    told = json.loads(capsys.readouterr().out)["route"]
    assert told["advice"] in ("go", "wait", "return")
    assert len(told["points"]) == 2
    assert [o["option"] for o in told["options"]] == ["go", "wait", "wait", "return"]


def test_the_table_names_what_was_made(place, capsys):
    assert main(words(place, "--leads", "5", "--time", time_of(4), "--no-film")) == 0
    said = capsys.readouterr().out
    assert "5 min" in said
    assert "crps" in said
    assert "probability_005min.png" in said


def test_inputs_that_matter_are_drawn(place, capsys):
    assert main(words(place, "--leads", "5,20", "--no-film", "--attribution", "--json")) == 0
    told = json.loads(capsys.readouterr().out)["attribution"]
    assert told["method"] == "occlusion"
    assert len(told["inputs"]) == TINY.n_frames + 1  # and the motion
    assert (place / "out" / "attribution.png").is_file()


def test_an_input_that_the_network_cannot_see_does_not_matter():
    import torch

    model = tiny()
    size = TINY.downsample**2
    with torch.no_grad():  # planes of a frame: values, then validity
        model.lstm.inputs.weight[:, : 2 * size] = 0
    forecaster = Forecaster(model)
    found = occlusion(forecaster, forecaster.read(rain()), [300.0])
    change = dict(zip(found.inputs, (row[0] for row in found.change), strict=True))
    assert change["rain_rate", 600.0] == 0  # the past only came through the ConvLSTM
    assert change["rain_rate", 0.0] > 0
    assert change["motion", None] > 0
    assert sum(row[0] for row in found.shares) == pytest.approx(1)


# Bad input: one line and status 2


def refused(place, capsys, *more: str) -> str:
    assert main(words(place, *more)) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert not (place / "out").exists()
    return said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--leads", "5,x"), "minutes above 0 such as 5,30,60"),
        (("--leads", "0"), "minutes above 0"),
        (("--leads", "25"), "5 min to 20 min ahead, not 25 min"),
        (("--leads", "2"), "not 2 min"),
        (("--time", "yesterday"), "--time must be such as"),
        (("--time", "2016-09-28T16:00"), "has no frame at 2016-09-28T16:00; the nearest is"),
        (("--crop", "500"), "--crop must be 1 to 48"),
        (("--threshold", "-1"), "--threshold must lie between 0 and 8"),
        (("--wet-cost", "-1"), "cost of wet"),
        (("--route", "nowhere.csv"), "nowhere.csv"),
        (("--memory", "0.001"), "a tile takes at least"),
    ],
)  # fmt: skip
def test_bad_words_are_refused(place, capsys, more, said):
    leads = () if "--leads" in more else ("--leads", "5")
    assert said in refused(place, capsys, *more, *leads)


def test_an_unknown_model_is_refused(place, capsys):
    status = main(["forecast", str(place / "event"), "--model", "nonsense"])
    assert status == 2
    assert "no forecaster 'nonsense'" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_refused(place, capsys):
    nowhere = str(place / "nowhere")
    status = main(["forecast", nowhere, "--model", str(place / "model"), "--leads", "5"])
    assert status == 2
    assert "no event" in capsys.readouterr().err


def test_a_truncated_file_is_refused(place, capsys):
    path = place / "event" / "event.npz"
    path.write_bytes(path.read_bytes()[:500])
    assert "event.npz" in refused(place, capsys, "--leads", "5")


def write(place, sequence) -> None:
    write_sequence(place / "event" / "event.npz", sequence)


def test_grids_of_other_cells_are_refused(place, capsys):
    write(place, replace(rain(), cell=4000.0))
    assert "cells of 4000 m" in refused(place, capsys, "--leads", "5")


def test_wrong_time_steps_are_refused(place, capsys):
    sequence = rain()
    times = sequence.times[0] + (sequence.times - sequence.times[0]) * 6
    write(place, replace(sequence, times=times))
    assert "a frame every 1800 s" in refused(place, capsys, "--leads", "5")


def test_other_quantities_are_refused(place, capsys):
    sequence = rain(unknown=False)
    write(place, replace(sequence, frames=sequence.frames / 20, channels=("occupancy",)))
    assert "the model forecasts rain_rate" in refused(place, capsys, "--leads", "5")


def test_a_newest_frame_without_data_is_refused(place, capsys):
    sequence = rain()
    frames = sequence.frames.copy()
    frames[-1] = np.nan
    write(place, replace(sequence, frames=frames))
    assert "nothing is known in the newest frame" in refused(place, capsys, "--leads", "5")


def test_another_folder_is_not_written_over(place, capsys):
    (place / "out").mkdir()
    (place / "out" / "thesis.txt").write_text("mine")
    assert main(words(place, "--leads", "5")) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (place / "out" / "thesis.txt").read_text() == "mine"


# Defined behaviour


def test_a_dry_sky_is_forecast_and_said(place, capsys):
    sequence = rain()
    write(place, replace(sequence, frames=sequence.frames * 0))
    assert main(words(place, "--leads", "5", "--no-film", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dry"]
    assert np.isfinite(told["leads"][0]["probability"])


def test_missing_frames_are_counted(place, capsys):
    sequence = rain()
    kept = [0, 1, 2, 3, 4, 5, 6, 8]
    write(place, replace(sequence, frames=sequence.frames[kept], times=sequence.times[kept]))
    assert main(words(place, "--leads", "5", "--no-film", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["missing_frames"] == 1


def test_an_event_of_one_frame_is_forecast_without_motion(place, capsys):
    write(place, rain().window(0, 1))
    assert main(words(place, "--leads", "5", "--no-film", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["missing_frames"] == TINY.n_frames - 1


# Words and pictures


def test_leads_are_minutes_or_seconds():
    assert read_leads("30, 5,5") == (300.0, 1800.0)
    assert read_leads("0.5s,1s") == (0.5, 1.0)
    assert named(1800.0) == "30 min"
    assert named(0.5) == "0.5 s"
    assert named(90.0) == "90 s"
    check_leads((300.0, 1200.0), TINY)


def test_moments_are_found_by_time():
    sequence = rain()
    assert find_moment(sequence, None) == 8
    assert find_moment(sequence, time_of(3)) == 3
    assert find_moment(sequence, str(int(sequence.times[2]))) == 2


def test_unknown_is_grey_and_no_rain_white():
    pixels = rain_picture(np.array([[np.nan, 0.0, 0.05, 5.0]]))
    assert tuple(pixels[0, 0]) == UNKNOWN
    assert tuple(pixels[0, 1]) == tuple(pixels[0, 2]) == (255, 255, 255)
    assert pixels[0, 3].sum() < 500


def test_more_rain_and_higher_chances_are_darker_or_warmer():
    heavy = rain_picture(np.array([[0.2, 1.0, 5.0]])).astype(int).sum(2)[0]
    assert heavy[0] > heavy[1] > heavy[2]
    likely = chance_picture(np.array([[0.0, 0.5, 1.0]])).astype(int).sum(2)[0]
    assert likely[0] > likely[1] > likely[2]


def test_shares_are_drawn_in_their_places():
    page = attribution_page("t", "c", ["a", "b"], ["5 min", "60 min"], [[1.0, 0.0], [0.0, 1.0]])
    assert page.ndim == 3
    dark = (page.astype(int).sum(2) < 250).sum()
    assert dark > 2000


# Training


def test_training_writes_a_model_that_forecasts(place, capsys):
    (place / "other").mkdir()
    write_sequence(place / "other" / "event.npz", rain(seed=5))
    changes = []
    for name in ("context", "target", "n_frames", "n_leads", "width", "lstm_width", "fine_width"):
        changes += ["--set-model", f"{name}={getattr(TINY, name)}"]
    changes += ["--set-model", "motion.levels=(4,2)", "--set-model", "motion.window=8.0"]
    status = main(
        ["train", "metnet2", "--data", str(place / "event"), "--validation", str(place / "other"),
         "--steps", "2", "--out", str(place / "run"), "--set-train", "validation_crops=2",
         "--json", *changes]
    )  # fmt: skip
    assert status == 0
    told = json.loads(capsys.readouterr().out)
    assert told["step"] == 2
    card = (place / "run" / "best" / "README.md").read_text()
    assert "synthetic rain" in card
    assert "CRPS at" in card
    forecast = ["forecast", str(place / "event"), "--model", str(place / "run"), "--leads", "5"]
    assert main([*forecast, "--no-film", "--out", str(place / "out"), "--json"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "name events to learn from"),
        (("--data", "nowhere"), "no event 'nowhere'"),
        (("--data", "a", "--validation", "a"), "split by event"),
        (("--data", "a", "--size", "huge"), "unknown size 'huge'"),
        (("--data", "a", "--set-model", "wings=2"), "unknown settings of MetNet-2: wings"),
        (("--data", "a", "--set-train", "wings=2"), "wings"),
        (("--data", "a", "--set-train", "leads=0"), "leads must be at least 1"),
    ],
)
def test_trainings_that_cannot_run_are_refused(tmp_path, capsys, more, said):
    assert main(["train", "metnet2", "--out", str(tmp_path / "run"), *more]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert error.count("\n") == 0


@pytest.mark.parametrize("verb", [["forecast"], ["train", "metnet2"]])
def test_help_teaches_by_examples(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([*verb, "--help"])
    assert stop.value.code == 0
    assert "Examples:" in capsys.readouterr().out
