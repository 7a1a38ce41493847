//! `iota trust`: which keys count for what, on devices that are already out.

use std::path::{Path, PathBuf};

use ondisk::digest::Digest;
use ondisk::keyring::Keyring;
use ondisk::trust_root::{Quorum, TrustRoot};

use crate::cli::{TrustArgs, TrustVerb};
use crate::error::{Context, Error, Result};
use crate::host::output::{self, out};
use crate::inspect::keyring;
use crate::publish::release::Release;
use crate::sign::{Key, Profile, load_profile};
use crate::trust_roots::{self, Signed, TrustRoots};

/// Runs a verb and says what came of it.
pub fn run(verb: &TrustVerb) -> Result<()> {
    match verb {
        TrustVerb::New(arguments) => {
            let nobody = TrustRoot::default();
            add(arguments, &nobody)
        }
        TrustVerb::Change(arguments) => {
            let roots = TrustRoots::load(&arguments.directory)?;
            add(arguments, roots.newest())
        }
        TrustVerb::Sign { directory, sign } => {
            report(&trust_roots::sign(directory, &load(sign)?)?, directory)
        }
        TrustVerb::Show { directory } => {
            output::print(format_args!("{}", show(&TrustRoots::load(directory)?)));
            Ok(())
        }
    }
}

fn add(arguments: &TrustArgs, before: &TrustRoot) -> Result<()> {
    let next = next(arguments, before)?;
    let signed = trust_roots::add(&arguments.directory, &next, &load(&arguments.sign)?)?;
    report(&signed, &arguments.directory)
}

fn load(paths: &[PathBuf]) -> Result<Vec<Key>> {
    paths.iter().map(|path| Key::load(path)).collect()
}

/// The next trust root: what is not named stays.
fn next(arguments: &TrustArgs, before: &TrustRoot) -> Result<TrustRoot> {
    let TrustArgs { root_key, release_key, channel_key, .. } = arguments;
    one_kind([root_key, release_key, channel_key])?;
    let mut revoked = before.revoked.clone();
    for path in &arguments.revoke {
        let release = release(path)?;
        if !revoked.contains(&release) {
            revoked.push(release);
        }
    }
    Ok(TrustRoot {
        number: before.number + 1,
        root: quorum("root", root_key, arguments.root_threshold, &before.root)?,
        release: quorum("release", release_key, arguments.release_threshold, &before.release)?,
        channel: quorum("channel", channel_key, arguments.channel_threshold, &before.channel)?,
        revoked,
    })
}

/// Anybody who builds from the sources may have a development key: one of them in a trust root of
/// devices in the field would open these to all of them.
fn one_kind(keys: [&Vec<PathBuf>; 3]) -> Result<()> {
    let all = keys.into_iter().flatten();
    let kinds = all.map(|path| Ok((path, load_profile(path)?))).collect::<Result<Vec<_>>>()?;
    let release = kinds.iter().any(|(_, kind)| *kind == Profile::Release);
    match kinds.iter().find(|(_, kind)| *kind == Profile::Development) {
        Some((path, _)) if release => {
            Err(Error::new(format!("{} is a development key, others are not", path.display()))
                .hint("`iota key new NAME --release` makes keys for devices in the field"))
        }
        _ => Ok(()),
    }
}

fn quorum(name: &str, keys: &[PathBuf], threshold: Option<u8>, before: &Quorum) -> Result<Quorum> {
    let ring = match keys {
        [] => Keyring::new(before.keys().to_vec())
            .map_err(|error| Error::new(format!("keys of the role {name}: {error}")))?,
        keys => keyring(keys)?,
    };
    if ring.keys().is_empty() {
        return Err(Error::new(format!("nobody has the role {name}"))
            .hint(format!("name a key: --{name}-key FILE.pub")));
    }
    // OK to default: a quorum has at most eight keys.
    let threshold = threshold.unwrap_or(u8::try_from(before.threshold()).unwrap_or(1));
    Quorum::new(ring, threshold).map_err(|error| {
        Error::new(format!("role {name}: {error}")).hint(format!("--{name}-threshold N"))
    })
}

/// The identity of a bundle's release: what its header says, whoever signed it.
fn release(bundle: &Path) -> Result<Digest> {
    Release::identity(bundle).context(|| "cannot revoke this release".into())
}

fn report(signed: &Signed, directory: &Path) -> Result<()> {
    match signed {
        Signed::Finished(path) => {
            out!("{} counts from now on", path.display());
            output::print(format_args!("{}", show(&TrustRoots::load(directory)?)));
        }
        Signed::Unfinished { path, missing } => {
            out!("{} waits: {missing}", path.display());
            out!("  `iota trust sign {} --sign KEY` adds a signature", directory.display());
        }
    }
    Ok(())
}

/// The newest in words.
fn show(roots: &TrustRoots) -> String {
    let trust = roots.newest();
    let mut text = format!("trust root {}\n", trust.number);
    for (name, quorum) in trust.roles() {
        let ids: Vec<_> = quorum.keys().iter().map(|key| key.id().to_string()).collect();
        let (threshold, count) = (quorum.threshold(), ids.len());
        text += &format!("  {name:<8} {threshold} of {count}: {}\n", ids.join(", "));
    }
    for release in &trust.revoked {
        text += &format!("  revoked  {release}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    struct Desk(tempfile::TempDir);

    impl Desk {
        /// A desk with keys of these names; a name with a `-dev` is one for development.
        fn with(names: &[&str]) -> Self {
            let desk = Self(tempfile::tempdir().unwrap());
            for (seed, name) in (1..).zip(names) {
                let development = name.ends_with("-dev");
                let kind = if development { Profile::Development } else { Profile::Release };
                Key::from_seed([seed; 32], kind).save(&desk.0.path().join(name)).unwrap();
            }
            desk
        }

        /// Runs `iota trust WORDS` on the directory `trust`; names that end like keys are of here.
        fn trust(&self, words: &str) -> Result<()> {
            let here = |word: &str| match word.rsplit_once('.') {
                Some((_, "pub" | "secret")) => self.0.path().join(word).display().to_string(),
                _ => word.to_owned(),
            };
            let mut words: Vec<String> = words.split(' ').map(here).collect();
            words.insert(1, self.directory().display().to_string());
            let before = ["iota", "trust"].map(str::to_owned);
            let cli = Cli::parse_from(before.into_iter().chain(words));
            let Verb::Trust(verb) = &cli.verb else { unreachable!("the verb is above") };
            run(verb)
        }

        fn directory(&self) -> PathBuf {
            self.0.path().join("trust")
        }

        fn shown(&self) -> String {
            show(&TrustRoots::load(&self.directory()).unwrap())
        }
    }

    #[test]
    fn what_a_change_does_not_name_stays_as_it_was() {
        let desk = Desk::with(&["a", "b", "release", "channel", "next"]);
        desk.trust(
            "new --root-key a.pub --root-key b.pub --root-threshold 2 --release-key release.pub \
             --channel-key channel.pub --sign a.secret",
        )
        .unwrap();
        assert!(desk.directory().join("1.unfinished").exists());
        desk.trust("sign --sign b.secret").unwrap();
        let first = desk.shown();
        desk.trust("change --release-key next.pub --sign a.secret --sign b.secret").unwrap();
        let second = desk.shown();
        let id = |name: &str| Key::load(&desk.0.path().join(name)).unwrap().id().unwrap();
        let (old, new) = (id("release.secret").to_string(), id("next.secret").to_string());
        let expected = first.replace("trust root 1", "trust root 2").replace(&old, &new);
        assert_eq!(second, expected);
        assert!(second.contains("root     2 of 2: "), "{second}");
    }

    #[test]
    fn mistakes_are_named_and_leave_nothing_behind() {
        let desk = Desk::with(&["a", "b-dev"]);
        let refused = |words: &str| {
            let error = desk.trust(words).unwrap_err();
            assert!(!desk.directory().exists(), "{words}");
            error.chain()
        };
        let rest = "--channel-key a.pub --sign a.secret";
        let mixed = refused(&format!("new --root-key a.pub --release-key b-dev.pub {rest}"));
        assert!(mixed.contains("b-dev.pub is a development key, others are not"), "{mixed}");
        let nobody = refused(&format!("new --root-key a.pub {rest}"));
        assert_eq!(nobody, "nobody has the role release");
        let all = "--root-key a.pub --release-key a.pub --channel-key a.pub";
        let many = refused(&format!("new {all} --root-threshold 2 --sign a.secret"));
        assert_eq!(many, "role root: a threshold of 2 with 1 keys");
        let stranger = refused(&format!("new {all} --sign b-dev.secret"));
        assert!(stranger.starts_with("cannot sign trust root 1 with key"), "{stranger}");
        assert!(refused("change --sign a.secret").contains("holds no trust root"));
    }
}
