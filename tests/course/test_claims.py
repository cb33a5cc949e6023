"""The claims ledger: its effects on made-up results, its laws on stored models, and the files that are shown."""

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.tutorials import ROOT

from regkit.__main__ import main
from regkit.course import claims, evidence, ledger, studies
from regkit.course.evidence import VERDICTS, Claim, effect

METHODS = {"GradICON", "SITReg", "SPnet", "SACB-Net", "SM-GICNet"}
TAG = re.compile(r"<!-- claim: (.+?) = (.+?) -->")


@pytest.fixture
def made_up(monkeypatch):
    """Pairs of one baseline, and of two variants that were trained from some seeds."""
    found = {
        "brains: none": {-1: [0.2, 0.4, 0.6]},
        "spnet: reference": {0: [0.8, 0.9, 1.0], 1: [0.7, 0.8, 0.9], 3: [0.9, 0.9, 0.9]},
        "spnet: SS": {0: [0.5, 0.7, 0.9], 3: [0.6, 0.7, 0.8]},
        "spnet: untrained": {},
    }
    found = {side: {seed: np.array(row) for seed, row in rows.items()} for side, rows in found.items()}
    monkeypatch.setattr(evidence, "reached", lambda side, measure: found[side])


def test_an_effect_is_of_the_seeds_that_both_sides_have(made_up):
    differences, fixed = effect("dice | spnet: reference > spnet: SS").differences()
    assert np.allclose(differences, [[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]]) and not fixed
    against, _ = effect("dice | spnet: reference > brains: none").differences()
    assert np.allclose(against[1], [0.5, 0.4, 0.3]) and len(against) == 3
    bounded, _ = effect("dice | 1 >= spnet: SS").differences()
    assert np.allclose(bounded, [[0.5, 0.3, 0.1], [0.4, 0.3, 0.2]])
    ratio, _ = effect("dice | spnet: reference > 2 x spnet: SS").differences()
    assert ratio[1] == pytest.approx(np.log10([0.9 / 1.2, 0.9 / 1.4, 0.9 / 1.6]))
    _, fixed = effect("dice | brains: none > 0.1").differences()
    assert fixed and effect("dice | spnet: untrained > spnet: SS").compare().estimate.pairs == 0


def test_a_slope_is_what_a_line_through_the_pairs_has(made_up):
    found = effect("slope of dice | spnet: reference > spnet: SS").compare()
    before = np.array([0.2, 0.4, 0.6])
    assert found.estimate.mean == pytest.approx(-np.polyfit(before / before.std(), [0.3, 0.2, 0.1], 1)[0])
    assert "slope of Dice: spnet, reference - SS" in found.words and len(found.dots) == 2


def test_what_is_no_effect_says_so():
    with pytest.raises(ValueError, match="larger side > smaller side"):
        effect("dice | spnet: reference = spnet: SS")


def test_the_pages_count_and_keep_what_does_not_hold(made_up):
    rows = [
        Claim("law", "A", "holds", "Table 1", "2", lambda: ("3", True)),
        Claim("broken", "A", "does not", "Table 1", "2", lambda: ("3", False), "As expected."),
        Claim("lungs", "A", "of lungs", "Table 1", "2", "There are no lungs."),
        Claim("effect", "A", "up", "Table 1", "2", (effect("dice | spnet: reference > spnet: SS"),)),
    ]
    findings = evidence.judge(rows)
    text, page = ledger.table(findings), ledger.forest(findings)
    assert "4 claims: 1 yes, 1 no, 1 not told apart, 1 cannot be judged." in text.splitlines()[2]
    assert "**no**. As expected." in text and "`python -m regkit study spnet`" in text
    assert re.search(r"!\[.+4 claims.+\]\(gallery/forest.svg\)", page) and "4. not told apart. Dice" in page
    drawn = ledger.draw(findings)
    assert drawn == ledger.draw(findings) and b"4. Dice: spnet, reference - SS" in drawn


def test_the_ledger_names_what_there_is():
    """Every method has rows, most of which are judged; sides are variants or methods; names tell rows apart."""
    kinds = [type(claim.what) for claim in claims.CLAIMS]
    assert len(claims.CLAIMS) >= 55 and {claim.method for claim in claims.CLAIMS} == METHODS
    assert kinds.count(tuple) >= 55 and kinds.count(str) <= 15
    assert len({(claim.method, claim.name) for claim in claims.CLAIMS}) == len(claims.CLAIMS)
    effects = [each for claim in claims.CLAIMS if isinstance(claim.what, tuple) for each in claim.what]
    for side in {side for each in effects for side in (each.more, each.less) if isinstance(side, str)}:
        name, variant = side.split(": ", 1)
        assert evidence.reached(side, "dice") if name not in studies.STUDIES else variant in studies.VARIANTS[name], (
            side
        )
    assert all(each.compare().smallest > 0 for each in effects)


def test_the_files_that_are_shown_follow_from_the_results(tmp_path):
    assert main(["ledger", "--out", str(tmp_path / "claims.md")]) == 0
    for name in ("claims.md", "forest.md"):
        shown = (ROOT / "tutorials" / name).read_text()
        assert (tmp_path / name).read_text() == shown, "run python -m regkit ledger"


def test_tutorials_say_what_the_ledger_says():
    """A sentence about stored results is tagged <!-- claim: METHOD: NAME = VERDICT -->; two seeds tell nothing yet."""
    findings = {f"{each.claim.method}: {each.claim.name}": each for each in evidence.judge(claims.CLAIMS)}
    said = [
        (path.name, *tag)
        for path in sorted((ROOT / "tutorials").glob("*.py"))
        for tag in TAG.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(said) >= 20 and {name for _, name, _ in said} <= findings.keys()
    wrong = [
        (file, name, verdict, findings[name].verdict)
        for file, name, verdict in said
        if verdict != findings[name].verdict and early(findings[name]) > 2
    ]
    assert not wrong, f"the ledger says otherwise: {wrong}"
    assert {verdict for *_, verdict in said} <= set(VERDICTS)


def early(finding):
    """The fewest seeds that an effect behind a finding has; of what was not trained here, enough."""
    estimates = [each.estimate for each in finding.comparisons]
    return min((each.seeds if np.isinf(each.error) or each.seeds > 1 else 8 for each in estimates), default=8)


def test_laws_can_fail():
    spnet, smgicnet = (claims.symmetry(name)[1] for name in ("spnet", "smgicnet"))
    assert spnet and not smgicnet and not claims.evaluations("sitreg", most=2)[1]
    assert claims.gamma_limit(0.05)[1] and not claims.gamma_limit(0.15)[1]
    assert not claims.parameters(claims.SPNet, 0.5)[1]
    assert not claims.memory_ratio((claims.SPNet, {}), (claims.SPNet, {}), 1.1, 2)()[1]
    for name in ("iterations", "update memory", "bound", "translation"):
        assert claims.LAWS[name]()[1], name


def test_a_claim_names_the_commands_behind_it():
    named = {f"{claim.method}: {claim.name}": claim.command for claim in claims.CLAIMS}
    assert named["SPnet: SyN"] == "python -m regkit study spnet && python -m regkit leaderboard --benchmark brains"
    assert replace(claims.CLAIMS[0], what="no lungs").command == "-"
