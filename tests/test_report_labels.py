"""Labels from the text of reports, sentence by sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.report_labels import FINDINGS, MAX_LENGTH, Labeller, label_report, sentences

P, U, A = "present", "uncertain", "absent"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # plain
        ("Right lower lobe pneumonia.", {"pneumonia": P}),
        ("Small EFFUSION and cardiomegaly", {"effusion": P, "cardiomegaly": P}),
        ("The heart is mildly enlarged.", {"cardiomegaly": P}),
        ("A massive improvement.", {}),
        # cues before
        ("No pneumonia.", {"pneumonia": A}),
        ("There is no evidence of pneumonia or effusion.", {"pneumonia": A, "effusion": A}),
        (
            "No focal consolidation, pleural effusion, or pneumothorax.",
            {"consolidation": A, "effusion": A, "pneumothorax": A},
        ),
        ("Lungs are free of infiltrates.", {"opacity": A}),
        ("Negative for fracture.", {"fracture": A}),
        ("Neither effusion nor pneumothorax.", {"effusion": A, "pneumothorax": A}),
        ("There isn't an effusion.", {"effusion": A}),
        ("The heart is not enlarged.", {"cardiomegaly": A}),
        ("No finding suspicious for pneumonia.", {"pneumonia": A}),
        # cues after
        ("Pneumothorax: none.", {"pneumothorax": A}),
        ("Effusion and pneumothorax are absent.", {"effusion": A, "pneumothorax": A}),
        ("The effusion has resolved.", {"effusion": A}),
        ("Pneumonia was ruled out.", {"pneumonia": A}),
        ("An effusion is no longer seen.", {"effusion": A}),
        # a finding of its own before or after
        ("Effusion is present and pneumothorax is absent.", {"effusion": P, "pneumothorax": A}),
        ("Moderate effusion without pneumothorax.", {"effusion": P, "pneumothorax": A}),
        ("Effusion persists, pneumothorax has resolved.", {"effusion": P, "pneumothorax": A}),
        # ends of scope
        ("No pneumothorax but a small effusion.", {"pneumothorax": A, "effusion": P}),
        ("No pneumothorax; small effusion.", {"pneumothorax": A, "effusion": P}),
        ("No pneumothorax. Effusion on the left.", {"pneumothorax": A, "effusion": P}),
        ("No abnormality except for a nodule.", {"nodule": P}),
        ("No pneumothorax and there is an effusion.", {"pneumothorax": A, "effusion": P}),
        ("No pneumothorax\nEffusion on the left", {"pneumothorax": A, "effusion": P}),
        ("No pneumothorax\nor effusion.", {"pneumothorax": A, "effusion": A}),
        ("A 2.5 cm nodule. No effusion.", {"nodule": P, "effusion": A}),
        # only look like negation
        ("No change in the effusion.", {"effusion": P}),
        ("No significant interval increase of the effusion.", {"effusion": P}),
        ("Not only pneumonia.", {"pneumonia": P}),
        ("No doubt pneumonia.", {"pneumonia": P}),
        # negations of negations
        ("The lungs are not free of effusion.", {"effusion": P}),
        ("Not without effusion.", {"effusion": P}),
        ("It is not true that there is no effusion.", {"effusion": P}),
        ("The effusion has not resolved.", {"effusion": P}),
        ("The effusion is not absent.", {"effusion": P}),
        # two denials of two findings are none of them
        ("No pneumonia and no effusion.", {"pneumonia": A, "effusion": A}),
        ("No pneumonia, no effusion, without edema.", {"pneumonia": A, "effusion": A, "edema": A}),
        ("No fever, no effusion.", {"effusion": A}),
        # uncertain
        ("Possible pneumonia.", {"pneumonia": U}),
        ("Pneumonia cannot be excluded.", {"pneumonia": U}),
        ("Cannot exclude pneumonia.", {"pneumonia": U}),
        ("Pneumonia is not ruled out.", {"pneumonia": U}),
        ("Opacity which may represent pneumonia.", {"opacity": P, "pneumonia": U}),
        ("Findings consistent with edema.", {"edema": U}),
        ("Pneumonia is unlikely.", {"pneumonia": U}),
        ("Atelectasis versus consolidation.", {"atelectasis": P, "consolidation": U}),
        # asked for, or of the past
        ("Rule out pneumonia.", {}),
        ("Evaluate for pneumothorax.", {}),
        ("? pneumonia", {}),
        ("Pneumonia?", {}),
        ("History of tuberculosis.", {}),
        ("History of tuberculosis, now with effusion.", {"effusion": P}),
    ],
)
def test_a_sentence_says_what_a_reader_takes_from_it(text, expected) -> None:
    assert dict(label_report(text).findings) == expected


def test_a_comma_ends_no_scope() -> None:
    # The known limit of such rules: lists need the comma.
    found = label_report("Although no effusion, pneumonia is seen.").findings
    assert found == {"effusion": A, "pneumonia": A}


def test_present_comes_before_uncertain_and_that_before_absent() -> None:
    assert label_report("No effusion. Possible effusion.").findings == {"effusion": U}
    assert label_report("Possible effusion. Small effusion. No effusion.").findings == {
        "effusion": P
    }


@pytest.mark.parametrize(
    ("text", "abnormal"),
    [
        ("Normal chest.", 0),
        ("The lungs are clear. No effusion.", 0),
        ("No acute cardiopulmonary abnormality.", 0),
        ("No effusion.", 0),
        ("No acute disease. Healed rib fracture.", 1),
        ("No acute abnormality other than a small nodule.", 1),
        ("No acute abnormality. Possible nodule.", -1),
        ("The lungs are not clear.", -1),
        ("No longer a normal chest.", -1),
        ("Probably a normal chest.", -1),
        ("Is this a normal chest?", -1),
        ("An abnormal chest.", -1),
        ("Comparison with the film of May.", -1),
        ("", -1),
    ],
)
def test_reports_are_normal_abnormal_or_neither(text, abnormal) -> None:
    assert label_report(text).abnormal == abnormal


def test_sections_that_ask_or_look_back_are_left_out() -> None:
    report = (
        "INDICATION: Fever, pneumonia suspected.\nCOMPARISON: film with effusion.\n"
        "FINDINGS: The heart is normal in size. No effusion.\nTubes: none.\n"
        "Impression: No acute disease."
    )
    found = label_report(report)
    assert found.findings == {"effusion": A}
    assert found.abnormal == 0
    assert not any("Fever" in sentence for sentence in sentences(report))
    assert any("Tubes" in sentence for sentence in sentences(report))


def test_columns_are_labels_for_training() -> None:
    found = label_report("Small effusion. Possible pneumonia. No pneumothorax.")
    columns = {name: found.column(name) for name in FINDINGS}
    assert columns["effusion"] == 1
    assert columns["pneumonia"] == -1
    assert columns["pneumothorax"] == 0
    assert columns["fracture"] == -1
    assert label_report("Normal chest.").column("fracture") == 0


def test_mentions_say_where_a_label_comes_from() -> None:
    (one,) = label_report("Heart normal. No  pleural\neffusion seen.").mentions
    assert (one.finding, one.status, one.text) == ("effusion", A, "effusion")
    assert one.sentence == "No pleural effusion seen"


def test_other_findings_take_other_words() -> None:
    labeller = Labeller({"scratch": (r"scratch(?:es|ed)?",)}, (r"part is sound",))
    assert labeller.label("Scratched at the rim, no dent.").findings == {"scratch": P}
    assert labeller.label("The part is sound").abnormal == 0
    assert labeller.label("No scratches").abnormal == 0


@given(st.text(max_size=200))
@settings(max_examples=60)
def test_any_text_is_read(text) -> None:
    found = label_report(text)
    assert found.abnormal in (-1, 0, 1)
    assert set(found.findings) <= set(FINDINGS)


@given(
    st.lists(
        st.sampled_from(
            ["no", "not", "effusion", "pneumonia", "but", "without", "possible", ",", ".", "?",
             "is", "absent", "excluded", "cannot be", ":", "none", "\n", "isn't"]
        ),
        max_size=12,
    )
)  # fmt: skip
@settings(max_examples=60)
def test_any_order_of_cues_is_read_and_upper_case_changes_nothing(words) -> None:
    text = " ".join(words)
    small, large = label_report(text), label_report(text.replace("\n", " ").upper())
    if "\n" not in text:
        assert small.findings == large.findings
    assert set(small.findings.values()) <= {P, U, A}


@pytest.mark.parametrize("words", ["No effusion ", "no ", "effusion ", "may be "])
def test_long_sentences_are_read_in_pieces(words) -> None:
    found = label_report(words * (20_000 // len(words))).findings
    assert found in ({}, {"effusion": A}, {"effusion": P})
    assert max(map(len, sentences("no " * 5000))) == 1000


def test_what_cannot_be_is_refused() -> None:
    for call, said in (
        (lambda: label_report(None), "must be text, got NoneType"),
        (lambda: label_report("x" * (MAX_LENGTH + 1)), "at most 100,000 characters"),
        (lambda: Labeller({}), "at least one finding"),
        (lambda: Labeller({"a": "word"}), "list of regular expressions"),
        (lambda: Labeller({"a": ()}), "list of regular expressions"),
        (lambda: Labeller({"a": ("(",)}), "no regular expression"),
        (lambda: Labeller({"a": ("x*",)}), "fits everything"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
