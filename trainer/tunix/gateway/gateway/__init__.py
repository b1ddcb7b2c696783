"""The reference server of the job service's contract (../README.md): keeps jobs, runs them, serves what they leave."""

CONTRACT = "1"
VERSION = "1.0.0"
