"""What all commands share: the --config and key=value arguments, and how a mistake is told."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from foldcraft.common import (
    allocator,
    allowed_code,
    child_processes,
    config_file,
    config_mistakes,
    output_streams,
    shared_folder,
)
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, shorten, suggest
from foldcraft.common.files import cannot_write
from foldcraft.common.places import CORES, HERE, Place

if TYPE_CHECKING:
    from foldcraft.views.terminal import Terminal

DEFAULT_CONFIG = "configs/default.yaml"
MISTAKE = 2
Main = Callable[[Sequence[str]], int]  # a command: its arguments to its exit code
DISK_TROUBLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
}


# What argparse says of options, and what is said here.
USAGE = (
    (r"argument (\S+): invalid int value: (.*)", "{0} must be a whole number, is {1}"),
    (r"argument (\S+): invalid float value: (.*)", "{0} must be a number, is {1}"),
    (r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)", "{0} is {1}, and must be one of {2}"),
    (r"argument (\S+): expected at least one argument", "{0} needs one or more words behind it"),
    (r"argument (\S+): expected .*", "{0} needs a word behind it, which does not begin with -"),
    (r"argument (\S+): not allowed with argument (\S+)", "{0} does not go with {1}"),
    (r"argument (\S+): ignored explicit argument (.*)", "{0} takes no word, and has {1}"),
    (r"the following arguments are required: (.*)", "{0} is missing"),
)


class Parser(argparse.ArgumentParser):
    """One that tells a mistake as all others are told, in a line, and takes no part of an option for it."""

    def __init__(self, **how: Any) -> None:
        super().__init__(allow_abbrev=False, **how)
        self._given: Sequence[str] = ()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self._given = args or ()
        self._check_given_once()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if unknown := self._unknown(message):
            name, _, value = unknown.partition("=")
            raise FoldcraftError(f"unknown option {shorten(name, 60)!r}", "command line", self._meant(name, value))
        said = next((words.format(*found) for pattern, words in USAGE if (found := _parts(pattern, message))), message)
        raise FoldcraftError(shorten(said, 200), "command line", "see --help")

    def _check_given_once(self) -> None:
        """argparse would take what was given last, and forget the rest without a word."""
        words = [word.partition("=")[0] for word in self._given]
        for word, action in self._option_string_actions.items():
            if action.nargs != 0 and words.count(word) > 1:
                raise FoldcraftError(f"{word} is given twice", "command line", "give it once, with all that it needs")

    def _unknown(self, message: str) -> str | None:
        """The word that is no option, where that is what is wrong: a required one may be there under a wrong name."""
        if message.startswith("unrecognized arguments: "):
            return message.removeprefix("unrecognized arguments: ").split(" ")[0]
        if message.startswith("the following arguments are required: "):
            options = (word for word in self._given if word.startswith("--"))
            return next((word for word in options if word.partition("=")[0] not in self._option_string_actions), None)
        return None

    def _meant(self, name: str, value: str) -> str:
        """The option that an unknown one is a slip of; or that it is a setting, which has no dashes."""
        key = name.lstrip("-").replace("-", "_")
        options = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        close, setting = suggest(name, options), config_mistakes.suggest_key(key)
        if close.startswith("known") and setting.startswith("did you mean"):
            known = setting == f"did you mean {key!r}?"
            word = f"{key}={shorten(value, 60) or 'VALUE'}" if known else f"{setting} (see --help)"
            return f"settings are written without dashes: {word}"
        return f"{close} (see --help)"


def _parts(pattern: str, message: str) -> list[str] | None:
    """What stands in the places of a pattern; None where the message is another."""
    found = re.fullmatch(pattern, message, re.DOTALL)
    return [shorten(part, 100) for part in found.groups()] if found else None


def bare_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with --quiet and --debug, for a command that needs no config."""
    made = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quiet", action="store_true", help="show results and errors only")
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def parser(
    description: str | None,
    several_configs: bool = False,
    words: tuple[str, str] = ("key=value", "settings that win over the config's"),
) -> argparse.ArgumentParser:
    """`bare_parser` with --config and key=value overrides; `words` names what else stands there, and explains."""
    made = bare_parser(description)
    plural = "one or more experiments of one competition" if several_configs else "the experiment"
    made.add_argument("--config", nargs="+", default=[], metavar="YAML", help=f"{plural}; left out: {DEFAULT_CONFIG}")
    made.add_argument("--allow-code", action="store_true", help="run the host's own metric, where the config names one")
    made.add_argument("overrides", nargs="*", metavar=words[0], help=words[1])
    return made


def add_backbones(parser: argparse.ArgumentParser) -> None:
    """The option for nets that are not at hand; words after it that are settings are given back."""
    help = "more backbones than the config's, those in the weights folder and in installed packages"
    parser.add_argument("--backbones", nargs="+", default=[], metavar="NAME", help=help)


def add_place(parser: argparse.ArgumentParser, tasks: str, on_cluster: str = "as many as there is room for") -> None:
    """Options that say where a command's tasks run.

    Args:
        tasks: what they are, for people: "folds".
        on_cluster: how many at a time on a cluster, where that is left out.
    """
    parser.add_argument("--jobs", type=int, help=f"{tasks} side by side (default 1; on a cluster {on_cluster})")
    parser.add_argument(
        "--on", default=HERE, metavar="ray[:HOST:PORT]", help=f"a Ray cluster that runs the {tasks}; docs/cluster.md"
    )
    parser.add_argument("--cores", type=int, help=f"cores that each of them has on the cluster (default {CORES})")


def place_of(args: argparse.Namespace) -> Place:
    """Where the tasks run; on a cluster, locks are from here on such as other machines see.

    Raises:
        FoldcraftError: options that name no place; no folder that machines share.
    """
    place = Place.of(args.on, args.jobs, args.cores)
    if place.is_cluster:
        shared_folder.settle()
    return place


def terminal(args: argparse.Namespace) -> "Terminal":
    """What a command shows all it has to show on, as quietly as it was asked to."""
    from foldcraft.views.terminal import Terminal

    return Terminal(args.quiet)


def load_configs(args: argparse.Namespace, *more: str) -> list[Config]:
    """The configs that were named, with the overrides applied to each.

    Args:
        more: configs that another option names; they come last.
    """
    allowed_code.settle(getattr(args, "allow_code", False))
    names, overrides = words_of(args)
    names = [*(names or [DEFAULT_CONFIG]), *more]
    for name in names:
        if os.path.isdir(name):
            hint = f"--config takes a YAML file; python src/start.py {name} writes one"
            raise FoldcraftError("is a folder, and no config", name, hint)
        if Path(name).suffix not in (".yaml", ".yml") and not os.path.isfile(name):
            raise FoldcraftError(
                f"{name!r} is neither a YAML file nor key=value", "command line", "for instance optim.lr=0.0005"
            )
    return config_file.load_all([Path(name) for name in names], overrides)


def words_of(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """What was named, with --config or without, and the key=value overrides."""
    return split_words([*args.config, *args.overrides])


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that are no settings, and those that are: key=value."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]


def give_back_settings(args: argparse.Namespace, *options: str) -> None:
    """Move key=value words, which an option took for its own because they stood behind it, to the settings.

    Args:
        options: that take one word or several, and are None where they are left out; they end up with the rest, or
            None where an option of one word has nothing left.
    """
    for option in options:
        taken = getattr(args, option)
        own, settings = split_words([taken] if isinstance(taken, str) else taken or [])
        if settings:
            args.overrides += settings
            setattr(args, option, own if not isinstance(taken, str) else None)


def refuse(args: argparse.Namespace, options: Sequence[str], why: str) -> None:
    """See that options were left out which mean nothing with the others.

    Args:
        options: names without dashes before them; None or False where they are left out.

    Raises:
        FoldcraftError: one was given.
    """
    for option in options:
        if getattr(args, option.replace("-", "_")) not in (None, False):
            raise FoldcraftError(why, f"--{option}", "leave it out")


def old_name(old: str, new: str, main: Main, *words: str) -> Main:
    """A command under the name that it had: says on stderr what it is called now, then does the same.

    Args:
        new: what to type after "python src/".
        words: arguments that the command takes in addition under its new name.
    """

    def under_old_name(arguments: Sequence[str]) -> int:
        print(f"note: src/{old}.py is now `python src/{new}`; the old name goes with the next release", file=sys.stderr)
        return main([*words, *arguments])

    return under_old_name


def load_config(args: argparse.Namespace) -> Config:
    """The one config that was named.

    Raises:
        FoldcraftError: several were.
    """
    configs = load_configs(args)
    if len(configs) > 1:
        raise FoldcraftError("this command takes one config", "--config")
    return configs[0]


def parse_folds(text: str, count: int) -> list[int]:
    """Fold numbers from "all", "0" or "0,3".

    Raises:
        FoldcraftError: it is none of these.
    """
    if text == "all":
        return list(range(count))
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError:
        raise FoldcraftError(f"{text!r} is not a fold", "--fold", "write 0, or 0,3, or all") from None
    if wrong := [fold for fold in chosen if fold not in range(count)]:
        raise FoldcraftError(f"no fold {wrong[0]}", "--fold", f"folds are 0 to {count - 1}, or all")
    return list(dict.fromkeys(chosen))


def run(main: Main) -> None:
    """Run a command and exit with its code; a user's mistake is one line on stderr and exit code 2."""
    output_streams.make_robust()
    try:
        child_processes.watch()
        allocator.keep_freed_memory()
        code = main(sys.argv[1:])
    except FoldcraftError as error:
        code = _tell(error)
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        code = _tell(cannot_write(error.filename or "a file", error, "cannot be read or written"))
    except RuntimeError as error:
        if not (trouble := _machine_trouble(error)):
            raise
        code = _tell(trouble)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        code = 130
    finally:
        output_streams.flush()
    sys.exit(code)


def _machine_trouble(error: RuntimeError) -> FoldcraftError | None:
    """What a machine that is too small makes torch raise; known by name, as many commands do without torch."""
    said = str(error).strip().partition("\n")[0]
    if type(error).__name__ == "OutOfMemoryError":
        what = ". ".join(said.split(". ")[:2])  # "CUDA out of memory. Tried to allocate 9 GiB", and advice after it
        return FoldcraftError(what, "train.batch", "halve it, or images.size, or set train.accumulate=2")
    if said.startswith("DataLoader worker"):
        hint = "the machine's memory may be full: use fewer; the same command goes on"
        return FoldcraftError(said.rstrip(". "), "machine.workers", hint)
    if type(error).__name__ in ("BrokenProcessPool", "BrokenThreadPool"):
        return FoldcraftError("a process that worked for this one was killed", hint="the machine's memory may be full")
    if type(error).__name__.startswith("Dist") or "gloo" in said or "NCCL" in said:
        what = f"another process of this training has ended, or cannot be reached: {shorten(said, 120)}"
        return FoldcraftError(what, "torchrun", "what it said stands above; the same command goes on")
    return None


def _tell(error: FoldcraftError) -> int:
    if "--debug" in sys.argv:
        raise error
    print(f"error: {error}", file=sys.stderr)
    return MISTAKE
