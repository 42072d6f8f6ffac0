//! A term of an index file, and the gaps in ever larger numbers.
//!
//! SPEC.md "Index file". Row: bytes.

use std::ops::Range;

use crate::format::{Damage, u16_at, u32_at, u64_at};

/// What a term is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TermKind {
    Entity,
    Scope,
    Kind,
    Tag,
    Correlation,
    ForeignId,
    Cause,
    Follower,
    Key,
}

impl TermKind {
    const ALL: [TermKind; 9] = [
        TermKind::Entity,
        TermKind::Scope,
        TermKind::Kind,
        TermKind::Tag,
        TermKind::Correlation,
        TermKind::ForeignId,
        TermKind::Cause,
        TermKind::Follower,
        TermKind::Key,
    ];

    /// As stored: its place among all.
    pub(super) const fn byte(self) -> u8 {
        match self {
            TermKind::Entity => 0,
            TermKind::Scope => 1,
            TermKind::Kind => 2,
            TermKind::Tag => 3,
            TermKind::Correlation => 4,
            TermKind::ForeignId => 5,
            TermKind::Cause => 6,
            TermKind::Follower => 7,
            TermKind::Key => 8,
        }
    }

    /// As stored, in front of a name: so names of different kinds stay apart.
    fn of(byte: u8) -> Result<TermKind, Damage> {
        let kind = TermKind::ALL.get(usize::from(byte)).copied();
        kind.ok_or(Damage::Bad("a term of the index is of no kind that there is"))
    }
}

/// A term's events: how many there are, where the list of their ordinals lies, and what can be told without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) kind: TermKind,
    pub(crate) name_bytes: u16,
    /// At least one.
    pub(crate) count: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// The list's first entry among the section's; without one, the ordinals follow each other.
    pub(crate) list: Option<u32>,
    /// Of an entity's first event here.
    pub(crate) version: u64,
    /// Which jumps are gaps in an entity's versions.
    pub(crate) jumps: Range<u32>,
}

const KIND_MASK: u8 = 0b1111;
const RUN: u8 = 1 << 4;
const LIST: u8 = 1 << 5;
const VERSION: u8 = 1 << 6;
const JUMPS: u8 = 1 << 7;

impl Term {
    /// The longest head: what stands before the name.
    pub(crate) const HEAD_MAX: usize = 35;

    /// The head; the name follows.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let run = self.list.is_none() && self.count > 1;
        let flags = [
            (RUN, run),
            (LIST, self.list.is_some()),
            (VERSION, self.version != 1),
            (JUMPS, !self.jumps.is_empty()),
        ];
        let set = flags.iter().filter(|(_, is_set)| *is_set).fold(0, |set, (flag, _)| set | flag);
        out.push(set | self.kind.byte());
        out.extend_from_slice(&self.name_bytes.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        if run || self.list.is_some() {
            out.extend_from_slice(&self.count.to_le_bytes());
        }
        if let Some(list) = self.list {
            out.extend_from_slice(&self.last.to_le_bytes());
            out.extend_from_slice(&list.to_le_bytes());
        }
        if self.version != 1 {
            out.extend_from_slice(&self.version.to_le_bytes());
        }
        if !self.jumps.is_empty() {
            out.extend_from_slice(&self.jumps.start.to_le_bytes());
            out.extend_from_slice(&self.jumps.end.to_le_bytes());
        }
    }

    /// Reads the head at the start of `bytes`, which may be longer; also says how long it is.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Term, usize), Damage> {
        const CUT: Damage = Damage::Bad("a term of the index is cut off");
        const WRONG: Damage = Damage::Bad("a term of the index has no list that can be");
        let flags = *bytes.first().ok_or(CUT)?;
        let mut rest = bytes.get(1..).ok_or(CUT)?;
        let mut take = |is_there: bool, size: usize| -> Result<&[u8], Damage> {
            let (field, behind) = rest.split_at_checked(if is_there { size } else { 0 }).ok_or(CUT)?;
            rest = behind;
            Ok(field)
        };
        let number =
            |field: &[u8], otherwise: u32| if field.is_empty() { otherwise } else { u32_at(field, 0) };
        let (has_run, has_list) = (flags & RUN != 0, flags & LIST != 0);
        let name_bytes = u16_at(take(true, 2)?, 0);
        let first = u32_at(take(true, 4)?, 0);
        let count = number(take(has_run || has_list, 4)?, 1);
        let last = take(has_list, 4)?;
        let list = take(has_list, 4)?;
        let version = take(flags & VERSION != 0, 8)?;
        let jumps = take(flags & JUMPS != 0, 8)?;
        let run_end = count.checked_sub(1).and_then(|behind| first.checked_add(behind)).ok_or(WRONG)?;
        let term = Term {
            kind: TermKind::of(flags & KIND_MASK)?,
            name_bytes,
            count,
            first,
            last: number(last, run_end),
            list: (!list.is_empty()).then(|| u32_at(list, 0)),
            version: if version.is_empty() { 1 } else { u64_at(version, 0) },
            jumps: if jumps.is_empty() { 0..0 } else { u32_at(jumps, 0)..u32_at(jumps, 4) },
        };
        if (has_run && has_list) || term.last < run_end || term.jumps.start > term.jumps.end {
            return Err(WRONG);
        }
        let head = bytes.len().saturating_sub(rest.len());
        Ok((term, head))
    }
}

/// A gap in ever larger numbers. Slot 0, zero 4, number 8.
pub(crate) const JUMP: usize = 16;

pub(crate) fn write_jump(out: &mut Vec<u8>, slot: u32, number: u64) {
    out.extend_from_slice(&slot.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Slot and number of the jump at the start of `bytes`.
pub(crate) fn read_jump(bytes: &[u8; JUMP]) -> (u32, u64) {
    (u32_at(bytes, 0), u64_at(bytes, 8))
}
