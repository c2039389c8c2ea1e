"""Replay recorded runs without a model, and fork them in the middle."""

from agent_runtime.replay.cassette import Difference
from agent_runtime.replay.recording import Recording, Step, read_recording
from agent_runtime.replay.runs import Replay, replay_run

__all__ = ["Difference", "Recording", "Replay", "Step", "read_recording", "replay_run"]
