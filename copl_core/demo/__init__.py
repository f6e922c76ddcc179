"""The study that a first start opens with: texts written for it and simulated users (numpy only, no torch)."""
