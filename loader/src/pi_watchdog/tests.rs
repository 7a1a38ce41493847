//! Device trees as the kernel ships them, as far as they matter, and with one thing changed.
use std::vec::Vec;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::*;

type Properties<'a> = &'a [(&'a str, Vec<u8>)];

fn cells(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn node(name: &str, properties: Properties<'_>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(*name, value.clone()).unwrap());
    }
    node
}

/// A tree whose bus has these properties, and these nodes on it.
fn tree(root_cells: u32, bus: Properties<'_>, devices: Vec<DeviceTreeNode>) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let count = DeviceTreeProperty::new("#address-cells", cells(&[root_cells])).unwrap();
    tree.root.add_property(count);
    tree.root.add_child(node("cpus", &[]));
    let mut soc = node("soc", bus);
    devices.into_iter().for_each(|device| soc.add_child(device));
    tree.root.add_child(soc);
    tree.to_dtb()
}

fn power() -> DeviceTreeNode {
    let names = b"brcm,bcm2711-pm\0brcm,bcm2835-pm-wdt\0".to_vec();
    let place = cells(&[0x7e10_0000, 0x114, 0x7e00_a000, 0x24]);
    node("watchdog@7e100000", &[("compatible", names), ("reg", place)])
}

fn mailbox() -> DeviceTreeNode {
    let place = cells(&[0x7e00_b880, 0x40]);
    let name = b"brcm,bcm2835-mbox\0".to_vec();
    node("mailbox@7e00b880", &[("compatible", name), ("reg", place)])
}

fn bus(ranges: &[u32], shared: &[u32]) -> [(&'static str, Vec<u8>); 4] {
    [
        ("#address-cells", cells(&[1])),
        ("#size-cells", cells(&[1])),
        ("ranges", cells(ranges)),
        ("dma-ranges", cells(shared)),
    ]
}

/// One cell for an address of the processor.
fn pi3() -> [(&'static str, Vec<u8>); 4] {
    let ranges = [0x7e00_0000, 0x3f00_0000, 0x0100_0000, 0x4000_0000, 0x4000_0000, 0x1000];
    bus(&ranges, &[0xc000_0000, 0, 0x3f00_0000])
}

/// Two cells for an address of the processor.
fn pi4() -> [(&'static str, Vec<u8>); 4] {
    let ranges =
        [0x7c00_0000, 0, 0xfc00_0000, 0x0200_0000, 0x7e00_0000, 0, 0xfe00_0000, 0x180_0000];
    bus(&ranges, &[0xc000_0000, 0, 0, 0x4000_0000])
}

#[test]
fn a_pi_3_is_found() {
    let found = Board::find(&tree(1, &pi3(), vec![mailbox(), power()]));
    let shared = Window { processor: 0, bus: 0xc000_0000, length: 0x3f00_0000 };
    let board = Board { power: 0x3f10_0000, mailbox: 0x3f00_b880, shared };
    assert_eq!(found, Ok(Some(board)));
}

#[test]
fn a_pi_4_is_found() {
    let found = Board::find(&tree(2, &pi4(), vec![mailbox(), power()]));
    let shared = Window { processor: 0, bus: 0xc000_0000, length: 0x4000_0000 };
    let board = Board { power: 0xfe10_0000, mailbox: 0xfe00_b880, shared };
    assert_eq!(found, Ok(Some(board)));
}

#[test]
fn another_machine_has_no_such_watchdog() {
    assert_eq!(Board::find(&tree(2, &pi4(), vec![])), Ok(None));
    assert_eq!(Board::find(&DeviceTree::new().to_dtb()), Ok(None));
}

#[test]
fn a_tree_that_is_not_whole_leaves_the_watchdog_alone() {
    let whole = tree(2, &pi4(), vec![mailbox(), power()]);
    assert_eq!(Board::find(&whole[..whole.len() - 1]), Err(Unusable::Tree));
    assert_eq!(Board::find(b""), Err(Unusable::Tree));
    let mut nowhere = pi4();
    nowhere[2].1.truncate(16);
    assert_eq!(Board::find(&tree(2, &nowhere, vec![mailbox(), power()])), Err(Unusable::Place));
    for (property, count) in [(0, 0), (0, 3), (1, 0), (1, u32::MAX)] {
        let mut odd = pi4();
        odd[property].1 = cells(&[count]);
        assert_eq!(Board::find(&tree(2, &odd, vec![mailbox(), power()])), Err(Unusable::Place));
    }
    assert_eq!(Board::find(&tree(2, &pi4(), vec![power()])), Err(Unusable::NoAnswer));
    let unshared = &pi4()[..3];
    let found = Board::find(&tree(2, unshared, vec![mailbox(), power()]));
    assert_eq!(found, Err(Unusable::NoAnswer));
}

#[test]
fn every_tree_cut_short_or_with_a_bit_turned_is_an_answer() {
    let whole = tree(2, &pi4(), vec![mailbox(), power()]);
    for length in 0..whole.len() {
        assert_eq!(Board::find(&whole[..length]), Err(Unusable::Tree), "{length}");
    }
    for bit in 0..whole.len() * 8 {
        let mut turned = whole.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        // Whatever it says, it must not end the loader.
        let _ = Board::find(&turned);
    }
}

#[test]
fn the_longest_time_is_written_before_what_happens_then() {
    let board = Board::find(&tree(1, &pi3(), vec![mailbox(), power()])).unwrap().unwrap();
    assert_eq!(board.control(), Some(0x3f10_001c));
    let writes = board.arm(0x0000_0112);
    assert_eq!(writes, Some([(0x3f10_0024, 0x5a0f_ffff), (0x3f10_001c, 0x5a00_0122)]));
    assert_eq!(board.disarm(0x0000_0122), Some((0x3f10_001c, 0x5a00_0102)));
}

#[test]
fn a_buffer_has_an_address_for_the_firmware_only_if_it_reaches_all_of_it() {
    let window = Window { processor: 0x1000, bus: 0xc000_0000, length: 0x2000 };
    assert_eq!(window.to_bus(0x1010, 32), Some(0xc000_0010));
    assert_eq!(window.to_bus(0x2fe0, 32), Some(0xc000_1fe0));
    assert_eq!(window.to_bus(0x2ff0, 32), None);
    assert_eq!(window.to_bus(0x0fff, 1), None);
    assert_eq!(window.to_bus(u64::MAX, 32), None);
}

#[test]
fn only_firmware_that_can_be_real_has_its_watchdog_armed() {
    let answer = |day: u32| [32, 0x8000_0000, 1, 4, 0x8000_0004, day, 0, 0];
    // The newest of 2026-02-11, the first that could be, and QEMU's.
    assert_eq!(Message::check(&answer(1_770_833_487)), Ok(()));
    assert_eq!(Message::check(&answer(FIRST_FIRMWARE)), Ok(()));
    assert_eq!(Message::check(&answer(346_337)), Err(Unusable::Emulated));
    assert_eq!(Message::check(&answer(0)), Err(Unusable::Emulated));
    assert_eq!(Message::check(&Message::QUESTION), Err(Unusable::NoAnswer));
    for (word, value) in [(1, 0x8000_0001), (2, 2), (4, 4)] {
        let mut other = answer(1_770_833_487);
        other[word] = value;
        assert_eq!(Message::check(&other), Err(Unusable::NoAnswer), "{word}");
    }
}
