"""The demo study that a first start opens: texts written for it and simulated users (numpy only, no torch)."""
