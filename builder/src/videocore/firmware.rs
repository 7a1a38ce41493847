//! The vendor's own files: which build they are of, and whether two of them belong together.

/// When and from what a `start*.elf` was built, of the strings it carries for `vcgencmd version`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Build {
    /// Year, month, day.
    pub date: (u16, u8, u8),
    /// The date as it is written: `Feb 11 2026`.
    pub date_text: String,
    /// Commit of the vendor's sources.
    pub version: String,
}

const TIME: &str = "VC_BUILD_ID_TIME: ";
const VERSION: &str = "VC_BUILD_ID_VERSION: ";
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const ELF: [u8; 4] = *b"\x7fELF";

/// True if the bytes begin as an ELF file.
pub(super) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(&ELF)
}

/// The build of a `start*.elf`; none if it carries no such strings.
pub(super) fn build(start: &[u8]) -> Option<Build> {
    // The time of day stands under the same name as the date.
    let dates = strings(start, TIME).filter_map(|text| Some((date(&text)?, text)));
    let (date, date_text) = dates.into_iter().next()?;
    let version = strings(start, VERSION).next()?;
    let version = version.split(' ').next().unwrap_or_default().to_owned();
    Some(Build { date, date_text, version })
}

/// The texts that follow a label, each up to its zero byte.
fn strings<'a>(bytes: &'a [u8], label: &'a str) -> impl Iterator<Item = String> + 'a {
    memchr::memmem::find_iter(bytes, label).map(move |at| {
        let rest = &bytes[at + label.len()..];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(&rest[..end]).into_owned()
    })
}

fn date(text: &str) -> Option<(u16, u8, u8)> {
    let mut words = text.split_ascii_whitespace();
    let month = words.next()?;
    let month = MONTHS.iter().position(|known| *known == month)?;
    let day = words.next()?.parse().ok()?;
    Some((words.next()?.parse().ok()?, u8::try_from(month + 1).ok()?, day))
}

/// Length of the `start*.elf` that a `fixup*.dat` was made for.
///
/// The format is not documented. What is seen in all 16 pairs of two releases, of 2024 and of
/// 2026: the file ends in four records of a byte 1 and three bytes little-endian, and the sum of
/// the four is half the length of its `start*.elf`, plus one. A file that ends otherwise says
/// nothing: none.
pub(super) fn fixed_up_length(fixup: &[u8]) -> Option<u64> {
    const RECORDS: usize = 4;
    const RECORD_BYTES: usize = 4;
    let tail = fixup.len().checked_sub(RECORDS * RECORD_BYTES)?;
    let mut sum = 0;
    for record in fixup[tail..].chunks_exact(RECORD_BYTES) {
        if record[0] != 1 {
            return None;
        }
        sum += u64::from(u32::from_le_bytes([record[1], record[2], record[3], 0]));
    }
    (sum * 2).checked_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_read_from_the_strings_and_not_the_time_of_day() {
        let start = b"\x7fELF..VC_BUILD_ID_TIME: 18:28:41\0VC_BUILD_ID_TIME: Feb 11 2026\0\
                      VC_BUILD_ID_VERSION: ce768004 (clean)\0";
        let build = build(start).unwrap();
        assert_eq!(build.date, (2026, 2, 11));
        assert_eq!((build.date_text.as_str(), build.version.as_str()), ("Feb 11 2026", "ce768004"));
        assert_eq!(super::build(b"\x7fELF"), None);
    }

    /// The ends of `fixup.dat` and `fixup4.dat` of 2026-02-11, whose `start*.elf` are as long.
    #[test]
    fn a_fixup_knows_the_length_of_its_start() {
        let fixup =
            [0x36, 1, 0xc9, 0xf9, 3, 1, 0xb4, 0x9d, 3, 1, 0xd1, 0xdf, 0xd, 1, 0x83, 0xa2, 1];
        assert_eq!(fixed_up_length(&fixup), Some(3_027_872));
        let fixup4 = [0x36, 1, 0x77, 0xde, 2, 1, 0xca, 0x29, 3, 1, 0x9d, 8, 0xa, 1, 0x83, 0x82, 1];
        assert_eq!(fixed_up_length(&fixup4), Some(2_303_680));
        assert_eq!(fixed_up_length(&fixup[..16]), None);
        assert_eq!(fixed_up_length(b""), None);
    }
}
