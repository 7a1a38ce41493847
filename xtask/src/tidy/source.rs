//! One file as the rules see it: path, bytes, and for Rust which part of each line is code.

/// A file of the repository.
pub(super) struct Source {
    /// Path from the root of the workspace, with `/`.
    pub(super) path: String,
    /// Everything in the file.
    pub(super) bytes: Vec<u8>,
    /// The file as text; empty when it is not UTF-8.
    pub(super) text: String,
}

impl Source {
    pub(super) fn new(path: &str, bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes.clone()).unwrap_or_default();
        Self { path: path.to_owned(), bytes, text }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// A file of tests, or of a crate that is nothing else.
    pub(super) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs"
            || self.path.split('/').any(|part| part == "tests" || part == "qemu-tests")
    }

    /// Numbered lines of a Rust file before its test module.
    pub(super) fn lines_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("\n#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        let end = if self.is_test() { 0 } else { end };
        numbered(&self.text[..end])
    }

    /// Numbered lines of the whole file.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.text)
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The part of a line that is code: without its comment and without what strings hold.
///
/// Good for lines as people write them; strings over several lines are taken for code, which can
/// only make a rule too strict.
pub(super) fn code(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => {
                characters.next();
            }
            '\'' if !in_string && characters.peek() == Some(&'"') => {
                characters.next();
            }
            '"' => in_string = !in_string,
            _ if in_string => {}
            '/' if characters.peek() == Some(&'/') => break,
            _ => code.push(character),
        }
    }
    code
}

/// Whether `word` stands in `code` as a word of its own.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(code(r#"call("word // no", x); // word"#), "call(, x); ");
        assert_eq!(code(r#"let quote = '"'; word {}"#), "let quote = '; word {}");
        assert_eq!(code(r#"print("a\"word")"#), "print()");
    }

    #[test]
    fn a_word_is_not_found_within_a_longer_one() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    }

    #[test]
    fn lines_end_where_tests_begin() {
        let source = Source::new("a/src/b.rs", b"one\n#[cfg(test)]\nmod tests {\n}\n".to_vec());
        assert_eq!(source.lines_before_tests().count(), 1);
        assert_eq!(source.lines().count(), 4);
        let tests = Source::new("a/tests/it/main.rs", b"one\n".to_vec());
        assert_eq!(tests.lines_before_tests().count(), 0);
    }
}
