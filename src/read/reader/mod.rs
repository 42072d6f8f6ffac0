//! Reading: from a point to the head, forwards or backwards, then end.
//!
//! A read takes a snapshot when it begins and holds no lock while it goes on. It asks one segment's
//! index after the other, in growing windows, and reads the frames found: those that lie close
//! together in one go, each checked against its checksums.
//!
//! Finding an event and handing it over are two steps, and `inline(always)` marks the way between them: an event
//! that is moved through each function's result costs a quarter more (97 and 77 ns, from memory).
//! Row: reader.

mod ahead;
mod answers;
mod checked;
mod plan;
mod single;
mod walk;

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::SystemTime;

use crate::event::RecordedEvent;
use crate::format::FrameHeader;
use crate::index::{EventLocation, Direction};
use crate::log::Block;
use crate::read::view::{SelfCorrelations, Segment, Snapshot, LogView};
use crate::types::{Effort, Error, Position, Query, ResumeToken, micros_of};

pub use ahead::ReadAhead;
pub(crate) use answers::{by_either_id, count, count_in, exists, first_in, last};
use checked::{CheckedFrame, Found};
use plan::Plan;
pub(crate) use plan::{Origin, token_at};
pub(crate) use single::{EventLookup, event_at, event_with};
use walk::SequentialCursor;

/// Frames closer together than this are read in one go, gap and all.
const GAP_BYTES: u32 = 4 << 10;
/// What one go reads at most, unless a single frame is larger.
const RUN_BYTES: u32 = 256 << 10;
/// The first window, in ordinals or in events found; each further one of a segment is four times as
/// wide.
const FIRST_WINDOW: u32 = 256;
/// The widest: what is found in one is kept in memory, and the index is held while it is asked.
const WINDOW_MAX: u32 = 16 << 10;
/// The widest where each window looks up many lists first, so that this is done a few times only.
const WIDE_WINDOW_MAX: u32 = 256 << 10;

/// Events being read: an iterator, and until its first item a builder of what to read.
///
/// It sees the store as it was at its first item, and ends at the head of that moment. An error
/// comes as an item and ends the read; nothing is skipped silently.
///
/// ```
/// use annals::{Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// for cents in [500, 700, 900] {
///     store.append("account:alice", &Raw("account.deposited", &cents))?;
/// }
/// let newest = store.stream("account:alice").backwards().limit(2);
/// let cents: Vec<u64> = newest.map(|event| event?.decode()).collect::<Result<_, _>>()?;
/// assert_eq!(cents, [900, 700]);
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "a read does nothing until it is iterated"]
pub struct Read {
    plan: Plan,
    progress: Option<Progress>,
    ended: bool,
    refused: Option<Error>,
}

struct Progress {
    snapshot: Snapshot,
    own: SelfCorrelations,
    /// Positions that may still come, half-open.
    positions: Range<u64>,
    /// The segment at hand.
    segment: usize,
    /// Its ordinals that may still come, and how many to look at next.
    ordinals: Range<u32>,
    window: u32,
    /// Found, in the order they come.
    places: std::vec::IntoIter<EventLocation>,
    /// What was read last of the segment at hand, the frame of it that was checked last, and the event in it
    /// that was found last.
    block: Option<Block>,
    frame: CheckedFrame,
    found: Found,
    /// All events in their order need no index to be found.
    walk: Option<SequentialCursor>,
    left: u64,
}

impl Read {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, query: Query) -> Read {
        let plan = Plan {
            view,
            query,
            after: Position::START,
            origin: Origin::default(),
            up_to: None,
            versions: None,
            between: None,
            occurred: None,
            backwards: false,
            limit: u64::MAX,
        };
        Read { plan, progress: None, ended: false, refused: None }
    }

    /// Only events after this position (default: [`Position::START`], all). One beyond the head is of another
    /// history: the first item is an [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) then, unless
    /// [`Read::allow_beyond_head`] is said. [`Read::resume`] sees more.
    pub fn after(mut self, position: Position) -> Read {
        (self.plan.after, self.plan.origin.token) = (position, None);
        self
    }

    /// Only events after the place of a token. If the log has other events there now, or ends before it, the
    /// first item is an [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack).
    pub fn resume(mut self, token: ResumeToken) -> Read {
        (self.plan.after, self.plan.origin.token) = (token.position(), Some(token));
        self
    }

    /// A position beyond the head is no error: no event comes, unless there are some behind it by the first
    /// item. For positions of events that are not visible here yet, as in a store opened to read.
    pub fn allow_beyond_head(mut self) -> Read {
        self.plan.origin.may_be_ahead = true;
        self
    }

    /// Only these versions of the stream: `2..`, `..=5`. The query must ask for one entity and
    /// nothing else; otherwise the first item is an [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
    pub fn versions(mut self, versions: impl RangeBounds<u64>) -> Read {
        if self.plan.query.single_stream().is_none() {
            self.refused =
                Some(Error::invalid("versions(..) counts within one stream; read store.stream(entity)"));
        }
        self.plan.versions = Some(half_open(&versions, 0, u64::MAX, |version| version.saturating_add(1)));
        self
    }

    /// Only events recorded in this time, compared in whole microseconds. Costs a few reads to find
    /// the ends, then what it returns.
    pub fn between(mut self, times: impl RangeBounds<SystemTime>) -> Read {
        self.plan.between = Some(half_open_micros(&times));
        self
    }

    /// Only events that say they occurred in this time, compared in whole microseconds. A filter: it
    /// reads everything else, too.
    pub fn occurred(mut self, times: impl RangeBounds<SystemTime>) -> Read {
        self.plan.occurred = Some(in_micros(&times));
        self
    }

    /// Newest first.
    pub fn backwards(mut self) -> Read {
        self.plan.backwards = true;
        self
    }

    /// Reads and checks on a thread of its own, up to some thousand events ahead of whoever iterates. For long
    /// replays with work for each event (decoding, folding): with a core to spare they take half as long
    /// again less, and a slow disk is waited for meanwhile. It costs a thread, started at the first
    /// event and joined at the end or when this is dropped, and about 1 MiB; for a few events it does not pay.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Raw("account.deposited", &cents))?;
    /// }
    /// let all = store.read(Query::all()).read_ahead();
    /// let cents: u64 = all.map(|event| event?.decode::<u64>()).sum::<Result<u64, annals::Error>>()?;
    /// assert_eq!(cents, 2100);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn read_ahead(self) -> ReadAhead {
        ReadAhead::new(self)
    }

    /// At most this many events.
    pub fn limit(mut self, events: u64) -> Read {
        self.plan.limit = events;
        self
    }

    /// Begins anew, with the events after one position and up to another.
    pub(crate) fn again(&mut self, after: Position, up_to: Position) {
        (self.plan.after, self.plan.up_to) = (after, Some(up_to));
        self.plan.origin = Origin::KNOWN;
        (self.progress, self.ended) = (None, false);
    }

    /// Finds the next event, if there is one.
    #[inline(always)]
    fn find(&mut self) -> Result<bool, Error> {
        if self.progress.is_none() && !self.ended {
            self.begin()?;
        }
        self.progress.as_mut().map_or(Ok(false), |progress| progress.find(&self.plan))
    }

    /// What there is to read from.
    #[cold]
    fn begin(&mut self) -> Result<(), Error> {
        match self.refused.take() {
            Some(error) => Err(error),
            None => Progress::begin(&mut self.plan).map(|begun| self.progress = Some(begun)),
        }
    }
}

impl Iterator for Read {
    type Item = Result<RecordedEvent, Error>;

    fn next(&mut self) -> Option<Result<RecordedEvent, Error>> {
        let found = self.find();
        if let (Ok(true), Some(progress)) = (&found, &self.progress) {
            return Some(Ok(progress.take()));
        }
        // A subscription sleeps after its read has ended, and would keep the last block.
        self.progress = None;
        self.ended = true;
        found.err().map(Err)
    }
}

impl std::iter::FusedIterator for Read {}

impl Progress {
    fn begin(plan: &mut Plan) -> Result<Progress, Error> {
        let snapshot = plan.view.clone()?.snapshot();
        plan.origin.check(plan.after, &snapshot)?;
        if plan.query.asks_correlation() {
            plan.query = by_either_id(&snapshot, plan.query.clone())?;
        }
        let head = plan.up_to.map_or(snapshot.head.position, |up_to| up_to.min(snapshot.head.position));
        let mut positions = plan.after.get().saturating_add(1)..head.get() + 1;
        if let Some(times) = &plan.between {
            let (start, end) = (position_at(&snapshot, times.start)?, position_at(&snapshot, times.end)?);
            positions = positions.start.max(start)..positions.end.min(end);
        }
        let ends = if plan.backwards { positions.end.saturating_sub(1) } else { positions.start };
        let later = snapshot.segments.partition_point(|segment| segment.first_position() <= ends);
        let mut progress = Progress {
            segment: later.saturating_sub(1),
            own: answers::own(&snapshot, &plan.query, &positions)?,
            snapshot,
            positions,
            ordinals: 0..0,
            window: FIRST_WINDOW,
            places: Vec::new().into_iter(),
            block: None,
            frame: CheckedFrame::default(),
            found: Found::default(),
            walk: plan.is_in_order().then(SequentialCursor::default),
            left: plan.limit,
        };
        progress.enter(plan)?;
        Ok(progress)
    }

    /// Finds the next event that comes; `false` if there is none.
    #[inline(always)]
    fn find(&mut self, plan: &Plan) -> Result<bool, Error> {
        while self.left > 0 {
            if !self.find_in_window()? {
                if !self.go_on(plan)? {
                    return Ok(false);
                }
            } else if plan.occurred.as_ref().is_none_or(|times| self.occurred_in(times)) {
                self.left -= 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the next event of those that were looked up, or the one that follows.
    #[inline(always)]
    fn find_in_window(&mut self) -> Result<bool, Error> {
        let Some(walk) = &mut self.walk else {
            let Some(place) = self.places.next() else { return Ok(false) };
            return self.find_at(&place).map(|()| true);
        };
        // A store read beside a writer that has acknowledged nothing yet has no segment.
        let Some(segment) = self.snapshot.segments.get(self.segment) else { return Ok(false) };
        walk.find(&self.snapshot, segment, &mut self.block, &mut self.ordinals, self.left, &mut self.found)
    }

    /// The event that was found.
    #[inline(always)]
    fn take(&self) -> RecordedEvent {
        let block = self.block.as_ref().expect("what was found lies in a block");
        self.found.in_block(block)
    }

    #[cold]
    fn occurred_in(&self, times: &(Bound<i64>, Bound<i64>)) -> bool {
        self.take().occurred_at().is_some_and(|occurred| times.contains(&micros_of(occurred)))
    }

    /// Has more to find; `false` if there is no more.
    fn go_on(&mut self, plan: &Plan) -> Result<bool, Error> {
        if self.ordinals.is_empty() {
            return self.leave(plan);
        }
        self.look_up(plan).map(|()| true)
    }

    /// Which ordinals of the segment at hand may still come.
    fn enter(&mut self, plan: &Plan) -> Result<(), Error> {
        // A store read beside a writer that has acknowledged nothing yet has no segment.
        let Some(segment) = self.snapshot.segments.get(self.segment) else { return Ok(()) };
        let mut ordinals = segment.clip(&self.positions);
        if let (Some(versions), Some(entity)) = (&plan.versions, plan.query.single_stream()) {
            let window = segment.window_of(entity, versions)?;
            ordinals = ordinals.start.max(window.start)..ordinals.end.min(window.end);
        }
        self.ordinals = ordinals;
        self.window = FIRST_WINDOW;
        self.block = None;
        self.frame.forget();
        if let Some(walk) = &mut self.walk {
            walk.leave();
        }
        Ok(())
    }

    /// Goes on to the next segment; `false` if there is none.
    fn leave(&mut self, plan: &Plan) -> Result<bool, Error> {
        let next = if plan.backwards { self.segment.checked_sub(1) } else { self.segment.checked_add(1) };
        match next.filter(|next| *next < self.snapshot.segments.len()) {
            Some(next) => {
                self.segment = next;
                self.enter(plan)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Asks the index about the next window: of ordinals where they must be compared, of events found
    /// where these come for nothing.
    fn look_up(&mut self, plan: &Plan) -> Result<(), Error> {
        let (direction, effort) = (plan.direction(), plan.query.effort());
        let wanted = if plan.occurred.is_none() { self.left } else { u64::MAX };
        let (width, most) = match effort {
            Effort::Compare => (self.window, wanted),
            Effort::Take | Effort::ManyLists => (u32::MAX, wanted.min(self.window.into())),
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let window = first_of(&self.ordinals, width, direction);
        let places =
            self.snapshot.segments[self.segment].matching(&plan.query, &self.own, &window, direction, most)?;
        let seen = match places.last() {
            Some(last) if places.len() == most => between(&window, last.ordinal, direction),
            _ => window,
        };
        self.ordinals = match direction {
            Direction::Forward => seen.end..self.ordinals.end,
            Direction::Backward => self.ordinals.start..seen.start,
        };
        let widest = if effort == Effort::ManyLists { WIDE_WINDOW_MAX } else { WINDOW_MAX };
        self.window = self.window.saturating_mul(4).min(widest);
        self.places = places.into_iter();
        Ok(())
    }

    /// Finds the event at a place, and reads its frame with those that follow unless it is at hand.
    #[inline(always)]
    fn find_at(&mut self, place: &EventLocation) -> Result<(), Error> {
        let segment = &self.snapshot.segments[self.segment];
        let block = match &mut self.block {
            Some(block) if block.holds(&place.frame) => block,
            block => {
                self.frame.forget();
                let run = run(place, self.places.as_slice());
                let old = block.take();
                block.insert(self.snapshot.next_block(segment, &place.frame, &run, old)?)
            }
        };
        self.found = self.frame.find(segment, block, place)?;
        Ok(())
    }
}

/// The bytes to read next: a place's frame, and those after it that lie close.
fn run(place: &EventLocation, others: &[EventLocation]) -> Range<u32> {
    let mut run = place.frame.clone();
    for EventLocation { frame, .. } in others {
        let joined = run.start.min(frame.start)..run.end.max(frame.end);
        let gap = frame.start.saturating_sub(run.end).max(run.start.saturating_sub(frame.end));
        if gap > GAP_BYTES || joined.end - joined.start > RUN_BYTES {
            break;
        }
        run = joined;
    }
    run
}

/// At most `width` ordinals, the first ones of their way.
fn first_of(ordinals: &Range<u32>, width: u32, direction: Direction) -> Range<u32> {
    let Range { start, end } = *ordinals;
    match direction {
        Direction::Forward => start..start.saturating_add(width).min(end),
        Direction::Backward => end.saturating_sub(width).max(start)..end,
    }
}

/// The part of a window up to and with its `last` ordinal.
fn between(window: &Range<u32>, last: u32, direction: Direction) -> Range<u32> {
    match direction {
        Direction::Forward => window.start..last + 1,
        Direction::Backward => last..window.end,
    }
}

/// Reads the frame that begins at `position` and hands it to `look`.
pub(crate) fn with_frame<T>(
    snapshot: &Snapshot,
    position: Position,
    look: impl FnOnce(&FrameHeader<'_>, &[u8]) -> T,
) -> Result<Option<T>, Error> {
    let Some(segment) = snapshot.segment_of(position) else { return Ok(None) };
    let Some(place) = segment.place_at(position)? else { return Ok(None) };
    let block = snapshot.block(segment, &place.frame)?;
    let frame = block.frame(segment.file()?, place.frame.start)?;
    Ok(Some(look(&frame.header, frame.body)))
}

/// The first position recorded at `micros` or later; behind the head if there is none. Recorded
/// times never go back, so this is a binary search: over the segments, then over one's frames.
fn position_at(snapshot: &Snapshot, micros: i64) -> Result<u64, Error> {
    let Ok(micros) = u64::try_from(micros) else { return Ok(0) };
    let later = snapshot.segments.partition_point(|segment| segment.recorded_before() < micros);
    let Some(segment) = later.checked_sub(1).and_then(|last| snapshot.segments.get(last)) else {
        return Ok(0);
    };
    let Range { start: mut low, end: mut high } = segment.ordinals();
    while low < high {
        let middle = low + (high - low) / 2;
        if recorded_at(snapshot, segment, middle)? < micros {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(segment.position(low))
}

/// When the first event at or behind `ordinal` was recorded.
fn recorded_at(snapshot: &Snapshot, segment: &Segment, ordinal: u32) -> Result<u64, Error> {
    let Some(place) = segment.place_from(ordinal)? else { return Ok(u64::MAX) };
    let block = snapshot.block(segment, &place.frame)?;
    Ok(block.header(segment.file()?, place.frame.start)?.recorded_at())
}

fn half_open<T: Copy>(range: &impl RangeBounds<T>, least: T, most: T, next: impl Fn(T) -> T) -> Range<T> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => next(*start),
        Bound::Unbounded => least,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => next(*end),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => most,
    };
    start..end
}

fn half_open_micros(times: &impl RangeBounds<SystemTime>) -> Range<i64> {
    half_open(&in_micros(times), i64::MIN, i64::MAX, |micros: i64| micros.saturating_add(1))
}

fn in_micros(times: &impl RangeBounds<SystemTime>) -> (Bound<i64>, Bound<i64>) {
    (times.start_bound().map(|time| micros_of(*time)), times.end_bound().map(|time| micros_of(*time)))
}
