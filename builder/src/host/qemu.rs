//! A virtual machine that boots a disk image: QEMU as a board says it, with one disk and one
//! network card.
//!
//! Guarantees: the machine ends with this process, whatever ends it; unless asked to keep them,
//! what the guest writes goes to a file that has no name and vanishes with the machine; nothing is
//! left behind but what the caller asked for.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::emulation::Emulation;
use crate::error::{Context, Error, Result};
use crate::host::signals;
use crate::host::tools::Tools;

mod commands;
mod options;
mod plug;
mod qmp;
mod raspberry_pi;

pub use commands::Answer;
pub use options::{Forward, Kernel, Options};
pub use plug::Network;
use qmp::Qmp;

/// Something that happened in or to the machine.
#[derive(Debug)]
pub enum Event {
    /// Bytes of the serial console.
    Console(Instant, Vec<u8>),
    /// The guest restarts.
    Restarted,
    /// The guest has switched itself off (true), or the machine was ended otherwise.
    PoweredOff(bool),
    /// The machine has ended; nothing follows.
    Ended,
}

/// A running machine; dropping it ends it.
pub struct Machine {
    child: Child,
    console: ChildStdin,
    qmp: Qmp,
    started: Instant,
    command_line: String,
    directory: tempfile::TempDir,
    power_button: PowerButton,
}

/// What stands for the power button.
enum PowerButton {
    /// ACPI's.
    Acpi,
    /// There is none: the device's own command, at most once at a time.
    Command(Arc<AtomicBool>),
    /// Nothing does.
    Missing,
}

/// How long a guest may take until it listens to commands: PID 1 and what is on a slow card.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(600);

/// Files of a machine's directory: QEMU's control connection, and the guest's command port.
const QMP_SOCKET: &str = "qmp";
const COMMANDS_SOCKET: &str = "commands";

impl Machine {
    /// Starts a machine; events come through the receiver until [`Event::Ended`].
    pub fn start(options: &Options, tools: &Tools<'_>) -> Result<(Self, Receiver<Event>)> {
        check_disk(&options.disk)?;
        let directory = tempfile::Builder::new().prefix("iota-run-").tempdir();
        let directory = directory.context(|| "cannot make a temporary directory".to_owned())?;
        let socket = directory.path().join(QMP_SOCKET);
        let mut command = tools.find("qemu-system-aarch64")?.command();
        // Kept until QEMU has opened what is in it.
        let mut card = None;
        let power_button = match &options.emulation {
            Emulation::Virt => {
                let firmware = options.kernel.is_none().then(|| tools.firmware()).transpose()?;
                command.args(arguments(options, firmware.as_deref(), directory.path())?);
                PowerButton::Acpi
            }
            Emulation::RaspberryPi(pi) => {
                let prepared = raspberry_pi::prepare(pi, options, directory.path())?;
                command.args(prepared.arguments);
                card = prepared.card;
                match pi.commands {
                    Some(_) => PowerButton::Command(Arc::default()),
                    None => PowerButton::Missing,
                }
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        signals::die_with_parent(&mut command);
        signals::shield_from_terminal(&mut command);
        let command_line = words(&command);
        let started = Instant::now();
        let mut child = command.spawn().context(|| format!("cannot start {command_line}"))?;
        let (sender, events) = mpsc::channel();
        let qmp = Qmp::connect(&socket, || has_ended(&mut child), forward_events(sender.clone()));
        let qmp = qmp.map_err(|error| explain(&mut child, error))?;
        drop(card);
        let (Some(console), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new("QEMU has no console"));
        };
        std::thread::spawn(move || copy_console(output, &sender));
        let machine = Self { child, console, qmp, started, command_line, directory, power_button };
        Ok((machine, events))
    }

    /// When QEMU was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The command as one would type it.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Number of QEMU's process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Types on the guest's console.
    pub fn type_in(&mut self, bytes: &[u8]) -> Result<()> {
        use std::io::Write as _;
        let written = self.console.write_all(bytes).and_then(|()| self.console.flush());
        written.context(|| "cannot write to the console".to_owned())
    }

    /// Presses the power button: a guest in order shuts down and switches off.
    pub fn press_power_button(&self) -> Result<()> {
        match &self.power_button {
            PowerButton::Acpi => self.qmp.execute("system_powerdown", json!({})).map(|_| ()),
            PowerButton::Command(pressed) => {
                if !pressed.swap(true, Ordering::SeqCst) {
                    let (socket, pressed) = (self.commands_socket(), Arc::clone(pressed));
                    std::thread::spawn(move || {
                        // A guest that does not answer has not heard it: it is pressed again.
                        let _ = execute(&socket, &["poweroff"], io::empty(), POWER_OFF_LIMIT);
                        pressed.store(false, Ordering::SeqCst);
                    });
                }
                Ok(())
            }
            PowerButton::Missing => {
                Err(Error::new("this machine has nothing that stands for a power button"))
            }
        }
    }

    /// Whether there is a power button, or something that stands for one.
    pub fn has_power_button(&self) -> bool {
        !matches!(self.power_button, PowerButton::Missing)
    }

    /// Runs `iota ARGUMENTS` in the guest, as soon as it listens, and waits for its end.
    ///
    /// Errors: no answer within `limit`; the machine ended before it.
    pub fn execute(
        &self,
        arguments: &[&str],
        mut input: impl Read + Send,
        limit: Duration,
    ) -> Result<Answer> {
        commands::execute(&self.commands_socket(), arguments, &mut input, limit)
    }

    /// Where [`Machine::execute`] reaches the guest, for a thread that must not hold the machine.
    pub fn commands_socket(&self) -> PathBuf {
        self.directory.path().join(COMMANDS_SOCKET)
    }

    /// Bytes that the guest has read from its disk so far, firmware included.
    pub fn bytes_read(&self) -> Result<u64> {
        self.disk_statistic("rd_bytes")
    }

    /// Bytes that the guest has written to its disk so far.
    pub fn bytes_written(&self) -> Result<u64> {
        self.disk_statistic("wr_bytes")
    }

    fn disk_statistic(&self, name: &str) -> Result<u64> {
        let answer = self.qmp.execute("query-blockstats", json!({}))?;
        let devices = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(devices.iter().filter_map(|device| device["stats"][name].as_u64()).sum())
    }

    /// Ends the machine at once, as pulling the plug would, but for what QEMU still has to write.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
    }

    /// Waits until the machine has ended.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context(|| "cannot wait for QEMU".to_owned())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

fn check_disk(disk: &Path) -> Result<()> {
    let metadata = std::fs::metadata(disk).context(|| format!("cannot open {}", disk.display()))?;
    if metadata.is_file() && metadata.len() > 0 {
        return Ok(());
    }
    Err(Error::new(format!("{} is not a disk image", disk.display())))
}

/// Runs a command in the guest behind a [`Machine::commands_socket`].
pub fn execute(
    socket: &Path,
    arguments: &[&str],
    mut input: impl Read + Send,
    limit: Duration,
) -> Result<Answer> {
    commands::execute(socket, arguments, &mut input, limit)
}

/// Everything after the program's name; sockets go to `directory`.
fn arguments(options: &Options, firmware: Option<&Path>, directory: &Path) -> Result<Vec<String>> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    add(&["-nodefaults", "-display", "none", "-machine"]);
    add(if emulates() {
        &["virt,gic-version=3,accel=tcg"]
    } else {
        &["virt,gic-version=max,accel=kvm"]
    });
    // Atomic instructions, no pointer authentication, SVE or MTE: a start up to the containers
    // costs two thirds of what it does with `max`, and four fifths of `cortex-a72`.
    add(&["-cpu", if emulates() { "neoverse-n1" } else { "host" }]);
    add(&["-smp", &options.processors.to_string(), "-m", &options.memory_mib.to_string()]);
    if let Some(firmware) = firmware {
        add(&["-bios", &value(firmware)?]);
        // Else the firmware waits five seconds at every start for a key that opens its menu.
        add(&["-boot", "menu=on,splash-time=0"]);
    }
    if let Some(Kernel { image, initrd, command_line }) = &options.kernel {
        // File names are words of their own here, in which a comma is a comma.
        let plain = |path: &Path| path.to_string_lossy().into_owned();
        add(&["-kernel", &plain(image), "-initrd", &plain(initrd), "-append", command_line]);
    }
    let disk = disk_arguments(options)?;
    add(&disk.iter().map(String::as_str).collect::<Vec<_>>());
    // Whatever else is plugged in: the firmware starts what is on this one.
    // Merged, a request may have more pieces than the log of writes can take: it would lose them.
    let merging = if options.write_log.is_some() { ",request-merging=off" } else { "" };
    add(&["-device", &format!("virtio-blk-pci,drive=disk,bootindex=0{merging}")]);
    if let Some(clock) = options.clock {
        add(&["-rtc", &format!("base={clock}")]);
    }
    if options.usb || options.stick.is_some() {
        add(&["-device", "qemu-xhci"]);
    }
    if let Some(stick) = &options.stick {
        let drive = "if=none,id=stick,format=raw,snapshot=on,cache=unsafe";
        add(&["-drive", &format!("{drive},file={}", value(stick)?)]);
        add(&["-device", "usb-storage,drive=stick,removable=on"]);
    }
    add(&["-netdev", &network(options)]);
    // No boot program for the card: the machine boots from its disk alone.
    add(&["-device", "virtio-net-pci,netdev=net,romfile="]);
    // Restarts a guest that hangs, as the watchdog of a machine does.
    add(&["-device", "i6300esb", "-action", "watchdog=reset"]);
    add(&["-device", "virtio-serial-pci"]);
    let port = format!("virtserialport,chardev=commands,name={}", ondisk::command_port::NAME);
    add(&["-serial", "chardev:console", "-device", &port]);
    arguments.extend(connections(options, directory)?);
    Ok(arguments)
}

/// What leads out of every machine: its console, its commands, and QEMU's own control.
fn connections(options: &Options, directory: &Path) -> Result<Vec<String>> {
    let socket = |name: &str| -> Result<String> {
        Ok(format!("path={},server=on,wait=off", value(&directory.join(name))?))
    };
    let commands = format!("socket,id=commands,{}", socket(COMMANDS_SOCKET)?);
    let qmp = format!("unix:{}", socket(QMP_SOCKET)?);
    let console = "stdio,id=console,signal=off";
    let words = ["-chardev", console, "-chardev", &commands, "-qmp", &qmp];
    let end = if options.restarts { &[][..] } else { &["-no-reboot"] };
    Ok(words.iter().chain(end).map(|&word| word.to_owned()).collect())
}

/// The network as QEMU's user sees it: the guest reaches out, and the forwarded ports lead in.
fn network(options: &Options) -> String {
    let forwards = options.forwards.iter();
    let forwards: String = forwards
        .map(|Forward { host, guest }| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"))
        .collect();
    format!("user,id=net{forwards}")
}

/// A path within an argument: a comma ends a value there, two of them are one.
fn value(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| {
        Error::new(format!("{} is not UTF-8, which QEMU cannot take", path.display()))
    })?;
    Ok(text.replace(',', ",,"))
}

/// The disk, and the log of its writes if there is one.
fn disk_arguments(options: &Options) -> Result<Vec<String>> {
    let disk = value(&options.disk)?;
    let Some(log) = &options.write_log else {
        let writes = match (options.read_only, options.persist) {
            (true, _) => "readonly=on",
            (false, true) => "snapshot=off,cache=writeback",
            (false, false) => "snapshot=on,cache=unsafe",
        };
        let image = format!("if=none,id=disk,format=raw,discard=unmap,file={disk},{writes}");
        return Ok(vec!["-drive".to_owned(), image]);
    };
    if !options.persist || options.read_only {
        return Err(Error::new("writes can only be logged where they are kept"));
    }
    std::fs::write(log, b"").context(|| format!("cannot create {}", log.display()))?;
    // A flush that takes no time covers exactly the writes that the log has before it; what is on
    // the file in the end is no different.
    let nodes = [
        format!("driver=file,node-name=image,filename={disk},discard=unmap,cache.no-flush=on"),
        format!("driver=file,node-name=log,filename={},cache.no-flush=on", value(log)?),
        "driver=blklogwrites,node-name=disk,file=image,log=log,log-sector-size=512,\
         discard=unmap"
            .to_owned(),
    ];
    Ok(nodes.into_iter().flat_map(|node| ["-blockdev".to_owned(), node]).collect())
}

/// Whether the guest's processor has to be emulated.
fn emulates() -> bool {
    !cfg!(target_arch = "aarch64")
        || std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err()
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

/// Adds what QEMU said before it ended, and what the user may do about it.
fn explain(child: &mut Child, error: Error) -> Error {
    let _ = child.kill();
    let _ = child.wait();
    let mut text = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        let _ = pipe.read_to_string(&mut text);
    }
    let Some(line) = text.lines().next_back() else { return error };
    let explained = Error::new(format!("QEMU: {line}"));
    if line.contains("forwarding rule") {
        return explained.hint("another program listens on that port: choose another --forward");
    }
    explained
}

fn forward_events(sender: Sender<Event>) -> impl FnMut(Value) + Send + 'static {
    move |message| {
        let by_guest = message["data"]["guest"].as_bool() == Some(true);
        let event = match message["event"].as_str() {
            Some("RESET") if by_guest => Event::Restarted,
            // The watchdog's reset is nobody's wish, but a restart like any other.
            Some("WATCHDOG") => Event::Restarted,
            Some("SHUTDOWN") if message["data"]["reason"] == "guest-reset" => Event::Restarted,
            Some("SHUTDOWN") => Event::PoweredOff(by_guest),
            _ => return,
        };
        // Nobody listens any more: then nobody misses it.
        let _ = sender.send(event);
    }
}

fn copy_console(mut output: impl Read, events: &Sender<Event>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        if events.send(Event::Console(Instant::now(), buffer[..length].to_vec())).is_err() {
            return;
        }
    }
    // QEMU closes its connections one after the other: what it last said may still be on its way.
    std::thread::sleep(Duration::from_millis(50));
    let _ = events.send(Event::Ended);
}

fn words(command: &Command) -> String {
    let quoted = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(options: &Options) -> String {
        let directory = Path::new("/tmp/x");
        arguments(options, Some(Path::new("/fw/QEMU_EFI.fd")), directory).unwrap().join(" ")
    }

    #[test]
    fn a_disk_is_written_only_when_asked_for() {
        let mut options = Options::new("/images/a,b.img");
        assert!(line(&options).contains("file=/images/a,,b.img,snapshot=on,"));
        options.persist = true;
        assert!(line(&options).contains("file=/images/a,,b.img,snapshot=off,"));
        options.read_only = true;
        assert!(line(&options).contains("file=/images/a,,b.img,readonly=on "));
    }

    #[test]
    fn a_stick_is_plugged_in_beside_the_disk_and_not_booted_from() {
        let mut options = Options::new("/images/disk.img");
        assert!(!line(&options).contains("usb-storage"));
        options.stick = Some("/images/stick.img".into());
        let line = line(&options);
        assert!(line.contains("snapshot=on,cache=unsafe,file=/images/stick.img "), "{line}");
        assert!(line.contains("drive=disk,bootindex=0 "), "{line}");
    }

    #[test]
    fn writes_are_logged_only_where_they_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new("/images/disk.img");
        options.write_log = Some(directory.path().join("log"));
        let firmware = Path::new("/fw/QEMU_EFI.fd");
        assert!(arguments(&options, Some(firmware), directory.path()).is_err());
        options.persist = true;
        let line = line(&options);
        assert!(line.contains("driver=blklogwrites,node-name=disk,file=image,log=log,"), "{line}");
    }

    #[test]
    fn forwarded_ports_listen_on_this_machine_alone() {
        let mut options = Options::new("/disk.img");
        options.forwards = vec!["8080:80".parse().unwrap(), "2222:22".parse().unwrap()];
        let expected = ",hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:127.0.0.1:2222-:22";
        assert!(line(&options).contains(expected));
    }

    #[test]
    fn a_pair_of_ports_is_two_numbers_above_zero() {
        assert_eq!("8080:80".parse::<Forward>().unwrap(), Forward { host: 8080, guest: 80 });
        for wrong in ["8080", "8080:", ":80", "0:80", "80:65536", "a:b", "1:2:3"] {
            assert!(wrong.parse::<Forward>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_missing_or_empty_image_is_refused_before_anything_starts() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check_disk(&directory.path().join("none")).is_err());
        assert!(check_disk(directory.path()).is_err());
    }
}
