//! Small changes to device trees: an alias that a boot loader needs, memory that a board sets
//! aside, and what a virtual machine does not have. Data of a board, each with its reason.

use std::collections::BTreeMap;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use serde::Deserialize;

use crate::error::{Context, Error, Result};

/// A change to one node.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Why.
    pub reason: String,
    /// Path of the node, such as `/aliases`.
    pub node: String,
    /// Text properties that get this value, whether they are there or not.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Properties of numbers that get this value; one without any is there or not.
    #[serde(default)]
    pub cells: BTreeMap<String, Vec<u32>>,
    /// Properties that are taken away.
    #[serde(default)]
    pub delete: Vec<String>,
    /// The node itself is taken away, with all below it.
    #[serde(default)]
    pub remove: bool,
    /// The node is not there yet, and is made with these properties.
    #[serde(default)]
    pub add: bool,
}

impl Edit {
    /// Fails if the change has no reason or changes nothing.
    pub fn check(&self) -> Result<()> {
        let Self { reason, node, set, cells, delete, remove, add } = self;
        if reason.trim().is_empty() {
            return Err(Error::new(format!("the change of {node} has no reason")));
        }
        let sets = !set.is_empty() || !cells.is_empty();
        let changes = sets || !delete.is_empty();
        let makes_sense = changes != *remove && (!add || sets && delete.is_empty());
        if !node.starts_with('/') || !makes_sense {
            return Err(Error::new(format!("`{node}`: not one change of one node")).hint(
                "give an absolute path, and either `set`, `cells` or `delete`, or `remove = true`",
            ));
        }
        Ok(())
    }
}

/// A device tree with changes made to it, in their order.
///
/// Errors: bytes that are no device tree; a node or property to be taken away that is not there,
/// since then the tree is not the one that the change was written for.
pub fn edit(dtb: &[u8], edits: &[Edit]) -> Result<Vec<u8>> {
    let flat = Fdt::new(dtb).map_err(|error| error.to_string());
    let flat = flat.context(|| "not a device tree".to_owned())?;
    let mut tree = DeviceTree::from_fdt(&flat);
    for edit in edits {
        apply(&mut tree, edit)?;
    }
    Ok(tree.to_dtb())
}

fn apply(tree: &mut DeviceTree, edit: &Edit) -> Result<()> {
    let path = edit.node.as_str();
    if edit.remove {
        let (parent, name) = path.rsplit_once('/').unwrap_or_default();
        let parent = if parent.is_empty() { "/" } else { parent };
        let removed = tree.find_node_mut(parent).and_then(|parent| parent.remove_child(name));
        return removed.map(|_| ()).ok_or_else(|| absent(path));
    }
    if edit.add {
        make(tree, path)?;
    }
    let node = tree.find_node_mut(path).ok_or_else(|| absent(path))?;
    set(node, &edit.set).context(|| path.to_owned())?;
    for (name, numbers) in &edit.cells {
        let value = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        put(node, name, value).context(|| path.to_owned())?;
    }
    for name in &edit.delete {
        let removed = node.remove_property(name);
        removed.ok_or_else(|| absent(&format!("property {name} of {path}")))?;
    }
    Ok(())
}

fn set(node: &mut DeviceTreeNode, properties: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in properties {
        put(node, name, format!("{value}\0").into_bytes())?;
    }
    Ok(())
}

fn put(node: &mut DeviceTreeNode, name: &str, value: Vec<u8>) -> Result<()> {
    match node.property_mut(name) {
        Some(property) => property.set_value(value),
        None => node.add_property(new_property(name, value)?),
    }
    Ok(())
}

/// Makes a node; one that is there already is not the one that the change was written for.
fn make(tree: &mut DeviceTree, path: &str) -> Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or_default();
    let place = if parent.is_empty() { "/" } else { parent };
    let parent = tree.find_node_mut(place).ok_or_else(|| absent(place))?;
    if parent.child_mut(name).is_some() {
        return Err(Error::new(format!("the device tree has {path} already"))
            .hint("the kernel's package has changed it: look at the board's edits again"));
    }
    let made = DeviceTreeNode::new(name).map_err(|error| Error::new(error.to_string()))?;
    parent.add_child(made);
    Ok(())
}

fn new_property(name: &str, value: Vec<u8>) -> Result<DeviceTreeProperty> {
    DeviceTreeProperty::new(name, value).map_err(|error| Error::new(error.to_string()))
}

fn absent(what: &str) -> Error {
    Error::new(format!("the device tree has no {what}"))
        .hint("the kernel's package has changed it: look at the board's edits again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(
        name: &str,
        properties: &[(&str, &str)],
        children: Vec<DeviceTreeNode>,
    ) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new(name).unwrap();
        let properties = properties.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        set(&mut node, &properties.collect()).unwrap();
        children.into_iter().for_each(|child| node.add_child(child));
        node
    }

    fn sample() -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let wifi = node("wifi@1", &[("compatible", "x,y")], vec![]);
        let mmc = node("mmc@7e300000", &[("status", "okay"), ("mmc-pwrseq", "p")], vec![wifi]);
        tree.root.add_child(node("aliases", &[("serial0", "/soc/serial")], vec![]));
        tree.root.add_child(node("soc", &[], vec![mmc]));
        tree.to_dtb()
    }

    fn edits(text: &str) -> Vec<Edit> {
        #[derive(Deserialize)]
        struct File {
            edit: Vec<Edit>,
        }
        let file: File = toml::from_str(text).unwrap();
        file.edit.iter().for_each(|edit| edit.check().unwrap());
        file.edit
    }

    #[test]
    fn properties_are_set_and_deleted_and_nodes_removed() {
        let edits = edits(
            "[[edit]]\nreason = 'r'\nnode = '/aliases'\nset = { mmc0 = '/soc/mmc@7e300000' }\n\
             [[edit]]\nreason = 'r'\nnode = '/soc/mmc@7e300000'\n\
             set = { status = 'disabled' }\ndelete = ['mmc-pwrseq']\n\
             [[edit]]\nreason = 'r'\nnode = '/soc/mmc@7e300000/wifi@1'\nremove = true\n\
             [[edit]]\nreason = 'r'\nnode = '/soc/log@b000000'\nadd = true\n\
             set = { compatible = 'x' }\ncells = { reg = [0xb000000, 16], flag = [] }\n",
        );
        let edited = edit(&sample(), &edits).unwrap();
        expect_test::expect![[r#"
            /dts-v1/;

            / {
                aliases {
                    serial0 = "/soc/serial";
                    mmc0 = "/soc/mmc@7e300000";
                };

                soc {
                    mmc@7e300000 {
                        status = "disabled";
                    };

                    log@b000000 {
                        compatible = "x";
                        flag;
                        reg = <0xb000000 0x10>;
                    };
                };
            };
        "#]]
        .assert_eq(&Fdt::new(&edited).unwrap().to_string());
        assert_eq!(edit(&edited, &[]).unwrap(), edited);
    }

    #[test]
    fn what_a_change_was_not_written_for_is_refused() {
        let text = "[[edit]]\nreason = 'r'\nnode = '/soc/sd'\nremove = true\n";
        let error = edit(&sample(), &edits(text)).unwrap_err();
        assert_eq!(error.to_string(), "the device tree has no /soc/sd");
        let text = "[[edit]]\nreason = 'r'\nnode = '/soc'\ndelete = ['x']\n";
        let error = edit(&sample(), &edits(text)).unwrap_err();
        assert_eq!(error.to_string(), "the device tree has no property x of /soc");
        let text = "[[edit]]\nreason = 'r'\nnode = '/soc'\nadd = true\nset = { a = 'b' }\n";
        let error = edit(&sample(), &edits(text)).unwrap_err();
        assert_eq!(error.to_string(), "the device tree has /soc already");
        assert_eq!(edit(b"no tree", &[]).unwrap_err().to_string(), "not a device tree");
    }

    #[test]
    fn a_change_needs_a_reason_and_something_to_do() {
        let plain = |node: &str, reason: &str, remove| Edit {
            reason: reason.to_owned(),
            node: node.to_owned(),
            set: BTreeMap::new(),
            cells: BTreeMap::new(),
            delete: Vec::new(),
            remove,
            add: false,
        };
        assert!(Edit { add: true, ..plain("/soc", "r", false) }.check().is_err(), "empty");
        assert!(plain("/soc", "r", true).check().is_ok());
        for wrong in [plain("/soc", " ", true), plain("/soc", "r", false), plain("soc", "r", true)]
        {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
