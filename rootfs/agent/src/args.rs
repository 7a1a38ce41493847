//! The command line. Three verbs and two options need no parser from elsewhere.

/// What `iota --help` prints.
pub const HELP: &str = "\
The command of an Iota device

Usage: iota [OPTIONS] COMMAND

Commands:
  status        Show the system, the container engine and the containers
  services      Run the containers of this image and show their output (started by PID 1)
  network-hook  Take over a network change (run by dhcpcd)
  command-port  Run commands for the host of this virtual machine (started by PID 1)

Options of status:
      --json    Print the same facts as JSON

Options:
      --system FILE  Read another system description than /usr/lib/iota/system
  -h, --help         Print this help
  -V, --version      Print the version

Exit status: 0 done, 1 something declared does not run (status), 2 failed
";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Print the state of the device, as JSON if true.
    Status {
        /// For programs.
        json: bool,
    },
    /// Attend to the containers.
    Services,
    /// Take over a network change.
    NetworkHook,
    /// Run commands for the host of a virtual machine.
    CommandPort,
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub verb: Verb,
    /// Path of the system description.
    pub system: String,
}

impl Args {
    /// Reads the program's arguments, its own name first; an error is one clause.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut args = Self { verb: Verb::Help, system: ondisk::system::PATH.to_owned() };
        let (program, rest) = arguments.split_first().map_or(("", arguments), |(name, rest)| {
            (name.rsplit('/').next().unwrap_or_default(), rest)
        });
        // dhcpcd gives its script no argument: the name says what is meant.
        let mut verb = (program == "network-hook").then_some(Verb::NetworkHook);
        let mut rest = rest.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "-h" | "--help" | "help" => return Ok(args),
                "-V" | "--version" => return Ok(Self { verb: Verb::Version, ..args }),
                "--json" => match &mut verb {
                    Some(Verb::Status { json }) => *json = true,
                    _ => return Err("--json belongs after `status`".to_owned()),
                },
                "--system" => match rest.next() {
                    Some(file) => args.system = file.to_owned(),
                    None => return Err("--system needs a file".to_owned()),
                },
                option if option.starts_with('-') => {
                    return Err(format!("there is no option `{option}`"));
                }
                word if verb.is_none() => verb = Some(command(word)?),
                word => return Err(format!("`{word}` is one word too many")),
            }
        }
        args.verb = verb.ok_or("a command is missing")?;
        Ok(args)
    }
}

fn command(word: &str) -> Result<Verb, String> {
    match word {
        "status" => Ok(Verb::Status { json: false }),
        "services" => Ok(Verb::Services),
        "network-hook" => Ok(Verb::NetworkHook),
        "command-port" => Ok(Verb::CommandPort),
        other => Err(format!("there is no command `{other}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines_mean_what_they_say() {
        for (line, verb) in [
            ("iota status", Verb::Status { json: false }),
            ("/usr/bin/iota status --json", Verb::Status { json: true }),
            ("iota --help", Verb::Help),
            ("iota status -h", Verb::Help),
            ("iota -V", Verb::Version),
            ("iota services", Verb::Services),
            ("iota network-hook", Verb::NetworkHook),
            ("/usr/lib/iota/network-hook", Verb::NetworkHook),
        ] {
            let args = Args { verb, system: "/usr/lib/iota/system".to_owned() };
            assert_eq!(parse(line), Ok(args), "{line}");
        }
        assert_eq!(parse("iota --system x status").map(|args| args.system), Ok("x".to_owned()));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, error) in [
            ("iota", "a command is missing"),
            ("iota stauts", "there is no command `stauts`"),
            ("iota status now", "`now` is one word too many"),
            ("iota --json status", "--json belongs after `status`"),
            ("iota services --json", "--json belongs after `status`"),
            ("iota --frob", "there is no option `--frob`"),
            ("iota status --system", "--system needs a file"),
        ] {
            assert_eq!(parse(line), Err(error.to_owned()), "{line}");
        }
    }
}
