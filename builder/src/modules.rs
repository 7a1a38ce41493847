//! Kernel modules: the closure of a board's list, unpacked, with the index that `depmod` would
//! make for exactly that set.
//!
//! Debian's kernel package has no `modules.dep`: its scripts make it on the machine. Each module
//! says in its `.modinfo` section what it needs (`depends`), what it would like to have loaded
//! before and after it (`softdep`), what it may ask for later (`weakdep`) and what it answers to
//! (`alias`), so only modules that are reached are ever unpacked.
//!
//! The root gets modules and text index below `usr/lib/modules/RELEASE`, in kmod's formats
//! (modules.dep(5)); the initrd gets modules and `order`, one file name a line, each after what it
//! needs. Module signatures are kept: a kernel in lockdown asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use object::{Object, ObjectSection};

use crate::error::{Context, Error, Result};
use crate::suggest;
use crate::tree::{Content, Kind, Node, TreePath};

/// Who brings these files, for messages and the size report.
pub const ORIGIN: &str = "kernel modules";

/// The modules of a kernel package, still packed.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    files: BTreeMap<String, Packed>,
    builtin: BTreeSet<String>,
    builtin_aliases: BTreeSet<String>,
    builtin_text: Content,
}

/// A module in its package.
#[derive(Clone, Debug)]
struct Packed {
    /// Path below the release's directory, without `.xz`.
    path: String,
    content: Content,
    compressed: bool,
}

/// Modules with everything they need.
#[derive(Clone, Debug)]
pub struct Closure {
    release: String,
    modules: BTreeMap<String, Module>,
    builtin_text: Content,
    /// Names in the order they were asked for.
    wanted: Vec<String>,
    /// Soft dependencies that nothing in the set, the package or the kernel answers to, as
    /// `libcrc32c: crc32c`. The kernel may live without them; a board that cannot lists a module.
    pub unmet: Vec<String>,
}

/// One unpacked module.
#[derive(Clone, Debug)]
struct Module {
    path: String,
    bytes: Arc<[u8]>,
    info: Info,
}

/// What a module says about itself, names as `lsmod` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    before: Vec<String>,
    after: Vec<String>,
    weak: Vec<String>,
    aliases: Vec<String>,
}

impl Kernel {
    /// Finds the modules among the files of a kernel package.
    pub fn find(package: &str, entries: &[(TreePath, Node)]) -> Result<Kernel> {
        let mut kernel = Kernel {
            release: String::new(),
            files: BTreeMap::new(),
            builtin: BTreeSet::new(),
            builtin_aliases: BTreeSet::new(),
            builtin_text: Content::bytes(Vec::new()),
        };
        for (path, node) in entries {
            let Some((release, inside)) = below_modules(path) else { continue };
            let Kind::File(content) = &node.kind else { continue };
            if !kernel.release.is_empty() && kernel.release != release {
                return Err(Error::new(format!(
                    "package {package} has modules of both {} and {release}",
                    kernel.release
                )));
            }
            kernel.release = release.to_owned();
            kernel.add(inside, content)?;
        }
        if kernel.files.is_empty() {
            return Err(Error::new(format!("package {package} has no kernel modules")));
        }
        Ok(kernel)
    }

    fn add(&mut self, inside: &str, content: &Content) -> Result<()> {
        if inside == "modules.builtin" {
            let bytes = content.read()?;
            let text = String::from_utf8_lossy(&bytes);
            self.builtin.extend(text.lines().filter_map(module_name));
            self.builtin_text = content.clone();
            return Ok(());
        }
        if inside == "modules.builtin.modinfo" {
            let bytes = content.read()?;
            let entries = bytes.split(|byte| *byte == 0);
            self.builtin_aliases = entries.filter_map(builtin_alias).collect();
            return Ok(());
        }
        let path = inside.strip_suffix(".xz").unwrap_or(inside);
        if let Some(name) = module_name(path) {
            let compressed = path != inside;
            let packed = Packed { path: path.to_owned(), content: content.clone(), compressed };
            if let Some(other) = self.files.insert(name.clone(), packed) {
                return Err(Error::new(format!("{} and {inside} are both {name}", other.path)));
            }
        }
        Ok(())
    }

    /// The modules with these names and all they need, hard and soft. Names of drivers that are
    /// built into the kernel are fine and bring nothing.
    ///
    /// Errors: a name that is no module (with the nearest one), a module that cannot be unpacked.
    pub fn closure<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Closure> {
        let wanted: Vec<String> = names.into_iter().map(normal).collect();
        for name in &wanted {
            if !self.files.contains_key(name) && !self.builtin.contains(name) {
                return Err(self.unknown(name));
            }
        }
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        let mut next: BTreeSet<String> = wanted.iter().cloned().collect();
        while !next.is_empty() {
            let round: Vec<&String> =
                next.iter().filter(|name| self.files.contains_key(*name)).collect();
            let unpacked = self.unpack_all(&round)?;
            next.clear();
            for (name, module) in unpacked {
                self.check_depends(&name, &module)?;
                next.extend(module.info.reached().cloned());
                modules.insert(name, module);
            }
            next.retain(|name| !modules.contains_key(name));
        }
        let builtin_text = self.builtin_text.clone();
        let release = self.release.clone();
        let mut closure = Closure { release, modules, builtin_text, wanted, unmet: Vec::new() };
        closure.unmet = closure
            .find_unmet(|wish| self.builtin.contains(wish) || self.builtin_aliases.contains(wish));
        Ok(closure)
    }

    fn unknown(&self, name: &str) -> Error {
        let known = self.files.keys().chain(&self.builtin).map(String::as_str);
        let error = Error::new(format!("kernel {} has no module {name}", self.release));
        match suggest::nearest(name, known) {
            Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
            None => error.hint("module names are those that `modprobe` takes"),
        }
    }

    fn check_depends(&self, name: &str, module: &Module) -> Result<()> {
        let there = |need: &&String| self.files.contains_key(*need) || self.builtin.contains(*need);
        match module.info.depends.iter().find(|need| !there(need)) {
            None => Ok(()),
            Some(need) => Err(Error::new(format!(
                "module {name} needs {need}, which kernel {} does not have",
                self.release
            ))),
        }
    }

    /// Unpacks modules on all cores.
    fn unpack_all(&self, names: &[&String]) -> Result<Vec<(String, Module)>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = names.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let workers: Vec<_> = names
                .chunks(share)
                .map(|chunk| {
                    scope.spawn(|| {
                        let unpack = |name: &&String| Ok(((*name).clone(), self.unpack(name)?));
                        chunk.iter().map(unpack).collect::<Result<Vec<_>>>()
                    })
                })
                .collect();
            let mut unpacked = Vec::new();
            for worker in workers {
                let part = worker.join().map_err(|_| Error::new("a worker thread panicked"))?;
                unpacked.extend(part?);
            }
            Ok(unpacked)
        })
    }

    fn unpack(&self, name: &str) -> Result<Module> {
        let packed = self.files.get(name).ok_or_else(|| self.unknown(name))?;
        let what = || format!("cannot unpack the module {}", packed.path);
        let mut bytes = packed.content.read().context(what)?;
        if packed.compressed {
            let mut plain = Vec::new();
            liblzma::read::XzDecoder::new(&bytes[..]).read_to_end(&mut plain).context(what)?;
            bytes = plain.into();
        }
        let info = Info::read(&bytes).context(what)?;
        Ok(Module { path: packed.path.clone(), bytes, info })
    }
}

/// `usr/lib/modules/RELEASE/REST` → release and rest.
fn below_modules(path: &TreePath) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(path.as_bytes()).ok()?;
    let text = text.strip_prefix("usr/").unwrap_or(text);
    text.strip_prefix("lib/modules/")?.split_once('/')
}

/// `kernel/fs/erofs/erofs.ko` → `erofs`.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    file.strip_suffix(".ko").map(normal)
}

/// `sha512_generic.alias=sha512` → `sha512`.
fn builtin_alias(entry: &[u8]) -> Option<String> {
    let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
    key.ends_with(".alias").then(|| normal(value))
}

/// File names may have `-` where the module's own name has `_`.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

impl Info {
    /// Reads the `.modinfo` section: NUL-separated `key=value`.
    fn read(elf: &[u8]) -> Result<Info> {
        let file = object::File::parse(elf).context(|| "it is not an ELF file".to_owned())?;
        let section = file
            .section_by_name(".modinfo")
            .ok_or_else(|| Error::new("it has no section .modinfo"))?;
        let data = section.data().context(|| "its section .modinfo is damaged".to_owned())?;
        let mut info = Info::default();
        for entry in data.split(|byte| *byte == 0) {
            let Ok(entry) = std::str::from_utf8(entry) else { continue };
            let Some((key, value)) = entry.split_once('=') else { continue };
            match key {
                "depends" => info.depends.extend(words(value)),
                "softdep" => info.add_soft(value),
                "weakdep" => info.weak.extend(words(value)),
                "alias" => info.aliases.push(value.to_owned()),
                _ => {}
            }
        }
        Ok(info)
    }

    /// `pre: a b post: c`. Words before either are no order to modprobe, which passes over them;
    /// drivers such as cifs name there what they may ask for later.
    fn add_soft(&mut self, value: &str) {
        let mut list = &mut self.weak;
        for word in value.split_ascii_whitespace() {
            match word {
                "pre:" => list = &mut self.before,
                "post:" => list = &mut self.after,
                name => list.push(normal(name)),
            }
        }
    }

    fn soft(&self) -> impl Iterator<Item = &String> {
        self.before.iter().chain(&self.after)
    }

    fn reached(&self) -> impl Iterator<Item = &String> {
        self.depends.iter().chain(self.soft()).chain(&self.weak)
    }
}

fn words(value: &str) -> impl Iterator<Item = String> + '_ {
    value.split([',', ' ']).filter(|word| !word.is_empty()).map(normal)
}

impl Closure {
    /// Modules and index for the root.
    pub fn root_nodes(&self) -> Result<Vec<(TreePath, Node)>> {
        let base = TreePath::new(format!("usr/lib/modules/{}", self.release))?;
        let file = |content: Content| Node::file(content, 0o644, ORIGIN);
        let text = |text: String| file(Content::bytes(text.into_bytes()));
        let mut nodes = vec![
            (base.join("modules.dep")?, text(self.dependencies())),
            (base.join("modules.alias")?, text(self.aliases())),
            (base.join("modules.softdep")?, text(self.soft_dependencies())),
            (base.join("modules.builtin")?, file(self.builtin_text.clone())),
        ];
        for module in self.modules.values() {
            nodes.push((base.join(&module.path)?, file(Content::bytes(module.bytes.clone()))));
        }
        Ok(nodes)
    }

    /// Modules and `order` for the initrd, below `lib/modules`. Those that `always` names, and what
    /// they need, come first in `order`; an empty line ends them.
    pub fn initrd_nodes(&self, always: &[&str]) -> Result<Vec<(TreePath, Node)>> {
        let base = TreePath::new("lib/modules")?;
        let always = self.part(always.iter().copied())?;
        let first = always.load_order();
        let later = self.load_order().into_iter().filter(|name| !first.contains(name));
        let mut order: String = first.iter().map(|name| format!("{name}.ko\n")).collect();
        order.push('\n');
        order.extend(later.map(|name| format!("{name}.ko\n")));
        let mut nodes = Vec::new();
        for (name, module) in &self.modules {
            let content = Content::bytes(module.bytes.clone());
            nodes.push((base.join(format!("{name}.ko"))?, Node::file(content, 0o644, ORIGIN)));
        }
        let order = Content::bytes(order.into_bytes());
        nodes.push((base.join("order")?, Node::file(order, 0o644, ORIGIN)));
        Ok(nodes)
    }

    /// Names of all modules of the set, each after what it needs and after the modules it would
    /// like to find; the board's order where that leaves a choice.
    pub fn load_order(&self) -> Vec<&str> {
        let providers = self.providers();
        let mut order = Order { closure: self, providers, seen: BTreeSet::new(), list: Vec::new() };
        for name in self.wanted.iter().chain(self.modules.keys()) {
            order.visit(name);
        }
        order.list
    }

    /// The part of this set that some of its modules need, without unpacking anything again.
    ///
    /// Errors: a name that was not asked for when the set was made.
    pub fn part<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Closure> {
        let wanted: Vec<String> = names.into_iter().map(normal).collect();
        if let Some(name) = wanted.iter().find(|name| !self.wanted.contains(name)) {
            return Err(Error::new(format!("module {name} is not among those of the root")));
        }
        let mut modules = BTreeMap::new();
        let mut next = wanted.clone();
        while let Some(name) = next.pop() {
            let Some(module) = self.modules.get(&name) else { continue };
            if modules.insert(name, module.clone()).is_none() {
                next.extend(module.info.reached().cloned());
            }
        }
        let unmet = Vec::new();
        Ok(Closure { modules, wanted, unmet, ..self.clone() })
    }

    /// Number of modules and their bytes.
    pub fn size(&self) -> (usize, u64) {
        (self.modules.len(), self.modules.values().map(|module| module.bytes.len() as u64).sum())
    }

    /// Which modules answer to an alias without wildcards, as soft dependencies use them.
    fn providers(&self) -> BTreeMap<String, Vec<&str>> {
        let mut providers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (name, module) in &self.modules {
            for alias in &module.info.aliases {
                providers.entry(normal(alias)).or_default().push(name);
            }
        }
        providers
    }

    fn find_unmet(&self, is_builtin: impl Fn(&str) -> bool) -> Vec<String> {
        let providers = self.providers();
        let mut unmet = Vec::new();
        for (name, module) in &self.modules {
            for wish in module.info.soft() {
                let met = self.modules.contains_key(wish)
                    || is_builtin(wish)
                    || providers.contains_key(wish);
                if !met {
                    unmet.push(format!("{name}: {wish}"));
                }
            }
        }
        unmet
    }

    /// `path: dependencies`, each dependency after those that need it: kmod loads from the end.
    fn dependencies(&self) -> String {
        let mut text = String::new();
        for module in self.modules.values() {
            let mut needs = Vec::new();
            self.add_needs(module, &mut needs);
            let _ = write!(text, "{}:", module.path);
            for need in needs.iter().rev() {
                let _ = write!(text, " {}", self.modules[*need].path);
            }
            text.push('\n');
        }
        text
    }

    /// All modules a module needs, each after what it needs itself.
    fn add_needs<'a>(&'a self, module: &'a Module, needs: &mut Vec<&'a str>) {
        for need in &module.info.depends {
            let Some(other) = self.modules.get(need) else { continue };
            if !needs.contains(&need.as_str()) {
                self.add_needs(other, needs);
                needs.push(need);
            }
        }
    }

    fn aliases(&self) -> String {
        let mut text = String::new();
        for (name, module) in &self.modules {
            for alias in &module.info.aliases {
                let _ = writeln!(text, "alias {alias} {name}");
            }
        }
        text
    }

    fn soft_dependencies(&self) -> String {
        let mut text = String::new();
        for (name, module) in &self.modules {
            let Info { before, after, .. } = &module.info;
            if before.is_empty() && after.is_empty() {
                continue;
            }
            let _ = write!(text, "softdep {name}");
            for (word, list) in [("pre:", before), ("post:", after)] {
                if !list.is_empty() {
                    let _ = write!(text, " {word} {}", list.join(" "));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// Depth-first walk that lists a module when all it needs is listed.
struct Order<'a> {
    closure: &'a Closure,
    providers: BTreeMap<String, Vec<&'a str>>,
    seen: BTreeSet<&'a str>,
    list: Vec<&'a str>,
}

impl<'a> Order<'a> {
    fn visit(&mut self, name: &str) {
        let Some((name, module)) = self.closure.modules.get_key_value(name) else {
            for provider in self.providers.get(name).cloned().unwrap_or_default() {
                self.visit(provider);
            }
            return;
        };
        // Marked before its needs: soft dependencies may form rings.
        if !self.seen.insert(name) {
            return;
        }
        for need in module.info.depends.iter().chain(&module.info.before) {
            self.visit(need);
        }
        self.list.push(name);
        for follower in &module.info.after {
            self.visit(follower);
        }
    }
}

#[cfg(test)]
mod tests {
    use object::write;

    use super::*;

    /// A module as the kernel's build makes it: an object file with `.modinfo`.
    fn module(info: &[&str]) -> Vec<u8> {
        let mut file = write::Object::new(
            object::BinaryFormat::Elf,
            object::Architecture::Aarch64,
            object::Endianness::Little,
        );
        let section =
            file.add_section(Vec::new(), b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
        file.append_section_data(section, format!("{}\0", info.join("\0")).as_bytes(), 1);
        file.write().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(bytes, 0).read_to_end(&mut packed).unwrap();
        packed
    }

    fn kernel(modules: &[(&str, &[&str])]) -> Kernel {
        let node = |bytes: Vec<u8>| Node::file(Content::bytes(bytes), 0o644, "kernel");
        let base = "usr/lib/modules/6.12.1-arm64";
        let mut entries: Vec<_> = modules
            .iter()
            .map(|(path, info)| {
                let path = TreePath::new(format!("{base}/kernel/{path}.ko.xz")).unwrap();
                (path, node(xz(&module(info))))
            })
            .collect();
        let builtin = TreePath::new(format!("{base}/modules.builtin")).unwrap();
        entries.push((builtin, node(b"kernel/drivers/virtio/virtio_pci.ko\n".to_vec())));
        let aliases = TreePath::new(format!("{base}/modules.builtin.modinfo")).unwrap();
        entries.push((aliases, node(b"sha512_generic.alias=sha512\0x.license=GPL\0".to_vec())));
        Kernel::find("linux-image-6.12.1-arm64", &entries).unwrap()
    }

    fn sample() -> Kernel {
        kernel(&[
            ("fs/erofs", &["alias=fs-erofs", "depends=libcrc32c", "name=erofs"]),
            ("lib/libcrc32c", &["softdep=pre: crc32c", "depends="]),
            ("crypto/crc32c_generic", &["alias=crypto-crc32c", "alias=crc32c", "depends="]),
            ("md/dm-verity", &["depends=dm-mod,dm-bufio,virtio_pci"]),
            ("md/dm-bufio", &["depends=dm-mod"]),
            ("md/dm-mod", &["depends=", "softdep=post: follower"]),
            ("md/follower", &["depends="]),
            ("fs/cifs", &["softdep=pre: sha512", "softdep=nls", "softdep=unused"]),
            ("unused", &["depends="]),
        ])
    }

    #[test]
    fn the_load_order_puts_everything_after_what_it_needs_hard_or_soft() {
        let closure = sample().closure(["erofs", "dm_verity", "crc32c-generic"]).unwrap();
        let expected =
            ["crc32c_generic", "libcrc32c", "erofs", "dm_mod", "follower", "dm_bufio", "dm_verity"];
        assert_eq!(closure.load_order(), expected);
        assert!(closure.unmet.is_empty());
    }

    #[test]
    fn the_root_gets_only_the_closure_and_an_index_of_exactly_that() {
        let closure = sample().closure(["dm-verity", "erofs", "crc32c_generic"]).unwrap();
        let nodes = closure.root_nodes().unwrap();
        let text = |name: &str| {
            let path = TreePath::new(format!("usr/lib/modules/6.12.1-arm64/{name}")).unwrap();
            let (_, node) = nodes.iter().find(|(found, _)| *found == path).unwrap();
            let Kind::File(content) = &node.kind else { panic!("not a file") };
            String::from_utf8(content.read().unwrap().to_vec()).unwrap()
        };
        expect_test::expect![[r#"
            kernel/crypto/crc32c_generic.ko:
            kernel/md/dm-bufio.ko: kernel/md/dm-mod.ko
            kernel/md/dm-mod.ko:
            kernel/md/dm-verity.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko
            kernel/fs/erofs.ko: kernel/lib/libcrc32c.ko
            kernel/md/follower.ko:
            kernel/lib/libcrc32c.ko:
        "#]]
        .assert_eq(&text("modules.dep"));
        expect_test::expect![[r#"
            alias crypto-crc32c crc32c_generic
            alias crc32c crc32c_generic
            alias fs-erofs erofs
        "#]]
        .assert_eq(&text("modules.alias"));
        expect_test::expect![[r#"
            softdep dm_mod post: follower
            softdep libcrc32c pre: crc32c
        "#]]
        .assert_eq(&text("modules.softdep"));
        assert_eq!(text("modules.builtin"), "kernel/drivers/virtio/virtio_pci.ko\n");
        assert_eq!(nodes.len(), 4 + closure.size().0);
        assert!(!nodes.iter().any(|(path, _)| path.display().contains("unused")));
    }

    #[test]
    fn the_initrd_order_names_each_file_once_and_those_that_are_always_loaded_first() {
        let modules = sample().closure(["dm_verity", "erofs"]).unwrap();
        let order = |always: &[&str]| {
            let nodes = modules.initrd_nodes(always).unwrap();
            let (path, node) = nodes.last().unwrap();
            assert_eq!(path.display(), "/lib/modules/order");
            assert_eq!(nodes.len(), modules.size().0 + 1);
            let Kind::File(content) = &node.kind else { panic!("not a file") };
            String::from_utf8(content.read().unwrap().to_vec()).unwrap()
        };
        let verity = "dm_mod.ko\nfollower.ko\ndm_bufio.ko\ndm_verity.ko\n";
        let erofs = "libcrc32c.ko\nerofs.ko\n";
        assert_eq!(order(&["dm_verity"]), format!("{verity}\n{erofs}"));
        assert_eq!(order(&["erofs"]), format!("{erofs}\n{verity}"));
        assert_eq!(order(&["dm_verity", "erofs"]), format!("{verity}{erofs}\n"));
    }

    #[test]
    fn a_part_of_a_set_is_the_closure_of_its_names() {
        let whole = sample().closure(["erofs", "dm_verity", "crc32c_generic"]).unwrap();
        let part = whole.part(["crc32c_generic", "erofs"]).unwrap();
        assert_eq!(part.load_order(), ["crc32c_generic", "libcrc32c", "erofs"]);
        assert!(whole.part(["unused"]).is_err());
    }

    #[test]
    fn a_soft_dependency_nothing_answers_to_is_reported() {
        let closure = sample().closure(["erofs"]).unwrap();
        assert_eq!(closure.unmet, ["libcrc32c: crc32c"]);
        let cifs = sample().closure(["cifs"]).unwrap();
        assert!(cifs.unmet.is_empty(), "one is built in under an alias, one is no order");
        assert!(cifs.modules.contains_key("unused"), "what may be asked for later ships");
    }

    #[test]
    fn a_misspelt_module_gets_the_nearest_name() {
        let error = sample().closure(["dm-verify"]).unwrap_err();
        assert_eq!(error.to_string(), "kernel 6.12.1-arm64 has no module dm_verify");
        assert_eq!(error.next_step(), Some("did you mean `dm_verity`?"));
        assert!(sample().closure(["virtio_pci"]).unwrap().load_order().is_empty());
    }

    #[test]
    fn a_damaged_module_is_an_error_that_names_it() {
        let bad = |bytes: &[u8]| {
            let path = TreePath::new("usr/lib/modules/1/kernel/x.ko.xz").unwrap();
            let node = Node::file(Content::bytes(bytes.to_vec()), 0o644, "kernel");
            let kernel = Kernel::find("linux", &[(path, node)]).unwrap();
            kernel.closure(["x"]).unwrap_err().to_string()
        };
        let good = xz(&module(&["depends="]));
        assert_eq!(bad(&good[..good.len() / 2]), "cannot unpack the module kernel/x.ko");
        assert_eq!(bad(&xz(b"text")), "cannot unpack the module kernel/x.ko");
    }
}
