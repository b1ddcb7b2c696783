"""Trains one job of the service with google-tunix. What it promises: README.md here; the interface: ../RUNNER.md."""
