"""Rewrites a shared library's need of GLIBCXX_3.4.32 into one of 3.4.30: usage: lower-glibcxx.py FILE

A file that does not need it is left as it is.

The name of the version lies in .dynstr, its ELF hash in .gnu.version_r; both have the length of what replaces them.
"""
import os
import struct
import sys

OLD, NEW = "GLIBCXX_3.4.32", "GLIBCXX_3.4.30"
SHT_STRTAB, SHF_ALLOC, SHT_GNU_VERNEED = 3, 2, 0x6FFFFFFE


def elf_hash(name):
    h = 0
    for c in name.encode():
        h = (h << 4) + c
        high = h & 0xF0000000
        h = (h ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return struct.pack("<I", h)


def sections(data):
    offset, = struct.unpack_from("<Q", data, 40)
    count, = struct.unpack_from("<H", data, 60)
    for i in range(count):
        _, kind, flags, _, start, size = struct.unpack_from("<IIQQQQ", data, offset + 64 * i)
        yield kind, flags, start, size


path, = sys.argv[1:]
data = bytearray(open(path, "rb").read())
names = hashes = 0
for kind, flags, start, size in sections(data):
    if kind == SHT_STRTAB and flags & SHF_ALLOC:
        at = data.find(OLD.encode() + b"\0", start, start + size)
        if at >= 0:
            data[at:at + len(NEW)] = NEW.encode()
            names += 1
    elif kind == SHT_GNU_VERNEED:
        for at in range(start, start + size, 4):
            if data[at:at + 4] == elf_hash(OLD):
                data[at:at + 4] = elf_hash(NEW)
                hashes += 1
if names != hashes or names > 1:
    sys.exit(f"{path}: {names} names and {hashes} hashes of {OLD} found, as many and at most 1 expected")
if names == 1:
    with open(path + ".lowered", "wb") as lowered:
        lowered.write(data)
    os.replace(path + ".lowered", path)
