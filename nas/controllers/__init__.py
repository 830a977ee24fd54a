"""The controllers that ship: random search, regularised evolution, and a recurrent policy trained by PPO."""
