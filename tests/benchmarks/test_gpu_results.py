"""The page of GPU figures is made from kept files, which tell nothing of the machine's folders."""

import copy
import json

import pytest

from benchmarks import bench_attention, gpu_results
from benchmarks.measure import compare

DEVICE = {"name": "Toy GPU 80GB", "capability": "9.0", "memory_gib": 80, "visible": "3"}


def finding(op, backend, state="right", **more):
    return {"op": op, "backend": backend, "example": "4x4", "phase": "forward", "state": state, **more}


DOCTOR = {
    "device": DEVICE,
    "versions": {"format": 1, "torch": "2.11"},
    "findings": [
        finding(
            "sample",
            "eager",
            example="16 images, 50 steps",
            ms=2000.0,
            error=0.1,
            note="8 images/s, first run 1 s",
        ),
        finding(
            "sample",
            "graph",
            example="16 images, 50 steps",
            ms=500.0,
            error=0.2,
            note="32 images/s, first run 2 s",
        ),
        finding("sample", "inductor", state="error", note="RuntimeError: no"),
        finding("attention", "cuda", state="absent", note="not built"),
        finding("attention", "triton", ms=0.5, spread=[0.4, 0.7], error=0.25),
        finding("attention", "torch", ms=1.0, spread=[0.9, 1.1], error=0.5),
        finding("normal", "triton", state="wrong", note="error 3, allowed 1", error=3.0),
    ],
    "unexamined": {"conv3x3 big": "the 300 s were over"},
    "winners": {},
    "stored": "/somewhere/private",
    "seconds": 12.0,
    "status": 1,
}
BENCH = {
    "device": DEVICE,
    "torch": "2.11",
    "rows": [
        {"name": "a", "ours_ms": 1.0, "rival_ms": 2.0, "ratio": 2.0, "p10": 1.9, "p90": 2.1, "note": ""},
        {"name": "b", "ours_ms": 0.0, "rival_ms": 0.0, "ratio": 0.0, "p10": 0.0, "p90": 0.0, "note": "wrong"},
    ],
}


@pytest.fixture
def kept(tmp_path):
    for name, content in (("doctor", DOCTOR), ("bench", BENCH)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(copy.deepcopy(content)))
        target = gpu_results.keep(path, tmp_path / "gpu")
        assert target == tmp_path / "gpu" / "toy-gpu-80gb" / f"{name}.json"
        assert "private" not in target.read_text() and "visible" not in target.read_text()
    return tmp_path / "gpu"


def test_the_page_by_hand(kept):
    page = gpu_results.page(kept)
    assert page.startswith("## Toy GPU 80GB\n\n`fastdiff doctor`, 12 s: name Toy GPU 80GB, capability 9.0")
    assert "| eager | 8 | 2000.0 | 1.00 | 0.1 | first run 1 s |" in page
    assert "| graph | 32 | 500.0 | 4.00 | 0.2 | first run 2 s |" in page
    assert "| inductor | error |  |  |  | RuntimeError: no |" in page
    assert "| attention | 4x4 | triton | 0.5 | 0.4 to 0.7 | 1 | 2.00 |" in page
    assert "| attention | triton | 1 right | 0.25 |" in page
    assert "- normal on triton, 4x4, forward: wrong (error 3, allowed 1)" in page
    assert "- cuda was not there for attention: not built" in page
    assert "- not examined: conv3x3 big: the 300 s were over" in page
    assert "| a | 1 | 2 | 2.00 | 1.90 to 2.10 |" in page and "| b |  |  | wrong |  |" in page
    assert page.index("fastdiff doctor") < page.index("fastdiff bench")


def test_without_files_the_page_says_so(tmp_path):
    assert gpu_results.page(tmp_path) == "Nobody has sent figures yet."


def test_a_cpu_is_refused(tmp_path):
    path = tmp_path / "doctor.json"
    path.write_text(json.dumps(DOCTOR | {"device": {"name": "some processor", "threads": 2}}))
    with pytest.raises(ValueError, match="must be of a GPU, got some processor"):
        gpu_results.keep(path, tmp_path)


def test_what_is_kept_in_the_repository_is_of_gpus_and_private_to_nobody():
    for path in gpu_results.RESULTS.glob("*/*.json"):
        kept = json.loads(path.read_text(encoding="utf-8"))
        assert "capability" in gpu_results.device_of(kept)
        assert not gpu_results.PRIVATE & {*kept, *gpu_results.device_of(kept)}


def test_a_rival_that_fails_is_told_and_ours_may_not():
    def fails():
        raise RuntimeError("no kernel\nfor this")

    result = compare(
        "case", {"fastdiff": list, "fails": fails, "runs": list}, check=list, rounds=2, cannot={"x": "y"}
    )
    assert result.facts["cannot"] == {"x": "y", "fails": "RuntimeError: no kernel"}
    assert (
        list(result.speedup) == ["runs"]
        and "fails is left out: RuntimeError: no kernel" in result.lines()[-1]
    )
    with pytest.raises(RuntimeError):
        compare("case", {"fastdiff": fails, "runs": list}, check=list, rounds=2)


def test_ways_of_attention_that_are_not_here_or_err_are_told():
    """On a CPU cuDNN cannot run, and neither xformers nor flash-attn is installed."""
    q, k, v = bench_attention.drawn(1, 2, 8, 8, 16)
    candidates, cannot = bench_attention.of_a_gpu(q, k, v)
    exact = candidates["torch MATH"]().double()
    candidates["errs"] = lambda: q + v
    cannot |= bench_attention.right(candidates, exact, q.dtype)
    assert "torch MATH" in candidates and "its result is wrong" in cannot["errs"]
    assert "torch CUDNN_ATTENTION" in cannot and "torch CUDNN_ATTENTION" not in candidates
