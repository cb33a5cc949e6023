"""Why one registers, in pictures; a stored training; and a training that is kept beside the notebook."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from regkit import course, data, metrics, models, training
from regkit.course.lessons import t00_first_light as lesson
from regkit.course.lessons.t03_similarity_landscapes import t1_and_t2


def test_five_reasons_have_a_picture_and_a_title_each():
    pictures = lesson.reasons()
    assert len(pictures) == 5 and len({picture.shape for picture in pictures.values()}) == 1
    assert all(picture.dtype == np.uint8 and picture.std() > 20 for picture in pictures.values())
    group = pictures["a group: mean of 8,\nas they are | registered"][..., 0].astype(float)
    blurred, sharp = (np.abs(np.diff(half, axis=0)).mean() for half in np.hsplit(group, 2))
    assert sharp > 1.3 * blurred
    figure = lesson.show_reasons()
    assert [axes.get_title() for axes in figure.axes] == list(pictures) and not plt.get_fignums()


def test_the_stored_training_gets_better_to_the_end():
    pair = data.ShapePairs(64, size=64, split="test")[6]
    dice = {name: metrics.evaluate(u, pair)["dice"] for name, u in lesson.stored_training().items()}
    assert next(iter(dice)) == "0" and list(dice)[-1] == "1200" and dice["0"] < 0.7 and dice["1200"] > 0.95


def test_t2_is_the_same_brain_with_fluid_bright_and_white_matter_dark():
    t1, t2 = t1_and_t2((64, 64))
    assert t1.shape == t2.shape and ((t1 > 0.02) == (t2 > 0.02)).float().mean() > 0.95
    inside = (t1 > 0.3) & (t2 > 0.1)
    assert torch.corrcoef(torch.stack([t1[inside], t2[inside]]))[0, 1] < -0.3


def test_a_training_begins_anew_or_goes_on_from_what_was_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def train(again, steps=2):
        torch.manual_seed(0)
        network = models.VoxelMorph(2, output="velocity", encoder_channels=(4, 4), decoder_channels=(4, 4, 4))
        pairs = data.ShapePairs(8, size=16)
        recipe = training.Recipe(steps=steps, batch=2, learning_rate=1e-3)
        kept = course.kept("test", again=again)
        history = training.train(network, pairs, recipe, checkpoint=kept, progress=False)
        return history.loss, network.state_dict()

    loss, weights = train(again=False)
    assert "there is no my_test_fast.ckpt yet" in capsys.readouterr().out
    kept_loss, kept_weights = train(again=False)
    assert "going on from my_test_fast.ckpt" in capsys.readouterr().out
    anew, _ = train(again=True, steps=3)  # another training would not go on from the file
    assert kept_loss == loss and len(anew) == 3
    assert all(torch.equal(kept_weights[name], value) for name, value in weights.items())
    monkeypatch.setattr("os.access", lambda *_: False)
    assert course.kept("test", again=True) is None and "Nothing can be written" in capsys.readouterr().out
