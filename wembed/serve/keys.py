"""API keys: a file with the hash of each and what it is good for."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from wembed.errors import ReadError, SettingError

__all__ = ["SCOPES", "Key", "add_key", "read_keys", "scopes_of"]

SCOPES = ("read", "write")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Key:
    """What is known of a key: not the key itself.

    Attributes:
        name: whose it is.
        scopes: what it is good for, of "read" and "write".
        sha256: its hash. A key is 32 random bytes, which no dictionary holds, so that a plain hash does.
    """

    name: str
    scopes: frozenset[str]
    sha256: str


def read_keys(file: "str | Path") -> tuple[Key, ...]:
    """The keys of a file: on each line a name, scopes with commas between them, and a hash in hexadecimal.

    Raises:
        ReadError: nothing there, or a line of another kind.
    """
    file, found = Path(file), list[Key]()
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{file} cannot be read as a file of keys: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        scopes = frozenset(words[1].split(",")) if len(words) == 3 else frozenset()
        if not scopes or not scopes <= {*SCOPES} or not _HASH.fullmatch(words[2]):
            raise ReadError(
                f"{file}, line {number}, is no key; expected NAME read,write SHA256, as `wembed key` writes it"
            )
        found.append(Key(words[0], scopes, words[2]))
    if not found:
        raise ReadError(f"{file} holds no key; make one with `wembed key NAME --keys {file}`")
    return tuple(found)


def add_key(file: "str | Path", name: str, scopes: frozenset[str]) -> str:
    """Make a key, put its hash into a file, and return the key, which is kept nowhere.

    Raises:
        SettingError: a name or a scope of another form, or a name that is there already.
        ReadError: the file holds something else.
    """
    file = Path(file)
    if not _NAME.fullmatch(name):
        raise SettingError(f"the name {name!r}; give letters, digits, '.', '_' and '-', at most 64")
    if not scopes or not scopes <= {*SCOPES}:
        raise SettingError(f"the scopes {', '.join(sorted(scopes)) or '(none)'}; choose of {', '.join(SCOPES)}")
    if file.exists() and any(key.name == name for key in read_keys(file)):
        raise SettingError(f"{file} has a key of {name!r} already; remove its line first, or choose another name")
    key = secrets.token_urlsafe(32)
    file.touch(mode=0o600)
    unfinished = file.stat().st_size > 0 and not file.read_bytes().endswith(b"\n")
    with file.open("a") as lines:
        lines.write("\n" * unfinished + f"{name} {','.join(sorted(scopes))} {_hash(key)}\n")
    return key


def scopes_of(key: str, known: tuple[Key, ...]) -> frozenset[str]:
    """What a key is good for; nothing, if it is none. Takes as long whichever it is."""
    given, scopes = _hash(key), frozenset[str]()
    for one in known:
        if hmac.compare_digest(given, one.sha256):
            scopes = one.scopes
    return scopes


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
