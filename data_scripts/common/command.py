"""The command line, the same for all datasets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_scripts.common import layout
from data_scripts.common.datasets import Dataset
from data_scripts.common.errors import DatasetError, explained
from data_scripts.common.preparing import Request, fetched, is_prepared, prepare


def main(dataset: Dataset, arguments: Sequence[str] | None = None) -> int:
    """Run a dataset's script; returns the exit status."""
    chosen = _parser(dataset).parse_args(arguments)
    request = Request(
        dataset, chosen.variant, chosen.folder.absolute(), chosen.origin, chosen.limit, progress=not chosen.quiet
    )
    try:
        if chosen.check:
            return _check(request)
        if chosen.dry_run:
            print(_intention(request))
            return 0
        if request.origin is None and fetched(request.preparation) and not is_prepared(request):
            print(f"{dataset.title}: licence {dataset.licence}. By fetching it you accept its terms: {dataset.terms}")
        made = prepare(request)
        print(f"{request.folder} is {'ready' if made else 'there already: nothing to do'}")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if sys.flags.dev_mode and not isinstance(error, (OSError, DatasetError)):
            raise
        print(f"error: {explained(error)}", file=sys.stderr)
        return 1
    return 0


def _parser(dataset: Dataset) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m data_scripts.{dataset.name}", description=f"{dataset.title}: {dataset.steps}"
    )
    parser.add_argument("folder", type=Path, help="where the prepared dataset goes")
    variants = list(dataset.variants)
    parser.add_argument("--variant", choices=variants, default=variants[0], help=f"which preparation ({variants[0]})")
    parser.add_argument("--from", dest="origin", type=Path, metavar="FOLDER", help="take the files from here")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N scans of each split")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--check", action="store_true", help="verify a folder that was prepared before")
    parser.add_argument("--quiet", action="store_true", help="without progress bars")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {number}")
    return number


def _check(request: Request) -> int:
    """Print all that is wrong with the folder."""
    found = layout.problems(request.folder)
    for problem in found[:20]:
        print(f"error: {problem}", file=sys.stderr)
    if len(found) > 20:
        print(f"error: and {len(found) - 20} more", file=sys.stderr)
    count = len(layout.read_facts(request.folder)["checksums"])
    print(f"{request.folder}: {f'{len(found)} problems' if found else f'all {count} files are as they were written'}")
    return 1 if found else 0


def _intention(request: Request) -> str:
    """What would be done."""
    dataset, variant = request.dataset, request.preparation
    lines = [f"{dataset.title}, variant {request.variant}", f"licence: {dataset.licence}", f"terms: {dataset.terms}"]
    if request.origin is not None:
        lines.append(f"take: the files below {request.origin}")
    elif fetched(variant):
        for source in variant.sources:
            held = source.checksum or "no published checksum: recorded at the first fetch"
            size = f"{source.size / 1e9:.2f} GB" if source.size else "size not known"
            lines.append(f"fetch: {source.addresses[0]} ({size}; {held})")
        lines.append(f"keep archives in: {request.downloads}")
    else:
        lines.append(f"by hand: {dataset.steps}")
    lines += [f"then: {step}" for step in variant.preprocessing]
    train, validation, test = variant.counts
    kept = f", of which the first {request.limit} of each" if request.limit else ""
    lines.append(f"split: {train} train, {validation} validation, {test} test{kept}")
    lines.append(f"write: {request.folder}{' (it is there already)' if is_prepared(request) else ''}")
    return "\n".join(lines)
