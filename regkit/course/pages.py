"""A notebook as an HTML page that needs no network: formulas as MathML, no scripts from elsewhere.

It stands by itself because nbconvert is heavy, and only `python -m regkit pages` needs it.
"""

import copy
from html import escape
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

_TEMPLATE = """{%- extends "lab/index.html.j2" -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}"""

_WIDGET = "application/vnd.jupyter.widget-view+json"


class _Renderer(IPythonRenderer):
    """Markdown to HTML, formulas to MathML."""

    def block_math(self, body: str) -> str:
        """A formula on a line of its own."""
        return convert(body, display="block")

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """A picture, or its words where it lies on the network."""
        return escape(text) if url.startswith("http") else super().image(text, url, title)

    def inline_math(self, body: str) -> str:
        """A formula within a sentence."""
        return convert(body)


class _Exporter(HTMLExporter):
    """nbconvert's, with formulas as MathML and without scripts from elsewhere."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The filter by which the template writes a cell of text."""
        return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


def to_html(notebook: Any) -> str:
    """A notebook (nbformat 4), with its outputs, as a page; live widgets (progress bars) have no place on it."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)  # nbconvert would fetch a script for them
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _WIDGET not in output.get("data", {})]
    page, _ = _Exporter(raw_template=_TEMPLATE).from_notebook_node(notebook)
    return page
