//! Verifying: reads a whole store and checks it, from the first byte to the last.
//!
//! Changes nothing. This file holds the request; `files.rs` has the entry points and `walk.rs` the walk
//! through the segments. SPEC.md "Checking a store" lists every check, its verdict, and the place that it
//! names. Tested by tests/it/corrupt.rs, tests/it/checking.rs and the modules tests/it/verify*.rs.

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
pub(crate) use walk::FrameVisitor;

/// Options of verifying a store: how fast, from where, against which heads.
///
/// [`Store::verify`](crate::Store::verify) and [`Builder::verify`](crate::Builder::verify) take none of them:
/// they read everything at full speed.
///
/// In a store of more than 1,800,000 entities (50 MB of memory) the versions met so far are forgotten, and
/// the indexes are asked instead. Events that no index knows count as
/// [`VerifyReport::versions_unchecked`](crate::VerifyReport::versions_unchecked).
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
    /// Everything, at full speed.
    pub fn new() -> Verify<'a> {
        Verify::default()
    }

    /// Begins behind what an earlier run has verified
    /// ([`VerifyReport::verified`](crate::VerifyReport::verified)). Segments that end there are skipped; the
    /// next one must continue them.
    pub fn after(mut self, verified: Head) -> Verify<'a> {
        self.after = Some(verified);
        self
    }

    /// Proves that the store holds the history up to this head, unchanged. The store must be the one that the
    /// head names, or stem from it. Call again for more heads.
    pub fn expect(mut self, head: Head) -> Verify<'a> {
        self.expected.push(head);
        self
    }

    /// Compares index files with the log as well (default: not compared). Each index is built again in
    /// memory, which adds a quarter to the time and needs the memory of the largest segment's index.
    ///
    /// [`VerifyReport::indexes`](crate::VerifyReport::indexes) has the differences.
    ///
    /// A missing file is no finding. Behind a break in a segment its index is not compared. A file that no
    /// reader trusts leaves the report clean: it is damaged, of a newer version, or of another segment or
    /// state.
    pub fn indexes(mut self) -> Verify<'a> {
        self.indexes = true;
        self
    }

    /// Checks that the causes which events name by id are in the store (default: not checked, because an
    /// append may name any id). The events decide, not the indexes. A cause of an erased event counts as
    /// removed. A cause within the last 250,000 ids is found on the way. For the others the log is read once
    /// more, and again for each further 500,000 events that name a cause. It takes some 70 MB of memory at
    /// most. [`VerifyReport::causes`](crate::VerifyReport::causes) has what is missing.
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

    /// Reads at most this many bytes a second (default: no limit).
    pub fn bytes_per_second(mut self, bytes: u64) -> Verify<'a> {
        self.rate_max = Some(bytes.max(1));
        self
    }

    /// Reports progress about every MiB. [`ControlFlow::Break`] ends the run; the report has what was found
    /// by then.
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
