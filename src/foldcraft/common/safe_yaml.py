"""What YAML may hold here: plain values of a bounded size; nothing in it reaches out for anything else."""

import unicodedata

import yaml

from foldcraft.common.errors import FoldcraftError

LARGEST = 1 << 18  # characters of a config
DEEPEST = 40  # levels
MOST_NODES = 2_000  # values, with those that aliases repeat


def check(text: str, where: object) -> None:
    """Look at a YAML text before anything is made of it.

    `${...}` would be filled in by OmegaConf, from other settings or from the environment, which may hold keys that must
    not be written into a run. A file extends another one instead.

    Raises:
        FoldcraftError: too long or too deep; `${`, or a character that no setting needs.
        YAMLError: no YAML.
    """
    if len(text) > LARGEST:
        raise FoldcraftError(f"has {len(text):,} characters, more than the {LARGEST:,} of a config", where)
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if number > 2 * MOST_NODES:  # a collection begins and ends
            raise FoldcraftError(f"has more than {MOST_NODES:,} values", where)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            check_characters(event.value, where)
        if depth > DEEPEST:
            raise FoldcraftError(f"is nested deeper than {DEEPEST} levels", where)


def check_characters(value: str, where: object) -> None:
    """Look at a key or a value.

    Raises:
        FoldcraftError: `${`, or a character that no setting needs.
    """
    if "${" in value:
        raise FoldcraftError(
            f"{value!r}: nothing is filled in for ${{...}}, neither settings nor environment variables",
            where,
            "write the value itself; 'extends' and key=value share settings between configs",
        )
    if odd := [char for char in value if unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\n"]:
        raise FoldcraftError(f"{value!r} holds the character {odd[0]!r}", where, "remove it")
