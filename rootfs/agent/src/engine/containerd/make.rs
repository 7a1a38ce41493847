//! What `ctr` is told: arguments made of declarations. Pure.
//!
//! Every container runs `iota contained` first, which is bound into it: PID 1 that passes signals
//! on and takes leave of children, with the memory killer's ordinary score in place of the
//! engine's. Privileges are those that containerd gives by itself: Docker's capabilities and its
//! system calls, and no more by a program's file mode.

use ondisk::digest::Digest;
use ondisk::system::{Again, Container};

use crate::engine::Exec;
use crate::engine::docker::LABEL;

/// What the names of images begin with; their ids follow.
pub(super) const IMAGES: &str = "iota.local/";

/// containerd's monitor starts containers with this label, as the policy says.
pub(super) const RESTART_STATUS: &str = "containerd.io/restart.status";
pub(super) const RESTART_POLICY: &str = "containerd.io/restart.policy";
const RESTART_LOG: &str = "containerd.io/restart.loguri";

/// Who takes a container's output. The words after `?` become its arguments.
pub(super) const LOG_URI: &str = "binary:///usr/bin/iota?containerd=log";

/// This program in a container.
const INSIDE: &str = "/.iota";
const PROGRAM_MOUNT: &str = "type=bind,src=/usr/bin/iota,dst=/.iota,options=rbind:ro";
const NAME_SERVERS_MOUNT: &str =
    "type=bind,src=/run/resolv.conf,dst=/etc/resolv.conf,options=rbind:ro";

/// The arguments that make a container.
pub(super) fn container(
    declared: &Container,
    image: &str,
    command: &[String],
    declaration: &str,
) -> Vec<String> {
    let mut arguments = create(declaration, &options(declared), image, &declared.name);
    arguments.extend_from_slice(command);
    arguments
}

/// From what [`container`] makes one: the image stands for its own command. A digest, since a label
/// holds no more than 4096 bytes.
pub(super) fn declaration(declared: &Container, image: &str) -> String {
    digest(&create("", &options(declared), image, &declared.name), &declared.arguments)
}

/// The arguments that make the console: in the host's namespaces and with its devices, as
/// `console_body` of the engines with Docker's API.
pub(super) fn console(name: &str, image: &str, declaration: &str) -> Vec<String> {
    let mut arguments = create(declaration, &console_options(), image, name);
    arguments.extend(["sleep", "2147483647"].map(str::to_owned));
    arguments
}

/// As [`declaration`].
pub(super) fn console_declaration(image: &str) -> String {
    digest(&create("", &console_options(), image, ""), &[])
}

/// The arguments that start a program in a running container, on the terminal of this process if
/// it has one. containerd's client adds nothing to the environment: `env` does.
pub(super) fn exec(exec: &Exec<'_>, id: &str) -> Vec<String> {
    let mut arguments = words(&["tasks", "exec", "--exec-id", id]);
    arguments.extend(exec.terminal.map(|_| "--tty".to_owned()));
    arguments.extend(words(&[exec.container, "/usr/bin/iota", "contained", "env"]));
    arguments.extend(exec.environment.iter().cloned());
    arguments.extend(exec.command.iter().cloned());
    arguments
}

fn create(declaration: &str, options: &[String], image: &str, name: &str) -> Vec<String> {
    let mut arguments = words(&["containers", "create", "--label"]);
    arguments.push(format!("{LABEL}={declaration}"));
    arguments.extend_from_slice(options);
    arguments.extend(words(&["--mount", PROGRAM_MOUNT]));
    arguments.push(format!("{IMAGES}{image}"));
    arguments.extend(words(&[name, INSIDE, "contained"]));
    arguments
}

fn options(declared: &Container) -> Vec<String> {
    let mut options = words(&["--seccomp"]);
    let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
    if declared.network == "host" {
        add("--with-ns", namespace("network", "net"));
        add("--mount", NAME_SERVERS_MOUNT.to_owned());
    }
    for entry in &declared.environment {
        add("--env", entry.clone());
    }
    if let Some(policy) = policy(declared.again) {
        add("--label", format!("{RESTART_POLICY}={policy}"));
        add("--label", format!("{RESTART_LOG}={LOG_URI}"));
    }
    options
}

fn console_options() -> Vec<String> {
    let mut options = words(&["--privileged", "--allow-new-privs", "--cwd", "/root"]);
    options.extend(words(&["--rootfs-propagation", "rslave"]));
    let namespaces =
        [("network", "net"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")];
    for (name, file) in namespaces {
        options.extend(["--with-ns".to_owned(), namespace(name, file)]);
    }
    for (source, target, kind) in [
        ("/", "/host", "rbind:rslave"),
        ("/dev", "/dev", "rbind"),
        ("/run", "/run", "rbind:rslave"),
        ("/data", "/data", "rbind:rslave"),
        ("/usr/bin/iota", "/usr/bin/iota", "rbind:ro"),
        ("/usr/lib/iota", "/usr/lib/iota", "rbind:ro"),
        (super::CONSOLE_HOME, "/root", "rbind"),
    ] {
        let mount = format!("type=bind,src={source},dst={target},options={kind}");
        options.extend(["--mount".to_owned(), mount]);
    }
    options.extend(words(&["--mount", NAME_SERVERS_MOUNT]));
    options
}

/// A namespace of PID 1, which is the host's.
fn namespace(name: &str, file: &str) -> String {
    format!("{name}:/proc/1/ns/{file}")
}

/// As containerd's monitor names it; one without is not started again.
fn policy(again: Again) -> Option<&'static str> {
    match again {
        Again::Always => Some("always"),
        Again::OnFailure => Some("on-failure"),
        Again::Never => None,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn digest(arguments: &[String], more: &[String]) -> String {
    Digest::of([arguments, more].concat().join("\0").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Container {
        Container {
            name: "web".to_owned(),
            image: "/usr/share/iota/images/web.tar".to_owned(),
            arguments: Vec::new(),
            environment: vec!["TZ=Europe/Berlin".to_owned()],
            network: "host".to_owned(),
            publish: Vec::new(),
            after: Vec::new(),
            again: Again::Always,
            on_demand: false,
        }
    }

    #[test]
    fn a_declaration_becomes_what_the_client_is_told() {
        let command = words(&["/bin/sh", "-c", "echo \"a b\""]);
        let expected = [
            "containers create --label iota.declaration=d1 --seccomp",
            "--with-ns network:/proc/1/ns/net",
            "--mount type=bind,src=/run/resolv.conf,dst=/etc/resolv.conf,options=rbind:ro",
            "--env TZ=Europe/Berlin",
            "--label containerd.io/restart.policy=always",
            "--label containerd.io/restart.loguri=binary:///usr/bin/iota?containerd=log",
            "--mount type=bind,src=/usr/bin/iota,dst=/.iota,options=rbind:ro",
            "iota.local/sha256:00 web /.iota contained /bin/sh -c echo \"a b\"",
        ];
        let made = container(&declared(), "sha256:00", &command, "d1");
        assert_eq!(made.join(" "), expected.join(" "));
        assert_eq!(made.last().unwrap(), "echo \"a b\"", "one argument stays one");
    }

    #[test]
    fn a_container_without_a_network_gets_none_and_one_that_is_done_stays_so() {
        let alone = Container {
            network: "none".to_owned(),
            again: Again::Never,
            environment: Vec::new(),
            ..declared()
        };
        assert_eq!(options(&alone), ["--seccomp"]);
        let failing = options(&Container { again: Again::OnFailure, ..alone });
        assert!(failing.contains(&"containerd.io/restart.policy=on-failure".to_owned()));
    }

    #[test]
    fn no_container_but_the_console_has_privileges_devices_or_more_of_the_host() {
        let made = container(&declared(), "sha256:00", &words(&["x"]), "d").join(" ");
        for word in ["--privileged", "--device", "--cap-add", "src=/,", "ns/pid", "/dev"] {
            assert!(!made.contains(word), "{word}: {made}");
        }
        let made = console("console", "sha256:00", "d").join(" ");
        assert!(made.contains("--privileged") && made.contains("pid:/proc/1/ns/pid"), "{made}");
        assert!(made.ends_with("console /.iota contained sleep 2147483647"), "{made}");
    }

    #[test]
    fn whatever_changes_a_container_changes_its_declaration() {
        let of = |declared: &Container| declaration(declared, "sha256:00");
        let first = of(&declared());
        assert_eq!(first, of(&declared()));
        assert_ne!(first, declaration(&declared(), "sha256:01"));
        let changes: [fn(&mut Container); 4] = [
            |it| it.arguments.push("sh".to_owned()),
            |it| it.environment.clear(),
            |it| it.network = "none".to_owned(),
            |it| it.again = Again::OnFailure,
        ];
        for change in changes {
            let mut other = declared();
            change(&mut other);
            assert_ne!(first, of(&other), "{other:?}");
        }
        assert_ne!(console_declaration("sha256:00"), console_declaration("sha256:01"));
    }

    #[test]
    fn a_program_on_a_terminal_and_one_in_a_pipe_are_asked_for_differently() {
        let mut wanted = Exec {
            container: "console",
            command: words(&["sh", "-l"]),
            environment: words(&["TERM=xterm"]),
            terminal: Some((24, 80)),
        };
        let tail = "console /usr/bin/iota contained env TERM=xterm sh -l";
        let expected = format!("tasks exec --exec-id 7 --tty {tail}");
        assert_eq!(exec(&wanted, "7").join(" "), expected);
        wanted.terminal = None;
        assert_eq!(exec(&wanted, "7").join(" "), format!("tasks exec --exec-id 7 {tail}"));
    }
}
