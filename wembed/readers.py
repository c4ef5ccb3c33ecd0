"""Files and folders -> Measures, told apart by what they hold. Nothing is executed and no pickle is opened."""

import csv
import gzip
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Int64

from wembed.errors import MeasureError, ReadError, SettingError, WembedError
from wembed.measures import Measures

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["digits", "grey", "laid_end_to_end", "pictures", "read", "read_labels", "rows_of_atoms"]

_FORMATS = (
    ".npy, .npz, IDX (also gzipped), PNG, JPEG, CSV, Parquet, a folder of images, or a folder that Measures.save wrote"
)
_NPZ_KEYS = (
    "'images'; 'weights' and 'support'; 'points', 'sizes' and optionally 'weights'; or those of scipy.sparse.save_npz"
)
_COLUMNS = "'measure', 'x1', 'x2', ... and optionally 'weight'"
_LATITUDES = {"lat", "latitude"}
_ON_GLOBE = "; on the globe 'x1' is the latitude and 'x2' the longitude, and the metric great-circle-degrees"
_NUMBER = r"^[-+\d.,\s'_%]*\d[-+\d.,\s'_%eE]*$"  # however it is written
_INDEX = re.compile(r"__index_level_\d+__")  # the row names of pandas, which it writes into Parquet by itself
_MAGIC = {
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    b"PK\x05\x06": "npz",
    b"\x89PNG\r\n\x1a\n": "image",
    b"\xff\xd8\xff": "image",
    b"PAR1": "parquet",
}
_GZIP = b"\x1f\x8b"
_OTHER_MAGIC = {
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file",
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    _GZIP: "a gzip file",
    b"\x80\x02": "a pickle, which wembed never opens",
    b"\x80\x03": "a pickle, which wembed never opens",
    b"\x80\x04": "a pickle, which wembed never opens",
    b"\x80\x05": "a pickle, which wembed never opens",
}
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
_HEAD = 4096  # bytes looked at to tell what a file holds
_CHUNK = 1 << 20  # bytes unpacked in one go


def read(path: str | Path, support: np.ndarray | str | Path | None = None) -> Measures:
    """The measures that a file or a folder holds, its format told by its content and only then by its suffix.

    - `.npy`: images (n, h, w), volumes (n, d, h, w), or histograms (n, s) with `support`.
    - `.npz`: `images`; `weights` (n, s) and `support` (s, dim); `points` (atoms, dim) laid end to end, `sizes` (n,) and
      optionally `weights` (atoms,); or a sparse matrix (n, s) from `scipy.sparse.save_npz`, with `support`.
    - IDX, the format of MNIST, plain or gzipped: images (n, h, w) or volumes (n, d, h, w).
    - PNG or JPEG, one image or a folder of them in the order of their names, all of one size. They are turned to grey,
      and brightness is mass: invert drawings that are dark on light first. A transparent pixel has no mass.
    - CSV or Parquet with a row for each atom: `measure` (its name), `x1`, `x2`, ... and optionally `weight`. Measures
      come in the order in which their names first appear; the rows of one need not stand together. Columns of words may
      stand beside these and are left out; others of numbers, which could be meant as masses, are refused.
    - A folder that `Measures.save` wrote.

    Args:
        path: the file or folder.
        support: for histograms, the place (s, dim) of each bin, or a `.npy` file with it. Without it, the file
            `<stem>.support.npy` beside `path` is taken if it is there.

    Raises:
        ReadError: nothing at `path`, or something damaged, cut short, or in no format that wembed reads.
        MeasureError: the numbers are not measures: NaN, negative or no mass; the message names the file.
        SettingError: a support for a file that does not need one.
    """
    path = Path(path)
    with _naming(path):
        return _read_folder(path, support) if path.is_dir() else _read_file(path, support)


def read_labels(path: str | Path) -> Int64[np.ndarray, " n"]:
    """The class of each measure, from an IDX file with one axis (also gzipped) or a `.npy` of integers (n,).

    Raises:
        ReadError: nothing at `path`, or a file that does not hold labels.
    """
    path = Path(path)
    with _naming(path):
        kind = _kind(path)
        if kind not in ("idx", "npy"):
            raise ReadError(f"{path} holds no labels; expected an IDX file with one axis or a .npy of integers (n,)")
        labels = _load_idx(path) if kind == "idx" else _load_npy(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ReadError(f"{path} holds {labels.dtype} of shape {labels.shape}; labels are integers of shape (n,)")
    return labels.astype(np.int64)


def digits() -> tuple[Measures, Int64[np.ndarray, " n"]]:
    """The 10,000 handwritten test digits of MNIST that ship with wembed, 28 x 28 pixels, and which digit each is.

    Raises:
        ReadError: the files are missing from the installation.
    """
    package = Path(__file__).parent
    folders = [package / "data" / "mnist", package.parent / "data" / "mnist"]  # installed; a source checkout
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise ReadError(f"the MNIST digits that ship with wembed are not in {folders[0]}; install wembed again")
    return read(folder / "t10k-images-idx3-ubyte.gz"), read_labels(folder / "t10k-labels-idx1-ubyte.gz")


def _read_folder(folder: Path, support: object) -> Measures:
    _refuse_support(folder, support)
    if (folder / "measures.json").exists():
        return Measures.load(folder)
    files = [entry for entry in sorted(folder.iterdir()) if entry.is_file() and not entry.name.startswith(".")]
    images = [file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES]
    if not images:
        found = f"it holds {len(files)} other files, {files[0].name} first" if files else "it holds no files"
        raise ReadError(f"{folder} has no PNG or JPEG images in it and Measures.save did not write it: {found}")
    pixels: list[np.ndarray] = []
    for file in images:
        if _kind(file) != "image":
            raise ReadError(f"{file} is not a PNG or JPEG image, as its name says")
        pixels.append(_load_image(file))
        if not pixels[-1].any():
            raise MeasureError(f"{file.name} is black all over, so it has no mass; drop it, or invert the images")
        if pixels[-1].shape != pixels[0].shape:
            raise ReadError(
                f"{file} is {_size(pixels[-1])} pixels and {images[0].name} is {_size(pixels[0])}; "
                f"images of one folder must have the same size"
            )
    return Measures.from_images(np.stack(pixels))


def _read_file(path: Path, support: np.ndarray | str | Path | None) -> Measures:
    kind = _kind(path)
    if kind == "npy":
        return _read_npy(path, support)
    if kind == "npz":
        return _read_npz(path, support)
    _refuse_support(path, support)
    if kind == "idx":
        array = _load_idx(path)
        if array.ndim == 1:
            raise ReadError(f"{path} holds {len(array)} labels, not images; read it with wembed.readers.read_labels")
        return pictures(path, array)
    if kind == "image":
        return Measures.from_images(_load_image(path)[None])
    return rows_of_atoms(path, _load_csv(path) if kind == "csv" else _load_parquet(path))


def _kind(path: Path) -> str:
    """What a file holds by its first bytes: npy, npz, idx, image, parquet or csv."""
    if not path.exists():
        raise ReadError(f"there is no file or folder {path}")
    if not path.is_file():
        raise ReadError(f"{path} is not a file; expected {_FORMATS}")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ReadError(f"{path} is empty (0 bytes); expected {_FORMATS}")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.startswith(_GZIP):
        with _parsing(path, "gzip file"), gzip.open(path) as unzipped:
            head = _take(unzipped, _HEAD)
        if not _is_idx(head, path):
            raise ReadError(f"{path} is {_describe(head)}, gzipped; of gzipped files only IDX is read")
    if _is_idx(head, path):
        return "idx"
    text = _text(head)
    if (path.suffix.lower() == ".csv" and b"\0" not in head) or (text is not None and "measure" in _cells(text)):
        return "csv"
    raise ReadError(f"{path} is {_describe(head)}; expected {_FORMATS}")


def _is_idx(head: bytes, path: Path) -> bool:
    """Two zero bytes begin many files: the third must be a type of IDX too, unless the name promises IDX."""
    return head[:2] == b"\0\0" and len(head) > 2 and (head[2] in _IDX_TYPES or "idx" in path.name.lower())


def _text(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a letter of several bytes was cut at the end of the head
            return None
        text = head[: error.start].decode("utf-8-sig")
    return None if "\0" in text else text


def _cells(text: str) -> list[str]:
    return [cell.strip(' "\r') for cell in text.split("\n", 1)[0].split(",")]


def _describe(head: bytes) -> str:
    for magic, what in _OTHER_MAGIC.items():
        if head.startswith(magic):
            return what
    text = _text(head)
    if text:
        return f"text that begins {text[:20]!r}"
    return f"of an unknown kind (it begins 0x{head[:4].hex()})" if head else "empty"


def _refuse_support(path: Path, support: object) -> None:
    if support is not None:
        raise SettingError(f"{path} holds no histograms that lack a support; leave the support out")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except MeasureError as error:
        raise MeasureError(f"{path}: {error}") from error
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _parsing(path: Path | str, what: str) -> Iterator[None]:
    try:
        yield
    except WembedError:
        raise
    except Exception as error:  # parsers meet damage with errors of every kind
        if isinstance(error, OSError) and error.errno is not None:  # the disk or a permission, not the content
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ReadError(f"{path} is damaged or not a whole {what}: {reason}") from error


def _load_npy(path: Path) -> np.ndarray:
    with _parsing(path, ".npy file"):
        return cast(np.ndarray, np.load(path, mmap_mode="r", allow_pickle=False))


def _read_npy(path: Path, support: np.ndarray | str | Path | None) -> Measures:
    array = _load_npy(path)
    if array.ndim == 2:
        return _histograms(path, array, support)
    _refuse_support(path, support)
    return pictures(path, array)


def _read_npz(path: Path, support: np.ndarray | str | Path | None) -> Measures:
    # np.load leaves a file open that it opened itself and cannot read.
    with _parsing(path, ".npz file"), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        keys = set(archive.files)
        sparse = {"format", "shape", "data"} <= keys
        layouts = [{"images"}, {"weights", "support"}, {"points", "sizes"}]
        held = [layout for layout in layouts if layout <= keys]
        arrays = {key: np.asarray(archive[key]) for key in keys & {"images", "weights", "support", "points", "sizes"}}
    if sparse and not held:
        return _histograms(path, _load_sparse(path), support)
    if not held and "weights" in keys and not keys & {"points", "sizes"}:
        return _histograms(path, arrays["weights"], support)
    if len(held) != 1 or sparse:
        raise ReadError(f"{path} has the keys {_some(sorted(keys))}; expected {_NPZ_KEYS}")
    _refuse_support(path, support)
    if "images" in held[0]:
        return pictures(path, arrays["images"])
    if "support" in held[0]:
        return _histograms(path, arrays["weights"], arrays["support"])
    return laid_end_to_end(path, arrays["points"], arrays["sizes"], arrays.get("weights"))


def _load_sparse(path: Path) -> Any:
    import scipy.sparse  # late: it takes as long to import as the rest of this module together

    with _parsing(path, "sparse .npz file"):
        matrix: Any = scipy.sparse.load_npz(path)
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)  # column numbers out of range would be read as memory
        return matrix


def _histograms(path: Path, weights: Any, support: np.ndarray | str | Path | None) -> Measures:
    if support is None:
        beside = path.with_name(f"{path.stem}.support.npy")
        if not beside.exists():
            raise ReadError(
                f"{path} holds an array of shape {weights.shape}: as histograms they need a support (s, dim), given as "
                f"support= (--support) or in {beside.name}; numpy.arange(s) will do where the ground cost is a matrix; "
                "as images, an array of shape (n, height, width)"
            )
        support = beside
    if isinstance(support, (str, Path)):
        file = Path(support)
        if _kind(file) != "npy":
            raise ReadError(f"{file} is not a .npy file; expected one with the support (s, dim) of {path.name}")
        support = _load_npy(file)
    return Measures.from_histograms(weights, support)


def pictures(path: Path | str, images: np.ndarray) -> Measures:
    """Images (n, h, w) or volumes (n, d, h, w) of a file that goes by this name.

    Raises:
        ReadError: another number of axes, or nothing in it.
        MeasureError: negative or non-finite pixels, or an image without mass.
    """
    if images.size == 0:
        raise ReadError(f"{path} holds no images: its array has shape {images.shape}")
    if images.ndim not in (3, 4):
        raise ReadError(
            f"{path} holds an array of shape {images.shape}; expected images (n, height, width), "
            f"volumes (n, depth, height, width), or histograms (n, s) with their support"
        )
    return Measures.from_images(images)


def laid_end_to_end(path: Path | str, points: np.ndarray, sizes: np.ndarray, weights: np.ndarray | None) -> Measures:
    """Point clouds laid end to end, of a file that goes by this name.

    These are points (atoms, dim), sizes (n,) and weights (atoms,).

    Raises:
        ReadError: other shapes or types.
        MeasureError: non-finite points, negative or no mass.
    """
    if points.ndim == 1:
        points = points[:, None]
    weights = np.ones(len(points)) if weights is None else weights
    for name, array, ndim, kinds in (
        ("points", points, 2, "iuf"),
        ("sizes", sizes, 1, "iu"),
        ("weights", weights, 1, "iuf"),
    ):
        if array.ndim != ndim or array.dtype.kind not in kinds:
            raise ReadError(
                f"{path} has '{name}' of type {array.dtype} and shape {array.shape}; expected numbers: "
                f"points (atoms, dim), sizes (n,) and weights (atoms,)"
            )
    sizes = sizes.astype(np.int64)
    if len(sizes) == 0 or points.shape[1] == 0:
        raise ReadError(f"{path} holds no measures: points of shape {points.shape}, sizes of shape {sizes.shape}")
    if sizes.min() < 0 or sizes.sum() != len(points) or len(weights) != len(points):
        raise ReadError(
            f"{path} has {len(points)} points, {len(weights)} weights and sizes that sum to {sizes.sum()}; "
            f"these three must be equal, and no size negative"
        )
    return Measures.from_flat(points.astype(np.float64), weights.astype(np.float64), sizes)


def _load_idx(path: Path) -> np.ndarray:
    """The array of an IDX file; one that is not gzipped stays a memory map."""
    with _parsing(path, "IDX file"), path.open("rb") as raw:
        zipped = raw.read(2) == _GZIP
        raw.seek(0)
        file: BufferedReader | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if zipped else raw
        magic = _take(file, 4)
        if len(magic) < 4 or magic[2] not in _IDX_TYPES or magic[3] == 0:
            raise ReadError(f"{path} begins 0x{magic.hex()}, which is not a type and a number of axes of IDX")
        sides = _take(file, 4 * magic[3])
        if len(sides) < 4 * magic[3]:
            raise ReadError(f"{path} is cut short: its header promises {4 * magic[3]} bytes of shape, not {len(sides)}")
        shape = tuple(int(side) for side in np.frombuffer(sides, dtype=">u4"))
        dtype = np.dtype(_IDX_TYPES[magic[2]])
        promised = math.prod(shape) * dtype.itemsize
        begin = file.tell()
        content = _take(file, promised + 1) if zipped else b""
        found = len(content) if zipped else path.stat().st_size - begin
        if found != promised:
            fault = "cut short" if found < promised else "too long"
            number = f"at least {found}" if found > promised else str(found)
            raise ReadError(f"{path} is {fault}: its header promises {promised} bytes of data, {number} are there")
        if zipped:
            return np.frombuffer(content, dtype=dtype).reshape(shape)
        return np.memmap(path, dtype=dtype, mode="r", offset=begin, shape=shape)


def _take(file: BufferedReader | gzip.GzipFile, count: int) -> bytes:
    """Up to `count` bytes, fewer where the file ends; a false promise of many costs no memory."""
    content = bytearray()
    try:
        while len(content) < count and (chunk := file.read1(min(_CHUNK, count - len(content)))):
            content += chunk
    except EOFError:  # a gzip stream that was cut short
        pass
    return bytes(content)


def _load_image(path: Path) -> np.ndarray:
    from PIL import Image  # late: only images need it

    with _parsing(path, "PNG or JPEG image"), Image.open(path, formats=("PNG", "JPEG")) as image:
        return grey(image)


def grey(image: "Image.Image") -> np.ndarray:
    """The brightness (h, w) of each pixel of an image by Pillow; transparent ones are black."""
    from PIL import Image  # late: only images need it

    if image.mode.startswith("I"):  # 16 bits a pixel, which "L" would clip
        return np.asarray(image)
    if "A" in image.getbands() or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, image.convert("RGBA")).convert("L"))
    return np.asarray(image.convert("L"))


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:12]) or "(none)"


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def rows_of_atoms(path: Path | str, table: Any) -> Measures:
    """Point clouds of an Arrow table with a row for each atom, of a file that goes by this name.

    Raises:
        ReadError: not the columns `measure`, `x1`, `x2`, ... and maybe `weight`, or numbers in others beside them;
            something missing or no numbers in them.
        MeasureError: non-finite points, negative or no mass.
    """
    import pyarrow as pa  # late: only tables need it
    from pyarrow import types

    wanted = _wanted(path, table.column_names)
    _refuse_unknown(path, _numbers_beside(wanted, table.schema))
    table = table.select(wanted)
    if table.num_rows == 0:
        raise ReadError(f"{path} holds no measures: it has columns and no rows")
    for name in table.column_names:
        if table[name].null_count:
            row = int(np.argmax(table[name].is_null().to_numpy())) + 1
            raise ReadError(f"{path} has no value in row {row} of column '{name}'; fill it in or drop the row")
    columns: dict[str, np.ndarray] = {}
    for name in table.column_names[1:]:
        if not _numeric(table[name].type):
            raise ReadError(f"{path} has a column '{name}' of type {table[name].type}; expected numbers")
        columns[name] = table[name].cast(pa.float64(), safe=False).to_numpy()
    weights = columns.pop("weight", np.ones(table.num_rows))
    names = table["measure"]
    with _parsing(path, "table with names of measures"):
        if types.is_dictionary(names.type):  # its order need not be that of first appearance
            names = names.cast(names.type.value_type)
        owner = names.dictionary_encode().combine_chunks().indices.to_numpy()
    order = np.argsort(owner, kind="stable")
    points = np.stack(list(columns.values()), axis=1)
    return Measures.from_flat(points[order], weights[order], np.bincount(owner))


def _numeric(kind: Any) -> bool:
    from pyarrow import types

    return any(test(kind) for test in (types.is_floating, types.is_integer, types.is_decimal))


def _numbers_beside(wanted: list[str], schema: Any) -> list[str]:
    others = [field for field in schema if field.name not in wanted and not _INDEX.fullmatch(field.name)]
    return [field.name for field in others if _numeric(field.type)]


def _load_csv(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    # Only an empty cell is missing: "NA" is the code of Namibia, and "nan" is a number that Measures refuses by name.
    with _parsing(path, "CSV file"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
        wanted = _wanted(path, names)
        types = {name: pa.float64() if name in wanted and name != "measure" else pa.string() for name in names}
        options = pa.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
        try:
            table = pa.csv.read_csv(path, convert_options=options)
        except pa.ArrowInvalid:
            _refuse_no_number(path, names, options)
            raise
    others = [
        (name, column) for name, column in zip(table.column_names, table.columns, strict=True) if name not in wanted
    ]
    numbers = [name for name, column in others if pc.any(pc.match_substring_regex(column, _NUMBER)).as_py()]
    _refuse_unknown(path, numbers)
    return table.select(wanted)


def _refuse_no_number(path: Path, names: list[str], options: Any) -> None:
    """Name the first cell that should hold a number and doesn't: read one after another, rows are counted."""
    import pyarrow as pa
    import pyarrow.csv

    try:
        pa.csv.read_csv(path, pa.csv.ReadOptions(use_threads=False), convert_options=options)
    except pa.ArrowInvalid as error:
        found = re.match(r"In CSV column #(\d+): Row #(\d+): .*invalid value (.*)", str(error))
        if found:
            name, row = names[int(found[1])], int(found[2]) - 1  # the first one is the head
            raise ReadError(f"{path} has {found[3]} in row {row:,} of column '{name}'; expected a number") from error


def _load_parquet(path: Path) -> Any:
    from pyarrow import parquet

    with _parsing(path, "Parquet file"), parquet.ParquetFile(path) as file:
        wanted = _wanted(path, file.schema_arrow.names)
        _refuse_unknown(path, _numbers_beside(wanted, file.schema_arrow))
        return file.read(columns=wanted)


def _wanted(path: Path | str, names: list[str]) -> list[str]:
    """The columns that make measures, in order: measure, x1, x2, ..., weight."""
    dim = sum(1 for name in set(names) if name[:1] == "x" and name[1:].isdecimal())
    wanted = ["measure", *(f"x{axis}" for axis in range(1, dim + 1))] + ["weight"] * ("weight" in names)
    if dim == 0 or any(names.count(name) != 1 for name in wanted):
        places = _ON_GLOBE if {name.lower() for name in names} & _LATITUDES else ""
        raise ReadError(f"{path} has the columns {_some(names)}; expected {_COLUMNS}, each once{places}")
    return wanted


def _refuse_unknown(path: Path | str, names: list[str]) -> None:
    if names:
        what, it = ("a column", "it") if len(names) == 1 else ("columns", "them")
        raise ReadError(
            f"{path} has {what} {_some(names)} with numbers that would not be used: the columns are {_COLUMNS}, which "
            f"is the mass of a point; rename {it} or drop {it}"
        )
