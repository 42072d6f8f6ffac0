//! Reports which lines are in the store, in words and as numbers, and how to continue.

use serde_json::json;

use crate::failure::Failure;
use crate::interrupt;

/// Whether a line is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineStatus {
    /// The store acknowledged the line.
    Committed,
    /// The line is not in the store.
    Rejected,
    /// It is unknown whether the line is in the store.
    Unknown,
}

/// The status of every line so far, as runs: status, first line, last line.
#[derive(Default)]
pub(super) struct LineReport(Vec<(LineStatus, u64, u64)>);

impl LineReport {
    /// Adds the next line.
    pub(super) fn add(&mut self, line: u64, status: LineStatus) {
        match self.0.last_mut() {
            // Also across a gap: only blank lines are without a status, and they belong to the run.
            Some((last, _, to)) if *last == status => *to = line,
            _ => self.0.push((status, line, line)),
        }
    }

    /// Notes that lines were submitted, for a stop before their acknowledgement.
    pub(super) fn note_under_way(&self, lines: &[(u64, String)]) {
        let Some(((first, _), (last, _))) = lines.first().zip(lines.last()) else { return };
        let under_way = format!("whether {} in is not known", named(&[(*first, *last)], "is", "are"));
        interrupt::note(|plan| plan.effect.under_way = Some(under_way));
    }

    /// Notes which lines are in and how to continue, for a failure and for a stop from here on. `unread` is
    /// the line that could not be read, or 0.
    pub(super) fn note(&self, failure: Option<&Failure>, unread: u64) {
        let committed = self.runs(LineStatus::Committed);
        let unknown = self.runs(LineStatus::Unknown);
        // Up to here no line may be repeated without a look: a line without a key would be in twice.
        let last = committed.iter().chain(&unknown).map(|(_, to)| *to).max().unwrap_or(0);
        let rejected: Vec<(u64, u64)> = self.runs(LineStatus::Rejected);
        let (alone, next): (Vec<_>, Vec<_>) = rejected.iter().copied().partition(|(_, to)| *to < last);
        let next = next.first().map(|(from, _)| *from).or((unread > 0).then_some(unread));
        let done = self.done(&committed, &alone);
        let unknown_lines = (!unknown.is_empty())
            .then(|| format!("whether {} in is not known", named(&unknown, "is", "are")));
        let to_continue = to_continue(failure, &alone, next, last, !unknown.is_empty());
        let pairs = |runs: &[(u64, u64)]| runs.iter().map(|(from, to)| json!([from, to])).collect::<Vec<_>>();
        let next_line = next.unwrap_or_else(|| last.saturating_add(1));
        let lines = json!({
            "in": pairs(&committed), "out": pairs(&rejected), "unknown": pairs(&unknown), "next": next_line,
        });
        interrupt::note(|plan| {
            let effect = &mut plan.effect;
            effect.done = done;
            effect.under_way = unknown_lines;
            effect.to_continue = Some(to_continue);
            effect.lines = Some(lines);
        });
    }

    fn runs(&self, status: LineStatus) -> Vec<(u64, u64)> {
        let runs = self.0.iter().filter(|(found, ..)| *found == status);
        runs.map(|(_, from, to)| (*from, *to)).collect()
    }

    /// Which lines are in, in the order of the file.
    fn done(&self, committed: &[(u64, u64)], alone: &[(u64, u64)]) -> Option<String> {
        let done = match (self.0.first(), committed) {
            (_, []) => return None,
            (Some((LineStatus::Committed, ..)), [(_, to)]) => format!("everything up to line {to} is in"),
            (Some((LineStatus::Committed, ..)), [(_, to), behind @ ..]) => {
                format!("everything up to line {to} is in, and behind it {}", numbers(behind))
            }
            _ => named(committed, "is in", "are in"),
        };
        match alone {
            [] => Some(done),
            alone => Some(format!("{done}; {}", named(alone, "is not", "are not"))),
        }
    }
}

/// How the operator continues. Rejected lines in front of committed ones are appended alone.
fn to_continue(
    failure: Option<&Failure>,
    alone: &[(u64, u64)],
    next: Option<u64>,
    last: u64,
    is_unknown: bool,
) -> String {
    let is_refused = failure.is_some_and(Failure::is_refusal);
    let verb = match failure {
        Some(_) if is_refused => "mend",
        _ => "append",
    };
    let mut parts = Vec::new();
    if is_unknown {
        parts.push(
            "look which of those not known are in (annals tail); a line with a key may be repeated"
                .to_owned(),
        );
    }
    if failure.is_some_and(Failure::is_no_space) {
        parts.push("free space".to_owned());
    }
    if !alone.is_empty() {
        let them = if matches!(alone, [(from, to)] if from == to) { "it" } else { "them" };
        let and = if is_refused { format!(", and append {them} alone") } else { " alone".to_owned() };
        parts.push(format!("{verb} {}{and}", numbers(alone)));
    }
    parts.push(match next {
        Some(line) if is_refused && alone.is_empty() => format!("mend line {line} and go on with it"),
        Some(line) => format!("go on with line {line}"),
        None => format!("go on behind line {last}"),
    });
    parts.join("; ")
}

/// `line 3 is`, `lines 3 to 5 and line 9 are`.
fn named(runs: &[(u64, u64)], one: &str, many: &str) -> String {
    let is_one = matches!(runs, [(from, to)] if from == to);
    format!("{} {}", numbers(runs), if is_one { one } else { many })
}

fn numbers(runs: &[(u64, u64)]) -> String {
    let run = |(from, to): &(u64, u64)| match from == to {
        true => format!("line {from}"),
        false => format!("lines {from} to {to}"),
    };
    match runs {
        [] => String::new(),
        [one] => run(one),
        [before @ .., last] => {
            format!("{} and {}", before.iter().map(run).collect::<Vec<_>>().join(", "), run(last))
        }
    }
}
