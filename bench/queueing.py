"""Queues: formulas for known systems, and a simulation of systems without one.

The simulation uses simpy. Requests arrive at random (a Poisson process), as those of many clients
do. Times are in seconds.
"""

import random
import statistics
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import simpy

WARM_UP = 0.1
"""The share of the requests that are simulated first, and not counted."""


class Work(NamedTuple):
    """The time that a step takes: its mean, and its squared coefficient of variation.

    The variation is 0 for a constant time, and 1 for an exponential distribution.
    """

    mean: float
    variation: float = 0.0

    def draw(self, rng: random.Random) -> float:
        """Return a time, from a gamma distribution."""
        if not self.variation or not self.mean:
            return self.mean
        return rng.gammavariate(1 / self.variation, self.mean * self.variation)


class Pool(NamedTuple):
    """Servers with a common queue. With several `queues`, each request chooses one at random.

    Workers have separate queues: the connections of nginx are distributed among them. Without
    `servers`, nobody waits.
    """

    servers: int | None = 1
    queues: int = 1


class Step(NamedTuple):
    """A part of a request: work by a server of a pool. Another request may follow on it."""

    pool: str
    work: Work


class Interruptions(NamedTuple):
    """Other work that the servers of a pool do at random times, `rate` times a second each."""

    pool: str
    rate: float
    work: Work


class Simulated(NamedTuple):
    """Response times in seconds, in ascending order, and the mean number in progress."""

    times: Sequence[float]
    in_progress: float

    @property
    def mean(self) -> float:
        """Return the mean response time."""
        return statistics.fmean(self.times)

    def percentile(self, share: float) -> float:
        """Return the response time that this share of the requests does not exceed."""
        return self.times[min(int(share * len(self.times)), len(self.times) - 1)]


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that a request waits in an M/M/c queue (Erlang C).

    `offered` is the arrival rate times the mean service time. It is less than `servers`.
    """
    blocked = 1.0  # Erlang B, by its recursion
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def mean_wait(servers: int, rate: float, work: Work) -> float:
    """Return the mean time in the queue, by the approximation of Allen and Cunneen.

    It is exact for M/M/c, and for M/G/1 (the formula of Pollaczek and Khinchine).
    """
    offered = rate * work.mean
    waiting = erlang_c(servers, offered) * work.mean / (servers - offered)
    return waiting * (1 + work.variation) / 2


def simulate(
    pools: Mapping[str, Pool],
    steps: Sequence[Step],
    *,
    rate: float,
    requests: int,
    interruptions: Interruptions | None = None,
    seed: int = 1,
) -> Simulated:
    """Simulate requests that arrive at a mean `rate`, and take the steps in their order."""
    simulation = _Simulation(pools, seed)
    if interruptions is not None:
        simulation.interrupt(interruptions)
    return simulation.run(steps, rate, requests)


Process = Generator[simpy.Event, Any, None]


class _Simulation:
    def __init__(self, pools: Mapping[str, Pool], seed: int) -> None:
        self._env = simpy.Environment()
        self._rng = random.Random(seed)  # noqa: S311 - not a secret
        self._queues = {
            name: [simpy.Resource(self._env, pool.servers) for _ in range(pool.queues)]
            for name, pool in pools.items()
            if pool.servers is not None
        }
        self._times: list[float] = []
        self._seen: list[int] = []
        self._present = 0

    def run(self, steps: Sequence[Step], rate: float, requests: int) -> Simulated:
        self._env.run(self._env.process(self._arrive(steps, rate, requests)))
        while self._present:
            self._env.step()
        first = int(requests * WARM_UP)
        return Simulated(sorted(self._times[first:]), statistics.fmean(self._seen[first:]))

    def interrupt(self, by: Interruptions) -> None:
        for server in self._queues[by.pool]:
            self._env.process(self._interrupt(server, by))

    def _arrive(self, steps: Sequence[Step], rate: float, requests: int) -> Process:
        for _ in range(requests):
            yield self._env.timeout(self._rng.expovariate(rate))
            self._env.process(self._respond(steps))

    def _respond(self, steps: Sequence[Step]) -> Process:
        started = self._env.now
        self._seen.append(self._present)  # arrivals at random see the mean number
        self._present += 1
        chosen = {name: self._rng.choice(queues) for name, queues in self._queues.items()}
        for pool, work in steps:
            seconds = work.draw(self._rng)
            if pool in chosen:
                yield from self._occupy(chosen[pool], seconds)
            else:
                yield self._env.timeout(seconds)
        self._present -= 1
        self._times.append(self._env.now - started)

    def _occupy(self, server: simpy.Resource, seconds: float) -> Process:
        with server.request() as turn:
            yield turn
            yield self._env.timeout(seconds)

    def _interrupt(self, server: simpy.Resource, by: Interruptions) -> Process:
        while True:
            yield self._env.timeout(self._rng.expovariate(by.rate))
            self._env.process(self._occupy(server, by.work.draw(self._rng)))
