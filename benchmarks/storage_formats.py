"""Ways to keep sessions' tensors on disk, each with its writer and its reader of random windows.

Compared by `benchmarks.storage`. A reader copies the cuts of a session's tensors into memory; h5py, zarr are optional.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from dyad import media
from teacher.windows import square

Array = NDArray[Any]
Tensors = dict[str, Array]
Cuts = dict[str, slice]
Read = Callable[[int, Cuts], Tensors]
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Format:
    """How sessions are written into a folder, and how a folder is opened for reading."""

    write: Callable[[Path, list[Tensors]], None]
    open: Callable[[Path], Read]


# ---- one file a session ---------------------------------------------------------------------------------------------


def write_safetensors(folder: Path, sessions: list[Tensors], kind: type[Any] | None = None) -> None:
    """As `dyad.store`; as another kind of number if one is given."""
    for i, tensors in enumerate(sessions):
        (folder / f"{i}.safetensors").write_bytes(save({n: t.astype(kind or t.dtype) for n, t in tensors.items()}))


def open_safetensors(folder: Path) -> Read:
    """A file is opened for each window."""

    def read(i: int, cuts: Cuts) -> Tensors:
        with safe_open(str(folder / f"{i}.safetensors"), framework="numpy") as file:
            return {n: file.get_slice(n)[cut] for n, cut in cuts.items()}

    return read


def write_npz(folder: Path, sessions: list[Tensors]) -> None:
    """A zip of arrays, not compressed."""
    for i, tensors in enumerate(sessions):
        np.savez(folder / f"{i}.npz", allow_pickle=False, **tensors)


def open_npz(folder: Path) -> Read:
    """Has to read a whole tensor for any part of it."""

    def read(i: int, cuts: Cuts) -> Tensors:
        with np.load(folder / f"{i}.npz") as kept:
            return {n: kept[n][cut].copy() for n, cut in cuts.items()}

    return read


def write_npy(folder: Path, sessions: list[Tensors]) -> None:
    """A file for each tensor."""
    for i, tensors in enumerate(sessions):
        for name, tensor in tensors.items():
            np.save(folder / f"{i}.{name}.npy", tensor)


def open_npy(folder: Path, *, keep: bool = False) -> Read:
    """Memory maps, made for each window or kept."""
    maps: dict[Path, Array] = {}

    def mapped(path: Path) -> Array:
        if path in maps:
            return maps[path]
        made = np.load(path, mmap_mode="r")
        if keep:
            maps[path] = made
        return made

    return lambda i, cuts: {n: np.array(mapped(folder / f"{i}.{n}.npy")[cut]) for n, cut in cuts.items()}


# ---- one file for all -----------------------------------------------------------------------------------------------


def write_joined(folder: Path, sessions: list[Tensors]) -> None:
    """All sessions end to end, and where each begins."""
    for name in sessions[0]:
        np.save(folder / f"{name}.npy", np.concatenate([s[name] for s in sessions]))
        np.save(folder / f"{name}.index.npy", np.cumsum([0, *(len(s[name]) for s in sessions)]))


def open_joined(folder: Path) -> Read:
    """One memory map a tensor."""
    names = [p.name.removesuffix(".index.npy") for p in folder.glob("*.index.npy")]
    held = {n: (np.load(folder / f"{n}.npy", mmap_mode="r"), np.load(folder / f"{n}.index.npy")) for n in names}

    def read(i: int, cuts: Cuts) -> Tensors:
        begins = {n: int(held[n][1][i]) for n in cuts}
        return {n: np.array(held[n][0][begins[n] + cut.start : begins[n] + cut.stop]) for n, cut in cuts.items()}

    return read


def write_hdf5(folder: Path, sessions: list[Tensors]) -> None:
    """A data set for each tensor of each session."""
    import h5py  # pyright: ignore[reportMissingImports] - optional

    with h5py.File(folder / "all.h5", "w") as file:
        for i, tensors in enumerate(sessions):
            for name, tensor in tensors.items():
                file[f"{i}/{name}"] = tensor


def open_hdf5(folder: Path) -> Read:
    """The file stays open."""
    import h5py  # pyright: ignore[reportMissingImports] - optional

    file: Any = h5py.File(folder / "all.h5", "r")
    return lambda i, cuts: {n: file[f"{i}/{n}"][cut] for n, cut in cuts.items()}


def write_zarr(folder: Path, sessions: list[Tensors]) -> None:
    """Arrays in a folder, in chunks and compressed as zarr does unasked."""
    import zarr  # pyright: ignore[reportMissingImports] - optional

    root: Any = zarr.open_group(folder / "all.zarr", mode="w")
    for i, tensors in enumerate(sessions):
        for name, tensor in tensors.items():
            root.create_array(f"{i}/{name}", data=tensor)


def open_zarr(folder: Path) -> Read:
    """The group stays open, arrays are looked up for each window."""
    import zarr  # pyright: ignore[reportMissingImports] - optional

    root: Any = zarr.open_group(folder / "all.zarr", mode="r")
    return lambda i, cuts: {n: np.asarray(root[f"{i}/{n}"][cut]) for n, cut in cuts.items()}


def to_arrow(tensors: Tensors) -> Any:
    """A row a frame, a column a tensor of lists of units."""
    import pyarrow as pa

    columns = [pa.FixedSizeListArray.from_arrays(pa.array(t.reshape(-1)), t.shape[1]) for t in tensors.values()]
    return pa.RecordBatch.from_arrays(columns, names=list(tensors))


def from_arrow(column: Any) -> Array:
    """[rows, units], copied."""
    return np.array(column.flatten().to_numpy()).reshape(len(column), -1)


def write_arrow(folder: Path, sessions: list[Tensors]) -> None:
    """Arrow IPC, a record batch a session."""
    import pyarrow as pa

    batches = [to_arrow(t) for t in sessions]
    with pa.ipc.new_file(str(folder / "all.arrow"), batches[0].schema) as file:
        for batch in batches:
            file.write_batch(batch)


def open_arrow(folder: Path) -> Read:
    """Memory-mapped."""
    import pyarrow as pa

    file = pa.ipc.open_file(pa.memory_map(str(folder / "all.arrow")))

    def read(i: int, cuts: Cuts) -> Tensors:
        batch = file.get_batch(i)
        return {n: from_arrow(batch.column(n).slice(c.start, c.stop - c.start)) for n, c in cuts.items()}

    return read


def write_parquet(folder: Path, sessions: list[Tensors]) -> None:
    """A row group a session."""
    import pyarrow.parquet as pq

    batches = [to_arrow(t) for t in sessions]
    with pq.ParquetWriter(folder / "all.parquet", batches[0].schema) as file:
        for batch in batches:
            file.write_batch(batch, row_group_size=len(batch))


def open_parquet(folder: Path) -> Read:
    """Has to decode a session's columns for any part of them."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(folder / "all.parquet", memory_map=True)

    def read(i: int, cuts: Cuts) -> Tensors:
        table = file.read_row_group(i, columns=list(cuts)).combine_chunks()
        return {n: from_arrow(table[n].chunk(0).slice(c.start, c.stop - c.start)) for n, c in cuts.items()}

    return read


# ---- media only -----------------------------------------------------------------------------------------------------


def write_jpeg(folder: Path, sessions: list[Tensors]) -> None:
    """Pictures as JPEG end to end with an index, sound as it is; pixels change."""
    for i, tensors in enumerate(sessions):
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        coded = [cv2.imencode(".jpg", p[..., ::-1], quality)[1].tobytes() for p in tensors["pictures"]]
        (folder / f"{i}.jpegs").write_bytes(b"".join(coded))
        np.save(folder / f"{i}.index.npy", np.cumsum([0, *map(len, coded)]))
        np.save(folder / f"{i}.sound.npy", tensors["sound"])


def open_jpeg(folder: Path) -> Read:
    """Decodes the window's pictures."""

    def read(i: int, cuts: Cuts) -> Tensors:
        at = np.load(folder / f"{i}.index.npy")[cuts["pictures"].start : cuts["pictures"].stop + 1]
        blob = np.fromfile(folder / f"{i}.jpegs", np.uint8, count=int(at[-1] - at[0]), offset=int(at[0]))
        parts = np.split(blob, at[1:-1] - at[0])
        pictures = np.stack([cv2.imdecode(part, cv2.IMREAD_COLOR)[..., ::-1] for part in parts])  # pyright: ignore[reportOptionalSubscript]
        return {
            "pictures": pictures,
            "sound": np.array(np.load(folder / f"{i}.sound.npy", mmap_mode="r")[cuts["sound"]]),
        }

    return read


def copy_recording(folder: Path, sessions: list[Tensors], recording: Path) -> None:
    """The recording itself, once a session."""
    for i in range(len(sessions)):
        for suffix in (".mp4", ".wav"):
            shutil.copyfile(recording.with_suffix(suffix), folder / f"{i}{suffix}")


def open_recording(folder: Path, size_px: int) -> Read:
    """Decodes from the start of the file to the window's end."""

    def read(i: int, cuts: Cuts) -> Tensors:
        pictures, wanted = [], range(6 * cuts["pictures"].start, 6 * cuts["pictures"].stop, 6)
        for t, picture in media.iter_grid_frames(folder / f"{i}.mp4"):
            if t in wanted:
                pictures.append(square(picture, size_px))
            if t == wanted[-1]:
                break
        return {"pictures": np.stack(pictures), "sound": media.read_audio(folder / f"{i}.wav")[cuts["sound"]]}

    return read


def label_formats() -> dict[str, Format]:
    """Name → format; the first is what the product uses."""
    half = partial(write_safetensors, kind=np.float16)
    return {
        "safetensors a session": Format(write_safetensors, open_safetensors),
        "the same in float16": Format(half, open_safetensors),
        ".npy maps, opened each time": Format(write_npy, open_npy),
        ".npy maps, kept open": Format(write_npy, partial(open_npy, keep=True)),
        ".npz a session": Format(write_npz, open_npz),
        "one map for all, index": Format(write_joined, open_joined),
        "HDF5": Format(write_hdf5, open_hdf5),
        "Arrow IPC": Format(write_arrow, open_arrow),
        "Parquet": Format(write_parquet, open_parquet),
        "zarr": Format(write_zarr, open_zarr),
    }


def media_formats(recording: Path, size_px: int) -> dict[str, Format]:
    """Name → format; the first is what the product uses."""
    shared = label_formats()
    used, left_out = ".npy maps, kept open", ("the same in float16", "Arrow IPC", "Parquet", "zarr")
    order = [used, *(n for n in shared if n != used and n not in left_out)]
    return {n: shared[n] for n in order} | {
        f"JPEG {JPEG_QUALITY} end to end": Format(write_jpeg, open_jpeg),
        "decoding the MP4": Format(
            partial(copy_recording, recording=recording), partial(open_recording, size_px=size_px)
        ),
    }
