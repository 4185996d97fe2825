"""Signed checkpoints: what was forged is found, by `verify` and by the next start."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._checkpoint import Checkpoint, SealedSegment
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_folder import (
    FOLDER_VERSION,
    folder_version,
)
from sidelight.logger._segments_signature import Signer, is_signed, read_public_key
from sidelight.logger._verify import verify
from sidelight.logger.errors import JournalDamaged, SigningKeyError


def _signer(folder: Path, name: str = "own", **options: Any) -> Signer:
    return Signer.load(folder / f"{name}.pem", create=True, **options)


def _write(data: Path, signer: Signer | None, *bodies: bytes) -> tuple[str, ...]:
    writer = SegmentWriter(data, signer=signer)
    for body in bodies:
        writer.write(b"head", body).result(60)
    writer.close()
    return writer.recovery.findings


def _forge(data: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the checkpoint as one does who knows its format, but not the key."""
    path = data / "raw" / "checkpoint.json"
    content = json.loads(path.read_bytes())
    del content["digest"]
    change(content)
    signature = {"signature": content.pop("signature")} if "signature" in content else {}
    text = json.dumps(content, sort_keys=True, indent=1).encode()
    whole = {**content, **signature, "digest": hashlib.sha256(text).hexdigest()}
    path.write_bytes(json.dumps(whole, sort_keys=True, indent=1).encode() + b"\n")


def test_a_signed_archive_is_right_for_who_holds_the_public_key(tmp_path: Path) -> None:
    signer, other = _signer(tmp_path), _signer(tmp_path, "other")
    data = tmp_path / "data"
    assert _write(data, signer, b"a", b"b") == ()
    assert verify(data).ok
    assert verify(data).key == signer.public_key
    assert verify(data, public_key=signer.public_key).ok
    (finding,) = verify(data, public_key=other.public_key).findings
    assert signer.public_key in finding
    assert other.public_key in finding
    assert folder_version(data) == FOLDER_VERSION


def test_a_later_start_with_the_same_key_goes_on_without_a_finding(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert _write(data, _signer(tmp_path), b"a") == ()
    assert _write(data, _signer(tmp_path), b"b") == ()
    assert verify(data).ok
    assert verify(data).records == 2


def test_an_unsigned_folder_becomes_a_signed_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert _write(data, None, b"a") == ()
    assert folder_version(data) == 1
    assert verify(data).ok
    assert verify(data).key == ""
    assert _write(data, _signer(tmp_path), b"b") == ()
    assert folder_version(data) == FOLDER_VERSION
    assert verify(data).ok
    assert verify(data).adopted == 1
    _write(data, _signer(tmp_path), b"c")
    assert (verify(data).adopted, verify(data).records) == (1, 3)


def test_signed_folder_that_is_made_an_old_one_says_that_nobody_vouches_for_it(
    tmp_path: Path,
) -> None:
    data, forged = tmp_path / "data", tmp_path / "forged"
    _write(data, _signer(tmp_path), b"a")
    assert verify(data).adopted == 0
    _write(forged, None, b"b")
    shutil.rmtree(data)
    forged.rename(data)
    _write(data, _signer(tmp_path), b"c")

    assert verify(data).adopted == 1


def _count_less(content: dict[str, Any]) -> None:
    content["segments"][-1]["records"] -= 1


def _strip(content: dict[str, Any]) -> None:
    del content["key"], content["signature"]


@pytest.mark.parametrize("change", [_count_less, _strip])
def test_a_forged_checkpoint_is_found_now_and_after_the_next_start(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    data, signer = tmp_path / "data", _signer(tmp_path)
    _write(data, signer, b"a", b"b")
    _forge(data, change)
    assert not verify(data).ok
    assert not verify(data, public_key=signer.public_key).ok
    assert _write(data, signer, b"c")
    # What was found stays on record: the signature must not vouch for it.
    assert not verify(data, public_key=signer.public_key).ok


def test_an_archive_written_anew_with_another_key_is_found(tmp_path: Path) -> None:
    signer, thief = _signer(tmp_path), _signer(tmp_path, "thief")
    data = tmp_path / "data"
    _write(data, thief, b"something else")
    assert verify(data).ok
    assert not verify(data, public_key=signer.public_key).ok
    (finding,) = _write(data, signer, b"c")
    assert thief.public_key in finding
    assert not verify(data, public_key=signer.public_key).ok


def test_a_key_may_be_changed_when_the_former_one_is_trusted(tmp_path: Path) -> None:
    former = _signer(tmp_path)
    data = tmp_path / "data"
    _write(data, former, b"a")
    new = _signer(tmp_path, "new", trusted=(former.public_key,))
    assert _write(data, new, b"b") == ()
    assert verify(data, public_key=new.public_key).ok


@given(st.binary(max_size=200), st.binary(max_size=70), st.text(max_size=140))
def test_what_is_no_signature_is_refused_without_an_error(
    text: bytes, key: bytes, signature: str
) -> None:
    assert not is_signed(text, public_key=key.hex(), signature=signature)


def test_a_signature_is_good_for_its_text_alone(tmp_path: Path) -> None:
    signer = _signer(tmp_path)
    signature = signer.sign(b"text")
    assert is_signed(b"text", public_key=signer.public_key, signature=signature)
    assert not is_signed(b"tex", public_key=signer.public_key, signature=signature)
    flipped = f"{int(signature, 16) ^ 1:0128x}"
    assert not is_signed(b"text", public_key=signer.public_key, signature=flipped)


def test_a_key_file_is_the_owners_alone_and_its_public_half_lies_beside_it(tmp_path: Path) -> None:
    signer = _signer(tmp_path)
    assert (tmp_path / "own.pem").stat().st_mode & 0o077 == 0
    assert read_public_key(str(tmp_path / "own.pub")) == signer.public_key
    assert read_public_key(signer.public_key.upper()) == signer.public_key


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_what_is_no_key_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pem"
    path.write_bytes(content)
    with pytest.raises(SigningKeyError, match="expected an Ed25519 key"):
        Signer.load(path)
    with pytest.raises(SigningKeyError):
        Signer.load(tmp_path / "missing.pem")
    with pytest.raises(SigningKeyError, match="64 hexadecimal digits"):
        read_public_key(str(path))


words = st.text(max_size=5) | st.sampled_from(['\n "segments": []', '"', "\\", "\x00", "é"])
numbers = st.integers(0, 1 << 62)
segments = st.builds(
    SealedSegment,
    name=words,
    bytes=numbers,
    records=numbers,
    first=numbers,
    digest=words,
    time_ns=numbers,
    damaged=st.booleans(),
    retired_ns=st.just(0) | numbers,
    why=words,
)


@given(
    listed=st.lists(segments, max_size=3),
    findings=st.lists(words, max_size=3),
    closed=st.booleans(),
    signed=st.booleans(),
)
def test_a_checkpoint_is_written_as_sorted_json(
    listed: list[SealedSegment], findings: list[str], *, closed: bool, signed: bool
) -> None:
    plain = Checkpoint(segments=tuple(listed), findings=tuple(findings), closed=closed)
    checkpoint = replace(plain, key="k", signature="s") if signed else plain
    written = checkpoint.encode()

    content = json.loads(written)
    assert written == json.dumps(content, sort_keys=True, indent=1).encode() + b"\n"
    assert content["findings"] == findings
    for segment, said in zip(listed, content["segments"], strict=True):
        fields = {name: getattr(segment, name) for name in said}
        assert said == fields
        assert ("why" in said) == ("retired_ns" in said) == segment.is_retired
    digest = content.pop("digest")
    content.pop("signature", None)
    text = json.dumps(content, sort_keys=True, indent=1).encode()
    assert digest == hashlib.sha256(text).hexdigest()
    if not signed:
        # Why one is retired is said of those that are.
        again = Checkpoint.decode(written)
        assert again.encode() == written


def test_another_kind_of_checkpoint_is_damaged(tmp_path: Path) -> None:
    signer = _signer(tmp_path)
    signed = Checkpoint().signed_by(signer)
    assert Checkpoint.decode(signed.encode()) == signed
    wrong = signed.encode().replace(signed.signature.encode(), b"0" * 128)
    with pytest.raises(JournalDamaged):
        Checkpoint.decode(wrong)
