"""The ranks of a run: topology, rendezvous, checks before training, collectives, heartbeats and the watchdog."""
