//! Trust roots that are newer than the one in the running system: fetched one after the other, each
//! by the keys of the one before, and kept on the data partition.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ondisk::channel::places;
use ondisk::envelope::{self, Envelope};
use ondisk::trust_root::{self, Error, MAX_BYTES, TrustRoot};

use super::offer;
use super::web::{Trouble, Web};
use crate::files;

/// Most that one look fetches: a server cannot keep a device busy with them.
const MOST: usize = 64;

/// Where they are kept.
pub fn path() -> PathBuf {
    "/data/iota/update/trust-roots".into()
}

/// The newest that is known: the system's own, or one that was kept and follows from it. What is
/// damaged is fetched again.
pub fn kept(path: &Path, own: TrustRoot) -> TrustRoot {
    let bytes = fs::read(path).unwrap_or_default();
    let followed = trust_root::chain(&bytes).and_then(|chain| own.follow(&chain));
    followed.unwrap_or(own)
}

/// Fetches what is newer than `known`, which is the newest that is kept, and keeps it.
///
/// Errors: in one clause. A server that has none is none: it may be older than trust roots are.
pub fn catch_up(
    web: &dyn Web,
    known: TrustRoot,
    path: &Path,
    sleep: &mut dyn FnMut(Duration),
) -> Result<TrustRoot, String> {
    let mut newest = known;
    for _ in 0..MOST {
        let number = newest.number.saturating_add(1);
        let wrong = |why: &dyn std::fmt::Display| format!("trust root {number}: {why}");
        let file = match offer::get(web, &places::trust_root(number), MAX_BYTES, sleep) {
            Ok(file) => file,
            Err(Trouble::Missing(_)) => break,
            Err(trouble) => return Err(wrong(&trouble.why())),
        };
        let envelope = match Envelope::parse(&file) {
            // Many servers answer with a page of theirs to whatever is asked for.
            Err(envelope::Error::Magic | envelope::Error::Cut(_)) => break,
            found => found.map_err(|error| wrong(&error))?,
        };
        let next = newest.next(&envelope).map_err(|error| match error {
            // It names the trust root itself.
            Error::Signature { .. } | Error::Gap { .. } => error.to_string(),
            error => wrong(&error),
        })?;
        let next = next.ok_or_else(|| wrong(&"the server sends an older one"))?;
        // Without a data partition it is not kept, and fetched again at the next look.
        let _ = keep(path, &file, &newest);
        newest = next;
    }
    Ok(newest)
}

/// Adds the one after `before` to those that are kept, or begins anew if these do not lead to it.
fn keep(path: &Path, file: &[u8], before: &TrustRoot) -> io::Result<()> {
    let mut bytes = fs::read(path).unwrap_or_default();
    if !leads_to(&bytes, before) {
        bytes.clear();
    }
    bytes.extend_from_slice(file);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    files::keep(path, &bytes, 0o644)
}

fn leads_to(bytes: &[u8], newest: &TrustRoot) -> bool {
    let followed = trust_root::chain(bytes).and_then(|chain| match chain.first() {
        Some(first) if chain.len() < trust_root::MAX_CHAIN => {
            TrustRoot::unverified(first)?.follow(&chain)
        }
        _ => Ok(TrustRoot::default()),
    });
    followed.is_ok_and(|found| found == *newest)
}
