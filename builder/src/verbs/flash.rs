//! `iota flash`: puts an image on a card or into a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ondisk::device::{FileDevice, ReadAt as _};

use super::build;
use crate::cli::{Common, FlashArgs};
use crate::error::{Context as _, Error, Result};
use crate::flash::changes::{Changes, Overlay};
use crate::flash::config::{self, Config};
use crate::flash::facts::{Facts, Place, disk_size};
use crate::flash::permit::{Candidate, Permit, Request, Target, candidates, may_flash};
use crate::flash::refusal::Refusal;
use crate::flash::source::Image;
use crate::flash::table::{self, Backup};
use crate::flash::write::{self, Done, End, Job, Watch};
use crate::flash::{HEAD_BYTES, is_incomplete};
use crate::hex;
use crate::host::block_devices::{self, OpenTarget};
use crate::host::output::out;
use crate::host::progress::{Progress, Unit, megabytes};
use crate::host::signals;

/// Builds if a board is named, decides, writes, reads back.
pub fn run(arguments: &FlashArgs, common: &Common) -> Result<ExitCode> {
    let progress = Progress::new(common.quiet);
    let what = What::of(&arguments.build.board);
    check_options(&what, arguments)?;
    let Some(device) = &arguments.device else { return Err(show_candidates(arguments)?) };
    let config = arguments.config.as_deref().map(super::config::load).transpose()?;
    // Before a build, which may take a while, and again after it.
    permit(device, arguments, &[], 0)?;
    let path = match what {
        What::File(path) => path,
        What::Board(name) => built(name, arguments, common)?,
    };
    let image = open_image(&path, &progress)?;
    let permit = permit(device, arguments, &[&path], image.length())?;
    let changes = changes(&image, &permit, config.as_ref(), &progress)?;
    let mut target = block_devices::open(&permit)?;
    let flash = Flash { image: &image, permit: &permit, changes: &changes, progress: &progress };
    flash.run(&mut target)
}

/// What is to be written, as named on the command line.
#[derive(Debug, PartialEq, Eq)]
enum What<'a> {
    Board(&'a str),
    File(PathBuf),
}

impl<'a> What<'a> {
    /// A name with a `/` in it or an image's ending is a file.
    fn of(name: &'a str) -> Self {
        let is_file = name.contains('/') || name.ends_with(".img") || name.ends_with(".zst");
        if is_file { Self::File(PathBuf::from(name)) } else { Self::Board(name) }
    }
}

fn check_options(what: &What<'_>, arguments: &FlashArgs) -> Result<()> {
    let build = &arguments.build;
    let building = build.release || build.force || build.locked || build.image_version.is_some();
    match what {
        What::File(path) if building => Err(Error::new(format!(
            "{} is a file: --release, --force, --locked and --image-version build a board",
            path.display()
        ))
        .hint("leave them out, or name a board")),
        _ => Ok(()),
    }
}

/// Builds the board's image unless it is up to date.
fn built(name: &str, arguments: &FlashArgs, common: &Common) -> Result<PathBuf> {
    let summary = build::run(&arguments.build, common).map_err(|error| {
        let is_file = Path::new(name).is_file();
        // Whoever names a file without a directory or an ending meant the file.
        if is_file { Error::caused(format!("for the file: ./{name}"), error) } else { error }
    })?;
    Ok(summary.disk())
}

/// Prints the disks there are; the error says what to do next.
fn show_candidates(arguments: &FlashArgs) -> Result<Error> {
    let facts = block_devices::facts()?;
    let found: Vec<Candidate<'_>> = candidates(&facts).collect();
    let nothing = "no --device: nothing was written";
    let Some(first) = found.iter().find(|one| one.mounted.is_empty()).or(found.first()) else {
        return Ok(Error::new(format!("{nothing}, and no card, stick or USB disk is here"))
            .hint("put one in, or write a file: --device card.img"));
    };
    for line in candidate_lines(&found) {
        out!("{line}");
    }
    let name = first.disk.path();
    let what = &arguments.build.board;
    Ok(Error::new(nothing).hint(format!("for the first: iota flash {what} --device {name}")))
}

/// `/dev/sda  31.9 GB  SanDisk Ultra Fit  mounted: /media/stick`
fn candidate_lines(found: &[Candidate<'_>]) -> Vec<String> {
    let name = |one: &Candidate<'_>| one.disk.path();
    let size = |one: &Candidate<'_>| disk_size(one.disk.bytes);
    let width = |text: &dyn Fn(&Candidate<'_>) -> String| {
        found.iter().map(|one| text(one).chars().count()).max().unwrap_or(0)
    };
    let (names, sizes) = (width(&name), width(&size));
    let models = width(&|one| one.disk.model.clone());
    let line = |one: &Candidate<'_>| {
        let (name, size, model) = (name(one), size(one), &one.disk.model);
        let mounted = match one.mounted.as_slice() {
            [] => String::new(),
            places => format!("mounted: {}", places.join(", ")),
        };
        let line = format!("{name:<names$}  {size:>sizes$}  {model:<models$}  {mounted}");
        line.trim_end().to_owned()
    };
    found.iter().map(line).collect()
}

/// Looks at the machine as it is now, and decides.
fn permit(
    device: &Path,
    arguments: &FlashArgs,
    sources: &[&Path],
    image_bytes: u64,
) -> Result<Permit> {
    let facts: Facts = block_devices::facts()?;
    let target = block_devices::look(device)?;
    let erase = arguments.yes_erase.as_deref().map(block_devices::look).transpose()?;
    let sources = sources.iter().copied().chain(arguments.config.as_deref());
    let sources: Vec<Place> = sources.map(block_devices::look).collect::<Result<_>>()?;
    let request =
        Request { target: &target, erase: erase.as_ref(), sources: &sources, image_bytes };
    may_flash(&request, &facts).map_err(Refusal::into_error)
}

fn open_image(path: &Path, progress: &Progress) -> Result<Image> {
    let task = progress.task("look", Unit::Bytes, 0);
    let image = Image::open(path, |text| progress.warn(text), |bytes| task.add(bytes))?;
    drop(task);
    let shown = path.display();
    let length = image.length();
    let no_disk = |why: &str| {
        Error::new(format!("{shown} is no disk image: {why}"))
            .hint("give it disk.img or disk.img.zst of out/BOARD; other archives unpacked")
    };
    if length < HEAD_BYTES || !length.is_multiple_of(512) {
        return Err(no_disk(&format!("it has {length} bytes")));
    }
    let mut sector = [0; 512];
    let front = image.front(512)?;
    front.read_at(0, &mut sector).context(|| format!("cannot read {shown}"))?;
    if is_incomplete(&sector) {
        return Err(no_disk("it was made by an interrupted iota flash"));
    }
    if sector[510..] != [0x55, 0xAA] {
        return Err(no_disk("it has no partition table"));
    }
    Ok(image)
}

/// What the card shall hold that the image does not.
fn changes(
    image: &Image,
    permit: &Permit,
    config: Option<&Config>,
    progress: &Progress,
) -> Result<Changes> {
    let front = image.front(HEAD_BYTES)?;
    let mut card = Overlay::new(&front, permit.bytes());
    if table::move_backup(&mut card, image.length())? == Backup::LeftInTheMiddle {
        progress.warn("the backup of the partition table stays where the image has it");
    }
    let Some(config) = config else { return Ok(card.into_changes()) };
    let boot = table::boot_partition(&card)?;
    let more: FileDevice = image.front(boot.end)?;
    let mut card = Overlay::new(&more, permit.bytes());
    table::move_backup(&mut card, image.length())?;
    config::put(&mut card, config)?;
    Ok(card.into_changes())
}

struct Flash<'a> {
    image: &'a Image,
    permit: &'a Permit,
    changes: &'a Changes,
    progress: &'a Progress,
}

impl Flash<'_> {
    fn run(&self, target: &mut OpenTarget) -> Result<ExitCode> {
        let name = self.permit.path().display().to_string();
        let stretches = self.image.stretches(self.permit.reads_zeros());
        let job = Job {
            name: &name,
            stretches: &stretches,
            image_bytes: self.image.length(),
            changes: self.changes,
        };
        let total = write::bytes_to_write(&job, self.permit.bytes());
        let writing = self.progress.task("write", Unit::Bytes, total);
        // One bar after the other: the second appears when the first bytes are read back.
        let checking = OnceLock::new();
        let check = || {
            writing.finish(format!("wrote {}", megabytes(total)));
            self.progress.task("read back", Unit::Bytes, total)
        };
        let cancel = cancelled_by_interrupt();
        let started = Instant::now();
        let watch = Watch {
            cancel: &cancel,
            written: &|bytes| {
                if checking.get().is_none() {
                    writing.add(bytes);
                }
            },
            checked: &|bytes| checking.get_or_init(check).add(bytes),
        };
        let mut reader = self.image.reader()?;
        let end = write::write(target, &mut reader, &job, &watch);
        drop((writing, checking));
        match end {
            Ok(End::Complete(done)) => {
                self.report(&done, total, started.elapsed().as_secs_f64());
                Ok(ExitCode::SUCCESS)
            }
            Ok(End::Cancelled) => {
                eprintln!("interrupted: {name} is incomplete and says so; flash it again");
                Ok(ExitCode::from(signals::INTERRUPTED))
            }
            Err(error) => Err(Error::caused(format!("{name} is incomplete"), error)),
        }
    }

    fn report(&self, done: &Done, total: u64, seconds: f64) {
        let name = self.permit.path().display();
        let model = match self.permit.target() {
            Target::Disk(disk) if !disk.model.is_empty() => format!(" ({})", disk.model),
            _ => String::new(),
        };
        let rate = megabytes((total as f64 / seconds.max(0.001)) as u64);
        self.progress.line(format!(
            "{name}{model} is whole: {} written and read back in {seconds:.1} s ({rate} a second)",
            megabytes(total)
        ));
        let digest = hex::encode(done.image_sha256);
        let what = if done.image_bytes == self.image.length() {
            "the whole image".to_owned()
        } else {
            format!("the image's {} mapped bytes", done.image_bytes)
        };
        out!("sha256 of {what}: {digest}");
    }
}

/// Set by the first interrupt; the second ends the process, which the card survives as well.
fn cancelled_by_interrupt() -> Arc<AtomicBool> {
    let cancel = Arc::new(AtomicBool::new(false));
    let (interrupts, shared) = (signals::interrupts(), Arc::clone(&cancel));
    std::thread::spawn(move || {
        if interrupts.recv().is_ok() {
            shared.store(true, Ordering::Relaxed);
        }
    });
    cancel
}

#[cfg(test)]
mod tests;
