"""Training a network on a data set, as one of a grid or to be tested: the evaluator of a transfer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from phinas.engines.evaluator import Measurement
from phinas.engines.threads import torch_threads
from phinas.networks.arch import Arch
from phinas.networks.build import ConvNet
from phinas.networks.network import Network
from phinas.training.data.training_data import TrainingData
from phinas.training.device import device
from phinas.training.full.initial_network import initial_network
from phinas.training.full.recipe import FullRecipe
from phinas.training.full.trained_network import save_network
from phinas.training.full.training_loop import TrainingState, train
from phinas.training.own_failures import own_failures
from phinas.training.scoring import evaluate
from phinas.transfer.plan import Start, Trial

_LONG_ENOUGH = 0.5  # seconds of steps from which a forecast is made
_TINY_LR = 1e-6  # so that no recipe diverges in its forecast


@dataclass(frozen=True, eq=False)
class FineTuning:
    """Trains `Trial`s on one data set.

    source   its images.
    recipes  by start; a trial brings learning rate and weight decay.
    weights  by model, without the classifier, which always starts anew: other classes, another meaning.
    folder   where the first final network of each contender is kept, by the contender's name.
    first    the seed of that network. No seed is chosen by its test score.
    """

    source: TrainingData
    recipes: Mapping[Start, FullRecipe]
    weights: Mapping[str, Mapping[str, Tensor]]
    folder: Path
    first: int

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """One measurement: after a grid's training on the images held out, after a final one on the test split.

        A final one learns from all images but the test's. Raises EvaluationFailed where the training diverges or does
        not fit into memory.
        """
        assert isinstance(network, Trial)
        trial, final = network, network.stage == "final"
        source = self._whole if final else self.source
        recipe = self._recipe(trial)
        side, where = trial.arch.resolution, device()
        with own_failures(recipe.batch_size, side, side):
            batches = source.batches(recipe, seed, side, where)
            held_out = source.held_out(recipe, side, where)  # of a final one they are learnt from, and say nothing
            arch = replace(trial.arch, bn_momentum=norm_momentum(batches.steps))
            training = TrainingState(self._built(trial, arch), recipe, batches.steps, where)
            forward = torch.compile(training.module) if recipe.compile else None
            accuracy = 0.0
            for epoch in train(training, batches, held_out, recipe, seed, forward=forward):
                accuracy = epoch.score.accuracy
            if final:
                module = training.scored(batches.calibration, recipe.bfloat16)
                accuracy = evaluate(module, source.test(recipe, side, where), recipe.bfloat16).accuracy
                if seed == self.first:
                    self._keep(trial, arch, module.state_dict(), source)
        yield Measurement(accuracy)

    def forecast(self, trial: Trial, threads: int | None = None) -> float:
        """Seconds that the trial takes here, as busy as the machine is now: a few of its steps and a scoring, timed.

        threads  of torch; None: as many as it uses. Raises as a training does.
        """
        recipe = replace(self._recipe(trial), lr=_TINY_LR)
        side, where, source = trial.arch.resolution, device(), self.source
        with torch_threads(threads), own_failures(recipe.batch_size, side, side):
            batches = source.batches(recipe, 0, side, where)
            held_out = source.held_out(recipe, side, where)
            training = TrainingState(self._built(trial, trial.arch), recipe, batches.steps, where)
            training.epochs = recipe.epochs - 1  # the last is of full size
            training.step = training.epochs * batches.steps
            clock = [time.perf_counter()]

            def after_step() -> None:
                training.losses.sum().item()  # waits for the device
                clock.append(time.perf_counter())
                if clock[-1] - clock[1] > _LONG_ENOUGH:
                    raise _Enough

            with suppress(_Enough):
                for _ in train(training, batches, held_out, recipe, 0, after_step):
                    pass
            steps = clock[1:] if len(clock) > 2 else clock  # memory is taken in the first
            step = (steps[-1] - steps[0]) / (len(steps) - 1)
            started = time.perf_counter()
            evaluate(training.scored(None), held_out, recipe.bfloat16)
            score = (time.perf_counter() - started) / len(held_out)
        images = source.train_count + (source.held_out_count if trial.stage == "final" else 0)
        scored = recipe.epochs * (source.held_out_count + min(recipe.recalibrate, images))
        tested = source.test_count or 0 if trial.stage == "final" else 0
        return recipe.epochs * max(1, images // batches.size) * step + (scored + tested) * score

    @cached_property
    def _whole(self) -> TrainingData:
        """Once for all final trainings of a worker: it has its own mean and deviation, for which images are read."""
        return self.source.whole()

    def _recipe(self, trial: Trial) -> FullRecipe:
        return replace(self.recipes[trial.start], lr=trial.lr, weight_decay=trial.weight_decay)

    def _built(self, trial: Trial, arch: Arch) -> ConvNet:
        return initial_network(arch, trial.seed, self.weights[trial.model] if trial.start == "pretrained" else None)

    def _keep(self, trial: Trial, arch: Arch, state: Mapping[str, Tensor], source: TrainingData) -> None:
        folder = self.folder / trial.name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "made_by": "phinas.transfer",
            "data": trial.data,
            "model": trial.name,
            "key": arch.key(),
            "lr": trial.lr,
            "weight_decay": trial.weight_decay,
            "mean": source.mean.tolist(),  # of the pixels, from 0 to 255
            "std": source.std.tolist(),
            "evaluation_crop": self.recipes[trial.start].evaluated_share(arch.resolution),
            "class_names": list(source.classes),
        }
        save_network(folder, arch, state, about)


def norm_momentum(steps_per_epoch: int) -> float:
    """The share by which a batch moves the statistics of batch norms: 0.1, and less where an epoch has many steps.

    1 - max(1 - 10 / s, 0.9), as Kornblith et al. fine-tune (arXiv 1805.08974): the 0.01 of long trainings does not
    arrive anywhere in short ones.
    """
    return min(10 / steps_per_epoch, 0.1)


class _Enough(Exception):
    """Raised after enough steps to tell the time of one step."""
