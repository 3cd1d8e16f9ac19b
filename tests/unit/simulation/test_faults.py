"""How faults are written."""

import math

import pytest

from tidegate.simulation.faults import Defect, Fault, FaultError, edges_of, parse, size_of


@pytest.mark.parametrize(
    ("text", "fault", "shown"),
    [
        ("errors=5%", Fault(Defect.ERRORS, 0.05), "errors 5 %"),
        ("slower=1.5@12m", Fault(Defect.SLOWER, 1.5, 720.0), "slower 1.5 from 12:00"),
        ("crash", Fault(Defect.CRASH), "crash"),
        ("hang@90s-2m", Fault(Defect.HANG, 1.0, 90.0, 120.0), "hang from 1:30 to 2:00"),
        ("no-metrics", Fault(Defect.NO_METRICS, 1.0), "no-metrics 100 %"),
        ("no-metrics=50%@1h", Fault(Defect.NO_METRICS, 0.5, 3600.0), "no-metrics 50 % from 60:00"),
        ("lag=15s", Fault(Defect.LAG, 15.0), "lag 15 s"),
        ("gpus=0", Fault(Defect.GPUS, 0.0), "gpus 0"),
        ("old-errors = 0.5%", Fault(Defect.OLD_ERRORS, 0.005), "old-errors 0.5 %"),
    ],
)
def test_a_fault_and_how_it_is_shown(text: str, fault: Fault, shown: str) -> None:
    assert parse(text) == fault
    assert str(fault) == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eruption", "'eruption' is no fault; there are crash, errors,"),
        ("", "'' is no fault"),
        ("errors", "how much? write errors= and a share such as 5%"),
        ("errors=5", "'5' is not a share such as 5%"),
        ("errors=-5%", "'-5%' is not a share"),
        ("slower=0", "'0' is not a factor such as 1.5"),
        ("slower=inf", "'inf' is not a factor"),
        ("gpus=1.5", "'1.5' is not a whole number such as 4"),
        ("lag=15", "'15' is not a length of time such as 15s"),
        ("crash=2", "crash has no size"),
        ("crash@noon", "write the times as @12m or @12m-20m"),
        ("crash@3m-2m", "ends before it begins"),
    ],
)
def test_what_is_no_fault(text: str, said: str) -> None:
    with pytest.raises(FaultError) as error:
        parse(text)
    assert said in str(error.value)


def test_what_holds_when() -> None:
    faults = [parse("errors=5%@1m-2m"), parse("errors=1%"), parse("lag=3s@90s")]
    assert [size_of(faults, Defect.ERRORS, at) for at in (59.0, 60.0, 119.0, 120.0)] == [
        *(0.01, 0.05, 0.05, 0.01)
    ]
    assert size_of(faults, Defect.CRASH, 60.0) is None
    assert edges_of(faults) == [60.0, 90.0, 120.0]
    assert edges_of([Fault(Defect.CRASH, end_s=math.inf)]) == []
