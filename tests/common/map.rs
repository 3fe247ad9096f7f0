//! A socketmap client, as in an MTA process.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// A connection to a map.
pub struct Map {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Map {
    pub fn connect(port: u16) -> Self {
        Self { stream: super::tcp(port).unwrap(), input: Vec::new() }
    }

    /// Sends a query without waiting for the answer.
    pub fn send(&mut self, map: &str, key: &str) {
        let text = format!("{map} {key}");
        self.write(format!("{}:{text},", text.len()).as_bytes()).unwrap();
    }

    pub fn write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(octets)
    }

    /// The next answer; `None`: the connection is closed.
    pub fn answer(&mut self) -> Option<String> {
        loop {
            if let Some(colon) = self.input.iter().position(|octet| *octet == b':') {
                let length: usize = std::str::from_utf8(&self.input[..colon]).unwrap().parse().unwrap();
                let end = colon + 1 + length;
                if self.input.len() > end {
                    assert_eq!(self.input[end], b',');
                    let text = String::from_utf8(self.input[colon + 1..end].to_vec()).unwrap();
                    self.input.drain(..=end);
                    return Some(text);
                }
            }
            let mut piece = [0; 4096];
            match super::retry(|| self.stream.read(&mut piece)) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Sends a query and waits for the answer; `None`: the connection is closed.
    pub fn try_ask(&mut self, map: &str, key: &str) -> Option<String> {
        let text = format!("{map} {key}");
        self.write(format!("{}:{text},", text.len()).as_bytes()).ok()?;
        self.answer()
    }

    pub fn ask(&mut self, map: &str, key: &str) -> String {
        self.send(map, key);
        self.answer().expect("an answer")
    }
}
