//! `shell`, what the SSH server runs for whoever logged in. There is no shell in the root.
//!
//! ```text
//! ssh HOST iota status …             the device's own command, with its arguments
//! docker -H ssh://HOST …             a pipe to the engine (`docker system dial-stdio`)
//! ssh HOST, ssh HOST COMMAND         a shell in the console container
//! ```
//!
//! Pure: what was asked becomes a [`Session`]; [`console`] and [`pipe`] hold it.

pub mod console;
pub mod pipe;

/// What a login is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// The device's own command: its arguments.
    Iota(Vec<String>),
    /// The engine's socket on standard input and output.
    Engine,
    /// The console container: a shell, or this line of it.
    Console(Option<String>),
}

impl Session {
    /// From the arguments of a shell: none, or `-c` and a line.
    pub fn of(arguments: &[String]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self::Console(None)),
            [option, line] if option == "-c" => Ok(Self::of_line(line)),
            [word, ..] => Err(format!("`{word}`: this is no shell; it takes `-c COMMAND`")),
        }
    }

    fn of_line(line: &str) -> Self {
        let words = split(line).unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match *words {
            ["iota" | "/usr/bin/iota", ref rest @ ..] => {
                Self::Iota(rest.iter().map(|word| (*word).to_owned()).collect())
            }
            ["docker", ref rest @ ..] if is_dial(rest) => Self::Engine,
            _ => Self::Console(Some(line.to_owned())),
        }
    }
}

/// `[-H ADDRESS] system dial-stdio`, as Docker's client sends it. The address is the client's idea
/// of where the socket is; there is one engine.
fn is_dial(words: &[&str]) -> bool {
    match words {
        ["system", "dial-stdio"] => true,
        ["-H" | "--host", _, rest @ ..] => is_dial(rest),
        [word, rest @ ..] if word.starts_with("--host=") => is_dial(rest),
        _ => false,
    }
}

/// The words of a line as a shell would split it; `None` if it asks for more than words, such as
/// a pipe or a variable, or a quotation does not end (POSIX, Shell Command Language, 2.2).
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(character),
            (Some(_), '\\') => {
                let next = rest.next()?;
                let text = word.get_or_insert_default();
                if !matches!(next, '$' | '`' | '"' | '\\') {
                    text.push('\\');
                }
                text.push(next);
            }
            (None, '\\') => word.get_or_insert_default().push(rest.next()?),
            (_, '$' | '`') => return None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            (
                None,
                '|' | '&' | ';' | '<' | '>' | '(' | ')' | '*' | '?' | '[' | '~' | '#' | '\n',
            ) => {
                return None;
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(line: &str) -> Session {
        Session::of(&["-c".to_owned(), line.to_owned()]).unwrap()
    }

    fn iota(words: &[&str]) -> Session {
        Session::Iota(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn a_login_without_a_command_opens_the_console() {
        assert_eq!(Session::of(&[]), Ok(Session::Console(None)));
    }

    #[test]
    fn the_devices_own_command_needs_no_container() {
        for (line, expected) in [
            ("iota", iota(&[])),
            ("iota status --json", iota(&["status", "--json"])),
            ("  iota\tlogs  -f ", iota(&["logs", "-f"])),
            ("/usr/bin/iota update install -", iota(&["update", "install", "-"])),
            ("iota config set hostname 'a b'", iota(&["config", "set", "hostname", "a b"])),
            ("iota x \"a \\\" \\n\" b\\ c ''", iota(&["x", "a \" \\n", "b c", ""])),
        ] {
            assert_eq!(session(line), expected, "{line}");
        }
    }

    #[test]
    fn what_needs_a_shell_gets_one() {
        for line in [
            "ls /",
            "iotas",
            "iota status | grep slot",
            "iota logs $UNIT",
            "iota logs \"$UNIT\"",
            "iota 'logs",
            "iota status; ls",
            "iota status > x",
            "iota x\\",
            "docker ps",
            "docker system dial-stdio --help",
            "",
        ] {
            assert_eq!(session(line), Session::Console(Some(line.to_owned())), "{line}");
        }
    }

    #[test]
    fn dockers_client_reaches_the_engine() {
        for line in [
            "docker system dial-stdio",
            "docker --host unix:///run/docker.sock system dial-stdio",
            "docker -H unix:///x --host=y system dial-stdio",
        ] {
            assert_eq!(session(line), Session::Engine, "{line}");
        }
    }

    #[test]
    fn another_option_is_refused() {
        let error = Session::of(&["--login".to_owned()]).unwrap_err();
        assert_eq!(error, "`--login`: this is no shell; it takes `-c COMMAND`");
    }
}
