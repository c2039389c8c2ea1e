"""Recorded runs, played again without a model, and gone on from in the middle."""

from agent_runtime.replay.recording import NotRecorded, Recording, Step, read_recording
from agent_runtime.replay.runs import Replay, replay_run
from agent_runtime.replay.tape import Difference, ReplayDiverged

__all__ = ["Difference", "NotRecorded", "Recording", "Replay", "ReplayDiverged", "Step", "read_recording", "replay_run"]
