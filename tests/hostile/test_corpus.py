"""The fuzz targets hold for their seeds and for the corpus that fuzzing left. ``make fuzz`` goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_asherah import engine
from django_asherah.envelope.compact import decode_compact
from django_asherah.envelope.records import decode_row
from fuzz import targets, world

pytestmark = pytest.mark.usefixtures("vectors_keys")

CORPUS = Path(targets.__file__).parent / "corpus"
KEPT = [(name, path) for name in targets.TARGETS for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{name}-{path.name[:12]}" for name, path in KEPT])
def test_a_target_holds_for_what_was_kept(name: str, path: Path) -> None:
    targets.TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_holds_for_every_prefix_and_flipped_bit_of_its_seeds(name: str) -> None:
    for seed in targets.seeds(name)[:2]:
        for place in range(len(seed)):
            targets.TARGETS[name](seed[:place])
            for bit in range(8):
                targets.TARGETS[name](seed[:place] + bytes([seed[place] ^ 1 << bit]) + seed[place + 1 :])


def test_the_seeds_open() -> None:
    """A target that refused everything would hold, and prove nothing."""
    session = engine.get_session(world.PARTITION)
    assert {text: session.decrypt(text) for text in targets.RECORDS} == targets.RECORDS
    assert [decode_compact(blob, world.KEY_ID).data for blob in targets.COMPACT] == [
        decode_row(text).data for text in targets.RECORDS
    ]
    assert targets.AWS.decrypt_key(targets.WRAPPED) == world.SYSTEM_KEY
    documents = [text for text, payload in targets.RECORDS.items() if payload == b'{"a":[1,null,true]}']
    assert [targets.DOCUMENT.from_db_value(text, None, None) for text in documents] == [{"a": [1, None, True]}]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["session", "text_field", "pieces"])
def test_a_target_fails_on_a_plaintext_that_was_not_sealed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = targets.seeds(name)[1]
    targets.TARGETS[name](seed)
    monkeypatch.setattr(targets, "PLAINTEXTS", set())
    with pytest.raises(AssertionError):
        targets.TARGETS[name](seed)


def test_the_pieces_make_whole_records() -> None:
    texts = list(targets.RECORDS)[:4]
    assert [targets.put_together(seed) for seed in targets.seeds("pieces")] == texts
