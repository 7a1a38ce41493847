//! How a guest knows that its Raspberry Pi is emulated.
//!
//! QEMU's Raspberry Pi differs from a real one where it matters to us: a watchdog that is started
//! resets the machine at once, and there is no virtio for the command port. Whoever starts such a
//! machine puts one property into the root of its device tree. Nothing on a card has it: firmware
//! hands over the tree that lies in the boot partition, and the builder puts no such property
//! there. So where it is missing, the machine is taken for real.

/// The property's name. Its value is the name of the serial device behind which the command port
/// is, such as `ttyAMA0`, or empty, with a zero byte at the end.
pub const PROPERTY: &str = "iota,virtual-machine";

/// Where Linux shows it.
pub const PATH: &str = "/sys/firmware/devicetree/base/iota,virtual-machine";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_shows_the_property_under_its_name() {
        assert_eq!(PATH.rsplit('/').next(), Some(PROPERTY));
    }
}
