"""Multigrid plans: shapes, places in the order, rates, and that any position is found again."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from loaders.multigrid import (
    BatchNormSplit,
    BatchShape,
    Phase,
    ShapePlan,
    batch_norm_split,
    constant_plan,
    evaluation_epochs,
    srtg_batches_per_epoch,
    srtg_plan,
    wu_plan,
    wu_stages,
)

BASE = BatchShape(16, 32, 224, 224, (256, 320), (2, 2))


def _wu(base: BatchShape = BASE, **options) -> ShapePlan:
    return wu_plan(base, **{"num_items": 10_000, "epochs": 40, "lr_steps": (20, 30), **options})


PLANS = {
    "wu": _wu(),
    "wu, reference": _wu(reference=True),
    "wu, long": _wu(short=False),
    "wu, short": _wu(long=False),
    "wu, the last batch too": _wu(num_items=9_999, drop_last=False),
    "wu, warmed up": _wu(warmup_epochs=3.5, warmup_start=0.1),
    "wide": _wu(BatchShape(4, 16, 112, 200, (128, 160), (1, 4))),
    "srtg": srtg_plan(BASE, num_items=10_000, epochs=3, lr_steps=(2,)),
    "srtg, reference": srtg_plan(BASE, num_items=10_000, epochs=3, reference=True),
    "srtg, long": srtg_plan(BASE, num_items=10_000, epochs=2, short=False),
    "srtg, short": srtg_plan(BASE, num_items=10_000, epochs=2, long=False),
    "constant": constant_plan(BASE, num_items=1_000, epochs=2),
}
plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


# Every plan


@plans
def test_batches_follow_each_other_in_the_order(plan):
    for epoch in {0, plan.num_epochs // 2, plan.num_epochs - 1}:
        position = 0
        for batch in range(plan.num_batches(epoch)):
            at = plan.at(epoch, batch)
            assert (at.epoch, at.batch, at.start) == (epoch, batch, position)
            assert at.shape == plan.shape_at(epoch, batch) and 1 <= at.num_clips <= at.shape.num_clips
            position += at.num_clips
        if not plan.wraps:
            assert position <= plan.num_items


@plans
def test_a_position_is_found_again_from_its_place_or_its_step(plan):
    rng = np.random.default_rng(0)
    for _ in range(100):
        epoch = int(rng.integers(plan.num_epochs))
        batch = int(rng.integers(plan.num_batches(epoch)))
        at = plan.at(epoch, batch)
        assert plan.batch_of(epoch, at.start) == batch
        assert plan.batch_of(epoch, at.start + at.shape.num_clips - 1) == batch
        assert plan.at_step(plan.step_of(epoch, batch)) == at


@plans
def test_all_steps_are_all_batches_of_all_epochs(plan):
    assert plan.num_steps == sum(plan.num_batches(epoch) for epoch in range(plan.num_epochs))
    last = plan.at_step(plan.num_steps - 1)
    assert (last.epoch, last.batch) == (plan.num_epochs - 1, plan.num_batches(plan.num_epochs - 1) - 1)


@plans
def test_outside_the_plan_is_an_error_that_says_what_there_is(plan):
    with pytest.raises(
        IndexError, match=f"epoch {plan.num_epochs} is none of the plan's: .* 0 to {plan.num_epochs - 1}"
    ):
        plan.shape_at(plan.num_epochs, 0)
    with pytest.raises(IndexError, match=f"batches 0 to {plan.num_batches(0) - 1}, not {plan.num_batches(0)}"):
        plan.at(0, plan.num_batches(0))
    for step in (-1, plan.num_steps):
        with pytest.raises(IndexError, match=f"step {step} is none"):
            plan.at_step(step)


@plans
def test_crops_fit_into_the_short_side_and_frames_into_the_base(plan):
    for shape in {shape for phase in plan.phases for shape in phase.cycle}:
        assert min(shape.height, shape.width) <= shape.short_side[0] <= shape.short_side[1]
        assert shape.num_frames <= 32 and shape.intervals[0] <= shape.intervals[1]


@plans
def test_a_plan_can_be_printed_compared_and_sent_to_a_process(plan):
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert str(plan).startswith("epochs 0 to ") and str(plan.phases[-1].cycle[-1]) in str(plan)


@pytest.mark.parametrize("name", ["wu", "wu, reference", "wu, long", "wu, short", "wide", "srtg", "srtg, long"])
def test_the_work_per_batch_stays_about_the_same(name):
    voxels = [shape.num_voxels for phase in PLANS[name].phases for shape in phase.cycle]
    assert max(voxels) / min(voxels) < 1.08


@plans
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_a_batch_without_gaps(plan, world_size):
    for batch in (0, plan.num_batches(0) - 1):
        at = plan.at(0, batch)
        parts = [at.places(rank, world_size) for rank in range(world_size)]
        assert [*itertools.chain(*parts)] == [*range(at.start, at.start + at.num_clips)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match="rank is 2; with a world_size of 2 it is 0 to 1"):
        plan.at(0, 0).places(2, 2)


# Wu et al.


def test_the_long_cycle_runs_once_per_stage_of_the_rate():
    stages = wu_stages(BASE, epochs=40, lr_steps=(20, 30))
    assert [(stage.factor, stage.num_frames, stage.height) for stage in stages[:4]] == [
        (8, 8, 158),
        (4, 16, 158),
        (2, 16, 224),
        (1, 32, 224),
    ]
    assert [stage.lr_stage for stage in stages] == [0] * 4 + [1] * 4 + [2]
    assert stages[-1].factor == 1 and stages[-1].end == 60  # 1.5 times 40
    ends = [stage.end for stage in stages]
    assert ends == sorted(ends)


def test_long_stages_have_equally_many_iterations():
    # Large enough for the rounding to whole epochs not to matter.
    plan = wu_plan(BASE, num_items=10**6, epochs=4000, lr_steps=(2000, 3000))
    steps = [(phase.end - phase.first) * phase.num_batches for phase in plan.phases]
    np.testing.assert_allclose(steps[:4], steps[0], rtol=0.01)
    np.testing.assert_allclose(steps[4:8], steps[0] / 2, rtol=0.01)


def test_the_rate_follows_the_long_cycle_s_batch():
    plan = _wu(lr_factors=(1, 0.5, 0.2))
    np.testing.assert_allclose([phase.rates[0] for phase in plan.phases], [8, 4, 2, 1, 4, 2, 1, 0.5, 0.5, 0.2])
    *_, before, last = plan.phases
    assert before.stage == last.stage and before.cycle == last.cycle  # one stage, its first half at the rate before
    first, end = before.first, last.end
    assert last.first == (first + end) // 2


def test_the_default_rate_drops_by_tenths():
    np.testing.assert_allclose([phase.rates[0] for phase in _wu(long=False).phases], [1, 0.1, 0.01])
    with pytest.raises(ValueError, match="1 lr_factors are too few: 2 drops make 3 stages"):
        _wu(lr_factors=(1,))


def test_the_short_cycle_keeps_its_fractions_of_the_long_shape():
    cycle = _wu().phases[0].cycle
    assert [(shape.num_clips, shape.height) for shape in cycle] == [(512, 80), (256, 112), (128, 158)]
    assert [(shape.num_clips, shape.height) for shape in _wu().phases[3].cycle] == [(64, 112), (32, 158), (16, 224)]
    assert {shape.num_frames for shape in cycle} == {8}


def test_the_reference_s_short_cycle_collapses_while_the_side_is_reduced():
    cycle = _wu(reference=True).phases[0].cycle
    assert [(shape.num_clips, shape.height) for shape in cycle] == [(256, 112), (128, 158), (128, 158)]
    assert _wu(reference=True).phases[3].cycle == _wu().phases[3].cycle


def test_shorter_clips_may_skip_more_frames():
    assert [phase.cycle[0].intervals for phase in _wu().phases[:4]] == [(2, 8), (2, 4), (2, 4), (2, 2)]
    assert _wu().phases[1].cycle[0].interval_choices == (2, 3, 4)
    wide = BatchShape(4, 16, 112, 200, (128, 160), (1, 4))
    assert _wu(wide).phases[0].cycle[0].intervals == (1, 16)


def test_the_smallest_short_side_shrinks_with_the_crop():
    assert [shape.short_side for shape in _wu().phases[3].cycle] == [(128, 320), (181, 320), (256, 320)]


def test_sides_that_differ_shrink_alike():
    cycle = _wu(BatchShape(4, 16, 112, 200, (128, 160), (1, 4))).phases[0].cycle
    assert [(shape.height, shape.width) for shape in cycle] == [(40, 70), (56, 100), (79, 141)]
    assert [shape.num_clips for shape in cycle] == [128, 64, 32]


def test_epochs_end_with_the_data():
    full, whole = _wu(num_items=1000, long=False), _wu(num_items=1000, long=False, drop_last=False)
    # A round takes 64 + 32 + 16 = 112 clips: 8 rounds, then 104 more make batches of 64 and 32, and 8 clips are left.
    assert full.num_batches(0) == 8 * 3 + 2 and whole.num_batches(0) == 8 * 3 + 3
    assert full.at(0, 25).start + full.at(0, 25).num_clips == 992
    assert (whole.at(0, 26).start, whole.at(0, 26).num_clips) == (992, 8)


def test_the_short_cycle_alone_stretches_the_epochs():
    plan = _wu(long=False)
    assert [(phase.first, phase.end) for phase in plan.phases] == [(0, 30), (30, 45), (45, 60)]
    assert _wu(long=False, short=False).num_epochs == 40


def test_the_warm_up_is_linear_in_fractional_epochs():
    plan = _wu(warmup_epochs=4, warmup_start=0.1)
    assert plan.lr_factor_at(0, 0) == pytest.approx(0.1) and plan.lr_factor(2) == pytest.approx(0.1 + 7.9 / 2)
    assert plan.lr_factor(4) == plan.lr_factor_at(4, 0) == 8
    half = plan.num_batches(1) // 2
    assert plan.lr_factor_at(1, half) == pytest.approx(plan.lr_factor(1 + half / plan.num_batches(1)))


def test_evaluation_about_three_times_a_stage_and_always_at_its_end():
    plan = _wu()
    epochs = evaluation_epochs(plan)
    ends = {phase.end - 1 for phase in plan.phases if phase is not plan.phases[-2]}
    assert ends <= set(epochs) and epochs == sorted(set(epochs))
    for stage, phases in itertools.groupby(plan.phases, key=lambda phase: phase.stage):
        spans = list(phases)
        inside = [epoch for epoch in epochs if spans[0].first <= epoch < spans[-1].end]
        assert 1 <= len(inside) <= 3, stage


def test_a_long_cycle_needs_drops_of_the_rate():
    for steps in ((), (30, 20), (20, 40)):
        with pytest.raises(ValueError, match="a long cycle needs drops of the rate"):
            _wu(lr_steps=steps)


def test_too_few_clips_are_an_error():
    with pytest.raises(ValueError, match="100 clips do not fill a batch of 512"):
        _wu(num_items=100)


# SRTG


def test_srtg_counts_its_batches_as_published():
    assert srtg_batches_per_epoch(500_000, 48) == 592
    assert srtg_batches_per_epoch(500_000, 32) == 892
    assert srtg_batches_per_epoch(9_537, 32, long=False, short=False) == 298
    assert srtg_batches_per_epoch(60, 1) == 3
    with pytest.raises(ValueError, match=r"59 clips are too few .* at least 60"):
        srtg_batches_per_epoch(59, 1)
    assert srtg_batches_per_epoch(15, 1, short=False) == 3
    with pytest.raises(ValueError, match="at least 15"):
        srtg_batches_per_epoch(14, 1, short=False)


def test_srtg_runs_the_long_cycle_in_every_epoch():
    plan = srtg_plan(BASE, num_items=10_000, epochs=3, short=False)
    n = plan.num_batches(0)
    shapes = [plan.shape_at(2, i) for i in (0, n // 4, n // 2, 3 * n // 4)]
    assert [(s.num_clips, s.num_frames, s.height) for s in shapes] == [
        (128, 8, 158),
        (64, 16, 158),
        (32, 16, 224),
        (16, 32, 224),
    ]
    assert [plan.lr_factor_at(2, i) for i in (0, n // 4, n // 2, 3 * n // 4, n - 1)] == [1, 0.5, 0.25, 0.125, 0.125]
    assert {shape.intervals for shape in shapes} == {(2, 2)}


def test_srtg_s_short_cycle_halves_what_the_quarter_has():
    plan = srtg_plan(BASE, num_items=100_000, epochs=1)
    assert [(s.num_clips, s.height) for s in (plan.shape_at(0, i) for i in range(3))] == [
        (128, 158),
        (256, 112),
        (512, 80),
    ]


def test_srtg_keeps_the_field_of_view():
    plan = srtg_plan(BASE, num_items=100_000, epochs=1)
    for shape in plan.phases[0].cycle:
        low, high = shape.short_side
        assert low / shape.height == pytest.approx(256 / 224, rel=0.01)
        assert high / shape.height == pytest.approx(320 / 224, rel=0.01)


def test_srtg_s_rate_drops_between_epochs():
    plan = srtg_plan(BASE, num_items=10_000, epochs=3, lr_steps=(2, 7), gamma=0.5, long=False)
    assert [plan.lr_factor_at(epoch, 0) for epoch in range(3)] == [1, 1, 0.5]


def test_srtg_s_reference_is_a_batch_early_with_the_rate_and_late_with_the_shape():
    plan = srtg_plan(BASE, num_items=10_000, epochs=1)
    reference = srtg_plan(BASE, num_items=10_000, epochs=1, reference=True)
    n = plan.num_batches(0)
    assert reference.num_batches(0) == n
    assert [reference.lr_factor_at(0, i) for i in range(n)] == [plan.lr_factor_at(0, (i + 1) % n) for i in range(n)]
    differ = [i for i in range(n) if reference.shape_at(0, i) != plan.shape_at(0, i)]
    quarters = (n // 4, n // 2, 3 * n // 4)
    assert all(any(edge <= i < edge + 3 for edge in quarters) for i in differ)
    with pytest.raises(ValueError, match="cannot run the short cycle without the long one"):
        srtg_plan(BASE, num_items=10_000, epochs=1, long=False, reference=True)


def test_srtg_without_cycles_is_constant_but_for_the_reference_s_rate():
    options = {"num_items": 1_600, "epochs": 1, "long": False, "short": False}
    assert [srtg_plan(BASE, **options).at(0, i).lr_factor for i in (0, 99)] == [1, 1]
    reference = srtg_plan(BASE, **options, reference=True)
    assert set(reference.phases[0].cycle) == {BASE}
    assert [reference.lr_factor_at(0, i) for i in (0, 24, 98, 99)] == [1, 0.5, 0.125, 1]


# Parts


def test_batch_norm_keeps_its_clips():
    assert batch_norm_split(8) == BatchNormSplit("plain", 1)
    assert batch_norm_split(64) == BatchNormSplit("sub", 8)
    assert batch_norm_split(2) == BatchNormSplit("sync", 4)
    assert batch_norm_split(12) == BatchNormSplit("sub", 1)
    assert batch_norm_split(64, base_clips=32) == BatchNormSplit("sub", 2)


def test_shapes_and_phases_say_what_is_wrong():
    with pytest.raises(ValueError, match="0 x 8 x 8 x 8"):
        BatchShape(0, 8, 8, 8, (8, 8))
    with pytest.raises(ValueError, match=r"intervals are \(3, 2\)"):
        BatchShape(1, 8, 8, 8, (8, 8), (3, 2))
    with pytest.raises(ValueError, match=r"short_side is \(7, 9\).* crop of 8x9 px"):
        BatchShape(1, 8, 8, 9, (7, 9))
    with pytest.raises(ValueError, match="has no epoch"):
        Phase(0, 3, 3, (BASE,), (1.0,), 1)
    with pytest.raises(ValueError, match="2 rates do not go with a cycle of 1 shapes"):
        Phase(0, 0, 1, (BASE,), (1.0, 2.0), 1)
    with pytest.raises(ValueError, match=r"the phases begin at \[1\]"):
        ShapePlan((Phase(0, 1, 2, (BASE,), (1.0,), 1),), 100)
    with pytest.raises(ValueError, match="at least one phase"):
        ShapePlan((), 100)


def test_a_printed_plan_reads_as_a_table():
    assert str(constant_plan(BASE, num_items=100, epochs=2)).splitlines() == [
        "epochs 0 to 1, 6 batches each",
        "    16 x 32 x 224 x 224, every 2, rate x 1",
    ]
