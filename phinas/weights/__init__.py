"""Weights and what carries them away: names of public checkpoints, files, exports, ONNX, `model.py`."""
