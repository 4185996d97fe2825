"""Key files: what was made is found, what was destroyed is not, in any order and process."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidelight.logger._key_eraser import KeyEraser
from sidelight.logger._key_reader import KeyReader
from sidelight.logger._key_ring import KeyRing, KeySource
from sidelight.logger._key_slots import NEVER_KEPT, request_digest
from sidelight.logger._key_writer import KeyWriter
from sidelight.logger._sealed_since import note_sealed, note_unsealed, sealed_since
from sidelight.logger.errors import SealingKeyError

_OWN = KeySource()


def _digest(number: int) -> bytes:
    return request_digest(b"k" * 32, "prod/flights", str(number))


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.lists(st.integers(0, 9), min_size=1, max_size=5)),
        st.tuples(st.just("erase"), st.lists(st.integers(0, 9), min_size=1, max_size=2)),
        st.tuples(st.just("restart"), st.just([])),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_steps)
def test_each_key_is_found_until_its_request_is_erased(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    data = tmp_path_factory.mktemp("data")
    writer = KeyWriter(data, _OWN, slots=3)
    reader = KeyReader(data)
    made: dict[int, tuple[int, bytes]] = {}
    erased: set[int] = set()
    for step, requests in steps:
        if step == "make":
            for request, (number, key) in zip(
                requests, writer.make([_digest(of) for of in requests]), strict=True
            ):
                assert (number == NEVER_KEPT) == (request in erased)
                if number != NEVER_KEPT:
                    made[number] = request, key
        elif step == "erase":
            eraser = KeyEraser(data)
            numbers = eraser.close_requests({_digest(of) for of in requests})
            assert set(numbers) == {of for of, (request, _) in made.items() if request in requests}
            eraser.destroy(numbers)
            erased |= set(requests)
            made = {of: item for of, item in made.items() if item[0] not in requests}
            reader.refresh()
            assert all(reader.find([number]) is None for number in numbers)
        else:
            writer.close()
            writer = KeyWriter(data, _OWN, slots=3)
        for number, (_, key) in made.items():
            assert reader.find([number]) == [key]
    reader.close()
    writer.close()


def test_keys_stand_nowhere_in_the_folder(tmp_path: Path) -> None:
    writer = KeyWriter(tmp_path, _OWN)
    keys = [key for _, key in writer.make([_digest(1), _digest(2)])]
    writer.close()
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert not any(key in files for key in keys)


def test_former_files_do_not_open_what_was_destroyed(tmp_path: Path) -> None:
    writer = KeyWriter(tmp_path, _OWN)
    (number, key), (kept, other) = writer.make([_digest(1), _digest(2)])
    before = {path: path.read_bytes() for path in (tmp_path / "keys").glob("*.keys")}
    eraser = KeyEraser(tmp_path)
    eraser.destroy(eraser.close_requests({_digest(1)}))
    for path, content in before.items():
        path.write_bytes(content)
    reader = KeyReader(tmp_path)

    assert reader.find([number]) is None
    assert reader.find([kept]) == [other]
    assert key != other
    reader.close()
    writer.close()


def test_erasure_that_was_killed_before_the_ring_is_done_when_it_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = KeyWriter(tmp_path, _OWN)
    ((number, _), (kept, key)) = writer.make([_digest(1), _digest(2)])
    eraser = KeyEraser(tmp_path)
    numbers = eraser.close_requests({_digest(1)})
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(KeyRing, "store", killed)
        with pytest.raises(KeyboardInterrupt):
            eraser.destroy(numbers)
    again = KeyEraser(tmp_path)
    assert again.close_requests({_digest(1)}) == [number]
    again.destroy([number])
    reader = KeyReader(tmp_path)

    assert reader.find([number]) is None
    assert reader.find([kept]) == [key]
    assert not list((tmp_path / "keys").glob("*.new"))
    assert len(list((tmp_path / "keys").glob("*.keys"))) == 1
    reader.close()
    writer.close()


def test_half_written_digest_of_a_killed_erasure_is_written_over(tmp_path: Path) -> None:
    writer = KeyWriter(tmp_path, _OWN)
    eraser = KeyEraser(tmp_path)
    eraser.close_requests({_digest(1)})
    with (tmp_path / "keys" / "erased").open("ab") as file:
        file.write(b"half")
    eraser.close_requests({_digest(2)})

    numbers = [number for number, _ in writer.make([_digest(1), _digest(2), _digest(3)])]
    assert numbers[:2] == [NEVER_KEPT, NEVER_KEPT]
    assert numbers[2] != NEVER_KEPT
    writer.close()


def test_wrapping_key_can_be_changed_and_the_former_one_opens_nothing_then(tmp_path: Path) -> None:
    former, new = tmp_path / "former", tmp_path / "new"
    former.write_text("ab" * 32)
    new.write_text("cd" * 32 + "\n")
    data = tmp_path / "data"
    writer = KeyWriter(data, KeySource(file=str(former)))
    ((number, key),) = writer.make([_digest(1)])
    writer.close()
    KeyWriter(data, KeySource(file=str(new))).close()
    former.unlink()
    reader = KeyReader(data)

    assert reader.find([number]) == [key]
    reader.close()
    new.write_text("ab" * 32)
    with pytest.raises(SealingKeyError, match="another one"):
        KeyReader(data).refresh()


def test_missing_wrapping_key_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SealingKeyError, match="SIDELIGHT_TEST_KEY, got nothing"):
        KeyWriter(tmp_path, KeySource(env="SIDELIGHT_TEST_KEY"))


def test_ring_that_was_changed_is_damage(tmp_path: Path) -> None:
    KeyWriter(tmp_path, _OWN).close()
    (tmp_path / "keys" / "ring").write_bytes(b"{}")

    with pytest.raises(SealingKeyError, match="keys/ring"):
        KeyReader(tmp_path).refresh()


def test_lost_key_file_hides_its_keys_and_no_others(tmp_path: Path) -> None:
    writer = KeyWriter(tmp_path, _OWN, slots=1)
    (one, key), (lost, _) = (*writer.make([_digest(1)]), *writer.make([_digest(2)]))
    writer.close()
    next(path for path in (tmp_path / "keys").glob(f"{lost >> 24:010x}-*")).unlink()
    reader = KeyReader(tmp_path)

    assert reader.find([one]) == [key]
    assert reader.find([lost]) is None
    reader.close()


def test_time_from_which_on_events_are_sealed_stays_while_they_are(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    note_sealed(tmp_path, ["a/b", "c/d"], 5)
    note_sealed(tmp_path, ["a/b"], 7)
    note_sealed(tmp_path, ["a/b", "c/d"], 9)

    assert sealed_since(tmp_path) == {"a/b": 5, "c/d": 9}
    note_unsealed(tmp_path)
    assert sealed_since(tmp_path) == {}
