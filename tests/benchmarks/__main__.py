"""python tests/benchmarks [--quick] [section ...]: what regkit costs beside its peers. A report, never a test."""

import argparse
import importlib

import torch

SECTIONS = ("fields", "losses", "metrics", "models", "sacbnet", "widgets", "browser_latency")


def main() -> None:
    """Run the sections asked for, each with `run(quick)`, on one thread."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="smaller images")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"a section must be one of {SECTIONS}, received {sorted(unknown)}; name some of them or none.")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in options.sections or SECTIONS:
        importlib.import_module(name).run(options.quick)


if __name__ == "__main__":
    main()
