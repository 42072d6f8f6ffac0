#!/usr/bin/env python3
"""Reads an index file of format 1 and verifies all of it.

    python3 index.py FILE.idx    prints every event's place, and every term with its ordinals

Written from the specification ("Index file"), not from the Rust code, to show that the specification is enough.
"""

import sys

from decode import Damaged, blake3, check_preamble, checksum, integer

HEADER, BLOCK = 192, 4096
SECTIONS = (
    "filter", "slots", "anchors", "terms", "gaps", "jumps", "removed", "large frames", "offsets", "lists"
)
KINDS = ("entity", "scope", "kind", "tag", "correlation", "foreign", "cause", "follower", "key")
SALTS = (0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31)


class Index:
    def __init__(self, bytes_, file="index"):
        self.bytes, self.file = bytes_, file
        self.expect(checksum(bytes_[:188]) == integer(bytes_, 188, 4), 188, "the header's checksum")
        check_preamble(bytes_, b"ANNALIDX", file)
        self.store_id, self.end = bytes_[40:56], integer(bytes_, 68, 4)
        numbers = [integer(bytes_, at, 4) for at in range(112, 132, 4)]
        self.events, self.first, self.ordinals_end, self.born, self.terms = numbers
        at, self.places = HEADER, {}
        for number, name in enumerate(SECTIONS):
            size = integer(bytes_, 132 + 4 * number, 4)
            self.places[name] = (at, at + size)
            rounded = -(-(at + size) // 16) * 16
            self.expect(not any(bytes_[at + size : rounded]), at + size, f"zeros behind {name}")
            at = rounded
        blocks = [bytes_[max(start, HEADER) : min(start + BLOCK, at)] for start in range(0, at, BLOCK)]
        table = b"".join(checksum(block).to_bytes(4, "little") for block in blocks)
        self.expect(bytes_[at:] == table, at, "the table of checksums")
        self.expect(checksum(table) == integer(bytes_, 172, 4), 172, "the checksum of the table")
        self.expect(len(self.section("offsets")) == 4 * self.events, 112, "the number of events")

    def expect(self, is_right, offset, what):
        if not is_right:
            raise Damaged(self.file, offset, f"{what} is wrong")

    def section(self, name):
        start, end = self.places[name]
        return self.bytes[start:end]

    def numbers(self, first, count, section, size, entries):
        """Numbers that follow each other, but for those that entries of a section name."""
        table, found = self.section(section), []
        jumps = {integer(table, size * at, 4): integer(table, size * at + 4, size - 4) for at in entries}
        for slot in range(count):
            found.append(jumps.get(slot, found[-1] + 1 if found else first))
        return found

    def ordinals(self):
        gaps = range(len(self.section("gaps")) // 8)
        ordinals = self.numbers(self.first, self.events, "gaps", 8, gaps)
        self.expect((ordinals[-1] + 1 if ordinals else 0) == self.ordinals_end, 120, "ordinals end")
        return ordinals

    def events_places(self):
        """Each event's ordinal, and where its frame begins and ends; in a large frame, its record."""
        table, large = self.section("offsets"), self.section("large frames")
        offsets = [integer(table, 4 * slot, 4) for slot in range(self.events)]
        frames = [[integer(large, at + field, 4) for field in (0, 4, 8)] for at in range(0, len(large), 64)]
        counts = [integer(large, at + 12, 2) for at in range(0, len(large), 64)]
        of = {}
        for (offset, size, first), count in zip(frames, counts):
            of.update((ordinal, (offset, offset + size)) for ordinal in range(first, first + count))
        ordinals = self.ordinals()
        # Where the frame of each event begins.
        starts = [of.get(ordinal, (offset,))[0] for ordinal, offset in zip(ordinals, offsets)]
        removed = self.section("removed")
        removed = {integer(removed, at + 4, 4): integer(removed, at, 4) for at in range(0, len(removed), 8)}
        for slot, (ordinal, offset) in enumerate(zip(ordinals, offsets)):
            if ordinal in of:
                start, end = of[ordinal]
                self.expect(start < offset < end, slot, "the record of an event")
                yield ordinal, offset, min([end] + offsets[slot + 1 : slot + 2])
                continue
            behind = [other for other in starts[slot:] if other != offset]
            end = behind[0] if behind else self.end
            yield ordinal, offset, removed.get(end, end)

    def all_terms(self):
        """Each term's place, kind, name, ordinals and (an entity's) versions, in the order of the file."""
        table, lists, at = self.section("terms"), self.section("lists"), 0
        while at < len(table):
            start, flags = at, table[at]
            run, list_, version, jumps = (flags >> bit & 1 for bit in (4, 5, 6, 7))
            length, first, at = integer(table, at + 1, 2), integer(table, at + 3, 4), at + 7
            count, first_version, own_jumps = 1, 1, range(0)
            if run or list_:
                count, at = integer(table, at, 4), at + 4
            if list_:
                last, entry, at = integer(table, at, 4), integer(table, at + 4, 4), at + 8
                ordinals = [integer(lists, 4 * (entry + nth), 4) for nth in range(count)]
                self.expect((ordinals[0], ordinals[-1]) == (first, last), start, "an end of a list")
            else:
                ordinals = list(range(first, first + count))
            if version:
                first_version, at = integer(table, at, 8), at + 8
            if jumps:
                own_jumps, at = range(integer(table, at, 4), integer(table, at + 4, 4)), at + 8
            name, at = table[at : at + length], at + length
            kind = flags & 15
            versions = self.numbers(first_version, count, "jumps", 12, own_jumps) if kind == 0 else None
            yield start, kind, name, ordinals, versions

    def find(self, kind, name):
        """Where a term begins, by its hash; checks the filter on the way."""
        hash_ = integer(blake3(bytes([kind]), name, key=self.store_id + b"annals term hash"), 0, 8)
        filter_, slots = self.section("filter"), self.section("slots")
        block = 32 * ((hash_ >> 32) * (len(filter_) // 32) >> 32)
        words = [integer(filter_, block + 4 * number, 4) for number in range(8)]
        bits = [((hash_ & 0xFFFFFFFF) * salt & 0xFFFFFFFF) >> 27 for salt in SALTS]
        self.expect(all(word >> bit & 1 for word, bit in zip(words, bits)), block, "the filter")
        count = len(slots) // 6
        at = hash_ * count >> 64
        while (place := integer(slots, 6 * at + 2, 4)) != 0xFFFFFFFF:
            if integer(slots, 6 * at, 2) == hash_ & 0xFFFF:
                yield place
            at = (at + 1) % count

    def lines(self):
        for ordinal, start, end in self.events_places():
            yield f"{ordinal} {start}..{end}"
        before, starts = None, []
        for start, kind, name, ordinals, versions in self.all_terms():
            self.expect(before is None or before < (kind, name), start, "the order of the terms")
            self.expect(start in self.find(kind, name), start, "the slot of a term")
            before = (kind, name)
            starts.append(start)
            words = [KINDS[kind], name.decode() if kind < 4 else name.hex() or "-"]
            words += [f"{ordinal}" for ordinal in ordinals]
            yield " ".join(words + ([f"v{version}" for version in versions] if versions else []))
        self.expect(len(starts) == self.terms, 128, "the number of terms")
        anchors = self.section("anchors")
        for number in range(len(anchors) // 4):
            right = min(start for start in starts if start >= 1024 * number)
            self.expect(integer(anchors, 4 * number, 4) == right, number, "an anchor")


def main(arguments):
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    with open(arguments[0], "rb") as file:
        bytes_ = file.read()
    try:
        for line in Index(bytes_, arguments[0]).lines():
            print(line)
    except Damaged as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
