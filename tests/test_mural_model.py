"""The dual encoder: shapes, gradients, embeddings of anything, checkpoints, index, recall."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mural_cases import TINY, tiny_model, tiny_saved
from torch.nn import functional as F

from envs.captions.facts import Facts, Thing
from envs.captions.sentences import captions
from learning.checkpoint import CheckpointError
from perception.mural.checkpoint import (
    SHIPPED,
    SavedMural,
    count_parameters,
    load_mural,
    read_config,
    save_mural,
    shipped_murals,
)
from perception.mural.index import Index
from perception.mural.model import SIZES, TASKS, DualEncoder, MuralConfig
from perception.mural.scores import (
    bootstrap_mean_recall,
    chance_mean_recall,
    mean_recall,
    ranks,
    ranks_of,
    recalls,
)
from perception.mural.text import TextConfig, TextTower
from perception.mural.tokenizer import Tokenizer, TokenizerConfig

TEXTS = ["a red chair", "ein roter Stuhl und ein Tisch", "红色的椅子"]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("inner", [16, 8])
def test_every_parameter_gets_a_gradient(loss, inner) -> None:
    text = dataclasses.replace(TINY.text, inner=inner)
    model = tiny_model(dataclasses.replace(TINY, loss=loss, text=text))
    tokens = model.tokenizer(TEXTS * 2)
    images = model.encode_image(torch.randn(6, 3, 32, 32))
    total = model.loss(images, model.encode_text(tokens), "image-text")
    pairs = model.encode_text(tokens, "text-text")
    total = total + model.loss(pairs, pairs.roll(1, 0), "text-text")
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_embeddings_have_length_one_and_padding_changes_nothing() -> None:
    model = tiny_model().eval()
    for task in TASKS:
        together = model.encode_text(model.tokenizer(TEXTS), task)
        assert torch.allclose(together.norm(dim=1), torch.ones(3))
        for text, row in zip(TEXTS, together, strict=True):
            alone = model.encode_text(model.tokenizer([text]), task)[0]
            assert torch.allclose(alone, row, atol=1e-6)
    captions, translations = (model.encode_text(model.tokenizer(TEXTS), t) for t in TASKS)
    assert not torch.allclose(captions, translations)


def test_the_transformer_reads_order_and_a_bag_does_not() -> None:
    texts = ["red chair blue table", "blue chair red table"]
    for layers, alike in ((0, True), (1, False)):
        torch.manual_seed(0)
        tower = TextTower(dataclasses.replace(TINY.text, layers=layers)).eval()
        one, two = tower(Tokenizer(TINY.text.tokens)(texts))
        assert torch.allclose(one, two, atol=1e-5) == alike


def test_words_are_dropped_in_training_alone_and_never_all() -> None:
    torch.manual_seed(0)
    tower = TextTower(dataclasses.replace(TINY.text, dropout=0.9))
    tokens = Tokenizer(TINY.text.tokens)(["one two three", "four"])
    assert all(torch.isfinite(tower(tokens)).all() for _ in range(20))
    draws = [tower(tokens) for _ in range(50)]
    assert any(not torch.equal(draw[0], draws[0][0]) for draw in draws)
    assert all(torch.equal(draw[1], draws[0][1]) for draw in draws)  # a single word stays
    tower.eval()
    assert torch.equal(tower(tokens), tower(tokens))


def test_the_paper_s_shape_is_that_of_bert_base_and_efficientnet_b5() -> None:
    found = count_parameters(SIZES["paper"])
    rows = 250_001 * 768
    # A layer: attention 4 d (d + 1), two linear layers 8 d^2 + 5 d, two norms 4 d.
    layer = 4 * 768 * 769 + 8 * 768 * 768 + 5 * 768 + 4 * 768
    assert found["text"] == rows + 12 * layer + 96 * 768 + 2 * 768
    # torchvision's EfficientNet-B5 has 28,340,784 below its classifier.
    assert found["image"] == 28_340_784 + 2049 * 640
    assert found["all"] == found["text"] + found["image"] + 2 * 769 * 640 + 2


def test_the_small_size_fits_into_ten_megabytes_of_half_precision() -> None:
    assert 2 * count_parameters(SIZES["small"])["all"] < 9.9e6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MuralConfig(loss="hinge"), "softmax, sigmoid"),
        (lambda: MuralConfig(size=4), "8 pixels"),
        (lambda: TextConfig(inner=512), "at most width"),
        (lambda: TextConfig(inner=66), "multiple of heads"),
        (lambda: TextConfig(layers=-1), "at least 1 and layers 0"),
        (lambda: TextConfig(dropout=1.0), r"\[0, 1\)"),
    ],
)
def test_impossible_shapes_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_checkpoint_gives_the_same_embeddings(tmp_path) -> None:
    saved = tiny_saved()
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    save_mural(tmp_path / "m", saved, "# card")
    found = load_mural(tmp_path / "m")
    assert found.languages == ("en", "de")
    assert found.captioned == ("en",)
    assert torch.equal(found.embed_text(TEXTS), saved.embed_text(TEXTS))
    assert torch.equal(found.embed_images(images), saved.embed_images(images))
    assert read_config(json.loads(json.dumps(dataclasses.asdict(TINY)))) == TINY
    save_mural(tmp_path / "h", saved, "# card", half=True)
    halved = load_mural(tmp_path / "h").embed_text(TEXTS)
    assert halved.dtype == torch.float32
    assert (halved - saved.embed_text(TEXTS)).abs().max() < 2e-3
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("m", "h")]
    assert sizes[1] < 0.6 * sizes[0]


def test_images_of_several_sizes_are_embedded_in_order() -> None:
    saved = tiny_saved()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((32, 32), (20, 70), (64, 9))]
    together = saved.embed_images(images)
    alone = torch.cat([saved.embed_images(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-6)
    assert saved.embed_images([]).shape == (0, 8)
    assert saved.embed_text([]).shape == (0, 8)
    many = saved.embed_text(TEXTS * 100)
    assert torch.allclose(many[:3], many[-3:], atol=1e-6)


def test_bad_input_of_the_embeddings_is_refused() -> None:
    saved = tiny_saved()
    with pytest.raises(TypeError, match="give a list"):
        saved.embed_text("red")
    with pytest.raises(ValueError, match="text 300 has no word"):
        saved.embed_text(["red"] * 300 + ["  "])
    for wrong in (
        np.zeros((2, 2, 3), np.uint8), np.zeros((1, 2, 2, 3), np.float32),
        np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 0, 2, 3), np.uint8),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"images must be uint8 \(B, H, W, 3\)"):
            saved.embed_images(wrong)
    with pytest.raises(ValueError, match="sides of at most"):
        saved.embed_images(np.zeros((1, 1, 20_000, 3), np.uint8))
    with pytest.raises(ValueError, match="std must be positive"):
        SavedMural(saved.model, (0.5,) * 3, (1.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["config"].pop("text"), "must hold 'text'"),
        (lambda d: d["config"].update(width=16), "must be"),
        (lambda d: d["config"].update(backbone="nothing"), "unknown|nothing"),
        (lambda d: d["config"]["text"].update(more=1), "not the config"),
        (lambda d: d["spec"].update(std=[0, 1, 1]), "std must be positive"),
        (lambda d: d["spec"].pop("languages"), "must hold 'languages'"),
        (lambda d: d.update(method="classifier"), "not a mural"),
    ],
)
def test_a_broken_checkpoint_is_refused_in_one_line(tmp_path, change, message) -> None:
    save_mural(tmp_path / "m", tiny_saved(), "")
    path = tmp_path / "m" / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_mural(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_shipped() -> None:
    with pytest.raises(CheckpointError, match="no mural 'nothing'"):
        load_mural("nothing")


def test_the_shipped_one_is_small_and_says_the_same_in_five_languages() -> None:
    folder = shipped_murals()[SHIPPED]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    saved = load_mural()
    assert saved.languages == ("en", "de", "fr", "cs", "zh")
    assert saved.captioned == ("en",)
    facts = [Facts("bathroom", (Thing("bathtub", "white", "left"),)),
             Facts("table", (Thing("mug", "red", "left"),)),
             Facts("living room", (Thing("sofa", "green", "left"),))]  # fmt: skip
    english = saved.embed_text([captions(one, "en")[0] for one in facts])
    for language in ("de", "fr", "cs", "zh"):
        said = saved.embed_text([captions(one, language)[0] for one in facts])
        assert (said @ english.T).argmax(1).tolist() == [0, 1, 2], language


def test_the_index_gives_the_nearest_in_order() -> None:
    embeddings = F.normalize(torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 0], [-1, 0]]), dim=1)
    index = Index(["a", "b", "c", "d", "e"], embeddings)
    found = index.search(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 3)
    assert [match.name for match in found[0]] == ["a", "d", "c"]  # equal ones in their order
    assert [match.name for match in found[1]] == ["b", "c", "a"]
    assert found[0][2].score == pytest.approx(2**-0.5)
    assert [match.name for match in index.search(torch.tensor([[1.0, 0.0]]), 1)[0]] == ["a"]
    assert len(index.search(torch.tensor([[1.0, 0.0]]), 99)[0]) == len(index) == 5


@given(st.integers(0, 10_000))
def test_the_index_is_a_sort(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(20, 3, generator=generator), dim=1)
    query = F.normalize(torch.randn(1, 3, generator=generator), dim=1)
    names = [str(k) for k in range(20)]
    expected = sorted(names, key=lambda name: -float(query @ rows[int(name)]))
    assert [match.name for match in Index(names, rows).search(query, 20)[0]] == expected


def test_the_index_refuses_what_it_cannot_search() -> None:
    with pytest.raises(ValueError, match="one for each name"):
        Index(["a"], torch.eye(2))
    for bad in (torch.ones(2, 2), torch.full((2, 2), float("nan"))):
        with pytest.raises(ValueError, match="length 1"):
            Index(["a", "b"], bad)
    index = Index(["a", "b"], torch.eye(2))
    for queries, k in ((torch.eye(3), 1), (torch.ones(2), 1), (torch.eye(2), 0)):
        with pytest.raises(ValueError, match="queries must be"):
            index.search(queries, k)


def test_ranks_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.3, 0.3, 0.3]])
    assert ranks_of(scores, "abc", "abc").tolist() == [0, 1, 2]  # equal ones count against
    # Two right items: the better one counts, and neither is in the other's way.
    assert ranks_of(scores, "aac", "aac").tolist() == [0, 0, 2]
    assert ranks(torch.eye(2), torch.eye(2).flip(0), "ab", "ba").tolist() == [0, 0]
    nothing = torch.tensor([[float("nan"), 0.2], [0.1, 0.2]])
    assert ranks_of(nothing, "ab", "ab").tolist()[0] == 1
    with pytest.raises(ValueError, match="no right item"):
        ranks_of(scores, "abx", "abc")


def test_mean_recall_and_chance_by_hand() -> None:
    found = np.array([0, 4, 7, 20])
    assert recalls(found) == {"R@1": 0.25, "R@5": 0.5, "R@10": 0.75}
    assert mean_recall(found) == pytest.approx(0.5)
    assert mean_recall(found, np.zeros(4, int)) == pytest.approx(0.75)
    keys = list(range(100))
    assert chance_mean_recall(keys, keys) == pytest.approx((0.01 + 0.05 + 0.10) / 3)
    # Two right ones of four: 1 - C(2, k) / C(4, k) is 1/2, then certain.
    assert chance_mean_recall(["a"], ["a", "a", "b", "c"]) == pytest.approx((0.5 + 1 + 1) / 3)
    low, high = bootstrap_mean_recall([found, found])
    assert low < 0.5 < high
    assert bootstrap_mean_recall([np.zeros(9, int)]) == (1.0, 1.0)


def test_chance_is_what_random_scores_give() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = [k % 30 for k in range(60)]
    draws = [
        mean_recall(ranks_of(torch.rand(60, 60, generator=generator), keys, keys))
        for _ in range(100)
    ]
    assert np.mean(draws) == pytest.approx(chance_mean_recall(keys, keys), abs=0.01)


def test_a_default_tokenizer_fits_the_text_tower() -> None:
    with torch.device("meta"):
        model = DualEncoder(SIZES["small"])
    assert model.text.table.weight.shape[0] == TokenizerConfig().buckets + 1
