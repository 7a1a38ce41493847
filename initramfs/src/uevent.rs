//! Messages of the kernel about devices that come and go, as its netlink socket delivers them.
//!
//! A message is `ACTION@DEVPATH` and then `KEY=VALUE` fields, each ended by a zero byte.

/// The fields PID 1 looks at; missing ones are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Uevent<'a> {
    /// `add`, `remove`, `change`, `bind`…
    pub(crate) action: &'a str,
    /// Name of the device, the last part of its path.
    pub(crate) name: &'a str,
    /// `block`, `input`, `watchdog`…
    pub(crate) subsystem: &'a str,
    /// What modules know the device by.
    pub(crate) modalias: &'a str,
    /// Device node below /dev.
    pub(crate) node: &'a str,
}

impl<'a> Uevent<'a> {
    /// Reads a message; `None` if it is not one of the kernel's.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut fields = message.split(|&byte| byte == 0).map(std::str::from_utf8);
        let (action, path) = fields.next()?.ok()?.split_once('@')?;
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut event = Self { action, name, ..Self::default() };
        for (key, value) in fields.flatten().filter_map(|field| field.split_once('=')) {
            match key {
                "SUBSYSTEM" => event.subsystem = value,
                "MODALIAS" => event.modalias = value,
                "DEVNAME" => event.node = value,
                _ => {}
            }
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_device_says_what_it_is() {
        let message = b"add@/devices/platform/gpio-keys/input/input0/event0\0ACTION=add\0\
            DEVPATH=/devices/x\0SUBSYSTEM=input\0MAJOR=13\0DEVNAME=input/event0\0SEQNUM=1\0";
        let (name, node) = ("event0", "input/event0");
        let expected = Uevent { action: "add", name, subsystem: "input", modalias: "", node };
        assert_eq!(Uevent::parse(message), Some(expected));
    }

    #[test]
    fn what_is_not_a_message_of_the_kernel_is_passed_over() {
        assert_eq!(Uevent::parse(b""), None);
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(Uevent::parse(b"\xff@\0"), None);
        let broken = Uevent::parse(b"add@/x\0MODALIAS\0\xff=1\0DEVNAME=a").unwrap_or_default();
        let fields = (broken.action, broken.name, broken.modalias, broken.node);
        assert_eq!(fields, ("add", "x", "", "a"));
    }
}
