"""Checks of the course's exercises: `check.<exercise>(answer)` says amber (blank), green, or red with a hint.

A check never raises. It holds its reference and a catalogue of known mistakes, each with a hint of its own.

A new exercise is written in the module of its tutorial, whose `__all__` names it. tests/course/test_check.py finds it
there and asks that blank is amber, the reference green, each mistake red with its own hint, and nonsense red.

    def _value(answer):                                           # what is judged: here what a function gives
        return torch.as_tensor(returned("my_mse", function_of("two images", answer)(*IMAGES))).float()

    mse_by_hand = Exercise(
        task="Write my_mse(a, b): the mean squared difference.",      # told where it is blank
        praise="the same number as regkit's `losses.mse`.",
        prepare=_value, reference=lambda: losses.mse, alike=torch.allclose,
        mistakes={
            "summed": Hint("a sum grows with the image. Take the mean.").written(lambda a, b: (a - b).square().sum()),
            "signed": Hint("differences of both signs cancel. Square them first.").written(lambda a, b: (a - b).mean()),
            "another": Hint("subtract, square, take the mean.").otherwise(lambda a, b: 2 * losses.mse(a, b)),
        },
    )

`written` and `otherwise` are for functions. Where the answer is a tensor or a number, a mistake is
`Hint(...).to(make)`; where it shows in a property, not in the value, `Hint(...).to(make, made)`. `Words` is for answers
by words.
A function of two to five lines that the notebook needs later is written in `hands/`, as `by_hand` says.
"""

# ruff: noqa: F403 (the modules' __all__ say what the tutorials use)

from regkit.course.check.exercise import Exercise as Exercise
from regkit.course.check.exercise import Mistake as Mistake
from regkit.course.check.exercise import Verdict as Verdict
from regkit.course.check.hands.t00 import *
from regkit.course.check.hands.t01 import *
from regkit.course.check.hands.t02 import *
from regkit.course.check.hands.t03 import *
from regkit.course.check.hands.t04 import *
from regkit.course.check.hands.t05 import *
from regkit.course.check.hands.t06 import *
from regkit.course.check.hands.t07 import *
from regkit.course.check.hands.t08 import *
from regkit.course.check.hands.t09 import *
from regkit.course.check.hands.t10 import *
from regkit.course.check.hands.t11 import *
from regkit.course.check.hands.t12 import *
from regkit.course.check.hands.t13 import *
from regkit.course.check.hands.t14 import *
from regkit.course.check.recap import *
from regkit.course.check.t00_first_light import *
from regkit.course.check.t01_where_is_a_pixel import *
from regkit.course.check.t02_warping_pulls import *
from regkit.course.check.t03_similarity_landscapes import *
from regkit.course.check.t04_optimise_a_field import *
from regkit.course.check.t05_diffeomorphisms import *
from regkit.course.check.t06_learning_to_register import *
from regkit.course.check.t07_gradicon import *
from regkit.course.check.t08_spnet import *
from regkit.course.check.t09_sitreg import *
from regkit.course.check.t10_sacbnet import *
from regkit.course.check.t11_smgicnet import *
from regkit.course.check.t12_into_3d_brains import *
from regkit.course.check.t13_trust_but_verify import *
from regkit.course.check.t14_your_own_brain import *
