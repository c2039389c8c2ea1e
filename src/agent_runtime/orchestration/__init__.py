"""The onion: executor, layers, and the core that awaits the agent."""
