//! The parsers of what a server sends.
use ondisk::bundle::Group;
use ondisk::channel::{self, ALL, Channel, Conditions, Fields, Needs, PackEntry, State, places};
use ondisk::digest::Digest;
use ondisk::envelope::Role;
use ondisk::pack::patch::{self, Step};
use ondisk::pack::recipe::{self, MAX_CONTENT_BYTES, Part, Recipe};
use ondisk::pack::{Frame, Piece, Table};
use ondisk::trust_root::{self, Quorum, TrustRoot};

use super::targets::KEYS;
use crate::sim::fixture::signed_here;

pub(super) fn channel_seeds() -> Vec<Vec<u8>> {
    let blob = |length| ondisk::bundle::Blob { length, sha256: Digest::of(b"a blob") };
    let fields = |packs, state, conditions| Fields {
        name: "stable".to_owned(),
        board: "generic-aarch64".to_owned(),
        sequence: 7,
        issued_s: 1_764_341_000,
        state,
        share: ALL,
        version: "2026.11.1".to_owned(),
        rollback_index: 3,
        slot_manifest: blob(1402),
        front_bytes: 98_304,
        bundle_bytes: 48_412_345,
        conditions,
        packs,
    };
    let pack = |base| PackEntry { base, table: blob(9213), length: 61_234_567 };
    let packs = vec![pack(None), pack(Some(Digest::of(b"a base")))];
    let needs = Some(Needs { rollback_index: 2, through: Some("stable-2".to_owned()) });
    let notes = vec!["Closes a hole.".to_owned(), "Starts sooner.".to_owned()];
    let all = Conditions { open_by_s: Some(1_764_427_400), critical: true, needs, notes };
    [fields(Vec::new(), State::Paused, all), fields(packs, State::Open, Conditions::default())]
        .map(|fields| fields.encode().into_bytes())
        .to_vec()
}

/// What is accepted has one form, and its names are safe in a path and in an address.
pub(super) fn channel(input: &[u8]) -> String {
    let Some(file) = signed_here(Role::CHANNEL, input) else {
        return "too long to sign".to_owned();
    };
    let found = channel::Unverified::parse(&file).and_then(|found| found.verify(&KEYS));
    let channel = match found {
        Ok((channel, _)) => channel,
        Err(error) => return error.to_string(),
    };
    assert_eq!(channel.encode().as_bytes(), input, "there is a second way to write it");
    let path = places::channel(&channel.name, &channel.board);
    assert!(!path.contains("..") && path.matches('/').count() == 2, "{path}");
    let notes = &channel.conditions.notes;
    assert!(!notes.iter().any(|note| note.chars().any(char::is_control)), "{notes:?}");
    assert!((channel.share..=ALL).contains(&channel.share_at(1_764_400_000)));
    assert!(channel.front_bytes <= channel.bundle_bytes);
    assert!(channel.packs.iter().all(|pack| pack.table.length <= pack.length));
    assert!(Channel::new(Fields::clone(&channel)).is_ok());
    format!("good {} {}", channel.state, channel.packs.len())
}

pub(super) fn trust_root_seeds() -> Vec<Vec<u8>> {
    let plain = TrustRoot { number: 2, ..KEYS.clone() };
    let more = TrustRoot { revoked: vec![Digest::of(b"a release")], ..plain.clone() };
    [plain, more].map(|root| root.encode().into_bytes()).to_vec()
}

/// What follows is the next, has one form, and somebody for every role.
pub(super) fn trust_root(input: &[u8]) -> String {
    let Some(file) = signed_here(Role::TRUST_ROOT, input) else {
        return "too long to sign".to_owned();
    };
    let chain = match trust_root::chain(&file) {
        Ok(chain) => chain,
        Err(error) => return error.to_string(),
    };
    match KEYS.follow(&chain) {
        Ok(root) if root == *KEYS => "older".to_owned(),
        Ok(root) => {
            assert_eq!(root.encode().as_bytes(), input, "there is a second way to write it");
            assert!(root.number == 2 && root.check().is_ok());
            let able = |quorum: &Quorum| (1..=quorum.keys().len()).contains(&quorum.threshold());
            assert!(root.roles().iter().all(|(_, quorum)| able(quorum)));
            format!("good {}", root.revoked.len())
        }
        Err(error) => error.to_string(),
    }
}

/// Of an image of so many groups.
fn groups() -> Vec<Group> {
    (1..=6).map(|blocks| Group { blocks: blocks * 7, sha256: Digest::of(b"a group") }).collect()
}

pub(super) fn pack_seeds() -> Vec<Vec<u8>> {
    let frame = Frame { length: 5000, sha256: Digest::of(b"a frame") };
    let patched = Piece::Patched { frame, block: 9, blocks: 64 };
    let any =
        vec![Piece::Raw, Piece::Packed(frame), Piece::Raw, Piece::Raw, Piece::Raw, Piece::Raw];
    let from = vec![Piece::Copy(3), patched, Piece::Raw, Piece::Packed(frame), patched, Piece::Raw];
    let release = Digest::of(b"a release");
    let table = |base, libzstd, pieces| Table { release, base, libzstd, pieces };
    vec![
        table(None, None, any).encode(),
        table(Some(Digest::of(b"a base")), Some(10507), from).encode(),
    ]
}

/// A table has one form, and nothing in it is longer than what it makes.
pub(super) fn pack(input: &[u8]) -> String {
    let groups = groups();
    let table = match Table::decode(input, &groups) {
        Ok(table) => table,
        Err(error) => return error.to_string(),
    };
    assert_eq!(table.encode(), input, "there is a second way to write it");
    let offsets = table.offsets(&groups);
    let image: u64 = groups.iter().map(Group::bytes).sum();
    assert!(offsets.is_sorted() && offsets.last().is_some_and(|end| *end <= image));
    let has_base = table.base.is_some();
    let looks = |piece: &Piece| matches!(piece, Piece::Copy(_) | Piece::Patched { .. });
    assert!(has_base || !table.pieces.iter().any(looks), "a base out of nowhere");
    format!("good {has_base}")
}

pub(super) fn patch_seeds() -> Vec<Vec<u8>> {
    let step =
        |add: usize, insert: usize, seek| Step { add: vec![1; add], insert: vec![2; insert], seek };
    let seeds = [vec![step(60, 4, 0)], vec![step(10, 20, -5), step(30, 0, 40), step(4, 0, 0)]];
    seeds.iter().filter_map(|steps| patch::encode(steps)).collect()
}

/// A patch makes what it is to make, or nothing.
pub(super) fn patch(input: &[u8]) -> String {
    let old: Vec<u8> = (0..100).collect();
    match patch::apply(input, &old, 64) {
        Some(new) => {
            assert_eq!(new.len(), 64);
            "good".to_owned()
        }
        None => "refused".to_owned(),
    }
}

/// Blocks of the group that recipes are for.
const GROUP_BLOCKS: u32 = 6;

pub(super) fn recipe_seeds() -> Vec<Vec<u8>> {
    let plain = Part { stored: 8192, level: 0, content: 8192 };
    let span = Part { stored: 16_384, level: 19, content: 30_000 };
    let within = Part { stored: 5000, level: 3, content: 9000 };
    let rest = Part { stored: 3192, level: 0, content: 3192 };
    let seeds = [vec![plain, span], vec![span, within, rest], vec![plain; 3]];
    let recipe = |parts| Recipe { base: Digest::of(b"a base"), parts };
    seeds.map(|parts| [recipe(parts).encode(), b"a patch".to_vec()].concat()).to_vec()
}

/// A recipe has one form and is for all of its group.
pub(super) fn recipe(input: &[u8]) -> String {
    let Some((recipe, patch)) = recipe::decode(input, GROUP_BLOCKS) else {
        return "refused".to_owned();
    };
    assert_eq!([&recipe.encode()[..], patch].concat(), input, "there is a second way to write it");
    let content = recipe::content_bytes(&recipe.parts);
    let content = content.filter(|length| *length <= MAX_CONTENT_BYTES);
    let content = vec![0; content.expect("more content than a device has room for")];
    let pack = |_: u8, content: &[u8]| Some(vec![1; content.len().min(4096)]);
    if let Some(group) = recipe::make(&recipe.parts, &content, pack) {
        assert_eq!(group.len(), GROUP_BLOCKS as usize * 4096);
    }
    format!("good {}", recipe.parts.len())
}
