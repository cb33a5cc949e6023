"""What a compiler and torch.export need: one graph, without a step aside to Python, and the same numbers out of it."""

import pytest
import torch

from regkit import models

SMALL = {
    "GradICON": {"levels": (0,), "encoder_channels": (4, 4), "decoder_channels": (4, 4)},
    "SPNet": {"levels": 2},
    "SMGICNet": {"channels": 2, "levels": 1},
}
RESULTS = (models.gradicon.GradICONRegistration, models.spnet.SPNetRegistration, models.smgicnet.SMGICRegistration)
for result in RESULTS:
    torch.export.register_dataclass(result)


@pytest.mark.parametrize("shape", [(16, 20), (8, 12, 10)], ids=["2D", "3D"])
@pytest.mark.parametrize("name", SMALL)
def test_a_forward_is_one_graph(name, shape):
    torch.manual_seed(0)
    model = getattr(models, name)(dim=len(shape), **SMALL[name]).eval()
    moving, fixed = torch.rand(2, 1, 1, *shape)
    expected = model(moving, fixed)
    with torch.no_grad():
        exported = torch.export.export(model, (moving, fixed), strict=True).module()  # by the compiler's tracer
    assert torch.equal(exported(moving, fixed).displacement, expected.displacement)
    if len(shape) == 2:  # with gradients to come
        compiled = torch.compile(model, backend="eager", fullgraph=True)(moving, fixed)
        assert torch.equal(compiled.displacement, expected.displacement)
