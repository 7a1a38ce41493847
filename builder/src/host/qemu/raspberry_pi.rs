//! A Raspberry Pi in QEMU: U-Boot and device tree are read back from the image's boot partition, so
//! that what runs is what a card holds; ROM and firmware are left out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ondisk::device::FileDevice;
use ondisk::layout::SECTOR_BYTES;
use ondisk::partition_table::PartitionTable;

use super::{Options, connections, network, value};
use crate::device_tree;
use crate::emulation::{Line, RaspberryPi};
use crate::error::{Context, Error, Result};
use crate::image::fat_reader;
use crate::image::sparse::{Sparse, SparseImage};

/// What QEMU is started with.
pub(super) struct Prepared {
    /// Everything after the program's name.
    pub(super) arguments: Vec<String>,
    /// Where the card is, unless it is the image itself. Not needed any more once it is open.
    pub(super) card: Option<tempfile::TempDir>,
}

/// Reads what the firmware would have read, and gives the machine its card.
pub(super) fn prepare(pi: &RaspberryPi, options: &Options, directory: &Path) -> Result<Prepared> {
    if options.kernel.is_some() || options.write_log.is_some() || options.read_only {
        return Err(Error::new("a Raspberry Pi in QEMU starts from a card that can be written"));
    }
    let image = options.disk.display();
    let what = || format!("cannot start {} from {image}", pi.machine);
    let device = FileDevice::new(File::open(&options.disk).context(what)?).context(what)?;
    let table = PartitionTable::read(&device, SECTOR_BYTES).map_err(|error| error.to_string());
    let table = table.context(what)?;
    let boot = table.boot().map_err(|error| error.to_string()).context(what)?.extent;
    let kernel = directory.join("kernel");
    fs::write(&kernel, fat_reader::read_file(&options.disk, boot, &pi.kernel)?).context(what)?;
    let tree = fat_reader::read_file(&options.disk, boot, &pi.device_tree)?;
    let tree = device_tree::edit(&tree, &pi.edits).context(|| pi.device_tree.clone())?;
    let device_tree = directory.join("device-tree");
    fs::write(&device_tree, tree).context(what)?;
    let (card, card_path) = card(options)?;
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    add(&["-nodefaults", "-display", "none", "-machine", pi.machine]);
    // Names that are words of their own, in which a comma is a comma.
    let plain = |path: &Path| path.to_string_lossy().into_owned();
    add(&["-kernel", &plain(&kernel), "-dtb", &plain(&device_tree)]);
    let cache = if options.persist { "writeback" } else { "unsafe" };
    let drive = format!("if=sd,format=raw,file={},cache={cache}", value(&card_path)?);
    add(&["-drive", &drive]);
    add(&["-netdev", &network(options), "-device", "usb-net,netdev=net"]);
    if let Some(stick) = &options.stick {
        let drive = "if=none,id=stick,format=raw,snapshot=on,cache=unsafe";
        add(&["-drive", &format!("{drive},file={}", value(stick)?)]);
        add(&["-device", "usb-storage,drive=stick,removable=on"]);
    }
    for line in [Line::Serial0, Line::Serial1] {
        let end = match line {
            _ if line == pi.console => "chardev:console",
            _ if Some(line) == pi.commands => "chardev:commands",
            _ => "null",
        };
        add(&["-serial", end]);
    }
    if pi.commands == Some(Line::Usb) {
        // Else it would only be there while somebody listens, and come too late for a command.
        add(&["-device", "usb-serial,chardev=commands,always-plugged=on"]);
    }
    arguments.extend(connections(options, directory)?);
    Ok(Prepared { arguments, card })
}

/// The card: QEMU takes none whose size is no power of two. The image itself grows only if it is
/// kept, as a real card is larger than the image on it too.
fn card(options: &Options) -> Result<(Option<tempfile::TempDir>, PathBuf)> {
    let what = || format!("cannot make a card of {}", options.disk.display());
    let image = SparseImage::open(&options.disk)?;
    let length = image.length.next_power_of_two();
    if options.persist {
        let file = File::options().write(true).open(&options.disk).context(what)?;
        file.set_len(length).context(what)?;
        return Ok((None, options.disk.clone()));
    }
    // Beside the image, where there is room for one.
    let place = options.disk.parent().filter(|place| !place.as_os_str().is_empty());
    let place = place.unwrap_or(Path::new("."));
    let directory = tempfile::Builder::new().prefix(".card-").tempdir_in(place);
    let directory = directory.context(what)?;
    let path = directory.path().join("card.img");
    let mut copy = Sparse::create(&path, length)?;
    copy.copy_image(&image, 0)?;
    copy.finish()?;
    Ok((Some(directory), path))
}
