//! Standard output, for what a command was asked for. Whoever reads it may stop doing so: `head`
//! does, and that is no failure. What cannot be written for another reason is one.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

/// Prints a line, as `println!` does.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::host::output::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) use out;

/// Prints text as it is; ends the program with status 2 if the disk behind it is full.
pub(crate) fn print(text: Arguments<'_>) {
    if let Err(error) = write(&mut io::stdout().lock(), text) {
        eprintln!("error: cannot write to standard output: {error}");
        std::process::exit(2);
    }
}

fn write(to: &mut impl Write, text: Arguments<'_>) -> io::Result<()> {
    match to.write_fmt(text).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        let written = |kind| write(&mut Fails(kind), format_args!("text"));
        assert!(written(ErrorKind::BrokenPipe).is_ok());
        assert!(written(ErrorKind::StorageFull).is_err());
    }
}
