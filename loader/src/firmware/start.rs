//! Gives the machine to a verified kernel.
use alloc::vec::Vec;
use core::convert::Infallible;

use uefi::boot::{self, LoadImageSource};
use uefi::proto::loaded_image::LoadedImage;

use super::{initrd, watchdog};
use loader::boot::System;

/// Starts the kernel; comes back only if that did not work.
pub(super) fn start(system: System) -> Result<Infallible, &'static str> {
    let System { kernel, initrd, command_line } = system;
    let source = LoadImageSource::FromBuffer { buffer: &kernel, file_path: None };
    let image = boot::load_image(boot::image_handle(), source);
    let image = image.map_err(|_| "the firmware does not take it")?;
    // The firmware has its own copy now.
    drop(kernel);
    initrd::offer(initrd).map_err(|_| "the firmware does not take the initrd")?;
    let options: &'static [u16] = utf16(&command_line).leak();
    let size = u32::try_from(size_of_val(options)).map_err(|_| "the command line is too long")?;
    {
        let loaded = boot::open_protocol_exclusive::<LoadedImage>(image);
        let mut loaded = loaded.map_err(|_| "the firmware does not show it")?;
        // SAFETY: the options are leaked, so they outlive the kernel's use of them.
        unsafe { loaded.set_load_options(options.as_ptr().cast(), size) };
    }
    // The last act: from here to the kernel's own driver there are few seconds to spend.
    let armed = watchdog::arm();
    let result = boot::start_image(image);
    drop(armed);
    match result {
        Ok(()) => Err("it came back"),
        Err(_) => Err("it came back with an error"),
    }
}

/// Load options are UTF-16 with a zero at the end.
fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
