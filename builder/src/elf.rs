//! Checks that every program of a root can start: its interpreter and its libraries are there, it
//! is made for the right CPU, no script lacks its interpreter, no symbolic link leads nowhere.
//!
//! Libraries are looked for as ld.so(8) does without a cache and without an environment: in the
//! RUNPATH of the file that names them (RPATH if it has none), then in the directories built into
//! the interpreter. No cache is made: all libraries lie in the first of those directories, so that
//! a cache would save no lookup.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{LittleEndian, ReadCache, ReadRef};

use crate::assemble::Package;
use crate::board::Architecture;
use crate::error::{Context, Error, Result};
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// Directories that are filled while the machine runs; links into them may lead nowhere until then.
const FILLED_LATER: [&str; 6] = ["dev", "proc", "run", "sys", "data", "var/lib"];

/// More links than this one after another are a ring; the kernel's own limit.
const MOST_LINKS: usize = 40;

/// Checks all files and links of a root for a CPU.
///
/// The error lists every problem; its hint says where the first missing library can be had, as far
/// as `providers` knows.
pub fn check(tree: &Tree, architecture: Architecture, providers: &Providers) -> Result<()> {
    let mut problems = Vec::new();
    let mut hint = None;
    for (path, node) in tree.iter() {
        match &node.kind {
            Kind::File(content) => {
                for problem in check_file(tree, architecture, path, node, content)? {
                    if let Problem::Library(name) = &problem {
                        hint = hint.or_else(|| providers.hint(name));
                    }
                    problems.push(format!("{} ({}) {problem}", path.display(), node.origin));
                }
            }
            Kind::Symlink(target) => {
                if let Found::Nothing = resolve(tree, path.as_bytes()) {
                    let target = target.escape_ascii();
                    let origin = &node.origin;
                    problems.push(format!(
                        "{} ({origin}) links to {target}, which is not there",
                        path.display()
                    ));
                }
            }
            _ => {}
        }
    }
    let Some((first, rest)) = problems.split_first() else { return Ok(()) };
    let mut message = format!("the root is not complete: {first}");
    for problem in rest {
        message.push_str("\n  ");
        message.push_str(problem);
    }
    let error = Error::new(message);
    Err(match hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// Which package has a library, among the packages at hand.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    packages: BTreeMap<Vec<u8>, (String, TreePath)>,
}

impl Providers {
    /// Knows the shared libraries of these packages, whether their slices ship them or not.
    pub fn of(packages: &[Package<'_>]) -> Providers {
        let mut providers = Providers::default();
        for package in packages {
            for (path, node) in package.entries.iter().filter(|(_, node)| !node.is_directory()) {
                let name = path.name();
                if name.windows(3).any(|part| part == b".so") && !is_module(node, name) {
                    let entry = (package.name.to_owned(), path.clone());
                    providers.packages.entry(name.to_vec()).or_insert(entry);
                }
            }
        }
        providers
    }

    fn hint(&self, library: &str) -> Option<String> {
        let (package, path) = self.packages.get(library.as_bytes())?;
        let path = path.display();
        Some(format!("package {package} has {path}: let its slice in rootfs/slices ship it"))
    }
}

fn is_module(node: &Node, name: &[u8]) -> bool {
    name.ends_with(b".ko") || !matches!(node.kind, Kind::File(_) | Kind::Symlink(_))
}

/// Why a file cannot be used; `Display` continues a sentence that begins with its path.
enum Problem {
    Machine(u16),
    Format(String),
    Interpreter(String),
    Library(String),
    Script(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine(machine) => {
                write!(out, "is made for another CPU (ELF machine {machine})")
            }
            Self::Format(why) => write!(out, "is not a good ELF file: {why}"),
            Self::Interpreter(path) => write!(out, "needs {path} to start, which is not there"),
            Self::Library(name) => write!(out, "needs the library {name}, which is not there"),
            Self::Script(path) => write!(out, "is a script for {path}, which is not there"),
        }
    }
}

fn check_file(
    tree: &Tree,
    architecture: Architecture,
    path: &TreePath,
    node: &Node,
    content: &Content,
) -> Result<Vec<Problem>> {
    let shown = || format!("cannot check {}", path.display());
    let check_elf = |facts: std::result::Result<Facts, String>| match facts {
        Ok(facts) => facts.problems(tree, architecture, path),
        Err(why) => vec![Problem::Format(why)],
    };
    match content {
        Content::Bytes(bytes) if bytes.starts_with(&elf::ELFMAG) => {
            Ok(check_elf(Facts::read(&bytes[..])))
        }
        Content::Bytes(bytes) => Ok(check_script(tree, node, bytes)),
        Content::Range { path: file, offset, length } => {
            let start = Content::Range {
                path: file.clone(),
                offset: *offset,
                length: (*length).min(LONGEST_FIRST_LINE),
            };
            let start = start.read().context(shown)?;
            if !start.starts_with(&elf::ELFMAG) {
                return Ok(check_script(tree, node, &start));
            }
            // Headers and strings only: a root holds 130 MB of programs.
            let cache = ReadCache::new(File::open(file.as_ref()).context(shown)?);
            Ok(check_elf(Facts::read(cache.range(*offset, *length))))
        }
    }
}

/// The kernel reads this much of a script's first line (BINPRM_BUF_SIZE).
const LONGEST_FIRST_LINE: u64 = 256;

fn check_script(tree: &Tree, node: &Node, start: &[u8]) -> Vec<Problem> {
    let Some(line) = start.strip_prefix(b"#!").filter(|_| node.mode & 0o111 != 0) else {
        return Vec::new();
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_ascii_whitespace().next().unwrap_or_default();
    if exists(tree, interpreter.as_bytes()) {
        return Vec::new();
    }
    vec![Problem::Script(interpreter.to_owned())]
}

/// What an ELF file asks for.
struct Facts {
    machine: u16,
    interpreter: Option<String>,
    needed: Vec<String>,
    search: Vec<String>,
}

impl Facts {
    fn read<'data>(data: impl ReadRef<'data>) -> std::result::Result<Facts, String> {
        let why = |error: object::Error| error.to_string();
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(why)?;
        let endian = header.endian().map_err(why)?;
        let mut facts = Facts {
            machine: header.e_machine(endian).0,
            interpreter: None,
            needed: Vec::new(),
            search: Vec::new(),
        };
        let segments = header.program_headers(endian, data).map_err(why)?;
        for segment in segments {
            if let Some(path) = segment.interpreter(endian, data).map_err(why)? {
                facts.interpreter = Some(String::from_utf8_lossy(path).into_owned());
            }
        }
        for segment in segments {
            let Some(entries) = segment.dynamic(endian, data).map_err(why)? else { continue };
            let entries: Vec<(elf::DynamicTag, u64)> = entries
                .iter()
                .map(|entry| (entry.d_tag(endian), entry.d_val(endian)))
                .take_while(|(tag, _)| *tag != elf::DT_NULL)
                .collect();
            let find = |wanted: elf::DynamicTag| {
                entries.iter().filter(move |(tag, _)| *tag == wanted).map(|(_, value)| *value)
            };
            let Some(strings) = find(elf::DT_STRTAB).next() else { continue };
            let text = |offset: u64| -> std::result::Result<String, String> {
                let address = strings.checked_add(offset).ok_or("a name lies out of range")?;
                string_at(header, data, address).ok_or_else(|| "a name lies out of range".into())
            };
            for offset in find(elf::DT_NEEDED) {
                facts.needed.push(text(offset)?);
            }
            let path = find(elf::DT_RUNPATH).next().or_else(|| find(elf::DT_RPATH).next());
            if let Some(offset) = path {
                facts.search = text(offset)?.split(':').map(str::to_owned).collect();
            }
        }
        Ok(facts)
    }

    fn problems(self, tree: &Tree, architecture: Architecture, path: &TreePath) -> Vec<Problem> {
        let (machine, directories) = match architecture {
            Architecture::Aarch64 => (elf::EM_AARCH64.0, &AARCH64_DIRECTORIES),
        };
        if self.machine != machine {
            return vec![Problem::Machine(self.machine)];
        }
        let mut problems = Vec::new();
        let interpreter = self.interpreter.filter(|path| !exists(tree, path.as_bytes()));
        problems.extend(interpreter.map(Problem::Interpreter));
        let parent = path.parent().unwrap_or_else(TreePath::root).display();
        let own = self
            .search
            .iter()
            .map(|directory| directory.replace("${ORIGIN}", &parent).replace("$ORIGIN", &parent));
        let search: Vec<String> =
            own.chain(directories.iter().map(|directory| (*directory).to_owned())).collect();
        let missing: BTreeSet<String> =
            self.needed.into_iter().filter(|name| !name_is_found(tree, &search, name)).collect();
        problems.extend(missing.into_iter().map(Problem::Library));
        problems
    }
}

/// Built into Debian's ld-linux-aarch64.so.1, in this order.
const AARCH64_DIRECTORIES: [&str; 4] =
    ["/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib"];

fn name_is_found(tree: &Tree, search: &[String], name: &str) -> bool {
    if name.contains('/') {
        return exists(tree, name.as_bytes());
    }
    search.iter().any(|directory| exists(tree, format!("{directory}/{name}").as_bytes()))
}

/// The NUL-terminated text at a virtual address.
fn string_at<'data, R: ReadRef<'data>>(
    header: &FileHeader64<LittleEndian>,
    data: R,
    address: u64,
) -> Option<String> {
    let segments = header.program_headers(LittleEndian, data).ok()?;
    let segment = segments.iter().find(|segment| {
        let start = segment.p_vaddr(LittleEndian);
        segment.p_type(LittleEndian) == elf::PT_LOAD
            && address
                .checked_sub(start)
                .is_some_and(|inside| inside < segment.p_filesz(LittleEndian))
    })?;
    let inside = address.checked_sub(segment.p_vaddr(LittleEndian))?;
    let start = segment.p_offset(LittleEndian).checked_add(inside)?;
    let end = segment.p_offset(LittleEndian).checked_add(segment.p_filesz(LittleEndian))?;
    let bytes = data.read_bytes_at_until(start..end, 0).ok()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn exists(tree: &Tree, absolute: &[u8]) -> bool {
    absolute.starts_with(b"/") && resolve(tree, absolute) != Found::Nothing
}

/// Where a path leads when all symbolic links are followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// To this node, which is not a link.
    Path(TreePath),
    /// Into a directory that is filled while the machine runs.
    Later,
    /// To nothing, or in a ring.
    Nothing,
}

/// Follows all symbolic links and `..` of a path, as the kernel would from the tree's root.
pub fn resolve(tree: &Tree, path: &[u8]) -> Found {
    // Parts still to be walked, the next one last.
    let mut todo: Vec<Vec<u8>> = parts(path).rev().collect();
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == b".." {
            here.pop();
            continue;
        }
        here.push(part);
        let Ok(current) = TreePath::new(here.join(&b'/')) else { return Found::Nothing };
        match tree.get(&current).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => {
                links += 1;
                if links > MOST_LINKS {
                    return Found::Nothing;
                }
                if target.starts_with(b"/") {
                    here.clear();
                } else {
                    here.pop();
                }
                todo.extend(parts(target).rev());
            }
            Some(_) => {}
            None if is_filled_later(&current) => return Found::Later,
            None => return Found::Nothing,
        }
    }
    TreePath::new(here.join(&b'/')).map_or(Found::Nothing, Found::Path)
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}

fn is_filled_later(path: &TreePath) -> bool {
    FILLED_LATER.iter().any(|top| {
        let rest = path.as_bytes().strip_prefix(top.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&b'/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a test program asks for.
    #[derive(Clone, Default)]
    struct Program<'a> {
        machine: Option<u16>,
        interpreter: Option<&'a str>,
        needed: &'a [&'a str],
        runpath: Option<&'a str>,
    }

    /// A small ELF file: header, three program headers, interpreter, strings, dynamic section.
    /// File offsets are virtual addresses. See elf(5).
    fn program(asked: &Program<'_>) -> Vec<u8> {
        let headers = 64 + 3 * 56;
        let mut body = Vec::new();
        body.extend_from_slice(asked.interpreter.unwrap_or("").as_bytes());
        body.push(0);
        let interpreter_length = body.len();
        let strings = headers + body.len();
        body.push(0);
        let mut dynamic: Vec<(u64, u64)> = Vec::new();
        let names = asked.needed.iter().map(|name| (1, *name));
        for (tag, name) in names.chain(asked.runpath.map(|path| (29, path))) {
            dynamic.push((tag, (headers + body.len() - strings) as u64));
            body.extend_from_slice(name.as_bytes());
            body.push(0);
        }
        dynamic.extend([(5, strings as u64), (0, 0)]);
        while (headers + body.len()) % 8 != 0 {
            body.push(0);
        }
        let dynamic_at = headers + body.len();
        for (tag, value) in &dynamic {
            body.extend_from_slice(&tag.to_le_bytes());
            body.extend_from_slice(&value.to_le_bytes());
        }
        let total = headers + body.len();
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let u16s = |file: &mut Vec<u8>, values: &[u16]| {
            values.iter().for_each(|value| file.extend_from_slice(&value.to_le_bytes()));
        };
        u16s(&mut file, &[3, asked.machine.unwrap_or(elf::EM_AARCH64.0)]);
        file.extend_from_slice(&1_u32.to_le_bytes());
        for value in [0_u64, 64, 0] {
            file.extend_from_slice(&value.to_le_bytes());
        }
        file.extend_from_slice(&0_u32.to_le_bytes());
        u16s(&mut file, &[64, 56, 3, 64, 0, 0]);
        let interpreter_type = if asked.interpreter.is_some() { 3 } else { 0 };
        for (kind, at, length) in [
            (1_u32, 0, total),
            (interpreter_type, headers, interpreter_length),
            (2, dynamic_at, dynamic.len() * 16),
        ] {
            file.extend_from_slice(&kind.to_le_bytes());
            file.extend_from_slice(&5_u32.to_le_bytes());
            let (at, length) = (at as u64, length as u64);
            for value in [at, at, at, length, length, 8] {
                file.extend_from_slice(&value.to_le_bytes());
            }
        }
        file.extend_from_slice(&body);
        assert_eq!(file.len(), total);
        file
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn file(bytes: Vec<u8>) -> Node {
        Node::file(Content::bytes(bytes), 0o755, "p")
    }

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::new();
        tree.insert(path("usr/lib"), Node::directory("skeleton")).unwrap();
        tree.insert(path("run"), Node::directory("skeleton")).unwrap();
        tree.insert(path("lib"), Node::symlink("usr/lib", "skeleton")).unwrap();
        for (name, node) in nodes {
            tree.insert(path(name), node.clone()).unwrap();
        }
        tree
    }

    fn complaint(nodes: &[(&str, Node)]) -> String {
        let result = check(&tree(nodes), Architecture::Aarch64, &Providers::default());
        result.map_or_else(|error| error.to_string(), |()| String::new())
    }

    fn library() -> (&'static str, Node) {
        ("usr/lib/aarch64-linux-gnu/libc.so.6", file(program(&Program::default())))
    }

    const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

    fn dynamic() -> Program<'static> {
        Program { interpreter: Some(LOADER), needed: &["libc.so.6"], ..Program::default() }
    }

    #[test]
    fn a_program_with_interpreter_and_library_is_complete() {
        let loader = ("usr/lib/ld-linux-aarch64.so.1", file(program(&Program::default())));
        let tool = ("usr/bin/tool", file(program(&dynamic())));
        assert_eq!(complaint(&[library(), loader, tool]), "");
    }

    #[test]
    fn what_is_missing_is_named_with_the_file_that_needs_it() {
        let tool = ("usr/bin/tool", file(program(&dynamic())));
        assert_eq!(
            complaint(&[tool]),
            "the root is not complete: /usr/bin/tool (p) needs /lib/ld-linux-aarch64.so.1 to \
             start, which is not there\n  \
             /usr/bin/tool (p) needs the library libc.so.6, which is not there"
        );
    }

    #[test]
    fn the_hint_names_the_package_that_has_the_library() {
        let tool = ("usr/bin/tool", file(program(&Program { interpreter: None, ..dynamic() })));
        let entries = [(path("usr/lib/aarch64-linux-gnu/libc.so.6"), file(Vec::new()))];
        let providers = Providers::of(&[Package { name: "libc6", entries: &entries }]);
        let error = check(&tree(&[tool]), Architecture::Aarch64, &providers).unwrap_err();
        assert_eq!(
            error.next_step(),
            Some(
                "package libc6 has /usr/lib/aarch64-linux-gnu/libc.so.6: \
                 let its slice in rootfs/slices ship it"
            )
        );
    }

    #[test]
    fn runpath_is_searched_with_origin_and_only_for_the_file_that_has_it() {
        let private = ("opt/tool/lib/libx.so", file(program(&Program::default())));
        let asks = |runpath| {
            file(program(&Program { needed: &["libx.so"], runpath, ..Program::default() }))
        };
        let with = ("opt/tool/bin/a", asks(Some("/nowhere:$ORIGIN/../lib")));
        assert_eq!(complaint(&[private.clone(), with]), "");
        let without = ("opt/tool/bin/b", asks(None));
        assert!(complaint(&[private, without]).contains("/opt/tool/bin/b (p) needs the library"));
    }

    #[test]
    fn a_program_for_another_cpu_is_refused_and_so_is_a_damaged_one() {
        let other = Program { machine: Some(62), ..Program::default() };
        let said = complaint(&[("usr/bin/x", file(program(&other)))]);
        assert!(said.ends_with("is made for another CPU (ELF machine 62)"), "{said}");
        let cut = program(&dynamic())[..100].to_vec();
        let said = complaint(&[("usr/bin/x", file(cut))]);
        assert!(said.contains("/usr/bin/x (p) is not a good ELF file"), "{said}");
    }

    #[test]
    fn a_script_needs_its_interpreter_if_it_can_be_started() {
        let script = file(b"#! /bin/sh -e\ntrue\n".to_vec());
        let said = complaint(&[("usr/bin/x", script.clone())]);
        assert!(said.ends_with("is a script for /bin/sh, which is not there"), "{said}");
        let mut text = script;
        text.mode = 0o644;
        assert_eq!(complaint(&[("usr/share/x", text)]), "");
    }

    #[test]
    fn links_may_lead_to_what_is_there_or_will_be_and_nowhere_else() {
        let cases = [
            ("/usr/lib", true),
            ("../lib/../lib", true),
            ("/run/resolv.conf", true),
            ("/runaway", false),
            ("nothing", false),
            ("self", false),
        ];
        for (target, good) in cases {
            let link = ("etc/self", Node::symlink(target, "p"));
            assert_eq!(complaint(&[link]).is_empty(), good, "{target}");
        }
    }

    #[test]
    fn a_file_of_the_store_is_read_in_place() {
        let mut store = tempfile::NamedTempFile::new().unwrap();
        let bytes = program(&dynamic());
        std::io::Write::write_all(&mut store, &[&b"before"[..], &bytes, b"after"].concat())
            .unwrap();
        let range = Content::Range {
            path: store.path().to_owned().into(),
            offset: 6,
            length: bytes.len() as u64,
        };
        let said = complaint(&[("usr/bin/tool", Node::file(range, 0o755, "p"))]);
        assert!(said.contains("needs the library libc.so.6"), "{said}");
    }
}
