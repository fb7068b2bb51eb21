"""The page of figures is made from what was kept, and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import bench_network
from benchmarks.measure import Comparison, Spread, kept, machine, save
from benchmarks.rates import Rates
from benchmarks.report import PAGES, RESULTS, files, filled
from benchmarks.tables import COLD_BAR, HEADLINES, MODES_OF, headline, modes, remarks, roofline

PAGE = "before\n<!-- toy.json -->\nold\n<!-- end -->\nbetween\n<!-- other.json -->\nkept\n<!-- end -->\n"


def spread(median):
    return {"median": median, "p10": median - 0.5, "p90": median + 0.5}


def test_rows_come_from_the_file_and_the_rest_stays(tmp_path):
    comparison = {
        "name": "case",
        "ours": "fastdiff",
        "time_ms": {"fastdiff": spread(1.0)},
        "speedup": {"slow": spread(4.0), "fast": spread(2.0), "copy": spread(0.75)},
        "quiet": False,
        "facts": {"bar": {"slow": 4, "fast": 2.5}},
    }
    kept = {"machine": {"processor": "toy", "threads": 2}, "comparisons": [comparison]}
    (tmp_path / "toy.json").write_text(json.dumps(kept))
    page = filled(PAGE, [tmp_path])
    assert "| case (disturbed) | 1 | slow | 4.00 | 3.50 to 4.50 | 4 | reached |" in page
    assert "|  |  | fast | 2.00 | 1.50 to 2.50 | 2.5 | 80% |" in page
    assert "|  |  | copy | 0.75 | 0.25 to 1.25 |  |  |" in page
    assert "processor toy, threads 2" in page and "old" not in page and "kept" in page
    assert filled(page, [tmp_path]) == page


def test_what_a_network_tells_beside_its_times():
    facts = {
        "cold_start_s": {"fastdiff": 4.0, "old": 10.0, "torch.compile + freezing": 24.0},
        "error": {"fastdiff": 1e-6, "old": 0.0, "torch.compile + freezing": 0.0},
        "peak_mib": {"fastdiff": 900.0, "old": 500.0, "torch.compile + freezing": 1000.0},
        "resident_mib": {"fastdiff": 800.0, "old": 400.0, "torch.compile + freezing": 900.0},
        "packed_mib": {"fastdiff": 300.0},
        "weights_mib": 136.0,
        "cannot": {"slow": "not installed"},
        "standing": {"old": 1.25},
    }
    lines = remarks({"name": "net", "ours": "fastdiff", "facts": facts})
    assert lines[1] == (
        "net: slow is left out (not installed); from an earlier run on this machine, "
        "scaled by 1.25 (eager torch's time now / then): old."
    )
    assert "MiB packed, next to 136 of weights" in lines[3]
    assert lines[5:] == [
        "| fastdiff | 4.0 |  |  |  | 900 | 800 | 300 | 1.0e-06 |",
        "| old | 10.0 | 2.5 |  |  | 500 | 400 |  | 0.0e+00 |",
        "| torch.compile + freezing | 24.0 | 6.0 | 8 | 75% | 1000 | 900 |  | 0.0e+00 |",
    ]


def test_a_race_tells_what_the_processor_itself_reached():
    rates = Rates()
    rates.far = torch.ones(1000)
    rates.take()
    assert all(spread["median"] > 0 for spread in rates.spreads().values())
    known = {name: {"p10": 18.0, "median": 20.4, "p90": 24.0} for name in rates.spreads()}
    facts = {"rates": known}
    assert remarks({"name": "net", "ours": "fastdiff", "facts": facts})[1:] == [
        "net: between the rounds the processor reached read 20 [18 to 24] GB/s and sgemm 20 [18 to 24] GFLOP/s."
    ]


def test_cases_of_an_earlier_run_stay(tmp_path):
    def case(name, median):
        return Comparison(name, "fastdiff", {"fastdiff": Spread(median, 1.0, 3.0)}, {}, 5, 0, True)

    path = tmp_path / "toy.json"
    save([case("a", 2.0), case("b", 2.0)], path, keep=True)
    save([case("b", 2.5)], path, keep=True)
    assert {name: c["time_ms"]["fastdiff"]["median"] for name, c in kept(path).items()} == {
        "a": 2.0,
        "b": 2.5,
    }
    save([case("b", 2.5)], path)
    assert list(kept(path)) == ["b"]


@pytest.fixture
def installed(monkeypatch):
    """As if every rival's packages were there."""
    monkeypatch.setattr(bench_network, "version", lambda name: f"version of {name}")


def network_run(times: dict[str, float]) -> Comparison:
    """One run of a case, the rivals' times as given."""
    facts = {"machine": machine(), "versions": {name: bench_network.version(name) for name in times}}
    for fact in ("bar", "cold_start_s", "error", "resident_mib", "peak_mib"):
        facts[fact] = dict.fromkeys(times, 1.0)
    spreads = {name: Spread(time, 0.9 * time, 1.1 * time) for name, time in times.items()}
    return Comparison("net, batch 1", "fastdiff", spreads, {}, 5, 0, True, facts)


def test_rows_of_slower_rivals_stand_while_nothing_has_changed(monkeypatch, installed):
    times = {"fastdiff": 1.0, **dict.fromkeys(bench_network.ANCHORS, 4.0)}
    slower = {"OpenVINO f32": 2.0, "ONNX Runtime": 2.1, "torch.compile": 2.5}
    earlier = asdict(network_run(times | slower))
    names = [*times, *slower]
    assert bench_network.standing(earlier, names) == ["torch.compile"]
    assert bench_network.standing(None, names) == []
    now = network_run({name: 1.5 * time for name, time in times.items()})
    stood = bench_network.with_standing(now, earlier, ["torch.compile"])
    assert stood.time_ms["torch.compile"].median == pytest.approx(3.75)  # the machine is slower now
    assert stood.speedup["torch.compile"].median == pytest.approx(2.5)
    assert stood.facts["cold_start_s"]["torch.compile"] == pytest.approx(1.5)
    assert stood.facts["standing"] == {"torch.compile": pytest.approx(1.5)}
    earlier["facts"]["versions"]["torch.compile"] = "torch 1.0"
    assert bench_network.standing(earlier, names) == []
    monkeypatch.setenv("FASTDIFF_BENCH_FRESH", "1")
    assert bench_network.standing(asdict(network_run(times | slower)), names) == []


@pytest.mark.parametrize("known", [True, False])
def test_the_quickest_rivals_run_again_and_the_first_time_all_do(monkeypatch, installed, tmp_path, known):
    times = dict.fromkeys(("fastdiff", *bench_network.ANCHORS), 4.0)
    times |= {"OpenVINO f32": 2.0, "ONNX Runtime": 2.1, "torch.compile": 2.5}
    raced = []

    def race(network, batch, order, rounds):
        raced.append(order)
        return network_run({name: times[name] for name in order})

    monkeypatch.setattr(bench_network, "RESULTS", tmp_path / "network.json")
    monkeypatch.setattr(bench_network, "available", lambda *_: list(times))
    monkeypatch.setattr(bench_network, "race", race)
    if known:
        save([network_run(times)], bench_network.RESULTS, keep=True)
    benchmark = SimpleNamespace(extra_info={}, pedantic=lambda *_, **__: None)
    bench_network.bench_network(benchmark, tmp_path, lambda n: n, "net", 1)
    assert raced == [[name for name in times if not known or name != "torch.compile"]]
    case = kept(bench_network.RESULTS)["net, batch 1"]
    assert list(case["facts"].get("standing", {})) == (["torch.compile"] if known else [])
    assert set(case["time_ms"]) == set(times)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_say_what_the_files_say(path):
    page = path.read_text(encoding="utf-8")
    assert "<!-- end -->" in page and filled(page) == page


def test_the_headline_names_the_strongest_rival_and_no_yardstick(tmp_path):
    file, name = HEADLINES[0]
    case = {
        "name": name,
        "ours": "fastdiff",
        "quiet": False,
        "time_ms": {"fastdiff": spread(2.0)},
        "speedup": {
            "slow": spread(4.0),
            "fast": spread(2.0),
            "copy": spread(0.75),
            "fastdiff, low": spread(1.0),
        },
    }
    lines = headline({file: {"comparisons": [case]}}).splitlines()
    assert lines[2:] == [f"| {name} (disturbed) | 2 | fast | 2.00 [1.50, 2.50] |"]


def test_the_roofline_by_hand():
    case = {
        "name": "op",
        "ours": "fastdiff",
        "quiet": True,
        "time_ms": {"fastdiff": spread(2.0)},  # 2 ms for 4e9 flops and 1e6 bytes
        "speedup": {"copy": spread(0.5), "sgemm": spread(3.0)},
        "facts": {"flops": 4e9, "bytes": 1e6, "sgemm_flops": 16e9},
    }
    row = roofline({"machine": {"threads": 2}, "comparisons": [case]}).splitlines()[-1]
    assert row == "| op | 4e+03 | 2000 | 75% | 0.5 | 50% |"


def test_two_machines_give_two_tables(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for k, folder in enumerate(folders):
        folder.mkdir()
        (folder / "toy.json").write_text(
            json.dumps({"machine": {"processor": f"toy {k}"}, "comparisons": []})
        )
    page = filled(PAGE, folders)
    assert page.index("processor toy 0") < page.index("processor toy 1") and "old" not in page


#: Where docs/benchmarks.md says what limits the rows of a file.
LIMITS = {
    "attention": "**Attention",
    "conv3x3": "**3x3 convolutions",
    "network": "**Whole networks",
    "norms": "**Norms**",
    "solver_step": "**A step",
    "vq": "**Nearest code.**",
    "first results": "**First results.**",
}


def missed(file: str, kept: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(part of `LIMITS`, row) of every ratio that does not reach its bar."""
    for case in kept["comparisons"]:
        facts, cold = case["facts"], case["facts"].get("cold_start_s", {})
        for rival, bar in (facts.get("bar") or {}).items():
            if rival in case["speedup"] and case["speedup"][rival]["median"] < bar:
                yield file, f"{case['name']} over {rival}"
        for rival, bar in COLD_BAR.items():
            if rival in cold and cold[rival] < bar * cold[case["ours"]]:
                yield "first results", f"{case['name']} over {rival}"


def test_every_bar_that_is_missed_has_a_reason_on_the_page():
    limits = PAGES[0].read_text(encoding="utf-8").partition("\n## What limits")[2]
    found = [
        row for file, kept in files(RESULTS).items() if "comparisons" in kept for row in missed(file, kept)
    ]
    assert not [row for part, row in found if LIMITS.get(part, "no such part") not in limits]


def test_a_bar_that_is_missed_is_found():
    facts = {
        "bar": {"slow": 4, "fast": 2.5},
        "cold_start_s": {"fastdiff": 4.0, "torch.compile + freezing": 24.0},
    }
    case = {
        "name": "net",
        "ours": "fastdiff",
        "speedup": {"slow": spread(4.0), "fast": spread(2.0)},
        "facts": facts,
    }
    assert list(missed("network", {"comparisons": [case]})) == [
        ("network", "net over fast"),
        ("first results", "net over torch.compile + freezing"),
    ]


def test_the_modes_of_the_engine_by_hand():
    assert modes({"comparisons": []}) == ""
    times = {"fastdiff": 2.0, "fastdiff, memory low": 2.5, "slow": 5.0, "fast": 4.0, "eager": 6.0}
    case = {
        "name": MODES_OF,
        "ours": "fastdiff",
        "quiet": True,
        "time_ms": {name: spread(time) for name, time in times.items()},
        "speedup": {name: spread(time / 2) for name, time in times.items() if name != "fastdiff"},
        "facts": {
            "weights_mib": 136.0,
            "packed_mib": {"fastdiff": 280.0, "fastdiff, memory low": 160.0},
            "peak_mib": dict.fromkeys(times, 900.0),
        },
    }
    assert modes({"comparisons": [case]}).splitlines()[2:] == [
        "| default | 2 | 2.00 | 280 | 900 |",
        '| `memory="low"` | 2.5 | 1.60 | 160 | 900 |',
        "| fast | 4 | 1.00 |  | 900 |",
        "| eager | 6 | 0.67 |  | 900 |",
    ]
