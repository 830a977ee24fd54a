"""Where our modules were before they had one name: what files, commands and plug-ins of earlier releases still say.

This is the only place that knows. What a `_target_` of ours was called then is read by its name of today, in
configurations, journals, studies and checkpoints of earlier runs; who imports an earlier module is told the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Every class and function of ours that a `_target_` could name. Whole modules would be too much: `training.data.mine`
# may well be somebody's own.
TARGETS = {
    "convnets.timing.ThisMachine": "phinas.measure.timing.ThisMachine",
    "engines.inline.engine": "phinas.engines.inline.engine",
    "engines.ray.engine": "phinas.engines.ray.engine",
    "nas.faults.witnessed.Witnessed": "nas.selftest.witnessed.Witnessed",
    "training.data.digits": "phinas.training.data.images.digits",
    "training.data.imagefolder": "phinas.training.data.images.imagefolder",
    "training.data.parquet": "phinas.training.data.images.parquet",
    "training.engine.Engine": "phinas.training.workers.engine.Engine",
    "training.full_recipe.FullRecipe": "phinas.training.full.recipe.FullRecipe",
    "training.full_recipe.cosine": "phinas.training.full.recipe.cosine",
    "training.full_recipe.staircase": "phinas.training.full.recipe.staircase",
    "training.policies.auto_augment": "phinas.training.augment.policies.auto_augment",
    "training.policies.cutout": "phinas.training.augment.policies.cutout",
    "training.policies.rand_augment": "phinas.training.augment.policies.rand_augment",
    "training.recipe.Recipe": "phinas.training.short.recipe.Recipe",
    "training.rmsprop.TensorFlowRMSProp": "phinas.training.full.rmsprop.TensorFlowRMSProp",
}
MOVED = {
    "conf.command": "phinas.command.configuration",
    "conf.console": "phinas.command.console",
    "conf.progress": "phinas.command.progress",
    "conf.run_folder": "phinas.command.run_folder",
    "convnets.allocations": "phinas.networks.allocations",
    "convnets.arch": "phinas.networks.arch",
    "convnets.arch_file": "phinas.networks.arch_file",
    "convnets.atomic_file": "phinas.files.atomic_file",
    "convnets.backends": "phinas.measure.backends",
    "convnets.blocks": "phinas.networks.blocks",
    "convnets.budget": "phinas.generate.budget",
    "convnets.build": "phinas.networks.build",
    "convnets.bytes": "phinas.files.bytes",
    "convnets.checkpoints": "phinas.weights.checkpoints",
    "convnets.checks": "phinas.files.checks",
    "convnets.compound": "phinas.networks.compound",
    "convnets.cost": "phinas.networks.cost",
    "convnets.cost_text": "phinas.pages.cost_text",
    "convnets.errors": "phinas.files.errors",
    "convnets.export": "phinas.weights.export",
    "convnets.family": "phinas.generate.family",
    "convnets.family_figure": "phinas.generate.figure",
    "convnets.family_report": "phinas.generate.report",
    "convnets.family_text": "phinas.generate.text",
    "convnets.inference": "phinas.weights.inference",
    "convnets.machine": "phinas.measure.machine",
    "convnets.measure_report": "phinas.measure.report",
    "convnets.memory": "phinas.networks.memory",
    "convnets.named": "phinas.networks.named",
    "convnets.network": "phinas.networks.network",
    "convnets.onnx_file": "phinas.weights.onnx_file",
    "convnets.origin": "phinas.files.origin",
    "convnets.out_of_memory": "phinas.engines.out_of_memory",
    "convnets.reference": "phinas.networks.reference",
    "convnets.room": "phinas.networks.room",
    "convnets.rules": "phinas.generate.rules",
    "convnets.scale": "phinas.networks.scale",
    "convnets.scaling_file": "phinas.networks.scaling_file",
    "convnets.settings": "phinas.files.settings",
    "convnets.standalone": "phinas.weights.standalone",
    "convnets.targets": "phinas.generate.targets",
    "convnets.threads": "phinas.engines.threads",
    "convnets.timing": "phinas.measure.timing",
    "convnets.yaml_file": "phinas.files.yaml_file",
    "engines.connection": "phinas.engines.connection",
    "engines.engine": "phinas.engines.engine",
    "engines.evaluator": "phinas.engines.evaluator",
    "engines.inline": "phinas.engines.inline",
    "engines.local_cluster": "phinas.engines.local_cluster",
    "engines.ray": "phinas.engines.ray",
    "engines.watchdog": "phinas.engines.watchdog",
    "nas.agreement": "nas.proxy_check.agreement",
    "nas.check_outcome": "nas.proxy_check.outcome",
    "nas.check_plan": "nas.proxy_check.plan",
    "nas.check_report": "nas.proxy_check.report",
    "nas.faults": "nas.selftest",
    "nas.faults.corrupted": "nas.selftest.corrupted",
    "nas.faults.disk_full": "nas.selftest.disk_full",
    "nas.faults.drivers": "nas.selftest.drivers",
    "nas.faults.ledger": "nas.selftest.ledger",
    "nas.faults.nodes": "nas.selftest.nodes",
    "nas.faults.outcome": "nas.selftest.outcome",
    "nas.faults.proxy": "nas.selftest.proxy",
    "nas.faults.resumed": "nas.selftest.resumed",
    "nas.faults.searches": "nas.selftest.searches",
    "nas.faults.settings": "nas.selftest.settings",
    "nas.faults.torn": "nas.selftest.torn",
    "nas.faults.two_at_once": "nas.selftest.two_at_once",
    "nas.faults.witness": "nas.selftest.witness",
    "nas.faults.witnessed": "nas.selftest.witnessed",
    "nas.faults.workers": "nas.selftest.workers",
    "nas.figures.agreement": "nas.proxy_check.figure",
    "nas.loop": "nas.jobs",
    "pages.axes": "phinas.pages.axes",
    "pages.labels": "phinas.pages.labels",
    "pages.page": "phinas.pages.page",
    "pages.style": "phinas.pages.style",
    "scaling_search.compare_report": "scaling_search.compare.report",
    "scaling_search.comparison": "scaling_search.compare.networks",
    "scaling_search.contrast": "scaling_search.compare.outcome",
    "scaling_search.figures.comparison": "scaling_search.compare.figure",
    "training.activation_map": "phinas.cam.activation_map",
    "training.augment": "phinas.training.data.samples",
    "training.average": "phinas.training.full.average",
    "training.batch_norm": "phinas.training.workers.batch_norm",
    "training.batches": "phinas.training.data.batch_plan",
    "training.cam_figure": "phinas.cam.figure",
    "training.cam_model": "phinas.cam.model",
    "training.checkpoint": "phinas.training.full.checkpoint",
    "training.convolutions": "phinas.training.convolutions",
    "training.crops": "phinas.training.augment.crops",
    "training.data": "phinas.training.data.images",
    "training.dataset": "phinas.training.data.dataset",
    "training.decode": "phinas.training.data.decode",
    "training.engine": "phinas.training.workers.engine",
    "training.fit": "phinas.training.full.training_loop",
    "training.forecast": "phinas.training.short.forecast",
    "training.full_recipe": "phinas.training.full.recipe",
    "training.group": "phinas.training.workers.worker_group",
    "training.image_folder": "phinas.training.data.image_files",
    "training.kept": "phinas.training.full.trained_network",
    "training.loggers": "phinas.train.loggers",
    "training.loop": "phinas.training.short.training_loop",
    "training.metrics": "phinas.training.full.metrics",
    "training.optim": "phinas.training.optim",
    "training.own_failures": "phinas.training.own_failures",
    "training.policies": "phinas.training.augment.policies",
    "training.recipe": "phinas.training.short.recipe",
    "training.rmsprop": "phinas.training.full.rmsprop",
    "training.schedule": "phinas.training.schedule",
    "training.session": "phinas.training.full.training_run",
    "training.share": "phinas.training.workers.shard",
    "training.source": "phinas.training.data.training_data",
    "training.splits": "phinas.training.data.load_for_training",
    "training.start": "phinas.training.full.initial_network",
    "training.stream": "phinas.training.data.streamed",
    "training.train_report": "phinas.train.report",
    "training.transfer_data": "phinas.transfer.data_sets",
    "training.transfer_plan": "phinas.transfer.plan",
    "training.transfer_report": "phinas.transfer.report",
    "training.transfer_training": "phinas.transfer.training",
    "training.workers": "phinas.training.workers.ray_train",
}
_RENAMED_IN_TRAINING = {
    "data.batches": "data.batch_plan", "data.source": "data.training_data",
    "data.splits": "data.load_for_training", "data.stream": "data.streamed",
    "full.fit": "full.training_loop", "full.kept": "full.trained_network",
    "full.session": "full.training_run", "full.start": "full.initial_network",
    "short.loop": "short.training_loop", "workers.group": "workers.worker_group",
    "workers.share": "workers.shard",
}  # fmt: skip
MOVED |= {f"phinas.training.{before}": f"phinas.training.{now}" for before, now in _RENAMED_IN_TRAINING.items()}
COMMANDS = {
    "convnets.generate": "phinas.generate",
    "convnets.measure": "phinas.measure",
    "training.train": "phinas.train",
    "training.transfer": "phinas.transfer",
    "training.cam": "phinas.cam",
}
_EARLIER_TARGETS = {target: before for before, target in TARGETS.items()}
_EARLIER_COMMANDS = {command: before for before, command in COMMANDS.items()}


def renamed(settings: Any) -> Any:
    """The settings with every `_target_` in them, at any depth, and the `command`, by its name of today; a copy."""
    return _with_names(settings, TARGETS, COMMANDS)


def named_before(settings: Any) -> Any:
    """The settings as the releases before the move wrote them: hashes that were taken then can be taken again."""
    return _with_names(settings, _EARLIER_TARGETS, _EARLIER_COMMANDS)


def moved_hint(module: str) -> str | None:
    """What to tell whoever imports `module` by an earlier name of ours, or by the package that held it; else None."""
    if module in MOVED or module in COMMANDS:
        return f"{module} is now {MOVED.get(module) or COMMANDS[module]}"
    inside = [(before, now) for before, now in MOVED.items() if before.startswith(f"{module}.")]
    if not inside:
        return None
    before, now = next((pair for pair in inside if pair[0] in _EXAMPLES), inside[0])
    return f"the modules of {module} have new names, such as {now} for {before}: docs/moved.md lists all"


_EXAMPLES = (
    "convnets.arch",
    "training.recipe",
    "engines.evaluator",
    "conf.command",
    "pages.style",
    "nas.faults.searches",
)


def _with_names(settings: Any, targets: Mapping[str, str], commands: Mapping[str, str]) -> Any:
    if isinstance(settings, Mapping):
        return {key: _named(str(key), value, targets, commands) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [_with_names(value, targets, commands) for value in settings]
    return settings


def _named(key: str, value: Any, targets: Mapping[str, str], commands: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return _with_names(value, targets, commands)
    if key == "command":
        return commands.get(value, value)
    if key.split(".")[-1] == "_target_":  # behind a dotted name, where settings were flattened
        return targets.get(value, value)
    return value
