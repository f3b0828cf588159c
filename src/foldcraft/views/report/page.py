"""From evidence to one HTML file that needs nothing else: no network, no second file."""

import platform
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import altair
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import counted
from foldcraft.views.report import compete, data, experiments, gallery, parts, scores, training
from foldcraft.views.report.blocks import PageSection
from foldcraft.views.report.evidence import Evidence

HERE = Path(__file__).parent


def sections(seen: Evidence, callback: Callback) -> list[PageSection]:
    """The parts of the page, in the order of a reader's questions.

    Raises:
        FoldcraftError: a file of a fold or of a study is damaged.
    """
    return [
        scores.headline(seen),
        *compete.history(seen),
        data.split(seen),
        data.audit(seen),
        training.training(seen),
        scores.blend(seen),
        scores.views(seen),
        *parts.of_kind(seen),
        gallery.mistakes(seen, callback),
        data.diagnosis(seen),
        training.checks(seen),
        scores.leaderboard(seen),
        experiments.board(seen),
        training.nets(seen),
        training.files(seen),
    ]


def render(title: str, subtitle: str, parts: Sequence[PageSection], command: str) -> str:
    """The page.

    Args:
        subtitle: what it is about.
        command: that makes it again.
    """
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.filters["code"] = code
    environment.filters["counted"] = counted
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        sections=parts,
        command=command,
        made=f"{datetime.now():%Y-%m-%d %H:%M}, Python {platform.python_version()}",
        style=(HERE / "page.css").read_text(),
        script=(HERE / "page.js").read_text(),
        charts=chart_library(),
    )


def code(text: str) -> Markup:
    """Text with what stands between backticks set as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else part for k, part in enumerate(parts))


@cache
def chart_library() -> str:
    """Vega, Vega-Lite and their embedder as one script that sets `vegaEmbed`, of the version that Altair writes for."""
    version = ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    return script.replace("</script", "<\\/script")
