//! Which lines are in, in words and as numbers, and how to go on.

use serde_json::json;

use crate::failure::Failure;
use crate::interrupt;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    In,
    Out,
    Unknown,
}

/// What became of lines, as runs of them: from, to.
#[derive(Default)]
pub(super) struct Account(Vec<(Fate, u64, u64)>);

impl Account {
    /// The next line that was read.
    pub(super) fn add(&mut self, line: u64, fate: Fate) {
        match self.0.last_mut() {
            // Blank lines between them belong to the run.
            Some((last, _, to)) if *last == fate => *to = line,
            _ => self.0.push((fate, line, line)),
        }
    }

    /// What to say if it is never heard what became of these lines.
    pub(super) fn note_under_way(&self, lines: &[(u64, String)]) {
        let Some(((first, _), (last, _))) = lines.first().zip(lines.last()) else { return };
        let under_way = format!("whether {} in is not known", named(&[(*first, *last)], "is", "are"));
        interrupt::note(|now| now.effect.under_way = Some(under_way));
    }

    /// Notes what is in, and how to go on: after a failure, or if the command is stopped here. `unread` is the
    /// line that could not be read, or 0.
    pub(super) fn note(&self, failure: Option<&Failure>, unread: u64) {
        let is_in = self.runs(Fate::In);
        let unknown = self.runs(Fate::Unknown);
        // The last line that need not, or must not, be appended again just like that.
        let last = is_in.iter().chain(&unknown).map(|(_, to)| *to).max().unwrap_or(0);
        let out: Vec<(u64, u64)> = self.runs(Fate::Out);
        let (alone, next): (Vec<_>, Vec<_>) = out.iter().copied().partition(|(_, to)| *to < last);
        let next = next.first().map(|(from, _)| *from).or((unread > 0).then_some(unread));
        let done = self.done(&is_in, &alone);
        let not_known = (!unknown.is_empty())
            .then(|| format!("whether {} in is not known", named(&unknown, "is", "are")));
        let rest = rest(failure, &alone, next, last, !unknown.is_empty());
        let pairs = |runs: &[(u64, u64)]| runs.iter().map(|(from, to)| json!([from, to])).collect::<Vec<_>>();
        let go_on = next.unwrap_or_else(|| last.saturating_add(1));
        let lines = json!({
            "in": pairs(&is_in), "out": pairs(&out), "unknown": pairs(&unknown), "next": go_on,
        });
        interrupt::note(|now| {
            let effect = &mut now.effect;
            (effect.done, effect.under_way) = (done, not_known);
            (effect.rest, effect.lines) = (Some(rest), Some(lines));
        });
    }

    fn runs(&self, fate: Fate) -> Vec<(u64, u64)> {
        let runs = self.0.iter().filter(|(found, ..)| *found == fate);
        runs.map(|(_, from, to)| (*from, *to)).collect()
    }

    /// In the words of an operator who reads the file from its beginning.
    fn done(&self, is_in: &[(u64, u64)], alone: &[(u64, u64)]) -> Option<String> {
        let done = match (self.0.first(), is_in) {
            (_, []) => return None,
            (Some((Fate::In, ..)), [(_, to)]) => format!("everything up to line {to} is in"),
            (Some((Fate::In, ..)), [(_, to), behind @ ..]) => {
                format!("everything up to line {to} is in, and behind it {}", numbers(behind))
            }
            _ => named(is_in, "is in", "are in"),
        };
        match alone {
            [] => Some(done),
            alone => Some(format!("{done}; {}", named(alone, "is not", "are not"))),
        }
    }
}

/// What to do next. Lines that are refused in front of others that are in are appended alone.
fn rest(
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
    match alone {
        [] => {}
        alone => {
            let them = if matches!(alone, [(from, to)] if from == to) { "it" } else { "them" };
            let and = if is_refused { format!(", and append {them} alone") } else { " alone".to_owned() };
            parts.push(format!("{verb} {}{and}", numbers(alone)));
        }
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
