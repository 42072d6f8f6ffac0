//! Annotated hex: the form of the golden files, and of the worked examples in the specification.
//!
//! A line is an offset, bytes, and what they are; `00 * 400` stands for 400 zeros, `#` begins a
//! comment. Written after the specification, not with the crate: it shares no code with `src/`.
//! Included by src/format/tests.rs and by tests/it/golden.rs.

/// The bytes of an annotated file; every offset must fit what came before.
pub(crate) fn strip(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut start = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (offset, rest) = line.split_once("  ").expect("an offset and bytes");
        let offset = usize::from_str_radix(offset, 16).expect("a hexadecimal offset");
        let start = *start.get_or_insert(offset);
        assert_eq!(offset, start + bytes.len(), "the offset of {line:?}");
        let hex = rest.split("  ").next().expect("bytes");
        match hex.split_once(" * ") {
            Some((byte, count)) => {
                bytes.resize(bytes.len() + count.parse::<usize>().expect("a count"), hex_byte(byte));
            }
            None => bytes.extend(hex.split(' ').map(hex_byte)),
        }
    }
    bytes
}

fn hex_byte(digits: &str) -> u8 {
    assert_eq!(digits.len(), 2, "{digits:?} is no byte");
    u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
}

/// Writes annotated hex of bytes that lie at `start` in their file.
pub(crate) struct Notes<'a> {
    bytes: &'a [u8],
    start: usize,
    at: usize,
    text: String,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(title: &str, start: usize, bytes: &'a [u8]) -> Notes<'a> {
        Notes { bytes, start, at: 0, text: format!("# {title}\n") }
    }

    /// The text; every byte must have been named.
    pub(crate) fn finish(self) -> String {
        assert_eq!(self.at, self.bytes.len(), "all bytes are named in {}", self.text);
        self.text
    }

    /// Begins a part with a heading.
    pub(crate) fn part(&mut self, heading: &str) {
        self.text += &format!("# {heading}\n");
    }

    /// Names the next `count` bytes.
    pub(crate) fn take(&mut self, count: usize, name: &str) -> &'a [u8] {
        let bytes = &self.bytes[self.at..self.at + count];
        if count > 16 && bytes.iter().all(|byte| *byte == 0) {
            self.line(&format!("00 * {count}"), name);
        } else {
            for (index, line) in bytes.chunks(16).enumerate() {
                let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                self.line(&hex.join(" "), if index == 0 { name } else { "" });
                self.at += line.len();
            }
            self.at -= count;
        }
        self.at += count;
        bytes
    }

    fn line(&mut self, hex: &str, name: &str) {
        let line = format!("{:04x}  {hex:47}  {name}", self.start + self.at);
        self.text += line.trim_end();
        self.text.push('\n');
    }

    /// Names an integer of `size` bytes, and says its value.
    fn int(&mut self, size: usize, name: &str) -> usize {
        let value = le(&self.bytes[self.at..self.at + size]);
        let shown = i64::try_from(value).map_or_else(|_| "a random number".to_owned(), |v| v.to_string());
        self.take(size, &format!("{name}: {shown}"));
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    fn string(&mut self, size: usize, name: &str) {
        let text = String::from_utf8_lossy(&self.bytes[self.at..self.at + size]).into_owned();
        if size > 0 {
            self.take(size, &format!("{name} {text:?}"));
        }
    }

    fn preamble(&mut self) {
        self.string(8, "magic");
        self.int(2, "major version");
        self.int(2, "minor version");
        self.take(4, "zero");
        let features = self.bytes[self.at..self.at + 16].to_vec();
        let named = |bits: &[u8], name: &str| if bits[0] == 1 { name.to_owned() } else { "none".to_owned() };
        self.take(8, &format!("incompatible features: {}", named(&features[..8], "cut")));
        self.take(8, &format!("read-only features: {}", named(&features[8..], "changing")));
        self.take(8, "compatible features: none");
    }

    /// A segment's header; its salt.
    pub(crate) fn segment_header(&mut self) -> u64 {
        self.preamble();
        self.take(16, "store id");
        self.int(8, "first position");
        self.int(4, "generation");
        self.take(4, "zero");
        let salt = le(self.take(8, "salt"));
        self.int(8, "created-at");
        self.int(8, "unsynced-bytes-max");
        self.take(32, "chain before");
        self.int(8, "recorded-at before");
        self.take(4, "zero");
        self.take(4, "checksum of 0..140");
        salt
    }

    /// A whole segment file, up to its end.
    pub(crate) fn segment(&mut self) {
        self.part("segment header");
        let salt = self.segment_header();
        while let Some(mark) = self.bytes.get(self.at..self.at + 8) {
            let mark = le(mark) ^ salt ^ u64::try_from(self.start + self.at).expect("an offset");
            match mark.to_le_bytes() {
                [0, 0, 0, 0, 0, 0, 0, 0] => self.frame(),
                bytes if bytes == *b"SEALSEAL" => self.seal(),
                bytes if bytes == *b"ATTESTED" => self.attestation(),
                _ => break,
            }
        }
        let rest = self.bytes.len() - self.at;
        if rest > 0 {
            self.part("behind the last frame");
            self.take(rest, "zeros ahead");
        }
    }

    pub(crate) fn frame(&mut self) {
        self.part("frame: header");
        self.take(8, "mark: salt XOR offset");
        self.take(4, "header checksum");
        let body = self.int(4, "body length");
        self.int(4, "position offset");
        self.int(4, "durable end");
        let events = self.int(2, "events");
        let flags = self.flags(&[(0x0100, "key"), (0x0200, "versions in the records")]);
        self.int(8, "recorded-at");
        self.int(8, "first version");
        self.take(32, "chain");
        if flags & 0x0100 != 0 {
            self.take(16, "key");
        }
        if events > 1 {
            self.take(4, "body checksum");
        }
        let body_start = self.at;
        for event in 0..events {
            self.part(&format!("frame: record of event {event}"));
            self.record(flags & 0x0200 != 0);
        }
        let rest = body_start + body - self.at;
        if rest > 0 {
            self.take(rest, "zeros up to a multiple of 8");
        }
    }

    /// Names two bytes of flags, and says which of the named ones are set.
    fn flags(&mut self, names: &[(u64, &str)]) -> u64 {
        let flags = le(&self.bytes[self.at..self.at + 2]);
        let set: Vec<&str> =
            names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
        let set = if set.is_empty() { "none".to_owned() } else { set.join(", ") };
        self.take(2, &format!("flags: {set}"));
        flags
    }

    fn record(&mut self, has_version: bool) {
        self.take(4, "checksum, with that of the place");
        let private = self.int(3, "private length");
        let form = self.bytes[self.at];
        self.take(1, ["form: whole", "form: erased", "form: gone"][usize::from(form)]);
        self.int(2, "public length");
        if has_version {
            self.int(6, "version");
        }
        if form == 2 {
            self.take(32, "content hash of the record that was here");
            return;
        }
        let cause = self.bytes[self.at] >> 4 & 0b11;
        let cause_name =
            ["", "cause: an event", "cause: in the append", "cause: previous"][usize::from(cause)];
        let flags = self.flags(&[
            (0x0001, "correlation"),
            (0x0002, "occurred-at"),
            (0x0004, "metadata"),
            (0x0008, "foreign id"),
            (0x0030, cause_name),
            (0x0100, "schema version"),
            (0x0200, "tags"),
        ]);
        let entity = self.int(2, "entity length");
        let scope = self.int(1, "scope length");
        let kind = self.int(1, "kind length");
        self.string(entity, "entity");
        self.string(scope, "scope");
        self.string(kind, "kind");
        if flags & 0x0100 != 0 {
            self.int(2, "schema version");
        }
        let tags = if flags & 0x0200 == 0 { 0 } else { self.int(1, "tags") };
        for _ in 0..tags {
            let length = self.int(1, "tag length");
            self.string(length, "tag");
        }
        if flags & 1 != 0 {
            self.take(16, "correlation");
        }
        if flags & 2 != 0 {
            self.int(8, "occurred-at");
        }
        if flags & 8 != 0 {
            self.take(16, "foreign id");
        }
        match cause {
            1 => _ = self.take(16, "cause: the event with this id"),
            2 => _ = self.int(2, "cause: the event of this append with the index"),
            _ => {}
        }
        if form == 1 {
            self.take(32, "BLAKE3 of the private part that was here");
            return;
        }
        self.take(16, "salt");
        let mut payload = private - 16;
        if flags & 4 != 0 {
            let metadata = self.int(4, "metadata length");
            self.take(metadata, "metadata (MessagePack)");
            payload -= 4 + metadata;
        }
        if payload > 0 {
            self.take(payload, "payload (MessagePack)");
        }
    }

    pub(crate) fn seal(&mut self) {
        self.part("seal");
        self.take(8, "mark: salt XOR offset XOR \"SEALSEAL\"");
        self.take(4, "checksum");
        self.int(4, "length of the file");
        self.int(8, "last position");
        self.int(8, "last recorded-at");
        self.int(4, "frames");
        self.int(4, "events");
        self.take(32, "chain");
    }

    pub(crate) fn attestation(&mut self) {
        self.part("attestation");
        self.take(8, "mark: salt XOR offset XOR \"ATTESTED\"");
        self.take(4, "checksum, with that of what stands in front");
        self.int(4, "positions");
        self.int(6, "order");
        let roots = self.int(1, "roots");
        self.take(1, "flags: none");
        self.int(8, "last recorded-at");
        self.take(32, "chain after");
        for root in 0..roots {
            self.take(32, &format!("root {root}"));
        }
    }

    pub(crate) fn mark_slot(&mut self) {
        self.preamble();
        self.take(16, "store id");
        self.int(8, "sequence");
        self.int(8, "segment: first position");
        self.int(4, "segment: generation");
        self.int(4, "durable end");
        self.int(8, "position");
        self.take(32, "chain");
        let flags = le(&self.bytes[self.at..self.at + 4]);
        self.take(4, if flags & 1 != 0 { "flags: closed cleanly" } else { "flags: none" });
        self.take(4, "checksum of 0..124");
    }

    /// A whole MARK file.
    pub(crate) fn mark_file(&mut self) {
        for (slot, stride) in [("slot 0", 4096), ("slot 1", 4096)] {
            self.part(slot);
            let end = self.at + stride;
            if self.bytes[self.at] != 0 {
                self.mark_slot();
            }
            self.take(end - self.at, "zeros up to the end of the slot");
        }
    }

    pub(crate) fn manifest(&mut self) {
        self.preamble();
        self.take(16, "store id");
        self.int(8, "sequence");
        self.int(8, "history revision");
        self.int(8, "created-at");
        self.take(32, "BLAKE3 of the manifest before");
        self.take(16, "line");
        let segments = self.int(4, "segments");
        let lineages = self.int(4, "lineages");
        for index in 0..lineages {
            self.part(&format!("lineage {index}"));
            self.take(16, "store id of the origin");
            self.int(8, "up to position");
        }
        for index in 0..segments {
            self.part(&format!("segment {index}"));
            self.int(8, "first position");
            self.int(8, "last position");
            self.int(4, "generation");
            self.int(4, "length of the file");
            self.int(4, "frames");
            self.int(4, "events");
            self.int(8, "recorded-at before");
            self.int(8, "last recorded-at");
            self.take(32, "chain");
            self.int(4, "streams that begin in it, plus one");
            self.take(52, "zero");
        }
        self.part("digest");
        self.take(32, "BLAKE3 of all bytes before");
    }
}

/// The parts of an index file.
impl Notes<'_> {
    /// A whole index file.
    pub(crate) fn index_file(&mut self) {
        self.part("header");
        self.preamble();
        self.take(16, "store id");
        self.int(8, "segment: first position");
        self.int(4, "segment: generation");
        self.int(4, "end");
        self.int(8, "last position");
        self.take(32, "chain");
        self.int(4, "events");
        self.int(4, "first ordinal");
        self.int(4, "ordinals end");
        self.int(4, "born");
        self.int(4, "terms");
        let names = [
            "filter",
            "slots",
            "anchors",
            "terms",
            "gaps",
            "jumps",
            "removed",
            "large frames",
            "offsets",
            "lists",
        ];
        let bytes = names.map(|name| self.int(4, &format!("bytes of {name}")));
        self.take(4, "checksum of the table of checksums");
        self.int(4, "frames");
        self.take(8, "zero");
        self.take(4, "checksum of 0..188");
        for (name, bytes) in names.into_iter().zip(bytes) {
            let end = self.at + bytes;
            if bytes > 0 {
                self.part(name);
            }
            let mut entry = 0;
            while self.at < end {
                self.index_entry(name, entry);
                entry += 1;
            }
            assert_eq!(self.at, end, "{name} ends with an entry");
            let rest = end.next_multiple_of(16) - end;
            if rest > 0 {
                self.take(rest, "zeros up to a multiple of 16");
            }
        }
        self.part("table of checksums");
        for block in 0..self.at.div_ceil(4096) {
            self.take(4, &format!("checksum of block {block}"));
        }
    }

    pub(crate) fn tree_file(&mut self) {
        self.part("header");
        self.preamble();
        self.take(16, "store id");
        let first = self.int(8, "segment: first position");
        self.int(4, "segment: generation");
        self.int(4, "end");
        let last = self.int(8, "last position");
        self.take(32, "chain");
        let pieces = self.int(4, "pieces");
        let large = self.int(4, "large events");
        self.take(4, "checksum of pieces and levels");
        self.take(4, "checksum of large events");
        self.take(12, "zero");
        self.take(4, "checksum of 0..140 and the roots");
        self.part("roots");
        let mut leaf = first - 1;
        while leaf < last {
            let mut leaves = 1;
            while leaf.is_multiple_of(2 * leaves) && leaf + 2 * leaves <= last {
                leaves *= 2;
            }
            self.take(32, &format!("of positions {} to {}", leaf + 1, leaf + leaves));
            leaf += leaves;
        }
        self.part("pieces");
        for piece in 0..pieces {
            self.take(32, &format!("piece {piece}"));
        }
        self.part("levels");
        for piece in 0..pieces {
            self.int(1, &format!("of piece {piece}"));
        }
        for _ in 0..large {
            self.part("large event");
            self.int(8, "position");
            self.take(32, "leaf");
        }
    }

    fn index_entry(&mut self, section: &str, entry: usize) {
        match section {
            "filter" => _ = self.take(32, &format!("block {entry}: eight words")),
            "slots" => {
                let term = le(&self.bytes[self.at + 2..self.at + 6]);
                let free = format!("slot {entry}: free");
                let used = format!("slot {entry}: fingerprint, the term at {term}");
                self.take(6, if term == 0xFFFF_FFFF { &free } else { &used });
            }
            "anchors" => _ = self.int(4, &format!("the first term at or behind {} begins at", entry * 1024)),
            "terms" => self.term(),
            "gaps" => {
                self.int(4, "slot");
                self.int(4, "ordinal");
            }
            "jumps" => {
                self.int(4, "slot");
                self.int(8, "version");
            }
            "large frames" => self.large_frame(),
            "removed" => {
                self.int(4, "removed from");
                self.int(4, "up to");
            }
            "offsets" => _ = self.int(4, &format!("offset of event {entry}")),
            _ => _ = self.int(4, &format!("entry {entry}: ordinal")),
        }
    }

    fn large_frame(&mut self) {
        self.int(4, "offset");
        self.int(4, "bytes");
        self.int(4, "first ordinal");
        self.int(2, "events");
        self.int(2, "flags");
        self.int(8, "recorded-at");
        self.int(8, "first version");
        self.take(32, "chain");
    }

    fn term(&mut self) {
        const KINDS: [&str; 9] =
            ["entity", "scope", "kind", "tag", "correlation", "foreign id", "cause", "followers", "key"];
        let flags = le(&self.bytes[self.at..self.at + 1]);
        let kind = KINDS[usize::try_from(flags & 0xF).expect("four bits")];
        let [run, list, version, jumps] = [4, 5, 6, 7].map(|bit| flags >> bit & 1 == 1);
        let bits = [(run, "run"), (list, "list"), (version, "version"), (jumps, "jumps")];
        let named: Vec<&str> = bits.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
        self.take(1, &[&[kind], named.as_slice()].concat().join(", "));
        let name = self.int(2, "name length");
        self.int(4, "first ordinal");
        if run || list {
            self.int(4, "count");
        }
        if list {
            self.int(4, "last ordinal");
            self.int(4, "first entry of its list");
        }
        if version {
            self.int(8, "version of its first event here");
        }
        if jumps {
            self.int(4, "first jump");
            self.int(4, "behind its last jump");
        }
        match kind {
            "entity" | "scope" | "kind" | "tag" => self.string(name, "name"),
            _ if name > 0 => _ = self.take(name, "the id or key"),
            _ => {}
        }
    }
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
