"""Values of a configuration that cannot be used are refused by the name of their field."""

import dataclasses
import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from vemseg_jax.config import ExperimentConfig, check_config, plain
from vemseg_jax.errors import InputError
from vemseg_jax.models.registry import MODELS

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
NONE = "it must be"
INT, FLOAT = "it must be a whole number", "it must be a finite number"


def config(model="small_unet", **options):
    made = ExperimentConfig(model=MODELS[model].config(**options))
    made.data.volume = "v.zarr"
    if model == "senformer":
        made.model.num_classes = 2
    return made


def refused(made, field, message):
    with pytest.raises(InputError) as error:
        check_config(made)
    text = str(error.value)
    assert field in text and message in text, text
    assert "\n" not in text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_of_the_package_passes(path):
    made = runpy.run_path(str(path))["get_config"]()
    made.data.volume = "v.zarr"
    check_config(made)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.volume", "", "the path of a converted volume"),
        ("data.volume", None, "text"),
        ("data.volume", Path("v.zarr"), "text"),
        ("data.other_volumes", "w.zarr", "a tuple such as"),
        ("data.other_volumes", ("",), "paths that differ"),
        ("data.structures", "nuclei", "a tuple such as ('nuclei', 'nucleoli')"),
        ("data.structures", (), "at least one label name"),
        ("data.structures", ("",), "at least one label name"),
        ("data.structures", (1,), "each item text"),
        ("data.structures", ("nuclei", "nuclei"), "names that differ"),
        ("data.crop_size", 15, "at least 16 pixels"),
        ("data.crop_size", 128.0, INT),
        ("data.crop_size", True, INT),
        ("data.crop_size", "128", INT),
        ("data.empty_crop_probability", 1.0, "in [0, 1)"),
        ("data.empty_crop_probability", -0.1, "in [0, 1)"),
        ("data.empty_crop_probability", math.nan, FLOAT),
        ("data.z_range", (5, 3), "first < last"),
        ("data.z_range", (-1, 3), "first < last"),
        ("data.z_range", (3,), "two items"),
        ("data.z_range", (0, 3, 6), "two items"),
        ("data.z_range", (0.0, 3.0), "two items"),
        ("data.train_slices", (-1,), "slice numbers, from 0"),
        ("data.train_slices", 3, "a tuple such as (1, 2)"),
        ("data.train_slices", (0.5,), "a tuple such as (1, 2)"),
        ("data.val_slices", (-2,), "slice numbers, from 0"),
        ("data.num_train_slices", -1, "at least 0"),
        ("data.num_val_slices", -1, "at least 0"),
        ("data.num_val_slices", 0.5, INT),
        ("data.memory_budget_gib", -1.0, "at least 0"),
        ("data.memory_budget_gib", math.inf, FLOAT),
        ("data.cache_gib", math.nan, FLOAT),
        ("data.exact_offsets", 1, "True or False"),
        ("data.exact_offsets", "yes", "True or False"),
        ("optimizer.name", "sgd", "one of adam, adamw"),
        ("optimizer.weight_decay", -0.1, "at least 0"),
        ("optimizer.learning_rate", 0.0, "greater than 0"),
        ("optimizer.learning_rate", -1.0, "greater than 0"),
        ("optimizer.learning_rate", math.nan, FLOAT),
        ("optimizer.learning_rate", 1e39, FLOAT),
        ("optimizer.learning_rate", "1e-3", FLOAT),
        ("optimizer.schedule", "cosine", "one of warmup_poly"),
        ("optimizer.plateau_patience", -1, "at least 0"),
        ("optimizer.plateau_threshold", math.inf, FLOAT),
        ("optimizer.plateau_drops", -1, "at least 0"),
        ("optimizer.warmup_steps", -5, "at least 0"),
        ("optimizer.warmup_steps", 1.5, INT),
        ("optimizer.power", -1.0, "at least 0"),
        ("optimizer.power", math.nan, FLOAT),
        ("optimizer.clip_norm", -1.0, "at least 0"),
        ("optimizer.clip_norm", math.inf, FLOAT),
        ("train.batch_size", 0, "at least 1"),
        ("train.batch_size", 2.0, INT),
        ("train.steps", 0, "at least 1"),
        ("train.steps", 2**31, INT),
        ("train.seed", -1, "at least 0"),
        ("train.seed", 2**40, INT),
        ("train.seed", None, INT),
        ("train.precision", "float8", "one of float32"),
        ("train.log_every", 0, "at least 1"),
        ("train.eval_every", -1, "at least 0"),
        ("train.checkpoint_every", 0, "at least 1"),
        ("train.steps_per_dispatch", -1, "at least 0"),
        ("train.devices", -1, "at least 0"),
        ("loss.name", "mse", "one of soft_dice"),
        ("loss.name", "senformer", "another one: the network has no learners"),
        ("loss.depth", -1, "from 0 to 100"),
        ("loss.depth", 20, "only fractal_tanimoto has a depth"),
        ("loss.depth_per_drop", 101, "from 0 to 100"),
        ("cps.method", "mean_teacher", "one of supervised"),
        ("cps.loss", "mse", "one of dice"),
        ("cps.ramp", "batch", "one of epoch"),
        ("cps.statistics", "own", "one of reference"),
        ("cps.prediction", "third", "one of first"),
        ("cps.weight", math.nan, FLOAT),
        ("cps.on_labelled", "no", "True or False"),
        ("model.in_channels", 3, "1: slices are grey"),
        ("model.in_channels", 0, "1: slices are grey"),
        ("model.num_classes", 2, "1, one for each of --config.data.structures"),
        ("model.base_channels", 0, "at least 1"),
        ("model.base_channels", 8.0, INT),
        ("model.bilinear", "False", "True or False"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used(field, value, message):
    made = config()
    section, name = field.split(".")
    setattr(getattr(made, section), name, value)
    refused(made, f"--config.{field} ", message)


@pytest.mark.parametrize(
    ("model", "field", "value", "message"),
    [
        ("resunet", "filters", (), "at least 1"),
        ("resunet", "filters", (8, 0), "at least 1"),
        ("resunet", "filters", (8, -8, 8), "at least 1"),
        ("resunet", "filters", [8, 8], "a tuple such as"),
        ("resunet", "filters", 8, "a tuple such as"),
        ("resunet", "filters", (8.0, 8), "a tuple such as"),
        ("resunet", "in_channels", 3, "1: slices are grey"),
        ("unetplusplus", "encoder_depth", 4, "decoder_channels"),
        ("unetplusplus", "encoder_depth", 6, "one of 3, 4, 5"),
        ("unetplusplus", "encoder", "resnet50", "resnet18, resnet34"),
        ("smp_unet", "decoder_channels", (8, 8), "5 positive numbers"),
        ("smp_unet", "encoder_depth", 3, "decoder_channels"),
        ("smp_unet", "decoder_channels", (8, 8, 8, 8, 0), "at least 1"),
        ("fractal_resnet", "filters", 6, "heads"),
        ("fractal_resnet", "heads", 0, "at least 1"),
        ("fractal_resnet", "heads", 3, "heads"),
        ("fractal_resnet", "depth", 0, "at least 1"),
        ("fractal_resnet", "psp_depth", 0, "at least 1"),
        ("ceecnet_v1", "norm", "layer", "one of group"),
        ("ceecnet_v1", "norm_groups", 3, "norm_groups"),
        ("ceecnet_v2", "up_heads", "shallower", "one of deeper"),
        ("ceecnet_v2", "attention_depth", -1, "from 0 to 100"),
        ("ceecnet_v2", "exclusive", True, "num_classes"),
        ("senformer", "backbone", "huge", "tiny"),
        ("senformer", "heads", 0, "at least 1"),
        ("senformer", "heads", -8, "at least 1"),
        ("senformer", "heads", 7, "heads"),
        ("senformer", "branch_depth", 0, "at least 1"),
        ("senformer", "drop_path", 1.0, "below 1"),
        ("senformer", "drop_path", math.nan, FLOAT),
        ("senformer", "num_classes", 1, "one for the background"),
    ],
)
def test_a_network_that_cannot_be_built(model, field, value, message):
    made = config(model)
    setattr(made.model, field, value)
    refused(made, "--config.model.", message)


@pytest.mark.parametrize(
    ("section", "values", "field", "message"),
    [
        ("cps", {"method": "cps", "weight": 0.0}, "cps.weight", "greater than 0"),
        ("cps", {"method": "cps", "ramp_first": 0.0}, "cps.ramp_first", "greater than 0"),
        ("cps", {"method": "cps", "ramp_start": -1.0}, "cps.ramp_start", "at least 0"),
        ("cps", {"method": "cps", "ramp_end": 5.0}, "cps.ramp_end", "greater than cps.ramp_start"),
        ("cps", {"method": "cps", "epoch_crops": 0}, "cps.epoch_crops", "at least 1"),
        ("cps", {"method": "cps", "collapse_steps": 0}, "cps.collapse_steps", "at least 1"),
        (
            "data",
            {"train_slices": (0, 5), "num_train_slices": 7},
            "data.num_train_slices",
            "0, or 2, as many as there are in --config.data.train_slices",
        ),
        ("data", {"other_volumes": ("v.zarr",)}, "data.other_volumes", "paths that differ"),
        (
            "optimizer",
            {"schedule": "plateau", "plateau_drops": 90},
            "loss.depth_per_drop",
            "after all drops of the rate the loss has depth 900 of 100",
        ),
    ],
)
def test_values_that_do_not_go_together(section, values, field, message):
    made = config()
    if section == "optimizer":
        made.loss.name = "fractal_tanimoto"
    for name, value in values.items():
        setattr(getattr(made, section), name, value)
    refused(made, f"--config.{field} ", message)


@pytest.mark.parametrize(("method", "batch"), [("cps", 3), ("cps_cutmix", 2)])
def test_batches_that_two_networks_cannot_share(method, batch):
    made = config()
    made.cps.method, made.train.batch_size = method, batch
    refused(made, "--config.train.batch_size ", "it must be")


def test_sections_of_another_kind():
    refused(dataclasses.replace(config(), train={}), "--config.train ", "a TrainConfig")
    refused(dataclasses.replace(config(), data=None), "--config.data ", "a DataConfig")
    refused(dataclasses.replace(config(), model=None), "NoneType", "choose from")


def test_numbers_of_numpy_and_lists_of_data_pass_and_reach_json():
    made = config()
    made.data.train_slices = [np.int64(0), np.int32(5)]
    made.optimizer.learning_rate = np.float32(0.5)
    made.train.steps = np.int64(7)
    check_config(made)
    values = plain(made)
    assert values["data"]["train_slices"] == [0, 5] and type(values["train"]["steps"]) is int
    assert type(values["optimizer"]["learning_rate"]) is float
