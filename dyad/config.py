"""Configurations: frozen, keyword-only dataclasses, filled by a YAML preset, overridden by command-line flags.

`parse` runs before anything heavy is imported, so that `--help` and a mistyped flag answer at once.
"""

import contextlib
import dataclasses
import difflib
import enum
import errno
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
INSIDE = Path(__file__).resolve().parent / "configs"
PRESETS = INSIDE if INSIDE.is_dir() else INSIDE.parent.parent / "configs"
"""The presets that ship: beside the packages in a checkout, inside this one in an installed wheel."""


def parse(config_type: type[T], argv: list[str] | None = None, *, prog: str, description: str) -> T:
    """Read the command line into `config_type`.

    `--config FILE.yaml` (anywhere) gives the defaults, other flags override them. A mistake ends the process with
    status 2 and one line on stderr; `--help` prints the flags with their defaults.
    """
    import tyro

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        preset, arguments = _take_preset(arguments)
        default = _open_preset(config_type, preset) if preset else tyro.MISSING_NONPROP
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    description += "\n\n--config FILE.yaml fills in the flags from a preset; flags given beside it win."
    options: dict[str, Any] = {} if preset is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config_type, args=arguments, prog=prog, description=description, **options)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        cause = end.__context__  # a ValueError is our own range check; all else is in tyro's words
        sentence = str(cause) if type(cause) is ValueError else _one_line(said.getvalue())
        print(f"error: {sentence}; see {prog} --help", file=sys.stderr)
        raise SystemExit(2) from None


def _one_line(box: str) -> str:
    """The sentences in a framed message, without the frame, its title and the line on --help."""
    lines = [line.strip("╭╮╰╯│+| ") for line in box.splitlines()[1:]]
    text = " ".join("; " if set(line) <= {"─", "-"} else line for line in lines if line)
    return " ".join(text.split("For full helptext")[0].split()).replace(" ;", ";").strip("; ")


def _take_preset(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Split `--config FILE` or `--config=FILE` off the arguments."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return Path(argument.split("=", 1)[1]), arguments[:i] + arguments[i + 1 :]
        if argument == "--config":
            if i + 1 == len(arguments):
                raise ValueError("--config wants the path of a YAML file behind it")
            return Path(arguments[i + 1]), arguments[:i] + arguments[i + 2 :]
    return None, arguments


def _open_preset(config_type: type[T], path: Path) -> T:
    """Defaults for the command line: the preset's values; what is required and not in it must come as a flag."""
    import tyro

    where, content = str(path), read_yaml(path)
    values = _values(config_type, content, where)
    preset = object.__new__(config_type)  # unchecked: ranges are checked when all flags are in
    for field in dataclasses.fields(config_type):  # pyright: ignore[reportArgumentType]
        if field.name not in values:
            if field.default is not dataclasses.MISSING:
                values[field.name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                values[field.name] = field.default_factory()
            else:
                values[field.name] = tyro.MISSING_NONPROP
        object.__setattr__(preset, field.name, values[field.name])
    return preset


def load(config_type: type[T], path: Path | str) -> T:
    """Fill `config_type` from a YAML file; an unknown key is refused with the nearest known one."""
    return from_dict(config_type, read_yaml(path), where=str(path))


def read_yaml(path: Path | str) -> Any:
    """Content of a YAML file, an empty one as no keys; raises ValueError that names a missing or broken file.

    configs/… means the presets that ship, wherever one stands.
    """
    from dyad import strict_yaml

    given = Path(path)
    shipped = given.parts[:1] == ("configs",) and not given.exists()
    try:
        text = (PRESETS.joinpath(*given.parts[1:]) if shipped else given).read_text(encoding="utf8")
        content = strict_yaml.read(text)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; presets are in {PRESETS}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not valid YAML (it is not UTF-8 text); save it as UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {} if content is None else content


def from_dict(config_type: type[T], content: Any, *, where: str) -> T:
    """Fill a dataclass from plain data; `where` names the origin in errors."""
    values = _values(config_type, content, where)
    try:
        return config_type(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _values(config_type: type[Any], content: Any, where: str) -> dict[str, Any]:
    """Checked and typed values of the keys in `content`."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: wanted keys and values, got {type(content).__name__}")
    hints = get_type_hints(config_type)
    known = [f.name for f in dataclasses.fields(config_type)]
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}; {hint}")
        values[key] = _coerce(hints[key], value, f"{where}: {key}")
    return values


def _coerce(wanted: Any, value: Any, where: str) -> Any:
    """Turn YAML's plain data into the annotated type, or refuse it by name."""
    origin = get_origin(wanted)
    if origin is not None and str(origin).endswith("Annotated"):  # a documented flag: look at the type inside
        return _coerce(get_args(wanted)[0], value, where)
    if origin in (Union, UnionType):
        if value is None and type(None) in get_args(wanted):
            return None
        return _coerce(next(a for a in get_args(wanted) if a is not type(None)), value, where)
    if dataclasses.is_dataclass(wanted):
        return from_dict(wanted, value, where=where)  # pyright: ignore[reportArgumentType]
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: wanted a list, got {value!r}")
        return tuple(_coerce(get_args(wanted)[0], v, where) for v in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: wanted keys and values, got {value!r}")
        return {key: _coerce(get_args(wanted)[1], v, f"{where}: {key}") for key, v in value.items()}
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return wanted(value)
    if wanted is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return _number(value, where)
    if isinstance(wanted, type) and wanted in (int, str, bool) and type(value) is not wanted:
        raise ValueError(f"{where}: wanted {wanted.__name__}, got {value!r}")
    return value


def _number(value: float | str, where: str) -> float:
    """A float; YAML reads `1e-3` as text, which is accepted."""
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{where}: wanted a number, got {value!r}") from None


def as_dict(config: Any) -> dict[str, Any]:
    """Plain data of a configuration, ready for JSON and YAML: paths become text, tuples lists."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def save(config: Any, path: Path | str) -> None:
    """Write the full resolved configuration as YAML, all or nothing; `load` reads it back."""
    import yaml

    from dyad.provenance import atomic_path

    with atomic_path(path) as part:
        part.write_text(yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True), encoding="utf8")


_REMEDIES = {
    errno.ENOSPC: "free some space and start again",
    errno.EDQUOT: "free some of your quota and start again",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f), or write less",
    errno.EACCES: "give a place that you may write to",
    errno.EPERM: "give a place that you may write to",
    errno.EROFS: "give a place that you may write to",
}


def _sentence(error: ValueError | OSError) -> str:
    """What to tell the user: our own errors as they are, the system's with the file first and a remedy."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the path")
    return f"{str(error.filename).removesuffix('.part')}: {error.strerror.lower()}; {remedy}"


def run_main(main: Callable[[list[str] | None], int]) -> None:
    """Run an entry point and end the process: a user's mistake becomes one line and status 2, Ctrl-C 130."""
    try:
        status = main(None)
    except (ValueError, OSError) as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(status)
