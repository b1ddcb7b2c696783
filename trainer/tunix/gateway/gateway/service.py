"""Everything that a request needs, put together once."""

from dataclasses import dataclass

from .accelerators import Accelerators, load_accelerators
from .artifacts import Artifacts
from .bell import Bell
from .database import Database
from .datasets import Datasets
from .jobs import Jobs
from .keys import Keys
from .models import Models
from .rate_limit import RateLimit
from .settings import Settings
from .worker import Worker


@dataclass(frozen=True)
class Service:
    settings: Settings
    database: Database
    keys: Keys
    accelerators: Accelerators
    models: Models
    datasets: Datasets
    jobs: Jobs
    artifacts: Artifacts
    bell: Bell
    rate_limit: RateLimit
    workers: tuple[Worker, ...]

    def start(self) -> None:
        """Finishes what an earlier gateway left half done and begins to work. On the event loop."""
        self.bell.open()
        self.datasets.recover()
        self.artifacts.finish_deletions()
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        """The runners save and end; what they were at goes on with the next gateway."""
        for worker in self.workers:
            worker.begin_stop()
        for worker in self.workers:
            worker.join(self.settings.grace_seconds + 30)


def make_service(settings: Settings) -> Service:
    """Throws ValueError, OSError."""
    accelerators = load_accelerators(settings.price_table, settings.accelerators)
    database = Database(settings.data / "gateway.db")
    jobs = Jobs(database, settings.public_url, settings.default_max_jobs)
    bell = Bell()
    workers = tuple(Worker(settings, jobs, one) for one in accelerators.served)

    def changed(job_id: str) -> None:
        bell.ring(job_id)
        for worker in workers:
            worker.wake()

    jobs.changed = changed
    return Service(
        settings=settings,
        database=database,
        keys=Keys(database),
        accelerators=accelerators,
        models=Models(settings.models_roots, settings.hub_cache),
        datasets=Datasets(database, settings.data / "datasets", settings.max_dataset_bytes),
        jobs=jobs,
        artifacts=Artifacts(database, settings.data / "jobs"),
        bell=bell,
        rate_limit=RateLimit(settings.requests_per_second),
        workers=workers,
    )
