"""The training loop: the same numbers for a seed, however often it stops and however many processes share it."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regkit._core import processes
from regkit.data import ShapePairs
from regkit.fields import warp
from regkit.models import GradICON
from regkit.models.layers import configured, conv
from regkit.training import History, Recipe, mode, seed_everything, steps, train
from regkit.types import Dim, InputError, InputTypeError, Registration

PAIRS = {2: ShapePairs(7, size=(9, 11), seed=1), 3: ShapePairs(5, dim=3, size=(7, 9, 8), seed=1)}


@configured
class Tiny(nn.Module):
    """A registration model with every kind of state: weights, statistics, dropout, a generator of its own."""

    def __init__(self, dim: Dim = 2, *, width: int = 4, weight: float = 0.1, noise: bool = True) -> None:
        super().__init__()
        self.first, self.head = conv(dim, 2, width), conv(dim, width, dim)
        self.norm = (nn.BatchNorm2d if dim == 2 else nn.BatchNorm3d)(width) if noise else nn.Identity()
        self.dropout = nn.Dropout(0.2 if noise else 0)
        self.generator = torch.Generator().manual_seed(11)
        self.weight, self.noise = weight, 0.01 * noise
        self.terms: list[dict[str, torch.Tensor]] = []

    def forward(self, moving, fixed):
        features = self.dropout(torch.relu(self.norm(self.first(torch.cat([moving, fixed], 1)))))
        displacement = self.head(features)
        return Registration(displacement, levels=(displacement,))

    def objective(self, registration, moving, fixed):
        displacement = registration.displacement
        noise = torch.randn(displacement.shape, generator=self.generator) * self.noise
        similarity = (warp(moving, displacement + noise) - fixed).square().mean()
        return {"similarity": similarity, "size": self.weight * displacement.square().mean()}


def tiny(dim: Dim = 2, **options) -> Tiny:
    torch.manual_seed(5)
    return Tiny(dim, **options)


def state(model: Tiny) -> dict[str, torch.Tensor]:
    return {**model.state_dict(), "generator": model.generator.get_state()}


def assert_same(first: Tiny, second: Tiny) -> None:
    for name, value in state(first).items():
        assert torch.equal(value, state(second)[name]), name


def quiet(model, recipe, source=None, **options) -> History:
    return train(model, PAIRS[2] if source is None else source, recipe, progress=False, **options)


RECIPE = Recipe(steps=7, learning_rate=1e-2, batch=3, seed=4, schedule="cosine", clip=1.0)


# ---------------------------------------------------------------------------------------------- the loop
@pytest.mark.parametrize("dim", [2, 3])
def test_the_loss_falls(dim):
    history = quiet(tiny(dim, noise=False), Recipe(steps=60, learning_rate=2e-2, batch=4), PAIRS[dim])
    assert len(history) == 60 and np.mean(history.loss[-10:]) < 0.8 * np.mean(history.loss[:10])


def test_one_step_is_adam_on_the_sum_of_the_terms():
    model, byhand = tiny(noise=False), tiny(noise=False)
    pair = PAIRS[2][2]
    history = quiet(model, Recipe(steps=1, learning_rate=0.03), [pair])
    terms = byhand.objective(byhand(pair.moving, pair.fixed), pair.moving, pair.fixed)
    (terms["similarity"] + terms["size"]).backward()
    torch.optim.Adam(byhand.parameters(), lr=0.03).step()
    byhand.generator.set_state(model.generator.get_state())
    assert_same(model, byhand)
    assert history.terms == {name: [value.item()] for name, value in terms.items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_is_a_function_of_its_seed(precision):
    recipe = Recipe(steps=4, batch=2, seed=1, precision=precision)
    models = [tiny(), tiny(), tiny()]
    histories = []
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(len(histories))  # what was drawn before does not matter
        histories.append(quiet(model, Recipe(**{**vars(recipe), "seed": seed})))
    assert_same(models[0], models[1])
    assert histories[0].terms == histories[1].terms != histories[2].terms


def test_training_leaves_mode_and_global_random_state_as_they_were():
    model, before, seen = tiny().eval(), torch.get_rng_state(), []
    quiet(model, Recipe(steps=2), callback=lambda step, history: seen.append(model.training))
    assert torch.equal(torch.get_rng_state(), before) and not model.training and seen == [True, True]


def test_training_leaves_a_frozen_layer_in_evaluation_mode():
    model = tiny().train()
    model.norm.eval()
    quiet(model, Recipe(steps=1))
    assert {name for name, module in model.named_modules() if not module.training} == {"norm"}


def test_callbacks_see_each_step_and_cannot_disturb_the_training():
    disturbed, alone, seen = tiny(), tiny(), []

    def callback(step, history):
        seen.append((step, len(history)))
        disturbed.eval()
        torch.rand(step + 1)

    quiet(disturbed, RECIPE, callback=callback)
    quiet(alone, RECIPE)
    assert_same(disturbed, alone)
    assert seen == [(step, step + 1) for step in range(7)]


def test_every_epoch_takes_each_pair_once_in_a_new_order():
    taken = []

    class Watched(list):
        def __getitem__(self, index):
            taken.append(index)
            return super().__getitem__(index)

    quiet(tiny(), Recipe(steps=7, batch=3), Watched(PAIRS[2]))  # 21 draws of 7 pairs: 3 epochs
    epochs = [taken[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]


def test_a_function_may_be_the_source():
    drawn = []

    def source(step, generator):
        moving, fixed = torch.rand(2, 3, 1, 9, 11, generator=generator)
        drawn.append((step, moving))
        return moving, fixed

    quiet(tiny(), Recipe(steps=3), source)
    quiet(tiny(), Recipe(steps=3), source)
    assert [step for step, _ in drawn] == [0, 1, 2, 0, 1, 2]
    assert torch.equal(drawn[1][1], drawn[4][1]) and not torch.equal(drawn[0][1], drawn[1][1])


@pytest.mark.parametrize("dim", [2, 3])
def test_bfloat16_reaches_the_quality_of_float32_with_displacements_in_float32(dim):
    types = set()

    class Watched(Tiny):
        def objective(self, registration, moving, fixed):
            types.update([registration.displacement.dtype, registration.levels[0].dtype])
            assert isinstance(registration, Registration)
            return super().objective(registration, moving, fixed)

    losses = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(5)
        recipe = Recipe(steps=60, learning_rate=2e-2, batch=4, precision=precision)
        losses.append(quiet(Watched(dim, noise=False), recipe, PAIRS[dim]).loss)
    assert types == {torch.float32} and losses[0] != losses[1]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)  # 8 bits of the displacement
    assert np.mean(losses[1][-10:]) < 1.1 * np.mean(losses[0][-10:])  # trajectories part, the level stays


def test_the_schedules_are_their_formulas():
    def rates(name):
        return [Recipe(steps=4, learning_rate=2.0, schedule=name).rate(step) for step in range(4)]

    assert rates("constant") == [2.0] * 4
    assert rates("cosine") == pytest.approx([2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5])
    assert rates("polynomial") == pytest.approx([2, 2 * 0.75**0.9, 2 * 0.5**0.9, 2 * 0.25**0.9])


def test_the_schedule_and_the_clip_reach_the_optimiser():
    constant, cosine, clipped = tiny(), tiny(), tiny()
    quiet(constant, Recipe(steps=3))
    quiet(cosine, Recipe(steps=3, schedule="cosine"))
    quiet(clipped, Recipe(steps=3, clip=1e-9))  # below Adam's epsilon of 1e-8: the weights hardly move
    start = tiny().first.weight
    assert not torch.equal(constant.first.weight, cosine.first.weight)
    assert (clipped.first.weight - start).abs().max() < 0.5 * (constant.first.weight - start).abs().max()


# ---------------------------------------------------------------------------------------------- stop and go on
@pytest.fixture(scope="module")
def whole() -> tuple[Tiny, History]:
    model = tiny()
    return model, quiet(model, RECIPE)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run.pt"


def go_on(path: Path, whole: tuple[Tiny, History]) -> None:
    """A new process would make a new model, here with other weights, and continue."""
    model = Tiny()
    model.generator.manual_seed(99)
    history = quiet(model, RECIPE, checkpoint=path)
    assert_same(model, whole[0])
    assert history.terms == whole[1].terms and len(history.seconds) == 7


def stop_after(step: int, error: BaseException):
    def callback(now, history):
        if now == step:
            raise error

    return callback


def at_call(number: int, function, *signals: int):
    """The function, with signals that arrive at the end of one of its calls, counted from 1."""
    calls = itertools.count(1)

    def interrupted(*arguments):
        done = function(*arguments)
        if next(calls) == number:
            for each in signals:
                signal.raise_signal(each)
        return done

    return interrupted


@pytest.mark.parametrize("stop", [0, 3, 5])
def test_a_crashed_training_goes_on_to_the_same_bits(path, whole, stop):
    with pytest.raises(RuntimeError, match="crash"):
        quiet(tiny(), RECIPE, checkpoint=path, every=2, callback=stop_after(stop, RuntimeError("crash")))
    if stop == 0:
        assert not path.exists()
        quiet(tiny(), RECIPE, checkpoint=path)  # starts afresh
    go_on(path, whole)


def test_an_interrupted_training_returns_its_history_and_goes_on(path, whole):
    model = tiny()
    history = quiet(model, RECIPE, checkpoint=path, callback=stop_after(3, KeyboardInterrupt()))
    assert len(history) == 4 and history.terms == {name: values[:4] for name, values in whole[1].terms.items()}
    go_on(path, whole)


def test_ctrl_c_in_the_middle_of_a_step_ends_after_that_step(path, whole):
    class Interrupted(list):
        __getitem__ = at_call(8, list.__getitem__, signal.SIGINT)  # the third step's second pair

    handler = signal.getsignal(signal.SIGINT)
    history = quiet(tiny(), RECIPE, Interrupted(PAIRS[2]), checkpoint=path)
    assert len(history) == 3 and signal.getsignal(signal.SIGINT) is handler
    go_on(path, whole)


def test_a_second_ctrl_c_interrupts_at_once_and_harms_nothing(path, whole):
    model = tiny()  # whose generator and statistics have moved on when they arrive
    model.objective = at_call(4, model.objective, signal.SIGINT, signal.SIGINT)
    assert len(quiet(model, RECIPE, checkpoint=path)) == 3
    go_on(path, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_within_the_optimisers_step_waits_for_the_steps_end(path, whole, monkeypatch, number):
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", at_call(4, torch.optim.Adam.step, number, number))
        assert len(quiet(tiny(), RECIPE, checkpoint=path)) == 4
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    go_on(path, whole)


def test_trainings_in_several_threads_are_those_they_are_alone(whole):
    models = [tiny(), tiny(), tiny()]
    threads = [threading.Thread(target=quiet, args=(model, RECIPE)) for model in models[1:]]
    before = torch.get_rng_state()
    for thread in threads:
        thread.start()
    quiet(models[0], RECIPE)
    for thread in threads:
        thread.join()
    for model in models:
        assert_same(model, whole[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_finished_training_is_not_repeated(path, whole):
    quiet(tiny(), RECIPE, checkpoint=path)
    before = path.read_bytes()
    go_on(path, whole)
    assert path.read_bytes() == before


def test_a_constant_rate_lets_a_training_grow(path):
    short, long = (Recipe(steps=n, batch=2) for n in (3, 6))
    grown, whole = tiny(), tiny()
    quiet(grown, short, checkpoint=path)
    grown = Tiny()
    quiet(grown, long, checkpoint=path)
    quiet(whole, long)
    assert_same(grown, whole)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ({}, {"learning_rate": 0.5}, r"recipe.learning_rate: 0.01 in the file, 0.5 now"),
        ({}, {"steps": 9}, r"recipe.steps: 7 in the file, 9 now"),
        ({}, {"seed": 5}, r"recipe.seed"),
        ({"weight": 0.2}, {}, r"model.weight: 0.1 in the file, 0.2 now"),
        ({"width": 5}, {}, r"shape of first.weight: \(4, 2, 3, 3\) in the file, \(5, 2, 3, 3\) now"),
        ({"noise": False}, {}, r"norm.running_mean: \(4,\) in the file, None now"),
    ],
)
def test_another_training_does_not_go_on_from_the_file(path, model, changes, message):
    changed = tiny(**model)
    quiet(tiny(), RECIPE, checkpoint=path, callback=stop_after(2, KeyboardInterrupt()))
    before, content = {name: value.clone() for name, value in state(changed).items()}, path.read_bytes()
    with pytest.raises(ValueError, match=message):
        quiet(changed, Recipe(**{**vars(RECIPE), **changes}), checkpoint=path)
    assert all(torch.equal(value, state(changed)[name]) for name, value in before.items())
    assert path.read_bytes() == content


@pytest.mark.parametrize("part", [0, 0.1, 0.9, 0.999])
def test_damaged_and_foreign_files_are_refused(path, part):
    quiet(tiny(), RECIPE, checkpoint=path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ValueError, match="must be a whole file"):
        quiet(tiny(), RECIPE, checkpoint=path)
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="goes on from a file of the format"):
        quiet(tiny(), RECIPE, checkpoint=path)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("change", ["seed", "contrast", "size", "function"])
def test_a_training_goes_on_only_with_the_data_it_began_with(path, dim, change):
    pairs = PAIRS[dim]
    others = {
        "seed": ShapePairs(7, dim=dim, size=pairs[0].moving.shape[2:], seed=2),
        "contrast": [(1 - pair.moving, pair.fixed) for pair in pairs],
        "size": [(pair.moving[..., 1:], pair.fixed[..., 1:]) for pair in pairs],
        "function": lambda step, generator: tuple(torch.rand(2, 3, *pairs[0].moving.shape[1:], generator=generator)),
    }
    quiet(tiny(dim), RECIPE, pairs, checkpoint=path, callback=stop_after(2, KeyboardInterrupt()))
    content = path.read_bytes()
    with pytest.raises(InputError, match=r"only as it began, received .*with other data: in the first step \["):
        quiet(tiny(dim), RECIPE, others[change], checkpoint=path)
    assert path.read_bytes() == content
    nearly = [(pair.moving * (1 + 1e-5), pair.fixed) for pair in pairs]  # as another machine may round
    assert len(quiet(tiny(dim), RECIPE, nearly, checkpoint=path)) == 7


def test_files_that_do_not_know_their_data_go_on(path, whole):
    quiet(tiny(), RECIPE, checkpoint=path, callback=stop_after(2, KeyboardInterrupt()))
    content = torch.load(path, weights_only=True)
    for name in ("data", "threads", "sha256"):  # of later versions
        del content[name]
    torch.save(content, path)
    go_on(path, whole)


def test_another_number_of_threads_is_told(path, whole):
    quiet(tiny(), RECIPE, checkpoint=path)
    content = torch.load(path, weights_only=True) | {"threads": 99}
    del content["sha256"]
    torch.save(content, path)
    with pytest.warns(UserWarning, match="for the same bits set OMP_NUM_THREADS=99"):
        go_on(path, whole)


ALTERED = {
    "no history": lambda c: c.pop("history"),
    "no model": lambda c: c.pop("model"),
    "a list for a dict": lambda c: c.update(training=[]),
    "no JSON": lambda c: c.update(history="{"),
    "another shape": lambda c: c["model"].update({"head.bias": torch.zeros(7)}),
    "no optimiser": lambda c: c.update(optimiser={}),
    "moments of another shape": lambda c: c["optimiser"]["state"][0].update(exp_avg=torch.zeros(3)),
    "moments of no weight": lambda c: c["optimiser"]["state"].update({77: c["optimiser"]["state"][0]}),
    "no moments": lambda c: c["optimiser"].update(state={}),
    "a generator too many": lambda c: c["generators"].append(torch.zeros(3)),
    "words for data": lambda c: c.update(data="abc"),
    "a weight": lambda c: c["model"]["head.bias"].add_(1),  # which only the checksum tells
}


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("change", ALTERED)
def test_an_altered_checkpoint_is_refused_and_the_model_unchanged(path, change, older):
    model = tiny()
    quiet(tiny(), Recipe(steps=1), checkpoint=path)
    content = torch.load(path, weights_only=True)
    if older:
        del content["sha256"]
    ALTERED[change](content)
    torch.save(content, path)
    before = {name: value.clone() for name, value in state(model).items()}
    if older and change == "a weight":
        quiet(model, Recipe(steps=1), checkpoint=path)
        return
    with pytest.raises(InputError):
        quiet(model, Recipe(steps=2), checkpoint=path)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_the_place_of_a_checkpoint_is_known_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    seen: list[int] = []
    for path in (tmp_path / "file" / "run.pt", tmp_path, tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match="a checkpoint is a file in a folder that can be written to"):
            quiet(tiny(), RECIPE, checkpoint=path, callback=lambda step, history: seen.append(step))
    assert not seen
    quiet(tiny(), RECIPE, checkpoint=tmp_path / "new" / "folder" / "run.pt")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["run.pt"]


INTERRUPTED = """
import os, signal, sys, threading, time
import torch, regkit
pairs, model, wanted = [regkit.data.synthetic_pair(dim=2, seed=0)], regkit.models.VoxelMorph(dim=2), sys.argv[1]
def watch():
    while wanted not in sys.modules: time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=watch, daemon=True).start()
recipe = regkit.training.Recipe(steps=50)
if sys.argv[2] == "train":
    first = len(regkit.train(model, pairs, recipe, progress=False, checkpoint=sys.argv[3]))
else:
    try:
        first = 50 * (regkit.optimise.refine_field(pairs[0].moving, pairs[0].fixed, steps=50) is not None)
    except KeyboardInterrupt:
        first = 0
print(first < 50, len(regkit.train(model, pairs, recipe, progress=False, checkpoint=sys.argv[3])))
"""


@pytest.mark.parametrize("way", ["train", "refine"])
def test_ctrl_c_while_torch_loads_its_compiler_leaves_it_whole(tmp_path, way):
    command = [sys.executable, "-c", INTERRUPTED, "torch._dynamo.trace_rules", way, str(tmp_path / "run.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True", "50"], done.stdout + done.stderr


def test_ctrl_c_while_the_bar_is_drawn_leaves_no_lock(monkeypatch):
    drawn: list[str] = []

    class Terminal:
        def write(self, text):
            drawn.append(text)
            if len(drawn) > 4:
                signal.raise_signal(signal.SIGINT)
            return len(text)

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stderr", Terminal())
    history = train(tiny(), PAIRS[2], Recipe(steps=4000), callback=lambda step, history: time.sleep(0.01))
    monkeypatch.undo()
    assert 0 < len(history) < 4000
    thread = threading.Thread(target=quiet, args=(tiny(), Recipe(steps=1)), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("dim", [2, 3])
def test_a_batch_holds_pairs_of_one_size(dim):
    pairs = [(pair.moving, pair.fixed) for pair in PAIRS[dim]]
    pairs[3] = tuple(image[..., 1:] for image in pairs[3])

    class Asked:  # of which nothing is known before
        __len__, __getitem__ = (lambda self: len(pairs)), (lambda self, index: pairs[index])

    for source, where in ((pairs, "batches of 3 from"), (Asked(), r"the batch of 3 pairs at step \d")):
        with pytest.raises(InputError, match=f"pairs of a batch must have one size .*{where}.* and "):
            quiet(tiny(dim, noise=False), RECIPE, source)
    assert len(quiet(tiny(dim, noise=False), Recipe(steps=7), pairs)) == 7


class Unbounded(torch.utils.data.IterableDataset):
    def __len__(self):
        return 2

    def __iter__(self):
        return iter(PAIRS[2])


@pytest.mark.parametrize(
    "source",
    [torch.utils.data.DataLoader(list(range(3))), Unbounded(), iter(PAIRS[2]), PAIRS[2][0], {0: PAIRS[2][0]}, "ab"],
    ids=lambda source: type(source).__name__,
)
def test_what_is_no_source_is_told_what_one_is(source):
    with pytest.raises(InputTypeError, match=rf"a source is a sequence .* received {type(source).__name__}; give a"):
        quiet(tiny(), RECIPE, source)


# ---------------------------------------------------------------------------------------------- non-finite numbers
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_is_named_and_the_model_unharmed(value):
    model, sound = tiny(), tiny()
    objective, calls = model.objective, []

    def broken(*images):
        calls.append(1)
        terms = objective(*images)
        return {**terms, "size": terms["size"] * value} if len(calls) == 4 else terms

    model.objective = broken
    with pytest.raises(FloatingPointError, match=r"received size = (nan|inf) at step 3 .*unharmed"):
        quiet(model, RECIPE)
    quiet(sound, RECIPE, callback=stop_after(2, KeyboardInterrupt()))
    assert_same(model, sound)


def test_a_gradient_that_is_not_finite_is_refused():
    model = tiny(noise=False)
    model.objective = lambda registration, *images: {"root": (registration.displacement * 0).square().sum().sqrt()}
    before = model.head.weight.clone()
    with pytest.raises(FloatingPointError, match=r"gradient must be finite, received the norm nan at step 0"):
        quiet(model, Recipe(steps=1))
    assert torch.equal(model.head.weight, before)


# ---------------------------------------------------------------------------------------------- processes
PROGRAM = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_training import PAIRS, Recipe, Tiny, normalised, train
import os
rank = int(os.environ["RANK"])
torch.manual_seed(5 + rank)  # the first process's weights count
model = Tiny(noise=False)
recipe = Recipe(steps=4, learning_rate=1e-2, batch=2, seed=4, clip=0.05)
stop = lambda step, history: (_ for _ in ()).throw(KeyboardInterrupt) if step == 1 else None
train(model, PAIRS[2], recipe, checkpoint=sys.argv[2] + "/run.pt", progress=False, callback=stop)
model = Tiny(noise=False)
history = train(model, PAIRS[2], recipe, checkpoint=sys.argv[2] + "/run.pt", progress=False)
torch.save({"weights": model.state_dict(), "terms": history.terms}, f"{sys.argv[2]}/{rank}.pt")
terms, statistics = normalised(2)
torch.save({"weights": statistics, "terms": terms}, f"{sys.argv[2]}/{rank}.normalised.pt")
"""


def normalised(batch):
    """The first step of GradICON, which normalises over the batch and draws points: terms and running statistics."""
    torch.manual_seed(0)
    model = GradICON(2, encoder_channels=(4, 8), decoder_channels=(4, 4), levels=(0,))
    history = train(model, PAIRS[2], Recipe(steps=1, batch=batch), progress=False)
    return history.terms, {name: value for name, value in model.state_dict().items() if "running" in name}


def test_two_processes_take_the_step_of_one_with_the_double_batch(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "program.py"), str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        _, errors = process.communicate(timeout=1800)
    finally:
        process.terminate()  # torchrun takes its processes along
    assert process.returncode == 0, errors
    alone = tiny(noise=False)
    history = quiet(alone, Recipe(steps=4, learning_rate=1e-2, batch=4, seed=4, clip=0.05))
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in alone.state_dict().items():
            assert torch.allclose(result["weights"][name], value, atol=1e-6), name  # sums in another order
        for name, values in history.terms.items():
            assert result["terms"][name] == pytest.approx(values, rel=1e-5)
        terms, statistics = normalised(4)
        result = torch.load(tmp_path / f"{rank}.normalised.pt", weights_only=True)
        assert statistics and all(
            torch.allclose(result["weights"][name], statistics[name], atol=1e-6) for name in statistics
        )
        assert all(result["terms"][name] == pytest.approx(terms[name], rel=1e-4) for name in terms)


def test_a_process_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(processes.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes, "limit", lambda: 0)
    with (
        pytest.raises(ValueError, match=r"within 0 seconds, received none from another process when step 3 is taken; "),
        processes.answering("step 3 is taken"),
    ):
        raise RuntimeError("timed out")
    monkeypatch.undo()
    monkeypatch.setenv("REGKIT_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="REGKIT_TIMEOUT must be a number of seconds, 1 or more, received 'soon'"):
        processes.limit()


# ---------------------------------------------------------------------------------------------- recipes and histories
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Recipe(learning_rate=0), ValueError, "learning_rate must be a positive number"),
        (lambda: Recipe(clip=0), ValueError, "clip must be a positive number"),
        (lambda: Recipe(precision="float16"), ValueError, "precision must be one of"),
        (lambda: quiet(tiny(), RECIPE, []), ValueError, "at least one pair"),
        (lambda: quiet(tiny(), RECIPE, [torch.ones(1)]), TypeError, r"a Pair or \(moving, fixed\)"),
        (lambda: History.from_json("[1, 2]"), ValueError, "must be a dict, received .* in a history"),
        (lambda: History.from_json('{"terms": {"a": [1]}, "seconds": []}'), ValueError, "each of its 0 steps"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("terms", [{}, {"a": 1.0}, {"a": torch.ones(2)}])
def test_an_objective_returns_named_scalars(terms):
    model = tiny()
    model.objective = lambda *images: terms
    with pytest.raises(TypeError, match="dict of scalar tensors by name"):
        quiet(model, RECIPE)


def test_a_model_without_weights_to_train_is_refused():
    with pytest.raises(ValueError, match=r"received Tiny with none.*requires_grad_"):
        train(tiny().requires_grad_(False), PAIRS[2], Recipe(steps=1), progress=False)


def test_whoever_trains_may_do_without_gradients():
    usual, without = tiny(), tiny()
    quiet(usual, Recipe(steps=2))
    with torch.no_grad():
        quiet(without, Recipe(steps=2))
    assert_same(usual, without)


def test_histories_survive_json_and_refuse_other_terms():
    history = History()
    history.append({"a": 0.1, "b": 1 / 3}, 0.5)
    history.append({"a": 0.2, "b": 2e-30}, 0.25)
    again = History.from_json(history.to_json())
    assert again == history and len(again) == 2 and again.loss == [0.1 + 1 / 3, 0.2]
    assert json.loads(history.to_json())["terms"]["a"] == [0.1, 0.2]
    with pytest.raises(ValueError, match="the same terms"):
        history.append({"a": 1.0}, 0.1)


def test_the_progress_bar_names_the_terms(capsys):
    train(tiny(), PAIRS[2], Recipe(steps=2))
    shown = capsys.readouterr().err
    assert "similarity=" in shown and "size=" in shown and "2/2" in shown


def test_the_mode_is_that_of_the_environment(monkeypatch):
    monkeypatch.delenv("REGKIT_MODE", raising=False)
    assert mode() == "full" and steps(fast=4, full=40) == 40
    monkeypatch.setenv("REGKIT_MODE", "fast")
    assert mode() == "fast" and steps(fast=4, full=40) == 4
    monkeypatch.setenv("REGKIT_MODE", "slow")
    with pytest.raises(ValueError, match="REGKIT_MODE must be one of"):
        steps(fast=4, full=40)


def test_seed_everything_seeds_all_three_generators():
    draws = []
    for _ in range(2):
        seed_everything(3)
        draws.append((random.random(), np.random.random_sample(), torch.rand(1).item()))
    assert draws[0] == draws[1]
