//! What verifying is asked for.
//!
//! Row: ops.

mod causes;
mod cross_checks;
mod files;
mod indexes;
mod marks;
mod reread;
mod search;
#[cfg(test)]
mod tests;
mod versions;
mod walk;

use std::ops::ControlFlow;

use crate::types::{Error, Head, VerifyProgress};

use super::throttle::OnProgress;
use causes::{CAUSE_LIMITS, CauseLimits};

pub(crate) use files::{verify_files_as, verify_open};
pub(crate) use walk::Visit;

/// Verifying a store, with what is to be said about it: how fast, from where, against which head.
///
/// [`Store::verify`](crate::Store::verify) and [`Builder::verify`](crate::Builder::verify) say nothing of this, and read
/// everything.
///
/// ```
/// use annals::{Raw, Store, Verify};
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.opened", &()))?;
/// let head = store.head()?;                                   // kept elsewhere
/// store.append("account:alice", &Raw("account.deposited", &500))?;
///
/// let report = Verify::new().expect(head).run(&store)?;
/// assert!(report.is_clean(), "nothing before the head was changed or cut");
/// let verified = report.verified.unwrap().to_string();        // it prints, and parses back
/// let later = Verify::new().after(verified.parse()?).bytes_per_second(50_000_000).run(&store)?;
/// assert!(later.is_clean());
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Default)]
#[must_use = "nothing is verified until it is run"]
pub struct Verify<'a> {
    pub(crate) after: Option<Head>,
    pub(crate) expected: Vec<Head>,
    pub(crate) rate_max: Option<u64>,
    pub(crate) indexes: bool,
    pub(crate) causes: Option<CauseLimits>,
    pub(crate) on_progress: Option<OnProgress<'a, VerifyProgress>>,
}

impl<'a> Verify<'a> {
    /// Everything, as fast as it goes.
    pub fn new() -> Verify<'a> {
        Verify::default()
    }

    /// Goes on behind what an earlier run has verified ([`VerifyReport::verified`](crate::VerifyReport::verified)): segments that end there
    /// are passed over, and the next one must continue them.
    pub fn after(mut self, verified: Head) -> Verify<'a> {
        self.after = Some(verified);
        self
    }

    /// Proves that the history up to a head that was kept elsewhere is there, unchanged. Ask again for more heads.
    pub fn expect(mut self, head: Head) -> Verify<'a> {
        self.expected.push(head);
        self
    }

    /// Compares index files with the log as well (default: not). Each is made anew in memory of what is read anyway, which takes a quarter of
    /// the time of verifying on top, and the memory of the largest segment's index. What differs stands in
    /// [`VerifyReport::indexes`](crate::VerifyReport::indexes).
    pub fn indexes(mut self) -> Verify<'a> {
        self.indexes = true;
        self
    }

    /// Looks whether the causes that events name by id are in the store (default: not; any id may be named as
    /// a cause). The events decide, not the indexes. A cause within the last 250,000 ids is found on the way;
    /// the others are looked for by reading the log once more, and again for each further 500,000 events that
    /// name one. It takes some 70 MB of memory at most. What is missing stands in
    /// [`VerifyReport::causes`](crate::VerifyReport::causes).
    ///
    /// ```
    /// use annals::{Append, Cause, EventId, Raw, Store, Verify};
    ///
    /// let store = Store::in_memory()?;
    /// let nowhere: EventId = "0198f2a0-5c00-7000-8000-0000042ab3c4".parse().unwrap();
    /// Append::to("mail:3").event(&Raw("mail.sent", &())).cause(Cause::Event(nowhere)).commit(&store)?;
    /// assert!(store.verify()?.is_clean());
    /// let report = Verify::new().causes().run(&store)?;
    /// assert_eq!((report.is_clean(), report.causes[0].cause), (false, nowhere));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn causes(mut self) -> Verify<'a> {
        self.causes = Some(CAUSE_LIMITS);
        self
    }

    /// Reads at most so many bytes a second (default: no limit).
    pub fn bytes_per_second(mut self, bytes: u64) -> Verify<'a> {
        self.rate_max = Some(bytes.max(1));
        self
    }

    /// Tells how far it is, about every MiB; [`ControlFlow::Break`] breaks it off, and what was found so far is in the report.
    pub fn on_progress(mut self, tell: impl FnMut(&VerifyProgress) -> ControlFlow<()> + 'a) -> Verify<'a> {
        self.on_progress = Some(Box::new(tell));
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let Some(after) = self.after else { return Ok(()) };
        match self.expected.iter().find(|head| head.position() < after.position()) {
            Some(head) => Err(Error::invalid(format!(
                "the head {head} lies before {after}, where verifying is to begin; leave one of them out"
            ))),
            None => Ok(()),
        }
    }
}
