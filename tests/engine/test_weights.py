"""Weights that change are noticed; calls and instances do not see each other's numbers."""

from __future__ import annotations

import copy
from threading import Thread

import pytest
import torch
from torch import nn

import fastdiff
from fastdiff.engine import weights as watched
from fastdiff.engine.weights import WeightSets
from fastdiff.ops import extension

from .agreement import assert_equal, randomised
from .spelled import SpelledUNet

X, T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10.0, 500.0])


@pytest.fixture(scope="module")
def networks():
    """A network, its eager twin on the same weights, and another one of the same class."""
    net, other = randomised(SpelledUNet("guided")), randomised(SpelledUNet("guided"), seed=1)
    return net, other


def scaled(state, factor):
    return {name: value * factor for name, value in state.items()}


def by_load(net):
    net.load_state_dict(scaled(net.state_dict(), 1.03))


def by_assign(net):
    net.load_state_dict(scaled(net.state_dict(), 0.97), assign=True)


def by_data(net):  # as EMA libraries do
    for p in net.parameters():
        p.data.lerp_(torch.randn_like(p), 1e-3)


def by_data_pointer(net):
    for p in net.parameters():
        p.data = p.data * 1.01


def by_transposing(net):  # addresses, sizes, version counters and bytes stay
    for p in net.parameters():
        if p.dim() == 4:
            p.data = p.data.transpose(2, 3)


def by_optimizer(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()


def by_one_weight(net):  # few elements, through torch
    with torch.no_grad():
        net.block1.out_layers[-1].weight[0, 0, 0, 0] += 3.0


EDITS = [by_load, by_assign, by_data, by_data_pointer, by_transposing, by_optimizer, by_one_weight]


def test_every_dense_edit_is_seen_at_the_next_call(networks):
    net = copy.deepcopy(networks[0])
    compiled = torch.compile(net, backend="fastdiff")
    with torch.no_grad():
        before = compiled(X, T)
        for edit in EDITS:
            edit(net)
            after = compiled(X, T)
            assert_equal(after, net(X, T))
            assert not torch.equal(before, after), edit.__name__
            before = after


def test_a_sparse_edit_through_data_is_seen_within_32_calls_or_after_refresh(networks):
    net = copy.deepcopy(networks[0])
    compiled = torch.compile(net, backend="fastdiff")
    weight = net.block1.out_layers[-1].weight
    with torch.no_grad():
        compiled(X, T)
        weight.data.view(-1)[777] += 3.0
        for _ in range(32):
            last = compiled(X, T)
        assert_equal(last, net(X, T))
        weight.data.view(-1)[778] += 3.0
        fastdiff.refresh(net)
        assert_equal(compiled(X, T), net(X, T))


def test_every_word_is_looked_at_within_32_calls():
    """What a plan packed is packed anew after an edit of one element, wherever it lies."""

    class Copies:
        def compute(self, weights, values):
            return [weight.clone() for weight in weights]

    weights, sets = [torch.randn(40, 50), torch.randn(7)], WeightSets()
    for place in (0, 3, 777, 1234, 1999):
        sets.constants(0, Copies(), weights)
        weights[0].data.view(-1)[place] += 1.0
        seen = [torch.equal(sets.constants(0, Copies(), weights)[0], weights[0]) for _ in range(32)]
        assert seen[-1], f"element {place}"


def test_instances_of_one_class_keep_their_own_weights(networks):
    compiled = [torch.compile(net, backend="fastdiff") for net in (*networks, copy.deepcopy(networks[1]))]
    with torch.no_grad():
        for _ in range(3):
            for k in (0, 1, 2):
                assert_equal(compiled[k](X, T), networks[min(k, 1)](X, T))


def test_instances_that_exchange_their_weights(networks):
    first, second = (copy.deepcopy(net) for net in networks)
    compiled = [torch.compile(net, backend="fastdiff") for net in (first, second)]
    with torch.no_grad():
        before = [net(X, T) for net in compiled]
        for p, q in zip(first.parameters(), second.parameters(), strict=True):
            p.data, q.data = q.data, p.data
        for net, twin, old in zip(compiled, (first, second), reversed(before), strict=True):
            assert_equal(net(X, T), twin(X, T))
            assert_equal(net(X, T), old)


def test_threads_at_once_and_outputs_that_nobody_overwrites(networks):
    net = networks[0]
    compiled = torch.compile(net, backend="fastdiff")
    inputs = [torch.randn(2, 3, 8, 8) for _ in range(2)]
    with torch.no_grad():
        wanted = [net(x, T) for x in inputs]
        compiled(inputs[0], T)
    results = [[], []]

    def run(k):
        with torch.no_grad():
            results[k] += [compiled(inputs[k], T) for _ in range(10)]

    threads = [Thread(target=run, args=(k,)) for k in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for k in range(2):
        for result in results[k]:
            assert_equal(result, wanted[k])


def test_packs_of_few_sets_are_kept_and_refresh_drops_them():
    class Counting:
        folds = []

        def compute(self, weights, known):
            return [weights[0].clone()]

    sets = WeightSets()
    weights = [[torch.full((64,), float(k))] for k in range(5)]
    for k in (0, 1, 2, 3, 4, 0, 4):
        assert sets.constants(0, Counting(), weights[k])[0][0] == k
    assert len(sets._sets) == 3
    sets.refresh({w[0].data_ptr() for w in weights})
    assert len(sets._sets) == 0


@pytest.mark.skipif(bool(extension.MISSING), reason="the C++ backend is not here")
def test_an_extension_of_other_sources_is_told(monkeypatch):
    monkeypatch.setattr(watched, "_ROWS", watched._ROWS - 1)
    with pytest.raises(RuntimeError, match=r"older than this package, .*state must be.*: install again"):
        WeightSets().constants(0, None, [torch.zeros(3)])


def noted(weights):
    state = torch.zeros((watched._ROWS, len(weights)), dtype=torch.int64)
    shares = torch.zeros(watched._SHARES, dtype=torch.int64)
    torch.ops.fastdiff.note_weights(state, shares, weights)
    return lambda turn: torch.ops.fastdiff.weights_changed(state, shares, turn)


@pytest.mark.skipif(bool(extension.MISSING), reason="the C++ backend is not here")
@pytest.mark.parametrize("sizes", [[1], [0, 3, 0, 64, 127, 0], [65, 1, 5000, 63, 256, 0, 700_001, 257]])
def test_one_share_in_32_has_any_byte_and_every_share_a_dense_edit(sizes):
    weights = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
    changed = noted(weights)
    assert not any(changed(turn) for turn in range(64))
    for weight in weights:
        for at in {0, 1, 63, 64, len(weight) // 2, len(weight) - 65, len(weight) - 1} & set(
            range(len(weight))
        ):
            weight[at] = 7
            assert any(changed(turn) for turn in range(5, 37)), at
            weight[at] = 0
        if len(weight):
            weight.fill_(1)
            assert all(changed(turn) for turn in range(32))
            weight.fill_(0)
    assert not any(changed(turn) for turn in range(32))


@pytest.mark.skipif(bool(extension.MISSING), reason="the C++ backend is not here")
def test_a_look_at_weights_has_a_number():
    with pytest.raises(RuntimeError, match="weights_changed: turn must not be negative, got -1"):
        noted([torch.zeros(3)])(-1)


@pytest.mark.skipif(bool(extension.MISSING), reason="the C++ backend is not here")
@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_look_at_weights_reads_nothing_that_was_not_noted(row):
    state, shares = (torch.zeros(size, dtype=torch.int64) for size in ((watched._ROWS, 1), watched._SHARES))
    torch.ops.fastdiff.note_weights(state, shares, [torch.zeros(3)])
    state[row] += 4096
    with pytest.raises(RuntimeError, match="weights_changed: state must be what note_weights wrote"):
        torch.ops.fastdiff.weights_changed(state, shares, 0)


def test_refresh_takes_modules_only():
    with pytest.raises(TypeError, match="refresh: net must be a module, got int"):
        fastdiff.refresh(3)


def test_gradients_run_in_eager_torch_and_are_right(networks, caplog):
    net = copy.deepcopy(networks[0])
    compiled = torch.compile(net, backend="fastdiff")
    for _ in range(2):
        compiled(X, T).square().sum().backward()
    got = net.first.weight.grad.clone()
    net.zero_grad()
    for _ in range(2):
        net(X, T).square().sum().backward()
    torch.testing.assert_close(got, net.first.weight.grad)
    assert [r.message for r in caplog.records if r.name == "fastdiff.engine"] == [
        "fastdiff: gradients are wanted: this call runs in eager torch"
    ]


def test_train_mode_draws_what_eager_draws_and_says_so(networks, caplog):
    net = copy.deepcopy(networks[0]).train()
    compiled = torch.compile(net, backend="fastdiff")
    with torch.no_grad():
        results = []
        for function in (compiled, compiled, net):
            torch.manual_seed(0)
            results.append(function(X, T))
    assert torch.equal(results[0], results[2]) and torch.equal(results[1], results[2])
    assert len([r for r in caplog.records if "train mode" in r.message]) == 1


class Mutating(nn.Module):
    def forward(self, x, t):
        t *= 1000
        y = torch.relu(x) + t[:, None, None, None]
        y[:, 0] = 1.0
        return y


def test_writes_to_inputs_are_kept(caplog):
    net = Mutating()
    compiled = torch.compile(net, backend="fastdiff")
    for _ in range(2):
        ours, theirs = T.clone(), T.clone()
        with torch.no_grad():
            assert_equal(compiled(X, ours), net(X, theirs))
        assert torch.equal(ours, theirs)
    assert len([r for r in caplog.records if "writes to memory" in r.message]) == 1


class Aliasing(nn.Module):
    """In-place operations in the middle, some of which views can see."""

    def forward(self, x, t):
        a = x * 2
        view = a[:, 1:]
        a.add_(1.0)
        b = x.sin()
        b.mul_(3.0).sigmoid_()
        b.clamp_(0.3, 0.9)
        return torch.cat([view, b, x.clone().copy_(b)], dim=1)


def test_writes_inside_a_network_that_views_can_see():
    net = Aliasing()
    with torch.no_grad():
        assert_equal(torch.compile(net, backend="fastdiff")(X, T), net(X, T))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float8"}, "precision must be one of 'float32', got 'float8'"),
        ({"memory": "none"}, "memory must be one of 'default', 'low', got 'none'"),
        ({"speed": 3}, "an option must be one of precision, winograd, memory, inductor, got 'speed'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        fastdiff.engine.backend(None, [], options=options)
