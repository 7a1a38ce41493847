//! The bytes of device-mapper's control interface (linux/dm-ioctl.h), as far as verity needs them.
//!
//! A request is a 312-byte header, then for a table one target: 40 bytes and its parameters as
//! text. This file only builds the bytes; [`crate::sys::device_mapper`] hands them to the kernel.

use ondisk::boot_args::Verity;
use ondisk::digest::Hex;
use std::path::Path;

/// Bytes of `struct dm_ioctl`.
pub(crate) const HEADER_BYTES: usize = 312;
/// Bytes of `struct dm_target_spec`.
const TARGET_BYTES: usize = 40;
/// Sectors of 512 bytes in a block of the tree.
const SECTORS_PER_BLOCK: u64 = 8;
/// `DM_READONLY_FLAG`: the device refuses writes.
const READ_ONLY: u32 = 1;

/// What is asked of device-mapper. Values are the command numbers of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    /// Make a device without a table.
    Create = 3,
    /// Put the loaded table to work.
    Resume = 6,
    /// Load a table into the device.
    Load = 9,
}

/// One request, as the kernel wants it in memory.
#[derive(Debug)]
pub(crate) struct Request {
    /// What to do.
    pub(crate) command: Command,
    /// Header and payload.
    pub(crate) bytes: Vec<u8>,
}

/// The requests that open a verified device, in order; each must succeed.
pub(crate) fn open_verity(name: &str, device: &Path, verity: &Verity) -> Option<[Request; 3]> {
    let sectors = verity.data_blocks.checked_mul(SECTORS_PER_BLOCK)?;
    let target = target("verity", sectors, &table(device, verity)?)?;
    Some([
        request(Command::Create, name, 0, &[])?,
        request(Command::Load, name, READ_ONLY, &target)?,
        request(Command::Resume, name, 0, &[])?,
    ])
}

/// The target's parameters: format 1, SHA-256, the tree behind the data on the same device.
///
/// A block that does not match restarts the machine: an error to the reader would leave a system
/// that runs with a part of it missing, and the loader can choose another slot.
fn table(device: &Path, verity: &Verity) -> Option<String> {
    let device = device.to_str()?;
    let Verity { root_hash, salt, data_blocks, hash_start_block } = verity;
    Some(format!(
        "1 {device} {device} 4096 4096 {data_blocks} {hash_start_block} sha256 {root_hash} {} \
         1 restart_on_corruption",
        Hex(salt)
    ))
}

fn target(kind: &str, sectors: u64, parameters: &str) -> Option<Vec<u8>> {
    let length = (TARGET_BYTES + parameters.len() + 1).next_multiple_of(8);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(0_u64.to_ne_bytes()); // first sector
    bytes.extend(sectors.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // status, from the kernel
    bytes.extend(u32::try_from(length).ok()?.to_ne_bytes()); // offset of the next target
    bytes.extend(padded::<16>(kind)?);
    bytes.extend(parameters.bytes());
    bytes.resize(length, 0);
    Some(bytes)
}

fn request(command: Command, name: &str, flags: u32, payload: &[u8]) -> Option<Request> {
    let size = u32::try_from(HEADER_BYTES + payload.len()).ok()?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    for version in [4_u32, 0, 0] {
        bytes.extend(version.to_ne_bytes());
    }
    bytes.extend(size.to_ne_bytes());
    bytes.extend(u32::try_from(HEADER_BYTES).ok()?.to_ne_bytes()); // start of the payload
    bytes.extend(u32::from(!payload.is_empty()).to_ne_bytes()); // number of targets
    bytes.extend([0; 4]); // open count, from the kernel
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // event number, padding
    bytes.extend([0; 8]); // device number, from the kernel
    bytes.extend(padded::<128>(name)?);
    bytes.extend([0; 129 + 7]); // uuid, padding
    bytes.extend(payload);
    Some(Request { command, bytes })
}

/// A string in a field of fixed size, ended by at least one zero byte.
fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut field = [0; N];
    if text.len() >= N {
        return None;
    }
    field.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ondisk::digest::Digest;

    fn sample() -> Verity {
        Verity {
            root_hash: Digest::of(b"root"),
            salt: [0xab; 32],
            data_blocks: 1000,
            hash_start_block: 1000,
        }
    }

    #[test]
    fn the_table_is_the_one_veritysetup_would_load() {
        let table = table(Path::new("/dev/vda3"), &sample()).unwrap();
        let expected = format!(
            "1 /dev/vda3 /dev/vda3 4096 4096 1000 1000 sha256 {} {} 1 restart_on_corruption",
            Digest::of(b"root"),
            "ab".repeat(32)
        );
        assert_eq!(table, expected);
    }

    #[test]
    fn a_verified_device_is_made_loaded_read_only_and_resumed() {
        let requests = open_verity("root", Path::new("/dev/vda3"), &sample()).unwrap();
        let commands = requests.each_ref().map(|request| request.command);
        assert_eq!(commands, [Command::Create, Command::Load, Command::Resume]);
        for request in &requests {
            let size = u32::from_ne_bytes(request.bytes[12..16].try_into().unwrap());
            assert_eq!(usize::try_from(size).unwrap(), request.bytes.len());
            assert_eq!(&request.bytes[48..53], b"root\0");
        }
        let [create, load, _] = requests;
        assert_eq!(create.bytes.len(), HEADER_BYTES);
        let flags = u32::from_ne_bytes(load.bytes[28..32].try_into().unwrap());
        assert_eq!(flags, READ_ONLY);
        let target = &load.bytes[HEADER_BYTES..];
        assert_eq!(target[8..16], 8000_u64.to_ne_bytes());
        assert_eq!(&target[24..31], b"verity\0");
        assert!(target[TARGET_BYTES..].starts_with(b"1 /dev/vda3 "));
        assert_eq!(target.len() % 8, 0);
        assert_eq!(target.last(), Some(&0));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let huge = Verity { data_blocks: u64::MAX, ..sample() };
        assert!(open_verity("root", Path::new("/dev/vda3"), &huge).is_none());
        assert!(open_verity(&"n".repeat(128), Path::new("/dev/vda3"), &sample()).is_none());
    }
}
