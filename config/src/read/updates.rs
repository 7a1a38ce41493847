//! The table of updates.

use alloc::borrow::ToOwned as _;

use super::{Reader, Value};
use crate::login;
use crate::update::{self, Update};

impl<'t> Reader<'t> {
    pub(super) fn update(&mut self, value: &Value<'t>, to: &mut Update) {
        let Some(table) = self.table("update", value) else { return };
        let mistakes = self.problems.len();
        let mut secret = None;
        for (name, value) in self.known("update", table) {
            match name {
                "source" => to.source = self.parsed("update.source", value, update::source),
                "mirrors" => {
                    to.mirrors = self.servers("update.mirrors", value, 8, update::source);
                }
                "user" => to.user = self.parsed("update.user", value, login::user),
                "password" => {
                    to.password = self.secret("update.password", value, login::password);
                    secret = Some(value.span());
                }
                "channel" => to.channel = self.parsed("update.channel", value, update::channel),
                "automatic" => {
                    to.automatic = self.parsed("update.automatic", value, update::automatic);
                }
                "window" => to.window = self.parsed("update.window", value, update::window),
                "every-min" => {
                    to.every_min = self.number(value, update::EVERY_LIMITS_MIN);
                }
                "report" => to.report = self.parsed("update.report", value, update::report),
                "most-kb-s" => to.most_kb_s = self.number(value, update::MOST_LIMITS_KB_S),
                _ => {}
            }
        }
        // What is missing may be on the line that is wrong.
        let is_sure = self.problems.len() == mistakes && self.broken.is_empty();
        if let Some(span) = secret.filter(|_| is_sure && to.user.is_none()) {
            self.wrong(span, "update.password", "a password without `user`".to_owned());
            self.conceal(mistakes);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use crate::Config;

    /// The only problem of a file, with the line as it is shown.
    fn check(lines: &str, expected: &str) {
        let text = alloc::format!("[update]\n{lines}");
        let problems = Config::parse(text.as_bytes()).unwrap_err();
        assert_eq!(problems.to_string(), expected);
        let rendered = problems.first().render("iota.toml");
        assert!(!rendered.contains("hush"), "{rendered}");
    }

    #[test]
    fn a_password_belongs_to_a_name_and_is_not_shown_where_that_is_told() {
        check("password = \"hush\"\n", "line 2, column 12: a password without `user`");
        check("password = \"\"\nuser = \"a\"\n", "line 2, column 12: 0 characters");
        check(
            "password = \"hush\\n\"\n",
            "line 2, column 12: a character that is not of printable ASCII",
        );
        check("user = \"a:b\"\npassword = \"hush\"\n", "line 2, column 8: a name with a colon");
        check(
            "usr = \"a\"\npassword = \"hush\"\n",
            "line 2, column 1: `usr` is not a key of [update]",
        );
        assert!(Config::parse(b"[update]\nuser = \"a\"\n").is_ok());
    }
}
