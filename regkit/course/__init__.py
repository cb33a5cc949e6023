"""The course: `begin` opens each tutorial, check holds its exercises, lessons what single tutorials show.

notebooks makes and opens the notebooks, pages writes them as HTML; studies are the trained variants of each method;
claims what the papers claim, by the evidence of studies and the rule of judgement; ledger shows it; patients are files
to try an examination on. results: what was measured, stored.
"""

# ruff: noqa: F403 (all that notebooks has)

from regkit.course.notebooks import *
