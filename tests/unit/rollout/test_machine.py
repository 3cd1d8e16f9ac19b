"""Any order of edits, requests, faults, restarts and lost writes, against S1 to S8."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.unit.plan.world import copied
from tests.unit.rollout.invariants import check_rest
from tests.unit.rollout.world import ENTRY, ROUTE, SEARCH, SPEC, STEPS, Health, Quality, World
from tidegate.rollout import LIVE


class Machine(RuleBasedStateMachine):
    """One ModelDeployment, and whatever may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(gateway=st.booleans(), gpus=st.sampled_from((3, 4, 100)), golden=st.booleans())
    def begin(self, gateway: bool, gpus: int, golden: bool) -> None:
        self.world.gpus = gpus
        if not gateway:
            self.world.edit(traffic={})
            self.world.spec["traffic"] = {}
        if golden:
            self.world.edit(goldenRequests={"configMapName": "golden"})
        self.world.run(60)

    # What users do.

    @rule(number=st.integers(1, 3))
    def ask_for_version(self, number: int) -> None:
        self.world.version(number)

    @rule(replicas=st.sampled_from((0, 1, 2, 3, 5)))
    def scale(self, replicas: int) -> None:
        self.world.edit(replicas=replicas)

    @rule(
        strategy=st.sampled_from(("Canary", "Canary", "BlueGreen", "Recreate")),
        surge=st.sampled_from(("Auto", "Always", "Never")),
    )
    def choose_strategy(self, strategy: str, surge: str) -> None:
        if (strategy, surge) in (("BlueGreen", "Never"), ("Recreate", "Always")):
            surge = "Auto"  # as admission wants it
        self.world.edit(rollout={"strategy": strategy, "surge": surge})

    @rule(weights=st.sampled_from((STEPS, ("1%", "50%"), ("10%",), ("5%", "6%", "90%"))))
    def edit_steps(self, weights: tuple[str, ...]) -> None:
        self.world.edit(rollout={"steps": [{"weight": w} for w in weights]})

    @rule(gateway=st.booleans())
    def edit_gateway(self, gateway: bool) -> None:
        asked = copied(SPEC["traffic"]) if gateway else {}
        if asked != self.world.spec["traffic"]:
            self.world.spec["traffic"] = asked
            self.world.generation += 1

    @rule(paused=st.booleans())
    def pause_by_spec(self, paused: bool) -> None:
        self.world.edit(rollout={"paused": paused})

    @rule(
        verb=st.sampled_from(
            ("abort", "promote", "retry", "undo", "restart", "skip-step", "pause", "resume")
        )
    )
    def ask(self, verb: str) -> None:
        self.world.ask(verb)

    # What happens.

    @rule(quality=st.sampled_from(Quality))
    @precondition(lambda self: self.world.record.phase in LIVE)
    def turns_out(self, quality: Quality) -> None:
        self.world.quality[self.world.record.canary] = quality

    @rule(health=st.sampled_from(Health))
    @precondition(lambda self: self.world.record.phase in LIVE and self.world.record.stable)
    def comes_up(self, health: Health) -> None:
        self.world.health[self.world.record.canary] = health

    @rule(wrong=st.booleans())
    @precondition(lambda self: self.world.record.phase in LIVE and self.world.record.stable)
    def answers_golden(self, wrong: bool) -> None:
        (self.world.golden_wrong.add if wrong else self.world.golden_wrong.discard)(
            self.world.record.canary
        )

    @rule(rps=st.sampled_from((0.0, 2.0, 50.0)), in_flight=st.sampled_from((0.1, 0.4, 0.9)))
    def load(self, rps: float, in_flight: float) -> None:
        self.world.rps, self.world.in_flight_per_stable = rps, in_flight

    @rule(gpus=st.sampled_from((3, 4, 6, 100)))
    def gpus(self, gpus: int) -> None:
        self.world.gpus = gpus

    @rule(down=st.booleans())
    def metrics(self, down: bool) -> None:
        self.world.metrics_down = down

    @rule(failing=st.booleans())
    def stable_fails(self, failing: bool) -> None:
        self.world.stable_failing = failing

    @rule(accepted=st.booleans(), mirrors=st.booleans())
    def gateway(self, accepted: bool, mirrors: bool) -> None:
        self.world.route_accepted, self.world.mirrors = accepted, mirrors

    @rule(canary=st.booleans())
    def lose_pod(self, canary: bool) -> None:
        record = self.world.record
        self.world.lose_pod(record.canary if canary else record.stable)

    @rule(data=st.data())
    def lose_child(self, data: st.DataObject) -> None:
        kinds = ("ConfigMap", "Service", "HTTPRoute", "ControllerRevision")
        refs = [r for r in sorted(self.world.children) if r.kind in kinds]
        if refs:
            lost = data.draw(st.sampled_from(refs))
            del self.world.children[lost]
            if lost.kind != "Service":
                # What a revision is stands in two objects; nobody knows it who lost both.
                self.world.tick(1)

    @rule()
    def restart_operator(self) -> None:
        self.world.restart()

    @rule(after=st.integers(0, 6), seconds=st.sampled_from((1, 10)))
    def die_between_writes(self, after: int, seconds: int) -> None:
        self.world.die_at = self.world.writes + after
        self.world.tick(seconds)
        self.world.die_at = None

    @rule(seconds=st.sampled_from((1, 5, 10, 20)), times=st.integers(1, 6))
    def time_passes(self, seconds: int, times: int) -> None:
        for _ in range(times):
            self.world.tick(seconds)

    @rule()
    def long_time_passes(self) -> None:
        self.world.tick(700)

    def teardown(self) -> None:
        """The faults are over: it comes to rest, whole, and stays there."""
        world = self.world
        world.gpus, world.rps, world.in_flight_per_stable = 100, 20.0, 0.1
        world.metrics_down = world.stable_failing = False
        world.route_accepted = world.mirrors = True
        world.health.clear()
        world.golden_wrong.clear()
        for hash_, quality in world.quality.items():
            if quality is Quality.WORSE:
                world.quality[hash_] = Quality.GOOD
        world.edit(rollout={"paused": False})
        world.ask("resume")
        world.settle()
        check_rest(world)
        assert ROUTE in world.children or not world.spec["traffic"]
        assert ENTRY in world.children


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=500 if SEARCH else 40,
    stateful_step_count=40 if SEARCH else 25,
    suppress_health_check=list(HealthCheck),
    # Shrinking takes minutes: `make fuzz` does it.
    phases=tuple(Phase) if SEARCH else (Phase.explicit, Phase.reuse, Phase.generate),
)
