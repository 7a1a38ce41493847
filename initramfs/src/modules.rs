//! Which kernel modules answer a request, and in which order they are loaded.
//!
//! Reads the plain text files that depmod writes beside the modules (`modules.dep`,
//! `modules.alias`, `modules.softdep`; modules.dep(5), modprobe.d(5)). Pure: the caller has read
//! the files and loads what it is told. A request is a module name or an alias such as a device's
//! modalias; `-` and `_` are the same in both, except inside `[…]`, as the kernel's tools have it.

use std::collections::HashMap;

/// Everything known about the modules of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Index {
    modules: HashMap<String, Module>,
    /// Lines of a pattern and the name of a module, in the order of the file. As one text: strings
    /// of their own, thousands, would take twice the memory for as long as the machine runs.
    aliases: String,
}

#[derive(Debug, Default)]
struct Module {
    /// Path below the directory of the kernel's modules.
    path: String,
    /// Names of the modules it needs, nearest first.
    needs: Vec<String>,
    /// Soft dependencies: requests that may stay unanswered.
    before: Vec<String>,
    after: Vec<String>,
}

impl Index {
    /// Reads the three files; lines that make no sense are passed over, as depmod made them.
    pub(crate) fn parse(dep: &str, alias: &str, softdep: &str) -> Self {
        let modules = dep.lines().filter_map(dependency).collect();
        let mut aliases = String::with_capacity(alias.len());
        for (pattern, name) in alias.lines().filter_map(alias_line) {
            aliases.extend([&pattern, " ", &name, "\n"]);
        }
        aliases.shrink_to_fit();
        let mut index = Self { modules, aliases };
        softdep.lines().for_each(|line| index.add_soft(line));
        index
    }

    fn add_soft(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            return;
        }
        let Some(module) = words.next().and_then(|name| self.modules.get_mut(&normal(name))) else {
            return;
        };
        let mut list = &mut module.before;
        for word in words {
            match word {
                "pre:" => list = &mut module.before,
                "post:" => list = &mut module.after,
                name => list.push(normal(name)),
            }
        }
    }

    /// Paths of the modules to load for a request, in order, each once; empty if nothing answers.
    pub(crate) fn load_order(&self, request: &str) -> Vec<&str> {
        let mut order = Order { index: self, entered: Vec::new(), paths: Vec::new() };
        order.request(&normal(request));
        order.paths
    }
}

/// Walks the dependencies of a request, deepest first.
struct Order<'a> {
    index: &'a Index,
    /// Modules that are placed or being placed: also what ends a circle of soft dependencies.
    entered: Vec<&'a str>,
    paths: Vec<&'a str>,
}

impl<'a> Order<'a> {
    fn request(&mut self, request: &str) {
        if self.index.modules.contains_key(request) {
            return self.module(request);
        }
        let index = self.index;
        for (pattern, name) in index.aliases.lines().filter_map(|line| line.split_once(' ')) {
            if matches(pattern.as_bytes(), request.as_bytes()) {
                self.module(name);
            }
        }
    }

    fn module(&mut self, name: &str) {
        let Some((name, module)) = self.index.modules.get_key_value(name) else { return };
        if self.entered.contains(&name.as_str()) {
            return;
        }
        self.entered.push(name);
        // modules.dep names the nearest dependency first, and each one before its own.
        module.needs.iter().rev().for_each(|need| self.module(need));
        module.before.iter().for_each(|request| self.request(request));
        self.paths.push(&module.path);
        module.after.iter().for_each(|request| self.request(request));
    }
}

/// `kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko`
fn dependency(line: &str) -> Option<(String, Module)> {
    let (path, needs) = line.split_once(':')?;
    let needs = needs.split_whitespace().map(name_of).collect();
    Some((name_of(path), Module { path: path.to_owned(), needs, ..Module::default() }))
}

/// `alias virtio:d00000002v* virtio_blk`
fn alias_line(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("alias"), Some(pattern), Some(name)) => Some((normal(pattern), normal(name))),
        _ => None,
    }
}

/// The module's name: the file name up to its first dot.
pub(crate) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split('.').next().unwrap_or(file))
}

/// What a kernel command line says for a module, as the kernel takes it: the part behind the dot of
/// `bcm2835_wdt.nowayout=1`. The kernel itself looks there only for what is built in.
pub(crate) fn settings(command_line: &str, module: &str) -> String {
    let own = |word: &str| {
        let (name, setting) = word.split_once('.')?;
        (!setting.is_empty() && normal(name) == module).then(|| setting.to_owned())
    };
    let settings: Vec<String> = command_line.split_whitespace().filter_map(own).collect();
    settings.join(" ")
}

/// The spelling with `_`.
fn normal(text: &str) -> String {
    let mut bracket = false;
    let underscore = |character| {
        bracket = (bracket || character == '[') && character != ']';
        if character == '-' && !bracket { '_' } else { character }
    };
    text.chars().map(underscore).collect()
}

/// Matches a pattern with `*`, `?` and `[a-z]`. No recursion: only the last `*` needs another try.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while text_at < text.len() {
        if pattern.get(pattern_at) == Some(&b'*') {
            retry = Some((pattern_at, text_at));
            pattern_at += 1;
        } else if let Some(length) = matches_one(&pattern[pattern_at..], text[text_at]) {
            pattern_at += length;
            text_at += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (pattern_at, text_at) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[pattern_at..].iter().all(|&byte| byte == b'*')
}

/// Length of the pattern's first element if it matches the byte.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().position(|&byte| byte == b']')?;
            in_set(&pattern[1..end], byte).then_some(end + 1)
        }
        plain => (plain == byte).then_some(1),
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let (negated, mut set) = match set.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    while let Some((&first, rest)) = set.split_first() {
        let (last, rest) = match rest {
            [b'-', last, rest @ ..] => (*last, rest),
            _ => (first, rest),
        };
        found |= (first..=last).contains(&byte);
        set = rest;
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/arch/arm64/crypto/crc32c-generic.ko.xz:
kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/net/net_failover.ko
kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/lib/libcrc32c.ko:
kernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-bufio.ko kernel/drivers/md/dm-mod.ko
kernel/drivers/md/dm-bufio.ko: kernel/drivers/md/dm-mod.ko
kernel/drivers/md/dm-mod.ko:
";
    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
alias virtio:d00000001v* virtio_net
alias of:N*T*Cbrcm,bcm2711-genet-v5 net-failover
";
    const SOFTDEP: &str = "\
# Soft dependencies extracted from modules themselves.
softdep libcrc32c pre: crypto-crc32c
softdep ext4 pre: libcrc32c post: no-such-module
softdep jbd2 pre: ext4
";

    #[track_caller]
    fn check(request: &str, expected: &[&str]) {
        let index = Index::parse(DEP, ALIAS, SOFTDEP);
        let order = index.load_order(request);
        let names: Vec<&str> = order.iter().filter_map(|path| path.rsplit('/').next()).collect();
        assert_eq!(names, expected, "{request}");
    }

    #[test]
    fn a_module_comes_after_everything_it_needs() {
        check("dm_verity", &["dm-mod.ko", "dm-bufio.ko", "dm-verity.ko"]);
        check("dm-verity", &["dm-mod.ko", "dm-bufio.ko", "dm-verity.ko"]);
        check("virtio_net", &["failover.ko", "net_failover.ko", "virtio_net.ko"]);
    }

    #[test]
    fn soft_dependencies_are_requests_and_may_go_in_circles() {
        check("libcrc32c", &["crc32c-generic.ko.xz", "libcrc32c.ko"]);
        let ext4 = [
            "jbd2.ko",
            "mbcache.ko",
            "crc16.ko",
            "crc32c-generic.ko.xz",
            "libcrc32c.ko",
            "ext4.ko",
        ];
        check("ext4", &ext4);
        check("fs-ext4", &ext4);
    }

    #[test]
    fn a_device_finds_its_module_by_alias() {
        check("virtio:d00000001v00001AF4", &["failover.ko", "net_failover.ko", "virtio_net.ko"]);
        check("of:NethernetT(null)Cbrcm,bcm2711-genet-v5", &["failover.ko", "net_failover.ko"]);
        check("virtio:d00000010v00001AF4", &[]);
        check("", &[]);
    }

    #[test]
    fn patterns_match_as_the_kernel_tools_match_them() {
        for (pattern, text, expected) in [
            ("pci:v00001AF4d*", "pci:v00001AF4d00001041sv", true),
            ("pci:v*d*sv*", "pci:v1d2s3", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXbcd", false),
            ("input:b*v*e*-e*1,*k*116,*", "input:b0019v0000e0000-e0,1,k74,116,r", true),
            ("usb:v1[0-3]", "usb:v12", true),
            ("usb:v1[0-3]", "usb:v14", false),
            ("usb:v1[!0-3]", "usb:v14", true),
            ("usb:v1[a-", "usb:v1a", false),
            ("x?z", "xyz", true),
            ("x?z", "xz", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_module_gets_the_settings_that_the_command_line_has_for_it() {
        let line = "quiet bcm2835-wdt.nowayout=1 usbcore.old=1 bcm2835_wdt.heartbeat=9 panic=5 a.";
        assert_eq!(settings(line, "bcm2835_wdt"), "nowayout=1 heartbeat=9");
        assert_eq!(settings(line, "panic=5"), "");
        assert_eq!(settings(line, "a"), "");
    }

    #[test]
    fn damaged_files_give_fewer_modules_and_no_panic() {
        let index = Index::parse("a.ko b.ko\n:\nx.ko:", "alias\nalias [ x\nalias y", "softdep\n");
        assert_eq!(index.load_order("x"), ["x.ko"]);
        assert!(index.load_order("[").is_empty(), "a set without an end matches nothing");
    }
}
