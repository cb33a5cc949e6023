"""Every exercise of the course: blank is amber, the reference green, each known mistake red with its own hint."""

import itertools
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from helpers.tutorials import SOURCES
from nibabel import aff2axcodes, load

from regkit.course import check
from regkit.course.check import exercise as rules
from regkit.course.check import hands
from regkit.course.check.hands import ByHand, Helped
from regkit.course.check.t12_into_3d_brains import _DEALT, _stored, _true
from regkit.fields import warp
from regkit.images import Grid, Scan, read_image, resample

EXERCISES = {name: value for name, value in vars(check).items() if isinstance(value, check.Exercise)}
BY_WORDS = ("bought", "failing_laws", "growing_gap", "faults")
BY_FUNCTION = {"one_law_less": "my_update", "plain_convolution": "my_plain", "way_back": "my_way_back"}


def test_no_two_tutorials_give_one_name_to_two_things():
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{check.__name__}.")]
    names = [name for module in modules for name in getattr(module, "__all__", [])]
    assert len(names) > len(EXERCISES) and sorted(names) == sorted(set(names))


def test_a_verdict_shows_itself_in_text_and_in_html():
    verdict = check.Verdict("red", "a < b")
    assert str(verdict).startswith("✗") and "a < b" in str(verdict)
    assert "a &lt; b" in verdict._repr_html_() and 'role="status"' in verdict._repr_html_()


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("blank", [None, ...])
def test_blank_is_amber_and_says_what_to_do(name, blank):
    verdict = EXERCISES[name].judge(blank)
    assert verdict.colour == "amber" and verdict.message == EXERCISES[name].task


@pytest.mark.parametrize(
    ("name", "answer", "missing"),
    [
        ("turned", lambda: (..., ...), ""),
        ("turned", lambda: (check.brain_slice(), ...), "Half done: composed is still blank. "),
        ("slopes", lambda: (..., ...), ""),
        ("slopes", lambda: (0.01, ...), "Half done: finite is still blank. "),
        ("faults", lambda: check.faults.reference() | {"third": ...}, "third still blank. "),
        ("bought", lambda: {"MIE": "Neither ", "FW": "accuracy", "BE": None, "BA": ...}, "BE, BA still blank. "),
        (
            "failing_laws",
            lambda: {"one-sided": "symmetry", "B stays": ..., "minus": None},
            "B stays, minus still blank. ",
        ),
        ("growing_gap", lambda: check.growing_gap.reference() | {"levels": ...}, "levels still blank. "),
        *((name, lambda name=name: dict.fromkeys(EXERCISES[name].reference(), ...), "") for name in BY_WORDS),
        *(
            (name, lambda: lambda *_: None, f"{function} returns nothing yet. ")
            for name, function in BY_FUNCTION.items()
        ),
        ("repaired", lambda: dict.fromkeys(_DEALT, None), ""),
        ("repaired", lambda: check.repaired.reference() | {"third": None}, "third still blank. "),
    ],
)
def test_an_answer_may_be_filled_in_part_by_part(name, answer, missing):
    verdict = EXERCISES[name].judge(answer())
    assert verdict.colour == "amber" and verdict.message == f"{missing}{EXERCISES[name].task}"


def test_a_mistake_is_known_by_its_answer_by_others_or_by_a_property_and_never_where_the_answer_is_right():
    exercise = check.Exercise(
        "write 4",
        "4",
        prepare=float,
        reference=lambda: 4,
        alike=lambda one, other: abs(one - other) < 1,
        mistakes={
            "near": check.Mistake(lambda: 5.5, "5.5", others=(lambda: 7.5,)),
            "even": check.Mistake(lambda: 10, "even", lambda number: number % 2 == 0 and number != 4),
            "else": check.Mistake(lambda: 11, "else", "otherwise"),
            "words": lambda: "four",
        },
    )
    said = [exercise(answer).message for answer in (4, 4.8, 6.2, 7.0, 10, 9)]
    assert said == ["4", "4", "5.5", "5.5", "even", "else"]
    assert exercise("four").message.endswith("could not be read (could not convert string to float: 'four'). write 4")


def test_a_function_by_hand_is_judged_where_it_is_written_and_replaced_while_it_is_not_right(capsys):
    @check.compose_by_hand
    def blank(u, v):
        return ... + u

    @check.compose_by_hand
    def wrong(u, v):
        return u + v

    @check.compose_by_hand
    def right(u, v):
        return v + warp(u, v)

    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("○") and "still a ..." in said[0] and "goes on with the solution" in said[0]
    assert said[1].startswith("✗") and "do not add" in said[1] and said[2].startswith("✓")
    assert blank is wrong is check.compose_by_hand.reference() is not right and right.__name__ == "right"


BLANKS = [
    (name, text)
    for source in SOURCES
    for name, text in re.findall(r"^@check\.(\w+)\n(def .+?)\n\n\n", source.read_text(encoding="utf-8"), re.M | re.S)
]


@pytest.mark.parametrize(("name", "text"), BLANKS, ids=[name for name, _ in BLANKS])
def test_a_tutorials_blank_function_is_the_solution_with_blanks_and_is_amber(name, text):
    exercise, head = EXERCISES[name], text.index('"""', text.index('"""') + 3)
    assert text[:head] == exercise.solution[:head] and text != exercise.solution
    places = dict(exercise.reference().__globals__)
    exec(text, places)
    verdict = exercise.judge(places[exercise.reference().__name__])
    assert verdict.colour == "amber" and exercise.task in verdict.message


def test_a_solution_can_be_unfolded_below_a_verdict():
    shown = Helped("red", "no", check.compose_by_hand.solution)._repr_html_()
    assert "<summary>show me</summary>" in shown and "def compose_by_hand(u, v):" in shown and "@" not in shown


def test_each_text_of_the_data_files_is_of_a_function_that_a_learner_writes():
    told, solutions = {}, [one.reference() for one in EXERCISES.values() if isinstance(one, ByHand)]
    for path in Path(hands.__file__).parent.glob("t*.toml"):
        for name, texts in tomllib.loads(path.read_text(encoding="utf-8")).items():
            told[path.stem, name] = set(texts)
            assert len(texts["mistakes"]) >= 3, f"{path.name}: three mistakes or more are wanted of {name}"
    assert set(told) == {(one.__module__.rpartition(".")[2], one.__name__) for one in solutions}
    assert all(texts == {"task", "praise", "otherwise", "mistakes"} for texts in told.values()), told


def endless(*arguments):
    while True:
        pass


@pytest.mark.parametrize(
    ("answer", "said"), [(endless, "does each of its loops end"), (itertools.count(), "ends who knows when")]
)
def test_what_never_ends_is_stopped(monkeypatch, answer, said):
    monkeypatch.setattr(rules, "LIMIT", 0.2)
    assert said in check.compose_by_hand.judge(answer).message


OFFSET = torch.tensor([1.5, 1.5])


@pytest.mark.parametrize(
    "function",
    [lambda p: 4 * p + OFFSET, lambda p: (4 * p[0] + 1.5, 4 * p[1] + 1.5), lambda p: [4 * part + 1.5 for part in p]],
)
def test_a_converter_may_be_written_for_a_place_of_two_numbers(function):
    assert check.small_to_full(function).colour == "green"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_is_green(name):
    verdict = EXERCISES[name].judge(EXERCISES[name].reference())
    assert verdict.colour == "green", verdict


@pytest.mark.parametrize("name", EXERCISES)
def test_each_known_mistake_is_red_with_a_hint_of_its_own(name):
    exercise = EXERCISES[name]
    verdicts = {mistake: exercise.judge(make()) for mistake, make in exercise.mistakes.items()}
    assert len(verdicts) >= 3
    assert {mistake: verdict.colour for mistake, verdict in verdicts.items()} == dict.fromkeys(verdicts, "red")
    assert len({verdict.message for verdict in verdicts.values()}) == len(verdicts)


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("nonsense", ["text", object(), [], float("nan"), {"a": 1}, [[1], [2, 3]]])
def test_nonsense_is_red_and_never_raises(name, nonsense):
    assert EXERCISES[name].judge(nonsense).colour == "red"


# ---------------------------------------------------------------------------------------------- tutorial 14: transforms
def exported_by(matrix):
    def transform(u, fixed):
        direction, size = np.reshape(fixed.GetDirection(), (3, 3)), np.diag(fixed.GetSpacing())
        field = SimpleITK.GetImageFromArray(u.T @ matrix(direction, size).T)
        field.CopyInformation(fixed)
        return SimpleITK.DisplacementFieldTransform(field)

    return transform


def voxel_by_voxel(u, fixed):
    field = SimpleITK.Image(fixed.GetSize(), SimpleITK.sitkVectorFloat64)
    field.CopyInformation(fixed)
    for place in np.ndindex(u.shape[1:]):
        there = [float(i + u[(axis, *place)]) for axis, i in enumerate(place)]
        ends = [fixed.TransformContinuousIndexToPhysicalPoint(end) for end in (list(map(float, place)), there)]
        field[place] = [after - before for before, after in zip(*ends, strict=True)]
    return SimpleITK.DisplacementFieldTransform(field)


def in_torch(u, fixed):
    matrix = torch.tensor(fixed.GetDirection(), dtype=torch.float64).reshape(3, 3) * torch.tensor(fixed.GetSpacing())
    field = SimpleITK.GetImageFromArray(torch.einsum("xa,aijk->kjix", matrix, torch.from_numpy(u)).numpy())
    field.CopyInformation(fixed)
    composite = SimpleITK.CompositeTransform(3)
    composite.AddTransform(SimpleITK.DisplacementFieldTransform(field))
    return composite


def unwritten(u, fixed):
    raise NotImplementedError


def torch_refuses(u, fixed):
    return torch.einsum("xa,aijk->kjix", torch.eye(3), torch.from_numpy(u))


FLIP = np.diag([-1.0, -1, 1])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (voxel_by_voxel, "✓"),
        (in_torch, "✓"),
        (unwritten, "○.*not written yet"),
        (torch_refuses, "✗.*could not be read.*Double"),
        (exported_by(lambda direction, size: FLIP @ direction), "✗.*the unit"),
        (exported_by(lambda direction, size: FLIP), "✗.*the unit"),
        (exported_by(lambda direction, size: direction.T @ size), "✗.*transposed"),
        (exported_by(lambda direction, size: size @ direction.T), "✗.*transposed"),
        (exported_by(lambda direction, size: size @ direction), "✗.*too late"),
        (exported_by(lambda direction, size: -FLIP @ direction @ size), "✗.*another map"),
    ],
)
def test_a_transform_may_be_written_in_other_ways_and_be_wrong_in_others(answer, said):
    assert re.match(said, str(check.exported(answer)))


# ---------------------------------------------------------------------------------------------- tutorial 12: files
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return check.faulty_files(tmp_path_factory.mktemp("files"))


def with_affine(path, affine):
    """The file's voxels with another affine, on the trusted scan's grid."""
    values = torch.from_numpy(load(path).get_fdata(dtype=np.float32))[None, None]
    grid = Grid(values.shape[2:], affine)
    return resample(Scan(values, grid, grid), check.trusted_scan()).tensor


@pytest.mark.parametrize("name", _DEALT)
def test_a_file_has_a_fault_in_its_affine_alone(files, name):
    trusted = check.trusted_scan()
    stored = load(files[name])
    assert np.allclose(stored.affine, _stored(name))
    assert np.array_equal(np.sort(stored.get_fdata(), None), np.sort(trusted.tensor.numpy().astype(float), None))
    assert torch.allclose(with_affine(files[name], _true(name)), trusted.tensor, atol=1e-5)
    wrong = resample(read_image(files[name]), trusted).tensor
    assert (wrong - trusted.tensor).abs().max() > 0.5


@pytest.mark.parametrize("name", _DEALT)
def test_any_affine_within_two_millimetres_is_right(name):
    near, far = check.repaired.reference(), check.repaired.reference()
    near[name][:3, 3] += (1.0, -1.5, 0.5)
    far[name][:3, 3] += (0.0, 4.0, 0.0)
    assert check.repaired(near).colour == "green" and check.repaired(far).colour == "red"


def test_the_capsule_is_to_the_right_and_has_no_twin():
    trusted = check.trusted_scan()
    assert "".join(aff2axcodes(trusted.affine)) == "RAS"
    bright = np.argwhere(trusted.tensor[0, 0].numpy() == 1) @ np.diag(trusted.spacing) + trusted.affine[:3, 3]
    beside = bright[np.abs(bright[:, 0]) > 75]
    assert len(beside) > 20 and (beside[:, 0] > 0).all()
