//! Hands the initrd to the kernel the way Linux' EFI stub asks for it: as the file of a device
//! whose path is one vendor-defined node (Linux: `drivers/firmware/efi/libstub/efi-stub-helper.c`).
//! The kernel gets the bytes in memory that were verified; nothing is opened a second time.
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;

use uefi::proto::device_path::{DevicePath, FfiDevicePath};
use uefi::{Guid, Identify as _, Status, boot, guid};

/// The GUID of `EFI_LOAD_FILE2_PROTOCOL` (UEFI specification, 13.2).
const LOAD_FILE2: Guid = guid!("4006c0c1-fcb3-403e-996d-4a6c8724e06d");

/// Linux' own device path for its initrd: a vendor-defined media node and the end of the path.
static PATH: InitrdPath = InitrdPath {
    kind: [4, 3],
    length: [20, 0],
    vendor: guid!("5568e427-68fc-4f3d-ac74-ca555231cc68"),
    end: [0x7f, 0xff, 4, 0],
};

#[repr(C)]
struct InitrdPath {
    kind: [u8; 2],
    length: [u8; 2],
    vendor: Guid,
    end: [u8; 4],
}

const _: () = assert!(size_of::<InitrdPath>() == 24);

/// `EFI_LOAD_FILE2_PROTOCOL`, followed by what belongs to us.
#[repr(C)]
struct LoadFile2 {
    load_file: unsafe extern "efiapi" fn(
        this: *const Self,
        path: *const FfiDevicePath,
        boot_policy: u8,
        size: *mut usize,
        buffer: *mut c_void,
    ) -> Status,
    initrd: Vec<u8>,
}

/// Offers the initrd to the kernel that is started next.
pub(super) fn offer(initrd: Vec<u8>) -> uefi::Result {
    // Leaked on purpose: the firmware keeps the pointers until the kernel has taken over.
    let file: &'static LoadFile2 = Box::leak(Box::new(LoadFile2 { load_file, initrd }));
    // SAFETY: the interface is a device path in the firmware's layout, and lives for ever.
    let handle = unsafe {
        boot::install_protocol_interface(None, &DevicePath::GUID, (&raw const PATH).cast())?
    };
    // SAFETY: the interface starts with the protocol in the firmware's layout, and lives for ever.
    unsafe {
        boot::install_protocol_interface(Some(handle), &LOAD_FILE2, (&raw const *file).cast())?;
    }
    Ok(())
}

/// The kernel calls this twice: without a buffer for the size, then for the bytes.
unsafe extern "efiapi" fn load_file(
    this: *const LoadFile2,
    _path: *const FfiDevicePath,
    boot_policy: u8,
    size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if this.is_null() || size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    if boot_policy != 0 {
        return Status::UNSUPPORTED;
    }
    // SAFETY: `this` is the interface that offer() has installed, which is never changed.
    let initrd = unsafe { &(*this).initrd };
    // SAFETY: the caller's size, checked above to be there.
    let room = unsafe { size.replace(initrd.len()) };
    if buffer.is_null() || room < initrd.len() {
        return Status::BUFFER_TOO_SMALL;
    }
    // SAFETY: the caller's buffer has room for the initrd and is not our memory.
    unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(initrd.as_ptr(), initrd.len()) };
    Status::SUCCESS
}
