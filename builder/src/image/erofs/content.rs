//! Reading file contents piece by piece, and finding files with the same content.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::format::BLOCK_BYTES;
use super::plan::Plan;
use crate::error::{Context, Result};
use crate::tree::{Content, Kind};

/// Bytes read at once: what is read stays in a core's own cache until it is written.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Reads contents; keeps the last pack file open, since neighbours lie in the same one.
#[derive(Default)]
pub(super) struct Reader {
    open: Option<(Arc<PathBuf>, File)>,
    piece: Vec<u8>,
}

impl Reader {
    /// Fills `bytes` from `offset` of a content.
    pub(super) fn read(&mut self, content: &Content, offset: u64, bytes: &mut [u8]) -> Result<()> {
        match content {
            Content::Bytes(whole) => {
                // OK to index: callers ask within `content.length()`, which is in memory.
                let start = offset as usize;
                bytes.copy_from_slice(&whole[start..start + bytes.len()]);
                Ok(())
            }
            Content::Range { path, offset: base, .. } => {
                let at = base + offset;
                let file = self.file(path)?;
                file.read_exact_at(bytes, at).context(|| {
                    format!("cannot read {} bytes at {at} of {}", bytes.len(), path.display())
                })
            }
        }
    }

    /// Calls `take` with each piece of a content in order.
    pub(super) fn pieces(
        &mut self,
        content: &Content,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = std::mem::take(&mut self.piece);
        let mut offset = 0;
        while offset < content.length() {
            let length = (content.length() - offset).min(PIECE_BYTES as u64);
            piece.resize(length as usize, 0);
            self.read(content, offset, &mut piece)?;
            take(&piece)?;
            offset += length;
        }
        self.piece = piece;
        Ok(())
    }

    fn file(&mut self, path: &Arc<PathBuf>) -> Result<&File> {
        // A pack that is not the open one takes its place.
        self.open.take_if(|(open, _)| open != path);
        let (_, file) = match &mut self.open {
            Some(open) => open,
            none => {
                let file = File::open(path.as_ref())
                    .context(|| format!("cannot open {}", path.display()))?;
                none.insert((path.clone(), file))
            }
        };
        Ok(file)
    }
}

/// For each inode the first one that holds the same content; itself if there is none.
///
/// Only files of equal length are read for this, and only if they take a block of their own:
/// less is stored beside the inode and cannot be shared. Files whose inodes differ in length are
/// kept apart, since what fits beside one need not fit beside the other.
pub(super) fn originals(plan: &Plan) -> Result<Vec<usize>> {
    let mut by_length: HashMap<(u64, usize), Vec<usize>> = HashMap::new();
    for (number, inode) in plan.inodes.iter().enumerate() {
        if let Kind::File(content) = &inode.node.kind
            && content.length() >= BLOCK_BYTES as u64
        {
            let key = (content.length(), inode.head_bytes());
            by_length.entry(key).or_default().push(number);
        }
    }
    let mut originals: Vec<usize> = (0..plan.inodes.len()).collect();
    let mut reader = Reader::default();
    for group in by_length.into_values().filter(|group| group.len() > 1) {
        let mut seen: HashMap<[u8; 32], usize> = HashMap::new();
        for number in group {
            if let Kind::File(content) = &plan.inodes[number].node.kind {
                let first = *seen.entry(digest(&mut reader, content)?).or_insert(number);
                originals[number] = first;
            }
        }
    }
    Ok(originals)
}

fn digest(reader: &mut Reader, content: &Content) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    reader.pieces(content, |piece| {
        hash.update(piece);
        Ok(())
    })?;
    Ok(hash.finalize().into())
}
