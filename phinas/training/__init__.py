"""How a network learns: the short training of a search, and training to the end.

data/     images.py          the loaders that `data=` names; loader.py says what a loader is
          digits.py, parquet.py, image_folder.py      their settings and splits; image_files.py lists a folder's files
          dataset.py         `Dataset`: labelled images in memory, those held out of training (`val`) apart
          validation_split.py    which images are held out
          samples.py         `Samples`: images on the device, resized
          training_data.py   `TrainingData`: what a training asks of its data; in_memory.py and streamed.py are the two
                             kinds, load_for_training.py chooses
          batch_plan.py      which images a batch has, by seed and step
augment/  crops.py, views.py (shifted and mirrored), policies.py (colours and shapes)
short/    recipe.py, training_loop.py, and forecast.py: how long it will take
full/     recipe.py, training_loop.py
          initial_network.py, trained_network.py      what a run starts from, and what is kept of it
          training_run.py    `TrainingRun`: from its start to its test, with checkpoints (checkpoint.py, metrics.py)
workers/  several processes that train one network: `WorkerGroup`, and the `Shard` of a batch that each computes

For both: scoring.py (accuracy, and batch-norm statistics), randomness.py, optim.py and schedule.py (optimiser, learning
rate), device.py, own_failures.py (divergence, memory), convolutions.py (fast ones on CPUs).

An epoch is a pass over the training images, a step one batch of them. Of the splits, training learns from `train`, is
chosen by `val` or what is held out, and reported by `test`, which is looked at once.
"""
