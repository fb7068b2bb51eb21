"""The facts that `fastdiff info` prints."""

from __future__ import annotations

import json

from fastdiff import info
from fastdiff.ops import dispatch


def test_facts_are_json_and_cover_every_op_and_backend() -> None:
    facts = info.collect()
    assert json.loads(json.dumps(facts)) == facts
    assert {"solver_step", "add_noise"} <= set(facts["ops"])
    for states in facts["ops"].values():
        assert tuple(states) == dispatch.BACKENDS
        assert states["torch"] == "available" and all(states.values())


def test_the_text_names_every_op_backend_and_reason() -> None:
    facts = info.collect()
    text = info.as_text(facts)
    for op, states in facts["ops"].items():
        assert f"\n  {op}\n" in text
        assert all(f"    {name:<8}{state}" in text for name, state in states.items())
    assert facts["packages"]["torch"] in text


def test_a_missing_extension_is_told_as_a_fallback_with_its_reason() -> None:
    states = {
        "cuda": "not written for this op",
        "triton": "no device",
        "cpp": "no compiler",
        "torch": "available",
    }
    assert info._fallbacks({"solver_step": states}) == [
        "solver_step runs on plain torch instead of C++: no compiler"
    ]
    assert info._fallbacks({"solver_step": {**states, "cpp": "available"}}) == []
    assert info._fallbacks({"future": {**states, "cpp": "not written for this op"}}) == []


def test_environment_is_told_when_set(monkeypatch) -> None:
    monkeypatch.setenv("FASTDIFF_DEBUG", "1")
    facts = info.collect()
    assert facts["environment"]["FASTDIFF_DEBUG"] == "1"
    assert "FASTDIFF_DEBUG" in info.as_text(facts)
