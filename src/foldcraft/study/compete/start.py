"""From a config to a scheduler at work: nets, a quick audit, folds, and what earlier runs left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked
from foldcraft.common.paths import audit_folder, study_folder
from foldcraft.common.places import Place
from foldcraft.data import competition
from foldcraft.data.competition import Competition
from foldcraft.models import backbones
from foldcraft.study import make_folds
from foldcraft.study.compete import history, nets
from foldcraft.study.compete.clock import Clock
from foldcraft.study.compete.history import History
from foldcraft.study.compete.run import Competing, Outcome, Show, data_digest, shared_settings
from foldcraft.study.compete.seconds import feature_name
from foldcraft.study.trial_folds import Train, TrainByCommands, train_here
from foldcraft.submission import ledger

TIMING = 0.1  # share of the budget that timing nets may take
AUDIT = 0.1  # share of the budget that a quick audit may take
AUDITED = 40.0  # images a second that an audit looks at, beside the features of a net


@dataclass(frozen=True)
class Options:
    """What the user asks for.

    Attributes:
        seconds: the budget.
        began: reading of `time.monotonic` when the command began.
        backbones: more than those that are at hand.
        folder: for the configs of actions.
        place: where folds of a fine-tuning run.
        rounds: of pseudo-labels on the test images that may be tried.
        train: the command that trains, for folds side by side.
    """

    seconds: float
    began: float
    backbones: Sequence[str]
    folder: Path
    place: Place
    rounds: int
    train: Path


def run(config: Config, options: Options, callback: Callback, show: Show, audit: Callable[[Config], object]) -> Outcome:
    """Act until the time is up.

    Args:
        audit: looks at the data, and says what it found.

    Raises:
        FoldcraftError: another process competes here; the data are not what they should be; what `Competing.run`
            raises.
    """
    folder = study_folder(config, history.FOLDER)
    with locked(folder / ".lock", wait=False, busy=f"another process competes in {config.competition.name}"):
        names = backbones.to_try(config, options.backbones)
        split = make_folds.open_experiment(config, callback.say) if config.folds_file.exists() else None
        data = split.competition if split else competition.read(config)
        if split:  # what does not fit is told before nets are timed
            History.open(config, data_digest(split), shared_settings(config))
        if ledger.SUBMISSIONS.exists() and not ledger.SUBMISSIONS.is_dir():
            raise FoldcraftError("is no folder", ledger.SUBMISSIONS, "move it away")
        timing = TIMING * options.seconds
        found = nets.known_or_measured(config, data.target.outputs, names, timing, folder / "nets.json", callback)
        audited = (audit_folder(config) / "summary.json").is_file()
        is_due = not audited and _is_short(data, options.seconds, callback)
        if is_due:
            audit(nets.of_name(config, found[0].name))
        experiment = split or make_folds.open_experiment(config, callback.say)
        kept = History.open(config, data_digest(experiment), shared_settings(config))
        if is_due:  # which has gathered these
            kept.note(gathered=[feature_name((found[0].name, config.images.size, "identity"))])
        clock = Clock(options.seconds, kept.used, options.began)
        train: Train = train_here
        jobs = options.place.at_once(experiment.folds.count)
        if options.place.is_cluster or jobs > 1:
            train = TrainByCommands([str(options.train)], options.place, lambda: clock.left)
        about = (experiment, found, kept, clock, callback, options.folder)
        return Competing(*about, train, jobs, options.rounds, show).run()


def _is_short(data: Competition, budget: float, callback: Callback) -> bool:
    """Is an audit a small part of the budget? Where not, it is said."""
    images = len(data.train_ids) + len(data.test_ids)
    seconds = images / AUDITED
    if seconds <= AUDIT * budget:
        return True
    callback.say(f"no audit: of {images} images it would take more than a tenth of the budget; src/audit.py does it")
    return False
