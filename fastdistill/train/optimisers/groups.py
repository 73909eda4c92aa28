"""Parameters that are to be stepped differently, by patterns of their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from fastdistill.arguments import check_instance, check_number, check_text
from fastdistill.errors import ArgumentError
from fastdistill.messages import short
from fastdistill.train.parameters import Parameter

MOST = 1e3  # of a learning rate and of a factor of one: their product is one that kernels take


@dataclass(frozen=True)
class Group:
    """What holds for the parameters whose names match a pattern.

    Parameters
    ----------
    pattern : str
        of shells: ``*`` is any text, ``?`` a character, ``[01]`` one of these; "*.mlp.*"
    learning_rate_factor : float, default 1.0
        0 to 1e3: multiplies the learning rate of each step; 0 keeps the values as they are
    weight_decay : float | None, default None
        0 to 1e3; None: the optimiser's

    Raises
    ------
    ArgumentError
    """

    pattern: str
    learning_rate_factor: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        check_text("pattern", self.pattern)
        check_number("learning_rate_factor", self.learning_rate_factor, 0, MOST)
        if self.weight_decay is not None:
            check_number("weight_decay", self.weight_decay, 0, MOST)


class Rule(NamedTuple):
    """How one parameter is stepped.

    Attributes
    ----------
    learning_rate_factor : float
        multiplies the learning rate of each step
    weight_decay : float
        learning rate times it is taken of each value
    """

    learning_rate_factor: float
    weight_decay: float


def rules(parameters: Mapping[str, Parameter], weight_decay: float, groups: Iterable[Group]) -> dict[str, Rule]:
    """Of each parameter, by name: the first group whose pattern it matches says what holds.

    Where none says it, parameters of one axis, norms and biases, do not decay.

    Raises
    ------
    ArgumentError
        also where a group is that of no parameter, which a misspelt pattern is
    """
    check_number("weight_decay", weight_decay, 0, MOST)
    groups = tuple(groups)
    for index, group in enumerate(groups):
        check_instance(f"groups[{index}]", group, Group)
    found: dict[str, Rule] = {}
    used: set[Group | None] = set()
    for name, parameter in parameters.items():
        own = next((group for group in groups if fnmatchcase(name, group.pattern)), None)
        used.add(own)
        decay = weight_decay if len(parameter.shape) > 1 else 0.0
        if own is not None and own.weight_decay is not None:
            decay = own.weight_decay
        found[name] = Rule(own.learning_rate_factor if own is not None else 1.0, decay)
    for index, group in enumerate(groups):
        if group not in used:
            raise ArgumentError(
                f"groups[{index}] is that of no parameter: {short(group.pattern)} matches none that no group before it has; "
                f"there are {short(list(parameters))}"
            )
    return found
