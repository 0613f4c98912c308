"""Event files: their checksums, and what is kept of damaged ones."""

import random
from pathlib import Path

import pytest
from helpers import curves
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from ganrun.records import dashboard
from ganrun.records.dashboard import Dashboard
from ganrun.records.event_file import masked_crc, record, sound_records


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """An event file with the scalar `a` at steps 1 to 5."""
    board = Dashboard(tmp_path)
    for step in range(1, 6):
        board.scalars({"a": step}, step)
    board.close()
    return board.path


def rewound(path: Path) -> list[int]:
    """The steps that are left when a run resumes at step 4."""
    dashboard.rewind(path.parent, 4)
    return [step for step, _ in curves(path.parent).get("a", [])]


@pytest.mark.parametrize("length", [0, 1, 9, 255, 256, 2047, 2048, 2049, 5000])
def test_checksum_is_that_of_tensorboard(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert masked_crc(data) == masked_crc32c(data)


def test_sound_file_is_read_without_a_warning(events: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert rewound(events) == [1, 2, 3, 4]
    assert caplog.messages == []


@pytest.mark.parametrize("place", [0, 7, 8, 12, 30, -1])
def test_damaged_record_is_dropped_and_all_others_are_kept(
    place: int, events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bit of its length, of the checksum of the length, of its content, or of the checksum of the content."""
    records, _ = sound_records(events.read_bytes())
    second = bytearray(records[2])  # records[0] has the version of the format
    second[place] ^= 16
    events.write_bytes(b"".join([*records[:2], second, *records[3:]]))
    assert rewound(events) == [1, 3, 4]
    (message,) = caplog.messages
    assert message == f"{events}: {len(second)} bytes are damaged; the events in them are dropped."
    caplog.clear()
    assert rewound(events) == [1, 3, 4]
    assert caplog.messages == []


@pytest.mark.parametrize("number", [1, 3, 5])
def test_records_after_one_with_lost_or_added_bytes_are_kept(number: int, events: Path) -> None:
    records, _ = sound_records(events.read_bytes())
    whole = records[number]
    for changed in (whole[:20], whole[:20] + whole[25:], whole[:20] + b"added" + whole[20:]):
        data = b"".join([*records[:number], changed, *records[number + 1 :]])
        found, damaged = sound_records(data)
        assert found == [*records[:number], *records[number + 1 :]]
        assert damaged == (len(changed) if number < 5 or len(changed) > len(whole) else 0)


def test_evaluation_of_a_run_with_a_damaged_record_keeps_the_others(events: Path) -> None:
    data = bytearray(events.read_bytes())
    data[len(data) // 2] ^= 1
    events.write_bytes(data)
    dashboard.insert(events.parent, 3, lambda board: board.scalars({"b": 7.0}, 3))
    assert curves(events.parent)["b"] == [(3, 7.0)]
    assert len(curves(events.parent)["a"]) == 4


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x0a\xff"])
def test_record_that_is_no_event_does_not_prevent_a_resume(content: bytes, events: Path) -> None:
    events.write_bytes(record(content) + events.read_bytes() + record(content))
    assert rewound(events) == [1, 2, 3, 4]


def test_incomplete_last_record_of_a_killed_run_is_dropped_in_silence(
    events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = events.read_bytes()
    last = len(sound_records(whole)[0][-1])
    for cut in range(1, last):
        assert sum(map(len, sound_records(whole[:-cut])[0])) == len(whole) - last
        assert not sound_records(whole[:-cut])[1]


def test_lost_pages_are_dropped(events: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As after a power failure, when a file has its length, but zeros in place of its content."""
    events.write_bytes(events.read_bytes() + bytes(5000))
    assert rewound(events) == [1, 2, 3, 4]
    assert "5,000 bytes are damaged" in caplog.text


def test_each_event_file_of_a_process_has_its_own_name(tmp_path: Path) -> None:
    boards = [Dashboard(tmp_path) for _ in range(3)]
    for board in boards:
        board.close()
    assert len({board.path for board in boards}) == 3
