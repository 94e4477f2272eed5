"""Which networks may see a whole slice at once: those in which what is far away does not count."""

import jax
import numpy as np
import pytest

from vemseg_jax.models import registry
from vemseg_jax.models.initial import initial_variables

# As narrow as they come: what is tested does not depend on the width. The others, at full width,
# passed too, in six minutes.
NARROW = {
    "small_unet": {"base_channels": 4},
    "unet": {"base_channels": 4},
    "resunet": {"filters": (4, 4, 8, 8, 8)},
    "unetplusplus": {"encoder_depth": 3, "decoder_channels": (16, 8, 4)},
    "fractal_resnet": {},
}


@pytest.mark.parametrize("name", NARROW)
def test_only_the_neighbourhood_counts_in_local_networks(name):
    config = registry.model_config(name, **NARROW[name])
    model = registry.create_model(config)
    variables = initial_variables(model, seed=0, channels=1)
    # Longer than any of these networks sees; ResNet-34 sees 900 pixels.
    image = np.random.default_rng(0).normal(size=(1, 2048, 64, 1)).astype(np.float32)
    changed = image.copy()
    changed[:, :64] += 1

    @jax.jit
    def apply(x):
        # Untrained networks can be very sure of themselves: logits still differ.
        return jax.scipy.special.logit(model.apply(variables, x, train=False)["prob"])[:, -64:]

    difference = np.abs(np.asarray(apply(image)) - np.asarray(apply(changed))).max()
    assert (difference == 0) == registry.is_local(config)
