"""Navigation by instructions: routes followed on a graph, paths ranked, views imagined."""

from agents.vln.bitext import BitextConfig, Translations
from agents.vln.checkpoint import SavedRanker, load_ranker, save_ranker
from agents.vln.follower import InstructionFollower
from agents.vln.navigator import Errand, Navigator, NavigatorConfig, Ranked, Walk
from agents.vln.places import DreamPlace, GraphPlace, Imagined, OraclePlace, Place
from agents.vln.ranker import PathRanker, RankerConfig
from agents.vln.training import CourseConfig, Route, train_ranker
from agents.vln.vocabulary import Vocabulary

__all__ = [
    "BitextConfig",
    "CourseConfig",
    "DreamPlace",
    "Errand",
    "GraphPlace",
    "Imagined",
    "InstructionFollower",
    "Navigator",
    "NavigatorConfig",
    "OraclePlace",
    "PathRanker",
    "Place",
    "Ranked",
    "RankerConfig",
    "Route",
    "SavedRanker",
    "Translations",
    "Vocabulary",
    "Walk",
    "load_ranker",
    "save_ranker",
    "train_ranker",
]
