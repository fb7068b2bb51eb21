"""Drawing 16 maps of 16 x 16 codes from a gated PixelCNN: each code computed once, against a whole forward per code.

The rival's 256 calls are all alike, so one of them is timed and the ratio multiplied by 256.
"""

from __future__ import annotations

import torch

from fastdiff.systems.pixelcnn import GatedPixelCNN, sample_codes
from fastdiff.systems.pixelcnn.rows import Rows

BATCH, SIZE, CODES = 16, 16, 64


def bench_pixelcnn_sampling(duel):
    torch.manual_seed(0)
    net = GatedPixelCNN(CODES, dim=64, n_layers=15, n_classes=0).eval()
    codes = torch.randint(0, CODES, (BATCH, SIZE, SIZE))

    @torch.no_grad()
    def check() -> None:
        whole, rows = net(codes), Rows(net, BATCH, SIZE)
        for i in range(SIZE):
            rows.start_row()
            for j in range(SIZE):
                torch.testing.assert_close(rows.logits(j), whole[:, :, i, j], atol=1e-5, rtol=1e-5)
                rows.put(j, codes[:, i, j])
        fast, slow = (sample_codes(net, (4, 4), num=4, cached=cached) for cached in (True, False))
        assert torch.equal(fast, slow)

    @torch.no_grad()
    def one_forward() -> object:
        return net(codes)

    ours = "fastdiff, all codes"
    candidates = {ours: lambda: sample_codes(net, (SIZE, SIZE), num=BATCH), "one forward": one_forward}
    result = duel(
        "pixelcnn, 16 maps of 16 x 16",
        candidates,
        check=check,
        rounds=9,
        bar={"one forward": 20 / SIZE**2},
        layers=15,
        dim=64,
    )
    spread = result.speedup["one forward"]
    low, middle, high = (SIZE**2 * value for value in (spread.p10, spread.median, spread.p90))
    print(f"    {middle:.0f}x [{low:.0f}, {high:.0f}] over {SIZE**2} whole forwards")
