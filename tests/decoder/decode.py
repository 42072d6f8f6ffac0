#!/usr/bin/env python3
"""Reads an annals store of format 1 and verifies all of it.

    python3 decode.py DIR            prints `position id chain` for every event
    python3 decode.py --events DIR   prints everything an event holds
    python3 decode.py --roots FIRST LAST DIR
                                     prints the roots that an attestation of these positions would have

Written from the specification ("Format 1: every byte on disk"), not from the Rust code, to show that the
specification is enough. Standard library only; no writer should have the store open.
Ends with 1 and a message if anything is damaged, missing or not known, with 2 if called wrongly.
"""

import hashlib
import os
import struct
import sys
import uuid


class Damaged(Exception):
    """Bytes are not what they should be, or need a newer reader."""

    def __init__(self, file, offset, what):
        super().__init__(f"{file}, offset {offset}: {what}")


class Newer(Damaged):
    pass


class Forbidden(Damaged):
    """The checksum fits, and the value is one that no writer writes: never a torn tail."""


# --- Checksum and hash -------------------------------------------------------------------------------


def crc_table():
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        yield value


CRC_TABLE = list(crc_table())


def checksum(*pieces):
    """CRC-32C over the pieces joined together."""
    crc = 0xFFFFFFFF
    for piece in pieces:
        for byte in piece:
            crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED = 1, 2, 4, 8, 16


def compress(chaining, block, counter, length, flags):
    """The BLAKE3 compression function: the first half of its output."""
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    state = list(chaining) + list(IV[:4]) + [counter & 0xFFFFFFFF, counter >> 32, length, flags]
    for turn in range(7):
        for index, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
            for word, turns in ((words[2 * index], (16, 12)), (words[2 * index + 1], (8, 7))):
                state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
                state[d] = rotate(state[d] ^ state[a], turns[0])
                state[c] = (state[c] + state[d]) & 0xFFFFFFFF
                state[b] = rotate(state[b] ^ state[c], turns[1])
        words = [words[index] for index in PERMUTATION]
    return [state[index] ^ state[index + 8] for index in range(8)]


def rotate(word, turns):
    return (word >> turns | word << (32 - turns)) & 0xFFFFFFFF


def blake3(*pieces, key=None):
    """BLAKE3 over the pieces joined together, keyed if there is a key: 32 bytes."""
    data = b"".join(pieces)
    start = struct.unpack("<8I", key) if key else IV
    mode = KEYED if key else 0

    def chunk(counter, root):
        bytes_ = data[counter * 1024 : counter * 1024 + 1024]
        blocks = [bytes_[at : at + 64] for at in range(0, len(bytes_), 64)] or [b""]
        value = start
        for index, block in enumerate(blocks):
            flags = mode | (CHUNK_START if index == 0 else 0)
            if index + 1 == len(blocks):
                flags |= CHUNK_END | (ROOT if root else 0)
            value = compress(value, block, counter, len(block), flags)
        return value

    def tree(first, count, root):
        if count == 1:
            return chunk(first, root)
        left = 1 << ((count - 1).bit_length() - 1)
        block = struct.pack("<16I", *tree(first, left, False), *tree(first + left, count - left, False))
        return compress(start, block, 0, 64, mode | PARENT | (ROOT if root else 0))

    return struct.pack("<8I", *tree(0, max(1, -(-len(data) // 1024)), True))


# --- Structures --------------------------------------------------------------------------------------


def integer(bytes_, at, size):
    return int.from_bytes(bytes_[at : at + size], "little")


def check_preamble(bytes_, magic, file, offset=0, known=0, known_read_only=0):
    """After the checksum was found right."""
    if bytes_[:8] != magic:
        raise Damaged(file, offset, "the magic bytes are wrong")
    if integer(bytes_, 8, 2) != 1:
        raise Newer(file, offset, f"format {integer(bytes_, 8, 2)} needs a newer reader")
    if integer(bytes_, 16, 8) & ~known or integer(bytes_, 24, 8) & ~known_read_only:
        raise Newer(file, offset, "unknown features need a newer reader")


class Mark:
    """The newer valid slot of MARK."""

    def __init__(self, slot):
        self.store_id = slot[40:56]
        self.sequence = integer(slot, 56, 8)
        self.segment = (integer(slot, 64, 8), integer(slot, 72, 4))
        self.durable_end = integer(slot, 76, 4)
        self.position = integer(slot, 80, 8)
        self.chain = slot[88:120]
        self.clean = bool(integer(slot, 120, 4) & 1)


def read_mark(file):
    newest = None
    for at in (0, 4096):
        slot = file[at : at + 128]
        if len(slot) < 128 or checksum(slot[:124]) != integer(slot, 124, 4):
            continue
        if slot[:8] == b"ANNALMRK":
            check_preamble(slot, b"ANNALMRK", "MARK", at)
            mark = Mark(slot)
            if newest is None or mark.sequence > newest.sequence:
                newest = mark
    return newest


class Manifest:
    def __init__(self, file):
        if len(file) < 168:
            raise Damaged("MANIFEST", 0, "cut off")
        if blake3(file[:-32]) != file[-32:]:
            raise Damaged("MANIFEST", 0, "the digest is wrong")
        check_preamble(file, b"ANNALMAN", "MANIFEST", known=1, known_read_only=1)
        self.is_cut = bool(integer(file, 16, 8) & 1)
        self.store_id = file[40:56]
        segments, lineages = integer(file, 128, 4), integer(file, 132, 4)
        if len(file) != 136 + 24 * lineages + 136 * segments + 32:
            raise Damaged("MANIFEST", 128, "the counts do not fit the length")
        self.origins = [file[at : at + 16] for at in range(136, 136 + 24 * lineages, 24)]
        start = 136 + 24 * lineages
        self.listed = [file[at : at + 80] for at in range(start, start + 136 * segments, 136)]


def listed_id(entry):
    return integer(entry, 0, 8), integer(entry, 16, 4)


class Segment:
    """A segment file with a checked header."""

    def __init__(self, name, bytes_):
        self.name, self.bytes = name, bytes_
        header = bytes_[:144]
        if len(header) < 144 or checksum(header[:140]) != integer(header, 140, 4):
            raise Damaged(name, 0, "the header is damaged")
        check_preamble(header, b"ANNALSEG", name)
        self.store_id = header[40:56]
        self.id = (integer(header, 56, 8), integer(header, 64, 4))
        self.salt = integer(header, 72, 8)
        if self.salt & 7 != 4:
            raise Forbidden(name, 0, "no writer draws such a salt")
        self.unsynced_bytes_max = integer(header, 88, 8)
        self.chain_before = header[96:128]
        self.recorded_before = integer(header, 128, 8)

    def mark(self, offset, word=bytes(8)):
        return (self.salt ^ offset ^ integer(word, 0, 8)).to_bytes(8, "little")

    def header_at(self, offset):
        """A frame header whose mark and checksum fit; `None` if there is none."""
        fixed = self.bytes[offset : offset + 76]
        if len(fixed) < 76 or fixed[:8] != self.mark(offset):
            return None
        flags, events = integer(fixed, 26, 2), integer(fixed, 24, 2)
        size = 76 + (16 if flags & 0x0100 else 0) + (4 if events > 1 else 0)
        header = self.bytes[offset : offset + size]
        if len(header) < size or checksum(header[:8], header[12:]) != integer(header, 8, 4):
            raise Damaged(self.name, offset, "the frame header does not fit its checksum")
        if flags & 0xFF00 & ~0x0300:
            raise Newer(self.name, offset, f"unknown frame flags {flags:04x} need a newer reader")
        body = integer(header, 12, 4)
        if (size + body) % 8 or body > (16 << 20) - 4 or events == 0:
            raise Forbidden(self.name, offset, "impossible length or count in a frame header")
        return header


class Place:
    """Where a walk over a segment stands: behind the last frame."""

    def __init__(self, segment):
        self.offset = 144
        self.position = segment.id[0] - 1
        self.recorded_at = segment.recorded_before
        self.chain = segment.chain_before
        self.frames = self.events = 0


class Gap:
    """A number of events were removed here."""

    def __init__(self, events):
        self.removed = events


class Piece:
    """The bytes of one record in a body: what its lengths say, and nothing of its fields."""

    def __init__(self, body, start, has_version, fail):
        size = 16 if has_version else 10
        self.prefix = body[start : start + size]
        if len(self.prefix) < size:
            fail("a record is cut off")
        middle = start + size + integer(self.prefix, 8, 2)
        self.end = middle + integer(self.prefix, 4, 3)
        if self.end > len(body):
            fail("a record is longer than its body")
        self.public, self.private = body[start + size : middle], body[middle : self.end]
        self.version = integer(self.prefix, 10, 6) if has_version else None

    def fits(self, place):
        own = checksum(self.prefix[4:10], self.public, self.private)
        return own ^ checksum(place) == integer(self.prefix, 0, 4)


class Record:
    """One event, read from the bytes of its record."""

    def __init__(self, piece, fail):
        form, public, private = piece.prefix[7], piece.public, piece.private
        if form > 1:
            fail(f"record form {form} needs a newer reader")
        if len(private) < 16 if form == 0 else len(private) != 32:
            fail("a record's private part has a wrong length")
        self.read_public(public, fail)
        self.metadata = self.payload = None
        if form == 0:
            self.read_private(private, fail)
        self.content = blake3(b"\x00", public, blake3(private) if form == 0 else private)

    def read_public(self, public, fail):
        if len(public) < 6:
            fail("a public part is too short")
        flags, entity, scope, kind = struct.unpack("<HHBB", public[:6])
        if flags & 0xFC00:
            fail(f"unknown record flags {flags:04x} need a newer reader")
        rest = public[6:]

        def take(size):
            nonlocal rest
            if len(rest) < size:
                fail("a public part is too short")
            piece, rest = rest[:size], rest[size:]
            return piece

        def name(size):
            try:
                return take(size).decode("utf-8")
            except UnicodeDecodeError:
                return fail("a name is not UTF-8")

        if not 1 <= entity <= 4096 or kind == 0 or rest[entity : entity + scope] == b"default":
            fail("a name has an impossible length, or the default scope is spelled out")
        self.entity, self.scope, self.kind = name(entity), name(scope) or "default", name(kind)
        self.schema_version = integer(take(2), 0, 2) if flags & 0x0100 else 1
        tags = take(1)[0] if flags & 0x0200 else 0
        if (flags & 0x0100 and self.schema_version == 1) or (flags & 0x0200 and tags == 0):
            fail("what goes without saying is spelled out")
        self.tags = [name(take(1)[0]) for _ in range(tags)]
        if "" in self.tags or len(set(self.tags)) < len(self.tags):
            fail("a tag is empty, or comes twice")
        self.correlation = take(16) if flags & 0x0001 else None
        self.occurred_at = struct.unpack("<q", take(8))[0] if flags & 0x0002 else None
        self.foreign_id = take(16) if flags & 0x0008 else None
        form = flags & 0x0030
        self.cause = {0x0010: lambda: take(16), 0x0020: lambda: integer(take(2), 0, 2), 0x0030: lambda: "previous"}
        self.cause = self.cause[form]() if form else None
        self.has_metadata = bool(flags & 0x0004)
        if rest and not flags & 0x00C0:
            fail("a public part is longer than its fields")

    def read_private(self, private, fail):
        self.payload = private[16:]
        if self.has_metadata:
            size = integer(self.payload, 0, 4)
            if size == 0 or len(self.payload) < 4 + size:
                fail("metadata is longer than its record")
            self.metadata, self.payload = self.payload[4 : 4 + size], self.payload[4 + size :]


class Gone:
    """What is left of an event that compaction removed: the content hash."""

    def __init__(self, piece, fail):
        if piece.public or len(piece.private) != 32:
            fail("a record whose event is gone has a wrong length")
        self.content, self.foreign_id = piece.private, None


def event_id(recorded_at, position, chain):
    bits = (recorded_at // 1000 & (1 << 48) - 1) << 80 | 7 << 76 | (position >> 36 & 0xFFF) << 64
    bits |= 0b10 << 62 | (position & (1 << 36) - 1) << 26 | int.from_bytes(chain[:4], "big") & (1 << 26) - 1
    return bits.to_bytes(16, "big")


# --- Reading a segment -------------------------------------------------------------------------------


def walk(segment, events, met):
    """Walks a segment; the place it stopped at, and `sealed`, `open` or the reason it is not well.

    Appends to `events`; calls `met` with every place behind the header and behind a frame.
    """
    place = Place(segment)
    met(place)
    while True:
        try:
            ending = step(segment, place, events)
        except (Newer, Forbidden):
            raise
        except Invalid as invalid:
            return place, invalid.args[0]
        if ending:
            return place, ending
        met(place)


class Invalid(Exception):
    """What a torn tail may look like."""


def step(segment, place, events):
    bytes_, at = segment.bytes, place.offset
    head = bytes_[at : at + 8]
    if head == segment.mark(at, b"SEALSEAL"):
        return read_seal(segment, place)
    if head == segment.mark(at, b"ATTESTED"):
        return read_attestation(segment, place, events)
    try:
        header = segment.header_at(at)
    except (Newer, Forbidden):
        raise
    except Damaged as damaged:
        raise Invalid(damaged) from None
    if header is None:
        if not bytes_[at:].strip(b"\0"):
            return "open"
        raise Invalid(Damaged(segment.name, at, "no frame begins here"))
    return read_frame(segment, place, header, events)


def read_seal(segment, place):
    seal = segment.bytes[place.offset : place.offset + 72]
    expected = struct.pack(
        "<IQQII32s",
        place.offset + 72,
        place.position,
        place.recorded_at,
        place.frames,
        place.events,
        place.chain,
    )
    if len(seal) < 72 or checksum(seal[:8], seal[12:]) != integer(seal, 8, 4):
        raise Invalid(Damaged(segment.name, place.offset, "the seal is damaged"))
    if seal[12:] != expected:
        raise Forbidden(segment.name, place.offset, "the seal does not fit what it seals")
    return "sealed"


def read_attestation(segment, place, events):
    at = place.offset
    count = integer(segment.bytes, at + 22, 1)
    whole = segment.bytes[at : at + 64 + 32 * count]
    in_front = checksum(struct.pack("<Q", place.position + 1), place.chain)
    if len(whole) < 64 + 32 * count or checksum(whole[:8], whole[12:]) ^ in_front != integer(whole, 8, 4):
        raise Invalid(Damaged(segment.name, at, "the attestation is damaged"))
    if whole[23]:
        raise Newer(segment.name, at, f"unknown attestation flags {whole[23]:02x} need a newer reader")
    positions, recorded_at = integer(whole, 12, 4), integer(whole, 24, 8)
    last = place.position + positions
    if positions == 0 or len(cover(place.position, last)) != count:
        raise Forbidden(segment.name, at, "the attestation has another number of roots than its positions make")
    if (
        segment.id[1] == 0
        or last - segment.id[0] >= 1 << 32
        or last >= 1 << 48
        or recorded_at < place.recorded_at
    ):
        raise Damaged(segment.name, at, "the attestation does not continue the log")
    events.append(Gap(positions))
    place.offset, place.position, place.recorded_at = at + len(whole), last, recorded_at
    place.chain = whole[32:64]
    return None


def cover(start, end):
    """The sizes of the largest complete, aligned subtrees of these leaves, left to right."""
    sizes = []
    while start < end:
        size = 1 << (end - start).bit_length() - 1
        while start % size:
            size //= 2
        sizes.append(size)
        start += size
    return sizes


def roots(events, first, last):
    """The roots that an attestation of these positions has, while their events are there."""
    leaves = [leaf(event) for event in events if first <= event.position <= last]
    found = []
    for size in cover(first - 1, last):
        found.append(subtree_root(leaves[:size]))
        leaves = leaves[size:]
    return found


def leaf(event):
    numbers = struct.pack("<HHQQQ", *event.in_append, event.position, event.recorded_at, event.version)
    return hashlib.sha256(b"\x00ev01" + numbers + event.content + event.chain).digest()


def subtree_root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    middle = len(leaves) // 2
    halves = subtree_root(leaves[:middle]) + subtree_root(leaves[middle:])
    return hashlib.sha256(b"\x01" + halves).digest()


def whole_body(segment, at, header, body):
    """The records of a body, each with a right checksum."""
    count, flags = integer(header, 24, 2), integer(header, 26, 2)

    def torn(what):
        raise Invalid(Damaged(segment.name, at, what))

    def fail(what):
        # The body checksum of several events is right: nothing is torn.
        raise Damaged(segment.name, at, what)

    if len(body) < integer(header, 12, 4):
        torn("the body is cut off")
    if count == 1:
        fail = torn
    elif checksum(body) != integer(header, len(header) - 4, 4):
        torn("the body does not fit its checksum")
    first_version = integer(header, 36, 8)
    first_position = segment.id[0] + integer(header, 16, 4)
    pieces, start = [], 0
    for index in range(count):
        piece = Piece(body, start, flags & 0x0200, fail)
        version = first_version + index if piece.version is None else piece.version
        bound = struct.pack(
            "<QIHHQQQ32s",
            segment.salt,
            at + len(header) + start,
            index,
            count,
            first_position + index,
            version & 0xFFFFFFFFFFFFFFFF,
            integer(header, 28, 8),
            header[44:76],
        )
        if not piece.fits(bound):
            fail("a record does not fit its checksum")
        pieces.append(piece)
        start = piece.end
    if len(body) - start > 7 or body[start:].strip(b"\0"):
        fail("the body holds more than its events")
    return pieces


def read_frame(segment, place, header, events):
    at = place.offset

    def fail(what):
        raise Damaged(segment.name, at, what)

    position = segment.id[0] + integer(header, 16, 4)
    count, flags = integer(header, 24, 2), integer(header, 26, 2)
    recorded_at, first_version, chain = integer(header, 28, 8), integer(header, 36, 8), header[44:76]
    body = segment.bytes[at + len(header) : at + len(header) + integer(header, 12, 4)]
    pieces = whole_body(segment, at, header, body)
    if flags & 0x0200 and pieces[0].version != first_version:
        raise Forbidden(segment.name, at, "the first version is not the one in the first record")
    if position != place.position + 1:
        fail("the frame has another position than the one that comes next")
    if recorded_at < place.recorded_at:
        fail("the frame was recorded before the one in front of it")
    if position + count - 1 >= 1 << 48:
        fail("no event can have such a position")
    if integer(header, 20, 4) > at:
        fail("the frame claims that more was durable than was written")

    records = [(Gone if piece.prefix[7] == 2 else Record)(piece, fail) for piece in pieces]
    left = [record for record in records if isinstance(record, Record)]
    if len(left) < count and (segment.id[1] == 0 or not left):
        raise Forbidden(segment.name, at, "events are gone where none can be")
    content = records[0].content
    if count > 1:
        content = blake3(b"\x01", *(record.content for record in records))
    key = header[76:92] if flags & 0x0100 else b""
    own_versions = [struct.pack("<Q", piece.version) for piece in pieces if piece.version is not None]
    if key or own_versions:
        content = blake3(b"\x02", content, key, *own_versions)
    block = content + struct.pack("<QQQHHI", position, recorded_at, first_version, count, flags, 0)
    if blake3(block, key=place.chain) != chain:
        fail("the frame does not continue the chain")

    derived = [event_id(recorded_at, position + index, chain) for index in range(count)]
    ids = [record.foreign_id or own for record, own in zip(records, derived)]
    if not own_versions and len({record.entity for record in left}) > 1:
        fail("several entities, and no versions in the records")
    for index, record in enumerate(records):
        if isinstance(record, Gone):
            events.append(Gap(1))
            continue
        record.in_append = index, count
        record.position, record.recorded_at, record.chain = position + index, recorded_at, chain
        record.id, record.derived = ids[index], derived[index]
        record.version = pieces[index].version if own_versions else first_version + index
        record.correlation = record.correlation or ids[0]
        if isinstance(record.cause, int):
            if record.cause >= count:
                fail("the cause is an event that the append does not have")
            record.cause = ids[record.cause]
        record.place = (segment.name, at)
        events.append(record)
    place.offset = at + len(header) + len(body)
    place.position, place.recorded_at, place.chain = position + count - 1, recorded_at, chain
    place.frames, place.events = place.frames + 1, place.events + len(left)
    return None


# --- Reading a store ---------------------------------------------------------------------------------


def read_file(directory, name):
    try:
        with open(os.path.join(directory, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def name_of(id_):
    return f"{id_[0]:020}.{id_[1]}.seg"


def id_of(name):
    parts = name.split(".")
    if len(parts) == 3 and parts[2] == "seg" and parts[0].isdecimal() and parts[1].isdecimal():
        id_ = (int(parts[0]), int(parts[1]))
        return id_ if name_of(id_) == name else None
    return None


class Store:
    def __init__(self, directory):
        self.directory = directory
        self.events, self.notes = [], []
        self.mark = read_mark(read_file(directory, "MARK") or b"")
        manifest = read_file(directory, "MANIFEST")
        if manifest is None:
            raise Damaged("MANIFEST", 0, "there is no store here, or its manifest is missing")
        self.manifest = Manifest(manifest)
        if self.mark and self.mark.store_id != self.manifest.store_id:
            raise Damaged("MARK", 0, "it belongs to another store")
        self.mark_met = self.mark is None or self.manifest.is_cut
        self.last = None
        self.read_segments()
        if not self.mark_met:
            raise Damaged("MARK", 0, "acknowledged data is damaged or missing")
        self.check_versions()
        self.events = [event for event in self.events if isinstance(event, Record)]

    def read_segments(self):
        listed = {listed_id(entry): entry for entry in self.manifest.listed}
        next_ = integer(self.manifest.listed[-1], 8, 8) + 1 if listed else 1
        later = []
        for name in os.listdir(os.path.join(self.directory, "segments")):
            id_ = id_of(name)
            if id_ in listed:
                continue
            if id_ and id_[1] == 0 and id_[0] >= next_ and not self.manifest.is_cut:
                later.append(id_)
            else:
                self.notes.append(f"left alone: segments/{name}")
        later.sort()
        for id_ in [*listed, *later]:
            is_last = bool(later) and id_ == later[-1]
            if not self.read_segment(id_, listed.get(id_), is_last):
                self.notes.append(f"just being created: segments/{name_of(id_)}")
                later.pop()
        if not later and not listed:
            raise Damaged("segments", 0, "the first segment is missing")

    def read_segment(self, id_, entry, is_last):
        name = "segments/" + name_of(id_)
        bytes_ = read_file(self.directory, name)
        if bytes_ is None:
            raise Damaged(name, 0, "the segment is missing")
        try:
            segment = Segment(name, bytes_)
        except (Newer, Forbidden):
            raise
        except Damaged:
            spoken_of = self.mark and self.mark.segment >= id_
            if is_last and not spoken_of and len(bytes_) <= 65536 and not bytes_[144:].strip(b"\0"):
                return False
            raise
        self.check_continues(segment, id_)
        place, ending = walk(segment, self.events, lambda place: self.meet(segment, place))
        if is_last:
            self.judge(segment, place, ending)
        elif ending != "sealed" or place.offset + 72 != len(bytes_):
            raise ending if isinstance(ending, Exception) else Damaged(name, place.offset, "the segment is not sealed")
        if entry and entry != struct.pack(
            "<QQIIIIQQ32s",
            id_[0],
            place.position,
            id_[1],
            len(bytes_),
            place.frames,
            place.events,
            segment.recorded_before,
            place.recorded_at,
            place.chain,
        ):
            raise Damaged(name, place.offset, "the segment is not as MANIFEST lists it")
        self.last = place
        return True

    def check_continues(self, segment, id_):
        genesis = blake3(b"\x03", segment.store_id)
        before = (self.last.position, self.last.recorded_at, self.last.chain) if self.last else (0, 0, genesis)
        if segment.store_id not in [self.manifest.store_id, *self.manifest.origins]:
            raise Damaged(segment.name, 40, "the segment belongs to another store")
        if segment.id != id_ or segment.id[0] >= 1 << 48:
            raise Damaged(segment.name, 56, "the segment is another one than its name says")
        if (segment.id[0] - 1, segment.recorded_before, segment.chain_before) != before:
            raise Damaged(segment.name, 0, "the segment does not continue the one before it")

    def meet(self, segment, place):
        mark = self.mark
        if mark and mark.segment == segment.id and mark.durable_end == place.offset:
            self.mark_met |= (mark.position, mark.chain) == (place.position, place.chain)

    def judge(self, segment, place, ending):
        """How the log ends: the table under "Recovery"."""
        end, bytes_ = place.offset, segment.bytes
        marked = self.mark.durable_end if self.mark and self.mark.segment == segment.id else None
        tail = bytes_[end:].rstrip(b"\0")
        if ending == "sealed" or (self.mark and self.mark.clean and marked == end and not tail):
            return
        if marked is not None and marked > end:
            raise Damaged(segment.name, end, "MARK proves that more was durable")
        if self.repeated(segment, end, end + len(tail)) > end:
            raise Damaged(segment.name, end, "a later frame proves that more was durable")
        if end + len(tail) > end + segment.unsynced_bytes_max + 72:
            raise Damaged(segment.name, end, "damaged, and too far out for a torn tail")
        what = f"torn: {len(tail)} bytes" if tail else "not closed"
        self.notes.append(f"{what} at {segment.name}, offset {end}")

    def repeated(self, segment, start, end):
        greatest = 0
        for offset in range(start, end, 8):
            try:
                is_whole = segment.header_at(offset) is not None
            except Damaged as damaged:
                is_whole = isinstance(damaged, (Newer, Forbidden))
            if is_whole:
                greatest = max(greatest, integer(segment.bytes, offset + 20, 4))
        return greatest

    def check_versions(self):
        versions, removed = {}, 0
        for event in self.events:
            if isinstance(event, Gap):
                removed += event.removed
                continue
            before = versions.get(event.entity, 0)
            if not before < event.version <= min(before + 1 + removed, event.position):
                raise Damaged(*event.place, "a version does not follow its stream's last one")
            versions[event.entity] = event.version


# --- Printing ----------------------------------------------------------------------------------------


def line(event, everything):
    words = [str(event.position), str(uuid.UUID(bytes=event.id)), event.chain.hex()]
    if not everything:
        return " ".join(words)
    words += [f"entity={event.entity}", f"scope={event.scope}", f"kind={event.kind}"]
    words += [f"version={event.version}", f"schema={event.schema_version}", f"recorded={event.recorded_at}"]
    words.append(f"correlation={uuid.UUID(bytes=event.correlation)}")
    if event.occurred_at is not None:
        words.append(f"occurred={event.occurred_at}")
    if event.cause is not None:
        words.append(f"cause={event.cause if event.cause == 'previous' else uuid.UUID(bytes=event.cause)}")
    if event.tags:
        words.append(f"tags={','.join(event.tags)}")
    if event.payload is None:
        words.append("erased")
    else:
        if event.metadata is not None:
            words.append(f"metadata={event.metadata.hex()}")
        words.append(f"payload={event.payload.hex()}")
    return " ".join(words)


def main(arguments):
    run = None
    if arguments[:1] == ["--roots"] and len(arguments) == 4:
        run, arguments = (int(arguments[1]), int(arguments[2])), arguments[3:]
    everything = "--events" in arguments
    directories = [argument for argument in arguments if argument != "--events"]
    if len(directories) != 1 or directories[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    assert checksum(b"123456789") == 0xE3069283
    try:
        store = Store(directories[0])
    except (Damaged, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for note in store.notes:
        print(note, file=sys.stderr)
    if run:
        for root in roots(store.events, *run):
            print(root.hex())
        return 0
    for event in store.events:
        print(line(event, everything))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
