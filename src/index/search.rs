//! Galloping search: cheap when what is looked for is near.
//!
//! Row: index.

/// How many leading items fulfil `holds`, which no later item does once one does not.
///
/// Doubles its step until it is past the last, then halves (Bentley and Yao, 1976): it costs the
/// logarithm of the answer, not of the list.
pub(super) fn beyond<T>(list: &[T], holds: impl Fn(&T) -> bool) -> usize {
    let mut step = 1;
    while list.get(step).is_some_and(&holds) {
        step *= 2;
    }
    list[..list.len().min(step + 1)].partition_point(holds)
}

/// How many trailing items fulfil `holds`, which no earlier item does once one does not.
pub(super) fn beyond_back<T>(list: &[T], holds: impl Fn(&T) -> bool) -> usize {
    let from_end = |step: usize| list.len().checked_sub(step + 1).map(|at| &list[at]);
    let mut step = 1;
    while from_end(step).is_some_and(&holds) {
        step *= 2;
    }
    let start = list.len().saturating_sub(step + 1);
    list.len() - start - list[start..].partition_point(|item| !holds(item))
}
