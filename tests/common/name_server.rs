//! A name server on loopback, with the records of a test.

use std::net::UdpSocket;

/// A record: its name, its type and its data.
#[derive(Debug, Clone)]
pub enum Record {
    Txt(&'static str, String),
    Mx(&'static str, u16, &'static str),
    A(&'static str, [u8; 4]),
}

const TXT: u16 = 16;
const MX: u16 = 15;
const A: u16 = 1;

impl Record {
    fn name(&self) -> &'static str {
        match self {
            Self::Txt(name, _) | Self::Mx(name, ..) | Self::A(name, _) => name,
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Txt(..) => TXT,
            Self::Mx(..) => MX,
            Self::A(..) => A,
        }
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Self::Txt(_, text) => {
                text.as_bytes().chunks(255).flat_map(|part| [&[part.len() as u8], part].concat()).collect()
            }
            Self::Mx(_, preference, host) => [&preference.to_be_bytes()[..], &encoded(host)].concat(),
            Self::A(_, address) => address.to_vec(),
        }
    }
}

/// A name server. It answers until the test ends; names that it does not have do not exist.
pub struct NameServer {
    pub address: String,
}

impl NameServer {
    pub fn start(records: Vec<Record>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                let _ = socket.send_to(&answer(&query[..length], &records), client);
            }
        });
        Self { address }
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let mut octets: Vec<u8> =
        name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    octets.push(0);
    octets
}

/// The answer to a query (RFC 1035 section 4).
fn answer(query: &[u8], records: &[Record]) -> Vec<u8> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let found: Vec<&Record> = records.iter().filter(|it| it.name() == name && it.kind() == kind).collect();
    let exists = records.iter().any(|it| it.name() == name);
    let mut answer = query[..2].to_vec();
    answer.extend([0x85, if exists { 0x80 } else { 0x83 }, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    answer.extend(&query[12..at + 5]);
    for record in found {
        let data = record.data();
        answer.extend([0xc0, 12]);
        answer.extend(record.kind().to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 60]);
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    }
    answer
}
