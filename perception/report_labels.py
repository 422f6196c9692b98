"""Labels from the text of reports: findings by regular expressions, with what negates them.

For each finding: mentioned and present, absent, or uncertain; not mentioned says nothing. From
these follows whether a report is of a normal or an abnormal image. Rules of this kind made the
labels of the public radiograph sets; they are no reading of a report, and are wrong where it is
worded in other ways. English only. Research software, not a medical device.

Sources: Chapman et al. 2001, "A Simple Algorithm for Identifying Negated Findings and Diseases in
Discharge Summaries" (NegEx: cues before and after, phrases that only look like negation, ends of
scope); Irvin et al. 2019, "CheXpert", section 2 (present over uncertain over absent).

Departure: a negation of a negation ("not free of effusion", "no doubt that") is undone, which NegEx
leaves as it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from learning.image_set import UNLABELLED

Status = Literal["present", "uncertain", "absent"]
_RANK: tuple[Status, ...] = ("present", "uncertain", "absent")  # What several mentions come to.

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "pneumonia": (r"(?:broncho)?pneumonias?", r"pneumonitis"),
    "consolidation": (r"consolidat(?:ions?|ed|ive)", r"air[- ]?bronchograms?"),
    "opacity": (r"opaci(?:ty|ties|fications?)", r"infiltrat(?:es?|ions?)", r"airspace disease"),
    "edema": (r"o?edema", r"(?:vascular|pulmonary) congestion"),
    "effusion": (r"effusions?", r"pleural fluid", r"blunt(?:ing|ed) of the costophrenic angles?"),
    "pneumothorax": (r"pneumothora(?:x|ces)",),
    "atelectasis": (r"atelecta(?:sis|ses|tic)", r"collapsed (?:lung|lobe)"),
    "cardiomegaly": (
        r"cardiomegaly",
        r"enlarged (?:heart|cardiac silhouette)",
        r"(?:heart|cardiac silhouette) is (?:\w+ )?enlarged",
    ),
    "nodule": (r"nodules?", r"nodular", r"mass(?:es)?", r"lesions?"),
    "fracture": (r"fractur(?:es?|ed)",),
    "tuberculosis": (r"tuberculosis", r"tb", r"cavit(?:y|ies|ary|ation)"),
    "fibrosis": (r"fibro(?:sis|tic)", r"scarr?(?:ing|s)?"),
    "emphysema": (r"emphysema(?:tous)?", r"hyperinflat(?:ion|ed)"),
}
"""Findings of a chest radiograph and their words, regular expressions without case."""

NORMAL: tuple[str, ...] = (
    r"(?:normal|unremarkable) (?:chest|study|examination|exam|radiographs?|film|x[- ]?rays?)",
    r"(?:chest|study|examination|exam|radiographs?|film|x[- ]?ray) (?:is|are|appears?) "
    r"(?:(?!not )\w+ )?(?:normal|unremarkable)",
    r"lungs (?:are|appear|remain) (?:(?!not )\w+ )?clear",
    r"clear lungs",
    r"no (?:acute |active |significant |focal )*(?:cardiopulmonary |cardiothoracic |pulmonary |"
    r"intrathoracic |radiographic )?(?:abnormalit(?:y|ies)|disease|process|findings?)",
)
"""Sentences that call the whole image normal; they count where nothing is present."""

PSEUDO: tuple[str, ...] = (
    r"no (?:significant |interval |appreciable )*(?:change|increase|decrease|improvement)",
    r"not (?:only|necessarily|just)",
    r"without (?:significant |interval )*(?:change|improvement)",
    r"no (?:longer )?doubt",
    r"no further",
)
"""Only look like negation: what follows them is not denied."""

NEGATED_BEFORE: tuple[str, ...] = (
    r"no (?:definite |convincing |radiographic |acute )?(?:evidence|signs?|suggestion) (?:of|for)",
    r"(?:negative|free|clear) (?:of|for|from)",
    r"absence of",
    r"(?:has|have|was|were|is|are) ruled out for",
    r"resolution of",
    r"excludes?",
    r"lacks?",
    r"without",
    r"denies",
    r"neither",
    r"never",
    r"nor",
    r"no",
    r"not",
    r"(?<=\w)n't",
)
"""What is denied stands after these; longer phrases first."""

NEGATED_AFTER: tuple[str, ...] = (
    r"(?:is|are|was|were|has been|have been) (?:\w+ )?(?:ruled out|excluded|absent|resolved)",
    r"(?:has|have) (?:\w+ )?(?:resolved|cleared|disappeared)",
    r"(?:is|are|was|were) (?:not|no longer) (?:\w+ )?(?:seen|present|identified|visible|evident|"
    r"visuali[sz]ed|demonstrated|detected|appreciated|noted)",
    r"(?:not|no longer) (?:\w+ )?(?:seen|present|identified|visible|evident|detected)",
    r": ?(?:none|no|negative|absent)\b",
    r"absent",
    r"resolved",
)
"""What is denied stands before these."""

UNCERTAIN_BEFORE: tuple[str, ...] = (
    r"(?:can ?not|could not|can't|couldn't|unable to|difficult to|not) "
    r"(?:be |entirely |completely |definitively )*(?:exclude|excluding|rule out)",
    r"(?:possible|possibly|probable|probably|questionable|equivocal|suspected|presumed|likely)",
    r"(?:may|might|could) (?:represent|reflect|be|indicate|suggest)",
    r"(?:suspicious|concerning|worrisome) for",
    r"(?:suspicion|possibility|question|concern) (?:of|for)",
    r"(?:suggests?|suggesting|suggestive of|consistent with|compatible with|versus|vs\.?)",
    r"(?:unlikely|doubtful) to be",
)
UNCERTAIN_AFTER: tuple[str, ...] = (
    r"(?:can ?not|could not|can't|couldn't) (?:\w+ )?be (?:\w+ )?(?:excluded|ruled out)",
    r"(?:is|are|was|were) not (?:\w+ )?(?:excluded|ruled out)",
    r"not (?:\w+ )?(?:excluded|ruled out)",
    r"(?:is|are|was|were) (?:\w+ )?(?:possible|suspected|questioned|unlikely|doubtful|likely)",
    r"(?:may|might|could) be (?:\w+ )?(?:present|considered)",
)
"""What may or may not be."""

ASKED: tuple[str, ...] = (
    r"(?:evaluate|assess|check|look|looking|evaluation|assessment|screening) for",
    r"(?:to )?rule out",
    r"r/o",
    r"(?:history|hx) of",
    r"\?(?=\s*\w)",
)
"""A question or the past, not the image: such mentions say nothing."""

BREAKS: tuple[str, ...] = (
    r"but",
    r"however",
    r"(?:al)?though",
    r"except(?:ing)?(?: for)?",
    r"apart from",
    r"aside from",
    r"other than",
    r"with the exception of",
    r"whereas",
    r"while",
    r"nevertheless",
    r"yet",
    r"there (?:is|are)(?! no\b)",
    r"now (?:with|has|have|shows?)",
)
"""Ends of a scope inside a sentence."""

AFFIRMED: tuple[str, ...] = (
    r"(?:is|are|remains?|was|were) (?:now |again |still )?(?:present|seen|noted|visible|identified|"
    r"evident|stable|unchanged|increased|persistent)",
    r"(?:is|are|was|were|has|have|remains?) not (?:\w+ )?(?:absent|resolved|cleared|disappeared)",
    r"persists?",
)
"""A denial after these is of the next finding, or is denied itself."""

_SILENT_SECTIONS = (
    "indication", "history", "clinical history", "clinical information", "clinical indication",
    "reason for exam", "reason for examination", "technique", "comparison", "procedure",
)  # fmt: skip
_SECTION = re.compile(r"^[ \t]*([A-Za-z][A-Za-z ]{2,40}):", re.MULTILINE)
_SENTENCE = re.compile(
    r"(?<=[.!;])(?<!\bdr\.)(?<!\bvs\.)\s+|(?<=\w\?)\s+|[.;!]$|\n\s*\n"
    # A new line of a list; wrapped lines go on in small letters.
    r"|\n[ \t]*(?=(?-i:[A-Z])|[-*\d])",
    re.IGNORECASE,
)
_WORD_GAP = re.compile(r"^(?:\s+[\w'-]+){0,6}\s*$")
MAX_LENGTH = 100_000
"""Characters of the longest report that is looked at."""

_LONGEST = 1000  # Characters of a sentence; one without an end is read in such pieces.


@dataclass(frozen=True)
class Mention:
    """A finding in a report.

    Attributes:
        finding: its name.
        status: what the sentence says of it.
        text: the words of the finding.
        sentence: where they stand.
    """

    finding: str
    status: Status
    text: str
    sentence: str


@dataclass(frozen=True)
class Labels:
    """What a report comes to.

    Attributes:
        findings: status of each finding that is mentioned.
        abnormal: 1 if a finding is present; 0 if none is present or uncertain, and the report
            calls the image normal or denies findings; else -1, which says nothing.
        mentions: what the labels come from.
    """

    findings: Mapping[str, Status]
    abnormal: int
    mentions: tuple[Mention, ...]

    def column(self, finding: str) -> int:
        """Label of a finding for training: 1 present, 0 absent, -1 uncertain or not mentioned.

        In a report of a normal image, what is not mentioned is absent.
        """
        status = self.findings.get(finding)
        if status is None:
            return 0 if self.abnormal == 0 else UNLABELLED
        return {"present": 1, "absent": 0, "uncertain": UNLABELLED}[status]


@dataclass(frozen=True)
class Labeller:
    """Rules; the defaults are for chest radiographs, other findings take other words.

    Attributes:
        findings: regular expressions of each.
        normal: regular expressions of sentences that call the whole image normal.
    """

    findings: Mapping[str, Sequence[str]]
    normal: Sequence[str] = NORMAL

    def __post_init__(self) -> None:
        """Refuse names without words, and words that are no regular expressions."""
        if not self.findings:
            raise ValueError("findings must name at least one finding and its words")
        for name, words in self.findings.items():
            if isinstance(words, str) or not words or not all(words):
                raise ValueError(f"{name!r} must have a list of regular expressions, got {words!r}")
            try:
                empty = _any_of(words).search("") is not None
            except re.error as error:
                raise ValueError(f"{name!r} has no regular expression: {error}") from None
            if empty:
                raise ValueError(f"{name!r} has an expression that fits everything: {words!r}")

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        return {name: _any_of(words) for name, words in self.findings.items()}

    @cached_property
    def _normal(self) -> re.Pattern[str]:
        return _any_of(self.normal)

    def label(self, report: str) -> Labels:
        """Read a report.

        Args:
            report: its text; sections such as "INDICATION:" and "HISTORY:" are left out.

        Raises:
            ValueError: for what is no text, or longer than 100,000 characters.
        """
        if not isinstance(report, str):
            raise ValueError(f"a report must be text, got {type(report).__name__}")
        if len(report) > MAX_LENGTH:
            raise ValueError(f"a report has at most {MAX_LENGTH:,} characters, got {len(report):,}")
        mentions: list[Mention] = []
        normal = False
        for sentence in sentences(report):
            found = self._mentions(sentence)
            mentions += found
            # "No acute disease except for a nodule" calls nothing normal.
            if self._calls_normal(sentence) and all(m.status == "absent" for m in found):
                normal = True
        findings: dict[str, Status] = {}
        for mention in mentions:
            before = findings.get(mention.finding, "absent")
            first = min(_RANK.index(before), _RANK.index(mention.status))
            findings[mention.finding] = _RANK[first]
        return Labels(findings, _abnormal(findings, normal), tuple(mentions))

    def _calls_normal(self, sentence: str) -> bool:
        """Whether the image is called normal, and nothing before denies that."""
        match = self._normal.search(sentence)
        if match is None or sentence.endswith("?"):
            return False
        before = [cue for cue in _cues(sentence) if cue.end <= match.start()]
        return not any(cue.kind in ("negated before", "uncertain before") for cue in before)

    def _mentions(self, sentence: str) -> list[Mention]:
        spans = [
            (match.start(), match.end(), name)
            for name, pattern in self._patterns.items()
            for match in pattern.finditer(sentence)
        ]
        spans.sort(key=lambda span: (span[0], -span[1]))
        if sentence.endswith("?"):
            return []
        cues = _cues(sentence)
        found = []
        for start, end, name in spans:
            status = _status(sentence, start, end, spans, cues)
            if status is not None:
                found.append(Mention(name, status, sentence[start:end], sentence))
        return found


def _abnormal(findings: Mapping[str, Status], normal: bool) -> int:
    if "present" in findings.values():
        return 1
    if "uncertain" in findings.values():
        return UNLABELLED
    return 0 if normal or findings else UNLABELLED


def sentences(report: str) -> list[str]:
    """Sentences of the sections that tell of the image, whitespace made single."""
    spans = [(match.start(), match.end(), match[1]) for match in _SECTION.finditer(report)]
    kept, silent, last = [], False, 0
    for start, end, name in spans:
        known = " ".join(name.lower().split())
        if known in _SILENT_SECTIONS or known in ("findings", "impression", "conclusion", "report"):
            if not silent:
                kept.append(report[last:start])
            silent, last = known in _SILENT_SECTIONS, end
    if not silent:
        kept.append(report[last:])
    parts = [part for text in kept for part in _SENTENCE.split(text)]
    plain = [" ".join(part.split()) for part in parts]
    return [part[i : i + _LONGEST] for part in plain for i in range(0, len(part), _LONGEST)]


@dataclass(frozen=True)
class _Cue:
    kind: str
    start: int
    end: int


def _any_of(words: Sequence[str]) -> re.Pattern[str]:
    """One expression for whole words; those that look around themselves say where they end."""
    parts = [
        ("" if word.startswith((":", "(?<=", r"\?")) else r"(?<!\w)")
        + f"(?:{word})"
        + ("" if word.endswith(r"\w)") else r"(?!\w)")
        for word in words
    ]
    return re.compile("|".join(parts), re.IGNORECASE)


# In the order in which they take their words: a cue inside another is none.
_CUES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("uncertain after", _any_of(UNCERTAIN_AFTER)),
    ("uncertain before", _any_of(UNCERTAIN_BEFORE)),
    ("asked", _any_of(ASKED)),
    ("pseudo", _any_of(PSEUDO)),
    ("affirmed", _any_of(AFFIRMED)),
    ("negated after", _any_of(NEGATED_AFTER)),
    ("negated before", _any_of(NEGATED_BEFORE)),
    ("break", _any_of(BREAKS)),
)


def _cues(sentence: str) -> list[_Cue]:
    found: list[_Cue] = []
    for kind, pattern in _CUES:
        for match in pattern.finditer(sentence):
            taken = any(match.start() < cue.end and cue.start < match.end() for cue in found)
            if not taken:
                found.append(_Cue(kind, match.start(), match.end()))
    return sorted(found, key=lambda cue: cue.start)


def _status(
    sentence: str, start: int, end: int, spans: Sequence[tuple[int, int, str]], cues: Sequence[_Cue]
) -> Status | None:
    """What the cues around a mention say of it; None where it is asked for or of the past."""
    low = max((cue.end for cue in cues if cue.kind == "break" and cue.end <= start), default=0)
    high = min(
        (cue.start for cue in cues if cue.kind == "break" and cue.start >= end),
        default=len(sentence),
    )
    # Up to the end of the mention: "heart is not enlarged" is one.
    before = [cue for cue in cues if low <= cue.start and cue.end <= end]
    after = [cue for cue in cues if end <= cue.start and cue.end <= high]
    kinds = {cue.kind for cue in before}
    if "asked" in kinds:
        return None
    negations = [cue for cue in before if cue.kind in ("negated before", "pseudo")]
    later = _first_after(after)
    negated = later == "negated after" or _is_negated(sentence, negations, spans)
    if "uncertain before" in kinds or later == "uncertain after":
        # "No finding suspicious for pneumonia" denies it.
        return "absent" if negated and later != "uncertain after" else "uncertain"
    return "absent" if negated else "present"


def _first_after(cues: Sequence[_Cue]) -> str:
    """The first cue behind a mention that speaks of it."""
    kinds = ("negated after", "uncertain after", "affirmed")
    return next((cue.kind for cue in cues if cue.kind in kinds), "")


def _is_negated(sentence: str, cues: Sequence[_Cue], spans: Sequence[tuple[int, int, str]]) -> bool:
    """Whether the last cue denies, unless the cue before it denies that denial."""
    if not cues or cues[-1].kind == "pseudo":
        return False
    negated, current = True, cues[-1]
    for earlier in reversed(cues[:-1]):
        gap = sentence[earlier.end : current.start]
        between = any(earlier.end <= start < current.start for start, _, _ in spans)
        if between or not _WORD_GAP.match(gap) or re.search(r"\b(?:and|or|nor)\b", gap):
            break
        if earlier.kind == "pseudo":
            break
        negated, current = not negated, earlier
    return negated


def label_report(report: str) -> Labels:
    """Labels of the report of a chest radiograph; see `Labeller`."""
    return _CHEST.label(report)


_CHEST = Labeller(FINDINGS)
