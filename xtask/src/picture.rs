//! `cargo xtask picture`: runs an image in QEMU and makes the README's picture of what was printed.
//!
//! The picture is the text of one real run, nothing in it is written by hand: lines that are too
//! long end in `…`, and what the build said before its result is left out.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::process::{self, Outcome};

const PICTURE: &str = "docs/boot.svg";
const COMMAND: &str = "iota run generic-aarch64 --forward 8080:80 --timings --until-ready";

const LINE_HEIGHT: usize = 18;
const COLUMNS: usize = 112;
/// In a monospace font of 13 pixels.
const COLUMN_WIDTH: f64 = 7.9;
const MARGIN: usize = 12;

/// Runs the command, shows it all, and writes the picture.
pub(crate) fn run() -> Outcome {
    let mut command = process::cargo();
    command.args(COMMAND.split(' ')).stdin(Stdio::null());
    process::announce(&command);
    let failed = |cause: std::io::Error| format!("{COMMAND}: {cause}");
    // Both streams into one pipe, so that their lines stay in the order of their making.
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    let mut child = command.spawn().map_err(failed)?;
    // Else the pipe would never end.
    drop(command);
    let mut lines = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = plain(&String::from_utf8_lossy(&line.map_err(failed)?));
        println!("{line}");
        lines.push(line);
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(format!("{COMMAND} ended with {status}: no picture is made"));
    }
    let path = process::workspace().join(PICTURE);
    std::fs::write(&path, picture(&lines)).map_err(|cause| format!("{PICTURE}: {cause}"))?;
    println!("{PICTURE} is made");
    Ok(())
}

/// The lines of a run as an SVG file.
fn picture(lines: &[String]) -> String {
    let command = format!("$ cargo {COMMAND}");
    let shown: Vec<&str> =
        [command.as_str(), "…"].into_iter().chain(worth_showing(lines)).collect();
    let height = 2 * MARGIN + shown.len() * LINE_HEIGHT;
    let width = 2 * MARGIN + (COLUMNS as f64 * COLUMN_WIDTH) as usize;
    let head = format!(
        "<!-- Made by `cargo xtask picture`. -->\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#1b1f24\"/>\n"
    );
    let texts = shown.iter().enumerate().map(|(index, line)| {
        let y = MARGIN + LINE_HEIGHT * (index + 1) - 6;
        let (color, text) = (color(line), escaped(&cut(line)));
        let place = format!("x=\"{MARGIN}\" y=\"{y}\" fill=\"{color}\"");
        format!("<text {place} xml:space=\"preserve\">{text}</text>\n")
    });
    format!("{head}{}</svg>\n", texts.collect::<String>())
}

/// From the build's result on; no blank lines, and of what repeats itself the first.
fn worth_showing(lines: &[String]) -> Vec<&str> {
    let is_result = |line: &&String| line.contains("signed with development key");
    let start = lines.iter().position(|line| is_result(&line)).unwrap_or(0);
    let mut shown: Vec<&str> = Vec::new();
    for line in lines[start..].iter().map(|line| line.trim_end()) {
        if !line.is_empty() && shown.last() != Some(&line) {
            shown.push(line);
        }
    }
    shown
}

fn color(line: &str) -> &'static str {
    match line {
        line if line.starts_with("$ ") => "#8ddb8c",
        line if line.starts_with("-- ") => "#7cb7ff",
        _ => "#d0d7de",
    }
}

fn cut(line: &str) -> String {
    if line.chars().count() <= COLUMNS {
        return line.to_owned();
    }
    line.chars().take(COLUMNS - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A line without escape sequences and other control characters.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            if characters.next() == Some('[') {
                characters.by_ref().find(char::is_ascii_alphabetic);
            }
        } else if !character.is_control() {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_a_run_from_the_builds_result_on() {
        let long = "x".repeat(COLUMNS + 1);
        let lines = ["compiling", "pi is built, signed with development key 1", "", "-- a <b>"];
        let lines: Vec<String> =
            lines.into_iter().chain(["-- a <b>", &long]).map(str::to_owned).collect();
        let picture = picture(&lines);
        let texts: Vec<&str> =
            picture.lines().filter_map(|line| line.strip_prefix("<text ")).collect();
        let expected = [
            format!("$ cargo {COMMAND}"),
            "…".to_owned(),
            "pi is built, signed with development key 1".to_owned(),
            "-- a &lt;b&gt;".to_owned(),
            format!("{}…", &long[..COLUMNS - 1]),
        ];
        assert_eq!(texts.len(), expected.len(), "{picture}");
        for (text, expected) in texts.iter().zip(&expected) {
            assert!(text.ends_with(&format!(">{expected}</text>")), "{text}");
        }
        assert!(texts[3].contains("#7cb7ff") && texts[0].contains("#8ddb8c"), "{texts:?}");
        assert!(picture.contains("height=\"114\""), "{picture}");
    }

    #[test]
    fn what_firmware_paints_with_is_not_in_the_picture() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01Hiota loader\r"), "iota loader");
    }
}
