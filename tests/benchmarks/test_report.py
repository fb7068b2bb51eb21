"""The page of figures is made from what was kept, and nothing else."""

import json

from benchmarks.report import filled

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
    page = filled(PAGE, tmp_path)
    assert "| case (disturbed) | 1 | slow | 4.00 | 3.50 to 4.50 | 4 | reached |" in page
    assert "|  |  | fast | 2.00 | 1.50 to 2.50 | 2.5 | 80% |" in page
    assert "|  |  | copy | 0.75 | 0.25 to 1.25 |  |  |" in page
    assert "processor toy, threads 2" in page and "old" not in page and "kept" in page
    assert filled(page, tmp_path) == page
