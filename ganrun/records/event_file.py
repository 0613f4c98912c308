"""The records of TensorBoard's event files, with their checksums.

A record has the length of its content (8 bytes), the checksum of these bytes (4), the content, and its checksum (4).
Checksums are masked CRC-32C. TensorBoard computes them byte by byte in Python, which takes 100 ms for 1 MB; here large
contents take a tenth of that.
"""

from functools import cache

import numpy as np

POLYNOMIAL = 0x82F63B78  # of CRC-32C, with reversed bits
ONES = 0xFFFFFFFF
CHUNK = 256  # bytes
HEADER, FOOTER = 12, 4  # bytes before and after the content


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ POLYNOMIAL, table >> 1).astype(np.uint32)
    return table


TABLE = _table()
PLAIN_TABLE: list[int] = TABLE.tolist()


def masked_crc(data: bytes) -> int:
    """The checksum of `data` in event files.

    >>> hex(masked_crc(b"123456789"))  # CRC-32C is 0xe3069283
    '0xc78ab0e5'
    """
    crc = _crc(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & ONES


def _crc(data: bytes) -> int:
    """CRC-32C. All chunks are processed at the same time, and combined, which is possible because it is linear."""
    register, num = ONES, len(data) // CHUNK if len(data) >= 8 * CHUNK else 0
    if num:
        of_chunks = np.zeros(num, np.uint32)
        for column in np.frombuffer(data, np.uint8, num * CHUNK).reshape(num, CHUNK).T:
            of_chunks = _next(of_chunks, column)
        a, b, c, d = _shifts()
        for own in of_chunks.tolist():
            register = a[register & 255] ^ b[register >> 8 & 255] ^ c[register >> 16 & 255] ^ d[register >> 24] ^ own
    for byte in data[num * CHUNK :]:
        register = PLAIN_TABLE[(register ^ byte) & 255] ^ register >> 8
    return register ^ ONES


def _next(registers: np.ndarray, values: np.ndarray | int) -> np.ndarray:
    """The registers after one more byte each."""
    following: np.ndarray = TABLE[(registers ^ values) & 255] ^ registers >> 8
    return following


@cache
def _shifts() -> list[list[int]]:
    """For each of the four bytes of a register, its contribution after CHUNK zeros, by its value."""
    registers = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    for _ in range(CHUNK):
        registers = _next(registers, 0)
    shifts: list[list[int]] = registers.tolist()
    return shifts


def record(content: bytes) -> bytes:
    """The record with this content."""
    length = len(content).to_bytes(8, "little")
    return b"".join(
        (length, masked_crc(length).to_bytes(4, "little"), content, masked_crc(content).to_bytes(4, "little"))
    )


def content_of(sound: bytes) -> bytes:
    """The content of a record."""
    return sound[HEADER:-FOOTER]


def sound_records(data: bytes) -> tuple[list[bytes], int]:
    """The records of a file whose checksums are right, and the number of bytes in damaged ones.

    After a damaged record, whose length may be wrong, the search goes on with the next length that has its checksum. An
    incomplete last record, as a killed program leaves it, does not count as damaged.
    """
    found, damaged, start = [], 0, 0
    while len(data) - start >= HEADER:
        end = None  # of the record, if its length is right
        if _holds(data[start : start + 8], data[start + 8 : start + HEADER]):
            end = start + HEADER + int.from_bytes(data[start : start + 8], "little") + FOOTER
            if end <= len(data) and _holds(data[start + HEADER : end - FOOTER], data[end - FOOTER : end]):
                found.append(data[start:end])
                start = end
                continue
        following = _next_start(data, start + 1)
        if end is not None and following == len(data) < end:
            break
        damaged, start = damaged + following - start, following
    return found, damaged


def _holds(content: bytes, checksum: bytes) -> bool:
    return masked_crc(content) == int.from_bytes(checksum, "little")


def _next_start(data: bytes, start: int, step: int = 2**20) -> int:
    """The first position from `start` that has a length with its checksum; the end of `data` if there is none."""
    for begin in range(start, len(data), step):
        part = np.frombuffer(data[begin : begin + step + HEADER - 1], np.uint8).astype(np.uint32)
        num = len(part) - HEADER + 1
        if num <= 0:
            break
        crc = np.full(num, ONES, np.uint32)
        for i in range(8):
            crc = _next(crc, part[i : i + num])
        crc ^= np.uint32(ONES)
        masked = (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)
        stored = sum(part[8 + i : 8 + i + num] << (8 * i) for i in range(4))
        if len(places := np.flatnonzero(masked == stored)):
            return begin + int(places[0])
    return len(data)
