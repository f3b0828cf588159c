"""Breaks a small competition in ways drawn from a seed, goes on as a user would, and reports what came of it.

Run as a program, because every fault is played in a child forked from it: libraries are imported once, and what one
child breaks no other sees. Prints a JSON list of reports; one with nothing under "wrong" has passed.

  python tests/fault_ground.py FOLDER COUNT [FIRST]
"""

import builtins
import contextlib
import errno
import hashlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
os.environ["WANDB_MODE"] = "offline"

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

import infer  # noqa: E402, F401 (imported before the forks)
import split  # noqa: E402, F401
import train  # noqa: E402, F401
from foldcraft.common import checksums  # noqa: E402
from foldcraft.ensemble import blend  # noqa: E402, F401
from foldcraft.submission import build, ledger  # noqa: E402, F401
from foldcraft.training import fold  # noqa: E402, F401
from foldcraft.training.trainer import Trainer  # noqa: E402
from foldcraft.views import cli, terminal, tracking  # noqa: E402, F401

torch.set_num_threads(1)

CONFIG = """
competition: {name: digits, metric: accuracy}
folds: {count: 2}
images: {size: 16}
augment: {preset: light}
backbone: {name: test_resnet, weights: none}
finetune: {head_init: probe}
train: {epochs: 2, batch: 8}
machine: {workers: 0, device: cpu, precision: 32-true, memory_format: contiguous}
tta: {views: [identity, hflip]}
tracking: {wandb: "off"}
"""
STUDENT = "extends: tiny.yaml\ndistill: {teachers: [tiny], share: 0.5, pseudo: 0.2}\noptim: {lr: auto}\n"
TINY, BOTH = ["--config", "tiny.yaml"], ["--config", "tiny.yaml", "student.yaml"]
CHAIN = [
    ["split", *TINY],
    ["train", *TINY],
    ["train", "--config", "student.yaml"],
    ["infer", *BOTH],
    ["infer", *BOTH, "--name", "more", "tta.views=[identity,hflip,vflip]"],
]
# Reads weights and images of every fold, whatever a killed chain had come to: no spoiled file lies there unread.
LAST = ["infer", *BOTH, "--name", "most", "tta.views=[identity,hflip,vflip,rot180]"]
STAGES = ("bare", "begun", "done")
RUNS = Path("runs/digits")
# Every kind of file that is written, as it is found at a stage.
FILES = {
    "begun": [
        *("folds/digits.csv", "runs/digits/cache/train-*.npy", "runs/digits/cache/test-*.npy"),
        *("runs/digits/cache/content.json", "runs/digits/features/*.npy", "runs/digits/student/lr.json"),
        *("runs/digits/*/hardware.json", "runs/digits/student/fold0/last.ckpt"),
        *("runs/digits/student/fold0/answers.safetensors", "runs/digits/student/fold0/config.yaml"),
        *("runs/digits/student/fold0/history.csv", "runs/digits/tiny/fold*/config.yaml"),
        *("runs/digits/tiny/fold*/model.safetensors", "runs/digits/tiny/fold*/test.parquet"),
        *("runs/digits/tiny/fold*/manifest.json", "runs/digits/tiny/fold*/history.csv"),
    ],
    "done": [
        *("folds/digits.csv", "runs/digits/cache/*.npy", "runs/digits/cache/content.json"),
        *("runs/digits/*/fold*/config.yaml", "runs/digits/*/fold*/model.safetensors"),
        *("runs/digits/*/fold*/oof.parquet", "runs/digits/*/fold*/test.parquet", "runs/digits/*/fold*/manifest.json"),
        *("submissions/digits_tiny_student.csv", "submissions/ledger.csv", "runs/digits/*/fold*/history.csv"),
    ],
}
CONSEQUENCES = "is not finished|no fold is trained|no folds yet"  # of an earlier command that could not do its work
PATIENCE = 8  # mistakes that are mended one after another before it counts as hopeless
DEADLINE = 240.0  # seconds that a child may take


# What a user does


def call(words: list[str]) -> tuple[int, str, str]:
    """A command of src/: exit code, stdout, stderr; a traceback stands in stderr, with code 1."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [f"src/{words[0]}.py", *words[1:]]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.run(importlib.import_module(words[0]).main)
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), err.getvalue()
        except BaseException:
            traceback.print_exc()
            return 1, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


class Stuck(Exception):
    """A command ended otherwise than it may."""


def line_of(code: int, err: str) -> str:
    """The one line of a user's mistake.

    Raises:
        Stuck: it is no such thing.
    """
    lines = [line for line in err.splitlines() if line]
    if code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
        raise Stuck(f"exit code {code}: {err[-1500:]}")
    return lines[0].removeprefix("error: ")


def finish(whole: Path) -> list[str]:
    """The whole chain of commands, each mistake mended as its line says; these lines.

    Args:
        whole: an undamaged copy, to restore from.

    Raises:
        Stuck: an advice does not help, or there is none.
    """
    said: list[str] = []
    while len(said) < PATIENCE:
        mistake = next((line_of(code, err) for code, _, err in map(call, [*CHAIN, LAST]) if code), None)
        if mistake is None:
            return said
        said.append(mistake)
        hint(mistake, whole)
    raise Stuck(f"the same again and again: {said[-1]}")


def hint(line: str, whole: Path) -> None:
    """Do what the line says.

    Raises:
        Stuck: it says nothing that can be done.
    """
    found = re.match(r"(\S+): .*", line)
    path = Path(found[1]) if found else Path("nowhere")
    advice = line.rpartition("; ")[2]
    if not (path.exists() or path.is_symlink()):
        raise Stuck(f"names nothing that is there: {line}")
    if "which writes it again" in line:
        call(["train", "--config", f"{path.parts[2]}.yaml"])
    elif re.search("delete (the fold's folder|its folder)", advice):
        shutil.rmtree(path.parent)
    elif "delete that folder" in advice:
        shutil.rmtree(path)
    elif re.search("restore it|mend or rename it", advice):
        remove(path)
        if (whole / path).is_file():
            shutil.copy2(whole / path, path)
    elif re.search("delete it|move it away", advice):
        remove(path)
    else:
        raise Stuck(f"no advice: {line}")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# What is to come of it


def outcome() -> dict[str, str]:
    """Digests of all that counts; times and machines left out."""
    found = {}
    for file in sorted([*RUNS.glob("*/fold*/*"), *Path("folds").glob("*"), *Path("submissions").glob("*.csv")]):
        if file.name in ("history.csv", ".lock"):
            continue
        if file.name == "manifest.json":
            values = checksums.read_json(file)
            content = json.dumps(
                {key: values[key] for key in ("identity", "score", "classes", "fingerprints")}
            ).encode()
        elif file.name == "ledger.csv":
            content = ledger.read(file).drop(columns="time").to_csv().encode()
        else:
            content = file.read_bytes()
        found[str(file)] = hashlib.sha256(content).hexdigest()[:12]
    return found


def work_done() -> dict[str, int]:
    """When the weights of each finished fold were written."""
    done = [file.parent / "model.safetensors" for file in RUNS.glob("*/fold*/manifest.json")]
    return {str(file): file.stat().st_mtime_ns for file in done if file.is_file()}


def leftovers() -> list[str]:
    return [str(path) for path in Path().rglob("*.tmp-*")]


def differences(calm: dict[str, str]) -> list[str]:
    now = outcome()
    return [f"{name} is not as undisturbed" for name in sorted({*calm, *now}) if calm.get(name) != now.get(name)]


def lost(before: dict[str, int], said: list[str], damaged: Path | None = None) -> list[str]:
    """Finished folds that were trained again though nothing was wrong with them."""
    after = work_done()
    told = {str(Path(line.split(": ")[0])) for line in said}
    excused = {str(path) for name in [*told, str(damaged)] for path in (Path(name), Path(name).parent)}
    return [
        f"{name} was made again"
        for name, stamp in before.items()
        if after.get(name) != stamp and str(Path(name).parent) not in excused
    ]


# Faults: each gives what is wrong with what came of it


def damage(dice: random.Random, whole: Path, calm: dict[str, str], stage: str, patterns: list[str]) -> list[str]:
    """Spoil files, then go on."""
    spoiled = [spoil(dice, pattern) for pattern in patterns]
    before = work_done()
    said = finish(whole / stage)
    wrong = differences(calm) + [name for name in leftovers() if "hardware" not in name]
    wrong += lost(before, said, spoiled[0]) if len(spoiled) == 1 else []
    for line in said:
        if not any(str(file) in line or str(file.parent) in line for file in spoiled):
            wrong.append(f"does not name {', '.join(map(str, spoiled))}: {line}")
    return wrong


def spoil(dice: random.Random, pattern: str) -> Path:
    file = dice.choice(sorted(Path().glob(pattern)))
    content = file.read_bytes()
    manner = dice.choice(["bit", "bit", "bit", "bits", "cut", "cut", "empty", "noise", "folder", "link", "gone"])
    NOTES.append(f"{manner}: {file}")
    file.unlink()  # a copy may be a link to the same blocks
    if manner == "folder":
        file.mkdir()
    elif manner == "link":
        file.symlink_to("nowhere")
    elif manner != "gone":
        file.write_bytes(spoiled_bytes(dice, content, manner))
    return file


def spoiled_bytes(dice: random.Random, content: bytes, manner: str) -> bytes:
    if manner in ("bit", "bits"):
        changed = bytearray(content)
        for _ in range(1 if manner == "bit" else dice.randint(2, 200)):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        return bytes(changed)
    if manner == "cut":
        return content[: dice.randrange(len(content))]
    return dice.randbytes(len(content)) if manner == "noise" else b""


def kill(dice: random.Random, whole: Path, calm: dict[str, str], stage: str, seconds: float) -> list[str]:
    """Kill the chain at random moments, then go on."""
    wrong, before = [], work_done()
    for _ in range(dice.randint(1, 3)):
        moment = dice.uniform(0, 1.1 * seconds)
        NOTES.append(f"killed after {moment:.2f} s")
        child = fork(lambda: slowed(dice.random() * 0.02))
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wrong += lost(before, [])
        before = work_done()
    said = finish(whole / stage)
    return wrong + said + differences(calm) + lost(before, [])


def slowed(seconds: float) -> None:
    """The chain of commands, waiting where it writes so that a kill can land there."""
    fsync = os.fsync
    os.fsync = lambda file: (time.sleep(seconds), fsync(file))[1]
    for words in CHAIN:
        call(words)


def full_disk(dice: random.Random, whole: Path, calm: dict[str, str], stage: str) -> list[str]:
    """No room, for a while, then go on."""
    before = work_done()
    wrong = wait(fork(lambda: without_room(dice)))
    wrong += leftovers()
    said = finish(whole / stage)
    return wrong + said + differences(calm) + lost(before, [])


def without_room(dice: random.Random) -> list[str]:
    if dice.random() < 0.4:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = int(10 ** dice.uniform(2, 5.5))
        NOTES.append(f"no file larger than {limit} bytes")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    else:
        name, number = dice.choice(["fsync", "replace", "posix_fallocate", "fsync"]), dice.randint(1, 25)
        code = dice.choice([errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
        NOTES.append(f"os.{name} fails from its call {number} on with {errno.errorcode[code]}")
        fail(name, number, code)
    return chain_of_mistakes(r"cannot be written: .*; free some space")


def fail(name: str, number: int, code: int) -> None:
    right, calls = getattr(os, name), 0

    def failing(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(code, os.strerror(code), str(args[0]) if isinstance(args[0], str | Path) else None)
        return right(*args)

    setattr(os, name, failing)


def chain_of_mistakes(wanted: str) -> list[str]:
    """The chain up to the first mistake, which may be one line of the `wanted` kind, or a consequence of it."""
    for words in CHAIN:
        code, _, err = call(words)
        if code:
            line = line_of(code, err)
            return [] if re.search(f"{wanted}|{CONSEQUENCES}", line) else [f"{words[0]}: {line}"]
    return []


def unreadable(dice: random.Random, whole: Path, calm: dict[str, str], stage: str) -> list[str]:
    """A file that may not be read for a while, then go on; it is whole, and no advice may be to lose it."""
    file = dice.choice(sorted(Path().glob(dice.choice(FILES[stage]))))
    code = dice.choice([errno.EACCES, errno.EIO])
    NOTES.append(f"{errno.errorcode[code]}: {file}")
    before = work_done()
    wrong = wait(fork(lambda: refused(file, code)))
    said = finish(whole / stage)
    return wrong + said + differences(calm) + lost(before, [])


def refused(file: Path, code: int) -> list[str]:
    right, target = builtins.open, os.path.abspath(file)

    def guarded(name: object, *args: object, **named: object) -> object:
        if isinstance(name, str | Path) and os.path.abspath(name) == target:
            raise OSError(code, os.strerror(code), str(name))
        return right(name, *args, **named)  # type: ignore[call-overload]

    builtins.open = io.open = guarded  # type: ignore[assignment]
    return chain_of_mistakes(rf"{re.escape(str(file))}: cannot be read.*mend its permissions")


def two_at_once(dice: random.Random, whole: Path, calm: dict[str, str], stage: str) -> list[str]:
    """Two chains side by side, then go on."""
    before = work_done()
    delay = dice.choice([0.0, dice.uniform(0, 1)])
    NOTES.append(f"the second after {delay:.2f} s")

    def late(seconds: float) -> list[str]:
        time.sleep(seconds)
        return chain_of_mistakes("another process is at this fold")

    children = [fork(lambda: late(0)), fork(lambda: late(delay))]
    wrong = [line for child in children for line in wait(child)]
    said = finish(whole / stage)
    return wrong + said + differences(calm) + lost(before, []) + leftovers()


def clock(dice: random.Random, whole: Path, calm: dict[str, str], stage: str) -> list[str]:
    """Files of the future or of long ago, and a clock that jumps, mostly back."""
    for file in sorted(path for path in Path().rglob("*") if path.is_file()):
        if dice.random() < 0.5:
            stamp = dice.choice([0, 1, 2_000_000_000, 4_000_000_000])
            os.utime(file, (stamp, stamp))
    before, right = work_done(), time.time
    shift = dice.choice([-1e9, -1e6, -3600, 1e9])
    NOTES.append(f"the clock wanders by {shift:g} s")
    time.time = lambda: right() + dice.random() * shift
    time.time_ns = lambda: int(1e9 * time.time())
    said = finish(whole / stage)
    return said + differences(calm) + lost(before, [])


def replaced(dice: random.Random, whole: Path, calm: dict[str, str], stage: str) -> list[str]:
    """Another picture under an image's name, until it is told; then the old one again."""
    part = dice.choice(["train", "test"])
    picture = dice.choice(sorted(Path(f"input/digits/{part}").iterdir()))
    old, before = picture.read_bytes(), work_done()
    Image.new("L", (8, 8), dice.randrange(256)).save(picture)
    NOTES.append(f"another picture: {picture}")
    code, out, err = call(["infer", *BOTH, "--name", "other"])
    for file in Path("submissions").glob("other*.csv"):
        file.unlink()
    shutil.copy2(whole / stage / "submissions" / "ledger.csv", "submissions/ledger.csv")
    told = "the test images are others now" in out if part == "test" else "learned from other training images" in err
    wrong = [] if told and code == (0 if part == "test" else 2) else [f"passes without a word: {code} {out} {err}"]
    picture.write_bytes(old)
    said = finish(whole / stage)
    return wrong + said + differences(calm) + lost(before, [])


def read_only(dice: random.Random, whole: Path, calm: dict[str, str], stage: str) -> list[str]:
    """Runs that may not be written to, as a data set's; the submission is the same, then they may be again."""
    name = dice.choice([["more", "tta.views=[identity,hflip,vflip]"], ["digits_tiny_student"]])
    before = {file: file.stat().st_mtime_ns for file in Path("runs").rglob("*")}

    def locked_up() -> list[str]:
        access, opened, held = os.access, io.open, os.path.abspath("runs")
        os.access = lambda at, how, **more: not os.path.abspath(at).startswith(held) and access(at, how, **more)

        def guarded(at: object, mode: str = "r", *args: object, **named: object) -> object:
            if isinstance(at, str | Path) and os.path.abspath(at).startswith(held) and set(mode) & set("wax+"):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(at))
            return opened(at, mode, *args, **named)  # type: ignore[call-overload]

        builtins.open = io.open = guarded  # type: ignore[assignment]
        code, _, err = call(["infer", *BOTH, "--name", *name])
        return [] if code == 0 else [f"infer: {err}"]

    wrong = wait(fork(locked_up))
    if {file: file.stat().st_mtime_ns for file in Path("runs").rglob("*")} != before:
        wrong.append("something was written to runs")
    file = f"submissions/{name[0]}.csv"
    wrong += [] if outcome().get(file) == calm[file] else [f"{file} is not as undisturbed"]
    shutil.rmtree("scratch", ignore_errors=True)
    return wrong + finish(whole / stage) + differences(calm)


class Broken(io.RawIOBase):
    """A pipe whose reader has left."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def output(dice: random.Random, whole: Path, calm: dict[str, str], stage: str) -> list[str]:
    """A stdout that lacks most characters, is closed, or has lost its reader: the work is done all the same."""
    kind = dice.choice(["ascii", "latin-1", "cp932", "closed", "broken pipe"])
    NOTES.append(f"output: {kind}")
    shutil.rmtree("submissions")

    def muted() -> list[str]:
        raw = Broken() if kind == "broken pipe" else io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="utf-8" if kind in ("closed", "broken pipe") else kind)  # type: ignore[arg-type]
        sys.stdout = None if kind == "closed" else stream  # as Python finds a closed one  # type: ignore[assignment]
        codes = {}
        for words in CHAIN[:4]:
            sys.argv = [f"src/{words[0]}.py", *words[1:]]
            try:
                cli.run(importlib.import_module(words[0]).main)
            except SystemExit as end:
                codes[words[0]] = end.code
        return [f"{name} ends with {code}" for name, code in codes.items() if code]

    wrong = wait(fork(muted))
    file = "submissions/digits_tiny_student.csv"
    wrong += [] if outcome().get(file) == calm[file] else [f"{file} is not as undisturbed"]
    return wrong + finish(whole / stage) + differences(calm)


# How they are played

NOTES: list[str] = []
KINDS = ["damage", "damage", "kill", "damage", "full disk", "damage", "unreadable", "damage", "two at once", "damage"]
RARER = {3: "clock", 5: "several", 7: "kill and damage"}  # every third round these take such a place
NEWER = {1: "replaced", 6: "output", 9: "read only"}  # and these every second round


def kind_of(number: int) -> str:
    turn, place = divmod(number, len(KINDS))
    if place in NEWER and turn % 2:
        return NEWER[place]
    return RARER[place] if place in RARER and turn % 3 == [*RARER].index(place) else KINDS[place]


def play(number: int, whole: Path, calm: dict[str, str], seconds: dict[str, float]) -> list[str]:
    """Fault `number`; what is wrong with what came of it."""
    dice, kind = random.Random(number), kind_of(number)
    stage = (
        ["begun", "done"][number % 2 or kind in NEWER.values()] if kind != "two at once" else STAGES[number // 10 % 2]
    )
    if kind in ("kill", "full disk"):
        stage = STAGES[number // 10 % 3]
    NOTES.append(f"{kind} at stage {stage}")
    shutil.copytree(whole / stage, f"played{number}", symlinks=True)
    os.chdir(f"played{number}")
    mine = FILES.get(stage, [])
    if kind == "damage":
        return damage(dice, whole, calm, stage, [mine[number // 2 % len(mine)]])
    if kind == "several":
        return damage(dice, whole, calm, stage, dice.sample(mine, 3))
    if kind == "kill and damage":
        child = fork(lambda: slowed(0.01))
        time.sleep(dice.uniform(0, seconds[stage]))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        there = [pattern for pattern in mine if any(Path().glob(pattern))]
        return damage(dice, whole, calm, stage, dice.sample(there, 1))
    if kind == "kill":
        return kill(dice, whole, calm, stage, seconds[stage])
    other = {"full disk": full_disk, "unreadable": unreadable, "two at once": two_at_once, "clock": clock}
    other |= {"replaced": replaced, "read only": read_only, "output": output}
    return other[kind](dice, whole, calm, stage)


def fork(experiment: Callable[[], list[str] | None]) -> int:
    """A child that does `work` and leaves what it gives in a file; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        wrong = experiment() or []
    except Stuck as error:
        wrong = [str(error)]
    except BaseException:
        wrong = [traceback.format_exc()[-3000:]]
    Path(f"/proc/self/cwd/.said-{os.getpid()}").write_text(json.dumps([wrong, NOTES]))
    os._exit(0)


def wait(child: int) -> list[str]:
    """What a child found wrong; what it noted is added to `NOTES`."""
    end = time.monotonic() + DEADLINE
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return [f"has not come to an end in {DEADLINE:g} s"]
        time.sleep(0.005)
    place = next(iter(Path().glob(f"**/.said-{child}")), None)
    if place is None:
        return ["has died without a word"]
    wrong, notes = json.loads(place.read_text())
    place.unlink()
    NOTES.extend(note for note in notes if note not in NOTES)
    return wrong


def write_digits(folder: Path, train_rows: int = 24, test_rows: int = 6) -> None:
    """Three kinds of scikit-learn's handwritten digits as a competition."""
    digits = load_digits(n_class=3)
    table = pd.DataFrame({"id": [f"{row:03d}.png" for row in range(train_rows + test_rows)]})
    table["label"] = [f"digit {digits.target[row]}" for row in range(len(table))]
    for part, rows in (("train", table[:train_rows]), ("test", table[train_rows:])):
        (folder / part).mkdir(parents=True)
        for row, name in rows["id"].items():
            Image.fromarray((digits.images[row] * 15.9).astype("uint8")).save(folder / part / name)
    table[:train_rows].to_csv(folder / "train.csv", index=False)
    table[train_rows:][["id"]].to_csv(folder / "test.csv", index=False)
    table[train_rows:][["id"]].assign(label="digit 0").to_csv(folder / "sample_submission.csv", index=False)


@contextlib.contextmanager
def interrupted_after_one_epoch() -> Iterator[None]:
    run_epoch = Trainer.run_epoch

    def one_epoch_only(trainer: Trainer) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        run_epoch(trainer)

    Trainer.run_epoch = one_epoch_only
    try:
        yield
    finally:
        Trainer.run_epoch = run_epoch


def undisturbed() -> list[str]:
    """Play the chain once, and keep copies of what lies there at each stage."""
    Path("work/input").mkdir(parents=True)
    write_digits(Path("work/input/digits"))
    Path("work/tiny.yaml").write_text(CONFIG)
    Path("work/student.yaml").write_text(STUDENT)
    os.chdir("work")
    shutil.copytree(".", "../bare")
    codes = [call(words)[0] for words in CHAIN[:2]]
    with interrupted_after_one_epoch():
        codes.append(call(CHAIN[2])[0])
    shutil.copytree(".", "../begun")
    codes += [call(words)[0] for words in CHAIN[2:4]]
    shutil.copytree(".", "../done")
    codes += [call(words)[0] for words in (CHAIN[4], LAST)]
    Path("../calm.json").write_text(json.dumps(outcome()))
    return [] if codes == [0, 0, 130, 0, 0, 0, 0] else [f"undisturbed commands ended with {codes}"]


def timed() -> list[str]:
    """How long the chain takes from each stage on."""
    seconds = {}
    for stage in STAGES:
        shutil.copytree(stage, f"timed-{stage}")
        start = time.monotonic()
        os.chdir(f"timed-{stage}")
        finish(Path())
        os.chdir("..")
        seconds[stage] = time.monotonic() - start
        shutil.rmtree(f"timed-{stage}")
    Path("seconds.json").write_text(json.dumps(seconds))
    return []


def main(folder: Path, count: int, first: int = 0) -> None:
    os.chdir(folder)
    whole = Path.cwd()
    for prelude in (undisturbed, timed):
        if wrong := wait(fork(prelude)):
            raise SystemExit("\n".join(wrong))
    calm, seconds = (json.loads(Path(name).read_text()) for name in ("calm.json", "seconds.json"))
    reports = []
    for number in range(first, first + count):
        NOTES.clear()
        start = time.monotonic()
        wrong = wait(fork(lambda number=number: play(number, whole, calm, seconds)))
        reports.append({"number": number, "fault": list(NOTES), "wrong": wrong, "seconds": time.monotonic() - start})
        print(f"{number}: {'; '.join(NOTES)}: {wrong or 'passed'}", file=sys.stderr, flush=True)
        shutil.rmtree(f"played{number}", ignore_errors=not wrong)
    print(json.dumps({"seconds": seconds, "reports": reports}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))
