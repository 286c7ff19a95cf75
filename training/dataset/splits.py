"""Which part of every labelled set is for training and which for validation, in one table.

Sets of many sequences are split by sequence. A set of one volume or one video is split into two blocks with a
gap between them; both numbers of a block are array indices, end excluded.

==========================  ================================================================================
set                         validation part
==========================  ================================================================================
dsb2018_nuclei2d            44 of 222 images: whole groups of alike images (same size, kind, brightness of
                            nuclei and background, nucleus size), so that a plate is on one side
usiigaci_phase2d            4 of 17 fields; the fields do not overlap each other nor the T98G movie
t98g_phase_track            rows 314:512 (training 0:290); a cell may wander from one side to the other
fibsem_medulla_neurites3d   planes 120:150 (training 0:106); neurites run through both parts
arabidopsis_nuclei3d        planes 70:100 (training 0:66)
arabidopsis_cells3d         columns 76:128 (training 0:72)
mouse_embryo_nuclei3d       rows 0:45, 2 nuclei (training 48:120, 6 nuclei)
stardist_worm_nuclei3d      planes 19:31 (training 0:17)
sunnybrook_cine4d           patient SCD0000301 (training SCD0000101)
sct_spinal_cord3d           planes 34:55 (training 0:31); the same cord
davis2016_480p              car-shadow, libby
==========================  ================================================================================

Of the sets marked `drop_shared`, an object that reaches into the validation block is no training object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from training.dataset.labelled_sets import Sequence, compact_labels, load_sets

Part = Literal["training", "validation"]


@dataclass(frozen=True)
class Blocks:
    """Two disjoint blocks of one volume along an axis of (T, H, W)."""

    axis: int
    training: tuple[int, int]
    validation: tuple[int, int]
    drop_shared: bool = False


BLOCKS: dict[str, Blocks] = {
    "t98g_phase_track": Blocks(1, (0, 290), (314, 512)),
    "fibsem_medulla_neurites3d": Blocks(0, (0, 106), (120, 150)),
    "arabidopsis_nuclei3d": Blocks(0, (0, 66), (70, 100), drop_shared=True),
    "arabidopsis_cells3d": Blocks(2, (0, 72), (76, 128), drop_shared=True),
    "mouse_embryo_nuclei3d": Blocks(1, (48, 120), (0, 45), drop_shared=True),
    "stardist_worm_nuclei3d": Blocks(0, (0, 17), (19, 31), drop_shared=True),
    "sct_spinal_cord3d": Blocks(0, (0, 31), (34, 55)),
}

_NUCLEI = (
    # 256 x 256 fluorescence: three groups
    "08ae27 1c2f9e 1e61ec 3a508d 3b9572 66612c 75120b 751f42 84eeec 886789 8ecdb9 b67a6e d7fc0d e4fc93 "
    "eb96fc ec031f 2dd9d8 387475 c04fa1 df33b1 648636 68f833 "
    # 256 x 320 stained tissue: two groups
    "4d14a3 65c852 f952cc 7798ca a5fe0b abd8dd b0e35e b909aa be771d c0152b "
    # 1024 x 1024 brightfield, 520 x 696, 512 x 640 and 603 x 1272 fluorescence
    "4e07a6 07fb37 547ef2 7f2b15 b61d3f 140042 20c37b 5d21ac 9520af a5e695 ad9d30 538b76"
)

# Starts of the names of the sequences that are for validation.
VALIDATION_NAMES: dict[str, tuple[str, ...]] = {
    "dsb2018_nuclei2d": tuple(_NUCLEI.split()),
    "usiigaci_phase2d": ("set05", "set09", "set13", "set17"),
    "sunnybrook_cine4d": ("SCD0000301",),
    "davis2016_480p": ("car-shadow", "libby"),
}


def load_part(data_dir: Path | str, part: Part, names: Iterable[str] | None = None) -> list[Sequence]:
    """Read one part of the labelled sets in `data_dir`; see `labelled_sets.load_sets` for the parameters."""
    return select_part(load_sets(data_dir, names), part)


def select_part(sequences: Iterable[Sequence], part: Part) -> list[Sequence]:
    """The sequences, or blocks of sequences, that belong to `part`."""
    selected = []
    for sequence in sequences:
        blocks = BLOCKS.get(sequence.set)
        if blocks is not None:
            selected.append(_block(sequence, blocks, part))
        elif is_validation(sequence) == (part == "validation"):
            selected.append(sequence)
    return selected


def is_validation(sequence: Sequence) -> bool:
    """Whether a whole sequence is for validation; sets that are split into blocks have no such sequence."""
    return sequence.name.startswith(VALIDATION_NAMES.get(sequence.set, ()))


def _block(sequence: Sequence, blocks: Blocks, part: Part) -> Sequence:
    def cut(array: np.ndarray, span: tuple[int, int]) -> np.ndarray:
        return array[(slice(None),) * blocks.axis + (slice(*span),)]

    span = blocks.training if part == "training" else blocks.validation
    labels = cut(sequence.labels, span)
    if part == "training" and blocks.drop_shared:
        shared = np.unique(cut(sequence.labels, blocks.validation))
        labels = np.where(np.isin(labels, shared), 0, labels)
    labelled = cut(sequence.labelled, span) if blocks.axis == 0 else sequence.labelled
    return replace(
        sequence,
        frames=np.ascontiguousarray(cut(sequence.frames, span)),
        labels=compact_labels(labels),
        labelled=labelled,
    )
