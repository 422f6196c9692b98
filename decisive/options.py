"""Options of environments: `--set name=value`, checked against the constructor they go to."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union

import gymnasium as gym

_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def known_env_ids() -> list[str]:
    """Ids of the environments of this project, sorted."""
    _register()
    return sorted(name for name in gym.registry if name.startswith("decisive/"))


def make_env(env_id: str, options: Mapping[str, Any] | None = None, **kwargs: Any) -> gym.Env:
    """Build an environment by id, with checked options.

    Gymnasium's passive checker is left out: it belongs in tests, and costs time at every step.

    Args:
        env_id: a Gymnasium id, such as `decisive/BlockPush-v0`.
        options: constructor options, already typed (`parse_options`), checked here again.
        **kwargs: more arguments for `gymnasium.make`, such as `render_mode`.

    Raises:
        ValueError: for an unknown id or option, naming the known ones.
    """
    options = dict(options or {})
    check_options(env_id, options)
    return gym.make(env_id, disable_env_checker=True, **{**options, **kwargs})


def parse_options(env_id: str, words: Sequence[str]) -> dict[str, Any]:
    """Read `--set name=value` words for an environment.

    Args:
        env_id: the environment they are for.
        words: such as `("slots=2", "observation=pixels")`; the last of a name counts.

    Returns:
        Typed options by name.

    Raises:
        ValueError: for a word without `=`, an unknown name, or a value of the wrong type.
    """
    return typed_options(words, env_options(env_id), f"option of {env_id}")


def check_options(env_id: str, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` where an option is unknown to an environment or has the wrong type."""
    known = env_options(env_id)
    for name, value in options.items():
        _check(name, value, known, f"option of {env_id}")


def env_class(env_id: str) -> Callable[..., Any]:
    """The class (or function) that builds an environment."""
    creator = _spec(env_id).entry_point
    if creator is None:
        raise ValueError(f"environment {env_id} has no entry point: register it with one")
    return _load(creator) if isinstance(creator, str) else creator


def env_options(env_id: str) -> dict[str, inspect.Parameter]:
    """The constructor parameters of an environment by name, with resolved annotations."""
    spec = _spec(env_id)
    parameters = constructor_parameters(env_class(env_id))
    if "max_episode_steps" not in parameters:  # gymnasium.make takes it for every environment
        parameters["max_episode_steps"] = inspect.Parameter(
            "max_episode_steps", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=int | None
        )
    for name, value in spec.kwargs.items():  # what the registration fixed is the real default
        if name in parameters:
            parameters[name] = parameters[name].replace(default=value)
    return parameters


def typed_options(
    words: Sequence[str], known: Mapping[str, inspect.Parameter], what: str
) -> dict[str, Any]:
    """Read `name=value` words against a table of parameters.

    Values are Python literals (`2`, `0.5`, `(96, 96)`, `true`, `none`), or else plain strings.

    Args:
        words: the words.
        known: parameters by name, from `constructor_parameters`.
        what: what the names are, for the error message.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"expected name=value, got {word!r}")
        value = literal(text)
        options[name] = _check(name, value, known, what, text)
    return options


def nested_options(words: Sequence[str]) -> dict[str, Any]:
    """Read `name=value` words whose names may be dotted, for settings within settings.

    `("width=64", "dfo.n_samples=256")` gives `{"width": 64, "dfo": {"n_samples": 256}}`. Names and
    types are left to whoever takes the result.

    Raises:
        ValueError: for a word without `=`, or a name that is both a value and a group.
    """
    tree: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        *groups, leaf = (part.strip() for part in name.split("."))
        if not equals or not leaf or not all(groups):
            raise ValueError(f"expected name=value or group.name=value, got {word!r}")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(f"{group!r} is a value and a group at once in {word!r}")
        place[leaf] = literal(text)
    return tree


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with changes laid over them; neither argument is touched."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both and isinstance(old, Mapping) else value
    return result


def constructor_parameters(creator: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Keyword parameters of a class or function.

    Where a constructor passes `**kwargs` on, those of its base class are included.
    """
    makers: list[Callable[..., Any]] = [creator]
    if inspect.isclass(creator):
        makers = [vars(c)["__init__"] for c in creator.__mro__[:-1] if "__init__" in vars(c)]
    found: dict[str, inspect.Parameter] = {}
    for maker in makers:
        hints = _hints(maker)
        forwards = False
        for name, parameter in inspect.signature(maker).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                forwards = True
            elif name != "self" and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                annotation = hints.get(name, Any)
                found.setdefault(name, parameter.replace(annotation=annotation))
        if not forwards:
            break
    return found


def _check(
    name: str,
    value: Any,
    known: Mapping[str, inspect.Parameter],
    what: str,
    text: str | None = None,
) -> Any:
    """The value, converted to the annotated type of its parameter where that loses nothing."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        listing = ", ".join(_show(parameter) for parameter in known.values()) or "none"
        raise ValueError(f"unknown {what}: {name!r}{hint} known: {listing}")
    hint = known[name].annotation
    for candidate in (value, text):  # a string may look like a number: --set name=007
        fits, converted = _fit(candidate, hint)
        if fits and (candidate is not None or value is None):
            return converted
    shown = value if text is None else text
    raise ValueError(f"{what} {name!r} must be {_describe(hint)}, got {shown!r}")


def _fit(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits a type hint, and the value as that type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return True, value
    if hint is None or hint is type(None):
        return value is None, None
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in args), value
    if origin in (Union, types.UnionType):
        for arg in args:
            fits, converted = _fit(value, arg)
            if fits:
                return True, converted
        return False, value
    if origin in (tuple, list) or hint in (tuple, list):
        return _fit_sequence(value, args)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number, float(value) if number else value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if isinstance(hint, type):
        return isinstance(value, hint), value
    return True, value  # a hint this small checker does not know: the constructor decides


def _fit_sequence(value: Any, args: tuple[Any, ...]) -> tuple[bool, Any]:
    if not isinstance(value, tuple | list):
        return False, value
    variadic = len(args) == 2 and args[1] is Ellipsis
    kinds = [args[0]] * len(value) if variadic else list(args) or [Any] * len(value)
    if len(kinds) != len(value):
        return False, value
    fitted = [_fit(v, k) for v, k in zip(value, kinds, strict=True)]
    return all(ok for ok, _ in fitted), tuple(v for _, v in fitted)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_describe, typing.get_args(hint)))
    if hint is type(None):
        return "none"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _show(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default}"


def literal(text: str) -> Any:
    """The Python literal that a text spells (`2`, `(1, 2)`, `true`, `none`), else the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _hints(maker: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(maker)
    except (NameError, TypeError):  # names imported for type checkers only
        return {}


def _load(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return loaded


def _spec(env_id: str) -> Any:
    _register()
    try:
        return gym.spec(env_id)
    except gym.error.Error as error:
        known = known_env_ids()
        near = difflib.get_close_matches(env_id, known, 1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        raise ValueError(
            f"unknown environment {env_id!r}{hint} known: {', '.join(known)}"
        ) from error
    except ModuleNotFoundError as error:  # "package:Id-v0" with no such package
        raise ValueError(f"environment {env_id!r} names a missing module: {error}") from error


def _register() -> None:
    """Register our ids: where the project runs from its folder, no entry point has done it."""
    import envs

    envs.register_envs()
