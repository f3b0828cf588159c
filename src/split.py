"""Split the training rows into frozen folds: folds/<competition>.csv, to be kept in git.

Folds that are there already are checked and shown, never made again. src/train.py and others make them by themselves
where there are none; this command is for who wants to look at them first: --show tells of the rows, the derived columns
and the submission as well. Copies of images that src/audit.py found stay
in one fold (folds.merge_duplicates).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from foldcraft.views import cli


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--show", action="store_true", help="the first rows as they are read, and a line to submit")
    args = parser.parse_intermixed_args(arguments)
    config = cli.load_config(args)

    from foldcraft.data import competition, folds
    from foldcraft.data.host_files.tables import read_tables
    from foldcraft.study import make_folds
    from foldcraft.study.audit import label_issues
    from foldcraft.submission import form_inference
    from foldcraft.views.folds import show_split
    from foldcraft.views.rows import show_form, show_rows

    terminal = cli.terminal(args)
    tables = read_tables(config)
    data = competition.whole(tables, config)
    for note in (*data.notes, *data.image_notes):
        terminal.say(note)
    for finding in label_issues.of_names(tables, config.folds.count):
        terminal.say(f"warning: {finding.sentence}; {finding.hint}")
    form = form_inference.tried(data)
    copies = make_folds.copies_found(config, data)
    split, is_new = make_folds.read_or_make(config, data, copies)
    if is_new:
        terminal.say(f"wrote {config.folds_file}; keep it in git")
        if split.duplicates:
            terminal.say(f"{len(copies)} images in {copies.nunique()} clusters of copies stay together")
        if split.groups:
            terminal.say("the groups that the audit found stay together")
    else:
        terminal.say(f"{config.folds_file} is there and fits")
        if apart := folds.straddling(split, copies):
            terminal.say(
                f"warning: {apart} clusters of copies lie in several folds, so the OOF score is too good; to keep them "
                f"together, delete {config.folds_file} and split again (earlier runs will not blend with new ones)"
            )
    if shared := sum(count > 1 for count in Counter(data.train_paths).values()):
        terminal.say(f"{shared} image files have several rows each; the rows of a file stay together, as a group does")
    if args.show:
        show_rows(tables, terminal)
    show_split(split, data, terminal)
    if args.show:
        show_form(data, form, terminal)
    elif not form.goes_without_saying:
        for line in form.lines():
            terminal.say(line)
    return 0


if __name__ == "__main__":
    cli.run(main)
