"""Run agents in separate processes: instances, their scheduler, and the handling of crashes."""
