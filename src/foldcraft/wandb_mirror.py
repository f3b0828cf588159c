"""The process that talks to W&B: reads events, one JSON a line, from stdin, until goodbye or the end."""

import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

LAST_CHANCE = 120  # seconds after the last event, after which this process ends whatever W&B does


def events() -> Iterable[dict[str, Any]]:
    """What happens, as it happens."""
    for line in sys.stdin:
        event = json.loads(line)
        if event["do"] == "goodbye":
            break
        yield event
    if hasattr(signal, "alarm"):
        signal.alarm(LAST_CHANCE)


def mode_of(wanted: str, has_key: bool) -> str:
    """ "auto" is what WANDB_MODE says, else online with a key and offline without."""
    if wanted != "auto":
        return wanted
    return os.environ.get("WANDB_MODE") or ("online" if has_key else "offline")


def start(wandb: Any, event: dict[str, Any]) -> Any:
    """A new run, or the same as before the fold was interrupted."""
    run = wandb.init(
        id=event["id"],
        name=event["name"],
        group=event["group"],
        project=event["project"],
        entity=event["entity"],
        dir=event["dir"],
        config=event["config"],
        mode=mode_of(event["mode"], bool(wandb.api.api_key)),
        resume="allow",
        reinit="finish_previous",
        settings=wandb.Settings(console="off", silent=True),
    )
    run.define_metric("*", step_metric="epoch")
    return run


def end(wandb: Any, run: Any, event: dict[str, Any]) -> None:
    """Final metrics and the confusion matrix."""
    run.summary.update(event["summary"])
    matrix = wandb.plot.confusion_matrix(
        y_true=event["truth"], preds=event["predicted"], class_names=event["classes"], title="Validation rows"
    )
    run.log({"confusion_matrix": matrix})
    run.finish()


def main() -> None:
    """Mirror every event."""
    import wandb

    run = None
    for event in events():
        if event["do"] == "start":
            run = start(wandb, event)
        elif event["do"] == "log" and run:
            run.log(event["row"])
        elif event["do"] == "end" and run:
            end(wandb, run, event)
            run = None
    if run:
        run.finish(exit_code=1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training; this process ends with its pipe
    main()
