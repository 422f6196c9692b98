"""Trainings of dual encoders: what they learn, resuming, chunks, batches, the verb."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from mural_cases import TINY, squares, tiny_data, tiny_model, translations

from decisive import cli
from learning.caption_set import write_caption_set
from perception.mural.batches import MuralBatches, rows_of
from perception.mural.checkpoint import load_mural, save_mural
from perception.mural.losses import TaskWeights
from perception.mural.model import DualEncoder
from perception.mural.train_config import MuralTrainConfig
from perception.mural.training import MuralData, MuralResult, train_mural

CONFIG = MuralTrainConfig(
    steps=6, batch_size=16, text_batch_size=24, lr=5e-3, warmup_steps=1, log_every=2,
    validate_every=4, save_every=2, norm_batches=2, tensorboard=False,
)  # fmt: skip


def run(out, config=CONFIG, data=None, model=None, **options) -> tuple[DualEncoder, MuralResult]:
    model = model or tiny_model()
    data = data or tiny_data()
    return model, train_mural(model, data, config, out, progress=False, **options)


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.learning
def test_a_language_without_captions_is_learned_from_translations(tmp_path) -> None:
    config = replace(CONFIG, steps=300, batch_size=32, validate_every=300, save_every=300)
    without = replace(config, weights=TaskWeights(text_text=0.0))
    _, alone = run(tmp_path / "alone", without, tiny_data(bitext=False))
    _, both = run(tmp_path / "both", config)
    # 30 captions are possible and several pictures have the same: chance is about 0.2.
    assert min(alone.scores["images-en"], both.scores["images-en"]) > 0.8
    assert alone.scores["images-de"] < 0.3
    assert both.scores["images-de"] > 0.4
    assert both.scores["en-de"] > 0.9


def test_a_stopped_training_ends_bit_by_bit_as_if_it_had_not(tmp_path) -> None:
    whole, result = run(tmp_path / "whole")
    kept = tmp_path / "kept"

    def stop(saved, folder, training) -> None:
        if training["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(kept, save=stop)
    again, resumed = run(kept)
    assert resumed.step == 6
    assert result.scores == resumed.scores
    for name, value in state(whole).items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_another_run_is_not_taken_up(tmp_path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="other config"):
        run(tmp_path, replace(CONFIG, lr=1e-4))
    with pytest.raises(ValueError, match="other bitexts"):
        run(tmp_path, data=replace(tiny_data(), bitexts=[translations(100, 5)]))
    run(tmp_path, replace(CONFIG, lr=1e-4), resume=False)


def test_chunks_train_as_whole_batches_do(tmp_path) -> None:
    _, whole = run(tmp_path / "a", replace(CONFIG, steps=2))
    _, parts = run(tmp_path / "b", replace(CONFIG, steps=2, chunk=5))
    # Embeddings, not weights: where a gradient is zero, AdamW makes steps of its rounding.
    texts, images = ["red on the left", "grün rechts"], squares(4).images
    for one, two in (
        (whole.saved.embed_text(texts), parts.saved.embed_text(texts)),
        (whole.saved.embed_images(images), parts.saved.embed_images(images)),
    ):
        assert torch.allclose(one, two, atol=1e-3)
    assert whole.history[0]["loss"] == pytest.approx(parts.history[0]["loss"], rel=1e-4)


def test_batch_normalisation_gets_statistics_of_the_averaged_weights(tmp_path) -> None:
    config = replace(TINY, backbone="efficientnetv2_b0_quarter", backbone_options={})
    model, result = run(tmp_path, replace(CONFIG, steps=2), model=tiny_model(config))
    assert all(torch.isfinite(value).all() for value in state(model).values())
    assert 0 <= result.scores["images-en"] <= 1


def test_a_task_of_weight_nought_is_left_out(tmp_path) -> None:
    model = tiny_model()
    before = state(model)
    run(tmp_path, replace(CONFIG, weights=TaskWeights(text_text=0.0)), model=model)
    assert torch.equal(model.heads["text-text"].weight, before["heads.text-text.weight"])
    assert not torch.equal(model.heads["image-text"].weight, before["heads.image-text.weight"])


def test_the_saved_one_is_the_averaged_one(tmp_path) -> None:
    told = {}

    def save(saved, folder, training) -> None:
        told.update(training)
        save_mural(folder, saved, "# card")

    _, result = run(tmp_path, save=save)
    saved = load_mural(tmp_path)
    assert saved.languages == ("en", "de")
    assert saved.captioned == ("en",)
    assert told["step"] == 6
    assert told["held_out"] == result.scores == saved.scores
    texts = ["red on the left"]
    assert torch.equal(saved.embed_text(texts), result.saved.embed_text(texts))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "image_text", "text_text"} <= set(rows[0])
    assert "validation/images-de" in rows[-1]


def test_what_cannot_train_is_refused(tmp_path) -> None:
    for change, message in (
        ({"batch_size": 97}, "needs as many pairs"), ({"text_batch_size": 500}, "needs as many"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            run(tmp_path, replace(CONFIG, **change))
    with pytest.raises(ValueError, match="needs translations"):
        run(tmp_path, data=tiny_data(bitext=False))
    for change, message in (
        ({"batch_size": 1}, "two pairs"), ({"chunk": 0}, "chunk"), ({"crop": 0.5}, "crop"),
        ({"return_temperature": 1.0}, "no return"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            replace(CONFIG, **change)


def test_an_epoch_sees_no_item_twice() -> None:
    for seed in (0, 1):
        rows = np.concatenate([rows_of(10, 3, seed, step) for step in range(3)])
        assert len(set(rows.tolist())) == 9
    assert not np.array_equal(rows_of(10, 3, 0, 0), rows_of(10, 3, 0, 3))
    with pytest.raises(ValueError, match="a batch of 11"):
        rows_of(10, 11, 0, 0)


def test_languages_take_turns_and_batches_follow_from_the_step() -> None:
    other = replace(translations(60, 3), languages=("en", "fr"))
    data = squares(40)
    config = replace(CONFIG, text_batch_size=8)
    make = lambda: MuralBatches(  # noqa: E731
        data, [translations(50), other], config, ((0.5,) * 3, (0.25,) * 3), 32,
        torch.device("cpu"),
    )  # fmt: skip
    one, two = make(), make()
    two.text_pairs(9)
    for step in range(4):
        pairs = one.text_pairs(step)
        assert pairs == two.text_pairs(step)
        assert set(pairs.first) <= set((translations(50), other)[step % 2].first)
        seen, again = one.image_texts(step), two.image_texts(step)
        assert torch.equal(seen.images, again.images)
        assert seen.texts == again.texts
        assert seen.images.shape == (16, 3, 32, 32)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    from learning import bitext

    monkeypatch.setattr(bitext, "multi30k", lambda language, split: translations(300))
    for name, data in (("train", squares(150)), ("held", squares(20, 1))):
        write_caption_set(
            tmp_path / name, [(data.images, data.captions)], len(data), (32, 32), ["en"], "mine", {}
        )
    return ["--images", str(tmp_path / "train"), "--held-out", str(tmp_path / "held"),
            "--out", str(tmp_path / "run"), "--bitext", "en-de", "--json"]  # fmt: skip


TINY_WORDS = [
    "--set-model", "size=32", "--set-model", "width=8", "--set-model", "text.width=16",
    "--set-model", "text.table_width=16", "--set-model", "text.inner=8",
    "--set-model", "text.tokens.buckets=512", "--set-train", "tensorboard=false",
    "--set-train", "weights.text_text=0.5", "--set-train", "norm_batches=1", "--steps", "2",
]  # fmt: skip


def test_the_verb_trains_and_writes_a_card(folders, tmp_path, capsys) -> None:
    assert cli.main(["train", "mural", *folders, *TINY_WORDS, "--half"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["step"] == 2
    assert set(told["scores"]) == {"images-en", "en-de"}
    saved = load_mural(tmp_path / "run")
    assert saved.width == 8
    card = (tmp_path / "run" / "last" / "README.md").read_text()
    assert "decisive train mural --images" in card
    assert "300 pairs en-de: Made up" in card
    assert "de were learned from translations alone" in card
    assert cli.main(["train", "mural", *folders, *TINY_WORDS, "--half"]) == 0  # nothing left to do
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bitext", "en-xx"], "--bitext must be none or some of en-de"),
        (["--bitext", "en-de,en-de"], "--bitext must be"),
        (["--size", "huge"], "unknown size 'huge'"),
        (["--set-model", "nothing=1"], "settings of small do not fit"),
        (["--set-model", "loss=hinge"], "softmax, sigmoid"),
        (["--set-train", "lr=fast"], "must be float"),
        (["--set-train", "weights.image=1"], "unknown weight"),
        (["--bitext", "none"], "needs translations"),
        (["--images", "nowhere"], "no pictures with captions here"),
    ],
)
def test_bad_arguments_end_in_one_line(folders, words, message, capsys) -> None:
    assert cli.main(["train", "mural", *folders, "--steps", "1", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_data_of_one_language_is_enough() -> None:
    data = MuralData(squares(10), squares(5))
    assert list(data.images.captions) == ["en"]
