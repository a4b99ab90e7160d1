"""The queue between reader and consumer: order, bounds, and what is left of what was dropped."""

import threading

import numpy as np
import pytest

from firmware_bridge import EpochChanged, Gap, LinkDown, LinkUp, SampleBlock, Schema
from firmware_bridge.link.item_queue import ItemQueue

SCHEMA = Schema.unnamed(1)
UP = LinkUp(0.0, "port", SCHEMA)
DOWN = LinkDown(0.0, "gone")


def block(first, n=1):
    seq = np.arange(first, first + n)
    return SampleBlock(seq / 100, seq, np.zeros((n, 1), np.float32), 0.0)


def drain(queue):
    items = []
    while (item := queue.get(0)) is not None:
        items.append(item)
    return items


def test_items_come_in_order():
    queue = ItemQueue(100)
    items = [UP, block(0, 3), Gap(0.0, 2), block(5)]
    queue.put(items[:2])
    queue.put(items[2:])
    assert drain(queue) == items


def test_the_oldest_samples_go_and_a_gap_stands_in_their_place():
    queue = ItemQueue(5)
    queue.put([UP])
    for i in range(12):
        queue.put([block(i)])
    up, gap, *blocks = drain(queue)
    assert up == UP
    assert gap.n_missing == queue.overrun_samples == 7
    assert [int(b.seq[0]) for b in blocks] == [7, 8, 9, 10, 11]


def test_gaps_on_the_way_and_dropped_samples_add_up():
    queue = ItemQueue(3)
    queue.put([block(0, 2), Gap(0.0, 4), block(6), block(7), block(8), block(9)])
    gap, *blocks = drain(queue)
    assert gap == Gap(gap.t_s, 7)
    assert [int(b.seq[0]) for b in blocks] == [7, 8, 9]


def test_events_that_still_matter_outlive_the_samples_around_them():
    queue = ItemQueue(1)
    epoch = EpochChanged(1.0, 4, "restarted")
    queue.put([UP, block(0), DOWN, UP, block(1), epoch, block(0), block(1)])
    assert [type(i) for i in drain(queue)] == [LinkUp, EpochChanged, Gap, SampleBlock]


def test_a_gap_behind_dropped_samples_joins_theirs():
    queue = ItemQueue(3)
    queue.put([block(0), Gap(0.0, 2), block(3), block(4), block(5)])
    gap, *blocks = drain(queue)
    assert gap.n_missing == 3
    assert [int(b.seq[0]) for b in blocks] == [3, 4, 5]


def test_nothing_before_a_link_up_counts_any_more():
    queue = ItemQueue(1)
    epoch = EpochChanged(1.0, 4, "restarted")
    last = block(1)
    queue.put([UP, block(0, 5), epoch, block(0, 5), DOWN, UP, block(0), last])
    assert drain(queue) == [UP, Gap(0.0, 1), last]
    assert queue.overrun_samples == 11


def test_a_flapping_link_does_not_fill_the_memory():
    queue = ItemQueue(10)
    for _ in range(10_000):
        queue.put([DOWN, UP, Gap(0.0, 1)])
    assert len(queue._items) < 300
    items = drain(queue)
    assert items[-1] == Gap(0.0, 1)
    assert queue._n_events == queue._n_samples == 0


def test_close_ends_it_after_what_is_queued():
    queue = ItemQueue(10)
    queue.put([UP])
    queue.close(ValueError("wrong"))
    queue.close()
    assert not queue.is_drained
    assert queue.get(0) == UP
    with pytest.raises(ValueError, match="wrong"):
        queue.get(0)
    assert queue.is_drained
    assert queue.get(0) is None


def test_a_waiting_consumer_is_woken():
    queue = ItemQueue(10)
    got = []
    consumer = threading.Thread(target=lambda: got.append(queue.get(30)))
    consumer.start()
    queue.put([UP])
    consumer.join(30)
    assert got == [UP]
    consumer = threading.Thread(target=lambda: got.append(queue.get(30)))
    consumer.start()
    queue.close()
    consumer.join(30)
    assert got == [UP, None]


def test_nothing_within_the_time_is_none():
    assert ItemQueue(1).get(0.01) is None
