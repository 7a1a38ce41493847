//! A network whose servers lie: they give addresses, names and the time as a test wants.
//!
//! It is the other end of a virtual network card ([`Network::Socket`]). Each frame of the guest is
//! answered by a function that does nothing else, in the manners of the moment. Layouts: ARP is RFC
//! 826, IPv4 RFC 791, UDP RFC 768, DHCP RFC 2131 and 2132, DNS RFC 1035, NTP RFC 5905.
//!
//! [`Network::Socket`]: builder::host::qemu::Network::Socket

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The address of all servers of this network.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
/// The address that an honest server gives.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const EVERYBODY_MAC: [u8; 6] = [0xff; 6];
/// Seconds from NTP's first day, 1 January 1900, to that of Unix.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// How the servers behave.
#[derive(Clone)]
pub struct Manners {
    /// Who asks for an address.
    pub dhcp: Dhcp,
    /// Who asks for a name; `None` keeps silent.
    pub dns: Option<DnsAnswer>,
    /// Who asks for the time gets this many seconds more than it is.
    pub ahead_s: u64,
}

/// What a question about a name brings, a datagram each.
pub type DnsAnswer = fn(question: &[u8]) -> Vec<Vec<u8>>;

/// How a client of DHCP is treated.
#[derive(Clone)]
pub enum Dhcp {
    /// It gets no answer.
    Silent,
    /// It gets offers, and no answer when it takes one.
    Offers(Lease),
    /// It gets an offer, and a refusal when it takes it.
    Refuses(Lease),
    /// It gets what it asks for, this many times over.
    Gives(Lease, usize),
    /// It gets these bytes behind the head of each answer, and nothing that would be an answer.
    Mumbles(Vec<u8>),
}

/// What a server of DHCP gives.
#[derive(Clone)]
pub struct Lease {
    /// The client's address from now on.
    pub address: Ipv4Addr,
    /// The options behind the kind of the message, with their end if they have one.
    pub options: Vec<u8>,
}

impl Lease {
    /// As any home router gives it, this network being the only way to anywhere.
    pub fn honest() -> Self {
        let options = [
            option(54, &SERVER.octets()),
            option(51, &3600_u32.to_be_bytes()),
            option(1, &[255, 255, 255, 0]),
            option(6, &SERVER.octets()),
            vec![255],
        ];
        Self { address: CLIENT, options: options.concat() }
    }

    /// The same with these options before the others.
    pub fn with(options: &[(u8, &[u8])]) -> Self {
        let honest = Self::honest();
        let mut all: Vec<u8> =
            options.iter().flat_map(|(code, value)| option(*code, value)).collect();
        all.extend(honest.options);
        Self { options: all, ..honest }
    }
}

/// Values of more than 255 bytes go into several options of one code (RFC 3396).
fn option(code: u8, value: &[u8]) -> Vec<u8> {
    if value.is_empty() {
        return vec![code, 0];
    }
    let pieces = value.chunks(255);
    pieces.flat_map(|piece| [&[code, piece.len() as u8], piece].concat()).collect()
}

impl Manners {
    /// A network that nobody would write a test about.
    pub fn honest() -> Self {
        Self { dhcp: Dhcp::Gives(Lease::honest(), 1), dns: None, ahead_s: 0 }
    }
}

/// What the guest wanted so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Messages of DHCP.
    pub dhcp: usize,
    /// Questions about names.
    pub dns: usize,
    /// Questions about the time.
    pub ntp: usize,
}

/// A network that runs; it ends with the test.
pub struct RogueNetwork {
    directory: tempfile::TempDir,
    state: Arc<Mutex<(Manners, Heard)>>,
}

impl RogueNetwork {
    /// Waits for cards.
    pub fn start(manners: Manners) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new((manners, Heard::default())));
        let network = Self { directory, state: Arc::clone(&state) };
        let listener = UnixListener::bind(network.socket()).unwrap();
        thread::spawn(move || {
            for card in listener.incoming().flatten() {
                // A card that is pulled out ends its connection.
                let _ = serve(card, &state);
            }
        });
        network
    }

    /// Where cards are plugged in.
    pub fn socket(&self) -> PathBuf {
        self.path().join("network")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// From now on the servers behave like this. What was heard is counted anew.
    pub fn behaves(&self, manners: Manners) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (manners, Heard::default());
    }

    /// What the guest wanted since the manners changed.
    pub fn heard(&self) -> Heard {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

fn serve(mut card: UnixStream, state: &Mutex<(Manners, Heard)>) -> std::io::Result<()> {
    let begun = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    loop {
        let mut length = [0; 4];
        card.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        card.read_exact(&mut frame)?;
        let answers = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (manners, heard) = &mut *state;
            let now_s = (started + begun.elapsed()).as_secs();
            answers(&frame, manners, heard, now_s).unwrap_or_default()
        };
        for answer in answers {
            card.write_all(&(answer.len() as u32).to_be_bytes())?;
            card.write_all(&answer)?;
        }
    }
}

/// What comes back for a frame; `None` if it is nothing that is answered.
fn answers(frame: &[u8], manners: &Manners, heard: &mut Heard, now_s: u64) -> Option<Vec<Vec<u8>>> {
    match frame.get(12..14)? {
        [8, 6] => Some(vec![arp(frame)?]),
        [8, 0] => {
            let question = Question::parse(frame)?;
            match question.port {
                67 => {
                    heard.dhcp += 1;
                    dhcp(&question, &manners.dhcp)
                }
                53 => {
                    heard.dns += 1;
                    let answers = manners.dns?(question.payload);
                    Some(answers.iter().map(|answer| question.answered(answer)).collect())
                }
                123 => {
                    heard.ntp += 1;
                    let now_s = now_s.saturating_add(manners.ahead_s);
                    Some(vec![question.answered(&ntp(question.payload, now_s)?)])
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whoever looks for the server finds it.
fn arp(frame: &[u8]) -> Option<Vec<u8>> {
    let body = frame.get(14..42)?;
    if body[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || body[24..] != SERVER.octets() {
        return None;
    }
    let asker = &body[8..18];
    let head = [&asker[..6], &SERVER_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    Some([&head[..], &SERVER_MAC, &SERVER.octets(), asker].concat())
}

/// A datagram of the guest.
struct Question<'a> {
    mac: [u8; 6],
    address: [u8; 4],
    /// The server's.
    to: [u8; 4],
    /// The guest's.
    from_port: [u8; 2],
    /// The server's.
    port: u16,
    payload: &'a [u8],
}

impl<'a> Question<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let head = usize::from(packet.first()? & 15) * 4;
        let datagram = packet.get(head..)?;
        if packet.get(9) != Some(&17) {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(datagram.get(4..6)?.try_into().ok()?));
        Some(Self {
            mac: frame.get(6..12)?.try_into().ok()?,
            address: packet.get(12..16)?.try_into().ok()?,
            to: packet.get(16..20)?.try_into().ok()?,
            from_port: datagram.get(..2)?.try_into().ok()?,
            port: u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?),
            payload: datagram.get(8..length)?,
        })
    }

    /// A frame with an answer to whoever asked.
    fn answered(&self, payload: &[u8]) -> Vec<u8> {
        let (mac, to) = (&self.mac, &self.address);
        datagram((mac, to, self.from_port), (&self.to, self.port), payload)
    }
}

/// A frame with a datagram without a sum of its own, which IPv4 allows.
fn datagram(
    (mac, to, to_port): (&[u8; 6], &[u8; 4], [u8; 2]),
    (from, from_port): (&[u8; 4], u16),
    payload: &[u8],
) -> Vec<u8> {
    let length = (payload.len() + 8) as u16;
    let mut head = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head[2..4].copy_from_slice(&(length + 20).to_be_bytes());
    head[12..16].copy_from_slice(from);
    head[16..20].copy_from_slice(to);
    let sum: u32 =
        head.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    head[10..12].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
    let frame = [&mac[..], &SERVER_MAC, &[8, 0], &head];
    let udp = [&from_port.to_be_bytes()[..], &to_port, &length.to_be_bytes(), &[0, 0], payload];
    [frame.concat(), udp.concat()].concat()
}

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

fn dhcp(question: &Question<'_>, manners: &Dhcp) -> Option<Vec<Vec<u8>>> {
    let asked = *question.payload.get(240..)?.windows(3).find(|it| it[..2] == [53, 1])?.get(2)?;
    let discovers = asked == DISCOVER;
    let say = |kind: u8, lease: &Lease| {
        let options = [&[53, 1, kind], &lease.options[..]].concat();
        from_server(question.payload, lease.address, &options)
    };
    let refusal = || {
        let options = [option(54, &SERVER.octets()), vec![255]].concat();
        say(NAK, &Lease { address: Ipv4Addr::UNSPECIFIED, options })
    };
    match manners {
        Dhcp::Silent => None,
        Dhcp::Offers(lease) => discovers.then(|| vec![say(OFFER, lease)]),
        Dhcp::Refuses(lease) if discovers => Some(vec![say(OFFER, lease)]),
        Dhcp::Refuses(_) => Some(vec![refusal()]),
        Dhcp::Gives(lease, times) => {
            Some(vec![say(if discovers { OFFER } else { ACK }, lease); *times])
        }
        Dhcp::Mumbles(bytes) => Some(vec![from_server(question.payload, CLIENT, bytes)]),
    }
}

/// An answer of a server of DHCP to a message.
fn from_server(asked: &[u8], address: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    // The head goes back as it came, with the address in it.
    let mut message = asked[..240].to_vec();
    message[0] = 2;
    message[16..20].copy_from_slice(&address.octets());
    message.extend(options);
    let to = (&EVERYBODY_MAC, &[255; 4], 68_u16.to_be_bytes());
    datagram(to, (&SERVER.octets(), 67), &message)
}

fn ntp(asked: &[u8], now_s: u64) -> Option<Vec<u8>> {
    let sent = asked.get(40..48)?;
    // Whoever asks counts in 2^32 seconds from 1900 on, and begins anew in 2036.
    let stamp = u64::from((now_s.wrapping_add(NTP_TO_UNIX_S)) as u32) << 32;
    let stamp = stamp.to_be_bytes();
    // Version 4, a server, stratum 1, as exact as a microsecond.
    let head = [0x24, 1, asked[2], 0xec, 0, 0, 0, 0, 0, 0, 0, 0];
    Some([&head[..], b"LIAR", &stamp, sent, &stamp, &stamp].concat())
}

/// An answer to a question about a name: flags, how many answers it claims, and what follows the
/// question.
pub fn dns_answer(question: &[u8], flags: u16, count: u16, rest: &[u8]) -> Vec<u8> {
    let Some(id) = question.get(..2) else { return Vec::new() };
    let counts = [&flags.to_be_bytes()[..], &[0, 1], &count.to_be_bytes(), &[0, 0, 0, 0]].concat();
    let name = question.get(12..).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0).map_or(0, |end| end + 5);
    [id, &counts, name.get(..end).unwrap_or_default(), rest].concat()
}

/// An answer that is an IPv4 address; whoever asks for another kind hears that there is none.
pub fn dns_address(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let name = question.get(12..).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0).unwrap_or_default();
    if name.get(end + 1..end + 3) != Some(&[0, 1]) {
        return dns_answer(question, 0x8180, 0, &[]);
    }
    let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4], &address.octets()[..]].concat();
    dns_answer(question, 0x8180, 1, &record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's message of this kind, in its frame.
    fn asks(kind: u8) -> Vec<u8> {
        let mut message = vec![0; 240];
        message[..8].copy_from_slice(&[1, 1, 6, 0, 9, 8, 7, 6]);
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        message.extend([53, 1, kind, 255]);
        let to = (&SERVER_MAC, &[255; 4], 67_u16.to_be_bytes());
        datagram(to, (&[0; 4], 68), &message)
    }

    #[test]
    fn an_honest_server_offers_and_gives_and_a_dishonest_one_does_not() {
        let kinds = |manners: Dhcp, asked: u8| -> Vec<u8> {
            let (mut heard, manners) = (Heard::default(), Manners { dhcp: manners, ..honest() });
            let answers = answers(&asks(asked), &manners, &mut heard, 0).unwrap_or_default();
            assert_eq!(heard.dhcp, 1);
            // Behind the heads of Ethernet, IPv4, UDP and DHCP, and the code and length.
            answers.iter().map(|frame| frame[14 + 20 + 8 + 240 + 2]).collect()
        };
        let lease = Lease::honest;
        assert_eq!(kinds(Dhcp::Gives(lease(), 1), DISCOVER), [OFFER]);
        assert_eq!(kinds(Dhcp::Gives(lease(), 3), 3), [ACK; 3]);
        assert_eq!(kinds(Dhcp::Offers(lease()), DISCOVER), [OFFER]);
        assert!(kinds(Dhcp::Offers(lease()), 3).is_empty());
        assert_eq!(kinds(Dhcp::Refuses(lease()), 3), [NAK]);
        assert!(kinds(Dhcp::Silent, DISCOVER).is_empty());
    }

    fn honest() -> Manners {
        Manners::honest()
    }

    #[test]
    fn heads_have_the_sums_that_receivers_check() {
        let frame = datagram((&[1; 6], &[10, 0, 0, 1], [0, 68]), (&[10, 0, 0, 2], 67), b"abc");
        let words = frame[14..34].chunks(2);
        let sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        let question = Question::parse(&frame).unwrap();
        assert_eq!((question.payload, question.port), (&b"abc"[..], 68));
    }

    #[test]
    fn a_name_gets_an_address_and_only_of_the_kind_that_was_asked_for() {
        let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
        let answer = dns_address(question, SERVER);
        assert_eq!(answer[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(answer.ends_with(&[0, 4, 10, 66, 0, 1]));
        let mut other = question.to_vec();
        other[16] = 28;
        assert_eq!(dns_address(&other, SERVER)[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0]);
    }

    #[test]
    fn the_time_that_is_told_is_ahead_of_ours() {
        let day_2099 = ntp(&[0; 48], 4_070_908_800).unwrap();
        let stamp = u32::from_be_bytes(day_2099[40..44].try_into().unwrap());
        assert_eq!(u64::from(stamp) + (1 << 32), 4_070_908_800 + NTP_TO_UNIX_S);
        assert!(ntp(&[0; 47], 0).is_none());
    }
}
