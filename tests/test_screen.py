"""What the user sees: tables, sentences, progress bars, and the help of every argument."""

import io
import sys
from dataclasses import dataclass

import pytest
from rich.console import Console

from decisive import tables
from decisive.arguments import Flag, OptionalFile, Settings, check_writable, parse
from decisive.progress import progress


def printed(table, width=160):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(table)
    return console.file.getvalue()


RESULT = {
    "policy": "block-push-ibc",
    "episodes": 100,
    "success_rate": 0.97,
    "success_ci95": [0.915, 0.99],
    "score_mean": None,
    "return_mean": 1.25,
    "return_std": 0.5,
    "length_mean": 41.3,
    "ms_per_action": {"median": 1.234, "p95": 2.345},
}


def test_results_show_rate_interval_steps_and_speed():
    text = printed(tables.results_table([RESULT], "decisive/BlockPush-v0"))
    for part in (
        *("decisive/BlockPush-v0", "block-push-ibc", "97.0 [91.5, 99.0]"),
        *("1.25 ± 0.50", "41.3", "1.23 (2.35)"),
    ):
        assert part in text


def test_what_an_environment_does_not_report_is_a_dash():
    text = printed(tables.results_table([{**RESULT, "success_rate": None, "success_ci95": None}]))
    assert "97.0" not in text
    assert text.count(" - ") == 2


def test_percentages_and_ratios():
    assert tables.percent(0.5) == "50.0"
    assert tables.percent(1.0, (0.963, 1.0)) == "100.0 [96.3, 100.0]"
    assert tables.percent(None, (0.0, 1.0)) == "-"
    assert tables.ratio(5.6, (2.1, 14.8)) == "5.6 [2.1, 14.8]"
    assert tables.ratio(None, (5.04, 1000.0)) == "> 5.0"


def test_a_comparison_is_one_sentence():
    line = tables.comparison_line(
        {
            "policies": ["ibc", "mse"],
            "only_first": 7,
            "only_second": 1,
            "mcnemar_p": 0.0703125,
            "failure_ratio": 7.0,
            "failure_ratio_ci95": [1.3, 38.1],
        }
    )
    assert line == (
        "paired: only ibc succeeded 7 times, only mse 1 times; McNemar exact p = 0.0703; "
        "mse fails 7.0 [1.3, 38.1] times as often"
    )


def test_facts_and_plain_tables_hold_every_cell():
    text = printed(tables.facts_table({"episodes": 3, "licence": None}, "name-v0"))
    assert "name-v0" in text
    assert "episodes" in text
    assert " - " in text
    text = printed(tables.plain_table(["task", "mse"], [["push", "not run"]], "Title"))
    assert all(word in text for word in ("Title", "task", "mse", "push", "not run"))


def test_a_table_in_a_file_is_not_cut_to_eighty_columns(capsys):
    tables.show(tables.plain_table([f"column {i}" for i in range(10)], [["value"] * 10]), "line")
    shown = capsys.readouterr().out
    assert "column 9" in shown
    assert shown.endswith("line\n")


def test_no_bar_is_drawn_where_there_is_no_terminal(capsys):
    with progress("episodes", 3) as meter:
        meter.advance()
        meter.advance(2, "note")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_drawn_on_stderr_of_a_terminal(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with progress("episodes", 3) as meter:
        meter.advance(2, "two succeeded")
    assert "episodes" in terminal.getvalue()
    assert "2/3" in terminal.getvalue()
    assert "two succeeded" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@dataclass(frozen=True)
class Sample:
    """Do something.

    Examples:
      decisive sample --name a
    """

    name: str
    """Its name."""
    settings: Settings = ()
    """An option."""
    out: OptionalFile = None
    """A file."""
    fast: Flag = False
    """Hurry."""


def test_arguments_become_a_dataclass():
    words = ["--name", "x", "--set", "a=1", "--set", "b=2", "--fast"]
    assert parse(Sample, words, "sample") == Sample("x", ("a=1", "b=2"), None, True)


def test_help_teaches_by_example(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Sample, ["--help"], "sample")
    assert not stop.value.code
    text = capsys.readouterr().out
    assert "decisive sample --name a" in text
    assert "--set NAME=VALUE" in text
    assert "--no-fast" not in text


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["--name"]),
        (["--nmae", "x"], ["--nmae", "--name"]),
        (["--name"], ["--name"]),
        (["--name", "x", "extra"], ["extra"]),
    ],
)
def test_bad_arguments_are_one_line_without_a_box(words, parts):
    with pytest.raises(ValueError, match="--help lists all options") as caught:
        parse(Sample, words, "sample")
    text = str(caught.value)
    assert "\n" not in text
    assert not set("│╭╮╰╯─") & set(text)
    assert all(part in text for part in parts)


def test_a_path_is_tried_without_touching_what_is_there(tmp_path):
    there = tmp_path / "there.json"
    there.write_text("old")
    assert check_writable(there) == there
    assert there.read_text() == "old"
    assert check_writable(tmp_path / "new" / "file.json").parent.is_dir()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["new", "there.json"]
    with pytest.raises(ValueError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(OSError, match=r"there\.json"):
        check_writable(there / "below.json")
