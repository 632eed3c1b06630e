"""A stream of bytes, cut into blocks of whole lines of UTF-8 text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ml_control.errors import BadObject

MAX_LINE = 32 << 20
_MAGIC = {
    b"\x1f\x8b": "gzip data",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
}
_BLANK = b" \t\r\n\x0b\x0c"


class Lines:
    """Blocks of whole lines from chunks of bytes, for object *name*.

    Raises ``BadObject`` for bytes that begin like something other than *what* text, for UTF-16,
    and for a line of more than 32 MB.
    """

    def __init__(self, chunks: Iterable[bytes], name: str, size: int, what: str) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._name, self._size = name, size
        self._rest = b""
        self.offset = 0  # of the first byte that was not taken yet
        self._open(what)

    def _open(self, what: str) -> None:
        while len(self._rest) < 8 and self._more():
            pass
        head = self._rest
        if not head:
            raise BadObject(self._name, "is empty (0 bytes)", "copy the file again")
        for magic, kind in _MAGIC.items():
            if head.startswith(magic):
                raise BadObject(
                    self._name, f"is {kind}, not {what} text", f"unpack or export it as {what}"
                )
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise BadObject(self._name, "is UTF-16 text", "save it as UTF-8")
        if head.startswith(b"\xef\xbb\xbf"):
            self._drop(3)
        while True:
            self._drop(len(self._rest) - len(self._rest.lstrip(_BLANK)))
            if self._rest:
                return
            if not self._more():
                raise BadObject(self._name, "has only blank lines", "copy the file again")

    def _more(self) -> bool:
        """Take another chunk into the rest; False at the end."""
        for chunk in self._chunks:
            if chunk:
                self._rest = self._rest + chunk if self._rest else bytes(chunk)
                return True
        return False

    def _drop(self, count: int) -> None:
        self._rest = self._rest[count:]
        self.offset += count

    def take(self) -> bytes:
        """The next whole lines, about *size* bytes; ``b""`` at the end."""
        parts, total = [self._rest], len(self._rest)
        while True:
            if total >= self._size:
                # Nearly always the last chunk has a line end, and all is copied just once.
                cut = parts[-1].rfind(b"\n") + 1
                if not cut:
                    parts = [b"".join(parts)]
                    cut = _line_end(parts[0])
                if cut:
                    break
                if total > MAX_LINE:
                    raise self._too_long()
            chunk = next(self._chunks, None)
            if chunk is None:
                cut = len(parts[-1])
                break
            parts.append(bytes(chunk))
            total += len(chunk)
        *before, last = parts
        block = b"".join([*before, memoryview(last)[:cut]]) if before else last[:cut]
        self._rest = last[cut:]
        self.offset += len(block)
        return block

    def give_back(self, lines: bytes) -> None:
        """Undo the taking of the last lines of a block."""
        self._rest = lines + self._rest
        self.offset -= len(lines)

    def _too_long(self) -> BadObject:
        return BadObject(
            self._name,
            f"has a line of more than {MAX_LINE >> 20} MB",
            "write one record a line, each ended by a line break",
        )


def _line_end(block: bytes) -> int:
    """Behind the last line end; a CR at the very end may be half of one. 0 when there is none."""
    cut = block.rfind(b"\n") + 1
    if cut == 0:
        cut = block.rfind(b"\r", 0, len(block) - 1) + 1
    return cut


def flaw(block: bytes, offset: int, name: str) -> tuple[int, BadObject] | None:
    """The first byte of a block that is no text: its place, and the refusal without a row."""
    at = block.find(b"\0")
    found = None
    if at >= 0:
        reason = f"has a NUL byte at offset {offset + at}"
        found = at, BadObject(name, reason, "save it as UTF-8 text")
    if not block.isascii():
        try:
            (block if at < 0 else block[:at]).decode()
        except UnicodeDecodeError as error:
            place = offset + error.start
            reason = f"is not UTF-8: byte 0x{block[error.start]:02x} at offset {place}"
            found = error.start, BadObject(name, reason, "save it as UTF-8")
    return found


def before(block: bytes, at: int) -> bytes:
    """The whole lines of a block that end before this place."""
    cut = max(block.rfind(b"\n", 0, at), block.rfind(b"\r", 0, at)) + 1
    return block[:cut]
