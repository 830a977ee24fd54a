"""Where a training's images come from, when they are in memory, and which worker gets which."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from phinas.files.errors import InputError
from phinas.training.augment.policies import rand_augment
from phinas.training.data.dataset import Dataset, Images, data_hash
from phinas.training.data.in_memory import InMemoryData, spread
from phinas.training.data.training_data import TrainingData
from phinas.training.full.recipe import FullRecipe, plain_sgd
from phinas.training.workers.shard import ALONE, Shard

CPU = torch.device("cpu")
RECIPE = plain_sgd(3, 8, 0.1, translate=0.125, policy=rand_augment(), recalibrate=10)


def some_source() -> InMemoryData:
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (70, 12, 10, 3), dtype=np.uint8), np.arange(70) % 3
    parts = (Images(pixels[start:stop], labels[start:stop]) for start, stop in ((0, 40), (40, 53), (53, 70)))
    train, val, test = parts
    return InMemoryData(Dataset(train, val, ("a", "b", "c"), flip=True), test)


@pytest.mark.parametrize("of", [1, 2, 4, 8])
@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, crop=True, translate=0.0)], ids=["plain", "cropped"])
def test_shares_of_a_batch_together_are_the_whole(of: int, recipe: FullRecipe) -> None:
    source = some_source()
    whole = source.batches(recipe, 5, 8, CPU)
    shares = [source.batches(recipe, 5, 8, CPU, Shard(rank, of)) for rank in range(of)]
    assert {(one.size, one.steps) for one in (whole, *shares)} == {(8, 5)}
    for step in (0, 4, 5, 12):
        images, labels = zip(*(one(step) for one in shares), strict=True)
        assert torch.equal(torch.cat(images), whole(step)[0]) and torch.equal(torch.cat(labels), whole(step)[1])
        assert {len(one) for one in labels} == {8 // of}


@pytest.mark.parametrize("of", [1, 2, 3, 20])
def test_shares_of_what_is_scored_together_are_all(of: int) -> None:
    source = some_source()
    for scored, images in ((source.held_out, source.data.val), (source.test, source.tested)):
        shares = [scored(RECIPE, 8, CPU, Shard(rank, of)) for rank in range(of)]
        assert images is not None and sum(map(len, shares)) == len(images)
        labels = [label for share in shares for _, some in share for label in some.tolist()]
        assert labels == images.labels.tolist()
        assert all(len(share) == sum(len(some) for _, some in share) for share in shares)


def test_a_batch_must_divide() -> None:
    with pytest.raises(InputError, match="recipe.batch_size=8: it must be a multiple of engine.workers=3"):
        some_source().batches(RECIPE, 0, 8, CPU, Shard(0, 3))


@pytest.mark.parametrize(("rank", "of"), [(1, 1), (-1, 2), (0, 0)])
def test_there_is_no_such_share(rank: int, of: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        Shard(rank, of)


def test_what_it_says_of_itself() -> None:
    source: TrainingData = some_source()
    assert (source.train_count, source.held_out_count, source.test_count) == (40, 13, 17)
    assert (source.size, source.channels, source.flip, source.classes) == ((12, 10), 3, True, ("a", "b", "c"))
    assert source.hash == data_hash(some_source().data)
    assert source.mean.shape == source.std.shape == (3,)
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.batches(RECIPE, 0, 8, CPU)(0)[0], source.batches(RECIPE, 0, 8, CPU)(0)[0])


def test_images_are_scored_normalised_and_in_order() -> None:
    source = some_source()
    (images, labels) = next(iter(source.held_out(replace(RECIPE, evaluation_crop=0.8), 8, CPU)))
    whole = source.data.val.pixels[:, 2:10, 1:9].astype(np.float32)  # 0.8 of 10 are 8 pixels, in the middle
    wanted = ((whole - source.mean) / source.std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images.numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert labels.tolist() == source.data.val.labels.tolist()


def test_moments_may_be_given() -> None:
    data = some_source().data
    mean, std = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)
    given = InMemoryData(replace(data, moments=(mean, std)), None)
    assert given.mean is mean and given.std is std and given.test_count is None
    assert given.hash == data_hash(given.data) != data_hash(data)


def test_images_are_calibrated_on_evenly() -> None:
    source = some_source()
    calibration = source.batches(RECIPE, 0, 8, CPU, Shard(1, 2)).calibration
    assert calibration is not None and len(calibration) == 10  # for each worker all of them
    assert spread(40, 10).tolist()[:3] == [0, 4, 8] and spread(3, 10).tolist() == [0, 1, 2] and not len(spread(3, 0))
    assert source.batches(replace(RECIPE, recalibrate=0), 0, 8, CPU, ALONE).calibration is None
