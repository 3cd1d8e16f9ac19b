"""A toy cluster with so many GPUs, one for each pod, and a toy rollout that asks `place`."""

from dataclasses import dataclass, field

from tidegate.api.spec import Strategy, Surge
from tidegate.placement import Load, Placement, Pods, can_carry, place
from tidegate.record import Phase

TICK_S = 5
START_S = 15
LEAVE_S = 10


@dataclass(eq=False)
class Pod:
    """One pod; without a GPU it is pending."""

    revision: str
    made_s: int
    gpu_since_s: int | None = None
    leaves_s: int | None = None

    def ready(self, now_s: int) -> bool:
        return (
            self.leaves_s is None
            and self.gpu_since_s is not None
            and now_s >= self.gpu_since_s + START_S
        )


@dataclass
class Cluster:
    """GPUs, pods, and who else holds some."""

    gpus: int
    foreign: int = 0
    now_s: int = 0
    pods: list[Pod] = field(default_factory=list)

    def view(self, revision: str) -> Pods:
        mine = [p for p in self.pods if p.revision == revision]
        there = [p for p in mine if p.leaves_s is None]
        pending = [p for p in there if p.gpu_since_s is None]
        return Pods(
            there=len(there),
            ready=sum(p.ready(self.now_s) for p in there),
            leaving=len(mine) - len(there),
            waiting="no node has nvidia.com/gpu free." if pending else "",
            waited_s=max((self.now_s - p.made_s for p in pending), default=0),
        )

    def scale(self, revision: str, number: int) -> None:
        """As a ReplicaSet does: those that serve least go first."""
        mine = [p for p in self.pods if p.revision == revision and p.leaves_s is None]
        mine.sort(key=lambda p: (p.gpu_since_s is None, not p.ready(self.now_s), p.made_s))
        for pod in mine[number:]:
            pod.leaves_s = self.now_s + (0 if pod.gpu_since_s is None else LEAVE_S)
        self.pods += [Pod(revision, self.now_s) for _ in range(number - len(mine))]

    def lose(self, revision: str) -> None:
        """A pod is evicted; its ReplicaSet puts a new one in its place."""
        mine = [p for p in self.pods if p.revision == revision and p.leaves_s is None]
        if mine:
            mine[0].leaves_s = self.now_s
            self.pods.append(Pod(revision, self.now_s))

    def tick(self) -> None:
        """Time passes: pods end, and those that wait get what is free, the oldest first."""
        self.now_s += TICK_S
        self.pods = [p for p in self.pods if p.leaves_s is None or p.leaves_s > self.now_s]
        free = self.gpus - self.foreign - sum(p.gpu_since_s is not None for p in self.pods)
        for pod in sorted(self.pods, key=lambda p: p.made_s):
            if pod.gpu_since_s is None and free > 0:
                pod.gpu_since_s, free = self.now_s, free - 1


@dataclass
class Run:
    """A rollout by the rules of `tidegate.rollout`, as far as they concern pods."""

    cluster: Cluster
    wanted: int
    steps: tuple[float, ...]
    in_flight: float | None
    surge: Surge = Surge.AUTO
    strategy: Strategy = Strategy.CANARY
    surge_wait_s: int = 60
    bad_at: float | None = None
    instances: int = 1
    phase: Phase = Phase.PREPARING
    step: int = -1
    gave_way: int = 0
    since_s: int = 0
    last: Placement | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def begin(cls, gpus: int, wanted: int, **kwargs: object) -> "Run":
        cluster = Cluster(gpus)
        cluster.scale("stable", wanted)
        for _ in range(1 + START_S // TICK_S):
            cluster.tick()
        return cls(cluster, wanted, **kwargs)  # type: ignore[arg-type]

    @property
    def share(self) -> float:
        if self.phase in (Phase.BAKING, Phase.PROMOTED):
            return 1.0
        return self.steps[self.step] if self.phase is Phase.CANARY else 0.0

    @property
    def next_share(self) -> float:
        if self.phase in (Phase.BAKING, Phase.PROMOTED) or self.step + 1 >= len(self.steps):
            return 1.0
        return self.steps[self.step + 1]

    @property
    def over(self) -> bool:
        return self.phase in (Phase.PROMOTED, Phase.ROLLED_BACK)

    def per_pod(self) -> float | None:
        """Mean in flight in a ready stable pod."""
        ready = self.cluster.view("stable").ready
        if self.in_flight is None or not ready:
            return None
        return self.in_flight * (1 - self.share) / ready

    def place(self) -> Placement:
        promoted = self.phase is Phase.PROMOTED
        stable, canary = ("canary", "stable") if promoted else ("stable", "canary")
        return place(
            strategy=self.strategy,
            surge=self.surge,
            surge_wait_s=self.surge_wait_s,
            phase=self.phase,
            wanted=self.wanted,
            share=self.share,
            next_share=self.next_share,
            stable=self.cluster.view(stable),
            canary=self.cluster.view(canary),
            load=Load(self.per_pod(), self.instances),
            gave_way=self.gave_way,
            start_s=START_S,
        )

    def tick(self) -> None:
        """One plan, and time passes."""
        self.last = found = self.place()
        self.gave_way = found.gave_way
        promoted = self.phase is Phase.PROMOTED
        stable, canary = ("canary", "stable") if promoted else ("stable", "canary")
        self.cluster.scale(stable, found.stable)
        self.cluster.scale(canary, found.canary)
        if not self.over:
            self.asked.append((found.stable, found.canary))
            self._advance()
        self.cluster.tick()

    def _advance(self) -> None:
        ready = self.cluster.view("canary").ready
        held_s = self.cluster.now_s - self.since_s
        if self.bad_at is not None and self.share >= self.bad_at and held_s > 2 * START_S:
            self.phase, self.since_s = Phase.ROLLED_BACK, self.cluster.now_s
        elif self.phase is Phase.BAKING:
            if held_s > 4 * START_S:
                self.phase, self.gave_way = Phase.PROMOTED, 0
        elif can_carry(self.next_share, self.wanted, ready, self.gave_way) and (
            held_s > 2 * START_S
        ):
            last = self.step + 1 >= len(self.steps) or self.strategy is not Strategy.CANARY
            self.phase = Phase.BAKING if last else Phase.CANARY
            self.step += not last
            self.since_s = self.cluster.now_s

    def run(self, ticks: int = 200) -> "Run":
        for _ in range(ticks):
            self.tick()
        return self
