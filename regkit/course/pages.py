"""Notebooks and texts as HTML pages that need no network: formulas as MathML, no scripts from elsewhere.

It stands by itself because nbconvert is heavy, and only `python -m regkit pages` needs it.
"""

import base64
import copy
import inspect
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated, Any, get_origin

import numpy as np
import pdoc
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image

from regkit import types
from regkit.widgets.static import webp

_TEMPLATE = """{%- extends "lab/index.html.j2" -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}"""

_STYLE = """<style>
.regkit-contents { font: 14px/1.5 sans-serif; margin: 1em auto; max-width: 56em; padding: 0 1em }
.regkit-contents ul { list-style: none; padding-left: 0 }
.regkit-contents li { margin: 0.4em 0; line-height: 1.3 }
.regkit-contents a:is(:hover, :focus) { text-decoration: underline }
main { margin: 0 auto; max-width: 80em }
.jp-RenderedHTMLCommon img { max-width: 100% }
@media (min-width: 1100px) {
  .regkit-contents { position: fixed; top: 0; bottom: 0; width: 15em; margin: 0; padding: 1em; overflow-y: auto }
  main { margin-left: 17em }
}
</style>"""
_WELCOME = """# regkit: image registration to touch

A course that goes from a triangle and a circle to the head in a scanner, with five published methods of deep-learning
image registration. On these pages every cell was run; sliders and choices still move, without Python.

![a brain on its way onto another: the warped image, its grid, what is left](gallery/time.gif)

"""
_INSIDE = "_core|commands|course.(check|lessons|pages|papers)"  # what the reference leaves out
_MOVED = {"README.md#Glossary": "glossary.html", "README.md": "index.html"}
_WIDGET = "application/vnd.jupyter.widget-view+json"


class _Renderer(IPythonRenderer):
    """Markdown to HTML, formulas to MathML."""

    def block_math(self, body: str) -> str:
        """A formula on a line of its own."""
        return convert(body, display="block")

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """A picture, or its words where it lies on the network."""
        return escape(text) if url.startswith("http") else super().image(text, url, title)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link; one to another notebook or text of the course leads to its page."""
        return super().link(text, re.sub(r"^([\w-]+)\.(ipynb|md)", r"\1.html", _MOVED.get(url, url)), title)

    def inline_math(self, body: str) -> str:
        """A formula within a sentence."""
        return convert(body)


class _Exporter(HTMLExporter):
    """nbconvert's, with formulas as MathML and without scripts from elsewhere."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The filter by which the template writes a cell of text."""
        return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


def to_html(notebook: Any, title: str) -> str:
    """A notebook (nbformat 4), with its outputs, as a page; live widgets (progress bars) have no place on it.

    It has a table of its sections, and ends with the links that stand after its title.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)  # nbconvert would fetch a script for them
    notebook.metadata["title"] = title
    notebook.cells += [new_markdown_cell(links.source) for links in notebook.cells[1:2]]
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _WIDGET not in output.get("data", {})]
    page, _ = _Exporter(raw_template=_TEMPLATE).from_notebook_node(notebook)
    page = re.sub(r"data:image/png;base64,([\w+/=\n]+)", _as_webp, page)
    sections = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', page, re.DOTALL)
    entries = "".join(f'<li><a href="#{place}">{words}</a></li>' for place, words in sections)
    home = '<a href="index.html">regkit</a> · <a href="glossary.html">glossary</a> · <a href="claims.html">ledger</a>'
    home += ' · <a href="api/regkit.html">reference</a>'
    contents = f'<nav class="regkit-contents" aria-label="contents">{home}<ul>{entries}</ul></nav>'
    return page.replace("</head>", f"{_STYLE}</head>", 1).replace("<main>", f"{contents}<main>", 1)


def _as_webp(found: re.Match[str]) -> str:
    """A figure's PNG as a WebP without loss, which is smaller."""
    picture = Image.open(io.BytesIO(base64.b64decode(found[1])))
    return f"data:image/webp;base64,{webp(np.asarray(picture.convert('RGBA')))}"


def text_to_html(text: str) -> str:
    """Markdown as a page; its first heading is the title."""
    return to_html(new_notebook(cells=[new_markdown_cell(text)]), text.split("\n", 1)[0].lstrip("# "))


def reference(target: Path) -> None:
    """The API reference, from the docstrings: target/regkit.html, with a search that needs no network."""
    pdoc.render.configure(docformat="google", show_source=False)
    signatures = pdoc.render.env.filters["format_signature"]
    pdoc.render.env.filters["format_signature"] = lambda found, colon: signatures(_named(found), colon)
    pdoc.pdoc("regkit", "regkit.tools", f"!regkit.({_INSIDE})", output_directory=target)
    for page in target.rglob("*.html"):
        page.write_text(_with_names(page.read_text("utf-8"), escape), encoding="utf-8")


def _with_names(text: str, written: Callable[[str], str] = str) -> str:
    """Text with the names of `regkit.types`, such as Displacement, for what they stand for."""
    for name, value in vars(types).items():
        if get_origin(value) is Annotated:
            rule = written(repr(value).removeprefix("typing."))  # which it lacks within others, such as Optional
            text = re.sub(rf"(typing\.)?{re.escape(rule)}", name, text)
    return text


def _named(signature: inspect.Signature) -> inspect.Signature:
    """A signature whose annotations have names."""

    def named(annotation: Any) -> Any:
        empty = annotation is inspect.Signature.empty
        return annotation if empty else _Words(_with_names(inspect.formatannotation(annotation)))

    parameters = [each.replace(annotation=named(each.annotation)) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=named(signature.return_annotation))


@dataclass(frozen=True)
class _Words:
    """Something that is written as its text."""

    text: str

    def __repr__(self) -> str:
        return self.text


def texts(tutorials: Path, notebooks: Mapping[str, Any]) -> dict[str, str]:
    """The pages that are text, by name: the glossary, other texts of the course; last the index, with all goals."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(tutorials.glob("*.md"))}
    readme = found.pop("README", "")
    if "## Glossary" in readme:
        found["glossary"] = readme[readme.index("## Glossary") + 1 :]
    parts = []
    for name, notebook in notebooks.items():
        head = notebook.cells[0].source
        goals = re.search(r"\*\*Goals\.\*\* (.+?)(\n\n|$)", head, re.DOTALL)
        parts.append(f"## [{head.splitlines()[0].lstrip('# ')}]({name}.ipynb)\n\n{goals[1] if goals else ''}\n\n")
    others = [f"[{text.splitlines()[0].lstrip('# ')}]({name}.md)" for name, text in found.items()]
    others += ["[reference of the library](api/regkit.html)"]
    return {**found, "index": _WELCOME + "".join(parts) + " | ".join(others)}
