//! "Did you mean": the nearest of a set of known names.

use alloc::vec;
use alloc::vec::Vec;

/// The candidate with the smallest edit distance to `word`, if it is near enough to be a slip:
/// at most a third of the longer name's letters, and at least one letter in common.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= word.len().max(candidate.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, left_byte) in left.bytes().enumerate() {
        let mut current = vec![row + 1];
        for (column, right_byte) in right.bytes().enumerate() {
            let change = previous[column] + usize::from(left_byte != right_byte);
            current.push(change.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let boards = ["generic-aarch64", "pi3", "pi4"];
        assert_eq!(nearest("generic-arch64", boards), Some("generic-aarch64"));
        assert_eq!(nearest("pi5", boards), Some("pi3"));
        assert_eq!(nearest("toaster", boards), None);
        assert_eq!(nearest("", boards), None);
    }
}
