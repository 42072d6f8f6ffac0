//! The difference of two values or texts, line by line.

use std::fmt::{Debug, Write};

/// The lines of two texts: ` ` before a line in both, `-` before one in `expected` only, `+` in `actual` only.
pub(super) fn lines(expected: &str, actual: &str) -> String {
    let expected: Vec<&str> = expected.lines().collect();
    let actual: Vec<&str> = actual.lines().collect();
    let common = common_suffixes(&expected, &actual);
    let mut text = String::new();
    let mut row = 0;
    let mut column = 0;
    while row < expected.len() || column < actual.len() {
        let (sign, line) = if row < expected.len() && column < actual.len() && expected[row] == actual[column]
        {
            row += 1;
            column += 1;
            (' ', expected[row - 1])
        } else if column == actual.len()
            || row < expected.len() && common[row + 1][column] >= common[row][column + 1]
        {
            row += 1;
            ('-', expected[row - 1])
        } else {
            column += 1;
            ('+', actual[column - 1])
        };
        let _ = writeln!(text, "  {sign} {line}");
    }
    text
}

/// The lines of two values, as `Debug` prints them.
pub(super) fn values<T: Debug + ?Sized>(expected: &T, actual: &T) -> String {
    lines(&format!("{expected:#?}"), &format!("{actual:#?}"))
}

/// `common[i][j]` is the length of the longest common subsequence of `one[i..]` and `other[j..]`.
fn common_suffixes(one: &[&str], other: &[&str]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; other.len() + 1]; one.len() + 1];
    for row in (0..one.len()).rev() {
        for column in (0..other.len()).rev() {
            common[row][column] = if one[row] == other[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    common
}
