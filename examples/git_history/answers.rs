//! Answers questions from the store.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use annals::{Error, EventId, Query, RecordedEvent, Store};

use crate::Outcome;
use crate::import::FileChanged;

const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Lines per answer.
const SHOWN: usize = 8;

pub fn print(out: &mut impl Write, store: &Store) -> Outcome<()> {
    let Some(survey) = Survey::of(store)? else {
        writeln!(out, "\nthe store has no events: no commit changes a file")?;
        return Ok(());
    };
    let most_changed = survey.print(out)?;
    story(out, store, &most_changed)?;
    commit(out, store, survey.newest_commit)?;
    last_month(out, store, survey.newest)?;
    Ok(())
}

/// The result of one pass over all events.
struct Survey {
    changes: HashMap<String, u64>,
    kinds: HashMap<String, u64>,
    newest: SystemTime,
    newest_commit: EventId,
    events: u64,
    took: Duration,
}

impl Survey {
    /// `None` if there are no events.
    fn of(store: &Store) -> Result<Option<Survey>, Error> {
        let started = Instant::now();
        let Some(first) = store.read(Query::all()).limit(1).next().transpose()? else { return Ok(None) };
        let mut survey = Survey {
            changes: HashMap::new(),
            kinds: HashMap::new(),
            newest: occurred(&first),
            newest_commit: first.correlation(),
            events: 0,
            took: Duration::ZERO,
        };
        for event in store.read(Query::all()) {
            survey.count(&event?);
        }
        survey.took = started.elapsed();
        Ok(Some(survey))
    }

    fn count(&mut self, event: &RecordedEvent) {
        self.events += 1;
        count_one(&mut self.changes, event.entity());
        count_one(&mut self.kinds, event.kind());
        if occurred(event) >= self.newest {
            self.newest = occurred(event);
            self.newest_commit = event.correlation();
        }
    }

    fn print(&self, out: &mut impl Write) -> Outcome<String> {
        let rate = self.events as f64 / self.took.as_secs_f64();
        writeln!(out, "\n{} events, all read in {:.2?} ({rate:.0} events/s)", self.events, self.took)?;
        for (kind, count) in ranking(&self.kinds) {
            writeln!(out, "  {count:>8}  {kind}")?;
        }
        writeln!(out, "\nmost changed files")?;
        let ranking = ranking(&self.changes);
        for (path, count) in ranking.iter().take(SHOWN) {
            writeln!(out, "  {count:>8}  {path}")?;
        }
        Ok(ranking[0].0.to_owned())
    }
}

/// The stream of one file: its first and its last events.
fn story(out: &mut impl Write, store: &Store, path: &str) -> Outcome<()> {
    let started = Instant::now();
    let version = store.version(path)?;
    let begun = store.stream(path).limit(2).collect::<Result<Vec<_>, _>>()?;
    let mut lately = store.stream(path).backwards().limit(5).collect::<Result<Vec<_>, _>>()?;
    lately.reverse();
    let took = started.elapsed();
    writeln!(out, "\nthe story of {path}: {version} events, both ends read in {took:.0?}")?;
    for event in begun.iter().chain(lately.iter().filter(|event| event.version().get() > 2)) {
        let change = event.decode::<FileChanged<'_>>()?;
        let (version, day, kind) = (event.version(), day(occurred(event)), event.kind());
        writeln!(out, "  {version:>8}  {day}  {kind}  {}: {}", change.author, change.subject)?;
    }
    Ok(())
}

/// All events of one commit.
fn commit(out: &mut impl Write, store: &Store, id: EventId) -> Outcome<()> {
    let started = Instant::now();
    let events = store.read(Query::correlation(id)).collect::<Result<Vec<_>, _>>()?;
    let took = started.elapsed();
    if let Some(event) = events.first() {
        let change = event.decode::<FileChanged<'_>>()?;
        let (day, count) = (day(occurred(event)), events.len());
        writeln!(
            out,
            "\nthe newest commit: {} of {day}, {count} events, found in {took:.0?}",
            change.commit
        )?;
        writeln!(out, "  {}: {}", change.author, change.subject)?;
    }
    for event in events.iter().take(SHOWN) {
        let change = event.decode::<FileChanged<'_>>()?;
        let from = change.from.map_or(String::new(), |from| format!(" from {from}"));
        let to = change.to.map_or(String::new(), |to| format!(", now {to}"));
        writeln!(out, "  {:>8}  {}  {}{from}{to}", event.version(), event.kind(), event.entity())?;
    }
    Ok(())
}

/// The thirty days before the newest commit, by occurred-at.
fn last_month(out: &mut impl Write, store: &Store, newest: SystemTime) -> Outcome<()> {
    let started = Instant::now();
    let since = newest.checked_sub(MONTH).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut events = 0;
    let mut commits = BTreeSet::new();
    let mut files = BTreeSet::new();
    let mut authors = HashMap::new();
    for event in store.read(Query::all()).occurred(since..=newest) {
        let event = event?;
        events += 1;
        files.insert(event.entity().to_owned());
        if commits.insert(event.correlation()) {
            event.tags().for_each(|tag| count_one(&mut authors, tag));
        }
    }
    writeln!(out, "\nthe last month, {} to {}, read in {:.2?}", day(since), day(newest), started.elapsed())?;
    writeln!(out, "  {events} events, {} commits, {} files", commits.len(), files.len())?;
    for (author, count) in ranking(&authors).into_iter().take(SHOWN) {
        writeln!(out, "  {count:>8}  {author}")?;
    }
    Ok(())
}

fn occurred(event: &RecordedEvent) -> SystemTime {
    event.occurred_at().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn count_one(counts: &mut HashMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

/// The highest count first; names decide between equals.
fn ranking(counts: &HashMap<String, u64>) -> Vec<(&str, u64)> {
    let mut ranking: Vec<_> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    ranking.sort_unstable_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
    ranking
}

/// The day of a time as `2026-02-28`, in the proleptic Gregorian calendar and UTC.
///
/// Counts days from 1 March of year 0, so that a leap day is the last day of its year.
fn day(time: SystemTime) -> String {
    let days = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i128::from(since.as_secs() / 86_400),
        Err(before) => -i128::from(before.duration().as_secs().div_ceil(86_400)),
    };
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next_year)
}
