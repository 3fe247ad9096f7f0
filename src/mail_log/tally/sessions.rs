//! The clients of recent sessions of OpenSMTPD.

use super::super::event::Client;

/// Sessions that are remembered.
const MAX: usize = 256;

/// Sessions by their names.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    of: Vec<([u8; 16], Client)>,
    next: usize,
}

impl Sessions {
    pub(super) fn note(&mut self, name: [u8; 16], by: Client) {
        match self.of.get_mut(self.next) {
            Some(place) => *place = (name, by),
            None => self.of.push((name, by)),
        }
        self.next = (self.next + 1) % MAX;
    }

    pub(super) fn client(&self, name: [u8; 16]) -> Client {
        self.of.iter().find(|(known, _)| *known == name).map_or(Client::Unknown, |(_, by)| *by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut sessions = Sessions::default();
        for n in 0..=MAX {
            sessions.note(format!("{n:016x}").into_bytes().try_into().unwrap(), Client::User);
        }
        assert_eq!(sessions.client(*b"0000000000000000"), Client::Unknown);
        assert_eq!(sessions.client(*b"0000000000000100"), Client::User);
        assert_eq!(sessions.of.len(), MAX);
    }
}
