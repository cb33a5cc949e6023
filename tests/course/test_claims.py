"""The claims ledger: its judgements on made-up results, its laws on stored models, and the file that is shown."""

import pytest
from helpers.tutorials import ROOT

from regkit.__main__ import main
from regkit.course import claims, studies
from regkit.course.claims import Claim, Finding

METHODS = {"GradICON", "SITReg", "SPnet", "SACB-Net", "SM-GICNet"}


@pytest.fixture
def made_up(monkeypatch):
    """Three seeds of two variants whose Dice overlaps, of one that is better in every seed, and none of a fourth."""
    dice = {"low": [0.5, 0.6, 0.7], "mixed": [0.55, 0.59, 0.8], "high": [0.7, 0.8, 0.9], "untrained": []}
    kept = {name: [{"metrics": {"dice": value}} for value in values] for name, values in dice.items()}
    monkeypatch.setattr(claims, "records", lambda study, variant: kept[variant])
    monkeypatch.setattr(studies, "records", lambda study, variant: kept[variant])


@pytest.mark.parametrize(
    ("judge", "holds"),
    [
        (claims.rises("study", "dice", "low", "high"), True),
        (claims.rises("study", "dice", "low", "mixed", "high"), True),
        (claims.rises("study", "dice", "low", "mixed"), False),  # the second seed says otherwise
        (claims.rises("study", "dice", "high", "low"), False),
        (claims.rises("study", "dice", "low", "high", factor=1.3), True),
        (claims.rises("study", "dice", "low", "high", factor=1.4), False),
        (claims.rises("study", "dice", "low", "untrained"), None),
        (claims.not_less("study", "dice", "low", "mixed"), True),
        (claims.not_less("study", "dice", "low", "high"), False),
        (claims.not_less("study", "dice", "low", "untrained"), None),
        (claims.within("study", "dice", "low", "mixed", least=0.5, most=0.8), True),
        (claims.within("study", "dice", "low", least=0.51), False),
        (claims.within("study", "dice", "untrained", least=0.51), None),
        (
            claims.every(claims.rises("study", "dice", "low", "high"), claims.within("study", "dice", "low", most=0.6)),
            False,
        ),
        (claims.every(claims.within("study", "dice", "untrained"), claims.within("study", "dice", "low")), None),
    ],
)
def test_a_claim_holds_where_all_seeds_show_it(made_up, judge, holds):
    finding = judge()
    assert finding.holds is holds and "Dice" in finding.words


def test_the_table_counts_and_keeps_what_does_not_hold():
    rows = [
        Claim("A", f"claim {held}", "Table 1", "2", ("x", "y"), lambda held=held: Finding("3", held))
        for held in (True, False, None)
    ]
    text = claims.table(rows)
    assert "3 claims: 1 hold, 1 do not, 1 not trained yet" in text and "claim False" in text and "**no**" in text
    assert rows[0].command == "python -m regkit study x && python -m regkit study y"


def test_the_ledger_has_every_method_and_most_claims_hold():
    findings = {claim: claim.judge() for claim in claims.CLAIMS}
    assert len(findings) >= 22 and {claim.method for claim in findings} == METHODS
    assert all(name in studies.STUDIES for claim in findings for name in claim.studies)
    assert sum(finding.holds is True for finding in findings.values()) >= 18
    assert all(claim.remark for claim, finding in findings.items() if not finding.holds), "say what was tried"
    assert len({(claim.method, claim.words) for claim in findings}) == len(findings)


def test_the_file_that_is_shown_follows_from_the_results(tmp_path):
    assert main(["ledger", "--out", str(tmp_path / "claims.md")]) == 0
    shown = (ROOT / "tutorials" / "claims.md").read_text()
    assert (tmp_path / "claims.md").read_text() == shown, "run python -m regkit ledger"


def test_every_number_of_the_ledger_rests_on_three_seeds():
    for study, choices in studies.VARIANTS.items():
        for variant in choices:
            assert len(studies.records(study, variant)) >= 3, (study, variant)


def test_laws_can_fail():
    assert claims.symmetry("spnet").holds and not claims.symmetry("smgicnet").holds
    assert not claims.evaluations("sitreg", most=2).holds
    assert (
        claims.evaluations("sitreg").holds
        and claims.memory().holds
        and claims.translation().holds
        and claims.control_limit().holds
    )
